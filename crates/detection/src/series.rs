//! The learnt state of one series.

use serde::{Deserialize, Serialize};

use crate::verdict::{Parameters, Quantity, State, Verdict};

/// The learnt state of one series of values at a fixed step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    quantity: Quantity,
    bucket_seconds: f64,
    seen: u32,
    needed: u32,
}

impl Series {
    /// A series that has seen nothing. `bucket_seconds` is the step between two observations.
    #[must_use]
    pub fn new(quantity: Quantity, bucket_seconds: f64) -> Self {
        Self { quantity, bucket_seconds, seen: 0, needed: Parameters::default().warmup }
    }

    /// Judges the next value, then learns from it.
    ///
    /// `time` is the start of the bucket in Unix seconds, in ascending order; `samples` is how many
    /// measurements stand behind `value` (calls behind an error share).
    pub fn observe(&mut self, _time: f64, value: f64, _samples: f64, parameters: &Parameters) -> Verdict {
        self.needed = parameters.warmup;
        if value.is_finite() {
            self.seen = self.seen.saturating_add(1);
        }
        Verdict::default()
    }

    /// Whether this series can have findings yet.
    #[must_use]
    pub fn state(&self) -> State {
        if self.seen < self.needed { State::Warming { seen: self.seen, needed: self.needed } } else { State::Ready }
    }
}
