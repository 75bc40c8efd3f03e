//! What takes telemetry in.
