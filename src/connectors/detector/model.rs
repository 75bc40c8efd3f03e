//! The `model` block: what judges the series, and how it is trained.

use detection::{ModelKind, ModelOptions};
use schemars::JsonSchema;
use serde::Deserialize;

use super::joint;
use crate::config::{Contamination, Duration, ModelType};
use crate::pipeline::Problem;

/// A day in seconds.
const DAY: f64 = 86_400.0;

/// What judges the series of a detector, and how it is trained. Keys that are left out are those of `ai_service` in the
/// daemon file, if it has them.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("x-inherits" = {
    "type": "ai_service.model_type",
    "training_samples": "ai_service.training_samples",
    "retrain_interval": "ai_service.retrain_interval",
    "contamination": "ai_service.contamination",
}))]
pub struct ModelConfig {
    /// What judges. `ensemble`, which is the best of them, and `seasonal_band` learn with every value;
    /// `isolation_forest` and `extended_isolation_forest` are trained now and then and take about 100 KB a series.
    /// `dbscan` and `kmeans` compare an entity with its peers, and leave its own series to the ensemble.
    #[serde(rename = "type")]
    pub kind: ModelType,
    /// How many values of a series a forest is trained on; until there are as many, nothing is found: 50 to 100000.
    #[schemars(range(min = 50, max = 100_000))]
    pub training_samples: u32,
    /// How often a forest is trained anew, in event time: 1m to 1 year. Series take turns in the last eighth of it.
    #[schemars(extend("x-minimum" = "1m"))]
    pub retrain_interval: Duration,
    /// The share of values that is taken to be abnormal, above 0 and up to 0.5: a finding needs a score among so many
    /// of the highest that its series has shown. `auto`: as rare as `threshold` says.
    pub contamination: Contamination,
    /// How many trees a forest has: 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub trees: u32,
    /// How many values each tree is grown from: 2 to 4096.
    #[schemars(range(min = 2, max = 4096))]
    pub subsample: u32,
}

impl Default for ModelConfig {
    fn default() -> Self {
        let ModelOptions { training_samples, trees, subsample, .. } = ModelOptions::default();
        Self {
            kind: ModelType::Ensemble,
            training_samples,
            retrain_interval: Duration::from_secs(86_400),
            contamination: Contamination::Auto,
            trees,
            subsample,
        }
    }
}

impl ModelConfig {
    /// What the mathematics is asked with.
    pub(super) fn options(&self) -> ModelOptions {
        ModelOptions {
            kind: match self.kind {
                // Peers are compared beside the series, which are judged by themselves as well.
                ModelType::Ensemble | ModelType::Dbscan | ModelType::Kmeans => ModelKind::Ensemble,
                ModelType::IsolationForest => ModelKind::IsolationForest,
                ModelType::ExtendedIsolationForest => ModelKind::ExtendedIsolationForest,
                ModelType::SeasonalBand => ModelKind::SeasonalBand,
            },
            training_samples: self.training_samples,
            retrain_seconds: self.retrain_interval.get().as_secs_f64(),
            contamination: match self.contamination {
                Contamination::Auto => detection::Contamination::Auto,
                Contamination::Share(share) => detection::Contamination::Share(share),
            },
            trees: self.trees,
            subsample: self.subsample,
        }
    }

    /// The clustering by which entities are compared with their peers, where that is asked for as the model.
    pub(super) const fn peers(&self) -> Option<joint::Model> {
        match self.kind {
            ModelType::Dbscan => Some(joint::Model::Dbscan),
            ModelType::Kmeans => Some(joint::Model::Kmeans),
            _ => None,
        }
    }

    /// What the schema cannot say, for buckets of `bucket` seconds and up to `max_series` series.
    pub(super) fn check(&self, bucket: f64, max_series: usize) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, message: String, fatal: bool| {
            problems.push(Problem { path: vec!["model".to_owned(), key.to_owned()], message, hint: None, fatal });
        };
        let range = |value: u32, low: u32, high: u32| {
            (!(low..=high).contains(&value)).then(|| format!("{value} is out of range: expected {low} to {high}"))
        };
        let samples = range(self.training_samples, ModelOptions::FEWEST_SAMPLES, ModelOptions::MOST_SAMPLES);
        for (key, message) in
            [("training_samples", samples), ("trees", range(self.trees, 1, 1000)), ("subsample", range(self.subsample, 2, 4096))]
        {
            if let Some(message) = message {
                problem(key, message, true);
            }
        }
        let interval = self.retrain_interval.get().as_secs_f64();
        if !(60.0..=366.0 * DAY).contains(&interval) {
            problem("retrain_interval", format!("{} is out of range: expected 1m to 1year", self.retrain_interval), true);
        }
        if let Contamination::Share(share) = self.contamination
            && bucket > 0.0
            && share * DAY / bucket > 1.0
        {
            let a_day = share * DAY / bucket;
            let once = bucket / DAY;
            let message = format!(
                "a contamination of {share} takes {a_day:.0} values of every series for abnormal each day, and each of them \
                 may become an anomaly: write `auto`, or at most {once:.5} for one a day in buckets of {bucket} s"
            );
            problem("contamination", message, false);
        }
        let trained = matches!(self.kind, ModelType::IsolationForest | ModelType::ExtendedIsolationForest);
        if trained && self.subsample > self.training_samples {
            let Self { subsample, training_samples, .. } = self;
            let message = format!(
                "{subsample} is more than the {training_samples} `training_samples`: every tree is grown from all of them"
            );
            problem("subsample", message, false);
        }
        let bytes = max_series as f64 * (f64::from(self.trees) * f64::from(self.subsample) * 4.0);
        if trained && bytes > 4e9 {
            let message = format!(
                "forests of {max_series} series would take about {:.0} GB of memory: lower `max_series` to what you have, or \
                 choose `ensemble`",
                bytes / 1e9
            );
            problem("type", message, false);
        }
        problems
    }
}
