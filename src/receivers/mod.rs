//! What takes telemetry in.

pub mod elasticsearch;
