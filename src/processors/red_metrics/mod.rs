//! Measures spans: calls, errors and durations per service, operation and kind, in steps of 10 s of event time.

mod calls;
mod config;
mod entities;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

use detection::Sketch;
use hashbrown::{DefaultHashBuilder, HashTable};
use serde::Deserialize as _;

pub use self::config::{Config, Kind, OperationName};
use self::entities::{Entities, OTHER};
use crate::model::{
    AttributeRange, Batch, Measure, Observation, Observations, Payload, PayloadKind, ServiceVersion, Signal, SpanKind, Spans,
    StatusCode, Symbol, Telemetry, UnixNanos, Value, VersionsSeen,
};
use crate::pipeline::{BuildError, Counters, Factory, Instance, Make, Problem, Processed, Processor};
use crate::text::clip;

/// The processor's type.
pub const FACTORY: Factory = Factory {
    kind: "red_metrics",
    about: "Measures spans: calls, errors and latency quantiles per service, operation and kind.",
    acknowledgement: "A span counts as sent when the detector has taken its measure in; nothing is kept in between.",
    schema: |generator| generator.subschema_for::<Config>(),
    implicit: true,
    files: &[],
    gives: |kind| (kind == PayloadKind::Telemetry(Signal::Traces)).then_some(PayloadKind::Observations),
    check,
    make: Make::Processor(make),
};

/// Spans are added up over steps of this width, which divides every bucket.
const STEP: u64 = 10 * UnixNanos::SECOND;

/// What the observations are called, and their unit.
const METRIC: (&str, &str) = ("span", "s");

/// What a sender that does not say its service is called, as OpenTelemetry has it.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Names and values are cut to this many bytes.
const MAX_TEXT: usize = 512;

fn read(config: &serde_json::Value) -> Result<Config, serde_json::Error> {
    if config.is_null() { Ok(Config::default()) } else { Config::deserialize(config) }
}

fn check(config: &serde_json::Value) -> Vec<Problem> {
    // What the schema forbids is reported from there.
    let Ok(config) = read(config) else { return Vec::new() };
    let mut problems = Vec::new();
    let mut problem = |path: &[&str], message: String, hint: Option<&str>| {
        problems.push(Problem {
            path: path.iter().map(ToString::to_string).collect(),
            message,
            hint: hint.map(str::to_owned),
            fatal: true,
        });
    };
    if config.kinds.is_empty() {
        problem(&["kinds"], "no kind of span is measured: expected at least one".to_owned(), Some("leave `kinds` out"));
    }
    if config.operation_name.max_distinct == 0 {
        problem(&["operation_name", "max_distinct"], "0 is out of range: expected 1 to 1000000".to_owned(), None);
    }
    for (i, key) in config.dimensions.iter().enumerate() {
        if key.is_empty() || config.dimensions.iter().take(i).any(|k| k == key) {
            let what = if key.is_empty() { "an empty attribute key" } else { "this key is listed twice" };
            problem(&["dimensions", &i.to_string()], format!("{what}: expected different attribute keys"), None);
        }
    }
    problems
}

fn make(instance: Instance) -> Result<Box<dyn Processor>, BuildError> {
    let config = read(&instance.config).map_err(BuildError::new)?;
    Ok(Box::new(RedMetrics::new(&config, instance.context.counters)))
}

/// The processor.
struct RedMetrics {
    kinds: Vec<SpanKind>,
    /// Sorted.
    dimensions: Vec<String>,
    entities: Entities,
    metric: Arc<str>,
    unit: Arc<str>,
    hasher: DefaultHashBuilder,
    counters: Arc<Counters>,
}

/// What the spans of one operation and one step add up to.
struct Slot {
    service: Symbol,
    name: Symbol,
    kind: SpanKind,
    step: UnixNanos,
    count: f64,
    errors: f64,
    latency: Sketch,
}

/// The keys that are looked for, as symbols of the batch at hand.
struct Keys {
    service: Option<Symbol>,
    dimensions: Vec<Option<Symbol>>,
}

/// What the spans of a batch add up to. `dimensions` has a run of values per slot.
#[derive(Default)]
struct Slots {
    index: HashTable<usize>,
    slots: Vec<Slot>,
    dimensions: Vec<Option<Value>>,
    newest: UnixNanos,
    versions: Vec<ServiceVersion>,
    not_measured: u64,
    no_time: u64,
}

impl RedMetrics {
    fn new(config: &Config, counters: Arc<Counters>) -> Self {
        let mut dimensions = config.dimensions.clone();
        dimensions.sort_unstable();
        dimensions.dedup();
        Self {
            kinds: config.kinds.iter().map(|k| k.span_kind()).collect(),
            dimensions,
            entities: Entities::new(config.operation_name.max_distinct),
            metric: Arc::from(METRIC.0),
            unit: Arc::from(METRIC.1),
            hasher: DefaultHashBuilder::default(),
            counters,
        }
    }

    /// Adds up the spans of a batch. Nothing is allocated per span.
    fn add_up(&self, spans: &Spans) -> Slots {
        let keys = Keys {
            service: spans.symbols.find("service.name"),
            dimensions: self.dimensions.iter().map(|d| spans.symbols.find(d)).collect(),
        };
        let mut all = Slots::default();
        let mut wanted: Vec<Option<Value>> = Vec::with_capacity(self.dimensions.len());
        // Spans of one resource follow each other.
        let mut last: Option<(AttributeRange, Symbol)> = None;
        let mut versions = VersionsSeen::new(&spans.symbols);
        for span in &spans.rows {
            all.newest = all.newest.max(span.start);
            let kind = if span.kind == SpanKind::Unspecified { SpanKind::Internal } else { span.kind };
            if !self.kinds.contains(&kind) {
                all.not_measured += 1;
                continue;
            }
            if span.start == UnixNanos::default() {
                all.no_time += 1;
                continue;
            }
            versions.note(&spans.attributes, span.resource, span.start);
            let service = match last {
                Some((range, service)) if range == span.resource => service,
                _ => {
                    let service = service(spans, keys.service, span.resource);
                    last = Some((span.resource, service));
                    service
                }
            };
            wanted.clear();
            wanted.extend(keys.dimensions.iter().map(|&key| {
                let key = key?;
                spans.attributes.value(span.attributes, key).or_else(|| spans.attributes.value(span.resource, key))
            }));
            // A long call is known only when it has ended; by its start it would always be late. Event time
            // itself follows the starts, by which stores sort.
            let at = if span.duration >= STEP { span.end() } else { span.start };
            let slot = all.slot(&self.hasher, (service, span.name, kind, at.floor(STEP)), &wanted);
            let Some(slot) = slot else { continue };
            slot.count += span.weight;
            if span.status == StatusCode::Error {
                slot.errors += span.weight;
            }
            slot.latency.add(span.duration as f64 / UnixNanos::SECOND as f64, span.weight);
        }
        all.versions = versions.finish(&spans.symbols);
        all
    }

    /// Names what was added up.
    fn observations(&mut self, spans: &Spans, all: Slots) -> Vec<Observation> {
        let width = self.dimensions.len();
        let mut folded = 0.0;
        // Names that are one too many fall together: their measures add up.
        let mut other: HashMap<(*const crate::model::Entity, UnixNanos), usize> = HashMap::new();
        let mut items: Vec<Observation> = Vec::with_capacity(all.slots.len());
        for (i, slot) in all.slots.into_iter().enumerate() {
            let service = match spans.symbols.get(slot.service) {
                "" => UNKNOWN_SERVICE,
                named => clip(named, MAX_TEXT),
            };
            let name = clip(spans.symbols.get(slot.name), MAX_TEXT);
            let known = self.entities.is_operation(service, name);
            let values = all.dimensions.get(i * width..(i + 1) * width).unwrap_or(&[]);
            let attributes: Vec<(&str, String)> = self
                .dimensions
                .iter()
                .zip(values)
                .filter_map(|(key, value)| Some((key.as_str(), text(spans, (*value)?))))
                .collect();
            let entity = self.entities.get(service, if known { name } else { OTHER }, slot.kind, &attributes);
            if !known {
                folded += slot.count;
                let next = items.len();
                let at = *other.entry((Arc::as_ptr(&entity), slot.step)).or_insert(next);
                if let Some(Observation { measure: Measure::Calls { count, errors, latency }, .. }) = items.get_mut(at) {
                    *count += slot.count;
                    *errors += slot.errors;
                    latency.merge(&slot.latency);
                    continue;
                }
            }
            items.push(Observation {
                entity,
                metric: Arc::clone(&self.metric),
                unit: Arc::clone(&self.unit),
                time: slot.step,
                measure: Measure::Calls { count: slot.count, errors: slot.errors, latency: slot.latency },
            });
        }
        if folded > 0.0 {
            self.counters.event("calls_of_other_operations", folded as u64);
        }
        items
    }
}

impl Processor for RedMetrics {
    fn process(&mut self, payload: Payload) -> Processed {
        let Payload::Telemetry(telemetry) = &payload else { return Processed::all(payload) };
        let Telemetry { environment, source, batch: Batch::Traces(spans) } = &**telemetry else { return Processed::all(payload) };
        let mut all = self.add_up(spans);
        let versions = std::mem::take(&mut all.versions);
        let dropped = [("kind_not_measured", all.not_measured), ("no_start_time", all.no_time)];
        let newest = all.newest;
        let calls = calls::of(spans);
        let items = self.observations(spans, all);
        let observations = Observations {
            environment: environment.clone(),
            source: Arc::clone(source),
            signal: Signal::Traces,
            items,
            newest,
            versions,
            calls,
        };
        Processed {
            output: Some(Payload::Observations(Arc::new(observations))),
            dropped: dropped.into_iter().filter(|&(_, spans)| spans > 0).collect(),
        }
    }
}

impl Slots {
    /// The slot of `key` and the dimension values `wanted`.
    fn slot(
        &mut self,
        hasher: &DefaultHashBuilder,
        key: (Symbol, Symbol, SpanKind, UnixNanos),
        wanted: &[Option<Value>],
    ) -> Option<&mut Slot> {
        let width = wanted.len();
        let (slots, dimensions) = (&mut self.slots, &mut self.dimensions);
        let found = self.index.find(hash(hasher, key, wanted), |&i| {
            slots.get(i).is_some_and(|s| (s.service, s.name, s.kind, s.step) == key)
                && dimensions.get(i * width..(i + 1) * width).is_some_and(|values| same(values, wanted))
        });
        let at = match found {
            Some(&at) => at,
            None => {
                let at = slots.len();
                let (service, name, kind, step) = key;
                slots.push(Slot { service, name, kind, step, count: 0.0, errors: 0.0, latency: Sketch::default() });
                dimensions.extend_from_slice(wanted);
                self.index.insert_unique(hash(hasher, key, wanted), at, |&i| {
                    let key = slots.get(i).map(|s| (s.service, s.name, s.kind, s.step)).unwrap_or_default();
                    hash(hasher, key, dimensions.get(i * width..(i + 1) * width).unwrap_or(&[]))
                });
                at
            }
        };
        slots.get_mut(at)
    }
}

/// Equal to the bit, so that what is equal has equal hashes.
fn same(a: &[Option<Value>], b: &[Option<Value>]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| match (a, b) {
            (Some(Value::Double(a)), Some(Value::Double(b))) => a.to_bits() == b.to_bits(),
            _ => a == b,
        })
}

fn hash(hasher: &DefaultHashBuilder, key: (Symbol, Symbol, SpanKind, UnixNanos), values: &[Option<Value>]) -> u64 {
    let mut state = hasher.build_hasher();
    key.hash(&mut state);
    for value in values {
        match *value {
            None => 0_u8.hash(&mut state),
            Some(Value::Str(s)) => (1_u8, s).hash(&mut state),
            Some(Value::Bool(b)) => (2_u8, b).hash(&mut state),
            Some(Value::Int(i)) => (3_u8, i).hash(&mut state),
            Some(Value::Double(d)) => (4_u8, d.to_bits()).hash(&mut state),
            Some(Value::Json(s)) => (5_u8, s).hash(&mut state),
        }
    }
    state.finish()
}

/// The service's name; empty where the resource does not say.
fn service(spans: &Spans, key: Option<Symbol>, resource: AttributeRange) -> Symbol {
    match key.and_then(|key| spans.attributes.value(resource, key)) {
        Some(Value::Str(name)) => name,
        _ => Symbol::EMPTY,
    }
}

/// A dimension's value as text.
fn text(spans: &Spans, value: Value) -> String {
    match value {
        Value::Str(s) | Value::Json(s) => clip(spans.symbols.get(s), MAX_TEXT).to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Int(i) => i.to_string(),
        Value::Double(d) => d.to_string(),
    }
}
