//! The training stage: models that are due are trained beside the shards, one at a time.
//!
//! A shard never waits for it: the series takes what was trained when its time has come, and trains itself if nobody
//! did. So where the work was done shows in nothing but time, and a full queue loses nothing.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use detection::{Job, ModelKind, Series};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::key::VERSION;
use crate::model::DetectorRef;
use crate::pipeline::Context;

/// Models that wait to be trained. Each holds the values that it is trained on, some ten kilobytes.
const QUEUE: usize = 256;
/// How often what was trained is told.
const TOLD: Duration = Duration::from_secs(60);

/// Where shards hand in models that are due; closed where nobody trains.
#[derive(Clone, Debug, Default)]
pub(super) struct Desk(Option<mpsc::Sender<Job>>);

impl Desk {
    /// Hands in the training of `series`, if that is due and there is room.
    pub(super) fn offer(&self, series: &mut Series) {
        if !series.is_due() {
            return;
        }
        if let Some(Ok(place)) = self.0.as_ref().map(mpsc::Sender::try_reserve)
            && let Some(job) = series.job()
        {
            place.send(job);
        }
    }
}

/// A desk, and what is handed in there.
pub(super) fn open() -> (Desk, mpsc::Receiver<Job>) {
    let (sender, jobs) = mpsc::channel(QUEUE);
    (Desk(Some(sender)), jobs)
}

/// Trains until the last desk is gone.
pub(super) async fn stage(mut jobs: mpsc::Receiver<Job>, context: &Context) {
    let mut done = Done::default();
    let mut telling = tokio::time::interval_at(tokio::time::Instant::now() + TOLD, TOLD);
    telling.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            job = jobs.recv() => {
                let Some(job) = job else { break };
                let first = done.is_first();
                train(job, &mut done, context).await;
                // The first ones are worth a line at once: something can be found from now on.
                if first && jobs.is_empty() {
                    done.tell(context);
                }
            }
            _ = telling.tick() => done.tell(context),
        }
    }
    done.tell(context);
}

async fn train(job: Job, done: &mut Done, context: &Context) {
    if !job.is_wanted() {
        return;
    }
    let (model, version) = (job.model(), job.version().number);
    let begun = Instant::now();
    match tokio::task::spawn_blocking(move || job.train()).await {
        Ok(()) => done.add(model, begun.elapsed()),
        Err(error) => {
            context.counters.event("models_failed", 1);
            let (environment, component) = (&context.environment, context.id.to_string());
            tracing::warn!(%environment, component, model = model.as_str(), version, %error, "training ended early");
        }
    }
}

/// What was trained and not told yet.
#[derive(Debug, Default)]
struct Done {
    models: BTreeMap<&'static str, u32>,
    spent: Duration,
    told: bool,
}

impl Done {
    fn is_first(&self) -> bool {
        !self.told
    }

    fn add(&mut self, model: ModelKind, spent: Duration) {
        *self.models.entry(model.as_str()).or_default() += 1;
        self.spent += spent;
    }

    fn tell(&mut self, context: &Context) {
        if let Some(sentence) = self.sentence() {
            tracing::info!(environment = %context.environment, component = %context.id, "{sentence}");
            *self = Self { told: true, ..Self::default() };
        }
    }

    /// `trained 12 models (isolation_forest) in 1.2 s`.
    fn sentence(&self) -> Option<String> {
        let count: u32 = self.models.values().sum();
        let names: Vec<&str> = self.models.keys().copied().collect();
        let plural = if count == 1 { "model" } else { "models" };
        (count > 0).then(|| format!("trained {count} {plural} ({}) in {:.1} s", names.join(", "), self.spent.as_secs_f64()))
    }
}

/// What a shard sees of training while it closes buckets.
#[derive(Debug)]
pub(super) struct Trainings<'a> {
    desk: &'a Desk,
    installed: Cell<u64>,
}

impl<'a> Trainings<'a> {
    pub(super) const fn new(desk: &'a Desk) -> Self {
        Self { desk, installed: Cell::new(0) }
    }

    /// Lets `observe` show a value to `series`; counts if that judges by a new version since, and hands in what is due.
    pub(super) fn watch<T>(&self, series: &mut Series, observe: impl FnOnce(&mut Series) -> T) -> T {
        let before = series.version();
        let seen = observe(series);
        if series.version() != before {
            self.installed.set(self.installed.get() + 1);
        }
        self.desk.offer(series);
        seen
    }

    /// Versions that took over.
    pub(super) const fn installed(&self) -> u64 {
        self.installed.get()
    }
}

/// Who judged a value: the model and its version, as anomalies name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judge {
    pub(super) model: ModelKind,
    /// Of its training; 0 for a model that learns with every value.
    pub(super) version: u32,
}

impl Judge {
    pub(super) fn of(series: &Series) -> Self {
        Self { model: series.model(), version: series.version().map_or(0, |version| version.number) }
    }

    /// As anomalies tell it: the version of the mathematics, and behind it that of the training: `1.12`.
    pub(super) fn detector(self, name: &str) -> DetectorRef {
        let version = if self.version == 0 { VERSION.to_owned() } else { format!("{VERSION}.{}", self.version) };
        DetectorRef { name: name.to_owned(), kind: self.model.as_str().to_owned(), version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_trained_is_told_in_one_sentence() {
        let mut done = Done::default();
        assert_eq!(done.sentence(), None);
        done.add(ModelKind::IsolationForest, Duration::from_millis(400));
        assert_eq!(done.sentence().unwrap(), "trained 1 model (isolation_forest) in 0.4 s");
        done.add(ModelKind::IsolationForest, Duration::from_millis(800));
        assert_eq!(done.sentence().unwrap(), "trained 2 models (isolation_forest) in 1.2 s");
    }
}
