//! Component types as the real ones are, with nothing behind them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{ByteSize, Duration, Endpoint, Secret};
use crate::model::{PayloadKind, Signal};
use crate::pipeline::{BuildError, Factory, Make, Problem};

/// Listens.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Otlp {
    /// What it speaks; without this, both.
    protocols: Protocols,
    /// The largest request, decompressed.
    #[schemars(extend("x-maximum" = "1GiB"))]
    max_request_body_size: Option<ByteSize>,
}

/// What it speaks.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Protocols {
    /// OTLP/gRPC.
    grpc: Option<Listener>,
    /// OTLP/HTTP.
    http: Option<Listener>,
}

/// Where it listens.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Listener {
    /// Where it listens.
    endpoint: Endpoint,
}

impl Default for Listener {
    fn default() -> Self {
        Self { endpoint: Endpoint::new("127.0.0.1", 4317) }
    }
}

/// Reads indices.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Elasticsearch {
    /// The nodes of one cluster.
    #[schemars(length(min = 1), extend("items" = { "type": "string", "format": "uri" }))]
    endpoints: Vec<String>,
    /// An API key, as `id:secret` or encoded.
    #[serde(default)]
    api_key: Option<Secret>,
    /// A user.
    #[serde(default)]
    basic: Option<Basic>,
    /// What is read.
    #[serde(default)]
    indices: Vec<String>,
    /// How often.
    #[serde(default = "half_a_minute")]
    #[schemars(extend("x-minimum" = "1s"))]
    interval: Duration,
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

/// A user.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Basic {
    /// Who.
    username: String,
    /// With what.
    password: Secret,
}

/// Nothing to set.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Nothing {}

const OTLP: Factory = Factory {
    kind: "otlp",
    about: "Takes OTLP.",
    acknowledgement: "Success is answered after the data is in the pipelines' queues.",
    schema: |generator| generator.subschema_for::<Otlp>(),
    implicit: false,
    files: &[],
    gives: |kind| matches!(kind, PayloadKind::Telemetry(_)).then_some(kind),
    check: |config| {
        let none = config.pointer("/protocols/grpc").is_none() && config.pointer("/protocols/http").is_none();
        let problem = |path: &[&str], message: &str, hint: Option<&str>, fatal| Problem {
            path: path.iter().map(ToString::to_string).collect(),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
            fatal,
        };
        let open = config.pointer("/protocols/grpc/endpoint").and_then(|e| e.as_str()).is_some_and(|e| e.starts_with("0.0.0.0:"));
        let mut problems = Vec::new();
        if none {
            problems.push(problem(&["protocols"], "no protocol is enabled", Some("add `grpc:` or `http:`"), true));
        }
        if open {
            problems.push(problem(
                &["protocols", "grpc", "endpoint"],
                "everybody on the network can send to this listener",
                None,
                false,
            ));
        }
        problems
    },
    make: Make::Receiver(|_| Err(BuildError::new("only for tests"))),
};

const POLLER: Factory = Factory {
    kind: "elasticsearch",
    about: "Reads indices.",
    acknowledgement: "The cursor moves after the documents are in the pipelines' queues.",
    schema: |generator| generator.subschema_for::<Elasticsearch>(),
    check: |_| Vec::new(),
    ..OTLP
};

const RED: Factory = Factory {
    kind: "red_metrics",
    about: "Measures spans.",
    acknowledgement: "It accepts what the next component accepts.",
    schema: |generator| generator.subschema_for::<Nothing>(),
    implicit: true,
    files: &[],
    gives: |kind| (kind == PayloadKind::Telemetry(Signal::Traces)).then_some(PayloadKind::Observations),
    check: |_| Vec::new(),
    make: Make::Processor(|_| Err(BuildError::new("only for tests"))),
};

const DETECTOR: Factory = Factory {
    kind: "detector",
    about: "Learns and judges.",
    acknowledgement: "It has the observations in memory.",
    gives: |kind| {
        let taken = matches!(kind, PayloadKind::Observations | PayloadKind::Telemetry(Signal::Metrics));
        taken.then_some(PayloadKind::Anomalies)
    },
    make: Make::Connector(|_| Err(BuildError::new("only for tests"))),
    ..RED
};

const CONSOLE: Factory = Factory {
    kind: "console",
    about: "Prints anomalies.",
    acknowledgement: "The anomaly is printed.",
    gives: |kind| (kind == PayloadKind::Anomalies).then_some(kind),
    make: Make::Exporter(|_| Err(BuildError::new("only for tests"))),
    ..RED
};

const WRITER: Factory = Factory {
    kind: "elasticsearch",
    about: "Writes anomalies.",
    acknowledgement: "Elasticsearch has accepted the anomaly.",
    schema: |generator| generator.subschema_for::<Elasticsearch>(),
    implicit: false,
    files: &[],
    ..CONSOLE
};

pub(super) const FACTORIES: &[Factory] = &[OTLP, POLLER, RED, DETECTOR, CONSOLE, WRITER];
