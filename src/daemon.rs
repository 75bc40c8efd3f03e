//! Runs a checked configuration until it is told to stop.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Daemon;
use crate::pipeline::{self, Drained, Machine, Memory, OutboxSettings, Plan, Registry, Services, SystemClock};
use crate::server::Server;
use crate::storage::{DiskFiles, EmbeddedStorage, Storage};

/// Runs `plans` until `stop` is cancelled, then drains. A cancelled `abort` cuts the drain short.
///
/// # Errors
/// A sentence: what kept the daemon from starting.
pub async fn run(
    daemon: &Daemon,
    plans: &[Plan],
    registry: Registry,
    stop: CancellationToken,
    abort: CancellationToken,
) -> Result<Drained, String> {
    let storage: Arc<dyn Storage> = Arc::new(EmbeddedStorage::open(&daemon.storage.data_dir).map_err(|e| e.to_string())?);
    let server = Server::bind(&daemon.server.endpoint.to_string()).await?;
    let server = server.with_remote_commands(daemon.server.remote_commands);
    let address = server.address();
    let end_server = CancellationToken::new();
    let room = Machine::default().room();
    let memory = Memory::new(daemon.memory_limit().bytes(room.map(|room| room.bytes)));
    registry.share_memory(memory.clone());
    tokio::spawn(memory.follow(end_server.clone()));
    let serving = tokio::spawn(server.serve(registry.clone(), end_server.clone()));
    let services = Services {
        clock: Arc::new(SystemClock),
        storage,
        data_dir: daemon.storage.data_dir.clone(),
        files: Some(Arc::new(DiskFiles)),
        input_log: daemon.storage.input_log.options(),
        checkpoint_interval: daemon.storage.checkpoint_interval.get(),
        outbox: OutboxSettings {
            max_size: daemon.storage.outbox.max_size.bytes(),
            patience: daemon.pipeline.shutdown_deadline.get() / 3,
        },
        registry,
        queue_capacity: daemon.pipeline.queue_size,
    };
    let running = pipeline::start(plans, services).await.map_err(|e| e.to_string())?;
    let environments: Vec<&str> = plans.iter().map(|p| p.spec.environment.as_str()).collect();
    tracing::info!(environments = environments.join(", "), health = %format!("http://{address}/health"), "running");

    stop.cancelled().await;
    let deadline = daemon.pipeline.shutdown_deadline.get();
    tracing::info!(?deadline, "stopping: receivers first, then everything that was accepted runs through");
    let drained = running.shutdown(deadline, &abort).await;
    // Health answers to the end, so that an orchestrator sees the daemon drain.
    end_server.cancel();
    if let Ok(Err(error)) = serving.await {
        tracing::warn!(%error, "the health server ended early");
    }
    tracing::info!(aborted = drained.aborted, "stopped");
    Ok(drained)
}
