//! What is asked of an entity, and what it answers.

use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;

/// What one series of an entity shows at one step.
#[derive(Clone, Copy, Debug)]
pub struct Channel<'a> {
    /// Which series this is: any number that the caller keeps for it.
    pub index: u32,
    /// Its value, in its own unit.
    pub value: f64,
    /// What its own [`crate::Series`] says of this value.
    pub verdict: &'a Verdict,
}

/// How unusual an entity is at one step, all its series taken together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EntityVerdict {
    /// Severity of this point, -log10 units, about 0.3 when usual; meant to be ranked.
    pub point: f64,
    /// `point` less the rarity penalty; 0 unless it exceeds what was emitted shortly before.
    pub alert: f64,
    /// As `alert`, less a reserve for the uncertainty of the tail and with a shorter pause; 0 unless it exceeds what
    /// was emitted shortly before.
    pub page: f64,
    /// Set when an incident of the entity as a whole begins, and again only when it becomes clearly worse.
    pub finding: Option<EntityFinding>,
}

/// An incident of an entity worth a person's time, and which series carry it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntityFinding {
    /// 0 to 100; bands as users know them: below 25 warning, 50 minor, 75 major, then critical.
    pub score: f64,
    /// The chance that a healthy entity shows something as unusual, per observation.
    pub probability: f64,
    /// The series that carry it, the strongest first; their shares add up to 1.
    pub carriers: Vec<Carrier>,
}

/// One series' part in a finding about its entity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Carrier {
    /// The caller's number of the series.
    pub index: u32,
    /// Its share of the finding, 0 to 1.
    pub share: f64,
    /// How unusual its latest values were for itself, -log10 units.
    pub surprise: f64,
    /// How far its value is from its mean of the last days, in standard deviations; 0 while that is not known.
    pub deviation: f64,
}
