//! How the daemon starts and ends.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::support::daemon::Setup;
use crate::support::history::History;
use crate::support::otlp::{Call, send_all, send_grpc, traces};
use crate::support::{free_port, pipelines};

const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_was_accepted_before_a_stop_runs_through_to_the_exporter() {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    setup.environment("production", &pipelines::otlp_to_console(grpc, http));
    let mut daemon = setup.start().await;
    // The stop comes with the last answer, while most of it is still on its way through the pipeline.
    send_all(grpc, History::of_hours("checkout", 7).with_fault().calls(), "production").await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    assert!(daemon.printed().contains("POST /pay"), "the anomaly is printed: {}\n{}", daemon.printed(), daemon.said());
    assert!(send_grpc(grpc, traces(&[Call::now(1)], None)).await.is_err(), "the port is closed");
}

#[tokio::test]
async fn a_stop_ends_within_the_deadline_even_when_nobody_takes_the_anomalies() {
    let (grpc, http) = (free_port(), free_port());
    let nobody = free_port();
    let mut setup = Setup::new();
    let exporter = format!("  elasticsearch: {{ endpoints: [\"http://127.0.0.1:{nobody}\"] }}\n");
    setup
        .more("pipeline: { shutdown_deadline: 3s }\n")
        .environment("production", &pipelines::traces("otlp", &pipelines::otlp(grpc, http), "elasticsearch", &exporter));
    let mut daemon = setup.start().await;
    send_all(grpc, History::of_hours("checkout", 7).with_fault().calls(), "production").await;
    let exporter = [("class", "exporter"), ("component", "elasticsearch")];
    daemon.metrics_when("an anomaly that nobody takes", SOON, |m| m.received(&exporter) > 0).await;
    let begin = std::time::Instant::now();
    assert_eq!(daemon.stop().await.code(), Some(0), "what nobody takes is kept: {}", daemon.said());
    assert!(begin.elapsed() < Duration::from_secs(15), "it took {:?}:\n{}", begin.elapsed(), daemon.said());
    assert!(daemon.said().contains("wait in the outbox for exporter `elasticsearch`"), "it says so:\n{}", daemon.said());
}

#[tokio::test]
async fn clients_that_do_not_end_their_requests_do_not_hold_up_a_stop() {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    setup.environment("production", &pipelines::otlp_to_console(grpc, http));
    let mut daemon = setup.start().await;
    send_grpc(grpc, traces(&[Call::now(1)], None)).await.expect("it is taken in");
    let mut stalled = Vec::new();
    for (port, part) in [
        (setup.admin(), "GET /heal"),
        (http, "POST /v1/tra"),
        (http, "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 9\r\n\r\nx"),
        (grpc, "PRI * HTTP/2.0"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the port");
        stream.write_all(part.as_bytes()).await.expect("a part of a request");
        stalled.push(stream);
    }
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    assert!(!daemon.said().contains("not drained in time"), "{}", daemon.said());
}

#[tokio::test]
async fn a_port_in_use_is_named_and_the_daemon_ends() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = taken.local_addr().map(|address| (taken, address.port())).expect("an address");
    let mut setup = Setup::new();
    setup.environment("production", &pipelines::otlp_to_console(taken.1, free_port()));
    let mut daemon = setup.spawn();
    assert_eq!(daemon.end(SOON).await.code(), Some(1), "{}", daemon.said());
    let said = daemon.said();
    assert!(said.contains(&format!("127.0.0.1:{}", taken.1)) && said.contains("otlp") && said.contains("production"), "{said}");

    // The port of /health, which the first daemon holds.
    let (grpc, http) = (free_port(), free_port());
    let mut first = Setup::new();
    first.environment("production", &pipelines::otlp_to_console(grpc, http));
    let _running = first.start().await;
    let mut second = Setup::new();
    second.environment("production", &pipelines::otlp_to_console(free_port(), free_port()));
    let mut daemon = second.at(first.admin()).spawn();
    assert_eq!(daemon.end(SOON).await.code(), Some(1), "{}", daemon.said());
    assert!(daemon.said().contains(&first.admin().to_string()), "{}", daemon.said());
}
