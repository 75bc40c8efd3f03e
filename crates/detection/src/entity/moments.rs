//! Mean and spread of one quantity over days, which single outliers hardly move.

use serde::{Deserialize, Serialize};

/// Differences are cut at so many standard deviations before the mean learns them,
const MEAN_LIMIT: f64 = 4.0;
/// and at so many before the variance does: a larger scale is learnt in a hundred values, one spike is not a scale.
const VARIANCE_LIMIT: f64 = 10.0;
/// Values of which the mean learns everything.
const FREE: u32 = 30;
/// Differences smaller than this share of the mean are rounding.
const ROUNDING: f64 = 1e-9;

/// Exponentially weighted mean and variance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Moments {
    mean: f64,
    variance: f64,
}

impl Moments {
    /// How many standard deviations `value` is from the mean, at most `limit`; a first change of what was constant is
    /// as much.
    pub(super) fn deviation(&self, value: f64, limit: f64) -> f64 {
        let difference = value - self.mean;
        let deviation = self.variance.sqrt() + ROUNDING * self.mean.abs();
        if difference == 0.0 {
            0.0
        } else if deviation > 0.0 {
            (difference / deviation).clamp(-limit, limit)
        } else {
            limit.copysign(difference)
        }
    }

    /// Whether all values were the same.
    pub(super) fn is_constant(&self) -> bool {
        self.variance <= 0.0
    }

    /// Learns the value that follows `seen` others with this rate.
    pub(super) fn learn(&mut self, value: f64, seen: u32, rate: f64) {
        if seen == 0 {
            *self = Self { mean: value, variance: 0.0 };
            return;
        }
        let mut difference = value - self.mean;
        let mut square = difference * difference;
        if self.variance > 0.0 {
            square = square.min(self.variance * VARIANCE_LIMIT * VARIANCE_LIMIT);
            if seen >= FREE {
                let limit = MEAN_LIMIT * self.variance.sqrt();
                difference = difference.clamp(-limit, limit);
            }
        }
        self.mean += rate * difference;
        self.variance += rate * (square - self.variance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taught(values: impl IntoIterator<Item = f64>) -> Moments {
        let mut moments = Moments::default();
        for (seen, value) in (0..).zip(values) {
            moments.learn(value, seen, (1.0 / f64::from(seen + 1)).max(1.0 / 2000.0));
        }
        moments
    }

    fn noise(count: u32) -> impl Iterator<Item = f64> {
        (0..count).map(|step| f64::from(step * 7919 % 1009) / 1009.0)
    }

    #[test]
    fn deviations_are_counted_in_standard_deviations_of_the_past() {
        let moments = taught(noise(2000));
        let deviation = moments.deviation(0.5 + 2.0 / 12f64.sqrt(), 4.0);
        assert!((deviation - 2.0).abs() < 0.1, "{deviation}");
        assert_eq!(moments.deviation(-1e9, 4.0), -4.0);
    }

    #[test]
    fn one_spike_changes_little_and_a_larger_scale_is_learnt_in_days() {
        let before = taught(noise(2000)).deviation(2.0, 1e9);
        let spiked = taught(noise(2000).chain([1e6])).deviation(2.0, 1e9);
        assert!(spiked > 0.9 * before, "{before}, {spiked}");
        let grown = taught(noise(2000).chain(noise(4000).map(|value| 100.0 * value)));
        assert!(grown.deviation(100.0, 1e9) < 3.0, "{}", grown.deviation(100.0, 1e9));
    }

    #[test]
    fn the_first_change_of_a_constant_counts_in_full_and_rounding_does_not() {
        let moments = taught([0.0; 500]);
        assert!(moments.is_constant());
        assert_eq!([moments.deviation(0.0, 4.0), moments.deviation(1e-9, 4.0), moments.deviation(-3.0, 4.0)], [0.0, 4.0, -4.0]);
        assert!(taught([1e6; 500]).deviation(1e6 + 1e-6, 4.0).abs() < 0.01);
    }
}
