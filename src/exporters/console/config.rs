//! What can be set.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Configuration of the `console` exporter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How an anomaly is written: `text` for people, `json` for programs (one JSON object per line).
    #[serde(default)]
    pub format: Format,
}

/// How an anomaly is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line for people, with the reasons below it. Coloured on a terminal, unless `NO_COLOR` is set.
    #[default]
    Text,
    /// One JSON object per line (NDJSON), with every field of the anomaly.
    Json,
}
