use std::sync::Arc;

use super::*;
use crate::model::{Environment, PayloadKind, Signal};
use crate::pipeline::{Class, ComponentId, ComponentInfo, Counters, Health, Status};

fn registry() -> (Registry, ComponentInfo) {
    let registry = Registry::default();
    let component = ComponentInfo {
        environment: Environment::new("production"),
        class: Class::Receiver,
        id: ComponentId::parse("elasticsearch/apm").unwrap(),
        pipeline: None,
        counters: Arc::new(Counters::default()),
        health: Health::default(),
    };
    registry.add(component.clone());
    (registry, component)
}

#[test]
fn health_is_503_until_all_components_work_and_when_one_needs_a_person() {
    let (registry, component) = registry();
    assert!(!health::report(&registry).serving());
    component.health.set(Status::Ok);
    assert!(health::report(&registry).serving());
    component.health.set(Status::RecoverableError("no node of the cluster answers".into()));
    assert!(health::report(&registry).serving(), "what tries again must not get the daemon restarted");
    component.health.set(Status::PermanentError("the key was revoked".into()));
    let report = health::report(&registry);
    assert!(!report.serving());
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn metrics_show_every_count_with_its_component() {
    let (registry, component) = registry();
    let mut flight = component.counters.begin(PayloadKind::Telemetry(Signal::Traces), 10);
    flight.dropped(3, "unknown_shape");
    flight.sent_part(5);
    component.counters.event("polls", 2);
    let text = prometheus::text(&registry).unwrap();
    // The process's memory is the one value that differs from run to run.
    let text: Vec<&str> = text.lines().filter(|l| !l.starts_with("process_resident_memory_bytes")).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = Server::bind("127.0.0.1:0").await.unwrap();
    let error = Server::bind(&first.address().to_string()).await.unwrap_err();
    assert!(error.contains(&first.address().to_string()) && error.contains("choose another port"), "{error}");
}
