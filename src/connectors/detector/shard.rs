//! A shard is one thread that owns its series: no locks, no sharing.

use std::collections::BTreeMap;
use std::sync::{Arc, Once};

use tokio::sync::mpsc;

use super::core::{Core, Feed, Outcome};
use super::merge::Found;
use super::state;
use super::watermark::Sources;
use crate::model::UnixNanos;
use crate::pipeline::{Counters, Flight};

/// Feeds that wait in front of a shard before the detector's input waits.
const QUEUE: usize = 64;

/// What a shard is told.
#[derive(Debug)]
pub(super) struct Command {
    /// The same for all shards' shares of a command.
    pub(super) number: u64,
    pub(super) what: What,
}

/// What a shard is to do.
#[derive(Debug)]
pub(super) enum What {
    /// Take this in.
    Feed(Feed, Flight),
    /// The clock shows this.
    Tick(UnixNanos),
}

/// What a shard tells.
#[derive(Debug)]
pub(super) enum Report {
    /// What it found for a command.
    Found { shard: usize, command: u64, found: Found },
    /// A part of its state, at its end.
    Chunk(Vec<u8>),
    /// It has ended, and told all of its state.
    Ended(Sources),
}

/// What all shards of a detector share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) counters: Arc<Counters>,
    pub(super) reports: mpsc::Sender<Report>,
    /// The series limit is worth one warning.
    pub(super) warned: Arc<Once>,
}

/// Starts the thread of one shard. It ends when its commands do, or when nobody listens to its reports.
pub(super) fn start(number: usize, core: Core, shared: Shared) -> std::io::Result<mpsc::Sender<Command>> {
    let (sender, commands) = mpsc::channel(QUEUE);
    std::thread::Builder::new().name(format!("detector-{number}")).spawn(move || {
        // An error is that nobody listens any more: the detector was cut off.
        let _ = run(number, core, commands, &shared);
    })?;
    Ok(sender)
}

type Unheard = mpsc::error::SendError<Report>;

fn run(shard: usize, mut core: Core, mut commands: mpsc::Receiver<Command>, shared: &Shared) -> Result<(), Unheard> {
    while let Some(Command { number: command, what }) = commands.blocking_recv() {
        let outcome = match what {
            What::Feed(feed, mut flight) => {
                let outcome = core.observe(feed);
                for (&reason, &records) in &outcome.dropped {
                    flight.dropped(records, reason);
                }
                flight.sent();
                warn_once(&core, &outcome.dropped, shared);
                outcome
            }
            What::Tick(now) => core.tick(now),
        };
        count(&outcome, shared);
        shared.reports.blocking_send(Report::Found { shard, command, found: outcome.found })?;
    }
    let sources = state::encode(&mut core, |chunk| shared.reports.blocking_send(Report::Chunk(chunk)))?;
    shared.reports.blocking_send(Report::Ended(sources))
}

fn count(outcome: &Outcome, shared: &Shared) {
    let Outcome { dropped, closed, added, forgotten, events, .. } = outcome;
    let late = dropped.get("late").copied().unwrap_or(0);
    let own =
        [("late_observations", late), ("buckets_closed", *closed), ("series_added", *added), ("series_forgotten", *forgotten)];
    for (event, times) in own.into_iter().chain(events.iter().map(|(event, times)| (*event, *times))) {
        if times > 0 {
            shared.counters.event(event, times);
        }
    }
}

fn warn_once(core: &Core, dropped: &BTreeMap<&'static str, u64>, shared: &Shared) {
    if dropped.contains_key("series_limit") {
        shared.warned.call_once(|| {
            tracing::warn!(
                environment = %core.settings.environment,
                component = core.settings.name,
                series_of_shard = core.series(),
                "the limit of series is reached: what belongs to further ones is not learnt; raise `max_series`, or \
                 look for an attribute or a span name that has too many values"
            );
        });
    }
}
