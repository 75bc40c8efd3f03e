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
    format!(
        "receivers:
{}service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [red_metrics], exporters: [detector] }}
    metrics: {{ receivers: [otlp], exporters: [detector] }}
    logs: {{ receivers: [otlp], processors: [log_patterns], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [console] }}
",
        otlp(grpc, http)
    )
}
