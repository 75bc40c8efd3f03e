//! What kind of quantity a series is.

use serde::{Deserialize, Serialize};

/// What kind of quantity a series is: decides what a gap means, on which scale deviations count, and
/// how bounds are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Events in a bucket (calls, log lines). Never negative; no event is 0. Few events are noise.
    Count,
    /// Events or units per second, measured elsewhere. Never negative; a missing value is a gap.
    Rate,
    /// A share from 0 to 1 of `samples` trials (errors of calls). A share of few trials is noise.
    Ratio,
    /// A positive time or size, whose noise grows with its value; `samples` values stand behind it.
    Duration,
    /// Anything else: temperatures, queue lengths, memory; may be negative.
    Level,
}

impl Quantity {
    /// The value of a bucket in which nothing was seen while the source was being watched; `None`
    /// where that is a gap.
    #[must_use]
    pub fn absent(self) -> Option<f64> {
        match self {
            Self::Count => Some(0.0),
            Self::Rate | Self::Ratio | Self::Duration | Self::Level => None,
        }
    }

    /// The smallest and largest possible value.
    #[must_use]
    pub fn limits(self) -> (f64, f64) {
        match self {
            Self::Count | Self::Rate | Self::Duration => (0.0, f64::INFINITY),
            Self::Ratio => (0.0, 1.0),
            Self::Level => (f64::NEG_INFINITY, f64::INFINITY),
        }
    }
}
