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
mod judged;
mod key;
mod merge;
mod model;
mod points;
mod reading;
mod rules;
mod shard;
mod state;
#[cfg(test)]
mod tests;
mod training;
mod warmup;
mod watch;
mod watermark;

use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use self::checkpoint::{Outcome, Pieces, Writer};
pub use self::config::Config;
use self::core::{Core, Settings};
pub use self::incidents::{AlertsConfig, IncidentsConfig, Per};
use self::incidents::{Incidents, Told};
use self::intake::Intake;
use self::merge::Merge;
pub use self::rules::{Amount, Deployments, Direction, Maintenance, Match, Rule};
use self::rules::{Part, Request};
use self::shard::{Command, Report, Shared};
use self::warmup::Learning;
pub use self::warmup::{FullWarmup, Warmup};
use crate::model::{IncidentEvent, Payload, PayloadKind, Signal, UnixNanos};
use crate::pipeline::{
    BuildError, Class, ComponentError, Connector, Context, Delivery, Factory, Input, Instance, Make, Output, Question,
};

/// The connector's type.
pub const FACTORY: Factory = Factory {
    kind: "detector",
    about: "Learns what is normal for every series of this environment, and tells what is not.",
    acknowledgement: "An observation counts as sent when it is in its bucket in memory; what is learnt is on disk after an orderly stop.",
    schema: |generator| generator.subschema_for::<Config>(),
    implicit: true,
    gives: |kind| match kind {
        PayloadKind::Observations | PayloadKind::Telemetry(Signal::Metrics) => Some(PayloadKind::Anomalies),
        PayloadKind::Telemetry(_) | PayloadKind::Anomalies => None,
    },
    check: config::check,
    make: Make::Connector(make),
};

/// The name of the incidents in a checkpoint.
const INCIDENTS: &str = "incidents";

/// How often the shards are told the time.
const TICK: Duration = Duration::from_secs(1);

fn make(instance: Instance) -> Result<Box<dyn Connector>, BuildError> {
    let config = Config::read(&instance.config).map_err(BuildError::new)?;
    if let Some(problem) = config::check(&instance.config).into_iter().find(|p| p.fatal) {
        return Err(BuildError::new(format!("`{}`: {}", problem.path.join("."), problem.message)));
    }
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(64);
    let shards = if config.shards == 0 { cores() } else { config.shards };
    let bucket = config.bucket.nanos();
    let context = instance.context;
    let learnt = state::checkpoints(&context).is_some_and(|all| checkpoint::learnt(&all, bucket));
    // Asked before the receivers are made, which begin where it says.
    let learning = Learning::begin(&context, config.warmup, learnt, bucket).map_err(BuildError::new)?;
    Ok(Box::new(Detector { config, shards, context, learning: Some(learning) }))
}

/// The asynchronous shell around the shards: takes payloads in, tells the time, hands anomalies on, saves.
struct Detector {
    config: Config,
    shards: usize,
    context: Context,
    /// What is learnt before the environment goes live; taken by `run`.
    learning: Option<Learning>,
}

#[async_trait]
impl Connector for Detector {
    async fn run(mut self: Box<Self>, input: Input, output: Output) -> Result<(), ComponentError> {
        let mut settings = Settings::new(&self.context.environment, &self.context.id.to_string(), &self.config);
        settings.observer = self.context.services.registry.observer();
        let settings = Arc::new(settings);
        let bucket = settings.timing.bucket;
        let Some(learning) = self.learning.take() else { return Ok(()) };
        let (mut cores, incidents, index) = self.load(settings).await?;
        if learning.is_on() {
            // Nothing has been fed yet, so nothing can be closed by it.
            cores.iter_mut().for_each(|core| drop(core.learn_history(true)));
        }
        let (desk, due) = training::open();
        cores.iter_mut().for_each(|core| core.desk = desk.clone());
        // The training stage ends when the last shard does.
        drop(desk);
        let (reports, heard) = mpsc::channel(4 * self.shards);
        let (writer, pieces, written) = Writer::new(&self.context, state::checkpoints(&self.context), self.shards, bucket);
        let writing = tokio::task::spawn_blocking(move || writer.run());
        let shared = Shared {
            counters: Arc::clone(&self.context.counters),
            reports,
            pieces: pieces.sender(),
            warned: Arc::new(Once::new()),
            live_from: learning.live_from(),
        };
        let mut shards = Vec::with_capacity(cores.len());
        for (number, core) in cores.into_iter().enumerate() {
            let started = shard::start(number, core, shared.clone());
            shards.push(started.map_err(|e| ComponentError(format!("cannot start thread {number} of the detector: {e}")))?);
        }
        // The reports end when the last shard does.
        drop(shared);
        let training = training::stage(due, &self.context);
        let (fed, told, ()) = tokio::join!(
            self.feed(input, shards, bucket, learning, index),
            self.tell(heard, &output, incidents, pieces),
            training
        );
        fed.and(told)?;
        writing.await.map_err(not_saved)?;
        let last = written.borrow().clone();
        match last {
            Some(Outcome::Lost { why, .. }) => Err(not_saved(why)),
            Some(Outcome::Written { .. }) | None => Ok(()),
        }
    }
}

impl Detector {
    /// The shards with what they learnt before the last stop, the incidents that were not over then, and the index of
    /// the next checkpoint.
    async fn load(&self, settings: Arc<Settings>) -> Result<(Vec<Core>, Incidents, u64), ComponentError> {
        let all: Vec<Arc<Settings>> = (0..self.shards).map(|_| Arc::clone(&settings)).collect();
        let now = self.context.services.clock.now();
        let (environment, component) = (self.context.environment.clone(), self.context.id.to_string());
        let mut incidents = Incidents::new(&environment, self.config.incidents());
        let anew = move |all: Vec<Arc<Settings>>| all.into_iter().map(|s| Core::new(s, now)).collect();
        let Some(checkpoints) = state::checkpoints(&self.context) else { return Ok((anew(all), incidents, 0)) };
        let counters = Arc::clone(&self.context.counters);
        let loading = move || {
            let index = checkpoints.list().ok().and_then(|all| all.first().copied()).map_or(0, |newest| newest + 1);
            let unusable = |error: &checkpoint::LoadError| {
                counters.event("checkpoints_unusable", 1);
                tracing::warn!(%environment, component, %error, "a checkpoint cannot be used; the one before it is tried");
            };
            let tidied = checkpoints.tidy().map_err(checkpoint::LoadError::from);
            let loaded = match tidied.and_then(|()| checkpoint::newest(&checkpoints, &all, unusable)) {
                Ok(None) => return (anew(all), incidents, index),
                Ok(Some((_, loaded))) => loaded,
                Err(reason) => {
                    tracing::warn!(%environment, component, %reason, "what was learnt before cannot be used; learning starts anew");
                    return (anew(all), incidents, index);
                }
            };
            let checkpoint::Loaded { mut cores, named } = loaded;
            if let Some(Err(reason)) = named.get(INCIDENTS).map(|bytes| incidents.restore(bytes)) {
                tracing::warn!(%environment, component, %reason, "open incidents cannot be read; they begin anew");
            }
            cores.iter_mut().for_each(|core| core.resume(now));
            let series: usize = cores.iter().map(Core::series).sum();
            counters.event("series_restored", series as u64);
            tracing::info!(%environment, component, series, "goes on with what was learnt before");
            (cores, incidents, index)
        };
        tokio::task::spawn_blocking(loading)
            .await
            .map_err(|e| ComponentError(format!("loading what was learnt ended early: {e}")))
    }

    /// Gives the shards what comes in, and the time. Ends with the input.
    async fn feed(
        &self,
        mut input: Input,
        shards: Vec<mpsc::Sender<Command>>,
        bucket: u64,
        mut learning: Learning,
        index: u64,
    ) -> Result<(), ComponentError> {
        let mut intake = Intake::new(&self.context.environment, shards.len(), bucket);
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Nothing is taken in before the time is known.
        let mut now = self.tick(&shards).await?;
        let registry = &self.context.services.registry;
        let (environment, id) = (&self.context.environment, &self.context.id);
        let mut questions = registry.open_desk(environment, Class::Connector, id, rules::SUBJECTS);
        loop {
            tokio::select! {
                // A tick is never kept waiting by a full input.
                biased;
                _ = ticks.tick() => {
                    now = self.tick(&shards).await?;
                    if learning.ends_now() {
                        self.all(&shards, || Command::Live).await?;
                        let storage = Arc::clone(&self.context.services.storage);
                        let kept = tokio::task::spawn_blocking(move || (learning.keep(&*storage), learning)).await;
                        let result;
                        (result, learning) = kept.map_err(not_saved)?;
                        result.map_err(not_saved)?;
                    }
                }
                Some(question) = questions.recv() => self.ask(question, &shards).await?,
                delivery = input.recv() => {
                    let Some(Delivery { payload, mut flight, .. }) = delivery else {
                        if let Some(until) = learning.end_of_replay() {
                            self.all(&shards, || Command::Finish(until)).await?;
                        }
                        return match self.context.services.files {
                            Some(_) => self.all(&shards, || Command::Checkpoint(index)).await,
                            None => Ok(()),
                        };
                    };
                    let divided = intake.divide(payload, now);
                    for (reason, records) in divided.dropped {
                        flight.dropped(records, reason);
                    }
                    // What says nothing is no command.
                    if divided.feeds.is_empty() {
                        continue;
                    }
                    for (shard, feed) in shards.iter().zip(divided.feeds) {
                        let part = flight.split(feed.records());
                        shard.send(Command::Feed(feed, part)).await.map_err(|_| shard_ended())?;
                    }
                }
            }
        }
    }

    /// Gives a question to all shards, between two feeds; their answers are brought together when they come.
    async fn ask(&self, question: Question, shards: &[mpsc::Sender<Command>]) -> Result<(), ComponentError> {
        let request = match Request::read(&question.subject, question.body.clone(), self.context.services.clock.now()) {
            Ok(request) => Arc::new(request),
            Err(refusal) => {
                question.answer(Err(refusal));
                return Ok(());
            }
        };
        let (answer, mut parts) = mpsc::channel::<Part>(shards.len());
        for shard in shards {
            shard.send(Command::Ask(Arc::clone(&request), answer.clone())).await.map_err(|_| shard_ended())?;
        }
        tokio::spawn(async move {
            drop(answer);
            let mut all = Vec::new();
            while let Some(part) = parts.recv().await {
                all.push(part);
            }
            question.answer(rules::gather(&request, all));
        });
        Ok(())
    }

    /// Tells the shards the time.
    async fn tick(&self, shards: &[mpsc::Sender<Command>]) -> Result<UnixNanos, ComponentError> {
        let now = self.context.services.clock.now();
        self.all(shards, || Command::Tick(now)).await?;
        Ok(now)
    }

    /// Tells all shards the same.
    async fn all(&self, shards: &[mpsc::Sender<Command>], command: impl Fn() -> Command) -> Result<(), ComponentError> {
        for shard in shards {
            shard.send(command()).await.map_err(|_| shard_ended())?;
        }
        Ok(())
    }

    /// Hands on what the shards find; adds to a checkpoint what is kept behind them.
    async fn tell(
        &self,
        mut reports: mpsc::Receiver<Report>,
        output: &Output,
        mut incidents: Incidents,
        pieces: Pieces,
    ) -> Result<(), ComponentError> {
        let mut ended = 0;
        let mut merge = Merge::new(self.shards);
        self.show(&incidents);
        while let Some(report) = reports.recv().await {
            match report {
                Report::Found { shard, command, found } => {
                    let Some(found) = merge.take(shard, command, found) else { continue };
                    if let Some(index) = found.checkpoint {
                        let bytes = incidents.save().map_err(not_saved)?;
                        pieces.behind(index, vec![(INCIDENTS.to_owned(), bytes)]).await;
                    }
                    if found.is_empty() && found.until.is_none() {
                        continue;
                    }
                    let told = incidents.take(found);
                    self.hand_on(told, &incidents, output).await;
                }
                Report::Ended => ended += 1,
            }
        }
        if ended == self.shards { Ok(()) } else { Err(shard_ended()) }
    }
}

impl Detector {
    /// Hands on what one command has come to, and counts it.
    async fn hand_on(&self, told: Told, incidents: &Incidents, output: &Output) {
        let Told { findings, below_budget, threshold } = told;
        let counters = &self.context.counters;
        if let Some(change) = threshold {
            tracing::info!(
                environment = %self.context.environment,
                component = %self.context.id,
                from = change.from,
                to = change.to,
                "the budget for alerts has moved the threshold"
            );
        }
        let of = |event| findings.incidents.iter().filter(|i| i.event == event).count() as u64;
        for (event, times) in [
            ("anomalies", findings.anomalies.len() as u64),
            ("below_budget", below_budget),
            ("incidents_opened", of(IncidentEvent::Opened)),
            ("incidents_escalated", of(IncidentEvent::Escalated)),
            ("incidents_ended", of(IncidentEvent::Ended)),
        ] {
            if times > 0 {
                counters.event(event, times);
            }
        }
        if threshold.is_some() || !findings.incidents.is_empty() {
            self.show(incidents);
        }
        let (anomalies, events) = (findings.anomalies.len() as u64, findings.incidents.len() as u64);
        if !findings.is_empty() && output.send(Payload::Anomalies(Arc::new(findings))).await.is_err() {
            counters.event("anomalies_undelivered", anomalies);
            counters.event("incidents_undelivered", events);
        }
    }

    /// Shows what stands now, for `/metrics`.
    fn show(&self, incidents: &Incidents) {
        self.context.counters.gauge("alert_threshold", incidents.threshold());
        self.context.counters.gauge("incidents_open", incidents.open() as f64);
    }
}

fn shard_ended() -> ComponentError {
    ComponentError::new("a thread of the detector ended early; what it had learnt since the last start is lost")
}

fn not_saved(error: impl std::fmt::Display) -> ComponentError {
    ComponentError(format!("what was learnt could not be saved: {error}; the state of the last orderly stop stays in force"))
}
