//! How far a series has learnt.

use serde::{Deserialize, Serialize};

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
