//! A shard is one thread that owns its series: no locks, no sharing.

use std::collections::BTreeMap;
use std::sync::{Arc, Once};

use tokio::sync::mpsc;

use super::core::{Core, Feed, Outcome};
use super::rules::{self, Part, Request};
use super::state;
use crate::model::{Anomaly, UnixNanos};
use crate::pipeline::{Counters, Flight};

/// Feeds that wait in front of a shard before the detector's input waits.
const QUEUE: usize = 64;

/// The series in each state are counted once in this many nanoseconds.
const COUNTED: u64 = 15 * UnixNanos::SECOND;

/// What a shard is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Take this in.
    Feed(Feed, Flight),
    /// The clock shows this.
    Tick(UnixNanos),
    /// History is learnt.
    Live,
    /// A replay has ended; nothing before this moment is missing.
    Finish(UnixNanos),
    /// Somebody asks or tells something.
    Ask(Arc<Request>, mpsc::Sender<Part>),
}

/// What a shard tells.
#[derive(Debug)]
pub(super) enum Report {
    /// Found.
    Anomalies(Vec<Anomaly>),
    /// A part of its state, at its end.
    Chunk(Vec<u8>),
    /// It has ended, and told all of its state.
    Ended(state::Shared),
}

/// What all shards of a detector share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) counters: Arc<Counters>,
    pub(super) reports: mpsc::Sender<Report>,
    /// The series limit is worth one warning.
    pub(super) warned: Arc<Once>,
    /// What lies before is history: learnt, not reported.
    pub(super) live_from: UnixNanos,
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

fn run(number: usize, mut core: Core, mut commands: mpsc::Receiver<Command>, shared: &Shared) -> Result<(), Unheard> {
    let mut counted = 0;
    while let Some(command) = commands.blocking_recv() {
        match command {
            Command::Feed(feed, mut flight) => {
                let outcome = core.observe(feed);
                for (&reason, &records) in &outcome.dropped {
                    flight.dropped(records, reason);
                }
                flight.sent();
                warn_once(&core, &outcome.dropped, shared);
                report(outcome, shared)?;
            }
            Command::Live => report(core.learn_history(false), shared)?,
            Command::Finish(until) => report(core.finish(until), shared)?,
            Command::Tick(now) => {
                report(core.tick(now), shared)?;
                if now.0 / COUNTED != counted {
                    counted = now.0 / COUNTED;
                    shared.counters.levels(number, rules::count(&core));
                }
            }
            // Whoever asked may have gone away.
            Command::Ask(request, answer) => drop(answer.try_send(rules::answer(&mut core, &request))),
        }
    }
    let sources = state::encode(&mut core, |chunk| shared.reports.blocking_send(Report::Chunk(chunk)))?;
    shared.reports.blocking_send(Report::Ended(sources))
}

fn report(outcome: Outcome, shared: &Shared) -> Result<(), Unheard> {
    let Outcome { mut anomalies, dropped, closed, added, forgotten, events, trained } = outcome;
    let all = anomalies.len();
    anomalies.retain(|anomaly| anomaly.window.start >= shared.live_from);
    let (found, in_history) = (anomalies.len() as u64, (all - anomalies.len()) as u64);
    let late = dropped.get("late").copied().unwrap_or(0);
    for (event, times) in [
        ("late_observations", late),
        ("buckets_closed", closed),
        ("series_added", added),
        ("series_forgotten", forgotten),
        ("models_trained", trained),
        ("anomalies", found),
        ("in_history", in_history),
    ]
    .into_iter()
    .chain(events)
    {
        if times > 0 {
            shared.counters.event(event, times);
        }
    }
    if found > 0 { shared.reports.blocking_send(Report::Anomalies(anomalies)) } else { Ok(()) }
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
