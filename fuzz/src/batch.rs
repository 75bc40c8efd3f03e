//! A batch as text, so that batches with different dictionaries compare; on the way everything in it is checked.

use anomalyd::model::{AttributeRange, Attributes, Batch, PointValue, Symbol, Symbols, Value};

struct Texts<'b> {
    symbols: &'b Symbols,
    attributes: &'b Attributes,
}

impl Texts<'_> {
    fn text(&self, symbol: Symbol) -> &str {
        assert!(symbol.index() < self.symbols.len(), "{symbol:?} is not in the dictionary");
        self.symbols.get(symbol)
    }

    fn attributes(&self, range: AttributeRange) -> String {
        let one = |a: &anomalyd::model::Attribute| {
            let value = match a.value {
                Value::Str(s) => format!("{:?}", self.text(s)),
                Value::Json(s) => {
                    let text = self.text(s);
                    assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "`{text}` is not JSON");
                    format!("json {text}")
                }
                Value::Bool(v) => v.to_string(),
                Value::Int(v) => v.to_string(),
                Value::Double(v) => format!("{v:?}"),
            };
            format!("{:?}={value}", self.text(a.key))
        };
        self.attributes.get(range).iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

/// Every row with all its texts in place.
///
/// # Panics
/// Where a row is not what the model says of it.
pub(crate) fn rows(batch: &Batch) -> Vec<String> {
    match batch {
        Batch::Traces(b) => {
            let t = Texts { symbols: &b.symbols, attributes: &b.attributes };
            let row = |r: &anomalyd::model::Span| {
                assert!(r.weight.is_finite() && r.weight > 0.0, "a span of weight {}", r.weight);
                let (resource, own, name) = (t.attributes(r.resource), t.attributes(r.attributes), t.text(r.name));
                let ids = (r.trace_id, r.span_id, r.parent_span_id);
                let times = format!("{} +{}", r.start.0, r.duration);
                format!("[{resource}] {name:?} {:?} {:?} {times} x{} {ids:?} [{own}]", r.kind, r.status, r.weight)
            };
            b.rows.iter().map(row).collect()
        }
        Batch::Logs(b) => {
            let t = Texts { symbols: &b.symbols, attributes: &b.attributes };
            let row = |r: &anomalyd::model::LogRecord| {
                assert!(r.severity_number <= 24, "severity {}", r.severity_number);
                let (resource, own) = (t.attributes(r.resource), t.attributes(r.attributes));
                let (body, event, ids) = (t.text(r.body), t.text(r.event_name), (r.trace_id, r.span_id));
                format!("[{resource}] {} {} {body:?} {event:?} {ids:?} [{own}]", r.time.0, r.severity_number)
            };
            b.rows.iter().map(row).collect()
        }
        Batch::Metrics(b) => {
            let t = Texts { symbols: &b.symbols, attributes: &b.attributes };
            let row = |r: &anomalyd::model::Point| {
                let metric = b.metrics.get(r.metric as usize);
                assert!(metric.is_some(), "a point of metric {} of {}", r.metric, b.metrics.len());
                let metric =
                    metric.map(|m| format!("{:?} {:?} {:?}", t.text(m.name), t.text(m.unit), m.kind)).unwrap_or_default();
                let value = match &r.value {
                    PointValue::Number(v) => {
                        assert!(v.is_finite(), "a point of value {v}");
                        format!("{v:?}")
                    }
                    PointValue::Distribution(d) => {
                        let bins = b.bins_of(d);
                        assert!(d.count.is_finite() && d.count >= 0.0, "a distribution of {} values", d.count);
                        assert!(!d.sum.is_infinite(), "a distribution of sum {}", d.sum);
                        let good = |(value, count): &(f64, f64)| value.is_finite() && count.is_finite() && *count >= 0.0;
                        assert!(bins.iter().all(good) && bins.is_sorted_by(|a, b| a.0 <= b.0), "bins {bins:?}");
                        format!("n={} sum={:?} {bins:?}", d.count, d.sum)
                    }
                };
                let (resource, own) = (t.attributes(r.resource), t.attributes(r.attributes));
                format!("[{resource}] {metric} {} from {} {value} [{own}]", r.time.0, r.start.0)
            };
            b.rows.iter().map(row).collect()
        }
    }
}
