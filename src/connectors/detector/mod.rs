//! Learns what is normal for every series of one environment, and tells what is not.

mod anomaly;
mod bucket;
mod checkpoint;
mod config;
mod core;
mod group;
mod incidents;
mod intake;
mod joint;
mod journal;
mod judged;
mod key;
mod limits;
mod merge;
mod model;
mod outcome;
mod points;
mod reading;
mod rules;
mod shard;
mod state;
mod sweep;
mod teller;
#[cfg(test)]
mod tests;
mod training;
mod warmup;
mod watch;
mod watermark;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::checkpoint::Outcome;
pub use self::config::Config;
pub use self::incidents::{AlertsConfig, IncidentsConfig, Per};
use self::journal::{Checkpointing, Machine, Recovered, Recovery, Schedule, Started, Volume, Work, Writer};
pub use self::journal::{Replayed, replay, rewrite};
pub use self::rules::{Amount, Deployments, Direction, Maintenance, Match, Rule};
use self::teller::Sink;
use self::warmup::Learning;
pub use self::warmup::{FullWarmup, Warmup};
use crate::model::{Findings, PayloadKind, Signal};
use crate::pipeline::{
    Backoff, BuildError, Class, ComponentError, Connector, Context, Factory, Input, Instance, Make, Outbox, Output, Pressure,
    Status,
};
use crate::storage::Log;

/// The connector's type.
pub const FACTORY: Factory = Factory {
    kind: "detector",
    about: "Learns what is normal for every series of this environment, and tells what is not.",
    acknowledgement: "An observation is taken in when it is in the input log on disk; whatever ends the daemon, it is learnt once.",
    schema: |generator| generator.subschema_for::<Config>(),
    implicit: true,
    files: &["maintenance.*.calendar"],
    gives: |kind| match kind {
        PayloadKind::Observations | PayloadKind::Telemetry(Signal::Metrics) => Some(PayloadKind::Anomalies),
        PayloadKind::Telemetry(_) | PayloadKind::Anomalies => None,
    },
    check: config::check,
    make: Make::Connector(make),
};

/// What waits in front of the journal before the detector's input waits.
const WAITING: usize = 64;

/// What a series takes in memory, about, in bytes.
const SERIES: u64 = 8 << 10;

/// Bytes that all series that a detector may learn would take, about.
pub fn most_memory(config: &serde_json::Value) -> u64 {
    Config::read(config).map_or(0, |config| (config.max_series as u64).saturating_mul(SERIES))
}

/// How often the shards are told the time.
const TICK: Duration = Duration::from_secs(1);

fn make(instance: Instance) -> Result<Box<dyn Connector>, BuildError> {
    let mut config = Config::read(&instance.config).map_err(BuildError::new)?;
    if let Some(problem) = config::check(&instance.config).into_iter().find(|p| p.fatal) {
        return Err(BuildError::new(format!("`{}`: {}", problem.path.join("."), problem.message)));
    }
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(64);
    config.shards = if config.shards == 0 { cores() } else { config.shards };
    let shards = config.shards;
    let bucket = config.bucket.nanos();
    let context = instance.context;
    let learnt =
        state::checkpoints(&context).is_some_and(|all| checkpoint::learnt(&all, bucket)) || journal::has_entries(&context);
    // Asked before the receivers are made, which begin where it says.
    let learning = Learning::begin(&context, config.warmup, learnt, bucket).map_err(BuildError::new)?;
    let started = Started {
        environment: context.environment.to_string(),
        detector: context.id.to_string(),
        now: context.services.clock.now(),
        config: instance.config.to_string(),
        shards: u32::try_from(shards).unwrap_or(u32::MAX),
        live_from: learning.live_from(),
        in_history: learning.is_on(),
    };
    Ok(Box::new(Detector { config, shards, context, started, learning: Some(learning), recovered: None, outbox: None }))
}

/// The asynchronous shell: takes payloads in, tells the time, hands findings on.
struct Detector {
    config: Config,
    shards: usize,
    context: Context,
    /// With what it begins to run.
    started: Started,
    /// What is learnt before the environment goes live; taken by `run`.
    learning: Option<Learning>,
    /// What it goes on with; made by `start`, taken by `run`.
    recovered: Option<(Recovered<ToOutbox>, Outbox)>,
    /// Where findings go, once it is open.
    outbox: Option<Outbox>,
}

impl Drop for Detector {
    fn drop(&mut self) {
        // It may end while it still learns again what came in, and a thread waits for a disk that takes no findings.
        self.outbox.iter().for_each(Outbox::abandon);
    }
}

/// Puts what was found into the outbox.
struct ToOutbox {
    outbox: Outbox,
    /// Some of it could not be kept.
    lost: Option<String>,
}

impl Sink for ToOutbox {
    fn take(&mut self, at: u64, findings: Findings) {
        if self.lost.is_some() {
            // What is behind a gap would make it look as if it were there: all of it is found again after the next start.
            return;
        }
        if let Err(error) = self.outbox.append(at, &findings) {
            self.lost = Some(error.to_string());
        }
    }

    fn checkpoint(&mut self) -> Result<Vec<(String, Vec<u8>)>, String> {
        match &self.lost {
            Some(lost) => Err(lost.clone()),
            None => self.outbox.sync().map(|()| Vec::new()).map_err(|e| e.to_string()),
        }
    }
}

#[async_trait]
impl Connector for Detector {
    async fn start(&mut self) -> Result<(), ComponentError> {
        let context = self.context.clone();
        let opening = tokio::task::spawn_blocking(move || Outbox::open(&context));
        let outbox = opening.await.map_err(ComponentError::new)?.map_err(ComponentError::new)?;
        self.outbox = Some(outbox.clone());
        let recovery = Recovery {
            context: self.context.clone(),
            config: self.config.clone(),
            shards: self.shards,
            started: self.started.clone(),
        };
        let mut recovered = recovery.recover(ToOutbox { outbox: outbox.clone(), lost: None }).await?;
        if let Some(highest) = outbox.highest_entry().filter(|highest| *highest >= recovered.machine.feeder.next) {
            // The input log has lost its end: a number that exporters know must not stand for something else.
            recovered.machine.feeder.next = highest + 1;
            if let Some(log) = &mut recovered.log {
                log.skip_to(highest + 1).map_err(ComponentError::new)?;
            }
        }
        let feeder = &recovered.machine.feeder;
        let (environment, component, entries) = (&self.context.environment, &self.context.id, recovered.replayed);
        if entries > 0 {
            self.context.counters.event("entries_replayed", entries);
            tracing::info!(%environment, %component, entries, "what came in since the last checkpoint is learnt again");
        }
        if feeder.known.marks().next().is_some()
            && let Some(log) = recovered.log.take()
        {
            recovered.log = Some(self.safe(log).await?);
        }
        self.context.services.registry.post_marks(environment, recovered.machine.feeder.known.marks().cloned());
        self.recovered = Some((recovered, outbox));
        Ok(())
    }

    async fn run(mut self: Box<Self>, input: Input, output: Output) -> Result<(), ComponentError> {
        let (Some((recovered, outbox)), Some(learning)) = (self.recovered.take(), self.learning.take()) else {
            return Err(ComponentError::new("the detector was not started"));
        };
        let Recovered { machine, log, observations, .. } = recovered;
        let Machine { feeder, reports, written, sweeping, ending, due } = machine;
        let durable = log.is_some();
        let checkpoints = state::checkpoints(&self.context).map(|all| {
            let services = &self.context.services;
            let bytes = services.input_log.map_or(u64::MAX, |log| log.max_size / 4);
            let since = Volume { bytes: log.as_ref().map_or(0, Log::size), observations };
            let schedule = Schedule::new(services.checkpoint_interval, bytes, since, sweeping, written.clone());
            let newest = all.list().ok().and_then(|all| all.first().copied());
            Checkpointing { schedule, reports: reports.clone(), newest, own: false }
        });
        drop(reports);
        self.context.counters.gauge("series_limit", self.config.max_series as f64);
        let writer = Writer::new(self.context.clone(), feeder, log, self.started.clone(), checkpoints);
        let (work, works) = mpsc::channel(WAITING);
        let writing = tokio::task::spawn_blocking(move || writer.run(works));
        let training = training::stage(due, &self.context);
        let ending = async {
            let ended = ending.ended().await.map(drop);
            outbox.close();
            ended
        };
        let (fed, ended, sent, ()) = tokio::join!(self.feed(input, work, learning), ending, outbox.run(&output), training);
        writing.await.map_err(not_saved)?.map_err(ComponentError::new)?;
        fed?;
        ended?;
        sent?;
        let last = written.borrow().clone();
        match last {
            // What is in the log is learnt again.
            Some(Outcome::Lost { why, .. }) if !durable => Err(not_saved(why)),
            _ => Ok(()),
        }
    }
}

impl Detector {
    /// Waits until all of the log is on disk. What a process wrote that was killed may be known to the kernel alone, and a
    /// poller that hears that it was taken in does not read it again.
    async fn safe(&self, mut log: Log) -> Result<Log, ComponentError> {
        let Context { environment, id, health, shutdown, .. } = &self.context;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut told = None;
        loop {
            let syncing = tokio::task::spawn_blocking(move || (log.sync(), log));
            let (synced, back) = syncing.await.map_err(ComponentError::new)?;
            log = back;
            let Err(error) = synced else { break };
            let why = format!("what came in last cannot be made safe: {error}; it is tried again");
            if told.as_ref() != Some(&why) {
                tracing::error!(%environment, component = %id, "{why}");
                health.set(Status::RecoverableError(why.clone()));
                told = Some(why);
            }
            tokio::select! {
                () = shutdown.cancelled() => return Err(ComponentError::new("the daemon stops before the input log can be written")),
                () = tokio::time::sleep(backoff.next(None)) => {}
            }
        }
        if told.is_some() {
            health.set(Status::Starting);
        }
        Ok(log)
    }

    /// Gives the journal what comes in, and the time. Ends with the input.
    async fn feed(&self, mut input: Input, work: mpsc::Sender<Work>, mut learning: Learning) -> Result<(), ComponentError> {
        let give = async |one: Work| work.send(one).await.map_err(|_| shard_ended());
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let registry = &self.context.services.registry;
        let may_grow = || registry.memory().pressure() == Pressure::Normal;
        // Before anything comes in: the first tick of an interval may be a moment late.
        let mut growth = may_grow();
        give(Work::Growth(growth)).await?;
        let (environment, id) = (&self.context.environment, &self.context.id);
        let mut questions = registry.open_desk(environment, Class::Connector, id, rules::SUBJECTS);
        loop {
            tokio::select! {
                // A tick is never kept waiting by a full input. Nothing is taken in before the time is known.
                biased;
                _ = ticks.tick() => {
                    give(Work::Tick(self.context.services.clock.now())).await?;
                    if growth != may_grow() {
                        growth = !growth;
                        give(Work::Growth(growth)).await?;
                    }
                    if learning.ends_now() {
                        give(Work::Live).await?;
                        let storage = Arc::clone(&self.context.services.storage);
                        let kept = tokio::task::spawn_blocking(move || (learning.keep(&*storage), learning)).await;
                        let result;
                        (result, learning) = kept.map_err(not_saved)?;
                        result.map_err(not_saved)?;
                    }
                }
                Some(question) = questions.recv() => give(Work::Question(question)).await?,
                delivery = input.recv() => {
                    let Some(delivery) = delivery else {
                        if let Some(until) = learning.end_of_replay() {
                            give(Work::Finish(until)).await?;
                        }
                        return Ok(());
                    };
                    give(Work::Delivery(delivery)).await?;
                }
            }
        }
    }
}

fn shard_ended() -> ComponentError {
    ComponentError::new("a thread of the detector ended early; what it had learnt since the last start is lost")
}

fn not_saved(error: impl std::fmt::Display) -> ComponentError {
    ComponentError(format!("what was learnt could not be saved: {error}; the state of the last orderly stop stays in force"))
}
