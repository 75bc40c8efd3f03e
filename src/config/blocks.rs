//! The blocks of the daemon file for what is being built: they are read and checked, and `validate` says which
//! of them have no effect yet.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scalars::{ByteSize, Duration, Endpoint, Secret};

/// Blocks that are read and checked but not used yet, and what happens instead.
pub(super) const WITHOUT_EFFECT: [(&str, &str); 5] = [
    ("redis", "state is kept in `storage.data_dir`"),
    ("alerts", "nobody is alerted; anomalies go to the exporters of the pipelines"),
    ("data_collection", "batches are taken in as they arrive; only `max_memory` counts"),
    ("security", "the interfaces that it protects do not exist yet; bind listeners to addresses that you trust"),
    ("audit", "requests are not recorded"),
];

/// A Redis: a cluster or a single server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Redis {
    /// A Redis cluster.
    Cluster(RedisCluster),
    /// A single Redis server.
    Single(RedisServer),
}

/// A Redis cluster.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisCluster {
    /// Says that it is a cluster.
    pub cluster_mode: True,
    /// Some of its nodes; the others are found through them.
    #[schemars(length(min = 1))]
    pub nodes: Vec<Endpoint>,
}

/// A single Redis server.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisServer {
    /// Says that it is a single server.
    pub single_node: True,
    /// Its name or address.
    #[schemars(length(min = 1))]
    pub host: String,
    /// Its port.
    #[serde(default = "redis_port")]
    #[schemars(range(min = 1))]
    pub port: u16,
}

const fn redis_port() -> u16 {
    6379
}

/// A switch that can only be on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct True;

impl Serialize for True {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(true)
    }
}

impl<'de> Deserialize<'de> for True {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match bool::deserialize(deserializer)? {
            true => Ok(Self),
            false => Err(serde::de::Error::custom("expected `true`")),
        }
    }
}

impl JsonSchema for True {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "True".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "boolean", "const": true })
    }
}

/// How detectors learn: the defaults of the `model` block of every detector.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AiService {
    /// What judges the series.
    pub model_type: ModelType,
    /// How many values of a series a forest is trained on; until there are as many, nothing is found.
    #[schemars(range(min = 50, max = 100_000))]
    pub training_samples: u32,
    /// How often a forest is trained anew, in event time.
    #[schemars(extend("x-minimum" = "1m"))]
    pub retrain_interval: Duration,
    /// The share of values that is taken to be abnormal, or `auto`: as rare as the `threshold` of the detector says.
    pub contamination: Contamination,
}

impl Default for AiService {
    fn default() -> Self {
        Self {
            model_type: ModelType::Ensemble,
            training_samples: 1000,
            retrain_interval: Duration::from_secs(86_400),
            contamination: Contamination::Auto,
        }
    }
}

/// What judges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "described variants would not be one enum in the schema; the detector describes them")]
pub enum ModelType {
    #[default]
    Ensemble,
    IsolationForest,
    ExtendedIsolationForest,
    SeasonalBand,
    Dbscan,
    Kmeans,
}

/// The share of values that is taken to be abnormal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Contamination {
    /// As rare as a threshold says.
    #[default]
    Auto,
    /// More than 0, at most 0.5.
    Share(f64),
}

impl Serialize for Contamination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Share(share) => serializer.serialize_f64(*share),
        }
    }
}

impl<'de> Deserialize<'de> for Contamination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Share(f64),
            Word(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Share(share) if share > 0.0 && share <= 0.5 => Ok(Self::Share(share)),
            Written::Word(word) if word == "auto" => Ok(Self::Auto),
            _ => Err(serde::de::Error::custom("expected `auto` or a number above 0 and up to 0.5")),
        }
    }
}

impl JsonSchema for Contamination {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Contamination".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "string", "const": "auto" },
            { "type": "number", "exclusiveMinimum": 0, "maximum": 0.5 },
        ] })
    }
}

/// Whom to tell about incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// Where alerts go.
    pub channels: Vec<Channel>,
}

/// One way to tell somebody.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Channel {
    /// The daemon's own output.
    Console {},
    /// An HTTP request with the incident as JSON.
    Webhook {
        /// Where to.
        #[schemars(extend("format" = "uri"))]
        url: Secret,
    },
    /// A message in Slack.
    Slack {
        /// The incoming webhook that Slack gave.
        #[schemars(extend("format" = "uri"))]
        webhook_url: Secret,
    },
    /// An event of PagerDuty's Events API v2.
    Pagerduty {
        /// The integration key of the service.
        routing_key: Secret,
    },
    /// A message by mail.
    Email {
        /// The mail server.
        smtp: Endpoint,
        /// The sender.
        #[schemars(extend("format" = "email"))]
        from: String,
        /// The recipients.
        #[schemars(length(min = 1), extend("items" = { "type": "string", "format": "email" }))]
        to: Vec<String>,
        /// Who logs in at the mail server, if it wants that.
        #[serde(default)]
        username: Option<String>,
        /// With what.
        #[serde(default)]
        password: Option<Secret>,
    },
}

/// How data is taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DataCollection {
    /// How many records are handed on together.
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_size: u32,
    /// How long records wait for others at most.
    #[schemars(extend("x-minimum" = "10ms"))]
    pub flush_interval: Duration,
    /// How much memory the daemon may use: the same as `memory.limit`, of which only one can be given.
    #[schemars(extend("x-minimum" = "64MiB"))]
    pub max_memory: Option<ByteSize>,
}

impl Default for DataCollection {
    fn default() -> Self {
        Self { batch_size: 100, flush_interval: Duration::from_secs(30), max_memory: None }
    }
}

/// Who may use the daemon's interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// Whether every request must carry an API key.
    pub api_key_required: bool,
    /// How many requests a client may make. Without it, any number.
    pub rate_limiting: Option<RateLimiting>,
    /// The web origins whose pages may call the interfaces, such as `https://ops.example.com`; `*` for any.
    #[schemars(extend("items" = { "type": "string", "format": "web-origin" }))]
    pub allowed_origins: Vec<String>,
    /// What is encrypted.
    pub encryption: Encryption,
}

/// How many requests a client may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimiting {
    /// On average.
    #[schemars(range(min = 1))]
    pub requests_per_minute: u32,
    /// At once.
    #[schemars(range(min = 1))]
    pub burst_limit: u32,
}

impl Default for RateLimiting {
    fn default() -> Self {
        Self { requests_per_minute: 1000, burst_limit: 100 }
    }
}

/// What is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Encryption {
    /// What is kept on disk.
    pub data_at_rest: bool,
    /// What goes over the network.
    pub data_in_transit: bool,
}

/// What is recorded of who used the daemon's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Whether reading requests are recorded too, not only changes.
    pub log_all_requests: bool,
    /// How long records are kept, in days.
    #[schemars(range(min = 1, max = 3650))]
    pub retention_days: u32,
}

impl Default for Audit {
    fn default() -> Self {
        Self { log_all_requests: false, retention_days: 90 }
    }
}
