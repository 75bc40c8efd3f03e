//! What changes or measures telemetry on its way.
