//! How far values usually are from what the calendar expects, by time of day: what is much at night may be little at
//! noon.

use serde::{Deserialize, Serialize};

use super::phase;

/// Distances seen before one is compared with the usual one.
const WARM: u32 = 10;
/// Distances seen before an unusual one is learnt in part only.
const KNOWN: u32 = 20;
/// Values of a phase that make it count in full.
const FULL: u8 = 8;
/// So much of the overall distance stands beside that of the phases.
const PRIOR: f32 = 2.0;
/// Slowest rate of the overall distance.
const RATE: f32 = 0.001;
/// Most times the usual distance that is learnt, overall and by a phase.
const MOST_OVERALL: f32 = 8.0;
const MOST: f32 = 5.0;
/// The largest relative distance.
const LARGEST: f32 = 1e6;

/// Mean distance per phase of a period, smoothed with its neighbours and with the mean of all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// Seconds.
    period: f64,
    /// Slowest rate at which a phase forgets.
    rate: f32,
    seen: u32,
    overall: f32,
    means: Box<[f32]>,
    /// Distances learnt per phase, saturating.
    counts: Box<[u8]>,
}

impl Spread {
    /// Distances of `phases` equal parts of `period` seconds.
    pub(crate) fn new(period: f64, phases: usize, rate: f32) -> Self {
        Self { period, rate, seen: 0, overall: 0.0, means: vec![0.0; phases].into(), counts: vec![0; phases].into() }
    }

    /// Heap memory in bytes.
    pub(crate) fn heap(&self) -> usize {
        size_of_val(&*self.means) + size_of_val(&*self.counts)
    }

    /// `distance` per usual distance at `time`; `None` while little is known.
    pub(crate) fn relative(&self, time: f64, distance: f64) -> Option<f64> {
        if self.seen <= WARM {
            return None;
        }
        let distance = narrow(distance);
        Some(if distance > 0.0 { f64::from(distance / self.usual(time).max(distance / LARGEST)) } else { 0.0 })
    }

    /// Learns the distance of `time`; of an unusual one only a part.
    pub(crate) fn learn(&mut self, time: f64, distance: f64) {
        let distance = narrow(distance);
        let usual = self.usual(time);
        let cut = |most: f32, usual: f32| if usual > 0.0 { distance.min(most * usual) } else { distance };
        let known = self.seen >= KNOWN;
        self.seen = self.seen.saturating_add(1);
        let overall = if known { cut(MOST_OVERALL, self.overall) } else { distance };
        self.overall += (1.0 / single(self.seen)).max(RATE) * (overall - self.overall);
        let taught = if known { cut(MOST, usual) } else { distance };
        let here = phase(time, self.period, self.means.len());
        if let (Some(mean), Some(count)) = (self.means.get_mut(here), self.counts.get_mut(here)) {
            *count = count.saturating_add(1);
            *mean += (1.0 / f32::from(*count)).max(self.rate) * (taught - *mean);
        }
    }

    fn usual(&self, time: f64) -> f32 {
        let phases = self.means.len();
        let here = phase(time, self.period, phases);
        let (mut sum, mut weights) = (PRIOR * self.overall, PRIOR);
        for (offset, weight) in [(phases.saturating_sub(1), 1.0), (0, 2.0), (1, 1.0)] {
            let cell = (here + offset) % phases.max(1);
            if let (Some(mean), Some(count)) = (self.means.get(cell), self.counts.get(cell)) {
                let weight = weight * f32::from((*count).min(FULL));
                sum += weight * mean;
                weights += weight;
            }
        }
        sum / weights
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounds; series are limited to magnitudes that f32 holds")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[expect(clippy::cast_precision_loss, reason = "seven digits of a count are enough")]
fn single(count: u32) -> f32 {
    count as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_judged_by_what_is_usual_at_its_time_of_day() {
        let mut spread = Spread::new(86_400.0, 48, 0.05);
        assert_eq!(spread.relative(0.0, 1.0), None);
        for step in 0..480 {
            let time = 1800.0 * f64::from(step);
            spread.learn(time, if step % 48 < 24 { 1.0 } else { 10.0 });
        }
        let (night, day) = (spread.relative(12.0 * 1800.0, 5.0).unwrap(), spread.relative(36.0 * 1800.0, 5.0).unwrap());
        assert!((3.0..5.1).contains(&night) && (0.5..0.8).contains(&day), "{night} {day}");
    }

    #[test]
    fn after_silence_any_distance_is_large_and_learnt() {
        let mut spread = Spread::new(86_400.0, 48, 0.05);
        (0..100).for_each(|step| spread.learn(1800.0 * f64::from(step), 0.0));
        assert_eq!(spread.relative(0.0, 0.0), Some(0.0));
        assert!(spread.relative(0.0, 1e-9).unwrap() > 1e5);
        (0..480).for_each(|step| spread.learn(1800.0 * f64::from(step), 3.0));
        let relative = spread.relative(0.0, 3.0).unwrap();
        assert!((0.5..3.0).contains(&relative), "{relative}");
    }
}
