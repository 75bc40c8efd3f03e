//! The daemon inside the test's process, with an exporter that keeps what reaches it: for what `/metrics` cannot
//! tell, such as which spans came and what was measured of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anomalyd::components::FACTORIES;
use anomalyd::daemon::{self, Settings};
use anomalyd::model::{Batch, Environment, Observation, Payload};
use anomalyd::pipeline::{
    ComponentError, ComponentId, Counts, Drained, EnvironmentSpec, Exporter, Factory, Input, Instance, Make, PipelineSpec,
    Registry, plan,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What reached the `keep` exporters of one environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) observations: Vec<Observation>,
    /// How often each span came, by trace and span id.
    pub(crate) spans: BTreeMap<([u8; 16], [u8; 8]), usize>,
}

/// By environment; tests use environments with names of their own.
fn everything() -> MutexGuard<'static, BTreeMap<String, Kept>> {
    static KEPT: Mutex<BTreeMap<String, Kept>> = Mutex::new(BTreeMap::new());
    KEPT.lock().expect("what was kept")
}

/// What has reached the `keep` exporters of `environment` so far.
pub(crate) fn kept(environment: &str) -> Kept {
    everything().get(environment).cloned().unwrap_or_default()
}

struct Keep {
    environment: Environment,
}

#[async_trait::async_trait]
impl Exporter for Keep {
    async fn run(self: Box<Self>, mut input: Input) -> Result<(), ComponentError> {
        while let Some(delivery) = input.recv().await {
            let mut everything = everything();
            let kept = everything.entry(self.environment.to_string()).or_default();
            match &delivery.payload {
                Payload::Observations(observations) => kept.observations.extend(observations.items.iter().cloned()),
                Payload::Telemetry(telemetry) => {
                    if let Batch::Traces(spans) = &telemetry.batch {
                        for span in &spans.rows {
                            *kept.spans.entry((span.trace_id, span.span_id)).or_default() += 1;
                        }
                    }
                }
                Payload::Anomalies(_) => {}
            }
            drop(everything);
            delivery.flight.sent();
        }
        Ok(())
    }
}

const KEEP: Factory = Factory {
    kind: "keep",
    about: "keeps everything for the test",
    acknowledgement: "it is in the test's memory",
    schema: |_| schemars::json_schema!({ "type": "object" }),
    implicit: true,
    gives: Some,
    check: |_| Vec::new(),
    make: Make::Exporter(|Instance { context, .. }| Ok(Box::new(Keep { environment: context.environment }))),
};

/// A daemon in this process.
pub(crate) struct Engine {
    registry: Registry,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<Drained, String>>,
}

impl Engine {
    /// Starts a traces pipeline: this receiver, these processors, `keep`. The cursor is kept in `data`.
    pub(crate) fn traces(environment: &str, receiver: &str, config: Value, processors: &[&str], data: &Path) -> Self {
        let id = |text: &str| ComponentId::parse(text).expect("a component id");
        let pipeline = PipelineSpec {
            receivers: vec![id(receiver)],
            processors: processors.iter().map(|p| id(p)).collect(),
            exporters: vec![id("keep")],
        };
        let spec = EnvironmentSpec {
            environment: Environment::new(environment),
            default: true,
            receivers: [(id(receiver), config)].into_iter().collect(),
            processors: processors.iter().map(|p| (id(p), json!({}))).collect(),
            connectors: Default::default(),
            exporters: [(id("keep"), json!({}))].into_iter().collect(),
            pipelines: [("traces".to_owned(), pipeline)].into_iter().collect(),
        };
        let factories: Vec<Factory> = FACTORIES.iter().copied().chain([KEEP]).collect();
        let plans = vec![plan(&spec, &factories).expect("a sound pipeline")];
        let settings = Settings {
            endpoint: "127.0.0.1:0".to_owned(),
            data_dir: data.to_owned(),
            queue_capacity: 8,
            shutdown_deadline: Duration::from_secs(30),
        };
        let registry = Registry::default();
        let stop = CancellationToken::new();
        let (of_daemon, stopped) = (registry.clone(), stop.clone());
        let task =
            tokio::spawn(async move { daemon::run(&plans, &settings, of_daemon, stopped, CancellationToken::new()).await });
        Self { registry, stop, task }
    }

    /// Stops it as SIGTERM does; the counts of its receiver.
    pub(crate) async fn stop(self) -> Arc<[Counts]> {
        self.stop.cancel();
        let drained = self.task.await.expect("the daemon ends").expect("the daemon starts");
        assert_eq!(drained.aborted, 0, "everything runs through before the deadline");
        let components = self.registry.all();
        for component in &components {
            for (kind, counts) in component.counters.snapshot() {
                assert!(counts.balanced() && counts.in_flight == 0, "{} {kind}: {counts:?}", component.id);
            }
        }
        let receivers = components.iter().filter(|c| c.class == anomalyd::pipeline::Class::Receiver);
        receivers.flat_map(|c| c.counters.snapshot()).map(|(_, counts)| counts).collect()
    }

    /// Whether it has ended by itself, which is a failure.
    pub(crate) fn ended(&self) -> bool {
        self.task.is_finished()
    }
}
