//! The slow memory: is the state of all series together one that the last days have seen?
//!
//! Distances of all values to their means of the last days, in standard deviations and limited, since a state is of
//! many series; then the Mahalanobis distance of all of them. What is unusual is learnt twenty times slower, so that an
//! incident of hours does not become normal; what lasts for two days does.

use serde::{Deserialize, Serialize};

use super::correlation::Correlation;
use super::slots::{MOST_CHANNELS, Row, Slots};

/// Memory in seconds.
const MEMORY: f64 = 7.0 * 86_400.0;
/// What lasts longer than so many seconds is a new normal.
const NEW_NORMAL: f64 = 2.0 * 86_400.0;
/// Larger deviations count as so many standard deviations.
pub(super) const LARGEST: f64 = 4.0;
/// Seconds and steps before distances mean anything.
const WARM: f64 = 86_400.0;
const WARM_STEPS: u32 = 240;
/// Distances above so many times the usual one are unusual.
const UNUSUAL: f64 = 2.0;
/// Smallest share of its usual rate at which an unusual step is learnt.
const LEAST: f64 = 0.05;
/// A usual step takes back so many unusual ones.
const RELIEF: u32 = 4;

/// What is known of an entity's states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Condition {
    /// Slowest rate of learning.
    rate: f64,
    /// Unusual steps that make a new normal.
    patience: u32,
    /// Steps before distances mean anything.
    warm: u32,
    seen: u32,
    /// The usual distance.
    usual: f64,
    /// Unusual steps in a row, about.
    unusual: u32,
    pub(super) correlation: Correlation,
}

impl Condition {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
    pub(super) fn new(step: f64) -> Self {
        Self {
            rate: (step / MEMORY).min(0.1),
            patience: (NEW_NORMAL / step) as u32,
            warm: ((WARM / step) as u32).max(WARM_STEPS),
            seen: 0,
            usual: 1.0,
            unusual: 0,
            correlation: Correlation::default(),
        }
    }

    /// Slowest rate of learning.
    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    /// Steps after which a state is a new normal.
    pub(super) fn patience(&self) -> u32 {
        self.patience
    }

    /// Judges a step by the deviations of its values, then learns both: about 1 when usual; `None` while little is known.
    pub(super) fn observe(&mut self, slots: &mut Slots, values: &Row, deviations: &Row) -> Option<f64> {
        let distance = self.correlation.distance(deviations);
        let weight = self.follow(distance);
        let mut rates = [0.0; MOST_CHANNELS];
        for ((slot, value), rate) in slots.iter_mut().zip(values).zip(&mut rates) {
            let Some(value) = *value else { continue };
            *rate = (1.0 / f64::from(slot.seen.saturating_add(1))).max(self.rate) * weight;
            slot.level.learn(value, slot.seen, *rate);
            slot.seen = slot.seen.saturating_add(1);
        }
        self.correlation.learn(deviations, &rates);
        self.seen = self.seen.saturating_add(1);
        (self.seen > self.warm).then_some(distance)
    }

    /// How much of its usual rate this step is learnt with.
    fn follow(&mut self, distance: f64) -> f64 {
        let rate = (1.0 / f64::from(self.seen.saturating_add(1))).max(self.rate);
        if self.seen < self.warm {
            if self.seen > self.warm / 2 {
                self.usual += rate.max(0.01) * (distance - self.usual);
            }
            return 1.0;
        }
        let limit = UNUSUAL * self.usual;
        self.unusual = if distance > limit { self.unusual.saturating_add(1) } else { self.unusual.saturating_sub(RELIEF) };
        let weight = if self.unusual > self.patience { 1.0 } else { (limit / distance.max(1e-9)).clamp(LEAST, 1.0) };
        self.usual += rate * weight * (distance - self.usual);
        weight
    }
}
