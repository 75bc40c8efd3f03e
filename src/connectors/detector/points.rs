//! Metric points become measures.
//!
//! | point | measure | series |
//! |---|---|---|
//! | gauge, cumulative up-down sum | level | mean |
//! | delta sum | change over the time it covers | rate |
//! | cumulative sum | reading of a total | rate |
//! | histogram, exponential histogram | distribution, or reading of one | rate, mean, p95 |
//! | summary | reading of its count; one level per quantile | rate; mean per quantile |

use std::sync::Arc;

use detection::Sketch;
use hashbrown::HashSet;

use super::bucket::Kind;
use super::core::Item;
use super::key::{Key, Who};
use crate::model::{
    AttributeRange, Attributes, Distribution, Entity, Measure, Metric, MetricKind, Point, PointValue, Points, Reading,
    ServiceVersion, Symbols, Temporality, UnixNanos, Value, VersionsSeen,
};
use crate::text::{Cache, clip};

/// Names and values are cut to this many bytes.
const MAX_TEXT: usize = 512;

/// Bytes of entities, and of names, that are kept for the next batch: enough for those of 100,000 series. Where they are
/// less, each is made anew every time.
const MAX_CACHED: usize = 64 << 20;

/// What a sender that does not say its service is called, as OpenTelemetry has it.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Says which instance of a service reports, the best first.
const INSTANCE: [&str; 3] = ["service.instance.id", "k8s.pod.name", "host.name"];

/// What is kept between batches, so that what repeats is stored once.
#[derive(Debug)]
pub(super) struct Names {
    entities: Cache<Who>,
    texts: Cache<Arc<str>>,
    /// Entities that shards hold already and nobody has met since.
    restored: HashSet<Who>,
    key: String,
}

impl Default for Names {
    fn default() -> Self {
        Self { entities: Cache::new(MAX_CACHED), texts: Cache::new(MAX_CACHED), restored: HashSet::new(), key: String::new() }
    }
}

/// The measures of a batch.
#[derive(Debug, Default)]
pub(super) struct Measured {
    pub(super) items: Vec<Item>,
    /// Points that have no number or no time.
    pub(super) not_finite: u64,
    pub(super) no_time: u64,
    /// Of the services that the points are of.
    pub(super) versions: Vec<ServiceVersion>,
}

/// Turns a batch into measures.
pub(super) fn measure(points: &Points, names: &mut Names) -> Measured {
    let mut measured = Measured { items: Vec::with_capacity(points.rows.len()), ..Measured::default() };
    let metrics: Vec<(Arc<str>, Arc<str>)> =
        points.metrics.iter().map(|m| (names.text(points.symbols.get(m.name)), names.text(points.symbols.get(m.unit)))).collect();
    let mut versions = VersionsSeen::new(&points.symbols);
    for point in &points.rows {
        let index = point.metric as usize;
        let (Some(metric), Some((name, unit))) = (points.metrics.get(index), metrics.get(index)) else {
            measured.not_finite += 1;
            continue;
        };
        if point.time == UnixNanos::default() {
            measured.no_time += 1;
            continue;
        }
        versions.note(&points.attributes, point.resource, point.time);
        let Some((kind, value)) = value(points, metric, point) else {
            measured.not_finite += 1;
            continue;
        };
        let entity = names.entity(points, point, None);
        let covers = point.time.0.saturating_sub(point.start.0) as f64 / UnixNanos::SECOND as f64;
        let item = Item {
            entity,
            metric: Arc::clone(name),
            unit: Arc::clone(unit),
            kind,
            time: point.time,
            measure: value,
            covers: if point.start.0 > 0 { covers } else { 0.0 },
            records: 1,
        };
        measured.items.push(item);
        if let (MetricKind::Summary, PointValue::Distribution(summary)) = (metric.kind, &point.value) {
            for &(level, quantile) in points.bins_of(summary).iter().filter(|(level, _)| level.is_finite()) {
                measured.items.push(Item {
                    entity: names.entity(points, point, Some(quantile)),
                    metric: Arc::clone(name),
                    unit: Arc::clone(unit),
                    kind: Kind::Gauge,
                    time: point.time,
                    measure: Measure::Gauge { sum: level, count: 1.0 },
                    covers: 0.0,
                    records: 0,
                });
            }
        }
    }
    measured.versions = versions.finish(&points.symbols);
    measured
}

/// What a point measures; `None` if that is not a number.
fn value(points: &Points, metric: &Metric, point: &Point) -> Option<(Kind, Measure)> {
    let reading =
        |total: f64, bins: Vec<(f64, f64)>| Measure::Cumulative(Reading { start: point.start, total, monotonic: true, bins });
    let bins = |d: &Distribution| points.bins_of(d).to_vec();
    match (metric.kind, &point.value) {
        (_, PointValue::Number(n)) if !n.is_finite() => None,
        (
            MetricKind::Gauge | MetricKind::Sum { temporality: Temporality::Cumulative, monotonic: false },
            PointValue::Number(n),
        ) => Some((Kind::Gauge, Measure::Gauge { sum: *n, count: 1.0 })),
        (MetricKind::Sum { temporality: Temporality::Delta, monotonic }, PointValue::Number(n)) => {
            // A counter that falls is broken; what it says is not a change.
            let kind = if monotonic { Kind::Delta } else { Kind::Change };
            (!monotonic || *n >= 0.0).then_some((kind, Measure::Delta(*n)))
        }
        (MetricKind::Sum { temporality: Temporality::Cumulative, monotonic: true }, PointValue::Number(n)) => {
            (*n >= 0.0).then(|| (Kind::Counter, reading(*n, Vec::new())))
        }
        (MetricKind::Histogram { temporality: Temporality::Delta }, PointValue::Distribution(d)) => {
            let mut values = Sketch::new();
            points.bins_of(d).iter().for_each(|&(value, count)| values.add(value, count));
            Some((Kind::Values, Measure::Values(values)))
        }
        (MetricKind::Histogram { temporality: Temporality::Cumulative }, PointValue::Distribution(d)) => {
            d.count.is_finite().then(|| (Kind::Histogram, reading(d.count, bins(d))))
        }
        (MetricKind::Summary, PointValue::Distribution(d)) => {
            d.count.is_finite().then(|| (Kind::Counter, reading(d.count, Vec::new())))
        }
        // A number where a distribution was announced, or the other way round.
        _ => None,
    }
}

impl Names {
    /// Shards hold these: what comes in shares their texts, so that keys are found by address, and not by comparing what
    /// lies all over the memory.
    pub(super) fn restore<'a>(&mut self, keys: impl Iterator<Item = &'a Key>) {
        for key in keys.filter(|key| key.entity.operation.is_none() && key.entity.kind.is_none()) {
            self.restored.insert(key.entity.clone());
            for text in [&key.metric, &key.unit] {
                if self.texts.get(text).is_none() {
                    self.texts.insert(text, Arc::clone(text), text.len());
                }
            }
        }
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        let text = clip(text, MAX_TEXT);
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = Arc::from(text);
        self.texts.insert(text, Arc::clone(&shared), text.len());
        shared
    }

    /// Whose point it is. Nothing is allocated for an entity that is known.
    fn entity(&mut self, points: &Points, point: &Point, quantile: Option<f64>) -> Who {
        let (symbols, attributes) = (&points.symbols, &points.attributes);
        let service = attributes.text(symbols, point.resource, &["service.name"]).unwrap_or(UNKNOWN_SERVICE);
        let instance = attributes.text(symbols, point.resource, &INSTANCE);
        self.key.clear();
        for part in [clip(service, MAX_TEXT), clip(instance.unwrap_or(""), MAX_TEXT)] {
            self.key.push_str(part);
            self.key.push('\0');
        }
        // In the order of the point: the same attributes in another order only cost a second look.
        for attribute in attributes.get(point.attributes) {
            self.key.push_str(clip(symbols.get(attribute.key), MAX_TEXT));
            self.key.push('\0');
            write(&mut self.key, symbols, attribute.value);
            self.key.push('\0');
        }
        if let Some(quantile) = quantile {
            use std::fmt::Write as _;
            let _ = write!(self.key, "quantile\0{quantile}\0");
        }
        if let Some(known) = self.entities.get(self.key.as_str()) {
            return known.clone();
        }
        let mut of_point = texts(symbols, attributes, point.attributes);
        if let Some(quantile) = quantile {
            of_point.push(("quantile".to_owned(), quantile.to_string()));
        }
        of_point.sort_unstable();
        let entity = Who::from(Entity {
            instance: instance.map(|i| clip(i, MAX_TEXT).to_owned()),
            attributes: of_point,
            ..Entity::service(clip(service, MAX_TEXT))
        });
        let entity = self.restored.take(&entity).unwrap_or(entity);
        self.entities.insert(&self.key, entity.clone(), size_of::<Entity>() + entity.heap());
        entity
    }
}

fn texts(symbols: &Symbols, attributes: &Attributes, range: AttributeRange) -> Vec<(String, String)> {
    let all = attributes.get(range).iter();
    all.map(|a| {
        let mut value = String::new();
        write(&mut value, symbols, a.value);
        (clip(symbols.get(a.key), MAX_TEXT).to_owned(), value)
    })
    .collect()
}

fn write(to: &mut String, symbols: &Symbols, value: Value) {
    use std::fmt::Write as _;
    let _ = match value {
        Value::Str(s) | Value::Json(s) => to.write_str(clip(symbols.get(s), MAX_TEXT)),
        Value::Bool(b) => write!(to, "{b}"),
        Value::Int(i) => write!(to, "{i}"),
        Value::Double(d) => write!(to, "{d}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Signal;

    fn batch(kind: MetricKind, values: &[(PointValue, u64, u64)], bins: &[(f64, f64)]) -> Points {
        let mut points = Points { bins: bins.to_vec(), ..Points::default() };
        let name = points.symbols.intern("m");
        points.metrics.push(Metric { name, unit: points.symbols.intern("s"), kind });
        let mark = points.attributes.mark();
        for (key, value) in [("service.name", "cart"), ("k8s.pod.name", "cart-1")] {
            let (key, value) = (points.symbols.intern(key), points.symbols.intern(value));
            points.attributes.push(key, Value::Str(value));
        }
        let resource = points.attributes.since(mark);
        let mark = points.attributes.mark();
        for (key, value) in [("z", Value::Int(1)), ("a", Value::Bool(true))] {
            let key = points.symbols.intern(key);
            points.attributes.push(key, value);
        }
        let attributes = points.attributes.since(mark);
        for &(value, start, time) in values {
            let (start, time) = (UnixNanos::from_secs(start), UnixNanos::from_secs(time));
            points.rows.push(Point { resource, metric: 0, time, start, value, attributes });
        }
        points
    }

    fn distribution(bins: u32) -> PointValue {
        PointValue::Distribution(Distribution { count: 10.0, sum: f64::NAN, bins: (0, bins) })
    }

    fn kinds(points: &Points) -> Vec<(Kind, u64)> {
        measure(points, &mut Names::default()).items.iter().map(|i| (i.kind, i.records)).collect()
    }

    #[test]
    fn every_kind_of_point_becomes_a_measure_of_its_own_kind() {
        use Temporality::{Cumulative, Delta};
        let number = [(PointValue::Number(3.0), 10, 20)];
        let sum = |temporality, monotonic| MetricKind::Sum { temporality, monotonic };
        for (kind, expected) in [
            (MetricKind::Gauge, Kind::Gauge),
            (sum(Delta, true), Kind::Delta),
            (sum(Delta, false), Kind::Change),
            (sum(Cumulative, true), Kind::Counter),
            (sum(Cumulative, false), Kind::Gauge),
        ] {
            assert_eq!(kinds(&batch(kind, &number, &[])), [(expected, 1)], "{kind:?}");
        }
        let bins = [(0.5, 4.0), (0.9, 6.0)];
        for (temporality, expected) in [(Delta, Kind::Values), (Cumulative, Kind::Histogram)] {
            let points = batch(MetricKind::Histogram { temporality }, &[(distribution(2), 10, 20)], &bins);
            assert_eq!(kinds(&points), [(expected, 1)]);
        }
    }

    #[test]
    fn a_summary_is_one_record_with_a_level_per_quantile() {
        let points = batch(MetricKind::Summary, &[(distribution(2), 10, 20)], &[(0.2, 0.5), (0.7, 0.99)]);
        assert_eq!(kinds(&points), [(Kind::Counter, 1), (Kind::Gauge, 0), (Kind::Gauge, 0)]);
        let measured = measure(&points, &mut Names::default());
        assert_eq!(measured.items[2].entity.key(), "cart@cart-1 {a=true,quantile=0.99,z=1}");
        assert_eq!(measured.items[2].measure, Measure::Gauge { sum: 0.7, count: 1.0 });
    }

    #[test]
    fn the_entity_is_the_instance_with_sorted_attributes_and_is_shared() {
        let points = batch(MetricKind::Gauge, &[(PointValue::Number(3.0), 0, 20), (PointValue::Number(4.0), 0, 30)], &[]);
        let mut names = Names::default();
        let measured = measure(&points, &mut names);
        assert_eq!(measured.items[0].entity.key(), "cart@cart-1 {a=true,z=1}");
        assert!(Arc::ptr_eq(measured.items[0].entity.entity(), measure(&points, &mut names).items[1].entity.entity()));
    }

    #[test]
    fn what_comes_in_shares_its_texts_with_what_was_restored() {
        let points = batch(MetricKind::Gauge, &[(PointValue::Number(3.0), 0, 20)], &[]);
        let item = |names: &mut Names| measure(&points, names).items.remove(0);
        let Item { entity, metric, kind, unit, .. } = item(&mut Names::default());
        let key = Key { entity, metric, kind, unit, signal: Signal::Metrics };
        let mut names = Names::default();
        names.restore(std::iter::once(&key));
        let again = item(&mut names);
        assert!(Arc::ptr_eq(again.entity.entity(), key.entity.entity()));
        assert!(Arc::ptr_eq(&again.metric, &key.metric) && Arc::ptr_eq(&again.unit, &key.unit));
    }

    #[test]
    fn what_is_no_number_is_counted_and_not_measured() {
        let nan = (PointValue::Number(f64::NAN), 0, 20);
        let measured = measure(&batch(MetricKind::Gauge, &[nan, (PointValue::Number(1.0), 0, 0)], &[]), &mut Names::default());
        assert_eq!((measured.items.len(), measured.not_finite, measured.no_time), (0, 1, 1));
        let falling = MetricKind::Sum { temporality: Temporality::Delta, monotonic: true };
        let measured = measure(&batch(falling, &[(PointValue::Number(-1.0), 0, 20)], &[]), &mut Names::default());
        assert_eq!((measured.items.len(), measured.not_finite), (0, 1));
    }
}
