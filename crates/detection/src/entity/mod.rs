//! Several series of one entity, judged jointly.
//!
//! Two memories, because there are two kinds of trouble. A *change* is short: several series do at once what they
//! seldom do (`change.rs`); it is measured with what each series already knows about itself. A *state* may last for
//! hours: values that are each possible, but not together, or not usual for days (`condition.rs`); it is measured
//! with an own memory of days that does not learn from what is unusual. Each is brought to the scale of
//! -log10(probability) by its own past (`span.rs`), and the louder of the two counts.

mod change;
mod condition;
mod correlation;
mod moments;
mod slots;
mod span;
mod verdict;

use serde::{Deserialize, Serialize};

use crate::heads;
use crate::series::incident::Incident;
use crate::series::refractory::Refractory;
use crate::state::{State, Waiting};
use crate::verdict::Parameters;
use change::Change;
use condition::Condition;
use slots::{Place, Row, Slots};
use span::Span;

pub use slots::MOST_CHANNELS;
pub use verdict::{Carrier, Channel, EntityFinding, EntityVerdict};

/// Evidence of an incident is gathered over so many seconds.
const GATHERING: f64 = 900.0;
/// Memory of what scores are usual, in seconds.
const MEMORY: f64 = 14.0 * 86_400.0;
/// What a state's surprise counts as compared with that of a change: values of a state follow each other, so its many
/// unusual minutes are one piece of evidence.
const STATE_WEIGHT: f64 = 0.6;
/// Surprises above this say nothing more.
const MOST_SURPRISE: f64 = 300.0;
/// Values of a series before its mean and spread say anything.
const YOUNG: u32 = 20;
/// Larger magnitudes count as this one.
const LARGEST: f64 = 1e35;
/// The scale by quartiles reads so much too high where it matters: measured on healthy simulated entities, which
/// would have a finding in two days without it.
const RESERVE: f64 = 0.6;
/// Steps after which the series' own surprises are calibrated.
const CALIBRATED: u32 = 60;
/// A point of this severity keeps an incident alive.
const LASTING: f64 = 1.0;
/// A score that grows within so many seconds of a finding is the incident unfolding, not an escalation.
const UNFOLDING: f64 = 3_600.0;

/// The learnt state of one entity: how its series behave together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entity {
    bucket_seconds: f64,
    seen: u32,
    needed: u32,
    last_time: Option<f64>,
    slots: Slots,
    condition: Condition,
    changes: Span,
    states: Span,
    alerts: Refractory,
    pages: Refractory,
    incident: Incident,
    /// Time of the last finding.
    found: Option<f64>,
}

impl Entity {
    /// An entity of which nothing was seen. `bucket_seconds` is the step between two observations.
    #[must_use]
    pub fn new(bucket_seconds: f64) -> Self {
        let step = if bucket_seconds.is_finite() { bucket_seconds.max(1e-3) } else { 60.0 };
        Self {
            bucket_seconds: step,
            seen: 0,
            needed: Parameters::default().warmup,
            last_time: None,
            slots: Slots::default(),
            condition: Condition::new(step),
            changes: Span::new(MEMORY / step),
            states: Span::new(MEMORY / step),
            alerts: Refractory::default(),
            pages: Refractory::default(),
            incident: Incident::default(),
            found: None,
        }
    }

    /// Judges what all series of the entity show at one time, then learns from it.
    ///
    /// `time` is the start of the bucket in Unix seconds, in ascending order. `channels` are the series that have a
    /// value in this bucket, each already judged by its own [`crate::Series`], in any order; series may come and go.
    /// Values that are not finite are left out. A step without any value, or not later than the one before, is not
    /// judged and not learnt.
    pub fn observe(&mut self, time: f64, channels: &[Channel<'_>], parameters: &Parameters) -> EntityVerdict {
        self.needed = parameters.warmup;
        let backwards = self.last_time.is_some_and(|last| time <= last);
        if !time.is_finite() || backwards || !channels.iter().any(|channel| channel.value.is_finite()) {
            return EntityVerdict::default();
        }
        let elapsed = self.last_time.map_or(self.bucket_seconds, |last| time - last);
        self.skip(elapsed);
        self.last_time = Some(time);
        let fresh = 1.0 - (-elapsed / GATHERING).exp();

        let (mut values, mut deviations): (Row, Row) = ([None; MOST_CHANNELS], [None; MOST_CHANNELS]);
        let mut change = Change::new();
        for (position, channel) in channels.iter().enumerate().filter(|(_, channel)| channel.value.is_finite()) {
            let surprise = change::surprise(channel.verdict);
            change.add(surprise);
            let place = match self.slots.place(channel.index, position, self.condition.patience()) {
                Some(Place::Known(place)) => place,
                Some(Place::New(place)) => {
                    self.condition.correlation.add(place);
                    place
                }
                None => continue,
            };
            let Some(slot) = self.slots.get_mut(place) else { continue };
            let value = channel.value.clamp(-LARGEST, LARGEST);
            slot.surprise += fresh * (surprise - slot.surprise);
            if let Some(expected) = channel.verdict.expected.filter(|expected| expected.is_finite()) {
                change.add_residual(slot, value - expected.clamp(-LARGEST, LARGEST), self.condition.rate());
            }
            let deviation = if slot.seen < YOUNG { 0.0 } else { slot.level.deviation(value, condition::LARGEST) };
            if let (Some(known), Some(deviates)) = (values.get_mut(place), deviations.get_mut(place)) {
                (*known, *deviates) = (Some(value), Some(deviation));
            }
        }
        self.slots.pass(&values);
        let distance = self.condition.observe(&mut self.slots, &values, &deviations);
        let known = self.seen >= CALIBRATED;
        let change = if known { self.changes.follow(change.score(), fresh) } else { 0.0 };
        let state = distance.map_or(0.0, |distance| STATE_WEIGHT * self.states.follow((1.0 + distance).log10(), fresh));

        let verdict = self.judge((change, state), channels, &deviations, parameters);
        if verdict.finding.is_some() {
            self.found = Some(time);
        }
        let unfolds = self.found.is_some_and(|found| time - found < UNFOLDING) && verdict.page > 0.0;
        self.incident.follow(unfolds.then_some(verdict.page), verdict.point > LASTING);
        self.seen = self.seen.saturating_add(1);
        verdict
    }

    /// Whether this entity can have findings yet.
    #[must_use]
    pub fn state(&self) -> State {
        if self.seen < self.needed {
            State::Warming { seen: self.seen, needed: self.needed, reason: Waiting::Warmup }
        } else {
            State::Ready { trained: None }
        }
    }

    /// Memory that this entity holds, in bytes; grows with the square of its series, of which at most
    /// [`MOST_CHANNELS`] are remembered.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.changes.heap() + self.states.heap() + self.slots.heap() + self.condition.correlation.heap()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
    fn skip(&mut self, elapsed: f64) {
        let missing = ((elapsed / self.bucket_seconds).round() as u32).saturating_sub(1);
        if missing > 0 {
            self.alerts.skip(missing);
            self.pages.skip(missing);
            self.incident.skip(missing);
        }
    }

    fn judge(
        &mut self,
        (change, state): (f64, f64),
        channels: &[Channel<'_>],
        deviations: &Row,
        parameters: &Parameters,
    ) -> EntityVerdict {
        let point = change.max(state).min(MOST_SURPRISE);
        let score = (point - heads::penalty(self.seen, self.bucket_seconds).max(0.0)).max(0.0);
        let mut verdict = EntityVerdict {
            point,
            alert: self.alerts.pass(score, parameters.alert_refractory),
            page: self.pages.pass((score - RESERVE).max(0.0), parameters.page_refractory),
            finding: None,
        };
        let unfolds = self.found.is_some_and(|found| self.last_time.is_some_and(|time| time - found < UNFOLDING));
        let news = !unfolds && verdict.page >= parameters.page_threshold && self.incident.is_worse(verdict.page);
        if news && self.seen >= self.needed {
            verdict.finding = Some(EntityFinding {
                score: heads::severity(verdict.page, parameters.page_threshold),
                probability: 10f64.powf(-verdict.page),
                carriers: self.carriers(channels, deviations, change / (change + state)),
            });
        }
        verdict
    }

    /// The series' parts in a finding of which `weight`, 0 to 1, is the change and the rest the state.
    fn carriers(&self, channels: &[Channel<'_>], deviations: &Row, weight: f64) -> Vec<Carrier> {
        let parts = self.condition.correlation.parts(deviations);
        let all: f64 = parts.iter().sum();
        let mut carriers: Vec<Carrier> = channels
            .iter()
            .filter(|channel| channel.value.is_finite())
            .map(|channel| {
                let place = self.slots.find(channel.index);
                let now = change::surprise(channel.verdict);
                let gathered = place.and_then(|place| self.slots.get(place)).map_or(now, |slot| slot.surprise.max(now));
                let part = place.and_then(|place| parts.get(place)).map_or(0.0, |part| part / all.max(1e-9));
                let deviation = place.and_then(|place| deviations.get(place).copied().flatten()).unwrap_or(0.0);
                Carrier { index: channel.index, share: part, surprise: gathered, deviation }
            })
            .collect();
        let loud: f64 = carriers.iter().map(|carrier| carrier.surprise * carrier.surprise).sum();
        for carrier in &mut carriers {
            let changed = carrier.surprise * carrier.surprise / loud.max(1e-9);
            carrier.share = weight * changed + (1.0 - weight) * carrier.share;
        }
        carriers.retain(|carrier| carrier.share > 0.0);
        let all: f64 = carriers.iter().map(|carrier| carrier.share).sum();
        carriers.iter_mut().for_each(|carrier| carrier.share /= all);
        carriers.sort_by(|left, right| right.share.total_cmp(&left.share).then(left.index.cmp(&right.index)));
        carriers
    }
}
