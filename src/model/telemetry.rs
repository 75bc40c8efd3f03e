//! What travels between components.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Environment, Findings, LogRecords, Observations, Points, Spans};

/// Metrics, logs or traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Spans.
    Traces,
    /// Points.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// Lower case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }
}

/// Where a batch came in: `otlp`, `elasticsearch/apm`. Event time is followed per source. Cheap to clone.
pub type SourceId = Arc<str>;

/// The records of one signal.
#[derive(Clone, Debug)]
pub enum Batch {
    /// Spans.
    Traces(Spans),
    /// Points.
    Metrics(Points),
    /// Log records.
    Logs(LogRecords),
}

/// A batch of one signal under one environment: what every receiver makes of what it got.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// Whose it is.
    pub environment: Environment,
    /// Where it came in.
    pub source: SourceId,
    /// The records.
    pub batch: Batch,
}

impl Telemetry {
    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.batch {
            Batch::Traces(b) => b.rows.len(),
            Batch::Metrics(b) => b.rows.len(),
            Batch::Logs(b) => b.rows.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which signal.
    #[must_use]
    pub const fn signal(&self) -> Signal {
        match &self.batch {
            Batch::Traces(_) => Signal::Traces,
            Batch::Metrics(_) => Signal::Metrics,
            Batch::Logs(_) => Signal::Logs,
        }
    }
}

/// The three payloads. Cloning is cheap: a batch that goes several ways is shared.
#[derive(Clone, Debug)]
pub enum Payload {
    /// From a receiver.
    Telemetry(Arc<Telemetry>),
    /// From a processor that measures.
    Observations(Arc<Observations>),
    /// From a detector: anomalies, and the events of their incidents.
    Anomalies(Arc<Findings>),
}

impl Payload {
    /// How many records, observations, or anomalies and events of incidents: the unit in which every component counts.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Telemetry(t) => t.len(),
            Self::Observations(o) => o.items.len(),
            Self::Anomalies(a) => a.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a component takes or gives, for the check of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PayloadKind {
    /// Telemetry of one signal.
    Telemetry(Signal),
    /// Observations.
    Observations,
    /// Anomalies and the events of incidents.
    Anomalies,
}

impl std::fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Telemetry(signal) => signal.as_str(),
            Self::Observations => "observations",
            Self::Anomalies => "anomalies",
        })
    }
}
