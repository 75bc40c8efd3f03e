//! What changes or measures telemetry on its way.

pub mod log_patterns;
pub mod red_metrics;
