//! What takes telemetry in.

pub mod elasticsearch;
pub mod otlp;
