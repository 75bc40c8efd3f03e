//! The daemon at work with no outside service: simulated services of three environments send real OTLP to it, first a
//! week of history as fast as it goes, then some hours in which one of the environments has faults. What the daemon says
//! is judged against what was wrong.
//!
//! Nothing of the daemon is different for it but the last exporter, which hands the anomalies over.

mod collect;
mod daemon;
mod faults;
mod report;
mod sender;
mod services;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

pub use faults::{Effect, Fault};
pub use report::{Finding, Outcome, Report, Said, Seen, Verdict};

use collect::Inbox;
use daemon::Daemon;
use faults::{MINUTE, WATCH, schedule};
use report::Judge;
use sender::Sender;
use services::{PLACES, Simulation};

use crate::model::{Findings, UnixNanos};

/// Nanoseconds in a day.
const DAY: u64 = 24 * 60 * MINUTE;

/// What can be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Days of history to learn from, at least 1.
    pub days: u64,
    /// Of the simulation: the same seed sends the same telemetry.
    pub seed: u64,
}

/// Why the demo could not run to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DemoError(pub String);

/// What happens, for whoever shows it.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The daemon runs; history from the first moment to the second is going to be replayed.
    Started {
        /// Begin of the history.
        from: UnixNanos,
        /// Its end.
        to: UnixNanos,
    },
    /// How far the replay is.
    Learning {
        /// Simulated minutes of all environments that were sent.
        done: u64,
        /// Of how many.
        total: u64,
    },
    /// The history is learnt; from now on it watches.
    Watching {
        /// Spans and log records so far.
        records: u64,
        /// Anomalies that were reported while learning.
        anomalies: usize,
        /// Incidents that they made.
        incidents: usize,
        /// Until when.
        to: UnixNanos,
    },
    /// Something breaks.
    Broken(&'a Fault),
    /// It is repaired.
    Repaired(&'a Fault),
    /// The daemon has found something.
    Found {
        /// What.
        findings: &'a Findings,
        /// All of it is from the time of learning.
        learning: bool,
    },
}

/// The end of the simulated time: the last 15:00 UTC that has passed, so that the faults fall into the busy hours
/// whenever the demo is run.
#[must_use]
pub fn end_before(now: UnixNanos) -> UnixNanos {
    let end = now.floor(DAY).plus(15 * 60 * MINUTE);
    if end > now { end.minus(DAY) } else { end }
}

/// Runs the demo, whose simulated time ends at `end`, and tells what happens.
///
/// # Errors
/// What kept the daemon from starting or from taking what was sent.
pub async fn run(options: Options, end: UnixNanos, tell: &mut impl FnMut(Event<'_>)) -> Result<Report, DemoError> {
    let watched_from = end.minus(WATCH);
    let from = watched_from.minus(options.days * DAY);
    let faults = schedule(end);
    let mut judge = Judge::new(&faults, watched_from);
    let mut inbox = Inbox::open(&format!("demo-{}", fastrand::u64(..)));
    let daemon = Daemon::start(inbox.name()).await?;
    inbox.seal();
    tell(Event::Started { from, to: watched_from });

    let mut crew = learn(options, &daemon, &faults, from..watched_from, &mut inbox, &mut |event| match event {
        Heard::Progress { done, total } => tell(Event::Learning { done, total }),
        Heard::Found(findings) => tell(Event::Found { findings: &findings, learning: judge.hear(&findings) }),
    })
    .await?;
    daemon.settle().await;
    while let Some(findings) = inbox.try_recv() {
        tell(Event::Found { findings: &findings, learning: judge.hear(&findings) });
    }
    let records = |crew: &[Service]| crew.iter().map(|s| s.sender.sent).sum::<u64>();
    tell(Event::Watching {
        records: records(&crew),
        anomalies: judge.learning(),
        incidents: judge.incidents_learning(),
        to: end,
    });

    // All environments minute by minute, so that what is found comes when it is found.
    let mut now = watched_from;
    while now < end {
        for fault in &faults {
            if fault.start == now {
                tell(Event::Broken(fault));
            }
            if fault.end == now {
                tell(Event::Repaired(fault));
            }
        }
        for service in &mut crew {
            service.minute(now).await?;
        }
        daemon.settle().await;
        while let Some(findings) = inbox.try_recv() {
            tell(Event::Found { findings: &findings, learning: judge.hear(&findings) });
        }
        now = now.plus(MINUTE);
    }
    let records = records(&crew);
    drop(crew);

    // The last buckets close when the pipelines drain.
    let stopping = tokio::spawn(daemon.stop());
    while let Some(findings) = inbox.recv().await {
        tell(Event::Found { findings: &findings, learning: judge.hear(&findings) });
    }
    stopping.await.map_err(|e| DemoError(format!("the daemon did not stop: {e}")))??;
    Ok(judge.finish(options.days, options.seed, records))
}

/// The services of one environment and their connections.
struct Service {
    simulation: Simulation,
    sender: Sender,
}

impl Service {
    async fn minute(&mut self, start: UnixNanos) -> Result<(), DemoError> {
        let activities = self.simulation.minute(start);
        self.sender.send(&activities).await
    }
}

enum Heard {
    Progress { done: u64, total: u64 },
    Found(Arc<Findings>),
}

/// Sends the history of all environments, each as fast as it goes, and gives back the services as they are then.
async fn learn(
    options: Options,
    daemon: &Daemon,
    faults: &[Fault],
    history: std::ops::Range<UnixNanos>,
    inbox: &mut Inbox,
    tell: &mut impl FnMut(Heard),
) -> Result<Vec<Service>, DemoError> {
    let minutes = (history.end.0 - history.start.0) / MINUTE;
    let total = minutes * PLACES.len() as u64;
    let done = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for place in PLACES {
        let mut service = Service {
            simulation: Simulation::new(place, options.seed, faults),
            sender: Sender::connect(place.name, daemon.ports, options.seed).await?,
        };
        let (done, start) = (Arc::clone(&done), history.start);
        tasks.spawn(async move {
            for minute in 0..minutes {
                service.minute(start.plus(minute * MINUTE)).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(service)
        });
    }
    let mut crew = Vec::with_capacity(PLACES.len());
    let mut every = tokio::time::interval(Duration::from_millis(100));
    while crew.len() < PLACES.len() {
        tokio::select! {
            Some(service) = tasks.join_next() => {
                crew.push(service.map_err(|e| DemoError(format!("a simulated service ended: {e}")))??);
            }
            Some(findings) = inbox.recv() => tell(Heard::Found(findings)),
            _ = every.tick() => tell(Heard::Progress { done: done.load(Ordering::Relaxed), total }),
        }
    }
    tell(Heard::Progress { done: total, total });
    // They end in any order; the watch goes through them in one and the same.
    crew.sort_by_key(|s| PLACES.iter().position(|p| p.name == s.sender.environment));
    Ok(crew)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_time_ends_in_the_afternoon_and_never_in_the_future() {
        let noon = UnixNanos::from_secs(1_768_478_400);
        assert_eq!(end_before(noon).rfc3339(), "2026-01-14T15:00:00.000Z");
        assert_eq!(end_before(noon.plus(3 * 60 * MINUTE)).rfc3339(), "2026-01-15T15:00:00.000Z");
        assert_eq!(end_before(noon.plus(10 * 60 * MINUTE)).rfc3339(), "2026-01-15T15:00:00.000Z");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_day_of_history_is_enough_to_find_every_fault_and_to_stay_quiet_elsewhere() {
        let end = UnixNanos::from_secs(1_768_489_200);
        let (mut sent, mut printed, mut order) = (0, 0, Vec::new());
        let mut tell = |event: Event<'_>| match event {
            Event::Watching { records, .. } => sent = records,
            Event::Broken(fault) => order.push(fault.words()),
            Event::Found { findings, .. } => printed += findings.anomalies.len(),
            _ => {}
        };
        let report = run(Options { days: 1, seed: 1 }, end, &mut tell).await.unwrap();
        assert!(report.passed, "{}", report.text());
        assert_eq!(order, report.faults.iter().map(|o| o.fault.words()).collect::<Vec<_>>());
        assert!(sent > 500_000 && report.records > sent, "{sent} of {}", report.records);
        let judged: usize = report.environments.iter().map(|e| e.learning + e.of_faults + e.false_alarms).sum();
        assert_eq!(printed, judged);
        assert!(report.incidents_of_faults() <= 6, "four faults are about four incidents: {}", report.text());
        for outcome in &report.faults {
            assert!(!outcome.incidents.is_empty(), "{}", report.text());
            let finding = outcome.found.as_ref().unwrap();
            assert!(finding.after_minutes <= 3, "{}", report.text());
            assert!(!finding.anomaly.reasons.is_empty());
        }
    }
}
