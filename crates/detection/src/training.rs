//! Training: what a series tells about how far it has learnt, and the work that is done off the hot path.
//!
//! A model that is due asks for training and goes on judging by what it has. From a fixed time on it judges by the
//! new one: whoever did the work until then, and the series itself if nobody did. So it makes no difference where and
//! when training is done, and replay gives the same verdicts.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::forest::{Growth, IsolationForest, calibrated};
use crate::model::ModelKind;

/// Whether a series can have findings yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Still learning.
    Warming {
        /// Values seen, or collected for training.
        seen: u32,
        /// Values needed.
        needed: u32,
        /// What they are needed for.
        reason: Waiting,
    },
    /// Enough was seen, and its first model is being trained.
    Training {
        /// Values that it is trained on.
        samples: u32,
    },
    /// Judging.
    Ready {
        /// The training it judges by; `None` for a model that learns with every value.
        trained: Option<Version>,
    },
}

/// What a warming series waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Waiting {
    /// The values that every series must have seen before it may have findings.
    Warmup,
    /// The values that its model is trained on.
    TrainingSamples,
}

/// One training of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Counts up from 1.
    pub number: u32,
    /// Event time of the newest value that it was trained on, Unix seconds.
    pub trained_at: i64,
    /// Values that it was trained on.
    pub samples: u32,
}

/// How far the training of a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Learns with every value.
    Untrained,
    /// Values are collected for the first training.
    Collecting { seen: u32, needed: u32 },
    /// The first model is being trained.
    Training { samples: u32 },
    /// Judging.
    Trained(Version),
}

/// Training that is due: the values, and all that decides what is made of them.
///
/// It may be done anywhere, at any time and by several at once (the others wait), or not at all: when the series comes
/// to the time from which the new model judges, it takes what was made, or makes it. Clones share the work.
#[derive(Clone, Debug)]
pub struct Job(Arc<Work>);

#[derive(Debug)]
struct Work {
    kind: ModelKind,
    version: Version,
    growth: Growth,
    width: usize,
    rows: Vec<f32>,
    trained: OnceLock<Arc<Trained>>,
}

impl Job {
    pub(crate) fn new(kind: ModelKind, version: Version, growth: Growth, width: usize, rows: Vec<f32>) -> Self {
        Self(Arc::new(Work { kind, version, growth, width, rows, trained: OnceLock::new() }))
    }

    /// Trains, unless that was done already.
    pub fn train(&self) {
        self.trained();
    }

    pub(crate) fn trained(&self) -> &Arc<Trained> {
        let Work { version, growth, width, rows, trained, .. } = &*self.0;
        trained.get_or_init(|| {
            let (forest, lengths) = IsolationForest::grow(rows, *width, growth);
            let scores = calibrated(&forest, &lengths);
            Arc::new(Trained { version: *version, forest, scores })
        })
    }

    /// Whether a series still waits for it.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.0.trained.get().is_none() && Arc::strong_count(&self.0) > 1
    }

    /// What is trained.
    #[must_use]
    pub fn model(&self) -> ModelKind {
        self.0.kind
    }

    /// The version that it gives.
    #[must_use]
    pub fn version(&self) -> Version {
        self.0.version
    }
}

/// What training gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trained {
    pub(crate) version: Version,
    pub(crate) forest: IsolationForest,
    /// How the values that it was trained on score.
    pub(crate) scores: Calibration,
}

/// A job that was handed out. It is no part of what a series has learnt: after a restart it is made again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handed(pub(crate) Option<Job>);

impl PartialEq for Handed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
