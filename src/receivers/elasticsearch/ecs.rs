//! Transactions, spans and errors of APM Server, and log records in the Elastic Common Schema. Where OpenTelemetry's
//! semantic conventions have a name for a field, its attribute gets that name; all others keep their own.

use super::columns::{Columns, Writer, id, json, word};
use super::fields::Fields;
use super::otel;
use crate::model::{LogRecord, SeverityBand, Span, SpanKind, StatusCode, UnixNanos};

/// Resource attributes, and the fields that they come from, the best one first.
const RESOURCE: [(&str, &[&str]); 18] = [
    ("service.version", &["service.version"]),
    ("deployment.environment.name", &["service.environment"]),
    ("service.instance.id", &["service.node.name"]),
    ("telemetry.sdk.language", &["service.language.name"]),
    ("host.name", &["host.hostname", "host.name", "agent.hostname", "host"]),
    ("container.id", &["container.id"]),
    ("container.image.name", &["container.image.name"]),
    ("k8s.cluster.name", &["orchestrator.cluster.name"]),
    ("k8s.namespace.name", &["kubernetes.namespace.name", "kubernetes.namespace"]),
    ("k8s.node.name", &["kubernetes.node.name"]),
    ("k8s.pod.name", &["kubernetes.pod.name"]),
    ("k8s.pod.uid", &["kubernetes.pod.uid"]),
    ("k8s.deployment.name", &["kubernetes.deployment.name"]),
    ("k8s.container.name", &["kubernetes.container.name"]),
    ("cloud.provider", &["cloud.provider"]),
    ("cloud.region", &["cloud.region"]),
    ("cloud.availability_zone", &["cloud.availability_zone"]),
    ("cloud.account.id", &["cloud.account.id"]),
];

/// Fields that become attributes under their own names. What ends in a dot stands for everything below it.
const ATTRIBUTES: [&str; 37] = [
    "client.",
    "db.",
    "destination.",
    "error.code",
    "error.culprit",
    "error.grouping_key",
    "error.type",
    "event.action",
    "event.category",
    "event.code",
    "event.dataset",
    "event.duration",
    "event.module",
    "event.outcome",
    "faas.",
    "http.",
    "labels.",
    "log.file.path",
    "log.logger",
    "messaging.",
    "network.",
    "numeric_labels.",
    "process.pid",
    "rpc.",
    "server.",
    "service.target.",
    "service.type",
    "source.",
    "span.action",
    "span.db.",
    "span.destination.service.resource",
    "span.subtype",
    "span.type",
    "transaction.result",
    "transaction.type",
    "url.",
    "user_agent.",
];

/// Adds a transaction: the entry into a service.
///
/// # Errors
/// What is wrong with the document.
pub(super) fn transaction(fields: &Fields, time: UnixNanos, columns: &mut Columns) -> Result<(), String> {
    let entry = match fields.text(&["transaction.type"]) {
        Some("messaging") => SpanKind::Consumer,
        _ => SpanKind::Server,
    };
    let mut row = frame(fields, time, "transaction.duration.us", columns)?;
    row.name = word(&mut columns.spans.symbols, fields.text(&["transaction.name"]).unwrap_or(""));
    row.kind = fields.text(&["span.kind"]).map_or(entry, otel::kind);
    row.weight = weight(fields, "transaction.representative_count");
    row.span_id = id(fields.text(&["span.id", "transaction.id"]));
    row.status = status(fields, row.kind);
    columns.spans.rows.push(row);
    Ok(())
}

/// Adds a span that is no entry.
///
/// # Errors
/// What is wrong with the document.
pub(super) fn span(fields: &Fields, time: UnixNanos, columns: &mut Columns) -> Result<(), String> {
    let exit = match fields.text(&["span.type"]) {
        Some("messaging") => SpanKind::Producer,
        Some("db" | "external" | "storage" | "cache") => SpanKind::Client,
        _ if fields.text(&["span.destination.service.resource"]).is_some() => SpanKind::Client,
        _ => SpanKind::Internal,
    };
    let mut row = frame(fields, time, "span.duration.us", columns)?;
    row.name = word(&mut columns.spans.symbols, fields.text(&["span.name"]).unwrap_or(""));
    row.kind = fields.text(&["span.kind"]).map_or(exit, otel::kind);
    row.weight = weight(fields, "span.representative_count");
    row.span_id = id(fields.text(&["span.id"]));
    row.status = status(fields, row.kind);
    columns.spans.rows.push(row);
    Ok(())
}

/// What transactions and spans have in common.
fn frame(fields: &Fields, time: UnixNanos, duration: &str, columns: &mut Columns) -> Result<Span, String> {
    let duration = match (fields.get(duration), fields.number(&["event.duration"])) {
        (Some(micros), _) => {
            micros.number().ok_or_else(|| format!("`{duration}` is not a number of microseconds: {}", json(micros)))? * 1e3
        }
        (None, Some(nanos)) => nanos,
        (None, None) => return Err(format!("`{duration}` is missing")),
    };
    // The field has microseconds where `@timestamp` has only milliseconds.
    let micros = fields.number(&["timestamp.us"]).map(|us| UnixNanos((us.max(0.0) as u64).saturating_mul(1000)));
    let batch = &mut columns.spans;
    let mut writer = Writer::new(&mut batch.symbols, &mut batch.attributes);
    let resource = writer.shared(&mut columns.resources.spans, |w| resource(w, fields));
    Ok(Span {
        resource,
        name: Default::default(),
        kind: SpanKind::Unspecified,
        status: StatusCode::Unset,
        start: micros.filter(|t| super::time::millisecond(*t) == super::time::millisecond(time)).unwrap_or(time),
        duration: duration.max(0.0) as u64,
        weight: 1.0,
        trace_id: id(fields.text(&["trace.id"])),
        span_id: [0; 8],
        parent_span_id: id(fields.text(&["parent.id"])),
        attributes: writer.own(|w| attributes(w, fields)),
    })
}

/// How it ended. `unknown` means that nobody said; then a server's status code decides, as APM Server does it.
fn status(fields: &Fields, kind: SpanKind) -> StatusCode {
    let code = fields.number(&["http.response.status_code"]);
    match fields.text(&["event.outcome"]) {
        Some("failure") => StatusCode::Error,
        Some("success") => StatusCode::Ok,
        _ if kind == SpanKind::Server && code.is_some_and(|c| c >= 500.0) => StatusCode::Error,
        _ => StatusCode::Unset,
    }
}

fn weight(fields: &Fields, path: &str) -> f64 {
    fields.number(&[path]).filter(|w| *w > 0.0).unwrap_or(1.0)
}

/// Adds an error of APM Server, as a log record.
pub(super) fn error(fields: &Fields, time: UnixNanos, columns: &mut Columns) {
    const ERROR: u8 = 17;
    let body = fields.text(&["error.log.message", "error.exception.message", "error.message", "message", "error.culprit"]);
    let severity = fields.text(&["error.log.level"]).and_then(SeverityBand::number_of).unwrap_or(ERROR);
    record(fields, time, body, severity, columns);
}

/// Adds a log record.
pub(super) fn log(fields: &Fields, time: UnixNanos, columns: &mut Columns) {
    let body = fields.text(&["message", "event.original", "error.message"]);
    let level = fields.text(&["log.level", "level", "loglevel", "log.syslog.severity.name"]);
    let severity = level.and_then(SeverityBand::number_of).unwrap_or(0);
    record(fields, time, body, severity, columns);
}

fn record(fields: &Fields, time: UnixNanos, body: Option<&str>, severity_number: u8, columns: &mut Columns) {
    let batch = &mut columns.logs;
    let mut writer = Writer::new(&mut batch.symbols, &mut batch.attributes);
    let resource = writer.shared(&mut columns.resources.logs, |w| resource(w, fields));
    let attributes = writer.own(|w| {
        attributes(w, fields);
        w.put_text("exception.type", fields, &["error.exception.type"]);
        w.put_text("exception.message", fields, &["error.exception.message"]);
    });
    batch.rows.push(LogRecord {
        resource,
        time,
        severity_number,
        body: body.map_or_else(Default::default, |text| batch.symbols.push(text)),
        event_name: Default::default(),
        trace_id: id(fields.text(&["trace.id"])),
        span_id: id(fields.text(&["span.id", "transaction.id"])),
        attributes,
    });
}

/// What the log shippers know of a record's service when nobody told them its name.
const SERVICE: [&str; 7] = [
    "service.name",
    "kubernetes.deployment.name",
    "kubernetes.container.name",
    "container.name",
    "service.type",
    "event.module",
    "event.dataset",
];

fn resource(writer: &mut Writer<'_>, fields: &Fields) {
    writer.put_text("service.name", fields, &SERVICE);
    for (key, paths) in RESOURCE {
        writer.put_text(key, fields, paths);
    }
}

fn attributes(writer: &mut Writer<'_>, fields: &Fields) {
    for (path, values) in fields.runs() {
        let wanted = |name: &&'static str| if name.ends_with('.') { path.starts_with(*name) } else { path == *name };
        if ATTRIBUTES.iter().any(wanted) {
            writer.put_all(path, values);
        }
    }
}
