//! What is learnt jointly, as it is saved.

use std::borrow::Cow;
use std::collections::BTreeMap;

use detection::{COMPONENTS, Verdict};
use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use super::super::bucket::{Function, Taken};
use super::super::checkpoint::{Buffer, Record};
use super::super::key::{Key, shard_of};
use super::super::state::SavedKey;
use super::Stage;
use super::collector::Collector;
use super::entities::{self, Joint, Series, Whole};
use super::siblings::{Group, Learnt, Shown, Siblings};
use crate::model::{Entity, SpanKind};

/// The series of one entity.
#[derive(Serialize, Deserialize)]
pub(in super::super) struct SavedEntity<'a> {
    who: SavedWhole,
    next: u64,
    pending: Vec<(u64, Vec<SavedValue<'a>>)>,
    learnt: Cow<'a, Option<Box<detection::Entity>>>,
    series: Vec<(SavedKey<'a>, Function, u32, Option<u64>)>,
    next_index: u32,
}

/// An entity without attributes. The entity's own encoding leaves out what is empty, which this store cannot read.
#[derive(Serialize, Deserialize)]
struct SavedWhole {
    service: String,
    instance: Option<String>,
    operation: Option<String>,
    kind: Option<SpanKind>,
}

/// A value that waits, and its verdict.
#[derive(Serialize, Deserialize)]
struct SavedValue<'a> {
    key: SavedKey<'a>,
    function: Function,
    value: f64,
    samples: f64,
    found: bool,
    /// Point, alert and page.
    scores: [f64; 3],
    /// Expected, lower, upper.
    usual: [Option<f64>; 3],
    surprises: [f64; COMPONENTS.len()],
}

/// The siblings of one metric.
#[derive(Serialize, Deserialize)]
pub(in super::super) struct SavedSiblings<'a> {
    /// Without instance.
    key: SavedKey<'a>,
    next: u64,
    pending: Vec<(u64, Vec<SavedShown>)>,
    learnt: Cow<'a, Learnt>,
}

#[derive(Serialize, Deserialize, PartialEq, PartialOrd)]
struct SavedShown {
    instance: Option<String>,
    function: u8,
    value: f64,
    samples: f64,
    found: bool,
}

impl Stage {
    /// Puts back siblings.
    pub(in super::super) fn restore_siblings(&mut self, saved: SavedSiblings<'_>) {
        let (siblings, collector, learnt) = saved.into_parts();
        self.siblings.restore(siblings, collector, learnt);
    }

    /// Puts back an entity.
    pub(in super::super) fn restore_entity(&mut self, saved: SavedEntity<'_>) {
        let (whole, joint) = saved.into_joint();
        self.entities.0.insert(whole, joint);
    }
}

impl Record<Siblings> for Group {
    /// All of it changes together.
    type Front = Self;

    fn front(&mut self) -> &mut Self {
        self
    }

    fn write_front(&self, key: &Siblings, buffer: &mut Buffer) -> postcard::Result<()> {
        buffer.write(&SavedSiblings::new(&nameless(key), self))
    }

    fn write_rest(&self, _: &Siblings, _: &mut Buffer) -> postcard::Result<()> {
        Ok(())
    }
}

impl Record<Whole> for Joint {
    /// All of it changes together.
    type Front = Self;

    fn front(&mut self) -> &mut Self {
        self
    }

    fn write_front(&self, key: &Whole, buffer: &mut Buffer) -> postcard::Result<()> {
        buffer.write(&SavedEntity::new(Entity { attributes: Vec::new(), ..Entity::clone(&key.0) }, self))
    }

    fn write_rest(&self, _: &Whole, _: &mut Buffer) -> postcard::Result<()> {
        Ok(())
    }
}

/// The key of siblings, the same whichever of them was the first.
fn nameless(siblings: &Siblings) -> Key {
    let Key { entity, .. } = &siblings.0;
    siblings.member(Entity { instance: None, ..Entity::clone(entity) }.into())
}

impl<'a> SavedSiblings<'a> {
    /// The shard that it belongs to.
    pub(in super::super) fn shard(&self, shards: usize) -> usize {
        self.key.shard(shards)
    }

    fn new(key: &'a Key, group: &'a Group) -> Self {
        let pending = group.collector.pending.iter().map(|(bucket, shown)| {
            let mut all: Vec<SavedShown> = shown
                .iter()
                .map(|s| SavedShown {
                    instance: s.entity.instance.clone(),
                    function: s.function,
                    value: s.value,
                    samples: s.samples,
                    found: s.found,
                })
                .collect();
            all.sort_by(|a, b| a.function.cmp(&b.function).then_with(|| a.instance.cmp(&b.instance)));
            (*bucket, all)
        });
        Self {
            key: SavedKey::new(key),
            next: group.collector.next,
            pending: pending.collect(),
            learnt: Cow::Borrowed(&group.learnt),
        }
    }

    fn into_parts(self) -> (Siblings, Collector<Shown>, Learnt) {
        let key = self.key.into_key();
        let shown = |s: SavedShown| Shown {
            entity: Entity { instance: s.instance, ..Entity::clone(&key.entity) }.into(),
            function: s.function,
            value: s.value,
            samples: s.samples,
            found: s.found,
        };
        let pending = self.pending.into_iter().map(|(bucket, all)| (bucket, all.into_iter().map(shown).collect()));
        let collector = Collector::new(self.next, pending.collect());
        (Siblings(key), collector, self.learnt.into_owned())
    }
}

impl<'a> SavedEntity<'a> {
    /// The shard that it belongs to.
    pub(in super::super) fn shard(&self, shards: usize) -> usize {
        let SavedWhole { service, operation, kind, .. } = &self.who;
        shard_of(service, operation.as_deref(), *kind, shards)
    }

    fn new(entity: Entity, joint: &'a Joint) -> Self {
        let pending = joint.collector.pending.iter().map(|(bucket, shown)| {
            let mut all: Vec<&entities::Shown> = shown.iter().filter(|s| !joint.gone.contains(&s.key)).collect();
            all.sort_by(|a, b| (&a.key, a.taken.function).cmp(&(&b.key, b.taken.function)));
            (*bucket, all.into_iter().map(SavedValue::new).collect())
        });
        let series = joint.series.iter().map(|((key, function), s)| (SavedKey::new(key), *function, s.index, s.found));
        let Entity { service, instance, operation, kind, attributes: _ } = entity;
        Self {
            who: SavedWhole { service, instance, operation, kind },
            next: joint.collector.next,
            pending: pending.collect(),
            learnt: Cow::Borrowed(&joint.learnt),
            series: series.collect(),
            next_index: joint.next,
        }
    }

    fn into_joint(self) -> (Whole, Joint) {
        let pending: BTreeMap<u64, Vec<entities::Shown>> = self
            .pending
            .into_iter()
            .map(|(bucket, all)| (bucket, all.into_iter().map(SavedValue::into_shown).collect()))
            .collect();
        let series =
            self.series.into_iter().map(|(key, function, index, found)| ((key.into_key(), function), Series { index, found }));
        let joint = Joint {
            collector: Collector::new(self.next, pending),
            learnt: self.learnt.into_owned(),
            series: series.collect(),
            next: self.next_index,
            gone: HashSet::new(),
        };
        (Whole(self.who.into_entity().into()), joint)
    }
}

impl SavedWhole {
    fn into_entity(self) -> Entity {
        let Self { service, instance, operation, kind } = self;
        Entity { service, instance, operation, kind, attributes: Vec::new() }
    }
}

impl<'a> SavedValue<'a> {
    fn new(shown: &'a entities::Shown) -> Self {
        let entities::Shown { key, taken, verdict, found } = shown;
        Self {
            key: SavedKey::new(key),
            function: taken.function,
            value: taken.value,
            samples: taken.samples,
            found: *found,
            scores: [verdict.point, verdict.alert, verdict.page],
            usual: [verdict.expected, verdict.lower, verdict.upper],
            surprises: verdict.surprises,
        }
    }

    fn into_shown(self) -> entities::Shown {
        let ([point, alert, page], [expected, lower, upper]) = (self.scores, self.usual);
        let verdict = Verdict { point, alert, page, expected, lower, upper, surprises: self.surprises, ..Verdict::default() };
        let taken = Taken { function: self.function, value: self.value, samples: self.samples };
        entities::Shown { key: self.key.into_key(), taken, verdict, found: self.found }
    }
}
