//! Calls as the documents that collectors and APM Server write to Elasticsearch.

use anomalyd::model::UnixNanos;
use serde_json::{Value, json};

use super::otlp::Call;

/// As the Collector's Elasticsearch exporter writes a span in its OTel-native mode.
pub(crate) fn otel(call: &Call, environment: &str) -> Value {
    json!({
        "@timestamp": format!("{}.{:06}", call.start / 1_000_000, call.start % 1_000_000),
        "trace_id": call.trace_id(),
        "span_id": call.span_id(),
        "name": call.operation,
        "kind": "Server",
        "duration": call.duration,
        "status": { "code": if call.failed { "Error" } else { "Unset" } },
        "resource": { "attributes": { "service.name": call.service, "deployment.environment.name": environment } },
    })
}

/// As APM Server writes a transaction.
pub(crate) fn apm(call: &Call, environment: &str) -> Value {
    weighted(call, environment, 1)
}

/// As APM Server writes a transaction that stands for `weight` of them.
pub(crate) fn weighted(call: &Call, environment: &str, weight: u64) -> Value {
    json!({
        "@timestamp": UnixNanos(call.start).rfc3339(),
        "timestamp": { "us": call.start / 1000 },
        "processor": { "event": "transaction" },
        "trace": { "id": call.trace_id() },
        "transaction": {
            "id": call.span_id(),
            "name": call.operation,
            "type": "request",
            "duration": { "us": call.duration / 1000 },
            "sampled": true,
            "representative_count": weight,
        },
        "event": { "outcome": if call.failed { "failure" } else { "success" } },
        "service": { "name": call.service, "environment": environment },
    })
}
