//! Which model judges, and how it is trained.

use serde::{Deserialize, Serialize};

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
