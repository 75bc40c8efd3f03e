use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::super::test_components::FACTORIES;
use super::*;
use crate::model::{Environment, PayloadKind, Signal};
use crate::pipeline::{Class, ComponentId, EnvironmentSpec, PipelineSpec, Registry, Status, SystemClock, plan};
use crate::storage::MemoryStorage;

fn services() -> Services {
    Services {
        clock: Arc::new(SystemClock),
        storage: Arc::new(MemoryStorage::default()),
        data_dir: std::env::temp_dir(),
        registry: Registry::default(),
        queue_capacity: 2,
        ..Services::in_memory()
    }
}

fn id(text: &str) -> ComponentId {
    ComponentId::parse(text).unwrap()
}

fn one_plan(source: Value, sink: Value, processors: &[&str]) -> Plan {
    let spec = EnvironmentSpec {
        environment: Environment::new("production"),
        default: true,
        receivers: IndexMap::from([(id("source"), source)]),
        processors: IndexMap::new(),
        connectors: IndexMap::new(),
        exporters: IndexMap::from([(id("sink"), sink)]),
        pipelines: IndexMap::from([(
            "traces".to_owned(),
            PipelineSpec {
                receivers: vec![id("source")],
                processors: processors.iter().map(|p| id(p)).collect(),
                exporters: vec![id("sink")],
            },
        )]),
    };
    plan(&spec, FACTORIES).unwrap()
}

/// Waits until `wanted` holds; the paused clock makes waiting free.
async fn until(mut wanted: impl FnMut() -> bool) {
    for _ in 0..100_000 {
        if wanted() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never happened");
}

const TRACES: PayloadKind = PayloadKind::Telemetry(Signal::Traces);

fn assert_balanced(registry: &Registry) {
    for component in registry.all() {
        for (kind, counts) in component.counters.snapshot() {
            assert!(counts.balanced(), "{} {kind}: {counts:?}", component.id);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn everything_taken_in_is_counted_to_its_end() {
    let services = services();
    let registry = services.registry.clone();
    let plan = one_plan(json!({ "batches": 50, "spans": 10 }), json!({}), &["measure"]);
    let running = start(&[plan], services).await.unwrap();
    let counts = |class, name, kind| registry.find("production", class, name).unwrap().counters.of(kind);
    until(|| {
        assert_balanced(&registry);
        counts(Class::Exporter, "sink", PayloadKind::Observations).sent == 50
    })
    .await;
    assert_eq!(running.shutdown(Duration::from_secs(5), &CancellationToken::new()).await, Drained::default());
    let measured = counts(Class::Processor, "measure", TRACES);
    assert_eq!((measured.received, measured.sent, measured.dropped["filtered"], measured.in_flight), (500, 450, 50, 0));
    assert_eq!(counts(Class::Receiver, "source", TRACES).sent, 500);
    assert!(registry.all().iter().all(|c| c.class == Class::Processor || c.health.get() == Status::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_stuck_exporter_makes_the_receiver_wait_and_the_deadline_ends_it() {
    let services = services();
    let registry = services.registry.clone();
    let plan = one_plan(json!({ "batches": 1000, "spans": 10 }), json!({ "stuck": true }), &[]);
    let running = start(&[plan], services).await.unwrap();
    let counts = |class, name| registry.find("production", class, name).unwrap().counters.of(TRACES);
    // One payload in hand, two in the queue, and one that the receiver holds: no more than that is ever taken in.
    until(|| counts(Class::Receiver, "source").received == 40).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(counts(Class::Receiver, "source").received, 40);
    assert_eq!(counts(Class::Exporter, "sink").in_flight, 30);

    let drained = running.shutdown(Duration::from_secs(5), &CancellationToken::new()).await;
    assert_eq!(drained.aborted, 1);
    assert_balanced(&registry);
    assert_eq!(counts(Class::Exporter, "sink").dropped["aborted"], 30, "what is cut off is counted");
    assert_eq!(counts(Class::Receiver, "source").refused, 10);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_cannot_start_ends_the_start_with_its_name() {
    let plan = one_plan(json!({ "fail": true }), json!({}), &[]);
    let error = start(&[plan], services()).await.err().unwrap();
    assert_eq!(error.to_string(), "environment `production`, receiver `source`: the port is taken");
}
