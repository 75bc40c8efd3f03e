//! Payloads become feeds, one per shard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::bucket::Kind;
use super::core::{Feed, Item};
use super::key::Key;
use super::points::{self, Names};
use crate::model::{
    Batch, Environment, Observation, Observations, Payload, ServiceVersion, Signal, SourceId, Telemetry, UnixNanos,
};

/// What is further ahead of the clock than this is not believed.
const AHEAD: u64 = 3600 * UnixNanos::SECOND;

/// Divides what comes in between the shards.
#[derive(Debug)]
pub(super) struct Intake {
    environment: Environment,
    shards: usize,
    /// Nanoseconds.
    bucket: u64,
    names: Names,
}

/// What a payload says about itself.
struct Origin<'a> {
    source: &'a SourceId,
    signal: Signal,
    newest: UnixNanos,
    versions: Vec<ServiceVersion>,
}

/// One payload, divided.
#[derive(Debug, Default)]
pub(super) struct Divided {
    /// One per shard; none where the payload says nothing.
    pub(super) feeds: Vec<Feed>,
    /// Records that are not worth feeding, by reason.
    pub(super) dropped: BTreeMap<&'static str, u64>,
}

impl Intake {
    pub(super) fn new(environment: &Environment, shards: usize, bucket: u64) -> Self {
        Self { environment: environment.clone(), shards: shards.max(1), bucket: bucket.max(1), names: Names::default() }
    }

    /// For shards that hold series already.
    pub(super) fn restored<'a>(mut self, keys: impl Iterator<Item = &'a Key>) -> Self {
        self.names.restore(keys);
        self
    }

    /// Divides `payload`; the clock shows `now`.
    pub(super) fn divide(&mut self, payload: Payload, now: UnixNanos) -> Divided {
        let mut divided = Divided::default();
        let records = payload.len() as u64;
        match payload {
            Payload::Observations(o) if o.environment == self.environment => {
                let Observations { source, signal, items, newest, versions, calls, .. } = Arc::unwrap_or_clone(o);
                let from = Origin { source: &source, signal, newest, versions };
                self.feed(from, items.into_iter().map(item), now, &mut divided);
                if let Some(first) = divided.feeds.first_mut() {
                    first.calls = calls;
                }
            }
            Payload::Telemetry(t) if t.environment == self.environment => {
                let Telemetry { source, batch: Batch::Metrics(points), .. } = &*t else {
                    divided.dropped.insert("not_measured", records);
                    return divided;
                };
                let measured = points::measure(points, &mut self.names);
                for (reason, points) in [("not_finite", measured.not_finite), ("no_time", measured.no_time)] {
                    if points > 0 {
                        divided.dropped.insert(reason, points);
                    }
                }
                let from = Origin { source, signal: Signal::Metrics, newest: UnixNanos(0), versions: measured.versions };
                self.feed(from, measured.items.into_iter(), now, &mut divided);
            }
            Payload::Anomalies(_) => {
                divided.dropped.insert("not_measured", records);
            }
            Payload::Observations(_) | Payload::Telemetry(_) => {
                divided.dropped.insert("other_environment", records);
            }
        }
        divided
    }

    fn feed(&self, origin: Origin<'_>, items: impl Iterator<Item = Item>, now: UnixNanos, divided: &mut Divided) {
        let Origin { source, signal, newest, mut versions } = origin;
        let last = now.plus(AHEAD);
        // What is not believed of event time is not believed of versions.
        versions.retain(|version| version.last <= last);
        // Who does not say how far event time has come is believed by the items.
        let said = newest > UnixNanos(0) && newest <= last;
        let mut newest = if said { newest } else { UnixNanos(0) };
        let mut shards: Vec<Vec<Item>> = (0..self.shards).map(|_| Vec::new()).collect();
        let (mut buckets, mut last_bucket) = (BTreeSet::new(), None);
        for item in items {
            let reason = match item.time {
                UnixNanos(0) => Some("no_time"),
                time if time > last => Some("in_the_future"),
                _ => None,
            };
            if let Some(reason) = reason {
                *divided.dropped.entry(reason).or_default() += item.records;
                continue;
            }
            if !said {
                newest = newest.max(item.time);
            }
            let bucket = item.time.0 / self.bucket;
            if last_bucket.replace(bucket) != Some(bucket) {
                buckets.insert(bucket);
            }
            if let Some(shard) = shards.get_mut(item.entity.shard(self.shards)) {
                shard.push(item);
            }
        }
        if newest == UnixNanos(0) {
            return;
        }
        buckets.insert(newest.0 / self.bucket);
        let buckets: Arc<[u64]> = buckets.into_iter().collect();
        let versions: Arc<[ServiceVersion]> = versions.into();
        // Every shard is told how far event time has come, also those that get no items.
        divided.feeds = shards
            .into_iter()
            .map(|items| Feed {
                source: SourceId::clone(source),
                signal,
                newest,
                buckets: Arc::clone(&buckets),
                versions: Arc::clone(&versions),
                items,
                calls: Vec::new(),
            })
            .collect();
    }
}

impl Feed {
    /// How many of the records that are accounted for it stands for.
    pub(super) fn records(&self) -> u64 {
        self.items.iter().map(|i| i.records).sum()
    }
}

fn item(observation: Observation) -> Item {
    let Observation { entity, metric, unit, time, measure } = observation;
    Item { kind: Kind::of(&measure), entity: entity.into(), metric, unit, time, measure, covers: 0.0, records: 1 }
}
