//! A value of a series, and what was said about it.

use detection::Verdict;

use super::bucket::Taken;
use super::training::Judge;
use crate::model::UnixNanos;

/// A value that was judged.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) bucket: u64,
    pub(super) taken: Taken,
    pub(super) verdict: Verdict,
    pub(super) judge: Judge,
}

impl Judged {
    /// Whether an incident of the series would not be over.
    pub(super) fn is_out_of_bounds(&self) -> bool {
        let value = self.taken.value;
        self.verdict.lower.is_some_and(|lower| value < lower) || self.verdict.upper.is_some_and(|upper| value > upper)
    }
}

/// A value out of the bounds of what is usual, whether or not it is worth an anomaly of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Unusual {
    /// Start of its bucket.
    pub(super) start: UnixNanos,
    /// The series, as in `Anomaly::fingerprint`.
    pub(super) fingerprint: String,
}
