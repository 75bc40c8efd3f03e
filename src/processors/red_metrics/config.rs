//! The block of a pipeline file.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::model::SpanKind;

/// Measures spans: how many calls, how many of them failed, how long they took.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which kinds of spans are measured. Spans of other kinds are dropped (`kind_not_measured`). A span that
    /// does not say its kind counts as `internal`, as the OTLP specification has it.
    #[serde(default = "kinds")]
    pub kinds: Vec<Kind>,
    /// Keys of span or resource attributes that tell series apart beside service, operation and kind, such as
    /// `http.response.status_code` or `service.version`. Every value makes series of its own: name only keys
    /// that have few values.
    #[serde(default)]
    pub dimensions: Vec<String>,
    /// How span names become operations.
    #[serde(default)]
    pub operation_name: OperationName,
}

/// How span names become operations.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OperationName {
    /// How many different span names of one service are told apart, 1 to 1000000. Further ones count as the
    /// operation `other`: a service that puts ids into its span names must not fill the memory.
    #[serde(default = "max_distinct")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_distinct: usize,
}

/// A kind of span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Handles a request.
    Server,
    /// Takes a message from a queue.
    Consumer,
    /// Makes a request.
    Client,
    /// Puts a message on a queue.
    Producer,
    /// Inside one service; also spans that do not say their kind.
    Internal,
}

impl Kind {
    /// The kind as spans carry it.
    pub(super) const fn span_kind(self) -> SpanKind {
        match self {
            Self::Server => SpanKind::Server,
            Self::Consumer => SpanKind::Consumer,
            Self::Client => SpanKind::Client,
            Self::Producer => SpanKind::Producer,
            Self::Internal => SpanKind::Internal,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { kinds: kinds(), dimensions: Vec::new(), operation_name: OperationName::default() }
    }
}

impl Default for OperationName {
    fn default() -> Self {
        Self { max_distinct: max_distinct() }
    }
}

fn kinds() -> Vec<Kind> {
    vec![Kind::Server, Kind::Consumer, Kind::Client, Kind::Producer]
}

const fn max_distinct() -> usize {
    1000
}
