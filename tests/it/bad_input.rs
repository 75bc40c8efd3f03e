//! What must never come over OTLP, comes: it is named and counted, and everything else keeps flowing.

use std::io::Write as _;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::daemon::{Daemon, Setup};
use crate::support::metrics::Metrics;
use crate::support::otlp::{Call, post, send_grpc, send_http, traces};
use crate::support::{free_port, otlp, pipelines};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const SOON: Duration = Duration::from_secs(60);

/// A daemon with one environment, `production`, that takes OTLP.
async fn production() -> (Setup, Daemon, u16, u16) {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    setup.environment("production", &format!("default: true\n{}", pipelines::otlp_to_console(grpc, http)));
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
    let whole = traces(&[Call::now(1)], None).encode_to_vec();
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

    send_grpc(grpc, traces(&[Call::now(2)], None)).await.expect("gRPC goes on");
    assert_eq!(send_http(http, &traces(&[Call::now(3)], None)).await, 200, "HTTP goes on");
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
    let resident = |m: &Metrics| m.sum("process_resident_memory_bytes", &[]);
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
    let mut large = traces(&[Call::now(1)], None);
    large.resource_spans[0].scope_spans[0].spans[0].name = "x".repeat(65 << 20);
    let mut client = TraceServiceClient::connect(format!("http://127.0.0.1:{grpc}"))
        .await
        .expect("a connection")
        .send_compressed(tonic::codec::CompressionEncoding::Gzip);
    let refused = client.export(large).await.expect_err("more than 64 MiB");
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused:?}");

    let after = resident(&daemon.metrics().await);
    assert!(after.saturating_sub(before) < 400 << 20, "memory stays bounded: {before} bytes before, {after} after");
    send_grpc(grpc, traces(&[Call::now(2)], None)).await.expect("gRPC goes on");
    assert_eq!(send_http(http, &traces(&[Call::now(3)], None)).await, 200, "HTTP goes on");
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test]
async fn spans_of_an_unknown_environment_are_rejected_and_counted() {
    let (setup, _, [grpc, _]) = Setup::otlp(&["production", "staging"]);
    let mut daemon = setup.start().await;
    let mut client = TraceServiceClient::connect(format!("http://127.0.0.1:{grpc}")).await.expect("a connection");
    for (environment, rejected) in [(Some("production"), 0), (Some("staging"), 0), (Some("qa"), 1), (None, 1)] {
        let answer = client.export(traces(&[Call::now(1)], environment)).await.expect("an answer").into_inner();
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

#[tokio::test]
async fn odd_values_are_rejected_by_name_and_the_rest_of_the_request_is_taken() {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    setup.environment("production", &pipelines::all_signals(grpc, http));
    let mut daemon = setup.start().await;
    let now = Call::now(0).start;

    let year_1970 = Call { start: 1_000_000_000, ..Call::now(1) };
    let year_2100 = Call { start: 4_102_444_800_000_000_000, ..Call::now(2) };
    let mut request = traces(&[year_1970, year_2100, Call::now(3), Call::now(4)], None);
    request.resource_spans[2].scope_spans[0].spans[0].attributes = vec![otlp::text("large", &"x".repeat(10 << 20))];
    let (status, answer) = post(http, "/v1/traces", &[PROTOBUF], request.encode_to_vec()).await;
    let answer = ExportTraceServiceResponse::decode(answer.as_slice()).expect("an answer").partial_success;
    let answer = answer.expect("a partial success");
    assert_eq!((status, answer.rejected_spans), (200, 3), "{answer:?}");
    assert!(answer.error_message.contains("1970") && answer.error_message.contains("large"), "it names them: {answer:?}");

    let request = otlp::gauge("checkout", None, now, &[1.0, f64::NAN, f64::INFINITY, 2.0]);
    let (status, _) = post(http, "/v1/metrics", &[PROTOBUF], request.encode_to_vec()).await;
    assert_eq!(status, 200);

    let logs = otlp::logs("checkout", None, now, 3).encode_to_vec();
    let at = logs.windows(9).position(|w| w == b"something").expect("the body of the record");
    let mut broken = logs.clone();
    broken[at] = 0xff;
    let (status, answer) = post(http, "/v1/logs", &[PROTOBUF], broken).await;
    let answer = Status::decode(answer.as_slice()).expect("a google.rpc.Status");
    assert!(status == 400 && answer.message.contains("UTF-8"), "{status} {answer:?}");
    assert_eq!(post(http, "/v1/logs", &[PROTOBUF], logs).await.0, 200);

    let metrics = daemon.metrics_when("the good records", SOON, Metrics::drained).await;
    let receiver = |what: &str, more: (&str, &str)| metrics.sum(what, &[("class", "receiver"), more]);
    for (reason, count) in [("bad_timestamp", 2), ("attribute_too_large", 1), ("not_finite", 2)] {
        assert_eq!(receiver("anomalyd_component_dropped_total", ("reason", reason)), count, "{reason}:\n{}", metrics.text());
    }
    for (payload, count) in [("traces", 1), ("metrics", 2), ("logs", 3)] {
        assert_eq!(receiver("anomalyd_component_sent_total", ("payload", payload)), count, "{payload}:\n{}", metrics.text());
    }
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}
