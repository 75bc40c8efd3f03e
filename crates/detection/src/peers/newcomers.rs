//! How new members of a group differ from their siblings while they are new.
//!
//! Caches are cold, pools are small, load balancers start slowly: what newcomers show is learnt by their age, in
//! doubling steps, so that the next one is compared with those before it.

use serde::{Deserialize, Serialize};

use super::member::{Member, SETTLED};

/// Ages 1, 2-3, 4-7, ... 64-127.
const AGES: usize = SETTLED.ilog2() as usize;
/// How far newcomers differ before any was seen: about a fifth.
const PRIOR: f64 = 0.2;
/// The prior counts as this many newcomers.
const PRIOR_WEIGHT: f64 = 1.0;
/// What was learnt of older newcomers fades after this many.
const MOST: f64 = 30.0;
/// One newcomer teaches up to this many standard deviations.
const CLIP: f64 = 3.0;

/// What newcomers showed, by age.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Newcomers {
    ages: [Age; AGES],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Age {
    /// Newcomers seen.
    count: f64,
    mean: f64,
    variance: f64,
}

impl Age {
    fn deviation(&self) -> f64 {
        ((self.variance * self.count + PRIOR * PRIOR * PRIOR_WEIGHT) / (self.count + PRIOR_WEIGHT)).sqrt()
    }
}

impl Newcomers {
    fn age(member: &Member) -> Option<usize> {
        (!member.is_settled()).then(|| (member.seen + 1).ilog2() as usize)
    }

    /// What a member of that age differs by, and the standard deviation of that; nothing of settled ones.
    ///
    /// As a newcomer gets a past of its own, its offset takes over.
    pub(super) fn usual(&self, member: &Member) -> (f64, f64) {
        let Some(age) = Self::age(member).and_then(|age| self.ages.get(age)) else { return (0.0, 0.0) };
        let own = 60.0 / (60.0 + f64::from(member.seen));
        (age.mean, age.deviation() * own.sqrt())
    }

    /// Learns what a newcomer shows beside its own offset.
    pub(super) fn learn(&mut self, member: &Member, deviation: f64) {
        let Some(place) = Self::age(member) else { return };
        let Some(age) = self.ages.get_mut(place) else { return };
        // A newcomer passes an age in 2^age steps, and counts as one.
        let weight = 1.0 / f64::from(1u32 << place);
        let limit = CLIP * age.deviation();
        let off = (deviation - age.mean).clamp(-limit, limit);
        let count = (age.count + weight).min(MOST);
        let rate = weight / (count + PRIOR_WEIGHT);
        age.mean += off * rate;
        age.variance += (off * off - age.variance) * (weight / count);
        age.count = count;
    }
}
