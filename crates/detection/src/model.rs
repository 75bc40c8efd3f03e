//! What a model is to a series: one trait, and the models that there are.
//!
//! The series ([`crate::Series`]) is the shell that every model shares: quantity and scale, gaps, warm-up, the rarity
//! penalty, one alert per incident, the smallest deviation worth a finding. A model answers how unusual a value is and
//! what was expected instead, and learns.

use serde::{Deserialize, Serialize};

use crate::ensemble::{COMPONENTS, Ensemble};
use crate::forest::Forest;
use crate::seasonal_band::SeasonalBand;
use crate::training::{Job, Progress};
use crate::verdict::Quantity;

/// Surprise of each component of a model, in the order of [`Model::COMPONENTS`]; 0 behind the last one.
pub(crate) type Surprises = [f64; COMPONENTS.len()];

/// Surprises above this say nothing more.
pub(crate) const MOST_SURPRISE: f64 = 300.0;

/// Which model judges a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Forecasts, shapes, novelty and the calendar, calibrated and combined; learns with every value.
    #[default]
    Ensemble,
    /// A forest of random cuts along the axes, trained on the last values now and then.
    IsolationForest,
    /// A forest of random cuts in random directions.
    ExtendedIsolationForest,
    /// A level and a spread per time of the day and of the week; learns with every value.
    SeasonalBand,
}

impl ModelKind {
    /// Every model, the default one first.
    pub const ALL: [Self; 4] = [Self::Ensemble, Self::IsolationForest, Self::ExtendedIsolationForest, Self::SeasonalBand];

    /// Its name in configuration and anomalies.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ensemble => "ensemble",
            Self::IsolationForest => "isolation_forest",
            Self::ExtendedIsolationForest => "extended_isolation_forest",
            Self::SeasonalBand => "seasonal_band",
        }
    }

    /// Whether it is trained now and then, rather than learning with every value.
    #[must_use]
    pub const fn is_trained(self) -> bool {
        matches!(self, Self::IsolationForest | Self::ExtendedIsolationForest)
    }
}

/// The share of values that is taken to be abnormal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contamination {
    /// As rare as [`crate::Parameters::page_threshold`] says, and rarer the longer a series is watched.
    #[default]
    Auto,
    /// This share of the values a series has shown, above 0 and up to 0.5: a finding needs a score among the highest
    /// so many of its own history. The other rules (refractory, incident, smallest deviation) hold as well.
    Share(f64),
}

impl Contamination {
    /// The surprise from which a value belongs to that share; `None` for [`Self::Auto`].
    #[must_use]
    pub fn threshold(self) -> Option<f64> {
        match self {
            Self::Auto => None,
            Self::Share(share) => Some(-share.clamp(1e-9, 0.5).log10()),
        }
    }
}

/// Which model, and how it is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelOptions {
    /// Which model. A series that has learnt with another one begins anew.
    pub kind: ModelKind,
    /// Values that a trained model is trained on: [`Self::FEWEST_SAMPLES`] to [`Self::MOST_SAMPLES`].
    pub training_samples: u32,
    /// Seconds of event time after which it is trained anew.
    pub retrain_seconds: f64,
    /// How many values are taken to be abnormal.
    pub contamination: Contamination,
    /// Trees of a forest, 1 to 1000.
    pub trees: u32,
    /// Values that each tree is grown from, 2 to 4096.
    pub subsample: u32,
}

impl ModelOptions {
    /// Fewer values than this are no past.
    pub const FEWEST_SAMPLES: u32 = 50;
    /// More values are not kept.
    pub const MOST_SAMPLES: u32 = 100_000;
}

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            kind: ModelKind::default(),
            training_samples: 1000,
            retrain_seconds: 86_400.0,
            contamination: Contamination::Auto,
            trees: 100,
            subsample: 256,
        }
    }
}

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

/// The model of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Chosen {
    Ensemble(Box<Ensemble>),
    Forest(Box<Forest>),
    SeasonalBand(Box<SeasonalBand>),
}

/// Does the same with whichever model it is; each arm is compiled for its model.
macro_rules! with_model {
    ($chosen:expr, $model:ident => $body:expr) => {
        match $chosen {
            $crate::model::Chosen::Ensemble($model) => $body,
            $crate::model::Chosen::Forest($model) => $body,
            $crate::model::Chosen::SeasonalBand($model) => $body,
        }
    };
}
pub(crate) use with_model;

impl Chosen {
    pub(crate) fn new(kind: ModelKind) -> Self {
        match kind {
            ModelKind::Ensemble => Self::Ensemble(Box::new(Ensemble::new())),
            ModelKind::IsolationForest => Self::Forest(Box::new(Forest::new(false))),
            ModelKind::ExtendedIsolationForest => Self::Forest(Box::new(Forest::new(true))),
            ModelKind::SeasonalBand => Self::SeasonalBand(Box::new(SeasonalBand::new())),
        }
    }

    pub(crate) const fn kind(&self) -> ModelKind {
        match self {
            Self::Ensemble(_) => ModelKind::Ensemble,
            Self::Forest(forest) => forest.kind(),
            Self::SeasonalBand(_) => ModelKind::SeasonalBand,
        }
    }
}
