//! Which shape a document has: told by its fields, because names of indices are anybody's choice.

use super::fields::Fields;
use crate::model::Signal;

/// A shape that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A span as the Collector's exporter writes it (`mapping.mode: otel`).
    OtelSpan,
    /// A log record of that exporter.
    OtelLog,
    /// Metric points of that exporter: all metrics of one resource, moment and set of attributes.
    OtelMetrics,
    /// A transaction of APM Server: an entry span.
    ApmTransaction,
    /// Another span of APM Server.
    ApmSpan,
    /// An error of APM Server.
    ApmError,
    /// A log record in the Elastic Common Schema: Filebeat, Elastic Agent, Logstash.
    EcsLog,
}

/// Why a document is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// No shape that is known.
    UnknownShape,
    /// A known shape with a field that cannot be used.
    Malformed,
    /// An anomaly that was written by an anomaly detector.
    OwnAnomaly,
    /// Metrics that APM computed from spans: the spans themselves are read.
    Preaggregated,
    /// Metrics in a shape that is known but not read yet.
    UnsupportedMetrics,
    /// A span's event: it belongs to its span, as over OTLP.
    SpanEvent,
    /// It names an environment that is not in `only_environments`.
    OtherEnvironment,
}

impl Reason {
    /// The name under which it is counted.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownShape => "unknown_shape",
            Self::Malformed => "malformed_document",
            Self::OwnAnomaly => "own_anomaly",
            Self::Preaggregated => "preaggregated",
            Self::UnsupportedMetrics => "unsupported_metrics",
            Self::SpanEvent => "span_event",
            Self::OtherEnvironment => "other_environment",
        }
    }
}

/// The metric sets that APM computes from spans.
pub(super) const PREAGGREGATED: [&str; 4] = ["transaction", "service_transaction", "service_destination", "service_summary"];

/// The shape of a document.
///
/// # Errors
/// Why it is not taken.
pub(super) fn detect(fields: &Fields) -> Result<Shape, Reason> {
    let has = |path: &str| fields.get(path).is_some();
    if fields.text(&["data_stream.dataset"]).is_some_and(|d| d.starts_with("anomaly.")) {
        return Err(Reason::OwnAnomaly);
    }
    let set = fields.text(&["metricset.name", "attributes.metricset.name"]);
    if set.is_some_and(|s| PREAGGREGATED.contains(&s)) && (has("metricset.interval") || has("attributes.metricset.interval")) {
        return Err(Reason::Preaggregated);
    }
    match fields.text(&["processor.event"]) {
        Some("transaction") => return Ok(Shape::ApmTransaction),
        Some("span") => return Ok(Shape::ApmSpan),
        Some("error") => return Ok(Shape::ApmError),
        Some("metric") => return Err(Reason::UnsupportedMetrics),
        _ => {}
    }
    if let Some(shape) = otel(fields) {
        return shape;
    }
    if has("transaction.duration.us") && has("transaction.id") {
        return Ok(Shape::ApmTransaction);
    }
    if has("span.duration.us") && has("span.id") {
        return Ok(Shape::ApmSpan);
    }
    if set.is_some() {
        return Err(Reason::UnsupportedMetrics);
    }
    if ["message", "event.original", "log.level", "error.message"].iter().any(|path| has(path)) {
        return Ok(Shape::EcsLog);
    }
    Err(Reason::UnknownShape)
}

fn otel(fields: &Fields) -> Option<Result<Shape, Reason>> {
    let has = |path: &str| fields.get(path).is_some();
    if has("span_id") && (has("kind") || has("duration")) {
        return Some(Ok(Shape::OtelSpan));
    }
    let log = has("severity_number") || has("severity_text") || has("observed_timestamp") || has("body_text");
    if log || has("body") || fields.has_prefix("body.") {
        return Some(Ok(Shape::OtelLog));
    }
    let resource = fields.has_prefix("resource.");
    if fields.has_prefix("metrics.") && (resource || has("_metric_names_hash") || fields.has_prefix("scope.")) {
        return Some(Ok(Shape::OtelMetrics));
    }
    // Log records always have a severity number and the time of observation; what has neither is a span's event.
    if resource && (has("event_name") || has("attributes.event.name")) {
        return Some(if has("span_id") { Err(Reason::SpanEvent) } else { Ok(Shape::OtelLog) });
    }
    None
}

/// The signal that a document most likely belongs to, for the count of those that are not taken.
pub(super) fn likely_signal(fields: &Fields, index: &str) -> Signal {
    let kind = fields.text(&["data_stream.type"]).unwrap_or_else(|| index.trim_start_matches(".ds-"));
    if kind.starts_with("traces") {
        Signal::Traces
    } else if kind.starts_with("metrics") || kind.starts_with("metricbeat") {
        Signal::Metrics
    } else {
        Signal::Logs
    }
}
