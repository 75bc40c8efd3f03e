//! What the calendar expects: an exponentially weighted mean per phase of a period.

use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::phase;

/// Mean value per phase of a day or a week; a phase is smoothed with its neighbours (1-2-1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Profile {
    /// Seconds.
    period: f64,
    /// Slowest rate at which a phase forgets.
    rate: f32,
    /// The first value; means are kept relative to it so that `f32` holds them.
    base: f64,
    means: Box<[f32]>,
    /// Values learnt per phase, saturating: only its inverse as compared with `rate` matters.
    counts: Counts,
}

impl Profile {
    /// A profile of `phases` equal parts of `period` seconds.
    pub(crate) fn new(period: f64, phases: usize, rate: f32) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, which is what is wanted")]
        let most = (1.0 / rate).ceil() as u8;
        Self { period, rate, base: 0.0, means: vec![0.0; phases].into(), counts: Counts::new(phases, most) }
    }

    /// Heap memory in bytes.
    pub(crate) fn heap(&self) -> usize {
        size_of_val(&*self.means) + self.counts.heap()
    }

    /// The value usual at `time` (Unix seconds); `None` while neither this phase nor a neighbour was seen.
    pub(crate) fn expect(&self, time: f64) -> Option<f64> {
        let phases = self.means.len();
        let here = phase(time, self.period, self.means.len());
        let before = if here == 0 { phases.saturating_sub(1) } else { here - 1 };
        let after = if here + 1 >= phases { 0 } else { here + 1 };
        let (mut sum, mut weights) = (0.0, 0.0);
        for (phase, weight) in [(before, 1.0), (here, 2.0), (after, 1.0)] {
            if let (Some(mean), 1..) = (self.means.get(phase), self.counts.get(phase)) {
                sum += weight * f64::from(*mean);
                weights += weight;
            }
        }
        (weights > 0.0).then(|| self.base + sum / weights)
    }

    /// Learns the value of `time`.
    pub(crate) fn learn(&mut self, time: f64, value: f64) {
        let here = phase(time, self.period, self.means.len());
        if self.counts.is_empty() {
            self.base = value;
        }
        if let Some(mean) = self.means.get_mut(here) {
            let rate = (1.0 / f32::from(self.counts.add(here).max(1))).max(self.rate);
            *mean += rate * (narrow(value - self.base) - *mean);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounds; series are limited to magnitudes that f32 holds")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_smoothed_with_its_neighbours_around_midnight() {
        let mut profile = Profile::new(86_400.0, 48, 0.05);
        assert_eq!(profile.expect(0.0), None);
        profile.learn(0.0, 10.0);
        profile.learn(86_400.0 - 1800.0, 40.0);
        profile.learn(1800.0, 20.0);
        assert_eq!(profile.expect(900.0), Some((2.0 * 10.0 + 40.0 + 20.0) / 4.0));
        assert_eq!(profile.expect(3.0 * 86_400.0 - 1.0), Some((2.0 * 40.0 + 10.0) / 3.0));
        assert_eq!(profile.expect(43_200.0), None);
    }

    #[test]
    fn times_before_1970_have_phases_too() {
        let mut profile = Profile::new(86_400.0, 48, 0.05);
        profile.learn(-1.0, 5.0);
        assert_eq!(profile.expect(86_399.0), Some(5.0));
    }

    #[test]
    fn large_offsets_keep_small_differences() {
        let mut profile = Profile::new(86_400.0, 48, 0.05);
        profile.learn(0.0, 1e12);
        profile.learn(43_200.0, 1e12 + 3.0);
        assert_eq!(profile.expect(43_200.0), Some(1e12 + 3.0));
    }
}
