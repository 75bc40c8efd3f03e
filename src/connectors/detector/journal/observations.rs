//! Observations as they stand in the journal: every entity and every text once.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::append;
use crate::model::{
    Call, Entity, Environment, Measure, Observation, Observations, ServiceVersion, Signal, SourceId, SpanKind, UnixNanos,
};

/// What is written; `E`, `T` and `I` are lists of entities, texts and items.
#[derive(Serialize, Deserialize)]
struct Stored<S, E, T, I, V, C> {
    source: S,
    signal: Signal,
    newest: UnixNanos,
    entities: E,
    texts: T,
    items: I,
    versions: V,
    calls: C,
}

/// An observation; entity, metric and unit by their places.
#[derive(Serialize, Deserialize)]
struct Item<M> {
    entity: u32,
    metric: u32,
    unit: u32,
    time: UnixNanos,
    measure: M,
}

/// An entity: service, instance, operation, kind, attributes. (Its own encoding leaves fields out, which only formats
/// that name fields can read back.)
type Who<S, A> = (S, Option<S>, Option<S>, Option<SpanKind>, A);

type Read =
    Stored<SourceId, Vec<Who<String, Vec<(String, String)>>>, Vec<Arc<str>>, Vec<Item<Measure>>, Vec<ServiceVersion>, Vec<Call>>;

/// The places of things that are shared by address: those of a batch are.
struct Places<'a, T: ?Sized> {
    places: HashMap<*const u8, u32>,
    all: Vec<&'a T>,
}

impl<'a, T: ?Sized> Places<'a, T> {
    fn new() -> Self {
        Self { places: HashMap::new(), all: Vec::new() }
    }

    fn of(&mut self, shared: &'a Arc<T>) -> u32 {
        let next = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        *self.places.entry(Arc::as_ptr(shared).cast::<u8>()).or_insert_with(|| {
            self.all.push(shared);
            next
        })
    }
}

/// Appends `observations` to `to`.
pub(super) fn write(observations: &Observations, to: &mut Vec<u8>) -> Result<(), postcard::Error> {
    let Observations { environment: _, source, signal, items, newest, versions, calls } = observations;
    let (mut entities, mut texts) = (Places::<Entity>::new(), Places::<str>::new());
    let mut stored = Vec::with_capacity(items.len());
    for Observation { entity, metric, unit, time, measure } in items {
        let (entity, metric, unit) = (entities.of(entity), texts.of(metric), texts.of(unit));
        stored.push(Item { entity, metric, unit, time: *time, measure });
    }
    let (signal, newest) = (*signal, *newest);
    let entities: Vec<Who<&str, &[(String, String)]>> = entities.all.into_iter().map(who).collect();
    let stored = Stored { source, signal, newest, entities, texts: texts.all, items: stored, versions, calls };
    append(&stored, to)
}

fn who(entity: &Entity) -> Who<&str, &[(String, String)]> {
    let Entity { service, instance, operation, kind, attributes } = entity;
    (service, instance.as_deref(), operation.as_deref(), *kind, attributes)
}

/// Reads what [`write`] wrote. An observation whose places do not exist is left out.
pub(super) fn read(bytes: &[u8], environment: &Environment) -> Result<Observations, postcard::Error> {
    let Read { source, signal, newest, entities, texts, items, versions, calls } = postcard::from_bytes(bytes)?;
    let entity = |(service, instance, operation, kind, attributes)| Entity { service, instance, operation, kind, attributes };
    let entities: Vec<Arc<Entity>> = entities.into_iter().map(|who| Arc::new(entity(who))).collect();
    let items = items.into_iter().filter_map(|Item { entity, metric, unit, time, measure }| {
        Some(Observation {
            entity: Arc::clone(entities.get(entity as usize)?),
            metric: Arc::clone(texts.get(metric as usize)?),
            unit: Arc::clone(texts.get(unit as usize)?),
            time,
            measure,
        })
    });
    let items = items.collect();
    Ok(Observations { environment: environment.clone(), source, signal, items, newest, versions, calls })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use detection::Sketch;

    /// `n` observations of a few entities.
    pub(in super::super) fn some_observations(n: u64, environment: &Environment) -> Observations {
        let entities: Vec<Arc<Entity>> = (0..4).map(|n| Arc::new(Entity::service(&format!("service-{n}")))).collect();
        let (metric, unit): (Arc<str>, Arc<str>) = (Arc::from("span"), Arc::from(""));
        let item = |n: u64| {
            let mut latency = Sketch::new();
            latency.add(0.01 * (n + 1) as f64, 1.0);
            Observation {
                entity: Arc::clone(&entities[(n % 4) as usize]),
                metric: Arc::clone(&metric),
                unit: Arc::clone(&unit),
                time: UnixNanos::from_secs(1_700_000_000 + n),
                measure: if n.is_multiple_of(2) {
                    Measure::Calls { count: 1.0, errors: 0.0, latency }
                } else {
                    Measure::Count(n as f64)
                },
            }
        };
        Observations {
            environment: environment.clone(),
            source: SourceId::from("otlp"),
            signal: Signal::Traces,
            items: (0..n).map(item).collect(),
            newest: UnixNanos::from_secs(1_700_000_000 + n),
            versions: Vec::new(),
            calls: vec![Call { caller: Arc::from("a"), callee: Arc::from("b") }],
        }
    }

    #[test]
    fn observations_read_back_and_share_their_entities() {
        let environment = Environment::new("production");
        let observations = some_observations(100, &environment);
        let mut bytes = Vec::new();
        write(&observations, &mut bytes).unwrap();
        let back = read(&bytes, &environment).unwrap();
        assert_eq!(back.items, observations.items);
        assert_eq!((back.newest, back.signal, &back.calls), (observations.newest, observations.signal, &observations.calls));
        assert!(Arc::ptr_eq(&back.items[0].entity, &back.items[4].entity));
        assert!(bytes.len() < 100 * 60, "{} bytes", bytes.len());
    }

    #[test]
    fn an_observation_of_nobody_is_left_out() {
        let environment = Environment::new("production");
        let item = |entity| Item { entity, metric: 0, unit: 0, time: UnixNanos(1), measure: Measure::Count(1.0) };
        let nobody_else = Entity::service("a");
        let (versions, calls): (Vec<ServiceVersion>, Vec<Call>) = Default::default();
        let stored = Stored {
            source: "otlp",
            signal: Signal::Logs,
            newest: UnixNanos(1),
            entities: vec![who(&nobody_else)],
            texts: vec!["m"],
            items: vec![item(0), item(1)],
            versions,
            calls,
        };
        let bytes = postcard::to_stdvec(&stored).unwrap();
        assert_eq!(read(&bytes, &environment).unwrap().items.len(), 1);
    }
}
