//! One incident, one alert: what was just emitted is not emitted again unless it got worse.

use serde::{Deserialize, Serialize};

/// How much a score must exceed what was passed shortly before.
const ESCALATION: f64 = 1.1;

/// Passes a score only when it exceeds everything passed shortly before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refractory {
    top: f64,
    since: u32,
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

    /// Tells that `points` steps went by unseen.
    pub(crate) fn skip(&mut self, points: u32) {
        self.since = self.since.saturating_add(points);
    }
}
