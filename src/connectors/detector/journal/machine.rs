//! A detector at work: its shards, what is behind them, and who writes its checkpoints.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use detection::Job;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::super::checkpoint::{Outcome, Writer};
use super::super::config::Config;
use super::super::core::{Core, Settings};
use super::super::incidents::Incidents;
use super::super::intake::Intake;
use super::super::shard::{self, Report, Shared};
use super::super::teller::{Sink, Teller};
use super::super::{state, training};
use super::{Feeder, Known};
use crate::model::UnixNanos;
use crate::pipeline::{ComponentError, Context};

/// The state of a detector as of an entry.
#[derive(Debug)]
pub(in super::super) struct State {
    /// One per shard.
    pub(in super::super) cores: Vec<Core>,
    pub(in super::super) incidents: Incidents,
    pub(in super::super) known: Known,
    /// All entries before this one are in it.
    pub(in super::super) next: u64,
}

impl State {
    /// Of a detector that has seen nothing.
    pub(in super::super) fn new(context: &Context, config: &Config, shards: usize, next: u64) -> Self {
        let cores = settings(context, config, shards).into_iter().map(|s| Core::new(s, UnixNanos(0))).collect();
        let incidents = Incidents::new(&context.environment, config.incidents());
        Self { cores, incidents, known: Known::default(), next }
    }
}

/// What the shards of a detector work with.
pub(in super::super) fn settings(context: &Context, config: &Config, shards: usize) -> Vec<Arc<Settings>> {
    // How many there really are, where that was left to the machine.
    let config = Config { shards, ..config.clone() };
    let mut settings = Settings::new(&context.environment, &context.id.to_string(), &config);
    settings.observer = context.services.registry.observer();
    let settings = Arc::new(settings);
    (0..shards).map(|_| Arc::clone(&settings)).collect()
}

/// See the module. It ends when its feeder is let go.
pub(in super::super) struct Machine<S> {
    pub(in super::super) feeder: Feeder,
    /// Where parts of checkpoints are told.
    pub(in super::super) reports: mpsc::Sender<Report>,
    /// What became of the last checkpoint.
    pub(in super::super) written: watch::Receiver<Option<Outcome>>,
    /// How many shards are in a sweep.
    pub(in super::super) sweeping: Arc<AtomicUsize>,
    pub(in super::super) ending: Ending<S>,
    /// Models that are due for training.
    pub(in super::super) due: mpsc::Receiver<Job>,
}

/// The threads behind the shards.
pub(in super::super) struct Ending<S> {
    telling: JoinHandle<(Result<(), ComponentError>, S)>,
    writing: JoinHandle<()>,
}

impl<S: Sink + 'static> Machine<S> {
    /// Starts the threads, which go on from `state`. What began before `live_from` is learnt and not told.
    pub(in super::super) fn start(
        context: &Context,
        config: &Config,
        state: State,
        live_from: UnixNanos,
        sink: S,
    ) -> Result<Self, ComponentError> {
        let State { mut cores, incidents, known, next } = state;
        let (bucket, count) = (config.bucket.nanos(), cores.len());
        let now = cores.first().map_or(UnixNanos(0), |core| core.now);
        let keys = cores.iter().flat_map(|core| core.groups.iter().map(|(key, _)| key));
        let intake = Intake::new(&context.environment, count, bucket).restored(keys);
        let (desk, due) = training::open();
        cores.iter_mut().for_each(|core| core.desk = desk.clone());
        // The training stage ends when the last shard does.
        drop(desk);
        let (reports, heard) = mpsc::channel(4 * count);
        let (writer, pieces, written) = Writer::new(context, state::checkpoints(context), count, bucket);
        let writing = tokio::task::spawn_blocking(move || writer.run());
        let sweeping = Arc::new(AtomicUsize::new(0));
        let shared = Shared {
            counters: Arc::clone(&context.counters),
            reports: reports.clone(),
            pieces: pieces.sender(),
            sweeping: Arc::clone(&sweeping),
            live_from,
        };
        let mut shards = Vec::with_capacity(count);
        for (number, core) in cores.into_iter().enumerate() {
            let started = shard::start(number, core, shared.clone());
            shards.push(started.map_err(|e| ComponentError(format!("cannot start thread {number} of the detector: {e}")))?);
        }
        drop(shared);
        context.counters.gauge("series_limit", config.max_series as f64);
        let teller = Teller { context: context.clone(), incidents, pieces, sink, shards: count };
        let telling = tokio::task::spawn_blocking(move || teller.run(heard));
        let feeder = Feeder::new(shards, intake, known, now, next);
        Ok(Self { feeder, reports, written, sweeping, ending: Ending { telling, writing }, due })
    }
}

impl<S> Ending<S> {
    /// Waits until the shards have ended, which they do when nobody feeds them any more, and everything behind them.
    /// Gives back where findings went.
    pub(in super::super) async fn ended(self) -> Result<S, ComponentError> {
        let early = |e: tokio::task::JoinError| ComponentError(format!("a thread of the detector ended early: {e}"));
        let (told, sink) = self.telling.await.map_err(early)?;
        self.writing.await.map_err(early)?;
        told.map(|()| sink)
    }
}
