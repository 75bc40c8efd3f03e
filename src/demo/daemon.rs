//! The daemon inside the demo's process: the real pipelines, loaded as every configuration is.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::DemoError;
use super::sender::Ports;
use crate::pipeline::{self, Plan, Registry, Running, Services, SystemClock};
use crate::storage::MemoryStorage;

#[allow(dead_code, reason = "x")]
const PIPELINE: &str = include_str!("pipeline.yml");

/// How long the drain at the end may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running daemon.
pub(super) struct Daemon {
    pub(super) ports: Ports,
    running: Running,
    registry: Registry,
}

impl Daemon {
    /// Starts it on free ports of the loopback; its anomalies go to `inbox`.
    pub(super) async fn start(inbox: &str) -> Result<Self, DemoError> {
        let ports = free_ports().map_err(|e| DemoError(format!("no free port on the loopback: {e}")))?;
        let plans = plans(ports, inbox)?;
        let registry = Registry::default();
        let services = Services {
            clock: Arc::new(SystemClock),
            storage: Arc::new(MemoryStorage::default()),
            data_dir: std::env::temp_dir(),
            registry: registry.clone(),
            queue_capacity: 8,
        };
        let running = pipeline::start(&plans, services).await.map_err(|e| DemoError(e.to_string()))?;
        Ok(Self { ports, running, registry })
    }

    /// Waits until everything that was accepted has gone through, as the components' own accounts say.
    pub(super) async fn settle(&self) {
        while self.registry.all().iter().any(|c| c.counters.snapshot().iter().any(|(_, counts)| counts.in_flight > 0)) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Drains it and checks its accounts.
    pub(super) async fn stop(self) -> Result<(), DemoError> {
        let drained = self.running.shutdown(DEADLINE, &CancellationToken::new()).await;
        if drained.aborted > 0 {
            return Err(DemoError(format!("{} components did not end within {DEADLINE:?}", drained.aborted)));
        }
        for component in self.registry.all() {
            for (kind, counts) in component.counters.snapshot() {
                if counts.dropped_total() > 0 || !counts.balanced() {
                    let who = format!("{} `{}` of `{}`", component.class.as_str(), component.id, component.environment);
                    return Err(DemoError(format!("{who} lost {kind}: {counts:?}")));
                }
            }
        }
        Ok(())
    }
}

/// Two ports that are free now. Another process may take one before the daemon does; then the daemon says so.
fn free_ports() -> std::io::Result<Ports> {
    let (grpc, http) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok(Ports { grpc: grpc.local_addr()?.port(), http: http.local_addr()?.port() })
}

fn plans(ports: Ports, inbox: &str) -> Result<Vec<Plan>, DemoError> {
    use crate::pipeline::{ComponentId, EnvironmentSpec, PipelineSpec};
    use serde_json::json;
    let factories: Vec<_> = crate::components::FACTORIES.iter().copied().chain([super::collect::FACTORY]).collect();
    let id = |s: &str| ComponentId::parse(s).map_err(DemoError);
    let mut plans = Vec::new();
    for place in super::services::PLACES {
        let one = |k: &str, v: serde_json::Value| Ok::<_, DemoError>([(id(k)?, v)].into_iter().collect());
        let pipe = |r: &str, p: Option<&str>, e: &str| {
            Ok::<_, DemoError>(PipelineSpec {
                receivers: vec![id(r)?],
                processors: p.map(id).transpose()?.into_iter().collect(),
                exporters: vec![id(e)?],
            })
        };
        let spec = EnvironmentSpec {
            environment: crate::model::Environment::new(place.name),
            default: false,
            receivers: one(
                "otlp",
                json!({"protocols": {"grpc": {"endpoint": format!("127.0.0.1:{}", ports.grpc)}, "http": {"endpoint": format!("127.0.0.1:{}", ports.http)}}}),
            )?,
            processors: [(id("red_metrics")?, json!({})), (id("log_patterns")?, json!({}))].into_iter().collect(),
            connectors: one("detector", json!({"bucket": "1m", "lateness": "10m"}))?,
            exporters: one("demo", json!({"inbox": inbox}))?,
            pipelines: [
                ("traces".to_owned(), pipe("otlp", Some("red_metrics"), "detector")?),
                ("logs".to_owned(), pipe("otlp", Some("log_patterns"), "detector")?),
                ("anomalies".to_owned(), pipe("detector", None, "demo")?),
            ]
            .into_iter()
            .collect(),
        };
        plans.push(
            pipeline::plan(&spec, &factories)
                .map_err(|p| DemoError(p.iter().map(|p| p.message.clone()).collect::<Vec<_>>().join("; ")))?,
        );
    }
    Ok(plans)
}
