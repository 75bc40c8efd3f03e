//! The daemon inside the test's process, with an exporter that keeps what reaches it: for what `/metrics` cannot
//! tell, such as which spans came and what was measured of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use anomalyd::components::FACTORIES;
use anomalyd::daemon::Control;
use anomalyd::model::{Batch, Environment, Observation, Payload};
use anomalyd::pipeline::{Class, ComponentError, Counts, Drained, Exporter, Factory, Input, Instance, Make, Registry};
use anomalyd::{config, daemon};
use tokio_util::sync::CancellationToken;

use super::daemon::Setup;

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
    files: &[],
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
    /// Starts the daemon of these files.
    pub(crate) fn start(setup: &Setup) -> Self {
        let path = setup.config();
        let load = move || {
            let factories: Vec<Factory> = FACTORIES.iter().copied().chain([KEEP]).collect();
            config::load(&path, &|name| std::env::var(name).ok(), &factories)
        };
        let loaded = load().unwrap_or_else(|mistakes| panic!("{}", mistakes.render(false)));
        let registry = Registry::default();
        let stop = CancellationToken::new();
        let control = Control { stop: stop.clone(), ..Control::default() };
        let task = tokio::spawn(daemon::run(loaded, Arc::new(load), registry.clone(), control));
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
        let receivers = components.iter().filter(|c| c.class == Class::Receiver);
        receivers.flat_map(|c| c.counters.snapshot()).map(|(_, counts)| counts).collect()
    }

    /// Whether it has ended by itself, which is a failure.
    pub(crate) fn ended(&self) -> bool {
        self.task.is_finished()
    }
}
