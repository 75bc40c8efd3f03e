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
