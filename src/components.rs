//! All component types. The only file that knows every component; each is one line here.

use crate::pipeline::Factory;
use crate::{connectors, exporters, processors, receivers};

/// Every type that a pipeline file may name.
#[rustfmt::skip]
pub const FACTORIES: &[Factory] = &[
    receivers::otlp::FACTORY,
    receivers::elasticsearch::FACTORY,
    processors::red_metrics::FACTORY,
    processors::log_patterns::FACTORY,
    connectors::detector::FACTORY,
    exporters::elasticsearch::FACTORY,
    exporters::console::FACTORY,
    exporters::file::FACTORY,
];

/// The receivers that can read what has been, from a moment on.
pub const READ_THE_PAST: &[&str] = &["elasticsearch"];

/// An anomaly in one line, as people read it everywhere.
pub use exporters::console::headline;

/// Findings as people read them, a block for each incident.
pub use exporters::console::blocks;

/// The entries of a detector's log happen again.
pub use connectors::detector::{Replayed, replay};

/// Bytes that all that a component may learn would take, about; 0 for one that learns nothing.
#[must_use]
pub fn most_learnt(kind: &str, config: &serde_json::Value) -> u64 {
    if kind == connectors::detector::FACTORY.kind { connectors::detector::most_memory(config) } else { 0 }
}

/// The listeners of a receiver, and how many bytes the requests that each is receiving may hold.
#[must_use]
pub fn most_received(kind: &str, config: &serde_json::Value) -> Vec<(String, u64)> {
    if kind == receivers::otlp::FACTORY.kind { receivers::otlp::most_memory(config) } else { Vec::new() }
}
