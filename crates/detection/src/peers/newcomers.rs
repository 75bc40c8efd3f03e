//! How new members of a group differ from their siblings while they are new.
//!
//! Caches are cold, pools are small, load balancers start slowly: what newcomers show is learnt by their age, in
//! doubling steps, so that the next one is compared with those before it. A newcomer teaches when it is one no more,
//! and only if nothing was found about it.

use serde::{Deserialize, Serialize};

use super::member::{AGES, Early, Member, SETTLED, UNCERTAIN};

/// How far newcomers differ before any was seen: about a fifth.
const PRIOR: f64 = 0.2;
/// The prior counts as this many newcomers.
const PRIOR_WEIGHT: f64 = 2.0;
/// What was learnt of older newcomers fades after this many.
const MOST: f64 = 30.0;
/// One newcomer teaches up to this many standard deviations.
const CLIP: f64 = 5.0;

/// What newcomers showed, by age.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Newcomers {
    /// Newcomers seen.
    count: f64,
    /// Mean and variance.
    ages: [(f64, f64); AGES],
}

impl Newcomers {
    fn age(member: &Member) -> usize {
        ((member.seen.saturating_add(1)).ilog2() as usize).min(AGES - 1)
    }

    fn deviation(&self, variance: f64) -> f64 {
        ((variance * self.count + PRIOR * PRIOR * PRIOR_WEIGHT) / (self.count + PRIOR_WEIGHT)).sqrt()
    }

    /// What a member of that age differs by, and the standard deviation of that, which fades as it gets a past of its
    /// own; nothing of founding members.
    pub(super) fn usual(&self, member: &Member) -> (f64, f64) {
        if member.founding {
            return (0.0, 0.0);
        }
        let Some((mean, variance)) = self.ages.get(Self::age(member)) else { return (0.0, 0.0) };
        let own = UNCERTAIN / (UNCERTAIN + f64::from(member.seen));
        (if member.is_settled() { 0.0 } else { *mean }, self.deviation(*variance) * own.sqrt())
    }

    /// Notes how a newcomer deviates from the common movement; learns from it when it is one no more.
    pub(super) fn follow(&mut self, member: &mut Member, deviation: f64) {
        let age = Self::age(member);
        // The age numbered n begins after 2^n - 1 steps.
        let step = f64::from(member.seen + 2 - (1 << age));
        let Some(early) = member.early.as_deref_mut() else { return };
        if let Some(mean) = early.get_mut(age) {
            *mean += ((deviation - f64::from(*mean)) / step.max(1.0)) as f32;
        }
        if member.incident.is_on() {
            member.early = None;
        } else if member.seen + 1 >= SETTLED {
            self.learn(early.to_owned());
            member.early = None;
        }
    }

    fn learn(&mut self, early: Early) {
        let count = (self.count + 1.0).min(MOST);
        let limits = self.ages.map(|(_, variance)| CLIP * self.deviation(variance));
        for (((mean, variance), shown), limit) in self.ages.iter_mut().zip(early).zip(limits) {
            let off = (f64::from(shown) - *mean).clamp(-limit, limit);
            *mean += off / (count + PRIOR_WEIGHT);
            *variance += (off * off - *variance) / count;
        }
        self.count = count;
    }
}
