//! One incident, one alert: what was just emitted is not emitted again unless it got worse.

use serde::{Deserialize, Serialize};

/// How much a score must exceed what was passed shortly before.
const ESCALATION: f64 = 1.1;

/// What is called often is called less: the bar rises by this much per decade of events.
const WEARINESS: f64 = 0.2;

/// Passes a score only when it exceeds everything passed shortly before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refractory {
    top: f64,
    since: u32,
    /// Events counted so far.
    events: u32,
}

impl Refractory {
    /// `score`, or 0 unless it clearly exceeds all scores emitted since the last pause of `points` points.
    pub(crate) fn pass(&mut self, score: f64, points: u32) -> f64 {
        self.since = self.since.saturating_add(1);
        if self.since > points {
            self.top = 0.0;
        }
        if score > 0.0 && score > self.top * ESCALATION {
            self.top = score;
            self.since = 0;
            return score;
        }
        0.0
    }

    /// As `pass`, for a series whose events are worth the less the more of them there were; an event is a score of
    /// at least `threshold`.
    pub(crate) fn pass_wearily(&mut self, score: f64, points: u32, threshold: f64) -> f64 {
        let bar = WEARINESS * (1.0 + f64::from(self.events)).log10();
        let passed = self.pass((score - bar).max(0.0), points);
        if passed > 0.0 && passed >= threshold {
            self.events = self.events.saturating_add(1);
        }
        passed
    }

    /// Tells that `points` steps went by unseen.
    pub(crate) fn skip(&mut self, points: u32) {
        self.since = self.since.saturating_add(points);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_clearly_worse_passes_until_the_pause_is_over() {
        let mut refractory = Refractory::default();
        let passed = [0.0, 2.0, 2.1, 3.0, 1.0, 1.0, 1.0, 1.0].map(|score| refractory.pass(score, 3));
        assert_eq!(passed, [0.0, 2.0, 0.0, 3.0, 0.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn a_series_that_was_often_alerted_about_needs_more_to_be_alerted_about() {
        let mut refractory = Refractory::default();
        let passed: Vec<f64> = (0..10).map(|_| refractory.pass_wearily(2.0, 0, 1.5)).collect();
        assert!(passed[0] == 2.0 && passed.is_sorted_by(|before, after| before > after) && passed[9] > 1.75, "{passed:?}");
        assert_eq!(refractory.pass_wearily(0.1, 0, 1.5), 0.0);
        let mut quiet = Refractory::default();
        assert_eq!([1.0; 3].map(|score| quiet.pass_wearily(score, 0, 1.5)), [1.0; 3], "what is below the threshold is no event");
    }

    #[test]
    fn a_gap_counts_as_a_pause() {
        let mut refractory = Refractory::default();
        assert_eq!(refractory.pass(2.0, 100), 2.0);
        refractory.skip(100);
        assert_eq!(refractory.pass(1.0, 100), 1.0);
    }
}
