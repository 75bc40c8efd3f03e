//! The promises of the detector as a whole: the core without threads, then the connector with them.

mod checkpoints;
mod connector;
mod joint;
mod measure;
mod models;
mod promises;
mod quieting;
mod receipts;
mod simulation;

use std::sync::Arc;

use detection::Sketch;

use super::Config;
use super::checkpoint::{self, tests::Chunks};
use super::core::{Core, Feed, Settings};
use super::intake::Intake;
use super::key::Who;
use super::outcome::Outcome;
use crate::config::Duration;
use crate::model::{
    Anomaly, Entity, Environment, Measure, Observation, Observations, Payload, Reading, Signal, SourceId, SpanKind, UnixNanos,
};
use crate::storage::{MemoryStorage, SimFiles};

/// A Monday, at the start of a bucket.
const BEGIN: u64 = 1_767_571_200;
const MINUTE: u64 = 60;

fn environment() -> Environment {
    Environment::new("production")
}

/// When the fault begins, and when all ends, in minutes.
const FAULT: u64 = 500;
const LONG: u64 = 512;

/// One that judges early, so that tests need not feed days.
fn config() -> Config {
    Config { warmup: 240.into(), threshold: 1.5, ..Config::default() }
}

fn settings(config: &Config) -> Arc<Settings> {
    Arc::new(Settings::new(&environment(), "detector", config))
}

/// Small reproducible noise, 0 to 1 in steps of 1/64, so that sums of it are exact in any order.
fn noise(seed: u64) -> f64 {
    let mut x = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((x ^ (x >> 31)) % 64) as f64 / 64.0
}

fn observation(entity: Entity, metric: &str, second: u64, measure: Measure) -> Observation {
    Observation { entity: Arc::new(entity), metric: metric.into(), unit: "s".into(), time: UnixNanos::from_secs(second), measure }
}

/// `count` calls of `service`, of about `seconds` each.
fn calls(service: &str, second: u64, count: u32, errors: u32, seconds: f64) -> Observation {
    let mut latency = Sketch::new();
    for i in 0..count {
        latency.add(seconds * (1.0 + noise(second * 1000 + u64::from(i)) / 4.0), 1.0);
    }
    let entity = Entity { operation: Some("POST /pay".into()), kind: Some(SpanKind::Server), ..Entity::service(service) };
    observation(entity, "span", second, Measure::Calls { count: f64::from(count), errors: f64::from(errors), latency })
}

fn gauge(service: &str, second: u64, value: f64) -> Observation {
    observation(Entity::service(service), "queue", second, Measure::Gauge { sum: value, count: 1.0 })
}

fn total(service: &str, second: u64, start: u64, total: f64) -> Observation {
    let reading = Reading { start: UnixNanos::from_secs(start), total, monotonic: true, bins: Vec::new() };
    observation(Entity::service(service), "requests", second, Measure::Cumulative(reading))
}

/// What healthy services send in the 10 s from `second` on: calls, a level and a running total.
fn healthy(second: u64) -> Vec<Observation> {
    let mut all = Vec::new();
    for (i, service) in ["cart", "checkout"].iter().enumerate() {
        let seed = second * 7 + i as u64;
        all.push(calls(service, second, 20 + (noise(seed) * 6.0) as u32, 0, 0.125));
        all.push(gauge(service, second, 50.0 + noise(seed + 1) * 4.0));
        all.push(total(service, second, BEGIN - 10, (second - BEGIN) as f64 * 4.0 + noise(seed + 2)));
    }
    all
}

/// As [`healthy`], but `checkout` is slow and fails.
fn faulty(second: u64) -> Vec<Observation> {
    let mut all = healthy(second);
    all.retain(|o| !(o.entity.service == "checkout" && &*o.metric == "span"));
    all.push(calls("checkout", second, 20, 9, 2.0));
    all
}

/// All that is sent from minute `from` to `to`, with a fault from minute `fault` on.
fn minutes(from: u64, to: u64, fault: u64) -> Vec<Observation> {
    let seconds = (BEGIN + from * MINUTE..BEGIN + to * MINUTE).step_by(10);
    seconds.flat_map(|s| if s < BEGIN + fault * MINUTE { healthy(s) } else { faulty(s) }).collect()
}

fn payload(items: Vec<Observation>) -> Payload {
    let newest = items.iter().map(|o| o.time).max().unwrap_or_default();
    let source = SourceId::from("otlp");
    Payload::Observations(Arc::new(Observations {
        environment: environment(),
        source,
        signal: Signal::Traces,
        items,
        newest,
        versions: Vec::new(),
        calls: Vec::new(),
    }))
}

/// Shards without threads.
struct Bench {
    cores: Vec<Core>,
    intake: Intake,
    now: UnixNanos,
    anomalies: Vec<Anomaly>,
    late: u64,
    closed: u64,
    events: std::collections::BTreeMap<&'static str, u64>,
    /// Where there is one, sweeps are done in slices, of sizes that it gives.
    slices: Option<fastrand::Rng>,
}

impl Bench {
    /// `now` in seconds.
    fn new(config: &Config, shards: usize, now: u64) -> Self {
        let settings = settings(config);
        let now = UnixNanos::from_secs(now);
        let cores = (0..shards).map(|_| Core::new(Arc::clone(&settings), now)).collect();
        let intake = Intake::new(&environment(), shards, settings.timing.bucket);
        let events = std::collections::BTreeMap::new();
        Self { cores, intake, now, anomalies: Vec::new(), late: 0, closed: 0, events, slices: None }
    }

    fn account(&mut self, outcome: Outcome) {
        self.anomalies.extend(outcome.found.anomalies);
        self.late += outcome.dropped.get("late").copied().unwrap_or(0);
        self.closed += outcome.closed;
        for (event, times) in outcome.events {
            *self.events.entry(event).or_default() += times;
        }
    }

    fn feed(&mut self, items: Vec<Observation>) {
        let divided = self.intake.divide(payload(items), self.now);
        self.feeds(divided.feeds);
    }

    fn feeds(&mut self, feeds: Vec<Feed>) {
        for (i, feed) in feeds.into_iter().enumerate() {
            let outcome = if self.slices.is_some() { self.cores[i].feed(feed) } else { self.cores[i].observe(feed) };
            self.account(outcome);
            self.slice(i);
        }
    }

    /// A slice of the sweep that is going on.
    fn slice(&mut self, i: usize) {
        let Some(slices) = &mut self.slices else { return };
        let rest = self.cores[i].sweep_on(slices.usize(0..4));
        for outcome in [self.cores[i].take_earlier(), rest].into_iter().flatten() {
            self.account(outcome);
        }
    }

    /// Brings all sweeps to their end.
    fn settle(&mut self) {
        for i in 0..self.cores.len() {
            let rest = self.cores[i].sweep_on(usize::MAX);
            rest.into_iter().for_each(|outcome| self.account(outcome));
        }
    }

    /// In batches of what is sent at the same moment.
    fn play(&mut self, items: &[Observation]) {
        for batch in items.chunk_by(|a, b| a.time == b.time) {
            self.feed(batch.to_vec());
        }
    }

    /// As time goes by: the clock shows the moment when something is sent.
    fn live(&mut self, items: &[Observation]) {
        for batch in items.chunk_by(|a, b| a.time == b.time) {
            self.tick(batch[0].time.secs() + 10);
            self.feed(batch.to_vec());
        }
    }

    fn tick(&mut self, second: u64) {
        self.now = UnixNanos::from_secs(second);
        for i in 0..self.cores.len() {
            let now = self.now;
            let outcome = if self.slices.is_some() { self.cores[i].clock(now) } else { self.cores[i].tick(now) };
            self.account(outcome);
            self.slice(i);
        }
    }

    fn found(&self) -> Vec<Anomaly> {
        let mut all = self.anomalies.clone();
        super::anomaly::sort(&mut all);
        all
    }

    /// What the shards have learnt, as saved.
    fn save(&mut self) -> Chunks {
        checkpoint::tests::written(&mut self.cores)
    }

    /// What the shards have learnt, brought together in one.
    fn state(&mut self) -> Vec<Vec<u8>> {
        let mut core = Self::load(self.save(), &config(), 1).remove(0);
        core.sort_sources();
        let checkpoint::Shared { sources, quieting, .. } = core.shared();
        let mut state = core.records();
        state.push(postcard::to_stdvec(&(sources, quieting)).unwrap());
        state
    }

    /// Other shards with what was saved.
    fn load(chunks: Chunks, config: &Config, shards: usize) -> Vec<Core> {
        let settings = settings(config);
        let all: Vec<Arc<Settings>> = (0..shards).map(|_| Arc::clone(&settings)).collect();
        checkpoint::load(chunks.into_iter().map(Ok), &all).unwrap().cores
    }

    /// Goes on in other shards with what was saved.
    fn reloaded(&mut self, config: &Config, shards: usize) -> Self {
        let cores = Self::load(self.save(), config, shards);
        Self { cores, anomalies: self.anomalies.clone(), ..Self::new(config, shards, self.now.secs()) }
    }
}

fn far_from_one_shard(entities: usize, shards: usize) -> Vec<usize> {
    let mut counts = vec![0; shards];
    for i in 0..entities {
        counts[Who::from(Entity::service(&format!("service-{i}"))).shard(shards)] += 1;
    }
    counts
}

fn short(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A shard that has learnt something.
pub(super) fn learnt() -> Core {
    let mut bench = Bench::new(&config(), 1, BEGIN + 400 * 86_400);
    bench.play(&minutes(0, 30, LONG));
    bench.cores.remove(0)
}
