//! Several environments behind one listener.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient};
use serde_json::{Value, json};

use super::super::listeners::Otlp;
use super::super::share::groups;
use super::support::{Running, Tenant, both, instances, rows, span, traces_of};
use crate::model::Signal;
use crate::pipeline::Listeners as _;

const NAME: &str = "deployment.environment.name";

/// A request with one span for each of `environments`; the empty one is not named.
fn request(environments: &[(&str, &str)]) -> ExportTraceServiceRequest {
    let group = |(key, environment): &(&str, &str)| {
        let attributes = [("service.name", "checkout"), (*key, *environment)];
        let named = if environment.is_empty() { &attributes[..1] } else { &attributes[..] };
        traces_of(named, vec![span(&format!("for {environment}"))])
    };
    ExportTraceServiceRequest { resource_spans: environments.iter().map(group).collect() }
}

async fn export(running: &Running, request: tonic::Request<ExportTraceServiceRequest>) -> Result<String, tonic::Status> {
    let answer = TraceServiceClient::new(running.channel().await).export(request).await?.into_inner();
    Ok(answer.partial_success.map(|p| format!("{} rejected: {}", p.rejected_spans, p.error_message)).unwrap_or_default())
}

fn three() -> Vec<Tenant> {
    let routing = |token: &str| both(&json!({ "routing": { "header": "x-environment", "tokens": [token] } }));
    vec![
        Tenant { default: true, config: routing("dev-token"), ..Tenant::new("development") },
        Tenant { config: routing("staging-token"), ..Tenant::new("staging") },
        Tenant { config: routing("production-token"), ..Tenant::new("production") },
    ]
}

#[tokio::test]
async fn a_request_is_divided_by_what_its_resources_say_and_nothing_of_one_environment_is_seen_in_another() {
    let mut running = Running::start(three()).await;
    let all = request(&[(NAME, "production"), ("deployment.environment", "staging"), (NAME, ""), (NAME, "production")]);
    assert_eq!(export(&running, tonic::Request::new(all)).await.unwrap(), "");
    let mut text = String::new();
    for pipeline in &mut running.pipelines {
        let telemetry = pipeline.next().await;
        let crate::model::Batch::Traces(spans) = &telemetry.batch else { panic!("spans") };
        for other in ["development", "staging", "production"].into_iter().filter(|e| *e != telemetry.environment.as_str()) {
            assert_eq!(spans.symbols.find(other), None, "a text of {other} is in a batch of {}", telemetry.environment);
        }
        text += &format!("{}\n  {}\n", telemetry.environment, rows(&telemetry.batch).join("\n  "));
    }
    insta::assert_snapshot!(text);
    assert_eq!(running.pipelines[2].counts(Signal::Traces).sent, 2);
}

#[tokio::test]
async fn a_header_or_token_says_it_where_resources_do_not() {
    let mut running = Running::start(three()).await;
    let unnamed = || request(&[(NAME, "")]);
    for (name, value, place) in [
        ("x-environment", "production", 2),
        ("authorization", "Bearer staging-token", 1),
        ("authorization", "Bearer of-nobody", 0),
        ("authorization", "Basic production-token", 0),
    ] {
        let mut request = tonic::Request::new(unnamed());
        request.metadata_mut().insert(name, value.parse().unwrap());
        assert_eq!(export(&running, request).await.unwrap(), "");
        running.pipelines[place].next().await;
    }
    let mut named = tonic::Request::new(request(&[(NAME, "staging")]));
    named.metadata_mut().insert("x-environment", "production".parse().unwrap());
    export(&running, named).await.unwrap();
    assert_eq!(running.pipelines[1].next().await.environment.as_str(), "staging");
}

#[tokio::test]
async fn what_belongs_to_no_environment_is_rejected_with_the_name_and_the_known_ones() {
    let mut tenants = three();
    tenants[0].default = false;
    let mut running = Running::start(tenants).await;
    let mixed = request(&[(NAME, "prodution"), (NAME, "production"), (NAME, "")]);
    let message = export(&running, tonic::Request::new(mixed)).await.unwrap();
    let mut unknown = tonic::Request::new(request(&[(NAME, "")]));
    unknown.metadata_mut().insert("x-environment", "qa".parse().unwrap());
    let header = export(&running, unknown).await.unwrap();
    insta::assert_snapshot!(format!("{message}\n{header}"));
    assert_eq!(running.pipelines[2].next().await.len(), 1);
    let counts = running.pipelines[0].counts(Signal::Traces);
    assert_eq!((counts.received, counts.dropped.get("unknown_environment")), (3, Some(&3)));
}

#[tokio::test]
async fn a_listener_of_one_environment_takes_what_names_none_but_not_what_names_another() {
    let mut running = Running::one("production").await;
    let message = export(&running, tonic::Request::new(request(&[(NAME, ""), (NAME, "staging")]))).await.unwrap();
    assert!(
        message.starts_with("1 rejected: rejected 1 of 2 spans: 1: the resource names the environment `staging`"),
        "{message}"
    );
    assert_eq!(running.pipelines[0].next().await.len(), 1);
}

#[tokio::test]
async fn an_environment_without_a_pipeline_for_the_signal_rejects_and_says_so() {
    let mut tenants = three();
    tenants[1].signals = &[Signal::Logs];
    let mut running = Running::start(tenants).await;
    let message = export(&running, tonic::Request::new(request(&[(NAME, "staging"), (NAME, "production")]))).await.unwrap();
    assert_eq!(
        message,
        "1 rejected: rejected 1 of 2 spans: 1: no traces pipeline of environment `staging` reads from this receiver"
    );
    assert_eq!(running.pipelines[2].next().await.len(), 1);
    assert_eq!(running.pipelines[1].counts(Signal::Traces).dropped.get("no_pipeline"), Some(&1));
}

#[tokio::test]
async fn when_one_environment_has_no_room_no_other_gets_its_share() {
    let config = both(&json!({ "wait": "20ms" }));
    let tenant = |name, default| Tenant { default, queue: 1, config: config.clone(), ..Tenant::new(name) };
    let held = Tenant { held: true, ..tenant("production", false) };
    let mut running = Running::start(vec![tenant("staging", true), held]).await;
    let two = || tonic::Request::new(request(&[(NAME, "staging"), (NAME, "production")]));
    export(&running, tonic::Request::new(request(&[(NAME, "production")]))).await.unwrap_err();
    let full = export(&running, two()).await.unwrap_err();
    assert_eq!(full.code(), tonic::Code::Unavailable);
    insta::assert_snapshot!(full.message());
    assert_eq!([0, 1].map(|place| running.pipelines[place].counts(Signal::Traces).refused), [1, 2]);
    running.pipelines[1].release();
    assert_eq!(export(&running, two()).await.unwrap(), "");
    assert_eq!(running.pipelines[0].counts(Signal::Traces).sent, 1);
}

#[tokio::test]
async fn when_one_environment_does_not_keep_its_share_the_request_comes_again_under_the_same_id() {
    let tenant = |name, default| Tenant { default, config: both(&json!({ "wait": "20ms" })), ..Tenant::new(name) };
    let held = Tenant { held: true, ..tenant("production", false) };
    let mut running = Running::start(vec![tenant("staging", true), held]).await;
    let two = || tonic::Request::new(request(&[(NAME, "staging"), (NAME, "production")]));
    assert_eq!(export(&running, two()).await.unwrap_err().code(), tonic::Code::Unavailable);
    let (_, first) = running.pipelines[0].next_with_origin().await;
    running.pipelines[1].release();
    assert_eq!(export(&running, two()).await.unwrap(), "");
    let (_, again) = running.pipelines[0].next_with_origin().await;
    assert_eq!(first.id, again.id, "so that who has kept it knows it");
    let (_, other) = running.pipelines[1].next_with_origin().await;
    assert_eq!(other.id, first.id);
    export(&running, tonic::Request::new(request(&[(NAME, "staging")]))).await.unwrap();
    assert_ne!(running.pipelines[0].next_with_origin().await.1.id, first.id, "another content is another request");
}

#[tokio::test]
async fn environments_that_share_an_endpoint_must_agree_on_its_settings() {
    let grpc = |endpoint: &str, more: Value| {
        let mut config = json!({ "protocols": { "grpc": { "endpoint": endpoint } } });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let http = json!({ "protocols": { "http": { "endpoint": "127.0.0.1:4317" } } });
    let build = |one: Value, name, two: Value| {
        let tenants = vec![Tenant { config: one, ..Tenant::new("staging") }, Tenant { config: two, ..Tenant::new(name) }];
        groups(&instances(tenants).0, |_| Arc::default()).map(|groups| groups.len()).map_err(|e| e.to_string())
    };
    let plain = || grpc("localhost:4317", json!({}));
    assert_eq!(build(plain(), "production", grpc("127.0.0.1:4317", json!({}))), Ok(1));
    assert_eq!(build(plain(), "production", grpc("127.0.0.1:4327", json!({ "wait": "1s" }))), Ok(2));
    let token = json!({ "routing": { "tokens": ["secret-token"] } });
    let errors = [
        build(plain(), "production", grpc("127.0.0.1:4317", json!({ "wait": "1s" }))),
        build(plain(), "production", http),
        build(plain(), "staging", plain()),
        build(grpc("localhost:4317", token.clone()), "production", grpc("localhost:4317", token)),
    ];
    let errors: Vec<String> = errors.into_iter().map(Result::unwrap_err).collect();
    insta::assert_snapshot!(errors.join("\n"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_with_what_to_do() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = taken.local_addr().unwrap().to_string();
    let config = json!({ "protocols": { "grpc": { "endpoint": endpoint } } });
    let (instances, ..) = instances(vec![Tenant { config, ..Tenant::new("production") }]);
    let error = Otlp::default().prepare(&instances).await.unwrap_err().error.to_string();
    assert!(error.starts_with(&format!("cannot listen on grpc endpoint {endpoint}: ")), "{error}");
    assert!(error.contains("another process (perhaps a Collector) listens there"), "{error}");
}
