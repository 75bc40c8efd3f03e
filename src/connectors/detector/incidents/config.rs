//! How anomalies become incidents.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::Duration;

/// How anomalies that belong together become one incident.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IncidentsConfig {
    /// Anomalies that are further apart than this, by event time, are of different incidents; and an incident is over
    /// when nothing of it was unusual for this long. 1m to 1d; where a bucket is longer, as long as that.
    #[serde(default = "window")]
    pub window: Duration,
}

impl Default for IncidentsConfig {
    fn default() -> Self {
        Self { window: window() }
    }
}

const fn window() -> Duration {
    Duration::from_secs(600)
}

impl IncidentsConfig {
    /// What is wrong with it.
    pub(in crate::connectors::detector) fn problem(&self) -> Option<String> {
        let (minute, day) = (std::time::Duration::from_secs(60), std::time::Duration::from_secs(86_400));
        let good = (minute..=day).contains(&self.window.get());
        (!good).then(|| format!("{} is out of range: expected 1m to 1d", self.window))
    }
}
