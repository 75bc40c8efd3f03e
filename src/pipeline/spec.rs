//! What the engine is asked to build: one environment's components and pipelines, already read and checked.

use indexmap::IndexMap;
use serde::Serialize;

use super::{Class, ComponentId};
use crate::model::{Environment, Signal};

/// One pipeline file.
#[derive(Clone, Debug)]
pub struct EnvironmentSpec {
    /// Whose pipelines these are.
    pub environment: Environment,
    /// Whether it takes what says no environment.
    pub default: bool,
    /// The declared components of each class with their configuration, variables resolved.
    pub receivers: IndexMap<ComponentId, serde_json::Value>,
    /// Processors.
    pub processors: IndexMap<ComponentId, serde_json::Value>,
    /// Connectors.
    pub connectors: IndexMap<ComponentId, serde_json::Value>,
    /// Exporters.
    pub exporters: IndexMap<ComponentId, serde_json::Value>,
    /// `traces`, `logs/audit`, `anomalies`...
    pub pipelines: IndexMap<String, PipelineSpec>,
}

/// One pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PipelineSpec {
    /// Where it begins: receivers, or connectors that end another pipeline.
    pub receivers: Vec<ComponentId>,
    /// In this order.
    pub processors: Vec<ComponentId>,
    /// Where it ends: exporters, or connectors that begin another pipeline.
    pub exporters: Vec<ComponentId>,
}

impl EnvironmentSpec {
    /// The declared components of `class`.
    #[must_use]
    pub const fn declared(&self, class: Class) -> &IndexMap<ComponentId, serde_json::Value> {
        match class {
            Class::Receiver => &self.receivers,
            Class::Processor => &self.processors,
            Class::Connector => &self.connectors,
            Class::Exporter => &self.exporters,
        }
    }

    /// As [`EnvironmentSpec::declared`], to fill in what was left out.
    pub const fn declared_mut(&mut self, class: Class) -> &mut IndexMap<ComponentId, serde_json::Value> {
        match class {
            Class::Receiver => &mut self.receivers,
            Class::Processor => &mut self.processors,
            Class::Connector => &mut self.connectors,
            Class::Exporter => &mut self.exporters,
        }
    }
}

/// What a pipeline's id says that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineKind {
    /// `traces`, `metrics`, `logs`.
    Signal(Signal),
    /// `anomalies`.
    Anomalies,
}

impl PipelineKind {
    /// The kind in `traces` or `traces/name`.
    #[must_use]
    pub fn of(pipeline: &str) -> Option<Self> {
        match pipeline.split('/').next()? {
            "traces" => Some(Self::Signal(Signal::Traces)),
            "metrics" => Some(Self::Signal(Signal::Metrics)),
            "logs" => Some(Self::Signal(Signal::Logs)),
            "anomalies" => Some(Self::Anomalies),
            _ => None,
        }
    }

    /// The payload that enters such a pipeline.
    #[must_use]
    pub const fn payload(self) -> crate::model::PayloadKind {
        match self {
            Self::Signal(signal) => crate::model::PayloadKind::Telemetry(signal),
            Self::Anomalies => crate::model::PayloadKind::Anomalies,
        }
    }
}
