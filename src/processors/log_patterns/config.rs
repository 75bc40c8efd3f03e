//! The block of a pipeline file.

use schemars::JsonSchema;
use serde::Deserialize;

/// Counts log records per service and severity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Severities that are not counted; their records are dropped (`severity_ignored`).
    #[serde(default)]
    pub ignore: Vec<Severity>,
}

/// One of the six bands of OpenTelemetry's severity numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Severity numbers 1 to 4.
    Trace,
    /// 5 to 8.
    Debug,
    /// 9 to 12, and records that do not say.
    Info,
    /// 13 to 16.
    Warn,
    /// 17 to 20.
    Error,
    /// 21 to 24.
    Fatal,
}
