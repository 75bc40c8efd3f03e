//! The blocks `entities` and `peers` of the detector.

use detection::{PeerModel, PeerParameters};
use schemars::JsonSchema;
use serde::Deserialize;

/// Series that are judged together.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entities {
    /// Whether all series of one entity (service, instance, operation) are also judged together: many that move a
    /// little say what none says alone.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

/// Instances that are compared with their siblings.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Peers {
    /// How an instance that behaves unlike its siblings is set apart: `dbscan` (it is in no cluster, or in a small one),
    /// `kmeans` (it belongs to a small centre far from the largest) or `off`. Left out: what the model of the detector
    /// says, where that is one of them, else `dbscan`.
    #[serde(default)]
    pub model: Option<Model>,
    /// Metrics of fewer instances are not compared: 3 to 256.
    #[serde(default = "min_members")]
    #[schemars(range(min = 3, max = 256))]
    pub min_members: usize,
    /// How many instances make a cluster of `dbscan`: 2 to 256.
    #[serde(default = "min_points")]
    #[schemars(range(min = 2, max = 256))]
    pub min_points: usize,
    /// How unusual it must be under the group's past that one is as far from the others, as -log10 of the probability:
    /// 0.5 to 20.
    #[serde(default = "threshold")]
    #[schemars(range(min = 0.5, max = 20.0))]
    pub threshold: f64,
}

/// Model of the peer groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Model {
    /// Not compared.
    Off,
    /// Density.
    #[default]
    Dbscan,
    /// Centres.
    Kmeans,
}

impl Default for Entities {
    fn default() -> Self {
        Self { enabled: enabled() }
    }
}

impl Default for Peers {
    fn default() -> Self {
        Self { model: None, min_members: min_members(), min_points: min_points(), threshold: threshold() }
    }
}

const fn enabled() -> bool {
    true
}
fn min_members() -> usize {
    PeerParameters::default().min_members
}
fn min_points() -> usize {
    PeerParameters::default().min_points
}
fn threshold() -> f64 {
    PeerParameters::default().threshold
}

impl Peers {
    /// What the mathematics is asked with; `None` where nothing is compared. `asked` is what the model of the detector
    /// says of peers, if anything.
    pub(in super::super) fn parameters(&self, series: &detection::Parameters, asked: Option<Model>) -> Option<PeerParameters> {
        let model = match self.model.or(asked).unwrap_or_default() {
            Model::Off => return None,
            Model::Dbscan => PeerModel::Dbscan,
            Model::Kmeans => PeerModel::Kmeans,
        };
        Some(PeerParameters {
            model,
            min_members: self.min_members,
            min_points: self.min_points,
            threshold: self.threshold,
            min_relative_deviation: series.min_relative_deviation,
            min_ratio_deviation: series.min_ratio_deviation,
            warmup: series.warmup,
            ..PeerParameters::default()
        })
    }

    /// What the schema cannot say where it is not asked: the key, and what is wrong with it.
    pub(in super::super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        for (key, value, least) in [("min_members", self.min_members, 3), ("min_points", self.min_points, 2)] {
            if !(least..=256).contains(&value) {
                problems.push((key, format!("{value} is out of range: expected {least} to 256")));
            }
        }
        if !(0.5..=20.0).contains(&self.threshold) {
            problems.push(("threshold", format!("{} is out of range: expected 0.5 to 20", self.threshold)));
        }
        if self.min_points > self.min_members {
            let message = format!("{} is more than `min_members` ({}): no cluster could form", self.min_points, self.min_members);
            problems.push(("min_points", message));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_goes_before_what_the_model_of_the_detector_says() {
        let series = detection::Parameters::default();
        let model = |written, asked| {
            let peers = Peers { model: written, ..Peers::default() };
            peers.parameters(&series, asked).map(|p| p.model)
        };
        assert_eq!(model(None, None), Some(PeerModel::Dbscan));
        assert_eq!(model(None, Some(Model::Kmeans)), Some(PeerModel::Kmeans));
        assert_eq!(model(Some(Model::Dbscan), Some(Model::Kmeans)), Some(PeerModel::Dbscan));
        assert_eq!(model(Some(Model::Off), Some(Model::Kmeans)), None);
    }
}
