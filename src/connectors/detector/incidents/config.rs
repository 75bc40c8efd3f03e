//! How anomalies become incidents.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::Duration;

/// How anomalies that belong together become one incident.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IncidentsConfig {
    /// Anomalies that are further apart than this, by event time, are of different incidents; and an incident is over
    /// when nothing of it was unusual for this long. 1m to 1d, and at least one bucket.
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
    /// What is wrong with it, for buckets of this width.
    pub(in crate::connectors::detector) fn problem(&self, bucket: Duration) -> Option<String> {
        let (minute, day) = (std::time::Duration::from_secs(60), std::time::Duration::from_secs(86_400));
        if !(minute..=day).contains(&self.window.get()) {
            return Some(format!("{} is out of range: expected 1m to 1d", self.window));
        }
        (self.window.get() < bucket.get())
            .then(|| format!("{} is shorter than a bucket ({bucket}): expected at least one bucket", self.window))
    }
}
