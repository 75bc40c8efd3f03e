//! A confirmed incident of one series: it is not learnt as normal, and not reported twice.

use serde::{Deserialize, Serialize};

/// Points an incident lasts after the last unusual value.
const AFTERGLOW: u32 = 30;
/// What lasts as long is the new normal: seconds, and points where steps are long.
const NEW_NORMAL: f64 = 6.0 * 3_600.0;
const NEW_NORMAL_POINTS: f64 = 12.0;
/// How much worse an incident must become to be found again.
const ESCALATION: f64 = 1.25;

/// Whether a series is in an incident, for how long, and how bad it was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Incident {
    /// Points until it is over.
    left: u32,
    /// Points since it began.
    age: u32,
    worst: f64,
}

impl Incident {
    /// Takes note of the next point: the page score of a finding, and whether the value was unusual.
    pub(crate) fn follow(&mut self, finding: Option<f64>, unusual: bool) {
        if let Some(page) = finding {
            self.left = AFTERGLOW;
            self.worst = self.worst.max(page);
        } else if self.left > 0 {
            self.left = if unusual { AFTERGLOW } else { self.left - 1 };
        }
        if self.left > 0 {
            self.age = self.age.saturating_add(1);
        } else {
            *self = Self::default();
        }
    }

    /// Tells that `points` steps went by unseen.
    pub(crate) fn skip(&mut self, points: u32) {
        self.left = self.left.saturating_sub(points);
        if self.left == 0 {
            *self = Self::default();
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.left > 0
    }

    /// Whether values are still to be kept from being learnt.
    pub(crate) fn is_young(&self, bucket_seconds: f64) -> bool {
        let age = f64::from(self.age);
        self.is_on() && (age < NEW_NORMAL_POINTS || age * bucket_seconds < NEW_NORMAL)
    }

    /// The worst page score of it.
    pub(crate) fn worst(&self) -> f64 {
        self.worst
    }

    /// Whether `page` is news: there is no incident, or it became clearly worse.
    pub(crate) fn is_worse(&self, page: f64) -> bool {
        page >= self.worst * ESCALATION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_lasts_while_values_are_unusual_and_then_fades() {
        let mut incident = Incident::default();
        incident.follow(Some(2.0), true);
        for _ in 0..100 {
            incident.follow(None, true);
        }
        assert!(incident.is_on() && !incident.is_worse(2.4) && incident.is_worse(2.5));
        for _ in 0..AFTERGLOW {
            incident.follow(None, false);
        }
        assert!(!incident.is_on() && incident.is_worse(0.1));
    }

    #[test]
    fn what_lasts_is_the_new_normal() {
        let mut incident = Incident::default();
        incident.follow(Some(2.0), true);
        for _ in 0..359 {
            assert!(incident.is_young(60.0));
            incident.follow(None, true);
        }
        assert!(!incident.is_young(60.0), "six hours of minutes");
    }
}
