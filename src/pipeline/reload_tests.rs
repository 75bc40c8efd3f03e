use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::super::test_components::FACTORIES;
use super::*;
use crate::model::{PayloadKind, Signal};
use crate::pipeline::{
    Class, ComponentId, ComponentInfo, EnvironmentSpec, PipelineSpec, Registry, Services, Status, plan, start,
};

const TRACES: PayloadKind = PayloadKind::Telemetry(Signal::Traces);
const DEADLINE: Duration = Duration::from_secs(5);

fn services() -> Services {
    Services { queue_capacity: 2, ..Services::in_memory() }
}

fn id(text: &str) -> ComponentId {
    ComponentId::parse(text).unwrap()
}

/// An environment whose source sends 5 batches of 10 spans and then waits.
fn planned(name: &str, source: &Value, sink: Value) -> Plan {
    let mut config = json!({ "batches": 5, "spans": 10 });
    config.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
    let pipeline = PipelineSpec { receivers: vec![id("source")], processors: Vec::new(), exporters: vec![id("sink")] };
    let spec = EnvironmentSpec {
        environment: Environment::new(name),
        default: false,
        receivers: IndexMap::from([(id("source"), config)]),
        processors: IndexMap::new(),
        connectors: IndexMap::new(),
        exporters: IndexMap::from([(id("sink"), sink)]),
        pipelines: IndexMap::from([("traces".to_owned(), pipeline)]),
    };
    plan(&spec, FACTORIES).unwrap()
}

fn plain(name: &str) -> Plan {
    planned(name, &json!({}), json!({}))
}

fn sink(registry: &Registry, environment: &str) -> ComponentInfo {
    registry.find(environment, Class::Exporter, "sink").unwrap()
}

/// Waits until the sink of `environment` has had `records`; the paused clock makes waiting free.
async fn arrived(registry: &Registry, environment: &str, records: u64) {
    for _ in 0..100_000 {
        if sink(registry, environment).counters.of(TRACES).sent == records {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came");
}

async fn running(plans: &[Plan]) -> (Running, Registry) {
    let services = services();
    let registry = services.registry.clone();
    let running = start(plans, services).await.unwrap();
    for plan in plans {
        arrived(&registry, plan.spec.environment.as_str(), 50).await;
    }
    (running, registry)
}

fn words(changes: &[(Environment, Change)]) -> Vec<String> {
    let word = |change: &Change| match change {
        Change::Unchanged => "unchanged".to_owned(),
        Change::Started => "started".to_owned(),
        Change::Restarted(difference, drained) => format!("restarted ({difference}; {} lost)", drained.lost),
        Change::Ended(drained) => format!("ended ({} lost)", drained.lost),
    };
    changes.iter().map(|(environment, change)| format!("{environment}: {}", word(change))).collect()
}

#[tokio::test(start_paused = true)]
async fn an_environment_with_the_same_plan_is_not_touched_while_others_come_go_and_change() {
    let (mut running, registry) = running(&[plain("production"), plain("staging"), plain("old")]).await;
    let before = sink(&registry, "production");
    let staging = sink(&registry, "staging");
    let plans = [plain("dev"), planned("staging", &json!({ "spans": 20 }), json!({})), plain("production")];
    let changes = running.reload(&plans, DEADLINE).await.unwrap();
    let expected = [
        "dev: started",
        "staging: restarted (receivers.source.spans changed; 0 lost)",
        "production: unchanged",
        "old: ended (0 lost)",
    ];
    assert_eq!(words(&changes), expected);
    assert!(Arc::ptr_eq(&before.counters, &sink(&registry, "production").counters), "the same component, the same counters");
    assert_eq!((before.health.get(), before.counters.of(TRACES).sent), (Status::Ok, 50));
    assert_eq!(staging.health.get(), Status::Stopped);
    arrived(&registry, "dev", 50).await;
    arrived(&registry, "staging", 100).await;
    assert!(registry.of(&Environment::new("old")).is_empty(), "what has ended is forgotten");
    assert_eq!(registry.of(&Environment::new("staging")).len(), 2, "and so is what it was before");
    assert!(running.reload(&plans, DEADLINE).await.unwrap().iter().all(|(_, change)| *change == Change::Unchanged));
    assert_eq!(running.shutdown(DEADLINE, &CancellationToken::new()).await, Drained::default());
    assert!(registry.all().iter().all(|component| component.health.get() == Status::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_new_environment_that_cannot_start_leaves_everything_as_it_was() {
    let (mut running, registry) = running(&[plain("production"), plain("staging")]).await;
    let before = sink(&registry, "staging");
    let bad = planned("dev", &json!({ "fail": true }), json!({}));
    let changed = planned("staging", &json!({ "spans": 20 }), json!({}));
    let error = running.reload(&[bad, changed.clone()], DEADLINE).await.unwrap_err();
    assert_eq!(error.to_string(), "environment `dev`, receiver `source`: the port is taken");
    assert!(Arc::ptr_eq(&before.counters, &sink(&registry, "staging").counters), "nothing was stopped for it");
    assert_eq!((before.health.get(), registry.all().len()), (Status::Ok, 4));
    // The next one is not kept from working by it.
    let changes = running.reload(&[plain("dev"), plain("production"), changed], DEADLINE).await.unwrap();
    assert_eq!(
        words(&changes),
        ["dev: started", "production: unchanged", "staging: restarted (receivers.source.spans changed; 0 lost)"]
    );
    assert_eq!(running.shutdown(DEADLINE, &CancellationToken::new()).await, Drained::default());
}

#[tokio::test(start_paused = true)]
async fn a_changed_environment_that_cannot_start_runs_again_as_before_and_so_does_everything_that_was_stopped() {
    let (mut running, registry) = running(&[plain("production"), plain("staging"), plain("old")]).await;
    let before = sink(&registry, "production");
    let bad = planned("staging", &json!({ "fail": true }), json!({}));
    let error = running.reload(&[plain("production"), bad, plain("dev")], DEADLINE).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment `staging`, receiver `source`: the port is taken; stopped and started again as before: staging, old"
    );
    assert!(Arc::ptr_eq(&before.counters, &sink(&registry, "production").counters));
    assert!(registry.of(&Environment::new("dev")).is_empty(), "what was started for it is gone");
    arrived(&registry, "staging", 50).await;
    arrived(&registry, "old", 50).await;
    let same = [plain("production"), plain("staging"), plain("old")];
    let changes = running.reload(&same, DEADLINE).await.unwrap();
    assert!(changes.iter().all(|(_, change)| *change == Change::Unchanged), "{changes:?}");
    assert_eq!(running.shutdown(DEADLINE, &CancellationToken::new()).await, Drained::default());
}

/// Two environments; the sink of `staging` never ends what it has taken.
async fn with_a_stuck_one() -> (Running, Registry) {
    let services = services();
    let registry = services.registry.clone();
    let stuck = planned("staging", &json!({ "batches": 2 }), json!({ "stuck": true }));
    let running = start(&[plain("production"), stuck], services).await.unwrap();
    arrived(&registry, "production", 50).await;
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sink(&registry, "staging").counters.of(TRACES).in_flight, 20);
    (running, registry)
}

#[tokio::test(start_paused = true)]
async fn what_does_not_drain_in_time_is_cut_off_and_told() {
    let (mut running, registry) = with_a_stuck_one().await;
    let changes = running.reload(&[plain("production"), plain("staging")], DEADLINE).await.unwrap();
    let expected = "staging: restarted (exporters.sink.stuck, receivers.source.batches changed; 20 lost)";
    assert_eq!(words(&changes), ["production: unchanged", expected]);
    arrived(&registry, "staging", 50).await;
    assert_eq!(running.shutdown(DEADLINE, &CancellationToken::new()).await, Drained::default());
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_is_given_up_leaves_what_can_be_drained_as_always() {
    let (mut running, registry) = with_a_stuck_one().await;
    let plans = [plain("production"), plain("staging")];
    let hour = Duration::from_secs(3600);
    let given_up = tokio::time::timeout(Duration::from_secs(1), running.reload(&plans, hour)).await;
    assert!(given_up.is_err(), "it waits for the stuck one");
    let begin = tokio::time::Instant::now();
    let drained = running.shutdown(DEADLINE, &CancellationToken::new()).await;
    assert_eq!((drained, begin.elapsed().as_secs()), (Drained { aborted: 1, unsaved: 0, lost: 20 }, 5));
    assert_eq!(sink(&registry, "production").health.get(), Status::Stopped);
}
