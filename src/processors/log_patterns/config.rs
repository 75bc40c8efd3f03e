//! The block of a pipeline file.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::SeverityBand;

/// Counts log records per service and severity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Severities that are not counted; their records are dropped (`severity_ignored`).
    #[serde(default)]
    pub ignore: Vec<SeverityBand>,
}
