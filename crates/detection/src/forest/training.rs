//! Training: work that is done off the hot path.
//!
//! A model that is due asks for training and goes on judging by what it has. From a fixed time on it judges by the
//! new one: whoever did the work until then, and the series itself if nobody did. So it makes no difference where and
//! when training is done, and replay gives the same verdicts.

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::isolation::{Growth, IsolationForest};
use crate::calibrate::Calibration;
use crate::options::ModelKind;
use crate::state::Version;

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

/// How unusual a path length is: twice as much for every cut less.
pub(super) fn raw(forest: &IsolationForest, length: f32) -> f64 {
    f64::from(forest.usual() - length).exp2()
}

/// How the values that a forest was grown from score.
fn calibrated(forest: &IsolationForest, lengths: &[f32]) -> Calibration {
    let mut scores = Calibration::new();
    lengths.iter().for_each(|length| scores.learn(raw(forest, *length)));
    scores
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
