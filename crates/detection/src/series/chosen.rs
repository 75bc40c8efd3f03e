//! The model of a series: one of those that there are.

use serde::{Deserialize, Serialize};

use crate::ensemble::Ensemble;
use crate::forest::Forest;
use crate::options::ModelKind;
use crate::seasonal_band::SeasonalBand;

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
            $crate::series::chosen::Chosen::Ensemble($model) => $body,
            $crate::series::chosen::Chosen::Forest($model) => $body,
            $crate::series::chosen::Chosen::SeasonalBand($model) => $body,
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
