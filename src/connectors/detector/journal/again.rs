//! The entries of a detector's log happen again, beside a daemon that may be running: nothing of it is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::checkpoint::{self, LoadError};
use super::super::config::Config;
use super::super::core::{Core, Settings};
use super::super::incidents::Incidents;
use super::super::teller::{INCIDENTS, Sink};
use super::machine::{Machine, State, settings};
use super::recovery::{Replay, finish};
use super::stored::{JOURNAL, Stored};
use super::{Entry, Started};
use crate::model::{Environment, Findings};
use crate::pipeline::{ComponentId, Context, Counters, Health, Services};
use crate::storage::{Checkpoints, Files, Reader};

/// What happened again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Whose detector it is.
    pub environment: String,
    /// Its id.
    pub detector: String,
    /// The first entry that happened again: that of the older checkpoint, or of the log's beginning.
    pub from: u64,
    /// How many entries happened again.
    pub entries: u64,
    /// Name and hash of everything that was learnt, sorted; where it was asked for.
    pub digest: Vec<(String, String)>,
}

/// Where findings go.
struct Printed<F>(F);

impl<F: FnMut(u64, &Findings) + Send> Sink for Printed<F> {
    fn take(&mut self, at: u64, findings: Findings) {
        self.0(at, &findings);
    }

    fn checkpoint(&mut self) -> Result<Vec<(String, Vec<u8>)>, String> {
        Ok(Vec::new())
    }
}

/// Replays the log of the detector that keeps its state in `folder`; `told` is given what is found, with the index of
/// the entry. `scratch` is an empty folder for what has to be written meanwhile. `None` where there is no log.
///
/// # Errors
/// A sentence: what cannot be read.
pub async fn replay(
    files: Arc<dyn Files>,
    folder: &Path,
    scratch: &Path,
    digest: bool,
    told: impl FnMut(u64, &Findings) + Send + 'static,
) -> Result<Option<Replayed>, String> {
    let log = folder.join("log");
    let reader = Reader::open(Arc::clone(&files), log.clone(), 0).map_err(|e| e.to_string())?;
    let Some((first, begun)) = first_of(reader) else { return Ok(None) };
    let checkpoints = Checkpoints::new(Arc::clone(&files), folder.to_owned());
    // The oldest that can be used, of those that the log goes back to.
    let mut kept = checkpoints.list().map_err(|e| e.to_string())?;
    kept.retain(|index| *index >= first && checkpoint::is_usable(&checkpoints, *index));
    let base = kept.pop();
    let stored = match base {
        Some(index) => stored(&checkpoints, index).map_err(|e| e.to_string())?,
        None => None,
    };
    let from = base.unwrap_or(first);
    // What stands at the beginning counts: a restart under another configuration begins with it.
    let begun = if base.is_some() { begins_with(&files, &log, from).or(stored) } else { begun };
    let Some(mut started) = begun else {
        return Err(format!("{}: the log does not say under which configuration it begins", folder.display()));
    };
    let context = context(&files, &started, scratch)?;
    let (environment, detector) = (started.environment.clone(), started.detector.clone());
    let (mut config, mut shards) = under(&started)?;
    let mut state = match base {
        Some(index) => load(&checkpoints, index, &context, &config, shards).map_err(|e| e.to_string())?,
        None => State::new(&context, &config, shards, first),
    };
    let mut sink = Printed(told);
    let mut entries = 0;
    loop {
        let mut machine = Machine::start(&context, &config, state, started.live_from, sink).map_err(|e| e.to_string())?;
        let replay =
            Replay { context: context.clone(), files: Arc::clone(&files), folder: log.clone(), void: 0..0, as_now: false };
        let current = started.clone();
        let (back, replayed) = tokio::task::spawn_blocking(move || {
            let replayed = replay.run(&mut machine, Some(&current));
            (machine, replayed)
        })
        .await
        .map_err(|e| e.to_string())?;
        machine = back;
        let replayed = replayed.map_err(|e| e.to_string())?;
        entries += replayed.entries;
        if replayed.other.is_none() && !digest {
            // What is in the shards runs through.
            let Machine { feeder, reports, ending, due, .. } = machine;
            drop((feeder, reports));
            ending.ended().await.map_err(|e| e.to_string())?;
            drop(due);
            return Ok(Some(Replayed { environment, detector, from, entries, digest: Vec::new() }));
        }
        let (ended, written) = finish(machine, started.clone()).await.map_err(|e| e.to_string())?;
        sink = ended;
        let index = written.ok_or("what was learnt could not be written into the temporary folder")?;
        let Some(between) = super::super::state::checkpoints(&context) else { return Err("there is no folder".to_owned()) };
        if let Some(other) = replayed.other {
            started = other;
            (config, shards) = under(&started)?;
        }
        state = load(&between, index, &context, &config, shards).map_err(|e| e.to_string())?;
        if digest && replayed_all(&files, &log, index) {
            let mut all: Vec<(String, String)> = state.cores.iter_mut().flat_map(Core::digest).collect();
            all.sort_unstable();
            return Ok(Some(Replayed { environment, detector, from, entries, digest: all }));
        }
    }
}

fn replayed_all(files: &Arc<dyn Files>, log: &Path, index: u64) -> bool {
    Reader::open(Arc::clone(files), log.to_owned(), index).is_ok_and(|mut reader| reader.read().is_none())
}

/// The index of the first entry, and with what the detector began to run there.
fn first_of(mut reader: Reader) -> Option<(u64, Option<Started>)> {
    loop {
        if let Ok((index, bytes)) = reader.read()? {
            return Some((index, started(bytes)));
        }
    }
}

fn started(bytes: &[u8]) -> Option<Started> {
    match Entry::read(bytes, &Environment::new("")) {
        Ok(Entry::Started(started)) => Some(started),
        _ => None,
    }
}

fn begins_with(files: &Arc<dyn Files>, log: &Path, index: u64) -> Option<Started> {
    let mut reader = Reader::open(Arc::clone(files), log.to_owned(), index).ok()?;
    let (_, bytes) = reader.read()?.ok()?;
    started(bytes)
}

/// What the journal added to a checkpoint.
fn stored(checkpoints: &Checkpoints, index: u64) -> Result<Option<Started>, LoadError> {
    let named = checkpoint::named(checkpoints.open(index)?, JOURNAL)?;
    Ok(named.and_then(|bytes| Stored::restore(&bytes).ok()).map(|stored| stored.started))
}

fn context(files: &Arc<dyn Files>, started: &Started, scratch: &Path) -> Result<Context, String> {
    let services = Services { files: Some(Arc::clone(files)), data_dir: PathBuf::from(scratch), ..Services::in_memory() };
    Ok(Context {
        environment: Environment::new(&started.environment),
        id: ComponentId::parse(&started.detector)?,
        counters: Arc::new(Counters::default()),
        health: Health::default(),
        shutdown: tokio_util::sync::CancellationToken::new(),
        services,
    })
}

fn under(started: &Started) -> Result<(Config, usize), String> {
    let config = serde_json::from_str(&started.config).and_then(|value| Config::read(&value));
    let config = config.map_err(|e| format!("the configuration in the log cannot be read by this version: {e}"))?;
    Ok((config, started.shards as usize))
}

fn load(checkpoints: &Checkpoints, index: u64, context: &Context, config: &Config, shards: usize) -> Result<State, LoadError> {
    let all: Vec<Arc<Settings>> = settings(context, config, shards);
    let checkpoint::Loaded { cores, named } = checkpoint::load(checkpoints.open(index)?, &all)?;
    let mut incidents = Incidents::new(&context.environment, config.incidents());
    if let Some(bytes) = named.get(INCIDENTS) {
        // What cannot be read begins anew, as it does in a daemon.
        let _ = incidents.restore(bytes);
    }
    let known = named.get(JOURNAL).and_then(|bytes| Stored::restore(bytes).ok()).map(|stored| stored.known);
    let known = known.unwrap_or_default();
    Ok(State { cores, incidents, known, next: index })
}
