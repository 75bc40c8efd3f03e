//! A daemon between clients and a cluster, and what is left when it has ended: what it has learnt, found and delivered.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;

use super::cluster::{Cluster, Documents};
use super::daemon::{Daemon, Setup};
use super::traffic::{Client, Step};
use super::{free_port, pipelines};

const SOON: Duration = Duration::from_secs(120);

/// A daemon's configuration, its cluster and its port.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
}

/// What is left of a run.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    /// A line for every series: a hash of all that was learnt of it.
    pub(crate) digest: String,
    pub(crate) documents: Documents,
    /// What the `file` exporter wrote.
    pub(crate) file: String,
}

impl World {
    pub(crate) async fn new(seed: u64) -> Self {
        Self::with_storage(seed, "checkpoint_interval: 1s, input_log: { max_size: 16MiB, segment_size: 1MiB }").await
    }

    /// With these keys of the block `storage`.
    pub(crate) async fn with_storage(seed: u64, storage: &str) -> Self {
        let cluster = Cluster::start(seed).await;
        let grpc = free_port();
        let mut setup = Setup::new();
        let file = format!("  file: {{ path: \"{}\" }}\n", setup.path("found.ndjson").display());
        let pipeline = pipelines::all_signals(grpc, free_port())
            .replace("service:\n", &format!("connectors:\n  detector: {{ warmup: 60, threshold: 1.1, idle_timeout: 6h, shards: 2 }}\nexporters:\n{file}{}service:\n", cluster.exporter()))
            .replace("exporters: [console]", "exporters: [file, elasticsearch]");
        setup.environment("production", &pipeline).more("pipeline: { shutdown_deadline: 20s }\n").storage(storage);
        Self { setup, cluster, client: Client::new(grpc) }
    }

    /// What the daemon that has just ended knows, and what it has handed on.
    pub(crate) fn outcome(&self) -> Outcome {
        let documents = Documents { repeated: 0, refused: 0, ..self.cluster.documents() };
        Outcome { digest: replay(self.setup.data(), "digest"), documents, file: self.file() }
    }

    pub(crate) fn file(&self) -> String {
        std::fs::read_to_string(self.setup.path("found.ndjson")).unwrap_or_default()
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

    /// Waits until the cluster has all that was found, and ends the daemon.
    pub(crate) async fn end(&self, mut daemon: Daemon) {
        self.cluster.moody(false);
        assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    }
}

/// What `anomalyd replay` prints.
pub(crate) fn replay(data: &Path, format: &str) -> String {
    let output = replaying(data, format);
    assert!(output.status.success(), "replay: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Runs `anomalyd replay`, which fails where there is no log yet.
pub(crate) fn replaying(data: &Path, format: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anomalyd"));
    command.args(["replay", "--format", format, "--data-dir"]).arg(data).output().expect("the command runs")
}

/// What a daemon that nothing disturbs makes of `steps`.
pub(crate) async fn undisturbed(steps: &[Step]) -> Outcome {
    let world = World::new(0).await;
    let daemon = world.setup.start().await;
    let (at, until) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    let sending = world.send(steps, &at, &until);
    let again = tokio::time::timeout(SOON, sending).await.unwrap_or_else(|_| panic!("it takes too long:\n{}", daemon.said()));
    world.end(daemon).await;
    let outcome = world.outcome();
    assert!(outcome.file.lines().count() > 8, "the faults are found ({again} sent again): {}", outcome.file);
    assert_eq!(outcome.file.lines().count(), outcome.documents.all.len(), "the file has what the cluster has");
    outcome
}

/// Fails where something is not as expected, and says what.
pub(crate) fn judge(outcome: &Outcome, expected: &Outcome) {
    let differ = |one: &str, other: &str| {
        let lines: Vec<&str> = other.lines().collect();
        one.lines().filter(|line| !lines.contains(line)).map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    assert!(
        outcome.digest == expected.digest,
        "what was learnt is another:\n{}\nexpected:\n{}",
        differ(&outcome.digest, &expected.digest),
        differ(&expected.digest, &outcome.digest)
    );
    let ids = |all: &Documents| all.all.keys().cloned().collect::<Vec<_>>().join("\n");
    let (ours, theirs) = (ids(&outcome.documents), ids(&expected.documents));
    assert!(
        ours == theirs,
        "these documents are not true:\n{}\nthese are missing:\n{}",
        differ(&ours, &theirs),
        differ(&theirs, &ours)
    );
    for (id, document) in &expected.documents.all {
        assert_eq!(outcome.documents.all.get(id), Some(document), "document {id}");
    }
    assert!(
        outcome.file == expected.file,
        "the file has {} lines, expected {}; too many or others:\n{}\nmissing:\n{}",
        outcome.file.lines().count(),
        expected.file.lines().count(),
        differ(&outcome.file, &expected.file),
        differ(&expected.file, &outcome.file)
    );
}
