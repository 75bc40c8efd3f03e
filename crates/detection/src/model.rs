//! What a model is to a series: one trait.
//!
//! The series ([`crate::Series`]) is the shell that every model shares: quantity and scale, gaps, warm-up, the rarity
//! penalty, one alert per incident, the smallest deviation worth a finding. A model answers how unusual a value is and
//! what was expected instead, and learns.

use crate::ensemble::models::COMPONENTS;
use crate::forest::training::Job;
use crate::options::ModelOptions;
use crate::quantity::Quantity;
use crate::state::Progress;

/// Surprise of each component of a model, in the order of [`Model::COMPONENTS`]; 0 behind the last one.
pub(crate) type Surprises = [f64; COMPONENTS.len()];

/// Surprises above this say nothing more.
pub(crate) const MOST_SURPRISE: f64 = 300.0;

/// One value on its way through a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation {
    pub(crate) quantity: Quantity,
    /// Unix seconds.
    pub(crate) time: f64,
    /// In the series' own unit, within limits.
    pub(crate) value: f64,
    /// On the learnt scale.
    pub(crate) learnt: f64,
    /// Measurements behind it; 0 or NaN if not known.
    pub(crate) samples: f64,
}

/// What the series knows when it asks a model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub(crate) options: ModelOptions,
    /// Seconds between two values.
    pub(crate) bucket_seconds: f64,
    /// How much rarer than at the start a value must be; see [`crate::heads::penalty`].
    pub(crate) penalty: f64,
    /// The page score from which there is a finding.
    pub(crate) page_threshold: f64,
    /// Whether the series is in a confirmed incident.
    pub(crate) incident: bool,
    /// Whether nothing is to become normal by this value.
    pub(crate) unlearnt: bool,
}

impl Circumstances {
    /// The surprise from which a value may be a finding, where `worth` times it, less the penalty, is the page score.
    pub(crate) fn surprise_needed(&self, worth: f64) -> f64 {
        self.options.contamination.threshold().unwrap_or(self.page_threshold / worth + self.penalty)
    }
}

/// How unusual a model finds a value, before anything is learnt from it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    /// Severity of this point, -log10 units.
    pub(crate) point: f64,
    /// Less the penalty, before the refractory rule.
    pub(crate) alert: f64,
    /// Less the penalty, before the refractory rule and that of the smallest deviation.
    pub(crate) page: f64,
    /// Overall and before the penalty: what the series' own history of scores is made of.
    pub(crate) score: f64,
    /// What is usual, on the learnt scale.
    pub(crate) expected: Option<f64>,
    /// How far from it a finding begins, on the learnt scale.
    pub(crate) reach: Option<f64>,
    /// Whether an incident that is on goes on.
    pub(crate) unusual: bool,
    /// Per component; all 0 where a model tells the components of findings only.
    pub(crate) surprises: Surprises,
}

/// One component's part in a finding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) component: &'static str,
    /// -log10 units, not negative.
    pub(crate) surprise: f64,
    /// What it expected, on the learnt scale; `None` if it has no opinion of its own.
    pub(crate) expected: Option<f64>,
}

/// How unusual is a value among those that a series has shown?
pub(crate) trait Model {
    /// What [`Model::judge`] worked out and [`Model::learn`] needs.
    type Memo;

    /// The components that carry findings.
    const COMPONENTS: &'static [&'static str];

    /// Tells that `missing` values were not seen before the next one.
    fn skip(&mut self, missing: u32);

    /// Judges the next value.
    fn judge(&mut self, observation: &Observation, circumstances: &Circumstances) -> (Evidence, Self::Memo);

    /// The components that carry a finding, in any order.
    fn parts(&self, observation: &Observation, evidence: &Evidence, memo: &Self::Memo) -> Vec<Part>;

    /// Learns the value that was judged. With `protect` it belongs to an incident and must not become normal.
    fn learn(&mut self, observation: &Observation, circumstances: &Circumstances, memo: &Self::Memo, protect: bool);

    /// A person says that `learnt` is normal at `time`.
    fn teach(&mut self, _time: f64, _learnt: f64) {}

    /// The distance at which the last twelve values, less their mean, usually repeat.
    fn usual_distance(&self) -> Option<f64> {
        None
    }

    /// The last values that it remembers, on the learnt scale, oldest first; what bridges a short gap is among them.
    fn recent(&self) -> Vec<f64> {
        Vec::new()
    }

    /// How far its training is; a model that learns with every value is never trained.
    fn progress(&self) -> Progress {
        Progress::Untrained
    }

    /// Whether training is due that was not handed out yet.
    fn is_due(&self) -> bool {
        false
    }

    /// The training that is due; handed out once.
    fn job(&mut self) -> Option<Job> {
        None
    }

    /// Heap memory in bytes.
    fn heap(&self) -> usize;
}
