//! The OTLP contract, row by row: what clients send, and what they are told.

use std::io::Write as _;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, trace_service_client::TraceServiceClient,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data, number_data_point::Value as Number,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic_types::StatusExt as _;

use super::support::{
    NOW, Running, Tenant, both, logs_json, metrics_json, pair, resource, rows, span, text, traces, traces_json, traces_of,
};
use crate::model::Signal;

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn logs() -> ExportLogsServiceRequest {
    let log_records =
        vec![LogRecord { time_unix_nano: NOW, severity_number: 17, body: Some(text("no money")), ..LogRecord::default() }];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    let resource = resource(&[("service.name", "checkout")]);
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }] }
}

fn metrics() -> ExportMetricsServiceRequest {
    let point = NumberDataPoint { time_unix_nano: NOW, value: Some(Number::AsDouble(0.5)), ..NumberDataPoint::default() };
    let data = Some(Data::Gauge(Gauge { data_points: vec![point] }));
    let metrics = vec![Metric { name: "cpu".to_owned(), unit: "1".to_owned(), data, ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource = resource(&[("service.name", "checkout")]);
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
    }
}

#[tokio::test]
async fn every_signal_gives_the_same_rows_over_every_protocol_encoding_and_compression() {
    let mut running = Running::start(vec![Tenant { queue: 64, ..Tenant::new("production") }]).await;
    let channel = running.channel().await;
    for compression in [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)] {
        let (mut t, mut m, mut l) = (
            TraceServiceClient::new(channel.clone()),
            MetricsServiceClient::new(channel.clone()),
            LogsServiceClient::new(channel.clone()),
        );
        if let Some(compression) = compression {
            (t, m, l) = (t.send_compressed(compression), m.send_compressed(compression), l.send_compressed(compression));
        }
        assert_eq!(t.export(traces(3)).await.unwrap().into_inner().partial_success, None);
        assert_eq!(m.export(metrics()).await.unwrap().into_inner().partial_success, None);
        assert_eq!(l.export(logs()).await.unwrap().into_inner().partial_success, None);
    }
    let bodies = [
        ("/v1/traces", traces(3).encode_to_vec(), traces_json(&traces(3))),
        ("/v1/metrics", metrics().encode_to_vec(), metrics_json(&metrics())),
        ("/v1/logs", logs().encode_to_vec(), logs_json(&logs())),
    ];
    for (encoding, compress) in [
        ("identity", (|d: &[u8]| d.to_vec()) as fn(&[u8]) -> Vec<u8>),
        ("gzip", gzip),
        // Two members, as parallel compressors write them.
        ("gzip", |d| [gzip(&d[..d.len() / 2]), gzip(&d[d.len() / 2..])].concat()),
        ("zstd", |d| zstd::encode_all(d, 3).unwrap()),
    ] {
        for (path, protobuf, json) in &bodies {
            for (content_type, body) in [(PROTOBUF, protobuf.clone()), (JSON, json.to_string().into_bytes())] {
                let answer = running.post(path, &[content_type, ("content-encoding", encoding)], &compress(&body)).await;
                let (expected, media_type): (&[u8], _) =
                    if content_type == JSON { (b"{}", "application/json") } else { (b"", "application/x-protobuf") };
                assert_eq!((answer.status, answer.body.as_slice()), (200, expected), "{path} {encoding}");
                assert_eq!(answer.header("content-type"), Some(media_type));
            }
        }
    }
    let mut seen: std::collections::BTreeMap<Signal, Vec<Vec<String>>> = std::collections::BTreeMap::new();
    for _ in 0..3 * 3 + 4 * 3 * 2 {
        let telemetry = running.pipelines[0].next().await;
        assert_eq!((telemetry.environment.as_str(), &*telemetry.source), ("production", "otlp"));
        seen.entry(telemetry.signal()).or_default().push(rows(&telemetry.batch));
    }
    for (signal, batches) in seen {
        assert_eq!(batches.len(), 11);
        assert!(batches.iter().all(|b| *b == batches[0]), "{signal:?}: {batches:#?}");
        let counts = running.pipelines[0].counts(signal);
        assert_eq!((counts.received, counts.sent), (11 * batches[0].len() as u64, 11 * batches[0].len() as u64));
    }
}

#[tokio::test]
async fn an_empty_request_succeeds_and_gives_nothing() {
    let running = Running::one("production").await;
    let mut client = TraceServiceClient::new(running.channel().await);
    let answer = client.export(ExportTraceServiceRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer, ExportTraceServiceResponse::default());
    assert_eq!(running.post("/v1/traces", &[PROTOBUF], b"").await.status, 200);
    assert_eq!(running.post("/v1/logs", &[JSON], b"{}").await.status, 200);
    assert_eq!(running.pipelines[0].counts(Signal::Traces).received, 0);
}

#[tokio::test]
async fn what_http_clients_do_wrong_is_answered_with_a_status_in_their_encoding() {
    let running = Running::start(vec![Tenant { signals: &[Signal::Traces], ..Tenant::new("production") }]).await;
    let html = ("content-type", "text/html");
    let gzipped = ("content-encoding", "gzip");
    let cases = [
        running.post("/v1/logs", &[JSON], b"{}").await,
        running.post("/v1/other", &[PROTOBUF], b"x").await,
        running.post("/v1development/profiles", &[PROTOBUF], b"x").await,
        running.post("/v1/traces", &[], b"x").await,
        running.post("/v1/traces", &[html], b"x").await,
        running.send(b"GET /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n").await,
        running.post("/v1/traces", &[JSON, ("content-encoding", "br")], b"x").await,
        running.post("/v1/traces", &[JSON, gzipped], b"{}").await,
        running.post("/v1/traces", &[JSON], b"<html>502 Bad Gateway</html>").await,
        running.post("/v1/traces", &[PROTOBUF], &[0x0a, 0x50, 0x01]).await,
        running.post("/v1/traces", &[PROTOBUF], b"garbage").await,
    ];
    let lines = cases.iter().map(|answer| {
        let (code, message) = answer.rpc_status();
        let allow = answer.header("allow").map(|a| format!(" (allow {a})")).unwrap_or_default();
        format!("{} {:?} {message}{allow}", answer.status, Code::from_i32(code.try_into().unwrap()))
    });
    insta::assert_snapshot!(lines.collect::<Vec<_>>().join("\n"));
    assert_eq!(running.pipelines[0].counters.events().get("requests_invalid"), Some(&(cases.len() as u64)));
    assert_eq!(running.pipelines[0].counts(Signal::Traces).received, 0);
}

#[tokio::test]
async fn http_1_and_2_share_a_port() {
    let mut running = Running::one("production").await;
    let stream = tokio::net::TcpStream::connect(running.http).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let body = http_body_util::Full::new(bytes::Bytes::from(traces(1).encode_to_vec()));
    let request = http::Request::post("http://x/v1/traces").header("content-type", "application/x-protobuf").body(body).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert_eq!(running.pipelines[0].next().await.len(), 1);
}

/// Calls gRPC with a body of our own making; gives the status.
async fn call(running: &Running, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (tonic::Status, http::HeaderMap) {
    use http_body_util::BodyExt as _;
    let io = hyper_util::rt::TokioIo::new(tokio::net::TcpStream::connect(running.grpc).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(hyper_util::rt::TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let body = http_body_util::Full::new(bytes::Bytes::copy_from_slice(body));
    let mut request = http::Request::post(format!("http://x{path}")).body(body).unwrap();
    request.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    for (name, value) in headers {
        request.headers_mut().insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let answer = sender.send_request(request).await.unwrap();
    let headers = answer.headers().clone();
    let trailers = answer.into_body().collect().await.unwrap().trailers().cloned();
    let status = trailers.and_then(|t| tonic::Status::from_header_map(&t)).or_else(|| tonic::Status::from_header_map(&headers));
    (status.unwrap(), headers)
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut body = vec![flag];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    body
}

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[tokio::test]
async fn what_grpc_clients_do_wrong_is_answered_with_a_code_that_they_do_not_retry() {
    let running = Running::start(vec![Tenant { signals: &[Signal::Traces], ..Tenant::new("production") }]).await;
    let good = traces(1).encode_to_vec();
    let gzipped = ("grpc-encoding", "gzip");
    let profiles = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";
    let logs = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
    let cases = [
        call(&running, profiles, &[], &framed(0, b"")).await,
        call(&running, logs, &[], &framed(0, b"")).await,
        call(&running, EXPORT, &[("content-type", "application/grpc+json")], &framed(0, b"{}")).await,
        call(&running, EXPORT, &[("grpc-encoding", "snappy")], &framed(1, &good)).await,
        call(&running, EXPORT, &[], &framed(1, &good)).await,
        call(&running, EXPORT, &[], &framed(7, &good)).await,
        call(&running, EXPORT, &[], b"").await,
        call(&running, EXPORT, &[], &framed(0, &good)[..20]).await,
        call(&running, EXPORT, &[], &[framed(0, b""), framed(0, b"")].concat()).await,
        call(&running, EXPORT, &[gzipped], &framed(1, b"no gzip")).await,
        call(&running, EXPORT, &[], &framed(0, &good[..good.len() - 3])).await,
    ];
    for (status, headers) in &cases {
        assert_eq!(headers.get("grpc-accept-encoding").unwrap(), "identity, gzip, zstd, deflate");
        assert!(status.get_details_retry_info().is_none());
    }
    let lines: Vec<String> = cases.iter().map(|(s, _)| format!("{:?}: {}", s.code(), s.message())).collect();
    insta::assert_snapshot!(lines.join("\n"));
    // A gzip body of two members is one message.
    let members = [gzip(&good[..10]), gzip(&good[10..])].concat();
    assert_eq!(call(&running, EXPORT, &[gzipped], &framed(1, &members)).await.0.code(), Code::Ok);
    assert_eq!(running.pipelines[0].counts(Signal::Traces).sent, 1);
}

#[tokio::test]
async fn what_is_too_large_is_refused_for_good_with_the_limit_and_the_size() {
    let mut limit = both(&json!({}));
    for protocol in ["grpc", "http"] {
        limit["protocols"][protocol]["max_request_body_size"] = json!("64KiB");
    }
    let running = Running::start(vec![Tenant { config: limit, ..Tenant::new("production") }]).await;
    let large = Span { name: "x".repeat(10 << 20), ..span("") };
    let large = ExportTraceServiceRequest { resource_spans: vec![traces_of(&[], vec![large])] };
    let bytes = large.encode_to_vec();
    let bomb = gzip(&vec![0; 1 << 20]);
    assert!(bomb.len() < 2048);
    let mut lines = Vec::new();
    let gzip_header = ("grpc-encoding", "gzip");
    for (status, _) in
        [call(&running, EXPORT, &[], &framed(0, &bytes)).await, call(&running, EXPORT, &[gzip_header], &framed(1, &bomb)).await]
    {
        assert!(status.get_details_retry_info().is_none(), "with RetryInfo a client would send it again");
        lines.push(format!("{:?}: {}", status.code(), status.message()));
    }
    let mut client = TraceServiceClient::new(running.channel().await).send_compressed(CompressionEncoding::Gzip);
    assert_eq!(client.export(large).await.unwrap_err().code(), Code::ResourceExhausted);
    let chunked: Vec<u8> =
        bytes.chunks(1 << 20).flat_map(|c| [format!("{:x}\r\n", c.len()).as_bytes(), c, b"\r\n"].concat()).collect();
    let head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    for answer in [
        running.post("/v1/traces", &[PROTOBUF], &bytes).await,
        running.send(&[head.as_slice(), &chunked, b"0\r\n\r\n"].concat()).await,
        running.post("/v1/traces", &[PROTOBUF, ("content-encoding", "gzip")], &bomb).await,
        running
            .post("/v1/traces", &[JSON, ("content-encoding", "zstd")], &zstd::encode_all(&vec![b' '; 1 << 20][..], 1).unwrap())
            .await,
    ] {
        let (code, message) = answer.rpc_status();
        assert_eq!((answer.status, code, answer.header("retry-after")), (413, Code::ResourceExhausted as i64, None));
        lines.push(format!("413: {message}"));
    }
    insta::with_settings!({filters => vec![(r"has \d{3,4} bytes that", "has [n] bytes that")]}, {
        insta::assert_snapshot!(lines.join("\n"));
    });
}

#[tokio::test]
async fn a_full_pipeline_is_told_to_clients_so_that_they_send_again_and_lose_nothing() {
    let config = both(&json!({ "wait": "20ms" }));
    let mut running = Running::start(vec![Tenant { config, queue: 1, held: true, ..Tenant::new("production") }]).await;
    let mut client = TraceServiceClient::new(running.channel().await);
    client.export(traces(2)).await.unwrap_err();
    let status = client.export(traces(3)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((1.0..=2.0).contains(&delay.as_secs_f64()), "{delay:?}");
    insta::assert_snapshot!(status.message());
    let answer = running.post("/v1/traces", &[PROTOBUF], &traces(4).encode_to_vec()).await;
    assert_eq!((answer.status, matches!(answer.header("retry-after"), Some("1" | "2"))), (503, true));
    let body: tonic_types::Status = prost::Message::decode(answer.body.as_slice()).unwrap();
    assert_eq!(body.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let answer = running.post("/v1/traces", &[JSON], traces_json(&traces(5)).to_string().as_bytes()).await;
    assert_eq!((answer.status, matches!(answer.header("retry-after"), Some("1" | "2"))), (503, true));
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let info = &body["details"][0];
    assert_eq!(info["@type"], "type.googleapis.com/google.rpc.RetryInfo");
    let delay: f64 = info["retryDelay"].as_str().and_then(|d| d.strip_suffix('s')).unwrap().parse().unwrap();
    assert!((1.0..=2.0).contains(&delay), "{info}");
    let counts = running.pipelines[0].counts(Signal::Traces);
    assert_eq!((counts.received, counts.sent, counts.refused, counts.in_flight), (0, 0, 2 + 3 + 4 + 5, 0));
    assert_eq!(running.pipelines[0].counters.events().get("requests_refused"), Some(&4));
    // With room again, the same request is taken; what waited in the queue was withdrawn by its refusal.
    running.pipelines[0].release();
    client.export(traces(3)).await.unwrap();
    assert_eq!(running.pipelines[0].next().await.len(), 3);
}

#[tokio::test]
async fn a_request_whose_client_has_gone_leaves_nothing_in_flight() {
    let config = both(&json!({ "wait": "1h" }));
    let running = Running::start(vec![Tenant { config, held: true, ..Tenant::new("production") }]).await;
    let mut client = TraceServiceClient::new(running.channel().await);
    let mut request = tonic::Request::new(traces(5));
    request.set_timeout(Duration::from_millis(50));
    client.export(request).await.unwrap_err();
    // The server notices on its own time.
    while running.pipelines[0].counts(Signal::Traces).in_flight > 0 || running.pipelines[0].counts(Signal::Traces).refused == 0 {
        tokio::task::yield_now().await;
    }
    let counts = running.pipelines[0].counts(Signal::Traces);
    assert_eq!((counts.received, counts.sent, counts.refused, counts.dropped_total()), (0, 0, 5, 0));
}

#[tokio::test]
async fn bad_records_are_rejected_by_partial_success_and_good_ones_taken() {
    let mut running = Running::one("production").await;
    let day = 86_400_000_000_000u64;
    let spans = vec![
        span("good"),
        Span { start_time_unix_nano: 0, ..span("GET /zero") },
        Span { start_time_unix_nano: day, end_time_unix_nano: day, ..span("GET /1970") },
        Span { start_time_unix_nano: 4_102_444_800_000_000_000, ..span("GET /2100") },
        Span { attributes: vec![pair("http.request.body", text(&"x".repeat(10 << 20)))], ..span("large") },
        span("good too"),
    ];
    let request = ExportTraceServiceRequest { resource_spans: vec![traces_of(&[("service.name", "checkout")], spans)] };
    let mut client = TraceServiceClient::new(running.channel().await);
    let partial = client.export(request.clone()).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 4);
    insta::assert_snapshot!(partial.error_message);
    assert_eq!(running.pipelines[0].next().await.len(), 2);
    let answer = running.post("/v1/traces", &[PROTOBUF], &request.encode_to_vec()).await;
    let body = ExportTraceServiceResponse::decode(answer.body.as_slice()).unwrap();
    assert_eq!((answer.status, body.partial_success.unwrap()), (200, partial.clone()));
    let answer = running.post("/v1/traces", &[JSON], traces_json(&request).to_string().as_bytes()).await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["partialSuccess"], json!({ "rejectedSpans": "4", "errorMessage": partial.error_message }));
    let counts = running.pipelines[0].counts(Signal::Traces);
    assert_eq!((counts.received, counts.sent), (18, 6));
    assert_eq!(counts.dropped.get("bad_timestamp"), Some(&9));
    assert_eq!(counts.dropped.get("attribute_too_large"), Some(&3));
}

#[tokio::test]
async fn points_that_say_that_they_have_no_value_are_no_error() {
    let running = Running::one("production").await;
    let stale = NumberDataPoint { time_unix_nano: NOW, flags: 1, ..NumberDataPoint::default() };
    let mut request = metrics();
    if let Some(Data::Gauge(gauge)) = &mut request.resource_metrics[0].scope_metrics[0].metrics[0].data {
        gauge.data_points.push(stale);
    }
    let mut client = MetricsServiceClient::new(running.channel().await);
    assert_eq!(client.export(request).await.unwrap().into_inner().partial_success, None);
    let counts = running.pipelines[0].counts(Signal::Metrics);
    assert_eq!((counts.received, counts.sent, counts.dropped.get("no_recorded_value")), (2, 1, Some(&1)));
}

#[tokio::test]
async fn shutdown_answers_what_is_in_progress_and_then_ends() {
    let config = both(&json!({ "wait": "1h" }));
    let mut running = Running::start(vec![Tenant { config, held: true, ..Tenant::new("production") }]).await;
    let client = TraceServiceClient::new(running.channel().await);
    let mut waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.export(traces(2)).await });
    while running.pipelines[0].counts(Signal::Traces).in_flight == 0 {
        tokio::task::yield_now().await;
    }
    running.shutdown.cancel();
    running.pipelines[0].release();
    assert_eq!(running.pipelines[0].next().await.len(), 2);
    waiting.await.unwrap().unwrap();
    drop(client);
    running.task.await.unwrap();
    assert!(tokio::net::TcpStream::connect(running.http).await.is_err(), "the port is free again");
}

#[tokio::test]
async fn a_request_whose_body_does_not_arrive_does_not_hold_up_a_stop() {
    let running = Running::one("production").await;
    let head = b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 10\r\n\r\nx";
    let mut stalled = tokio::net::TcpStream::connect(running.http).await.unwrap();
    stalled.write_all(head).await.unwrap();
    // Of one there is not even a head.
    let mut silent = tokio::net::TcpStream::connect(running.http).await.unwrap();
    silent.write_all(b"POST /v1/tr").await.unwrap();
    let mut client = TraceServiceClient::new(running.channel().await);
    client.export(traces(2)).await.unwrap();
    tokio::time::pause();
    running.shutdown.cancel();
    let began = tokio::time::Instant::now();
    running.task.await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(6), "{:?}", began.elapsed());
    let mut rest = Vec::new();
    let _ = stalled.read_to_end(&mut rest).await;
    assert_eq!(String::from_utf8_lossy(&rest), "", "it is not told that anything was taken");
}

#[tokio::test]
async fn while_others_wait_for_long_newcomers_are_refused_before_they_are_read() {
    let config = both(&json!({ "wait": "1h" }));
    let mut running = Running::start(vec![Tenant { config, queue: 1, held: true, ..Tenant::new("production") }]).await;
    let client = TraceServiceClient::new(running.channel().await);
    let mut waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.export(traces(2)).await });
    while running.pipelines[0].counts(Signal::Traces).in_flight == 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(901)).await;
    tokio::time::resume();
    let status = client.clone().export(traces(3)).await.unwrap_err();
    assert_eq!((status.code(), status.get_details_retry_info().is_some()), (Code::Unavailable, true));
    insta::with_settings!({filters => vec![(r"for [\d.]+s", "for [time]")]}, {
        insta::assert_snapshot!(status.message());
    });
    // Neither its compression nor what it holds was looked at: all of it would be refused for good.
    let answer = running.post("/v1/traces", &[PROTOBUF, ("content-encoding", "br")], b"garbage").await;
    assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true));
    // When the line moves, they are taken.
    running.pipelines[0].release();
    waiting.await.unwrap().unwrap();
    client.clone().export(traces(3)).await.unwrap();
}

#[tokio::test]
async fn a_refused_client_has_its_answer_before_it_has_sent_its_body() {
    let running = Running::start(vec![Tenant { signals: &[Signal::Traces], ..Tenant::new("production") }]).await;
    let mut stream = tokio::net::TcpStream::connect(running.http).await.unwrap();
    let head = "POST /v1/logs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
    // And may go on sending it, and use the connection again.
    stream.write_all(&vec![b' '; 4_000_000]).await.unwrap();
    stream.write_all(b"POST /v1/logs HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(String::from_utf8_lossy(&rest).contains("HTTP/1.1 415"), "{}", String::from_utf8_lossy(&rest));
}
