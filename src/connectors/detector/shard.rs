//! A shard is one thread that owns its series: no locks, no sharing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::checkpoint::{Piece, Saver};
use super::core::{Core, Feed};
use super::merge::Found;
use super::outcome::Outcome;
use super::rules::{self, Part, Request};
use crate::model::UnixNanos;
use crate::pipeline::{Counters, Flight};

/// Feeds that wait in front of a shard before the detector's input waits.
const QUEUE: usize = 64;

/// For so long commands wait for a sweep at once: long enough that it comes to its end before the next one is due, also
/// where history is learnt much faster than real time and every group has to be written to a checkpoint first.
const SLICE: Duration = Duration::from_millis(10);
/// Groups between two looks at the clock: that many are done even if the processor is busy with something else meanwhile.
const AT_ONCE: usize = 256;
/// With so many commands behind it whose outcome cannot be told, a sweep is brought to its end.
const BEHIND: usize = 4096;

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
    /// How many shards are in a sweep.
    pub(super) sweeping: Arc<AtomicUsize>,
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
    let mut telling = Telling { shard, shared, number: 0, waiting: None, behind: VecDeque::new() };
    loop {
        let Step { at, command, room: _room } = if core.sweeps_on() || saver.owes() {
            match steps.try_recv() {
                Ok(step) => step,
                Err(TryRecvError::Empty) if core.sweeps_on() => {
                    telling.sweep(&mut core, SLICE)?;
                    saver.between(&mut core);
                    continue;
                }
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
        if !matches!(command, Command::Feed(..) | Command::Tick(_) | Command::Growth(_)) {
            // It looks at all groups.
            telling.sweep(&mut core, Duration::MAX)?;
        }
        let outcome = match command {
            Command::Feed(feed, mut flight) => {
                let outcome = core.feed(feed);
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
                core.clock(now)
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
        telling.tell(&mut core, at, outcome)?;
        let many = telling.behind.len() >= BEHIND;
        telling.sweep(&mut core, if many { Duration::MAX } else { SLICE })?;
        saver.between(&mut core);
    }
    telling.sweep(&mut core, Duration::MAX)?;
    // Where nobody writes any more, that is told by whoever waits for it.
    saver.finish(&mut core);
    Ok(shared.reports.blocking_send(Report::Ended)?)
}

/// Tells what came of commands, in their order: of one with a sweep, and of all behind it, when the sweep is over.
struct Telling<'a> {
    shard: usize,
    shared: &'a Shared,
    /// Of the next command. All shards are told the same commands in the same order, so they number them alike.
    number: u64,
    /// The command whose sweep is going on, by the index of its entry.
    waiting: Option<(u64, Outcome)>,
    /// What came of those behind it.
    behind: VecDeque<Found>,
}

impl Telling<'_> {
    /// What came of the next command.
    fn tell(&mut self, core: &mut Core, at: u64, outcome: Outcome) -> Result<(), Unheard> {
        if let Some(earlier) = core.take_earlier() {
            self.swept(core, earlier)?;
        }
        if self.waiting.is_some() {
            self.behind.push_back(Found { at, ..report(outcome, self.shared) });
        } else if core.sweeps_on() {
            self.waiting = Some((at, outcome));
            self.shared.sweeping.fetch_add(1, Relaxed);
        } else {
            self.send(core, Found { at, ..report(outcome, self.shared) })?;
        }
        Ok(())
    }

    /// Goes on with the sweep for about so long.
    fn sweep(&mut self, core: &mut Core, time: Duration) -> Result<(), Unheard> {
        let began = Instant::now();
        while core.sweeps_on() {
            if let Some(rest) = core.sweep_on(AT_ONCE) {
                self.swept(core, rest)?;
            }
            if began.elapsed() >= time {
                break;
            }
        }
        Ok(())
    }

    /// The sweep is over, and this came of it.
    fn swept(&mut self, core: &Core, rest: Outcome) -> Result<(), Unheard> {
        if let Some((at, mut outcome)) = self.waiting.take() {
            self.shared.sweeping.fetch_sub(1, Relaxed);
            outcome.join(rest);
            self.send(core, Found { at, ..report(outcome, self.shared) })?;
        }
        while let Some(found) = self.behind.pop_front() {
            self.send(core, found)?;
        }
        Ok(())
    }

    fn send(&mut self, core: &Core, found: Found) -> Result<(), Unheard> {
        let found = Found { series: core.series(), ..found };
        self.shared.reports.blocking_send(Report::Found { shard: self.shard, command: self.number, found })?;
        self.number += 1;
        Ok(())
    }
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
