//! What the daemon tells about itself.

use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::Setup;
use crate::support::otlp::{Call, send_grpc, traces};
use crate::support::own_telemetry::Server;
use crate::support::{eventually, free_port, pipelines};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn own_traces_and_metrics_go_out_over_otlp_where_an_endpoint_is_configured() {
    let watcher = Server::start().await;
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    let telemetry = format!("telemetry: {{ otlp: {{ endpoint: \"http://127.0.0.1:{}\", interval: 1s }} }}\n", watcher.port);
    setup.more(&telemetry).environment("production", &pipelines::otlp_to_console(grpc, http));
    let mut daemon = setup.start().await;
    send_grpc(grpc, traces(&[Call::now(1), Call::now(2)], None)).await.expect("it is taken");
    let receiver = [("environment", "production"), ("class", "receiver"), ("component", "otlp"), ("payload", "traces")];
    eventually("the count of two spans over OTLP", SOON, async || {
        match watcher.received.sum("anomalyd_component_received", &receiver) {
            2 => Ok(()),
            other => Err(format!("it is {other}: {}", daemon.said())),
        }
    })
    .await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    // The last spans are sent before the process ends.
    assert!(watcher.received.spans().contains(&"otlp.export".to_owned()), "{:?}", watcher.received.spans());
}

#[tokio::test]
async fn logs_are_json_objects_where_that_is_configured() {
    let (mut setup, ..) = Setup::otlp(&["production"]);
    setup.more("telemetry: { logs: { format: json } }\n");
    let mut daemon = setup.start().await;
    assert_eq!(daemon.stop().await.code(), Some(0));
    let said = daemon.said();
    let lines: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect();
    assert!(lines.iter().any(|line| line["message"] == "running" && line["level"] == "INFO"), "{said}");
}

#[tokio::test]
async fn health_names_every_component() {
    let (setup, ..) = Setup::otlp(&["production"]);
    let daemon = setup.start().await;
    let (code, body) = daemon.health().await;
    let report: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((code, &report["status"]), (200, &Value::from("ok")), "{body}");
    let components = report["components"].as_array().expect("a list");
    let mut ids: Vec<&str> = components.iter().filter_map(|c| c["id"].as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["console", "detector", "otlp", "red_metrics"], "{body}");
}
