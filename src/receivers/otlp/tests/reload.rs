//! Environments come, go and change behind listeners that others go on using.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use super::super::listeners::Otlp;
use super::super::share::Protocol;
use super::support::{Pipeline, Tenant, both, instances, span, traces_json, traces_of};
use crate::model::{Environment, Signal};
use crate::pipeline::{Listeners as _, ReceiverInstance};

const NAME: &str = "deployment.environment.name";

fn request(environment: &str) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![traces_of(&[("service.name", "checkout"), (NAME, environment)], vec![span("a")])],
    }
}

fn ports(grpc: u16, http: u16, more: &Value) -> Value {
    let mut config = json!({ "protocols": {
        "grpc": { "endpoint": format!("127.0.0.1:{grpc}") },
        "http": { "endpoint": format!("127.0.0.1:{http}") },
    } });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn one(name: &'static str, config: Value) -> (ReceiverInstance, Pipeline) {
    let (mut instances, mut pipelines, _) = instances(vec![Tenant { config, ..Tenant::new(name) }]);
    (instances.remove(0), pipelines.remove(0))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn client(port: u16) -> TraceServiceClient<tonic::transport::Channel> {
    TraceServiceClient::connect(format!("http://127.0.0.1:{port}")).await.unwrap()
}

async fn send(client: &mut TraceServiceClient<tonic::transport::Channel>, environment: &str) -> Result<String, tonic::Status> {
    let answer = client.export(request(environment)).await?.into_inner();
    Ok(answer.partial_success.map(|p| p.error_message).unwrap_or_default())
}

/// One request on a connection that stays open; the status and the body.
async fn post(stream: &mut TcpStream, path: &str, environment: &str) -> (u16, String) {
    let body = traces_json(&request(environment)).to_string();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "the connection was closed");
        let text = String::from_utf8_lossy(&answer).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase().split("content-length: ").nth(1).unwrap().lines().next().unwrap().parse().unwrap();
        if body.len() >= length {
            return (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned());
        }
    }
}

#[tokio::test]
async fn connections_go_on_while_other_environments_of_the_port_come_go_and_change() {
    let (grpc, http) = (free_port(), free_port());
    let (production, mut taken) = one("production", ports(grpc, http, &json!({})));
    let mut otlp = Otlp::default();
    otlp.serve(vec![production.clone()]).await.unwrap();
    let (mut rpc, mut web) = (client(grpc).await, TcpStream::connect(("127.0.0.1", http)).await.unwrap());
    let addresses = |otlp: &Otlp| otlp.listeners.iter().map(|l| l.address).collect::<Vec<SocketAddr>>();
    let before = addresses(&otlp);
    let mut both_take = async |rpc: &mut _| {
        assert_eq!(send(rpc, "production").await.unwrap(), "");
        assert_eq!(post(&mut web, "/v1/traces", "production").await, (200, "{}".to_owned()));
        taken.next().await;
        taken.next().await;
    };
    both_take(&mut rpc).await;
    for round in 0..3 {
        let routing = json!({ "routing": { "header": format!("x-environment-{round}") } });
        let (staging, mut pipeline) = one("staging", ports(grpc, http, &routing));
        otlp.prepare(&[production.clone(), staging.clone()]).await.unwrap();
        otlp.serve(vec![production.clone(), staging]).await.unwrap();
        both_take(&mut rpc).await;
        assert_eq!(send(&mut rpc, "staging").await.unwrap(), "");
        pipeline.next().await;
        // It is drained: the client keeps what it has.
        otlp.pause(&BTreeSet::from([Environment::new("staging")]));
        let paused = send(&mut rpc, "staging").await.unwrap_err();
        assert_eq!(paused.code(), Code::Unavailable);
        assert_eq!(paused.message(), "environment `staging` is starting anew with a changed configuration");
        assert_eq!(pipeline.counts(Signal::Traces).refused, 1);
        both_take(&mut rpc).await;
    }
    otlp.serve(vec![production.clone()]).await.unwrap();
    both_take(&mut rpc).await;
    assert!(send(&mut rpc, "staging").await.unwrap().contains("names the environment `staging`, which does not listen here"));
    assert_eq!(addresses(&otlp), before);
    otlp.stop().await;
}

#[tokio::test]
async fn a_paused_environment_holds_no_pipeline_open() {
    let config = both(&json!({}));
    let (all, mut pipelines, _) = instances(vec![Tenant { config, held: true, ..Tenant::new("production") }]);
    let mut otlp = Otlp::default();
    otlp.serve(all).await.unwrap();
    // Somebody has begun to send, and takes time.
    let http = otlp.listeners.iter().find(|l| l.protocol() == Protocol::Http).unwrap().address;
    let mut slow = TcpStream::connect(http).await.unwrap();
    slow.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
        .await
        .unwrap();
    otlp.pause(&BTreeSet::from([Environment::new("production")]));
    let mut queue = pipelines.remove(0).held.take().unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), queue.recv()).await;
    assert!(ended.expect("the queue ends").is_none());
    drop(slow);
    otlp.stop().await;
}

#[tokio::test]
async fn changed_limits_and_paths_apply_to_the_connections_that_there_are() {
    let (grpc, http) = (free_port(), free_port());
    let (before, _pipeline) = one("production", ports(grpc, http, &json!({})));
    let mut otlp = Otlp::default();
    otlp.serve(vec![before]).await.unwrap();
    let mut web = TcpStream::connect(("127.0.0.1", http)).await.unwrap();
    assert_eq!(post(&mut web, "/v1/traces", "production").await.0, 200);
    let mut config = ports(grpc, http, &json!({}));
    config["protocols"]["http"]["traces_url_path"] = json!("/spans");
    config["protocols"]["http"]["max_request_body_size"] = json!("10B");
    let (after, _pipeline) = one("production", config);
    otlp.serve(vec![after]).await.unwrap();
    assert_eq!(post(&mut web, "/v1/traces", "production").await.0, 404);
    assert_eq!(post(&mut web, "/spans", "production").await.0, 413);
    otlp.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_changes_nothing() {
    let (grpc, http) = (free_port(), free_port());
    let (production, mut pipeline) = one("production", ports(grpc, http, &json!({})));
    let mut otlp = Otlp::default();
    otlp.serve(vec![production.clone()]).await.unwrap();
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (free, taken) = (free_port(), other.local_addr().unwrap().port());
    let (staging, _pipeline) = one("staging", ports(free, taken, &json!({})));
    let error = otlp.prepare(&[production, staging]).await.unwrap_err().to_string();
    let expected = format!("environment `staging`, receiver `otlp`: cannot listen on http endpoint 127.0.0.1:{taken}: ");
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(send(&mut client(grpc).await, "production").await.unwrap(), "");
    pipeline.next().await;
    assert!(TcpStream::connect(("127.0.0.1", free)).await.is_err(), "the other port is given back");
    otlp.stop().await;
}

#[tokio::test]
async fn a_port_moves_to_another_address_or_protocol_and_back_when_that_cannot_be() {
    let (first, second) = (free_port(), free_port());
    let config = |grpc: &str, http: u16| json!({ "protocols": { "grpc": { "endpoint": grpc }, "http": { "endpoint": format!("127.0.0.1:{http}") } } });
    let mut otlp = Otlp::default();
    let (before, _pipeline) = one("production", config(&format!("127.0.0.1:{first}"), second));
    otlp.serve(vec![before]).await.unwrap();

    // All addresses have the port of one of them.
    let (wide, mut pipeline) = one("production", config(&format!("0.0.0.0:{first}"), second));
    otlp.prepare(std::slice::from_ref(&wide)).await.unwrap();
    otlp.serve(vec![wide]).await.unwrap();
    send(&mut client(first).await, "production").await.unwrap();
    pipeline.next().await;

    // Each protocol takes the port of the other.
    let (swapped, mut pipeline) = one("production", config(&format!("127.0.0.1:{second}"), first));
    otlp.prepare(std::slice::from_ref(&swapped)).await.unwrap();
    otlp.serve(vec![swapped.clone()]).await.unwrap();
    send(&mut client(second).await, "production").await.unwrap();
    pipeline.next().await;
    let mut web = TcpStream::connect(("127.0.0.1", first)).await.unwrap();
    assert_eq!(post(&mut web, "/v1/traces", "production").await.0, 200);
    pipeline.next().await;

    // An address that this machine does not have, at a port of ours: what has made way comes back.
    let (stranger, _pipeline) = one("production", config(&format!("192.0.2.1:{second}"), first));
    assert!(otlp.prepare(std::slice::from_ref(&stranger)).await.is_err());
    assert!(otlp.serve(vec![stranger]).await.is_err());
    send(&mut client(second).await, "production").await.unwrap();
    pipeline.next().await;
    otlp.stop().await;
}

#[tokio::test]
async fn a_port_that_nobody_uses_any_more_closes_and_lets_its_requests_end() {
    let (grpc, http, elsewhere) = (free_port(), free_port(), free_port());
    let config = ports(grpc, http, &json!({}));
    let (mut all, mut pipelines, _) = instances(vec![Tenant { config, held: true, ..Tenant::new("production") }]);
    let mut otlp = Otlp::default();
    otlp.serve(all.clone()).await.unwrap();
    let mut rpc = client(grpc).await;
    let waiting = tokio::spawn(async move { send(&mut rpc, "production").await });
    // It is in the queue of the pipeline.
    while pipelines[0].counts(Signal::Traces).in_flight == 0 {
        tokio::task::yield_now().await;
    }
    let mut moved = all.remove(0);
    moved.instance.config = ports(elsewhere, http, &json!({}));
    otlp.serve(vec![moved]).await.unwrap();
    pipelines[0].release();
    assert_eq!(waiting.await.unwrap().unwrap(), "", "what was begun there ends there");
    assert_eq!(send(&mut client(elsewhere).await, "production").await.unwrap(), "");
    while TcpStream::connect(("127.0.0.1", grpc)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    otlp.stop().await;
}
