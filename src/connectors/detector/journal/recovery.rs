//! A detector goes on where it was: the newest checkpoint, and every entry of the log since then, one after the other,
//! as if they happened now.
//!
//! Entries happen under the configuration that they happened under before. Where it is another one now, a checkpoint is
//! written at the end of the old one, and read under the new one.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::checkpoint::{self, LoadError, Outcome};
use super::super::config::Config;
use super::super::incidents::Incidents;
use super::super::shard::Report;
use super::super::teller::{INCIDENTS, Sink};
use super::super::{shard::Command, state};
use super::machine::{Machine, State, settings};
use super::stored::{JOURNAL, Stored};
use super::{Entry, Started};
use crate::model::UnixNanos;
use crate::pipeline::{ComponentError, Context};
use crate::storage::{Checkpoints, Files, Log, Reader};

/// So many chunks of a checkpoint are looked at for the configuration, which is among the first.
const LOOKED_AT: usize = 64;

/// Where a detector keeps its input log.
pub(in super::super) fn folder(context: &Context) -> Option<PathBuf> {
    Some(state::checkpoints(context)?.folder().join("log"))
}

/// Whether something came in before that can be learnt again.
pub(in super::super) fn has_entries(context: &Context) -> bool {
    let (Some(files), Some(folder), Some(_)) = (&context.services.files, folder(context), context.services.input_log) else {
        return false;
    };
    Reader::open(Arc::clone(files), folder, 0).is_ok_and(|mut reader| reader.read().is_some())
}

/// A detector that goes on.
pub(in super::super) struct Recovered<S> {
    pub(in super::super) machine: Machine<S>,
    /// `None` where nothing is to survive the process.
    pub(in super::super) log: Option<Log>,
    /// Entries that happened again.
    pub(in super::super) replayed: u64,
    /// What came in with those that are not in the newest checkpoint.
    pub(in super::super) observations: u64,
}

/// What a detector is to go on with.
pub(in super::super) struct Recovery {
    pub(in super::super) context: Context,
    pub(in super::super) config: Config,
    pub(in super::super) shards: usize,
    /// With what it begins to run; its time is not looked at.
    pub(in super::super) started: Started,
}

/// How far a machine came with the entries of the log.
pub(super) struct Replayed {
    pub(super) entries: u64,
    /// What came in with them.
    pub(super) observations: u64,
    /// The next entries happened under this configuration.
    pub(super) other: Option<Started>,
}

impl Recovery {
    /// Does it. `sink` is given what came of the entries that happen again.
    pub(in super::super) async fn recover<S: Sink + 'static>(self, mut sink: S) -> Result<Recovered<S>, ComponentError> {
        let (mut likely, mut log, mut total) = (self.likely(), None, 0);
        // Where no checkpoint can be written, entries happen under the configuration of now, whatever it was.
        let mut as_now = false;
        loop {
            // Both read a lot, and neither needs the other.
            let (loaded, opened) = tokio::join!(self.load(&likely), async {
                match log.take() {
                    Some(log) => Ok(Some(log)),
                    None => self.open_log().await,
                }
            });
            let (mut state, stored) = loaded;
            log = opened?;
            if let Some(log) = &mut log {
                self.join(log, &mut state)?;
            }
            let waiting = log.as_ref().is_some_and(|log| log.next() > state.next);
            let void = log.as_ref().map_or(0..0, Log::void);
            let before = if waiting && !as_now { self.first(state.next, void.clone())?.or(stored) } else { None };
            let (config, live_from) = self.under(before.as_ref());
            let first = log.as_ref().map_or(0, Log::first);
            let state = if config == likely { state } else { self.reload(state, &config, first).await };
            likely = self.config.clone();
            let mut machine = Machine::start(&self.context, &config, state, live_from, sink)?;
            if !waiting {
                return Ok(Recovered { machine, log, replayed: total, observations: 0 });
            }
            let (context, folder) = (self.context.clone(), self.log_folder()?);
            let replay = Replay { context, files: self.files()?, folder, void, as_now };
            let current = before.clone();
            let (back, replayed) = tokio::task::spawn_blocking(move || {
                let replayed = replay.run(&mut machine, current.as_ref());
                (machine, replayed)
            })
            .await
            .map_err(|e| ComponentError(format!("the input log could not be replayed: {e}")))?;
            machine = back;
            let Replayed { entries, observations, other } = replayed?;
            total += entries;
            let same = before.as_ref().is_none_or(|before| before.config == self.started.config);
            if let (None, Some(log)) = (&other, &log) {
                // Indices that are left out at the end of the log stand for nothing that could be read: nothing waits now.
                machine.feeder.next = machine.feeder.next.max(log.next());
            }
            if other.is_none() && same {
                return Ok(Recovered { machine, log, replayed: total, observations });
            }
            // Under another configuration from here on.
            let index = machine.feeder.next;
            let stored = before.unwrap_or_else(|| self.started.clone());
            let (ended, written) = finish(machine, stored).await?;
            sink = ended;
            as_now = written != Some(index);
        }
    }

    fn files(&self) -> Result<Arc<dyn Files>, ComponentError> {
        self.context.services.files.clone().ok_or_else(|| ComponentError::new("there are no files"))
    }

    fn log_folder(&self) -> Result<PathBuf, ComponentError> {
        folder(&self.context).ok_or_else(|| ComponentError::new("there is no folder for the input log"))
    }

    /// Opens the log, and tells what was wrong with it.
    async fn open_log(&self) -> Result<Option<Log>, ComponentError> {
        let (Some(options), Some(folder)) = (self.context.services.input_log, folder(&self.context)) else { return Ok(None) };
        let files = self.files()?;
        let opening = tokio::task::spawn_blocking(move || Log::open(files, folder, options));
        let (log, opened) = opening.await.map_err(ComponentError::new)?.map_err(ComponentError::new)?;
        let Context { environment, id, counters, .. } = &self.context;
        for damage in &opened.damages {
            tracing::warn!(%environment, component = %id, "{damage}");
        }
        for file in &opened.set_aside {
            tracing::warn!(%environment, component = %id, "{file}");
        }
        for (event, times) in [
            ("log_bytes_cut", opened.unfinished),
            ("log_damages", opened.damages.len() as u64),
            ("log_segments_set_aside", opened.set_aside.len() as u64),
        ] {
            if times > 0 {
                counters.event(event, times);
            }
        }
        Ok(Some(log))
    }

    /// The configuration under which the newest state will have to be read, by a look at it and at the log: that of now,
    /// unless entries follow it.
    fn likely(&self) -> Config {
        let before = || {
            let checkpoints = state::checkpoints(&self.context)?;
            let newest = checkpoints.list().ok()?.first().copied()?;
            let mut reader = Reader::open(self.files().ok()?, self.log_folder().ok()?, newest).ok()?;
            reader.read()?.ok()?;
            let stored = checkpoint::named(checkpoints.open(newest).ok()?.take(LOOKED_AT), JOURNAL).ok()??;
            Some(Stored::restore(&stored).ok()?.started)
        };
        self.under(before().as_ref()).0
    }

    /// The newest state that is kept, under this configuration; and with what it was written.
    async fn load(&self, config: &Config) -> (State, Option<Started>) {
        let anew = |next| State::new(&self.context, config, self.shards, next);
        let Some(checkpoints) = state::checkpoints(&self.context) else { return (anew(0), None) };
        let (context, all) = (self.context.clone(), settings(&self.context, config, self.shards));
        let incidents = Incidents::new(&context.environment, config.incidents());
        let loading = tokio::task::spawn_blocking(move || load(&context, &checkpoints, &all, incidents));
        match loading.await {
            Ok(Ok(Some(loaded))) => loaded,
            Ok(Err((index, stored))) => (anew(index), stored),
            Ok(Ok(None)) | Err(_) => (anew(0), None),
        }
    }

    /// As [`Recovery::load`], for a log that begins at `first`, in place of a state that was read under another one.
    async fn reload(&self, state: State, config: &Config, first: u64) -> State {
        drop(state);
        let mut state = self.load(config).await.0;
        // What the log does not go back to was told already.
        state.next = state.next.max(first);
        state
    }

    /// Log and state must agree on what comes next.
    fn join(&self, log: &mut Log, state: &mut State) -> Result<(), ComponentError> {
        let Context { environment, id, counters, .. } = &self.context;
        if log.next() < state.next {
            // The log lost its end, or was taken away.
            log.skip_to(state.next).map_err(ComponentError::new)?;
        }
        if log.first() > state.next {
            let lost = log.first() - state.next;
            counters.event("log_entries_missing", lost);
            tracing::warn!(
                %environment, component = %id, from = state.next, to = log.first(),
                "the input log does not go back to the checkpoint: {lost} entries are missing and were not learnt"
            );
            state.next = log.first();
        }
        Ok(())
    }

    /// With what the detector ran at `index`, if it began there.
    fn first(&self, index: u64, void: Range<u64>) -> Result<Option<Started>, ComponentError> {
        let reader = Reader::open(self.files()?, self.log_folder()?, index).map_err(ComponentError::new)?;
        let mut reader = reader.without(void);
        let entry = reader.read().and_then(Result::ok).and_then(|(_, bytes)| Entry::read(bytes, &self.context.environment).ok());
        Ok(if let Some(Entry::Started(started)) = entry { Some(started) } else { None })
    }

    /// The configuration that belongs to `before`, and from when on what was found is told.
    fn under(&self, before: Option<&Started>) -> (Config, UnixNanos) {
        let read = |started: &Started| {
            let value = serde_json::from_str(&started.config).ok()?;
            Some((Config::read(&value).ok()?, started.live_from))
        };
        before.and_then(read).unwrap_or_else(|| (self.config.clone(), self.started.live_from))
    }
}

/// Reads entries and lets them happen.
pub(super) struct Replay {
    pub(super) context: Context,
    pub(super) files: Arc<dyn Files>,
    /// Of the log.
    pub(super) folder: PathBuf,
    /// Indices of the log that stand for nothing.
    pub(super) void: Range<u64>,
    /// Whatever the configuration was.
    pub(super) as_now: bool,
}

impl Replay {
    /// Lets the entries from the machine's next one on happen, as long as they did under the configuration of `current`.
    pub(super) fn run<S>(&self, machine: &mut Machine<S>, current: Option<&Started>) -> Result<Replayed, ComponentError> {
        let (environment, id) = (&self.context.environment, &self.context.id);
        let from = machine.feeder.next;
        let reader = Reader::open(Arc::clone(&self.files), self.folder.clone(), from).map_err(ComponentError::new)?;
        let mut reader = reader.without(self.void.clone());
        let (mut entries, mut observations) = (0, 0);
        while let Some(read) = reader.read() {
            if self.context.shutdown.is_cancelled() {
                // All of it happens again at the next start.
                return Err(ComponentError::new("the daemon stops before it has learnt again what came in before"));
            }
            // Damage was told when the log was opened.
            let Ok((index, bytes)) = read else { continue };
            let entry = match Entry::read(bytes, environment) {
                Ok(entry) => entry,
                Err(error) => {
                    self.context.counters.event("log_entries_unreadable", 1);
                    tracing::warn!(%environment, component = %id, index, "an entry of the input log is left out: {error}");
                    continue;
                }
            };
            if let (Entry::Started(started), false) = (&entry, self.as_now)
                && current.is_some_and(|current| current.config != started.config)
            {
                return Ok(Replayed { entries, observations, other: Some(started.clone()) });
            }
            if let Entry::Feed(fed) = &entry {
                observations += fed.payload.len() as u64;
            }
            machine.feeder.next = index;
            machine.feeder.apply(entry, None).map_err(ComponentError::new)?;
            entries += 1;
        }
        machine.feeder.next = reader.next_index().max(machine.feeder.next);
        Ok(Replayed { entries, observations, other: None })
    }
}

/// Loads the newest checkpoint; where it does not fit, where it ends and with what it was written.
#[expect(clippy::type_complexity, reason = "told in the line above")]
fn load(
    context: &Context,
    checkpoints: &Checkpoints,
    all: &[Arc<super::super::core::Settings>],
    mut incidents: Incidents,
) -> Result<Option<(State, Option<Started>)>, (u64, Option<Started>)> {
    let Context { environment, id, counters, .. } = context;
    let newest = checkpoints.list().ok().and_then(|all| all.first().copied()).unwrap_or(0);
    let unusable = |error: &LoadError| {
        counters.event("checkpoints_unusable", 1);
        tracing::warn!(%environment, component = %id, %error, "a checkpoint cannot be used; the one before it is tried");
    };
    if let Err(error) = checkpoints.tidy() {
        // It takes room, and nothing else.
        tracing::warn!(%environment, component = %id, %error, "what is left of an unfinished checkpoint stays");
    }
    let (index, loaded) = match checkpoint::newest(checkpoints, all, unusable) {
        Ok(None) => return Ok(None),
        Ok(Some(loaded)) => loaded,
        Err(reason) => {
            tracing::warn!(%environment, component = %id, %reason, "what was learnt before cannot be used; learning starts anew");
            return Err((newest, None));
        }
    };
    set_aside(context, checkpoints, index);
    let checkpoint::Loaded { cores, named } = loaded;
    if let Some(Err(reason)) = named.get(INCIDENTS).map(|bytes| incidents.restore(bytes)) {
        tracing::warn!(%environment, component = %id, %reason, "open incidents cannot be read; they begin anew");
    }
    let stored = named.get(JOURNAL).and_then(|bytes| match Stored::restore(bytes) {
        Ok(stored) => Some(stored),
        Err(reason) => {
            tracing::warn!(%environment, component = %id, %reason, "it cannot be read what was taken in lately");
            None
        }
    });
    let series: usize = cores.iter().map(super::super::core::Core::series).sum();
    counters.event("series_restored", series as u64);
    tracing::info!(%environment, component = %id, series, "goes on with what was learnt before");
    let (known, started) = stored.map_or_else(Default::default, |Stored { started, known }| (known, Some(started)));
    Ok(Some((State { cores, incidents, known, next: index }, started)))
}

/// Takes those that are newer than the one that is used out of the way, if they are damaged: they must not be counted as
/// one of those that are kept.
fn set_aside(context: &Context, checkpoints: &Checkpoints, used: u64) {
    let Context { environment, id, .. } = context;
    for index in checkpoints.list().unwrap_or_default().into_iter().filter(|index| *index > used) {
        match checkpoints.set_aside(index) {
            Ok(Some(path)) => {
                tracing::warn!(%environment, component = %id, path = %path.display(), "the damaged checkpoint has this name now");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%environment, component = %id, %error, "a damaged checkpoint stays where it is"),
        }
    }
}

/// Ends a machine with a checkpoint. Where findings went, and the index of the checkpoint if it is on disk.
pub(super) async fn finish<S: Sink + 'static>(machine: Machine<S>, started: Started) -> Result<(S, Option<u64>), ComponentError> {
    let Machine { feeder, reports, written, sweeping: _, ending, due } = machine;
    let index = feeder.next;
    let telling = tokio::task::spawn_blocking(move || begin_checkpoint(&feeder, &reports, &started));
    telling.await.map_err(ComponentError::new)?.map_err(ComponentError::new)?;
    let sink = ending.ended().await?;
    drop(due);
    let outcome = written.borrow().clone();
    Ok((sink, matches!(outcome, Some(Outcome::Written { .. })).then_some(index)))
}

/// Tells all shards, and what is behind them, to begin a checkpoint at the next entry. Blocks.
pub(in super::super) fn begin_checkpoint(
    feeder: &super::Feeder,
    reports: &tokio::sync::mpsc::Sender<Report>,
    started: &Started,
) -> Result<(), super::ShardEnded> {
    let index = feeder.next;
    let parts = match Stored::save(started, &feeder.known) {
        Ok(bytes) => vec![(JOURNAL.to_owned(), bytes)],
        // Nothing in it refuses to be encoded.
        Err(_) => Vec::new(),
    };
    reports.blocking_send(Report::Parts { index, parts }).map_err(|_| super::ShardEnded)?;
    feeder.all(|| Command::Checkpoint(index))
}
