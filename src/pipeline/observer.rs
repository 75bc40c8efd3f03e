//! Looking on while values are judged: for reports that show more than anomalies. Nobody looks on in the daemon.

use crate::model::{Entity, Environment, Findings, Signal, UnixNanos};

/// A series that begins to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// Whose.
    pub environment: &'a Environment,
    /// As in [`crate::model::Anomaly::fingerprint`].
    pub fingerprint: &'a str,
    /// Which signal it is made of.
    pub signal: Signal,
    /// Who behaves.
    pub entity: &'a Entity,
    /// What is measured.
    pub metric: &'a str,
    /// What of it.
    pub function: &'a str,
    /// UCUM unit of the values.
    pub unit: &'a str,
    /// The step between two values, nanoseconds.
    pub bucket: u64,
}

/// One value that was judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The start of its bucket.
    pub at: UnixNanos,
    /// The value.
    pub observed: f64,
    /// What was expected; `None` while nothing is known.
    pub expected: Option<f64>,
    /// Lower bound of what is usual.
    pub lower: Option<f64>,
    /// Upper bound of what is usual.
    pub upper: Option<f64>,
    /// How unusual it is, -log10 of a probability; 0 where something as unusual came shortly before.
    pub page: f64,
    /// The page score from which on a value is an anomaly.
    pub threshold: f64,
    /// Whether the series has seen enough to have anomalies.
    pub ready: bool,
    /// Whether it became an anomaly.
    pub finding: bool,
}

/// Follows one series. It is let go when the series is forgotten, or the detector ends.
pub trait Track: Send + std::fmt::Debug {
    /// The next value, in ascending order of time.
    fn judged(&mut self, judgement: &Judgement);
}

/// Looks on. Called from the detector's threads.
pub trait Observer: Send + Sync + std::fmt::Debug {
    /// A series begins.
    fn series(&self, series: Watched<'_>) -> Box<dyn Track>;

    /// Anomalies and incidents were found.
    fn findings(&self, findings: &Findings);
}
