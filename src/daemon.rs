//! Runs a checked configuration until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::pipeline::{self, Drained, Plan, Registry, Services, SystemClock};
use crate::server::Server;
use crate::storage::{EmbeddedStorage, Storage};

/// What the daemon file says about the process as a whole.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where `/health` and `/metrics` answer.
    pub endpoint: String,
    /// The only folder written to.
    pub data_dir: PathBuf,
    /// Payloads that wait in front of a component before its senders wait.
    pub queue_capacity: usize,
    /// How long a shutdown may take.
    pub shutdown_deadline: Duration,
}

/// Runs `plans` until `stop` is cancelled, then drains. A cancelled `abort` cuts the drain short.
///
/// # Errors
/// A sentence: what kept the daemon from starting.
pub async fn run(
    plans: &[Plan],
    settings: &Settings,
    registry: Registry,
    stop: CancellationToken,
    abort: CancellationToken,
) -> Result<Drained, String> {
    let storage: Arc<dyn Storage> = Arc::new(EmbeddedStorage::open(&settings.data_dir).map_err(|e| e.to_string())?);
    let server = Server::bind(&settings.endpoint).await?;
    let address = server.address();
    let end_server = CancellationToken::new();
    let serving = tokio::spawn(server.serve(registry.clone(), end_server.clone()));
    let services = Services {
        clock: Arc::new(SystemClock),
        storage,
        data_dir: settings.data_dir.clone(),
        registry,
        queue_capacity: settings.queue_capacity,
    };
    let running = pipeline::start(plans, services).await.map_err(|e| e.to_string())?;
    let environments: Vec<&str> = plans.iter().map(|p| p.spec.environment.as_str()).collect();
    tracing::info!(environments = environments.join(", "), health = %format!("http://{address}/health"), "running");

    stop.cancelled().await;
    tracing::info!(deadline = ?settings.shutdown_deadline, "stopping: receivers first, then everything that was accepted runs through");
    let drained = running.shutdown(settings.shutdown_deadline, &abort).await;
    // Health answers to the end, so that an orchestrator sees the daemon drain.
    end_server.cancel();
    if let Ok(Err(error)) = serving.await {
        tracing::warn!(%error, "the health server ended early");
    }
    tracing::info!(aborted = drained.aborted, "stopped");
    Ok(drained)
}
