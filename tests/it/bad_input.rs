//! What must never come, comes: it is named and counted, and everything else keeps flowing.

use std::io::Write as _;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::daemon::{Daemon, Setup};
use crate::support::documents::otel;
use crate::support::elasticsearch::{NEW, elasticsearch};
use crate::support::history::History;
use crate::support::otlp::{Call, post, send_grpc, send_http, traces};
use crate::support::{eventually, free_port, needs, unique};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const SOON: Duration = Duration::from_secs(20);

fn call(number: u64) -> Call {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_nanos();
    let (service, operation) = ("checkout".to_owned(), "POST /pay".to_owned());
    Call { service, operation, start: now as u64, duration: 5_000_000, failed: false, number }
}

/// The pipeline file of an environment that takes OTLP and prints anomalies.
fn otlp_to_console(grpc: u16, http: u16) -> String {
    format!(
        "receivers:
  otlp:
    protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{grpc}\" }}, http: {{ endpoint: \"127.0.0.1:{http}\" }} }}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [red_metrics], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [console] }}
"
    )
}

/// A daemon with one environment, `production`, that takes OTLP.
async fn production() -> (Setup, Daemon, u16, u16) {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    setup.environment("production", &format!("default: true\n{}", otlp_to_console(grpc, http)));
    let daemon = setup.start().await;
    (setup, daemon, grpc, http)
}

/// A message of `google.rpc.Status`, as far as it matters here.
#[derive(prost::Message)]
struct Status {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[tokio::test]
async fn garbage_at_both_ports_harms_nobody() {
    let (_setup, mut daemon, grpc, http) = production().await;
    for port in [grpc, http] {
        for garbage in [
            &b"\0\xff\xfe not http at all\r\n\r\n"[..],
            b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
            b"PRI * HT",
        ] {
            let mut connection = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
            connection.write_all(garbage).await.expect("it can be written");
            connection.shutdown().await.expect("it can be closed");
            let mut answer = Vec::new();
            // A connection that is reset is as good an answer as one that is closed.
            let _ = tokio::time::timeout(SOON, connection.read_to_end(&mut answer)).await.expect("the connection is closed");
        }
    }
    // Truncated, and not protobuf at all.
    let whole = traces(&[call(1)], None).encode_to_vec();
    for body in [whole[..whole.len() - 3].to_vec(), vec![0xff; 64]] {
        let (status, answer) = post(http, "/v1/traces", &[PROTOBUF], body).await;
        let answer = Status::decode(answer.as_slice()).expect("a google.rpc.Status");
        assert_eq!((status, answer.code), (400, 3), "{answer:?}");
        assert!(answer.message.len() > 20, "a sentence for the sender: {answer:?}");
    }
    let (status, _) = post(http, "/v1/traces", &[], whole.clone()).await;
    assert_eq!(status, 415, "no content type");
    let (status, _) = post(http, "/v1/nothing", &[PROTOBUF], whole.clone()).await;
    assert_eq!(status, 404);

    send_grpc(grpc, traces(&[call(2)], None)).await.expect("gRPC goes on");
    assert_eq!(send_http(http, &traces(&[call(3)], None)).await, 200, "HTTP goes on");
    let received = [("component", "otlp"), ("payload", "traces")];
    let metrics = daemon.metrics_when("the two good spans", SOON, |m| m.received(&received) == 2).await;
    assert!(
        metrics.sum("anomalyd_component_events_total", &[("component", "otlp")]) >= 2,
        "bad requests are counted:\n{}",
        metrics.text()
    );
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test]
async fn a_zip_bomb_is_refused_before_it_is_unpacked() {
    let (_setup, mut daemon, grpc, http) = production().await;
    let resident = |m: &crate::support::metrics::Metrics| m.sum("process_resident_memory_bytes", &[]);
    let before = resident(&daemon.metrics().await);
    // A gigabyte of zeros is a megabyte of gzip.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..1024 {
        encoder.write_all(&[0; 1 << 20]).expect("memory");
    }
    let bomb = encoder.finish().expect("memory");
    let (status, answer) = post(http, "/v1/traces", &[PROTOBUF, ("content-encoding", "gzip")], bomb).await;
    let answer = Status::decode(answer.as_slice()).expect("a google.rpc.Status");
    assert_eq!(status, 413, "{answer:?}");

    // Over gRPC a request that is too large after decompression.
    let mut large = traces(&[call(1)], None);
    large.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(65 << 20);
    let mut client = TraceServiceClient::connect(format!("http://127.0.0.1:{grpc}"))
        .await
        .expect("a connection")
        .send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let refused = client.export(large).await.expect_err("more than 64 MiB");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");

    let after = resident(&daemon.metrics().await);
    assert!(after.saturating_sub(before) < 400 << 20, "memory stays bounded: {before} bytes before, {after} after");
    send_grpc(grpc, traces(&[call(2)], None)).await.expect("gRPC goes on");
    assert_eq!(send_http(http, &traces(&[call(3)], None)).await, 200, "HTTP goes on");
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test]
async fn spans_of_an_unknown_environment_are_rejected_and_counted() {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    setup.environment("production", &otlp_to_console(grpc, http)).environment("staging", &otlp_to_console(grpc, http));
    let mut daemon = setup.start().await;
    let mut client = TraceServiceClient::connect(format!("http://127.0.0.1:{grpc}")).await.expect("a connection");
    for (environment, rejected) in [(Some("production"), 0), (Some("staging"), 0), (Some("qa"), 1), (None, 1)] {
        let answer = client.export(traces(&[call(1)], environment)).await.expect("an answer").into_inner();
        let partial = answer.partial_success.unwrap_or_default();
        assert_eq!(partial.rejected_spans, rejected, "{environment:?}: {partial:?}");
        if environment == Some("qa") {
            assert!(partial.error_message.contains("qa"), "it names the environment: {partial:?}");
        }
    }
    for environment in ["production", "staging"] {
        let receiver = [("environment", environment), ("class", "receiver"), ("payload", "traces")];
        daemon.metrics_when(environment, SOON, |m| m.sum("anomalyd_component_sent_total", &receiver) == 1).await;
    }
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

/// Answers every request with a page, as a proxy in front of a cluster that is down does.
async fn proxy_with_a_page() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let page = "<html><head><title>Welcome</title></head><body>Please log in</body></html>";
                let mut buffer = vec![0; 65536];
                while connection.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{page}", page.len());
                    if connection.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_page_of_a_proxy_stops_one_environment_and_no_other() {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    let proxy = proxy_with_a_page().await;
    setup.environment(
        "staging",
        &format!(
            "receivers:
  elasticsearch: {{ endpoints: [\"http://127.0.0.1:{proxy}\"], indices: [\"traces-*\"], interval: 1s }}
service:
  pipelines:
    traces: {{ receivers: [elasticsearch], processors: [red_metrics], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [console] }}
"
        ),
    );
    setup.environment("production", &otlp_to_console(grpc, http));
    let mut daemon = setup.start().await;
    let health = eventually("the health to tell what is wrong", SOON, async || {
        let (status, health) = daemon.health().await;
        let health: serde_json::Value = serde_json::from_str(&health).expect("JSON");
        if status == 200 && health["status"] == json!("degraded") {
            Ok(health)
        } else {
            Err(format!("{status} {health:#}\n{}", daemon.said()))
        }
    })
    .await;
    let components = health["components"].as_array().expect("components");
    let broken: Vec<_> = components.iter().filter(|c| c["message"].is_string()).collect();
    assert_eq!(broken.len(), 1, "one component is not well: {health:#}");
    assert_eq!((&broken[0]["environment"], &broken[0]["id"]), (&json!("staging"), &json!("elasticsearch")));
    let message = broken[0]["message"].as_str().expect("a message");
    assert!(message.contains("HTML") && message.contains(&proxy.to_string()), "what came and from where: {message}");

    send_grpc(grpc, traces(&[call(1)], Some("production"))).await.expect("the other environment goes on");
    let received = [("environment", "production"), ("class", "receiver")];
    daemon.metrics_when("the span of the other environment", SOON, |m| m.received(&received) == 1).await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test]
async fn an_index_that_vanishes_while_it_is_read_does_not_stop_the_others() {
    let elasticsearch = needs!(elasticsearch(NEW));
    let word = unique("vanish");
    let (doomed, lasting) = (format!("spans-{word}-doomed"), format!("spans-{word}-lasting"));
    let begin = History::of_hours("checkout", 2);
    let documents = |count: u64| begin.calls().take(count as usize).map(|call| otel(&call, "production")).collect::<Vec<_>>();
    elasticsearch.plain_index(&doomed).await;
    elasticsearch.index(&doomed, documents(5000)).await;
    let connection = elasticsearch.yaml(4);
    let mut setup = Setup::new();
    setup.environment(
        "production",
        &format!(
            "receivers:
  elasticsearch:
{connection}    indices: [\"spans-{word}-*\"]
    interval: 1s
    start_at: 24h
    query_delay: 0s
    page_size: 100
service:
  pipelines:
    traces: {{ receivers: [elasticsearch], processors: [red_metrics], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [console] }}
"
        ),
    );
    let mut daemon = setup.start().await;
    let receiver = [("environment", "production"), ("class", "receiver")];
    daemon.metrics_when("a page of the index that will vanish", SOON, |m| m.received(&receiver) > 0).await;
    elasticsearch.call(reqwest::Method::DELETE, &doomed, None).await;

    // Newer than all that was read: these are counted only if the receiver has gone on.
    elasticsearch.plain_index(&lasting).await;
    let fresh: Vec<_> = (0..50).map(|n| otel(&call(1_000_000 + n), "production")).collect();
    let read = daemon.metrics().await.received(&receiver);
    elasticsearch.index(&lasting, fresh).await;
    daemon
        .metrics_when("the documents of the other index", Duration::from_secs(60), |m| m.received(&receiver) >= read + 50)
        .await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

/// Sends some hours of spans with a fault near the end, in the order of time.
async fn send_history_with_fault(grpc: u16, history: &History) {
    let calls: Vec<Call> = history.calls().collect();
    let mut client = TraceServiceClient::connect(format!("http://127.0.0.1:{grpc}")).await.expect("a connection");
    for part in calls.chunks(500) {
        client.export(traces(part, Some("production"))).await.expect("the daemon takes the spans");
    }
}

#[tokio::test]
async fn a_full_disk_behind_the_file_exporter_loses_no_other_exporters_anomalies() {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    setup.environment(
        "production",
        &format!(
            "receivers:
  otlp:
    protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{grpc}\" }}, http: {{ endpoint: \"127.0.0.1:{http}\" }} }}
connectors:
  detector: {{ bucket: 1m, lateness: 0s }}
exporters:
  file: {{ path: /dev/full }}
  console: {{ format: json }}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [red_metrics], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [file, console] }}
"
        ),
    );
    let mut daemon = setup.start().await;
    send_history_with_fault(grpc, &History::of_hours("checkout", 7).with_fault()).await;
    let console = [("class", "exporter"), ("component", "console")];
    daemon.metrics_when("an anomaly on the console", SOON, |m| m.sum("anomalyd_component_sent_total", &console) > 0).await;
    let anomaly = daemon.printed();
    let anomaly: serde_json::Value = serde_json::from_str(anomaly.lines().next().expect("a line")).expect("JSON");
    assert_eq!(anomaly["entity"]["operation"], json!(crate::support::history::SLOW), "{anomaly}");
    let told = eventually("the health to tell of the full disk", SOON, async || {
        let (_, health) = daemon.health().await;
        if health.contains("No space left on device") { Ok(health) } else { Err(format!("{health}\n{}", daemon.said())) }
    })
    .await;
    assert!(told.contains("/dev/full"), "where: {told}");
    send_grpc(grpc, traces(&[call(1)], None)).await.expect("everything else keeps flowing");
    daemon.stop().await;
}

#[tokio::test]
async fn a_stop_ends_within_the_deadline_even_when_nobody_takes_the_anomalies() {
    let (grpc, http) = (free_port(), free_port());
    let nobody = free_port();
    let mut setup = Setup::new();
    setup.more("pipeline: { shutdown_deadline: 3s }\n").environment(
        "production",
        &format!(
            "receivers:
  otlp:
    protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{grpc}\" }}, http: {{ endpoint: \"127.0.0.1:{http}\" }} }}
connectors:
  detector: {{ bucket: 1m, lateness: 0s }}
exporters:
  elasticsearch: {{ endpoints: [\"http://127.0.0.1:{nobody}\"] }}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [red_metrics], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [elasticsearch] }}
"
        ),
    );
    let mut daemon = setup.start().await;
    send_history_with_fault(grpc, &History::of_hours("checkout", 7).with_fault()).await;
    let exporter = [("class", "exporter"), ("component", "elasticsearch")];
    daemon.metrics_when("an anomaly that nobody takes", SOON, |m| m.received(&exporter) > 0).await;
    let begin = std::time::Instant::now();
    daemon.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(15), "it took {:?}:\n{}", begin.elapsed(), daemon.said());
    assert!(daemon.said().contains("shutdown deadline"), "it says what it has dropped:\n{}", daemon.said());
}

#[tokio::test]
async fn a_port_in_use_is_named_and_the_daemon_ends() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address.port())).expect("an address");
    let mut setup = Setup::new();
    setup.environment("production", &otlp_to_console(taken.1, free_port()));
    let mut daemon = setup.spawn();
    assert_eq!(daemon.end(SOON).await.code(), Some(1), "{}", daemon.said());
    let said = daemon.said();
    assert!(said.contains(&format!("127.0.0.1:{}", taken.1)) && said.contains("otlp") && said.contains("production"), "{said}");

    // The port of /health, which the first daemon holds.
    let (grpc, http) = (free_port(), free_port());
    let mut first = Setup::new();
    first.environment("production", &otlp_to_console(grpc, http));
    let _running = first.start().await;
    let mut second = Setup::new();
    second.environment("production", &otlp_to_console(free_port(), free_port()));
    let mut daemon = second.at(first.admin()).spawn();
    assert_eq!(daemon.end(SOON).await.code(), Some(1), "{}", daemon.said());
    assert!(daemon.said().contains(&first.admin().to_string()), "{}", daemon.said());
}
