//! Runs a checked configuration until it is told to stop, and takes up what has changed in it.

mod reload;

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{Daemon, Diagnostics, Loaded};
use crate::pipeline::{self, Drained, Machine, Memory, OutboxSettings, Registry, Services, SystemClock};
use crate::server::{self, Server};
use crate::storage::{DiskFiles, EmbeddedStorage, Storage};

/// How long those who ask for something over HTTP at the very end may take.
const ASKING: Duration = Duration::from_secs(1);

/// Reads the configuration files again.
pub type Load = Arc<dyn Fn() -> Result<Loaded, Diagnostics> + Send + Sync>;

/// What a running daemon is told from outside.
#[derive(Clone, Debug, Default)]
pub struct Control {
    /// Ends it: it drains.
    pub stop: CancellationToken,
    /// Cuts the drain short.
    pub abort: CancellationToken,
    /// Has it reload.
    pub reload: Arc<Notify>,
}

/// Runs what was `loaded` until it is told to stop, then drains. At a reload, `load` gives what to run from then on.
///
/// # Errors
/// A sentence: what kept the daemon from starting.
pub async fn run(loaded: Loaded, load: Load, registry: Registry, control: Control) -> Result<Drained, String> {
    let Loaded { daemon, plans, .. } = loaded;
    let storage: Arc<dyn Storage> = Arc::new(EmbeddedStorage::open(&daemon.storage.data_dir).map_err(|e| e.to_string())?);
    let (reloads, mut requests) = server::reloads();
    let server = Server::bind(&daemon.server.endpoint.to_string()).await?;
    let server = server.with_remote_commands(daemon.server.remote_commands).with_reloads(reloads.clone());
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
    let mut running = tokio::select! {
        biased;
        // What was kept may take long to take up; nothing has been accepted yet.
        () = control.stop.cancelled() => {
            end_server.cancel();
            return Ok(Drained::default());
        }
        started = pipeline::start(&plans, services) => started.map_err(|e| e.to_string())?,
    };
    let environments: Vec<&str> = plans.iter().map(|p| p.spec.environment.as_str()).collect();
    tracing::info!(environments = environments.join(", "), health = %format!("http://{address}/health"), "running");

    let deadline = daemon.pipeline.shutdown_deadline.get();
    loop {
        let request = tokio::select! {
            biased;
            () = control.stop.cancelled() => break,
            () = control.reload.notified() => None,
            Some(request) = requests.recv() => Some(request),
        };
        reloads.begin();
        let outcome = tokio::select! {
            biased;
            // Whoever waits for it hears that the daemon stops; what runs now is drained.
            () = control.stop.cancelled() => break,
            outcome = reload::reload(&mut running, &load, &daemon) => outcome,
        };
        reload::log(&outcome);
        reloads.end(Utc::now(), &outcome);
        request.into_iter().for_each(|request| request.answer(outcome.clone()));
    }
    // From here on reloads are refused.
    drop(requests);
    tracing::info!(?deadline, "stopping: receivers first, then everything that was accepted runs through");
    let drained = running.shutdown(deadline, &control.abort).await;
    // Health answers to the end, so that an orchestrator sees the daemon drain.
    end_server.cancel();
    // But nobody who asks holds the end up.
    if let Ok(Ok(Err(error))) = tokio::time::timeout(ASKING, serving).await {
        tracing::warn!(%error, "the health server ended early");
    }
    tracing::info!(aborted = drained.aborted, lost = drained.lost, "stopped");
    Ok(drained)
}

/// What is worth knowing about a changed daemon file.
fn after_restart(running: &Daemon, changed: &Daemon) -> Option<String> {
    let keys: Vec<String> = running.after_restart(changed).iter().map(|key| format!("`{key}`")).collect();
    (!keys.is_empty()).then(|| format!("{} changed: that takes effect after a restart", keys.join(", ")))
}
