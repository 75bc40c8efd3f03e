//! Pipeline files of the shapes that several tests use, without the line that names the environment.

/// An `otlp` receiver on these ports.
pub(crate) fn otlp(grpc: u16, http: u16) -> String {
    format!(
        "  otlp:
    protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{grpc}\" }}, http: {{ endpoint: \"127.0.0.1:{http}\" }} }}
"
    )
}

/// Spans from this receiver are watched, and anomalies go to these exporters: a list of ids, and their blocks.
pub(crate) fn traces(receiver: &str, receivers: &str, ids: &str, exporters: &str) -> String {
    format!(
        "receivers:
{receivers}connectors:
  detector: {{ bucket: 1m, lateness: 10s }}
exporters:
{exporters}service:
  pipelines:
    traces: {{ receivers: [{receiver}], processors: [red_metrics], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [{ids}] }}
"
    )
}

/// Spans come over OTLP, anomalies are printed, one JSON object a line.
pub(crate) fn otlp_to_console(grpc: u16, http: u16) -> String {
    traces("otlp", &otlp(grpc, http), "console", "  console: { format: json }\n")
}

/// All signals come over OTLP, anomalies are printed.
pub(crate) fn all_signals(grpc: u16, http: u16) -> String {
    all_signals_from("otlp", &otlp(grpc, http))
}

/// All signals come from the receiver called `id`, whose block is given; anomalies are printed.
pub(crate) fn all_signals_from(id: &str, receiver: &str) -> String {
    format!(
        "receivers:
{receiver}service:
  pipelines:
    traces: {{ receivers: [{id}], processors: [red_metrics], exporters: [detector] }}
    metrics: {{ receivers: [{id}], exporters: [detector] }}
    logs: {{ receivers: [{id}], processors: [log_patterns], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [console] }}
"
    )
}
