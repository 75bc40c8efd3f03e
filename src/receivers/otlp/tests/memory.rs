//! Requests are refused before they are read while the daemon has no memory for them.

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::support::{Running, Tenant, both, traces, traces_json};
use crate::model::Signal;
use crate::pipeline::Status;

const MIB: u64 = 1 << 20;

/// Waits until the first receiver's health is as `wanted` says.
async fn health(running: &Running, wanted: impl Fn(&Status) -> bool) -> Status {
    loop {
        let status = running.healths[0].get();
        if wanted(&status) {
            return status;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn without_memory_clients_are_told_to_send_again_and_the_receiver_says_so_while_it_lasts() {
    let mut running = Running::one("production").await;
    let mut client = TraceServiceClient::new(running.channel().await);
    client.export(traces(2)).await.unwrap();
    running.memory.note(600 * MIB);
    let status = client.export(traces(3)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((1.0..=2.0).contains(&delay.as_secs_f64()), "{delay:?}");
    let protobuf = running.post("/v1/traces", &[("content-type", "application/x-protobuf")], &traces(4).encode_to_vec()).await;
    let text = traces_json(&traces(5)).to_string();
    let json = running.post("/v1/traces", &[("content-type", "application/json")], text.as_bytes()).await;
    for answer in [&protobuf, &json] {
        assert_eq!((answer.status, matches!(answer.header("retry-after"), Some("1" | "2"))), (503, true));
    }
    let said = health(&running, |status| matches!(status, Status::RecoverableError(_))).await;
    insta::assert_snapshot!(format!("{}\n{}\n{}", status.message(), json.rpc_status().1, said.message().unwrap()));
    // Nobody knows how many records a request has that was not read.
    let counts = running.pipelines[0].counts(Signal::Traces);
    assert_eq!((counts.received, counts.sent, counts.refused), (2, 2, 0));
    assert_eq!(running.pipelines[0].counters.events().get("requests_refused"), Some(&3));
    // Tight is no reason to refuse.
    running.memory.note(470 * MIB);
    health(&running, |status| *status == Status::Ok).await;
    client.export(traces(3)).await.unwrap();
    assert_eq!((running.pipelines[0].next().await.len(), running.pipelines[0].next().await.len()), (2, 3));
}

#[tokio::test]
async fn a_request_that_is_refused_for_memory_is_not_read() {
    let config = both(&json!({ "max_in_flight_size": "64MiB" }));
    let running = Running::start(vec![Tenant { config, ..Tenant::new("production") }]).await;
    running.memory.note(600 * MIB);
    // Neither its compression nor what it holds was looked at: all of it would be refused for good.
    for (headers, body) in [
        (vec![("content-type", "application/x-protobuf"), ("content-encoding", "br")], b"garbage".as_slice()),
        (vec![("content-type", "application/json")], b"<html>"),
    ] {
        let answer = running.post("/v1/traces", &headers, body).await;
        assert_eq!((answer.status, answer.rpc_status().0), (503, Code::Unavailable as i64));
    }
    // What is served nowhere is said first: to send that again would be of no use.
    assert_eq!(running.post("/v1/other", &[("content-type", "application/json")], b"{}").await.status, 404);
}
