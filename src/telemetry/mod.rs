//! What the daemon says about itself: logs, and traces and metrics over OTLP.
//!
//! [`families`] is the one list of the daemon's own metrics; `/metrics` and OTLP both read it.

mod families;
mod logs;
mod otlp;

pub use families::{Family, MetricType, Sample, families};
pub use logs::start;
pub use otlp::OwnTelemetry;
