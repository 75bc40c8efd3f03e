//! Several series judged together: the series of one entity, and the instances of one metric.
//!
//! A shard's groups close their buckets one by one. This stage collects what they show, and judges a bucket when all
//! groups that take part have closed it. All of them live in one shard: it is chosen by service, operation and span
//! kind alone.
//!
//! What a series has found by itself is not reported again: a finding of siblings is withheld where the instance had one
//! of the same metric within the last [`RECENT`] buckets, a finding of an entity where series that had one carry at least
//! half of it. Withheld findings are counted.

mod anomaly;
mod collector;
mod config;
mod entities;
mod siblings;
mod state;

use std::collections::BTreeMap;

use detection::{Parameters, PeerParameters};

pub(super) use self::config::{Entities, Model, Peers};
use self::entities::AllEntities;
use self::siblings::AllSiblings;
pub(super) use self::state::{SavedEntity, SavedSiblings};
use super::anomaly::Finder;
use super::checkpoint::{Kind, Owing};
use super::judged::Judged;
use super::key::Key;
use crate::model::{Anomaly, UnixNanos};

/// Buckets for which a finding speaks for what is found about the same by others.
const RECENT: u64 = 30;

/// How often something happened.
pub(super) type Events = BTreeMap<&'static str, u64>;

/// What does not change while the stage runs.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Whether the series of an entity are judged together.
    pub(super) entities: bool,
    /// How siblings are compared; `None` where they are not.
    pub(super) peers: Option<PeerParameters>,
    /// What series and entities are judged with.
    pub(super) parameters: Parameters,
    /// Width of a bucket in nanoseconds.
    pub(super) bucket: u64,
}

impl Settings {
    pub(super) fn new(config: &super::Config, bucket: u64) -> Self {
        let parameters = config.parameters();
        Self {
            entities: config.entities.enabled,
            peers: config.peers.parameters(&parameters, config.model.peers()),
            parameters,
            bucket,
        }
    }

    /// Whether anything is judged together.
    pub(super) const fn enabled(&self) -> bool {
        self.entities || self.peers.is_some()
    }

    fn seconds(&self) -> f64 {
        (self.bucket / UnixNanos::SECOND) as f64
    }
}

/// What one shard judges together.
#[derive(Debug, Default)]
pub(super) struct Stage {
    entities: AllEntities,
    siblings: AllSiblings,
}

impl Stage {
    /// All that is learnt, as checkpoints want it.
    pub(super) fn owing(&mut self) -> [(Kind, &mut dyn Owing); 2] {
        [(Kind::Siblings, &mut self.siblings.0), (Kind::Entities, &mut self.entities.0)]
    }

    /// What the series of `key` show, whose buckets before `horizon` are closed.
    pub(super) fn take(&mut self, key: &Key, horizon: u64, judged: &[Judged], settings: &Settings) {
        if settings.entities {
            self.entities.take(key, horizon, judged);
        }
        if settings.peers.is_some() {
            self.siblings.take(key, horizon, judged);
        }
    }

    /// The series of `key` are there.
    pub(super) fn join(&mut self, key: &Key, settings: &Settings) {
        if settings.peers.is_some() {
            self.siblings.join(key);
        }
    }

    /// The series of `key` are gone.
    pub(super) fn forget(&mut self, key: &Key) {
        self.entities.forget(key);
        self.siblings.forget(key);
    }

    /// How many entities and groups of siblings there are.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.entities.0.len() + self.siblings.0.len()
    }

    /// How many groups of siblings have learnt something.
    #[cfg(test)]
    pub(super) fn learnt_siblings(&self) -> usize {
        self.siblings.0.iter().filter(|(_, group)| group.learnt.groups.iter().any(Option::is_some)).count()
    }

    /// Judges all buckets that are closed by all who take part.
    pub(super) fn judge(&mut self, finder: &Finder<'_>, settings: &Settings, events: &mut Events) -> Vec<Anomaly> {
        let of_entities = self.entities.judge(settings, events);
        let of_peers = self.siblings.judge(settings, events);
        for (event, found) in [("entity_anomalies", of_entities.len()), ("peer_anomalies", of_peers.len())] {
            if found > 0 {
                *events.entry(event).or_default() += found as u64;
            }
        }
        let of_entities = of_entities.iter().map(|found| anomaly::of_entity(finder, found, settings));
        of_entities.chain(of_peers.iter().map(|found| anomaly::of_peer(finder, found, settings))).collect()
    }
}
