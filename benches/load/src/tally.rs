//! What became of the records that were sent.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Counts by record, and how long calls took.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Records that were sent at least once.
    pub sent: u64,
    /// Records that the daemon has acknowledged.
    pub acknowledged: u64,
    /// Of the acknowledged, those that a partial success gave up.
    pub rejected: u64,
    /// Records in calls that were refused, by code; the same record again for each time.
    pub refused: BTreeMap<String, u64>,
    /// Records in calls that were refused with a code that clients do not send again: these are lost.
    pub refused_for_good: BTreeMap<String, u64>,
    /// Records in calls that were refused so that clients send them again, without saying when.
    pub unhinted: u64,
    /// Records in calls that were sent again.
    pub retried: u64,
    /// Records in calls that got no answer.
    pub failed: u64,
    /// Records that were sent, and neither acknowledged nor refused for good when time was up.
    pub left: u64,
    /// Records in calls that got no answer and were then acknowledged: the daemon may have taken these before too.
    pub unsure: u64,
    /// One example of what was said, by code.
    pub said: BTreeMap<String, String>,
    /// A call that was acknowledged, from when it was sent, microseconds.
    pub call: Histogram<u64>,
    /// A call that was refused, from when it was sent, microseconds.
    pub refusal: Histogram<u64>,
    /// A request, from when it was due until it was acknowledged, microseconds.
    pub whole: Histogram<u64>,
}

impl Default for Tally {
    #[expect(clippy::expect_used, reason = "only bounds that contradict each other are an error")]
    fn default() -> Self {
        // Up to an hour, three digits.
        let histogram = || Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("bounds of a histogram");
        Self {
            sent: 0,
            acknowledged: 0,
            rejected: 0,
            refused: BTreeMap::new(),
            refused_for_good: BTreeMap::new(),
            unhinted: 0,
            retried: 0,
            failed: 0,
            left: 0,
            unsure: 0,
            said: BTreeMap::new(),
            call: histogram(),
            refusal: histogram(),
            whole: histogram(),
        }
    }
}

/// Adds a time to a histogram.
pub(crate) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
}

impl Tally {
    /// All that is not accounted for on this side.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.refused_for_good.values().sum::<u64>() + self.left
    }
}
