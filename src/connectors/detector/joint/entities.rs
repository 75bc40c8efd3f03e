//! The series of one entity (service, instance, operation), judged together.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::hash::{Hash, Hasher};

use detection::{Carrier, Channel, EntityFinding, MOST_CHANNELS, Parameters, Quantity, Verdict};
use hashbrown::HashSet;

use super::super::bucket::{Function, Taken};
use super::super::checkpoint::Kept;
use super::super::judged::Judged;
use super::super::key::{Key, Who};
use super::collector::Collector;
use super::{Events, RECENT, Settings};
use crate::model::{Entity, UnixNanos};

/// A finding is not news when series that were found by themselves carry this share of it.
const KNOWN: f64 = 0.5;
/// Series that carry this share of it must be off by something that is worth a word.
const WORTH: f64 = 0.5;
/// Together series are worth a word when they are off by this part of what one alone must be off by.
const TOGETHER: f64 = 1.0 / 3.0;
/// A series that carries more than this share is alone: what it has to say, its own models say.
const ALONE: f64 = 0.8;
/// As far from the mean of days, in standard deviations, is off whatever was expected: what lasts is soon expected.
pub(super) const FAR: f64 = 3.0;

/// An entity in which attributes do not count: they tell its series apart.
#[derive(Clone, Debug)]
pub(super) struct Whole(pub(super) Who);

impl Whole {
    fn parts(&self) -> impl Eq {
        (&self.0.service, &self.0.instance, &self.0.operation, self.0.kind)
    }
}

impl PartialEq for Whole {
    fn eq(&self, other: &Self) -> bool {
        self.0.bare() == other.0.bare() && self.parts() == other.parts()
    }
}

impl Eq for Whole {}

impl Hash for Whole {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.bare());
    }
}

/// What one series shows in one bucket.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) key: Key,
    pub(super) taken: Taken,
    /// Without the finding.
    pub(super) verdict: Verdict,
    /// Whether it had a finding.
    pub(super) found: bool,
}

/// One series of an entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Series {
    /// Its number in the learnt state; never given to another one.
    pub(super) index: u32,
    /// The bucket in which something was last found in it alone.
    pub(super) found: Option<u64>,
}

/// One entity.
#[derive(Debug, Default)]
pub(super) struct Joint {
    pub(super) collector: Collector<Shown>,
    /// From the first bucket with two series on.
    pub(super) learnt: Option<Box<detection::Entity>>,
    pub(super) series: BTreeMap<(Key, Function), Series>,
    /// The number of the next series.
    pub(super) next: u32,
    /// Groups that are gone while values of them wait: these are left out, or they would take a number for good.
    pub(super) gone: HashSet<Key>,
}

/// What was found about an entity.
pub(super) struct Found {
    pub(super) entity: Who,
    pub(super) bucket: u64,
    pub(super) finding: EntityFinding,
    /// What the series that carry it show, with their shares; the strongest first.
    pub(super) carriers: Vec<(Carrier, Shown)>,
}

/// All entities of a shard.
#[derive(Debug, Default)]
pub(super) struct AllEntities(pub(super) Kept<Whole, Joint>);

impl AllEntities {
    /// What a group of series shows; `horizon` as in [`Collector::hold`].
    pub(super) fn take(&mut self, key: &Key, horizon: u64, judged: &[Judged]) {
        let whole = Whole(key.entity.clone());
        if judged.is_empty() {
            if let Some(joint) = self.0.get(&whole) {
                joint.collector.hold(horizon);
            }
            return;
        }
        let joint = self.0.change_or_add(whole);
        joint.collector.hold(horizon);
        if joint.gone.remove(key) {
            joint.collector.pending.values_mut().for_each(|shown| shown.retain(|s| s.key != *key));
        }
        for Judged { bucket, taken, verdict, .. } in judged {
            let Verdict { point, alert, page, expected, lower, upper, surprises, .. } = *verdict;
            let bare = Verdict { point, alert, page, expected, lower, upper, surprises, ..Verdict::default() };
            let shown = Shown { key: key.clone(), taken: *taken, verdict: bare, found: verdict.finding.is_some() };
            joint.collector.add(*bucket, shown);
        }
    }

    /// The series of `key` are forgotten, and the entity with its last one.
    pub(super) fn forget(&mut self, key: &Key) {
        let whole = Whole(key.entity.clone());
        let Some(joint) = self.0.change(&whole) else { return };
        joint.series.retain(|(other, _), _| other != key);
        if !joint.collector.pending.is_empty() {
            joint.gone.insert(key.clone());
        } else if joint.series.is_empty() {
            self.0.remove(&whole);
        }
    }

    /// Judges what all series have closed.
    pub(super) fn judge(&mut self, settings: &Settings, events: &mut Events) -> Vec<Found> {
        let mut found = Vec::new();
        self.0.retain(|whole, joint| {
            while joint.collector.is_due() {
                let joint = joint.change();
                let Some((bucket, shown)) = joint.collector.due() else { break };
                found.extend(joint.judge(&whole.0, bucket, shown, settings, events));
            }
            joint.collector.rest();
            if joint.collector.pending.is_empty() && !joint.gone.is_empty() {
                joint.change().gone = HashSet::new();
            }
            // Else its last series went while values of it waited.
            !joint.series.is_empty() || !joint.collector.pending.is_empty()
        });
        found
    }
}

/// Whether a series is so far off that it is worth a word, as one of several.
fn is_off(carrier: &Carrier, shown: &Shown, settings: &Settings) -> bool {
    let Some(expected) = shown.verdict.expected else { return false };
    let Parameters { min_relative_deviation, min_ratio_deviation, .. } = settings.parameters;
    let least = match shown.key.kind.quantity(shown.taken.function, &shown.key.unit) {
        Quantity::Ratio => min_ratio_deviation,
        _ => expected.abs() * min_relative_deviation,
    };
    let off = (shown.taken.value - expected).abs();
    (off > 0.0 && off >= TOGETHER * least) || carrier.deviation.abs() >= FAR
}

impl Joint {
    fn judge(
        &mut self,
        entity: &Entity,
        bucket: u64,
        mut shown: Vec<Shown>,
        settings: &Settings,
        events: &mut Events,
    ) -> Option<Found> {
        shown.retain(|s| !self.gone.contains(&s.key));
        // The same order, and the same numbers, whichever group was closed first.
        shown.sort_by(|a, b| (&a.key, a.taken.function).cmp(&(&b.key, b.taken.function)));
        let numbered: Vec<(u32, &Shown)> = shown.iter().filter_map(|s| Some((self.number(s, bucket, events)?, s))).collect();
        if self.learnt.is_none() && self.series.len() < 2 {
            return None;
        }
        let learnt = self.learnt.get_or_insert_with(|| Box::new(detection::Entity::new(settings.seconds())));
        let channels: Vec<Channel<'_>> =
            numbered.iter().map(|(index, s)| Channel { index: *index, value: s.taken.value, verdict: &s.verdict }).collect();
        let time = UnixNanos(bucket.saturating_mul(settings.bucket)).secs_f64();
        let finding = learnt.observe(time, &channels, &settings.parameters).finding?;
        let recent = |index: u32| {
            let mut all = self.series.values();
            all.any(|s| s.index == index && s.found.is_some_and(|found| found.saturating_add(RECENT) > bucket))
        };
        let known: f64 = finding.carriers.iter().filter(|c| recent(c.index)).map(|c| c.share).sum();
        if known >= KNOWN {
            *events.entry("entities_already_found").or_default() += 1;
            return None;
        }
        if finding.carriers.iter().any(|carrier| carrier.share > ALONE) {
            *events.entry("entities_of_one_series").or_default() += 1;
            return None;
        }
        let of = |carrier: &Carrier| {
            numbered.iter().find(|(index, _)| *index == carrier.index).map(|(_, s)| (*carrier, Shown::clone(s)))
        };
        let carriers: Vec<(Carrier, Shown)> = finding.carriers.iter().filter_map(of).collect();
        let worth: f64 = carriers.iter().filter(|(c, s)| is_off(c, s, settings)).map(|(c, _)| c.share).sum();
        if worth < WORTH {
            *events.entry("entities_too_small").or_default() += 1;
            return None;
        }
        let entity = Who::from(Entity { attributes: Vec::new(), ..Entity::clone(entity) });
        Some(Found { entity, bucket, finding, carriers })
    }

    /// The number of the series; `None` where there are too many.
    fn number(&mut self, shown: &Shown, bucket: u64, events: &mut Events) -> Option<u32> {
        let key = (shown.key.clone(), shown.taken.function);
        let (full, next) = (self.series.len() >= MOST_CHANNELS, self.next);
        let series = match self.series.entry(key) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if full => {
                *events.entry("entity_values_left_out").or_default() += 1;
                return None;
            }
            Entry::Vacant(room) => {
                self.next = next.wrapping_add(1);
                room.insert(Series { index: next, found: None })
            }
        };
        if shown.found {
            series.found = Some(bucket);
        }
        Some(series.index)
    }
}
