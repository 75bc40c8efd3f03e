//! The instances of one metric, compared with each other.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use detection::{MAX_PEERS, PeerFinding, PeerGroup, PeerValue};
use serde::{Deserialize, Serialize};

use super::super::bucket::{Function, Taken};
use super::super::checkpoint::Kept;
use super::super::judged::Judged;
use super::super::key::{Key, Who};
use super::collector::Collector;
use super::{Events, RECENT, Settings};
use crate::model::UnixNanos;

/// A key in which the instance does not count.
#[derive(Clone, Debug)]
pub(super) struct Siblings(pub(super) Key);

impl Siblings {
    /// What tells a group of siblings from others.
    fn parts(&self) -> impl Eq {
        let Key { entity, metric, kind, unit, signal } = &self.0;
        ((metric, unit, *kind, *signal), (&entity.service, &entity.operation, entity.kind, &entity.attributes))
    }

    /// The key of one of them.
    pub(super) fn member(&self, entity: Who) -> Key {
        Key { entity, ..self.0.clone() }
    }
}

impl PartialEq for Siblings {
    fn eq(&self, other: &Self) -> bool {
        self.0.entity.anyone() == other.0.entity.anyone() && self.parts() == other.parts()
    }
}

impl Eq for Siblings {}

impl Hash for Siblings {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Key { entity, metric, kind, unit, signal } = &self.0;
        (entity.anyone(), metric, unit, kind, signal).hash(state);
    }
}

/// What one instance shows in one bucket.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) entity: Who,
    /// Place of the function in those of the kind.
    pub(super) function: u8,
    pub(super) value: f64,
    pub(super) samples: f64,
    /// Its own series had a finding.
    pub(super) found: bool,
}

/// The siblings of one metric.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// How many instances there are: no part of what is learnt.
    members: Cell<usize>,
    pub(super) collector: Collector<Shown>,
    /// What is learnt: one per function, from the first bucket on that has enough instances.
    pub(super) learnt: Learnt,
}

/// As [`Group`], what is learnt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Learnt {
    pub(super) groups: Vec<Option<Box<PeerGroup>>>,
    /// When something was last found about an instance, in any function of the metric.
    pub(super) found: BTreeMap<String, u64>,
    /// The last bucket that had a value.
    pub(super) last: u64,
}

/// What was found about an instance.
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) bucket: u64,
    pub(super) taken: Taken,
    pub(super) finding: PeerFinding,
}

/// All groups of siblings of a shard.
#[derive(Debug, Default)]
pub(super) struct AllSiblings(pub(super) Kept<Siblings, Group>);

impl AllSiblings {
    /// An instance is there.
    pub(super) fn join(&mut self, key: &Key) {
        if key.entity.instance.is_none() {
            return;
        }
        let siblings = Siblings(key.clone());
        let group = match self.0.get(&siblings) {
            Some(group) => group,
            None => self.0.change_or_add(siblings),
        };
        group.members.set(group.members.get() + 1);
    }

    /// Puts back what was saved of a group.
    pub(super) fn restore(&mut self, siblings: Siblings, collector: Collector<Shown>, learnt: Learnt) {
        let group = self.0.change_or_add(siblings);
        (group.collector, group.learnt) = (collector, learnt);
    }

    /// What a group of series shows; `horizon` as in [`Collector::hold`].
    pub(super) fn take(&mut self, key: &Key, horizon: u64, judged: &[Judged]) {
        if key.entity.instance.is_none() {
            return;
        }
        let siblings = Siblings(key.clone());
        if judged.is_empty() {
            if let Some(group) = self.0.get(&siblings) {
                group.collector.hold(horizon);
            }
            return;
        }
        let group = self.0.change_or_add(siblings);
        group.collector.hold(horizon);
        for Judged { bucket, taken, verdict, .. } in judged {
            let place = key.kind.functions().iter().position(|f| *f == taken.function);
            let Some(function) = place.and_then(|place| u8::try_from(place).ok()) else { continue };
            // Who has sent nothing is gone, not different.
            if taken.samples > 0.0 || !key.kind.absence_is_zero() {
                let (value, samples, found) = (taken.value, taken.samples, verdict.finding.is_some());
                let shown = Shown { entity: key.entity.clone(), function, value, samples, found };
                group.collector.add(*bucket, shown);
            }
        }
    }

    /// Judges what all have closed.
    pub(super) fn judge(&mut self, settings: &Settings, events: &mut Events) -> Vec<Found> {
        let mut found = Vec::new();
        self.0.retain(|siblings, group| {
            while group.collector.is_due() {
                let group = group.change();
                let Some((bucket, shown)) = group.collector.due() else { break };
                group.learnt.judge(siblings, bucket, shown, settings, events, &mut found);
            }
            group.collector.rest();
            true
        });
        found
    }

    /// An instance is gone; the last one takes with it what was learnt.
    pub(super) fn forget(&mut self, key: &Key) {
        if key.entity.instance.is_none() {
            return;
        }
        let siblings = Siblings(key.clone());
        let Some(group) = self.0.get(&siblings) else { return };
        group.members.set(group.members.get().saturating_sub(1));
        if group.members.get() == 0 {
            self.0.remove(&siblings);
        }
    }
}

impl Learnt {
    fn judge(
        &mut self,
        siblings: &Siblings,
        bucket: u64,
        mut shown: Vec<Shown>,
        settings: &Settings,
        events: &mut Events,
        found: &mut Vec<Found>,
    ) {
        let Some(parameters) = &settings.peers else { return };
        // The same order whichever group was closed first.
        shown.sort_by(|a, b| (a.function, &a.entity.instance).cmp(&(b.function, &b.entity.instance)));
        self.last = self.last.max(bucket);
        self.found.retain(|_, last| last.saturating_add(RECENT) > bucket);
        for one in shown.iter().filter(|one| one.found) {
            self.found.insert(one.entity.instance.clone().unwrap_or_default(), bucket);
        }
        let functions = siblings.0.kind.functions();
        self.groups.resize_with(functions.len(), || None);
        let mut findings: Vec<(Function, PeerFinding)> = Vec::new();
        for part in shown.chunk_by(|a, b| a.function == b.function) {
            let Some(place) = part.first().map(|one| usize::from(one.function)) else { continue };
            let (Some(function), Some(slot)) = (functions.get(place), self.groups.get_mut(place)) else { continue };
            if slot.is_none() && part.len() < parameters.min_members {
                continue;
            }
            if part.len() > MAX_PEERS {
                *events.entry("peers_left_out").or_default() += (part.len() - MAX_PEERS) as u64;
            }
            let group = slot.get_or_insert_with(|| {
                Box::new(PeerGroup::new(siblings.0.kind.quantity(*function, &siblings.0.unit), settings.seconds()))
            });
            let values: Vec<PeerValue<'_>> = part
                .iter()
                .map(|s| PeerValue { member: s.entity.instance.as_deref().unwrap_or(""), value: s.value, samples: s.samples })
                .collect();
            let time = UnixNanos(bucket.saturating_mul(settings.bucket)).secs_f64();
            findings.extend(group.observe(time, &values, parameters).into_iter().map(|finding| (*function, finding)));
        }
        // The strongest function speaks for the metric.
        findings.sort_by(|(a, x), (b, y)| y.surprise.total_cmp(&x.surprise).then(a.cmp(b)).then(x.member.cmp(&y.member)));
        for (function, finding) in findings {
            if self.found.contains_key(&finding.member) {
                *events.entry("peers_already_found").or_default() += 1;
                continue;
            }
            self.found.insert(finding.member.clone(), bucket);
            let of = |one: &&Shown| {
                one.entity.instance.as_deref() == Some(&finding.member)
                    && functions.get(usize::from(one.function)) == Some(&function)
            };
            let Some(one) = shown.iter().find(of) else { continue };
            let taken = Taken { function, value: one.value, samples: one.samples };
            found.push(Found { key: siblings.member(one.entity.clone()), bucket, taken, finding });
        }
    }
}
