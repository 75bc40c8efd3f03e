//! Counts log records per service and severity band, in steps of 10 s of event time. Templates come later.

mod config;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize as _;

pub use self::config::Config;
use crate::model::{
    AttributeRange, Batch, Entity, LogRecords, Measure, Observation, Observations, Payload, PayloadKind, SeverityBand, Signal,
    Symbol, Telemetry, UnixNanos, Value, VersionsSeen,
};
use crate::pipeline::{BuildError, Factory, Instance, Make, Processed, Processor};
use crate::text::{Cache, clip};

/// The processor's type.
pub const FACTORY: Factory = Factory {
    kind: "log_patterns",
    about: "Counts log records per service and severity (it does not tell the templates of messages apart yet).",
    acknowledgement: "A log record counts as sent when the detector has taken its count in; nothing is kept in between.",
    schema: |generator| generator.subschema_for::<Config>(),
    implicit: true,
    files: &[],
    gives: |kind| (kind == PayloadKind::Telemetry(Signal::Logs)).then_some(PayloadKind::Observations),
    check: |_| Vec::new(),
    make: Make::Processor(make),
};

/// Records are counted over steps of this width, which divides every bucket.
const STEP: u64 = 10 * UnixNanos::SECOND;

/// What the observations are called, and their unit.
const METRIC: (&str, &str) = ("log.records", "{record}");

/// What a sender that does not say its service is called, as OpenTelemetry has it.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Names are cut to this many bytes.
const MAX_TEXT: usize = 512;

/// Bytes of entities that are kept for the next batch.
const MAX_ENTITIES: usize = 16 << 20;

fn make(instance: Instance) -> Result<Box<dyn Processor>, BuildError> {
    let config = match instance.config {
        serde_json::Value::Null => Config::default(),
        config => Config::deserialize(config).map_err(BuildError::new)?,
    };
    Ok(Box::new(LogPatterns::new(&config)))
}

/// The processor.
struct LogPatterns {
    ignore: Vec<SeverityBand>,
    entities: Cache<[Option<Arc<Entity>>; 6]>,
    metric: Arc<str>,
    unit: Arc<str>,
}

impl LogPatterns {
    fn new(config: &Config) -> Self {
        Self {
            ignore: config.ignore.clone(),
            entities: Cache::new(MAX_ENTITIES),
            metric: Arc::from(METRIC.0),
            unit: Arc::from(METRIC.1),
        }
    }

    fn entity(&mut self, service: &str, band: SeverityBand) -> Arc<Entity> {
        let make = || {
            let attributes = vec![("severity".to_owned(), band.as_str().to_owned())];
            Arc::new(Entity { attributes, ..Entity::service(service) })
        };
        if let Some(known) = self.entities.get(service).and_then(|bands| bands.get(band as usize)?.as_ref()) {
            return Arc::clone(known);
        }
        let entity = make();
        let mut bands = self.entities.get(service).cloned().unwrap_or_default();
        if let Some(slot) = bands.get_mut(band as usize) {
            *slot = Some(Arc::clone(&entity));
        }
        self.entities.insert(service, bands, size_of::<Entity>() + entity.heap());
        entity
    }
}

impl Processor for LogPatterns {
    fn process(&mut self, payload: Payload) -> Processed {
        let Payload::Telemetry(telemetry) = &payload else { return Processed::all(payload) };
        let Telemetry { environment, source, batch: Batch::Logs(logs) } = &**telemetry else { return Processed::all(payload) };
        let (mut ignored, mut no_time, mut newest) = (0, 0, UnixNanos::default());
        let mut counts: BTreeMap<(Symbol, SeverityBand, UnixNanos), f64> = BTreeMap::new();
        let key = logs.symbols.find("service.name");
        // Records of one resource follow each other.
        let mut last: Option<(AttributeRange, Symbol)> = None;
        let mut versions = VersionsSeen::new(&logs.symbols);
        for record in &logs.rows {
            newest = newest.max(record.time);
            let band = SeverityBand::from_number(record.severity_number);
            if self.ignore.contains(&band) {
                ignored += 1;
                continue;
            }
            if record.time == UnixNanos::default() {
                no_time += 1;
                continue;
            }
            versions.note(&logs.attributes, record.resource, record.time);
            let service = match last {
                Some((range, service)) if range == record.resource => service,
                _ => {
                    let service = service(logs, key, record.resource);
                    last = Some((record.resource, service));
                    service
                }
            };
            *counts.entry((service, band, record.time.floor(STEP))).or_default() += 1.0;
        }
        let items = counts
            .into_iter()
            .map(|((service, band, time), count)| {
                let name = match logs.symbols.get(service) {
                    "" => UNKNOWN_SERVICE,
                    named => clip(named, MAX_TEXT),
                };
                Observation {
                    entity: self.entity(name, band),
                    metric: Arc::clone(&self.metric),
                    unit: Arc::clone(&self.unit),
                    time,
                    measure: Measure::Count(count),
                }
            })
            .collect();
        let observations = Observations {
            environment: environment.clone(),
            source: Arc::clone(source),
            signal: Signal::Logs,
            items,
            newest,
            versions: versions.finish(&logs.symbols),
            calls: Vec::new(),
        };
        let dropped = [("severity_ignored", ignored), ("no_time", no_time)];
        Processed {
            output: Some(Payload::Observations(Arc::new(observations))),
            dropped: dropped.into_iter().filter(|&(_, records)| records > 0).collect(),
        }
    }
}

/// The service's name; empty where the resource does not say.
fn service(logs: &LogRecords, key: Option<Symbol>, resource: AttributeRange) -> Symbol {
    match key.and_then(|key| logs.attributes.value(resource, key)) {
        Some(Value::Str(name)) => name,
        _ => Symbol::EMPTY,
    }
}
