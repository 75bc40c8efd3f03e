//! A daemon between clients and a cluster, and what is left when it has ended: what it has learnt, found and delivered.
//!
//! Clients send to one environment, `production`; another, `polled`, reads what others write to the cluster. That lies in
//! the past, so the daemon is told at each start that the present is as long ago as time has come in the cluster
//! (`query_delay`): it follows it as it does the real one, window by window, with documents that are found late.

use std::collections::VecDeque;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use serde_json::Value;

use super::cluster::{Cluster, Documents};
use super::daemon::{Daemon, Setup};
use super::elasticsearch::Elasticsearch;
use super::index::Written;
use super::judge::{Outcome, POLLED, PRODUCTION, judge};
use super::metrics::Metrics;
use super::traffic::{Client, Step};
use super::{free_port, pipelines, traffic, unique};

const SOON: Duration = Duration::from_secs(120);

/// A daemon's configuration, its cluster and its port.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    read: Option<Read>,
}

/// Where documents are read.
struct Read {
    /// Lines that name it in a receiver's block.
    place: String,
    /// How many there will be.
    documents: u64,
    /// All of them are the past that is learnt before the environment goes live: nothing of it is told.
    history: bool,
    /// A real cluster, its index, and the documents that are not written yet, by the moment from which they are found. None:
    /// it is the one of the world, which has them all.
    real: Option<(Elasticsearch, String, Mutex<VecDeque<Written>>)>,
}

const DETECTOR: &str = "warmup: 60, threshold: 1.1, idle_timeout: 6h, shards: 2";
const WARMUP: &str = "warmup: 60";
/// Signals overtake one another where pages are read, and some documents come late.
const LATENESS: &str = "lateness: 20m";

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        Self::with_storage(seed, "checkpoint_interval: 1s, input_log: { max_size: 16MiB, segment_size: 1MiB }").await
    }

    /// With these keys of the block `storage`.
    pub(crate) async fn with_storage(seed: u64, storage: &str) -> Self {
        let cluster = Cluster::start(seed).await;
        let grpc = free_port();
        let mut setup = Setup::new();
        let pipeline = pipelines::all_signals(grpc, free_port());
        setup
            .environment(PRODUCTION, &watched(&pipeline, &setup, &cluster, PRODUCTION, DETECTOR))
            .more("pipeline: { shutdown_deadline: 20s }\n")
            .storage(storage);
        Self { setup, cluster, client: Client::new(grpc), read: None }
    }

    /// One that reads, too: the documents of so many minutes; see [`traffic::documents`].
    pub(crate) async fn reading(seed: u64, minutes: u64) -> Self {
        let mut world = Self::new(seed).await;
        let documents = traffic::documents(minutes);
        let place = format!("    endpoints: [\"{}\"]\n    indices: [telemetry]\n", world.cluster.url);
        world.read = Some(Read { place, documents: documents.len() as u64, history: false, real: None });
        world.cluster.index(|index| index.put(documents));
        world.setup.environment(POLLED, "");
        world
    }

    /// What it reads is history: all there from the beginning, and learnt page by small page.
    pub(crate) async fn with_history(mut self) -> Self {
        self.read.iter_mut().for_each(|read| read.history = true);
        self.reach(u64::MAX).await;
        self
    }

    /// As [`World::reading`], but the documents lie in a real cluster.
    pub(crate) async fn reading_from(elasticsearch: Elasticsearch, seed: u64, minutes: u64) -> Self {
        let mut world = Self::new(seed).await;
        let mut documents = traffic::documents(minutes);
        documents.sort_by_key(|document| document.found_from);
        let index = unique("telemetry-");
        elasticsearch.plain_index(&index).await;
        let place = format!("{}    indices: [{index}]\n", elasticsearch.yaml(4));
        let count = documents.len() as u64;
        world.read = Some(Read {
            place,
            documents: count,
            history: false,
            real: Some((elasticsearch, index, Mutex::new(documents.into()))),
        });
        world.setup.environment(POLLED, "");
        world
    }

    /// Tells the daemon that starts next how far time has come, and how large pages are.
    pub(crate) fn present(&self, moment: u64, page_size: usize) {
        let Some(Read { place, history, .. }) = &self.read else { return };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
        let (delay, page_size) = match history {
            true => (0, page_size / 8 + 1),
            false => ((now - Duration::from_nanos(moment)).as_millis(), page_size),
        };
        let receiver = format!(
            "  elasticsearch:
{place}    start: \"{}\"
    interval: 40ms
    page_size: {page_size}
    query_delay: {delay}ms
    query_delay_jitter: 0s
    overlap: 15m
    compression: none
    retry: {{ initial_interval: 10ms, max_interval: 50ms }}
",
            traffic::begin()
        );
        let pipeline = pipelines::all_signals_from("elasticsearch", &receiver);
        let warmup = if *history { "warmup: { buckets: 60, history: 1d }" } else { WARMUP };
        let detector = format!("{DETECTOR}, {LATENESS}").replace(WARMUP, warmup);
        self.setup.rewrite(POLLED, &watched(&pipeline, &self.setup, &self.cluster, POLLED, &detector));
    }

    /// Time has come to `moment` where documents are read: what is found from then on is there.
    pub(crate) async fn reach(&self, moment: u64) {
        let Some((elasticsearch, index, left)) = self.read.as_ref().and_then(|read| read.real.as_ref()) else {
            return self.cluster.index(|index| index.reach(moment));
        };
        let due: Vec<Value> = {
            let mut left = left.lock().expect("the documents");
            let due = left.partition_point(|document| document.found_from <= moment);
            left.drain(..due).map(|document| document.source).collect()
        };
        if !due.is_empty() {
            elasticsearch.index(index, due).await;
        }
    }

    /// What the daemon that has just ended knows, and what it has handed on.
    pub(crate) fn outcome(&self) -> Outcome {
        let documents = Documents { repeated: 0, refused: 0, ..self.cluster.documents() };
        let environments = [PRODUCTION, POLLED].into_iter().take(if self.read.is_some() { 2 } else { 1 });
        let files = environments.map(|name| (name, self.file(name))).collect();
        Outcome { digest: replay(self.setup.data(), "digest"), documents, files }
    }

    /// What the `file` exporter wrote in this environment.
    pub(crate) fn file(&self, environment: &str) -> String {
        std::fs::read_to_string(self.setup.path(&file_name(environment))).unwrap_or_default()
    }

    /// Sends the steps from `at` on, as far as `until` allows.
    pub(crate) async fn send(&self, steps: &[Step], at: &AtomicUsize, until: &AtomicUsize) -> u64 {
        let mut again = 0;
        while at.load(SeqCst) < steps.len() {
            if at.load(SeqCst) >= until.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            let step = &steps[at.load(SeqCst)];
            let times = join_all(step.iter().map(|request| self.client.deliver(request))).await;
            again += times.iter().map(|times| times - 1).sum::<u64>();
            at.fetch_add(1, SeqCst);
        }
        again
    }

    /// Waits until all documents are read and the cluster has all that was found, and ends the daemon.
    pub(crate) async fn end(&self, mut daemon: Daemon) {
        self.cluster.moody(false);
        if self.read.is_some() {
            let seen = daemon.metrics().await.polls();
            // The one that is under way may have begun before.
            daemon.metrics_when("a poll of all that is there", SOON, |metrics| metrics.polls() >= seen + 2).await;
        }
        assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    }
}

fn file_name(environment: &str) -> String {
    format!("found-{environment}.ndjson")
}

/// A pipeline whose findings go to a file and to the cluster.
fn watched(pipeline: &str, setup: &Setup, cluster: &Cluster, environment: &str, detector: &str) -> String {
    let file = format!("  file: {{ path: \"{}\" }}\n", setup.path(&file_name(environment)).display());
    let blocks = format!("connectors:\n  detector: {{ {detector} }}\nexporters:\n{file}{}service:\n", cluster.exporter());
    pipeline.replace("service:\n", &blocks).replace("exporters: [console]", "exporters: [file, elasticsearch]")
}

/// What `anomalyd replay` prints.
pub(crate) fn replay(data: &Path, format: &str) -> String {
    replay_with(data, &["--format", format])
}

/// What `anomalyd replay` prints of one environment, as the `file` exporter writes it.
pub(crate) fn replay_of(data: &Path, environment: &str) -> String {
    replay_with(data, &["--environment", environment])
}

fn replay_with(data: &Path, more: &[&str]) -> String {
    let output = replaying(data, more);
    assert!(output.status.success(), "replay: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Runs `anomalyd replay`, which fails where there is no log yet.
pub(crate) fn replaying(data: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anomalyd"));
    command.arg("replay").args(more).arg("--data-dir").arg(data).output().expect("the command runs")
}

/// What a daemon that nothing disturbs makes of `steps`, and of what it reads in this world until `minutes` are over.
pub(crate) async fn undisturbed(world: &World, steps: &[Step], minutes: u64) -> Outcome {
    world.reach(u64::MAX).await;
    world.present(traffic::end_of(traffic::all(minutes)), 200);
    let daemon = world.setup.start().await;
    let (at, until) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    let sending = world.send(steps, &at, &until);
    let again = tokio::time::timeout(SOON, sending).await.unwrap_or_else(|_| panic!("it takes too long:\n{}", daemon.said()));
    let polled = |m: &Metrics| m.sum("anomalyd_component_events_total", &[("environment", POLLED), ("event", "documents")]);
    let documents = world.read.as_ref().map_or(0, |read| read.documents);
    let metrics = daemon.metrics_when("all documents to be read", SOON, |m| polled(m) >= documents).await;
    assert_eq!(polled(&metrics), documents, "each document is read once");
    assert_eq!(metrics.sum("anomalyd_component_dropped_total", &[("environment", POLLED)]), 0, "{}", metrics.text());
    world.end(daemon).await;
    let outcome = world.outcome();
    for (environment, file) in &outcome.files {
        let nothing =
            if *environment == POLLED { world.read.as_ref().is_some_and(|read| read.history) } else { steps.is_empty() };
        let found = file.lines().count();
        assert!(
            if nothing { found == 0 } else { found > 8 },
            "{environment}: {found} findings ({again} requests sent again): {file}"
        );
    }
    judge(&outcome, &outcome);
    outcome
}
