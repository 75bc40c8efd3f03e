//! The keys of an `otlp` receiver.

use std::str::FromStr as _;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::config::{ByteSize, Duration, Endpoint, Secret};
use crate::pipeline::Problem;

/// Takes telemetry from OpenTelemetry Collectors and SDKs, over gRPC and HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which protocols to listen with. At least one is needed.
    #[serde(default)]
    pub protocols: Protocols,
    /// How requests that do not name an environment in their resource attributes are known to be of this one.
    #[serde(default)]
    pub routing: Routing,
    /// How far in the future an event's time may be. Records beyond it are rejected.
    #[serde(default = "max_future")]
    pub max_future: Duration,
    /// Largest value of one attribute. Records with a larger one are rejected.
    #[serde(default = "max_attribute_value_size")]
    pub max_attribute_value_size: ByteSize,
    /// How long a request may wait for room in the pipeline before it is refused as retryable. Keep it below the
    /// clients' timeout (5s in a Collector), else they send again what is still being waited for. While one has been waiting
    /// for a quarter of it, further ones are refused at once.
    #[serde(default = "wait")]
    #[schemars(extend("x-maximum" = "1h"))]
    pub wait: Duration,
    /// How much all requests that are being received may hold at once, per listener. Beyond it they are refused as
    /// retryable.
    #[serde(default = "max_in_flight_size")]
    pub max_in_flight_size: ByteSize,
}

/// Protocols of an `otlp` receiver. A protocol without settings (`grpc:`) listens with its defaults; one that is not
/// named does not listen.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Protocols {
    /// OTLP over gRPC.
    #[serde(default, deserialize_with = "named")]
    pub grpc: Option<Grpc>,
    /// OTLP over HTTP, in protobuf and JSON.
    #[serde(default, deserialize_with = "named")]
    pub http: Option<Http>,
}

/// OTLP over gRPC.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grpc {
    /// Where to listen. `0.0.0.0:4317` for all interfaces.
    #[serde(default = "grpc_endpoint")]
    pub endpoint: Endpoint,
    /// Largest request, after decompression too.
    #[serde(default = "max_request_body_size")]
    pub max_request_body_size: ByteSize,
}

/// OTLP over HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where to listen. `0.0.0.0:4318` for all interfaces.
    #[serde(default = "http_endpoint")]
    pub endpoint: Endpoint,
    /// Largest request, after decompression too.
    #[serde(default = "max_request_body_size")]
    pub max_request_body_size: ByteSize,
    /// Path of traces.
    #[serde(default = "traces_url_path")]
    pub traces_url_path: String,
    /// Path of metrics.
    #[serde(default = "metrics_url_path")]
    pub metrics_url_path: String,
    /// Path of logs.
    #[serde(default = "logs_url_path")]
    pub logs_url_path: String,
}

/// What says, beside resource attributes, that a request is of this environment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Routing {
    /// A request header (gRPC: metadata) whose value is the environment's name.
    #[serde(default)]
    pub header: Option<String>,
    /// Bearer tokens that only collectors of this environment send (`authorization: Bearer <token>`).
    /// They tell environments apart; they do not keep anybody out.
    #[serde(default)]
    pub tokens: Vec<Secret>,
}

impl Default for Grpc {
    fn default() -> Self {
        Self { endpoint: grpc_endpoint(), max_request_body_size: max_request_body_size() }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            endpoint: http_endpoint(),
            max_request_body_size: max_request_body_size(),
            traces_url_path: traces_url_path(),
            metrics_url_path: metrics_url_path(),
            logs_url_path: logs_url_path(),
        }
    }
}

fn named<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<Option<T>, D::Error> {
    Ok(Some(Option::<T>::deserialize(d)?.unwrap_or_default()))
}

fn grpc_endpoint() -> Endpoint {
    Endpoint::new("localhost", 4317)
}
fn http_endpoint() -> Endpoint {
    Endpoint::new("localhost", 4318)
}
const fn max_request_body_size() -> ByteSize {
    ByteSize::mib(64)
}
fn traces_url_path() -> String {
    "/v1/traces".to_owned()
}
fn metrics_url_path() -> String {
    "/v1/metrics".to_owned()
}
fn logs_url_path() -> String {
    "/v1/logs".to_owned()
}
const fn max_future() -> Duration {
    Duration::from_secs(600)
}
const fn max_attribute_value_size() -> ByteSize {
    ByteSize::mib(1)
}
const fn wait() -> Duration {
    Duration::from_secs(4)
}
const fn max_in_flight_size() -> ByteSize {
    ByteSize::mib(256)
}

/// Reads a checked configuration; nothing at all is all defaults.
pub(super) fn read(value: &serde_json::Value) -> Result<Config, String> {
    let empty = serde_json::Value::Object(serde_json::Map::new());
    Config::deserialize(if value.is_null() { &empty } else { value }).map_err(|e| e.to_string())
}

/// What the schema cannot say.
pub(super) fn check(value: &serde_json::Value) -> Vec<Problem> {
    let Ok(config) = read(value) else { return Vec::new() };
    let mut problems = Vec::new();
    let mut add = |path: &[&str], message: String, hint: Option<&str>| {
        let path = path.iter().map(|key| (*key).to_owned()).collect();
        problems.push(Problem { path, message, hint: hint.map(str::to_owned), fatal: true });
    };
    let Protocols { grpc, http } = &config.protocols;
    if grpc.is_none() && http.is_none() {
        let hint = "write `protocols: { grpc: { endpoint: 0.0.0.0:4317 }, http: { endpoint: 0.0.0.0:4318 } }`";
        add(&["protocols"], "no protocol to listen with: expected `grpc`, `http` or both".to_owned(), Some(hint));
    }
    if let (Some(grpc), Some(http)) = (grpc, http)
        && grpc.endpoint == http.endpoint
        && grpc.endpoint.port() != 0
    {
        let message = format!("grpc and http cannot share {}", grpc.endpoint);
        add(&["protocols", "http", "endpoint"], message, Some("use another port; 4318 is usual"));
    }
    let sizes =
        [("grpc", grpc.as_ref().map(|g| g.max_request_body_size)), ("http", http.as_ref().map(|h| h.max_request_body_size))];
    for (protocol, size) in sizes.into_iter().filter_map(|(p, s)| s.map(|s| (p, s))) {
        let path = ["protocols", protocol, "max_request_body_size"];
        if size.bytes() == 0 || size > ByteSize::mib(1024) {
            add(&path, format!("{size} is not a usable limit: expected 1B to 1GiB"), None);
        } else if size > config.max_in_flight_size {
            let message =
                format!("{size} is more than `max_in_flight_size` ({}), so such a request never fits", config.max_in_flight_size);
            add(&path, message, Some("raise `max_in_flight_size` to several times this size"));
        }
    }
    if let Some(http) = http {
        let paths = [
            ("traces_url_path", &http.traces_url_path),
            ("metrics_url_path", &http.metrics_url_path),
            ("logs_url_path", &http.logs_url_path),
        ];
        for (i, (key, path)) in paths.iter().enumerate() {
            if !path.starts_with('/') {
                add(&["protocols", "http", key], format!("`{path}` is not a path: expected one that begins with `/`"), None);
            }
            if let Some((other, _)) = paths.iter().take(i).find(|(_, p)| p == path) {
                add(&["protocols", "http", key], format!("`{path}` is the `{other}` too: expected a path for each signal"), None);
            }
        }
    }
    if let Some(header) = config.routing.header.as_ref().filter(|h| http::HeaderName::from_str(h).is_err()) {
        add(&["routing", "header"], format!("`{header}` is not a header's name: expected one such as `x-environment`"), None);
    }
    if config.routing.tokens.iter().any(|t| t.expose().is_empty()) {
        add(&["routing", "tokens"], "an empty token would match every request without one".to_owned(), None);
    }
    if config.max_future.get() > std::time::Duration::from_secs(366 * 86_400) {
        add(&["max_future"], format!("{} lets clocks be wrong by more than a year", config.max_future), None);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_named_protocol_without_settings_listens_with_its_defaults_and_an_absent_one_does_not() {
        let config = read(&json!({"protocols": {"grpc": null}})).unwrap();
        let grpc = config.protocols.grpc.unwrap();
        assert_eq!((grpc.endpoint.to_string().as_str(), grpc.max_request_body_size), ("localhost:4317", ByteSize::mib(64)));
        assert_eq!(config.protocols.http, None);
        assert_eq!(Http::default().endpoint.to_string(), "localhost:4318");
        assert_eq!((config.wait, config.max_future), (Duration::from_secs(4), Duration::from_secs(600)));
    }

    #[test]
    fn what_cannot_work_is_said_with_its_place() {
        let bad = [
            json!({}),
            json!({"protocols": {"grpc": {"endpoint": "0.0.0.0:1"}, "http": {"endpoint": "0.0.0.0:1"}}}),
            json!({"protocols": {"grpc": {"max_request_body_size": "512MiB"}}}),
            json!({"protocols": {"http": {"max_request_body_size": "0B", "traces_url_path": "x", "logs_url_path": "/v1/metrics"}}}),
            json!({"protocols": {"grpc": null}, "routing": {"header": "a b", "tokens": [""]}, "max_future": "10000d"}),
        ];
        let text: Vec<String> = bad
            .iter()
            .flat_map(check)
            .map(|p| format!("{}: {}{}", p.path.join("."), p.message, p.hint.map(|h| format!(" ({h})")).unwrap_or_default()))
            .collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(read(&json!({"protocols": {"grcp": null}})).unwrap_err().contains("unknown field `grcp`"));
    }
}
