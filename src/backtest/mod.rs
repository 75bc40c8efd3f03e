//! What the detector would have found in the past: the pipelines of an environment, or files, run over a history.
//!
//! The graph is the daemon's own; only its ends differ. Receivers that can read the past read it from its beginning
//! to its end and then end themselves, exporters are replaced by one that collects, and what is learnt lives in
//! memory. The clock stands still: nothing is late that was not late in the data.

mod chart;
mod collect;
mod escape;
mod files;
mod graph;
mod html;
mod moment;
mod report;
mod rows;
#[cfg(test)]
mod tests;
mod text;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

pub use graph::{Job, of_environment, of_files};
pub use html::html;
pub use moment::{MomentError, Reading, parse};
pub use report::Report;
pub use text::text;

use crate::model::UnixNanos;
use crate::pipeline::{self, Class, ManualClock, Progress, Registry, Services, Status};
use crate::storage::MemoryStorage;
use collect::Collector;

/// How long what was read may take to run through after an interruption.
const DRAIN: Duration = Duration::from_secs(30);
/// How often it is told how far it is.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Payloads that wait in front of a component.
const QUEUE: usize = 16;

/// How a backtest went.
#[derive(Debug)]
pub struct Ran {
    /// What was found; where it could not read to the end, in what it had read.
    pub report: Report,
    /// Why it could not read to the end.
    pub error: Option<String>,
    /// It was told to stop.
    pub interrupted: bool,
}

/// Runs `job` until it is through or `stop` is cancelled.
///
/// # Errors
/// A sentence: why it could not begin.
pub async fn run(job: Job, stop: CancellationToken, mut tell: impl FnMut(&Progress)) -> Result<Ran, String> {
    let began = Instant::now();
    let registry = Registry::default();
    let collector = Arc::new(Collector::default());
    registry.observe(Arc::clone(&collector) as _);
    let history = registry.history(&job.plan.spec.environment);
    history.want(job.span);
    let services = Services {
        clock: Arc::new(ManualClock::new(job.now)),
        storage: Arc::new(MemoryStorage::default()),
        data_dir: PathBuf::new(),
        registry: registry.clone(),
        queue_capacity: QUEUE,
        ..Services::in_memory()
    };
    let mut running = pipeline::start(std::slice::from_ref(&job.plan), services).await.map_err(|e| e.error.to_string())?;
    let mut ticks = tokio::time::interval(TELL_EVERY);
    let interrupted = loop {
        tokio::select! {
            () = running.ended() => break false,
            () = stop.cancelled() => {
                running.shutdown(DRAIN, &CancellationToken::new()).await;
                break true;
            }
            _ = ticks.tick() => {
                if let Some(progress) = history.progress() {
                    tell(&progress);
                }
            }
        }
    };
    let error = registry.all().into_iter().find_map(|component| match component.health.get() {
        Status::PermanentError(error) if component.class == Class::Receiver => {
            Some(format!("receiver `{}`: {error}", component.id))
        }
        Status::PermanentError(error) => Some(format!("{} `{}`: {error}", component.class.as_str(), component.id)),
        _ => None,
    });
    let reached = history.progress().map_or(UnixNanos(0), |p| p.reached);
    let report = Report::new(&job, &registry, collector.take(), reached, history.notes(), began.elapsed());
    Ok(Ran { report: Report { complete: error.is_none() && !interrupted, ..report }, error, interrupted })
}
