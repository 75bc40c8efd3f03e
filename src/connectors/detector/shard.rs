//! A shard is one thread that owns its series: no locks, no sharing.

use std::sync::Arc;

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::checkpoint::{Piece, Saver};
use super::core::{Core, Feed, Outcome};
use super::merge::Found;
use super::rules::{self, Part, Request};
use crate::model::UnixNanos;
use crate::pipeline::{Counters, Flight};

/// Feeds that wait in front of a shard before the detector's input waits.
const QUEUE: usize = 64;

/// The series in each state are counted once in this many nanoseconds.
const COUNTED: u64 = 15 * UnixNanos::SECOND;

/// A command, and where it stands.
#[derive(Debug)]
pub(super) struct Step {
    /// The index of the journal's entry; for what is no entry, of the next one.
    pub(super) at: u64,
    pub(super) command: Command,
    /// Its part of the room in front of the shards; given back when the last shard has done it.
    pub(super) room: Option<Arc<OwnedSemaphorePermit>>,
}

/// What a shard is told. Every command goes to all shards, in one and the same order.
#[derive(Debug)]
pub(super) enum Command {
    /// Take this in.
    Feed(Feed, Flight),
    /// The daemon runs again at this time; what came in between was not watched. And whether history is being learnt.
    Resume(UnixNanos, bool),
    /// The clock shows this.
    Tick(UnixNanos),
    /// History is learnt.
    Live,
    /// A replay has ended; nothing before this moment is missing.
    Finish(UnixNanos),
    /// Series may be added from here on, or may not.
    Growth(bool),
    /// Somebody asks or tells something.
    Ask(Arc<Request>, mpsc::Sender<Part>),
    /// From here on the checkpoint at this index is owed: the state before any command that follows.
    Checkpoint(u64),
}

/// What a shard tells.
#[derive(Debug)]
pub(super) enum Report {
    /// What it found for a command.
    Found { shard: usize, command: u64, found: Found },
    /// What is to be in the checkpoint at this index besides. Told before the shards are told to begin it.
    Parts { index: u64, parts: Vec<(String, Vec<u8>)> },
    /// It has ended, and owes nothing.
    Ended,
}

/// What all shards of a detector share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) counters: Arc<Counters>,
    pub(super) reports: mpsc::Sender<Report>,
    /// Where the pieces of checkpoints go.
    pub(super) pieces: mpsc::Sender<Piece>,
    /// What lies before is history: learnt, not reported.
    pub(super) live_from: UnixNanos,
}

/// Starts the thread of one shard. It ends when its commands do, or when nobody listens to its reports.
pub(super) fn start(number: usize, core: Core, shared: Shared) -> std::io::Result<mpsc::Sender<Step>> {
    let (sender, steps) = mpsc::channel(QUEUE);
    std::thread::Builder::new().name(format!("detector-{number}")).spawn(move || {
        // An error is that nobody listens any more: the detector was cut off.
        let _ = run(number, core, steps, &shared);
    })?;
    Ok(sender)
}

/// Nobody listens to what a shard tells.
struct Unheard;

impl From<mpsc::error::SendError<Report>> for Unheard {
    fn from(_: mpsc::error::SendError<Report>) -> Self {
        Self
    }
}

fn run(shard: usize, mut core: Core, mut steps: mpsc::Receiver<Step>, shared: &Shared) -> Result<(), Unheard> {
    let mut counted = 0;
    let mut saver = Saver::new(shared.pieces.clone());
    // All shards are told the same commands in the same order, so they number them alike.
    let mut number = 0;
    loop {
        let Step { at, command, room: _room } = if saver.owes() {
            match steps.try_recv() {
                Ok(step) => step,
                Err(TryRecvError::Empty) => {
                    saver.idle(&mut core);
                    continue;
                }
                Err(TryRecvError::Disconnected) => break,
            }
        } else {
            let Some(step) = steps.blocking_recv() else { break };
            step
        };
        let outcome = match command {
            Command::Feed(feed, mut flight) => {
                let outcome = core.observe(feed);
                for (&reason, &records) in &outcome.dropped {
                    flight.dropped(records, reason);
                }
                flight.sent();
                outcome
            }
            Command::Resume(now, in_history) => {
                core.resume(now);
                if in_history { core.learn_history(true) } else { Outcome::default() }
            }
            Command::Live => core.learn_history(false),
            Command::Finish(until) => core.finish(until),
            Command::Tick(now) => {
                if now.0 / COUNTED != counted {
                    counted = now.0 / COUNTED;
                    shared.counters.levels(shard, rules::count(&core));
                }
                core.tick(now)
            }
            Command::Growth(growth) => {
                core.set_growth(growth);
                continue;
            }
            Command::Ask(request, answer) => {
                // Whoever asked may have gone away.
                drop(answer.try_send(rules::answer(&mut core, &request)));
                saver.between(&mut core);
                continue;
            }
            Command::Checkpoint(index) => {
                saver.begin(&mut core, index);
                Outcome { found: Found { checkpoint: Some(index), ..Found::default() }, ..Outcome::default() }
            }
        };
        let found = Found { at, series: core.series(), ..report(outcome, shared) };
        shared.reports.blocking_send(Report::Found { shard, command: number, found })?;
        number += 1;
        saver.between(&mut core);
    }
    // Where nobody writes any more, that is told by whoever waits for it.
    saver.finish(&mut core);
    Ok(shared.reports.blocking_send(Report::Ended)?)
}

/// Counts what came of a command; what is to be told of it.
fn report(outcome: Outcome, shared: &Shared) -> Found {
    let Outcome { mut found, dropped, closed, added, forgotten, events, trained } = outcome;
    let all = found.anomalies.len();
    found.anomalies.retain(|anomaly| anomaly.window.start >= shared.live_from);
    let in_history = (all - found.anomalies.len()) as u64;
    let late = dropped.get("late").copied().unwrap_or(0);
    for (event, times) in [
        ("late_observations", late),
        ("buckets_closed", closed),
        ("series_added", added),
        ("series_forgotten", forgotten),
        ("models_trained", trained),
        ("in_history", in_history),
    ]
    .into_iter()
    .chain(events)
    {
        if times > 0 {
            shared.counters.event(event, times);
        }
    }
    found
}
