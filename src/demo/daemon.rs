//! The daemon inside the demo's process: the real pipelines, loaded as every configuration is.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::sender::Ports;
use super::services::PLACES;
use super::{DemoError, collect};
use crate::components::FACTORIES;
use crate::config::{self, Loaded, Texts};
use crate::pipeline::{self, Factory, Registry, Running, Services, Status, SystemClock};
use crate::storage::MemoryStorage;

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
        let loaded = load(ports, inbox)?;
        let registry = Registry::default();
        let services = Services {
            clock: Arc::new(SystemClock),
            storage: Arc::new(MemoryStorage::default()),
            data_dir: std::env::temp_dir(),
            registry: registry.clone(),
            queue_capacity: loaded.daemon.pipeline.queue_size,
            ..Services::in_memory()
        };
        let running = pipeline::start(&loaded.plans, services).await.map_err(|e| DemoError(e.to_string()))?;
        Ok(Self { ports, running, registry })
    }

    /// Waits until everything that was accepted has gone through, as the components' own accounts say.
    pub(super) async fn settle(&self) {
        let flying = || self.registry.all().iter().any(|c| c.counters.snapshot().iter().any(|(_, counts)| counts.in_flight > 0));
        while flying() || self.registry.outboxes().iter().any(|outbox| outbox.waiting > 0) {
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
            if let Status::PermanentError(error) = component.health.get() {
                return Err(DemoError(format!("{} `{}` ended: {error}", component.class.as_str(), component.id)));
            }
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

/// The daemon file and the pipeline files, read and checked as those of an installation.
fn load(ports: Ports, inbox: &str) -> Result<Loaded, DemoError> {
    let names: Vec<String> = PLACES.iter().map(|place| format!("{}.yml", place.name)).collect();
    let mut files = Texts::default().with("demo.yml", format!("environments: [{}]", names.join(", ")));
    for (place, name) in PLACES.iter().zip(names) {
        files = files.with(name, PIPELINE.replacen("environment: ENVIRONMENT", &format!("environment: {}", place.name), 1));
    }
    let env = |name: &str| match name {
        "DEMO_GRPC_PORT" => Some(ports.grpc.to_string()),
        "DEMO_HTTP_PORT" => Some(ports.http.to_string()),
        "DEMO_INBOX" => Some(inbox.to_owned()),
        _ => None,
    };
    let factories: Vec<Factory> = FACTORIES.iter().copied().chain([collect::FACTORY]).collect();
    config::load_from(&files, Path::new("demo.yml"), &env, &factories).map_err(|e| DemoError(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_has_no_mistake() {
        let loaded = load(Ports { grpc: 4317, http: 4318 }, "test").unwrap();
        let environments: Vec<&str> = loaded.plans.iter().map(|p| p.spec.environment.as_str()).collect();
        assert_eq!(environments, ["dev", "staging", "production"]);
        assert!(loaded.notes.is_empty());
    }
}
