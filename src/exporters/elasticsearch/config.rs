//! The keys of an `elasticsearch` exporter.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{ByteSize, Duration};
use crate::elasticsearch::ConnectionConfig;
use crate::model::Environment;
use crate::pipeline::Problem;

/// The type and the dataset of the data stream, as Elastic names its streams: `<type>-<dataset>-<namespace>`.
const STREAM: &str = "logs-anomaly.record-";

/// Writes anomalies and the events of their incidents to an Elasticsearch data stream.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Config {
    /// How to reach the cluster.
    #[serde(flatten)]
    pub connection: ConnectionConfig,
    /// Data stream to write to; `logs-anomaly.record-<environment>` where it is not given. It must begin with
    /// `logs-anomaly.`, because that is what Elasticsearch receivers leave out, so that nobody reads the daemon's own
    /// anomalies as input.
    #[serde(default)]
    pub index: Option<String>,
    /// Whether to install the index template on start, and to create the data stream with its retention. Where the
    /// API key may not do that, the exporter says so once and goes on.
    #[serde(default = "yes")]
    pub setup: bool,
    /// How long Elasticsearch keeps anomalies, at least; it deletes whole backing indices. Needs `setup`.
    #[serde(default = "default_retention")]
    #[schemars(extend("x-minimum" = "1m"))]
    pub retention: Duration,
    /// Largest request body, before compression. A larger document goes alone.
    #[serde(default = "default_max_batch_size")]
    #[schemars(extend("x-minimum" = "1KiB", "x-maximum" = "100MB"))]
    pub max_batch_size: ByteSize,
    /// Longest time for which an anomaly waits for others to go with it.
    #[serde(default = "default_flush_interval")]
    #[schemars(extend("x-maximum" = "5m"))]
    pub flush_interval: Duration,
}

const fn yes() -> bool {
    true
}

const fn default_retention() -> Duration {
    Duration::from_secs(90 * 86_400)
}

const fn default_max_batch_size() -> ByteSize {
    ByteSize::mib(1)
}

const fn default_flush_interval() -> Duration {
    Duration::from_secs(1)
}

impl Config {
    /// What is wrong with it that its schema cannot say.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = self.connection.problems();
        if self.index.as_deref().is_some_and(|name| DataStream::parse(name).is_none()) {
            problems.push(Problem {
                path: vec!["index".to_owned()],
                message:
                    "expected a data stream `logs-anomaly.<name>-<namespace>` in lower case, because Elasticsearch receivers \
                          leave out only those"
                        .to_owned(),
                hint: None,
                fatal: true,
            });
        }
        problems
    }
}

/// The parts of the data stream's name, which the documents repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DataStream {
    pub(super) name: String,
    pub(super) dataset: String,
    pub(super) namespace: String,
}

impl DataStream {
    /// The data stream of `environment` where the configuration names none.
    pub(super) fn of(environment: &Environment) -> Self {
        // What Elasticsearch allows in a namespace: lower case, up to 100 bytes, and no `-`, which separates the parts.
        let lower = environment.as_str().to_lowercase();
        let mut namespace: String =
            lower.chars().map(|c| if c.is_alphanumeric() || c == '.' || c == '_' { c } else { '_' }).collect();
        while namespace.len() > 100 {
            namespace.pop();
        }
        Self { name: format!("{STREAM}{namespace}"), dataset: "anomaly.record".to_owned(), namespace }
    }

    /// Reads `logs-anomaly.<name>-<namespace>`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let good =
            |part: &str| !part.is_empty() && part.chars().all(|c| !c.is_uppercase() && (c.is_alphanumeric() || "._".contains(c)));
        let (dataset, namespace) = name.strip_prefix("logs-")?.split_once('-')?;
        let rest = dataset.strip_prefix("anomaly.")?;
        (good(rest) && good(namespace) && namespace.len() <= 100 && dataset.len() <= 100).then(|| Self {
            name: name.to_owned(),
            dataset: dataset.to_owned(),
            namespace: namespace.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_data_stream_is_named_after_the_environment() {
        let name = |environment: &str| DataStream::of(&Environment::new(environment)).name;
        assert_eq!(name("production"), "logs-anomaly.record-production");
        assert_eq!(name("EU-West/1"), "logs-anomaly.record-eu_west_1");
        assert_eq!(name(&"ä".repeat(80)).len(), "logs-anomaly.record-".len() + 100);
        for environment in ["production", "EU-West/1"] {
            let stream = DataStream::of(&Environment::new(environment));
            assert_eq!(DataStream::parse(&stream.name), Some(stream));
        }
    }

    #[test]
    fn a_stream_that_receivers_would_read_is_refused() {
        for bad in
            ["logs-app-prod", "logs-anomaly-prod", "anomalies", "logs-anomaly.a", "logs-anomaly.a-b-c", "logs-anomaly.A-b", ""]
        {
            assert_eq!(DataStream::parse(bad), None, "{bad}");
        }
        let config: Config = serde_json::from_value(json!({
            "endpoints": ["nowhere"], "index": "logs-app-prod",
        }))
        .unwrap();
        let told: Vec<String> = config.problems().iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn everything_but_the_endpoints_has_a_default() {
        let config: Config = serde_json::from_value(json!({"endpoints": ["https://es:9200"]})).unwrap();
        assert_eq!(config.problems(), []);
        assert!(config.setup);
        assert_eq!(config.retention.get().as_secs(), 90 * 86_400);
    }
}
