//! Spans and log records as the Collector's Elasticsearch exporter writes them.

use super::columns::{Columns, Writer, id, json, word};
use super::fields::Fields;
use crate::model::{AttributeRange, LogRecord, SeverityBand, Span, SpanKind, StatusCode, UnixNanos, adjusted_count};

const RESOURCE: &str = "resource.attributes.";
const ATTRIBUTES: &str = "attributes.";

/// Adds a span.
///
/// # Errors
/// What is wrong with the document.
pub(super) fn span(fields: &Fields, time: UnixNanos, columns: &mut Columns) -> Result<(), String> {
    let duration = duration(fields)?;
    let batch = &mut columns.spans;
    let mut writer = Writer::new(&mut batch.symbols, &mut batch.attributes);
    let resource = resource(&mut writer, fields, &mut columns.resources.spans);
    let attributes = attributes(&mut writer, fields);
    batch.rows.push(Span {
        resource,
        name: word(&mut batch.symbols, fields.text(&["name"]).unwrap_or("")),
        kind: fields.text(&["kind"]).map_or(SpanKind::Unspecified, kind),
        status: fields.text(&["status.code"]).map_or(StatusCode::Unset, status),
        start: time,
        duration,
        weight: weight(fields),
        trace_id: id(fields.text(&["trace_id"])),
        span_id: id(fields.text(&["span_id"])),
        parent_span_id: id(fields.text(&["parent_span_id"])),
        attributes,
    });
    Ok(())
}

/// Nanoseconds. The exporter subtracts without looking, so an end before the start comes as a huge number: that
/// counts as 0, as it does over OTLP.
fn duration(fields: &Fields) -> Result<u64, String> {
    const WRAPPED: f64 = 9.2e18;
    let field = fields.get("duration").ok_or("`duration` is missing")?;
    let nanos = field.number().ok_or_else(|| format!("`duration` is not a number of nanoseconds: {}", json(field)))?;
    Ok(if nanos < WRAPPED { nanos.max(0.0) as u64 } else { 0 })
}

/// A span's role by any of its usual names: `Server`, `SERVER`, `SPAN_KIND_SERVER`.
pub(super) fn kind(text: &str) -> SpanKind {
    let text = text.strip_prefix("SPAN_KIND_").unwrap_or(text);
    let kinds = [SpanKind::Internal, SpanKind::Server, SpanKind::Client, SpanKind::Producer, SpanKind::Consumer];
    kinds.into_iter().find(|k| k.as_str().eq_ignore_ascii_case(text)).unwrap_or(SpanKind::Unspecified)
}

fn status(text: &str) -> StatusCode {
    match text {
        "Ok" | "OK" | "STATUS_CODE_OK" => StatusCode::Ok,
        "Error" | "ERROR" | "STATUS_CODE_ERROR" => StatusCode::Error,
        _ => StatusCode::Unset,
    }
}

/// How many calls a span stands for: as Elastic's processor computed it, or from the sampling threshold.
fn weight(fields: &Fields) -> f64 {
    let counted = fields.number(&["attributes.transaction.representative_count", "attributes.span.representative_count"]);
    let counted = counted.or_else(|| adjusted_count(fields.text(&["trace_state"])?));
    counted.filter(|w| w.is_finite() && *w > 0.0).unwrap_or(1.0)
}

/// Adds a log record.
pub(super) fn log(fields: &Fields, time: UnixNanos, columns: &mut Columns) {
    let batch = &mut columns.logs;
    let mut writer = Writer::new(&mut batch.symbols, &mut batch.attributes);
    let resource = resource(&mut writer, fields, &mut columns.resources.logs);
    let attributes = attributes(&mut writer, fields);
    let body = match fields.text(&["body.text", "body_text", "body", "message"]) {
        Some(text) => batch.symbols.push(text),
        None => structured_body(fields).map_or_else(Default::default, |text| batch.symbols.push(&text)),
    };
    let number = fields.number(&["severity_number"]).filter(|n| (1.0..=24.0).contains(n)).map(|n| n as u8);
    let by_name = || fields.text(&["severity_text"]).and_then(SeverityBand::number_of);
    batch.rows.push(LogRecord {
        resource,
        time,
        severity_number: number.or_else(by_name).unwrap_or(0),
        body,
        event_name: word(&mut batch.symbols, fields.text(&["event_name", "attributes.event.name"]).unwrap_or("")),
        trace_id: id(fields.text(&["trace_id"])),
        span_id: id(fields.text(&["span_id"])),
        attributes,
    });
}

/// The JSON text of a body that is not a text. Its inner objects come out with dotted keys.
fn structured_body(fields: &Fields) -> Option<String> {
    let mut object = serde_json::Map::new();
    for (path, values) in fields.runs() {
        let Some(inner) = path.strip_prefix("body.").filter(|i| *i != "text") else { continue };
        let key = inner.strip_prefix("structured.").or_else(|| inner.strip_prefix("flattened.")).unwrap_or(inner);
        let value = match values.single() {
            Some(one) => json(one),
            None => values.iter().map(json).collect(),
        };
        object.insert(key.to_owned(), value);
    }
    (!object.is_empty()).then(|| serde_json::Value::Object(object).to_string())
}

/// The resource's attributes.
pub(super) fn resource(writer: &mut Writer<'_>, fields: &Fields, last: &mut AttributeRange) -> AttributeRange {
    writer.shared(last, |w| below(w, fields, RESOURCE))
}

/// The record's attributes.
pub(super) fn attributes(writer: &mut Writer<'_>, fields: &Fields) -> AttributeRange {
    writer.own(|w| below(w, fields, ATTRIBUTES))
}

fn below(writer: &mut Writer<'_>, fields: &Fields, prefix: &str) {
    for (path, values) in fields.runs() {
        if let Some(key) = path.strip_prefix(prefix) {
            writer.put_all(key, values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sampling_threshold_tells_how_many_calls_a_span_stands_for() {
        for (state, count) in
            [("ot=th:0", Some(1.0)), ("vendor=x,ot=rv:1;th:c", Some(4.0)), ("ot=th:8", Some(2.0)), ("ot=th:fd70a4", Some(100.0))]
        {
            let found = adjusted_count(state);
            assert!(found.zip(count).is_some_and(|(a, b)| (a - b).abs() < 1e-3), "{state}: {found:?}");
        }
        for state in ["", "ot=", "ot=th:", "ot=th:xyz", "ot=th:ffffffffffffffff", "th:8"] {
            assert_eq!(adjusted_count(state), None, "{state}");
        }
    }

    #[test]
    fn roles_are_known_by_all_their_names() {
        for text in ["Server", "SERVER", "SPAN_KIND_SERVER", "server"] {
            assert_eq!(kind(text), SpanKind::Server);
        }
        assert_eq!(kind("Unspecified"), SpanKind::Unspecified);
    }
}
