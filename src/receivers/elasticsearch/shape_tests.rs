//! What each shape of document becomes.

use std::fmt::Write as _;

use serde_json::{Value as Json, json};

use super::columns::Columns;
use super::decode::{Decoder, Rejected};
use super::shape::Reason;
use crate::model::{AttributeRange, Attributes, PointValue, Signal, SpanKind, StatusCode, Symbols, UnixNanos, Value};

const TIME: UnixNanos = UnixNanos(1_705_314_600_000_000_000);

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("fixtures/", $name, ".json"))
    };
}

fn attributes(symbols: &Symbols, all: &Attributes, range: AttributeRange) -> String {
    let mut shown: Vec<String> = all
        .get(range)
        .iter()
        .map(|a| {
            let value = match a.value {
                Value::Str(s) => format!("{:?}", symbols.get(s)),
                Value::Json(s) => symbols.get(s).to_owned(),
                Value::Bool(b) => b.to_string(),
                Value::Int(n) => n.to_string(),
                Value::Double(n) => format!("{n:?}"),
            };
            format!("{}={value}", symbols.get(a.key))
        })
        .collect();
    shown.sort();
    shown.join(" ")
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// Everything in the columns, in words.
fn show(columns: &Columns) -> String {
    let mut out = String::new();
    let c = &columns.spans;
    for s in &c.rows {
        let (resource, own) =
            (attributes(&c.symbols, &c.attributes, s.resource), attributes(&c.symbols, &c.attributes, s.attributes));
        let (name, kind, status) = (c.symbols.get(s.name), s.kind.as_str(), s.status);
        let ids = format!("{} {} <- {}", hex(&s.trace_id), hex(&s.span_id), hex(&s.parent_span_id));
        writeln!(out, "span {name:?} {kind} {status:?} start={} duration={} weight={}", s.start.0, s.duration, s.weight).unwrap();
        writeln!(out, "  {ids}\n  resource {resource}\n  attributes {own}").unwrap();
    }
    let c = &columns.logs;
    for l in &c.rows {
        let (resource, own) =
            (attributes(&c.symbols, &c.attributes, l.resource), attributes(&c.symbols, &c.attributes, l.attributes));
        writeln!(
            out,
            "log {:?} severity={} time={} event={:?}",
            c.symbols.get(l.body),
            l.severity_number,
            l.time.0,
            c.symbols.get(l.event_name)
        )
        .unwrap();
        writeln!(out, "  {} {}\n  resource {resource}\n  attributes {own}", hex(&l.trace_id), hex(&l.span_id)).unwrap();
    }
    let c = &columns.points;
    for p in &c.rows {
        let (resource, own) =
            (attributes(&c.symbols, &c.attributes, p.resource), attributes(&c.symbols, &c.attributes, p.attributes));
        let metric = c.metrics[p.metric as usize];
        let value = match p.value {
            PointValue::Number(n) => n.to_string(),
            PointValue::Distribution(d) => format!("count={} sum={} bins={:?}", d.count, d.sum, c.bins_of(&d)),
        };
        let (name, unit) = (c.symbols.get(metric.name), c.symbols.get(metric.unit));
        writeln!(
            out,
            "point {name} [{unit}] {:?} {value} start={}\n  resource {resource}\n  attributes {own}",
            metric.kind, p.start.0
        )
        .unwrap();
    }
    out
}

fn read(documents: &[&str]) -> String {
    let mut columns = Columns::default();
    let mut decoder = Decoder::default();
    decoder.counters.insert("http.server.requests".to_owned());
    for document in documents {
        decoder.decode("test", TIME, document, &mut columns).unwrap();
    }
    show(&columns)
}

fn rejected(document: &str) -> Rejected {
    let mut columns = Columns::default();
    let rejected = Decoder::default().decode("metrics-x", TIME, document, &mut columns).unwrap_err();
    assert_eq!(Signal::ALL.map(|s| columns.len(s)), [0; 3], "nothing of it may stay");
    rejected
}

fn with(document: &str, path: &[&str], value: Json) -> String {
    let mut json: Json = serde_json::from_str(document).unwrap();
    let mut place = &mut json;
    for key in path {
        place = &mut place[*key];
    }
    *place = value;
    json.to_string()
}

#[test]
fn an_otel_native_span() {
    insta::assert_snapshot!(read(&[fixture!("otel_span")]));
}

#[test]
fn a_span_is_the_same_whether_nested_or_dotted_and_however_its_time_is_written() {
    assert_eq!(read(&[fixture!("otel_span")]), read(&[fixture!("otel_span_dotted")]));
}

#[test]
fn apm_transactions_spans_and_errors() {
    insta::assert_snapshot!(read(&[fixture!("apm_transaction"), fixture!("apm_span"), fixture!("apm_error")]));
}

/// What RED series are computed from.
#[test]
fn a_span_means_the_same_as_an_otel_native_document_and_as_a_transaction() {
    let of = |document: &str| {
        let mut columns = Columns::default();
        Decoder::default().decode("test", TIME, document, &mut columns).unwrap();
        let (c, row) = (&columns.spans, columns.spans.rows[0]);
        let text = |keys: &[&str]| c.attributes.text(&c.symbols, row.resource, keys).unwrap_or("").to_owned();
        let code = c.symbols.find("http.response.status_code").and_then(|key| c.attributes.value(row.attributes, key));
        (
            (c.symbols.get(row.name).to_owned(), row.kind, row.status, row.start, row.duration, row.weight),
            (row.trace_id, row.span_id, row.parent_span_id),
            (text(&["service.name"]), text(&["deployment.environment.name"]), text(&["host.name"]), code),
        )
    };
    assert_eq!(of(fixture!("otel_span")), of(fixture!("apm_transaction")));
}

#[test]
fn the_role_of_an_apm_document_follows_from_its_type_unless_it_says_it() {
    let role = |document: &str| {
        let mut columns = Columns::default();
        Decoder::default().decode("test", TIME, document, &mut columns).unwrap();
        columns.spans.rows[0].kind
    };
    let (transaction, span) = (fixture!("apm_transaction"), fixture!("apm_span"));
    assert_eq!(role(transaction), SpanKind::Server);
    assert_eq!(role(&with(transaction, &["transaction", "type"], json!("messaging"))), SpanKind::Consumer);
    assert_eq!(role(&with(transaction, &["span"], json!({ "kind": "INTERNAL" }))), SpanKind::Internal);
    assert_eq!(role(span), SpanKind::Client);
    assert_eq!(role(&with(span, &["span", "type"], json!("messaging"))), SpanKind::Producer);
    let inner = with(&with(span, &["span", "type"], json!("app")), &["span", "destination"], json!(null));
    assert_eq!(role(&inner), SpanKind::Internal);
}

#[test]
fn how_an_apm_document_ended_is_its_outcome_or_else_the_servers_status_code() {
    let status = |document: &str| {
        let mut columns = Columns::default();
        Decoder::default().decode("test", TIME, document, &mut columns).unwrap();
        columns.spans.rows[0].status
    };
    let transaction = fixture!("apm_transaction");
    assert_eq!(status(&with(transaction, &["event", "outcome"], json!("success"))), StatusCode::Ok);
    let unknown = with(transaction, &["event", "outcome"], json!("unknown"));
    assert_eq!(status(&unknown), StatusCode::Error);
    assert_eq!(status(&with(&unknown, &["http", "response", "status_code"], json!(404))), StatusCode::Unset);
}

#[test]
fn log_records_of_all_shapes() {
    insta::assert_snapshot!(read(&[
        fixture!("otel_log"),
        fixture!("otel_log_structured"),
        fixture!("filebeat_log"),
        fixture!("logstash_log")
    ]));
}

#[test]
fn otel_native_metrics() {
    insta::assert_snapshot!(read(&[fixture!("otel_metrics")]));
}

#[test]
fn what_is_not_telemetry_is_left_out_by_its_reason() {
    for (document, reason, signal) in [
        (fixture!("apm_transaction_1m"), Reason::Preaggregated, Signal::Metrics),
        (fixture!("otel_span_event"), Reason::SpanEvent, Signal::Logs),
        (fixture!("anomaly"), Reason::OwnAnomaly, Signal::Logs),
        (fixture!("metricbeat"), Reason::UnsupportedMetrics, Signal::Metrics),
        (r#"{"@timestamp":"2024-01-15T10:30:00Z","user":"a"}"#, Reason::UnknownShape, Signal::Metrics),
    ] {
        let found = rejected(document);
        assert_eq!((found.reason, found.signal), (reason, signal), "{document}");
    }
}

#[test]
fn what_is_broken_is_told_and_leaves_nothing_behind() {
    let (span, transaction, metrics) = (fixture!("otel_span"), fixture!("apm_transaction"), fixture!("otel_metrics"));
    let histogram = ["metrics", "http.server.request.duration"];
    let broken = [
        with(span, &["duration"], json!("soon")),
        with(span, &["duration"], json!(null)),
        with(transaction, &["transaction", "duration"], json!({})),
        with(transaction, &["transaction", "duration", "us"], json!(true)),
        with(metrics, &histogram, json!({ "values": [1, 2], "counts": [1] })),
        with(metrics, &histogram, json!({ "values": [2, 1], "counts": [1, 1] })),
        with(metrics, &["metrics"], json!({ "a": "x" })),
        "[1]".to_owned(),
        r#"{"message":"\ud800"}"#.to_owned(),
    ];
    let told: Vec<String> = broken.iter().map(|d| rejected(d)).map(|r| format!("{}: {}", r.reason.as_str(), r.detail)).collect();
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn ends_before_starts_and_odd_weights_become_harmless() {
    let of = |document: &str| {
        let mut columns = Columns::default();
        Decoder::default().decode("test", TIME, document, &mut columns).unwrap();
        (columns.spans.rows[0].duration, columns.spans.rows[0].weight)
    };
    let (span, transaction) = (fixture!("otel_span"), fixture!("apm_transaction"));
    assert_eq!(of(&with(span, &["duration"], json!(u64::MAX - 5))), (0, 1.0));
    for weight in [json!(0), json!(-3), json!("NaN"), json!(null)] {
        assert_eq!(of(&with(transaction, &["transaction", "representative_count"], weight)), (150_000_000, 1.0));
    }
    assert_eq!(of(&with(transaction, &["transaction", "representative_count"], json!("2.5"))), (150_000_000, 2.5));
}

#[test]
fn neighbours_share_the_attributes_of_their_resource() {
    let mut columns = Columns::default();
    let mut decoder = Decoder::default();
    for document in [fixture!("otel_span"), fixture!("otel_span"), fixture!("apm_span")] {
        decoder.decode("test", TIME, document, &mut columns).unwrap();
    }
    let resources: Vec<AttributeRange> = columns.spans.rows.iter().map(|r| r.resource).collect();
    assert_eq!(resources[0], resources[1]);
    assert_ne!(resources[1], resources[2]);
}

#[test]
fn only_the_environments_that_are_named_are_taken_and_what_names_none() {
    let mut decoder = Decoder::new(vec!["prod".to_owned()]);
    let mut columns = Columns::default();
    let staging = with(fixture!("apm_span"), &["service", "environment"], json!("staging"));
    assert_eq!(decoder.decode("t", TIME, &staging, &mut columns).unwrap_err().reason, Reason::OtherEnvironment);
    for document in [fixture!("apm_span"), fixture!("otel_span"), fixture!("otel_log")] {
        decoder.decode("t", TIME, document, &mut columns).unwrap();
    }
}
