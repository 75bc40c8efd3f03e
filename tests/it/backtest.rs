//! History is input: a backtest over what a real Elasticsearch holds, and a daemon that learns from it first.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anomalyd::components::FACTORIES;
use anomalyd::config;
use anomalyd::model::UnixNanos;
use anomalyd::pipeline::{self, Class, ManualClock, Plan, Registry, Running, Services};
use anomalyd::storage::{DiskFiles, LogOptions, MemoryStorage, Storage};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::daemon::Setup;
use crate::support::documents::apm;
use crate::support::elasticsearch::{Elasticsearch, NEW, elasticsearch};
use crate::support::history::{BUCKET, History, SLOW};
use crate::support::pipelines::traces;
use crate::support::{eventually, free_port, needs, unique};

const LIMIT: Duration = Duration::from_secs(60);

async fn write(server: &Elasticsearch, stream: &str, history: &History) -> usize {
    write_at_once(server, stream, &[history]).await
}

/// All of them become visible at once: nobody reads one service's calls and takes the other for silent.
async fn write_at_once(server: &Elasticsearch, stream: &str, histories: &[&History]) -> usize {
    let documents: Vec<Value> = histories.iter().flat_map(|h| h.calls()).map(|call| apm(&call, "production")).collect();
    let count = documents.len();
    server.index(stream, documents).await;
    count
}

fn backtest(setup: &Setup, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anomalyd"));
    command.args(["backtest", "--config"]).arg(setup.config()).args(more);
    command.output().expect("the binary runs")
}

fn said(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backtest_finds_the_fault_in_what_elasticsearch_holds_and_changes_nothing() {
    let server = needs!(elasticsearch(NEW));
    let stream = format!("traces-apm-{}", unique("backtest"));
    server.data_stream(&stream).await;
    let history = History::of_hours("checkout", 7).with_fault();
    let documents = write(&server, &stream, &history).await;

    let mut setup = Setup::new();
    let file = setup.path("anomalies.ndjson");
    let otlp = crate::support::pipelines::otlp(free_port(), free_port());
    let receivers = otlp + &server.receiver(&stream);
    let exporters = format!("  file: {{ path: \"{}\" }}\n", file.display());
    setup.environment("production", &traces("otlp, elasticsearch", &receivers, "file", &exporters));
    let report = setup.path("report.html");
    let from = history.begin.rfc3339();
    let ran = backtest(&setup, &["--from", &from, "--format", "json", "--report", &report.display().to_string()]);
    assert!(ran.status.success(), "{}", said(&ran));
    let told: Value = serde_json::from_slice(&ran.stdout).expect("JSON");
    assert_eq!(told["records"], Value::from(documents), "{told:#}");
    assert_eq!(told["complete"], Value::from(true));
    let top = &told["top"][0]["anomaly"];
    assert_eq!(
        (top["entity"]["service"].as_str(), top["entity"]["operation"].as_str()),
        (Some("checkout"), Some(SLOW)),
        "{top:#}"
    );
    let start = top["window"]["start"].as_u64().expect("a moment");
    assert!((history.fault().0..history.fault().0 + 5 * BUCKET).contains(&start), "{top:#}");
    let page = std::fs::read_to_string(&report).expect("the page");
    assert!(page.contains("POST /pay") && page.contains("class=\"observed\""));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("receiver `otlp` is left out"), "{}", said(&ran));
    assert!(!file.exists() && !setup.path("data").exists(), "nothing is written but the report");

    // Nothing there, and nobody there.
    let nothing = backtest(&setup, &["--from", "2001-01-01", "--to", "2001-01-02"]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(said(&nothing).contains("there is nothing from 2001-01-01T00:00:00.000Z"), "{}", said(&nothing));
    let mut unreachable = Setup::new();
    let receivers = format!(
        "  elasticsearch:\n    endpoints: [\"http://127.0.0.1:{}\"]\n    indices: [x]\n    retry: {{ max_retries: 0 }}\n",
        free_port()
    );
    unreachable.environment("production", &traces("elasticsearch", &receivers, "console", "  console: {}\n"));
    let failed = backtest(&unreachable, &["--from", "1d"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(said(&failed).contains("receiver `elasticsearch`: "), "{}", said(&failed));
}

/// An environment that learns from history, on a clock of its own.
struct Live {
    plan: Plan,
    clock: Arc<ManualClock>,
    storage: Arc<MemoryStorage>,
    folder: std::path::PathBuf,
    registry: Registry,
    running: Option<Running>,
}

impl Live {
    fn new(setup: &Setup, now: UnixNanos) -> Self {
        let loaded = config::load(&setup.config(), &|_| None, FACTORIES).unwrap_or_else(|e| panic!("{}", e.render(false)));
        Self {
            plan: loaded.plans[0].clone(),
            clock: Arc::new(ManualClock::new(now)),
            storage: Arc::default(),
            folder: setup.path("state"),
            registry: Registry::default(),
            running: None,
        }
    }

    async fn start(&mut self) {
        self.registry = Registry::default();
        let services = Services {
            clock: Arc::clone(&self.clock) as Arc<_>,
            storage: Arc::clone(&self.storage) as Arc<dyn Storage>,
            data_dir: self.folder.clone(),
            files: Some(Arc::new(DiskFiles)),
            input_log: Some(LogOptions { segment_size: 1 << 20, max_size: 64 << 20 }),
            registry: self.registry.clone(),
            queue_capacity: 4,
            ..Services::in_memory()
        };
        self.running = Some(pipeline::start(std::slice::from_ref(&self.plan), services).await.expect("a start"));
    }

    async fn stop(&mut self) {
        let running = self.running.take().expect("running");
        assert_eq!(running.shutdown(LIMIT, &CancellationToken::new()).await.aborted, 0);
    }

    fn event(&self, class: Class, event: &str) -> u64 {
        let components = self.registry.all().into_iter().filter(|c| c.class == class);
        components.map(|c| c.counters.events().get(event).copied().unwrap_or(0)).sum()
    }

    fn progress(&self) -> pipeline::Progress {
        self.registry.history(&self.plan.spec.environment).progress().expect("a history was asked for")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_environment_learns_from_history_also_over_a_restart_and_reports_only_what_is_live() {
    let server = needs!(elasticsearch(NEW));
    let stream = format!("traces-apm-{}", unique("warmup"));
    server.data_stream(&stream).await;
    let past = History { calls_per_bucket: 12, ..History::of_hours("checkout", 7) };
    let live_from = past.begin.plus(past.buckets * BUCKET);
    let broken = History { service: "cart".to_owned(), first_number: 500_000, ..past.clone() }.with_fault();
    let mut documents = write(&server, &stream, &past).await + write(&server, &stream, &broken).await;

    let mut setup = Setup::new();
    let file = setup.path("anomalies.ndjson");
    let connection = server.yaml(4);
    let pipelines = format!(
        "receivers:
  elasticsearch:
{connection}    indices: [\"{stream}\"]
    interval: 100ms
    query_delay: 0s
    page_size: 300
connectors:
  detector: {{ bucket: 1m, lateness: 10s, warmup: {{ buckets: 240, history: 2d }} }}
exporters:
  file: {{ path: \"{}\" }}
service:
  pipelines:
    traces: {{ receivers: [elasticsearch], processors: [red_metrics], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [file] }}
",
        file.display()
    );
    setup.environment("production", &pipelines);
    let mut live = Live::new(&setup, live_from);

    live.start().await;
    eventually("some of the history", LIMIT, async || match live.progress().records {
        0..1000 => Err("not yet".to_owned()),
        _ => Ok(()),
    })
    .await;
    live.stop().await;
    let first = live.progress();
    assert!(!first.done, "the restart is in the middle");
    live.start().await;
    eventually("the history to be learnt", LIMIT, async || if live.progress().done { Ok(()) } else { Err(String::new()) }).await;
    let second = live.progress();
    assert_eq!(second.span.until, live_from, "a restart does not move the moment of going live");
    assert_eq!(first.records + second.records, documents as u64, "what was read is not read again");
    eventually("the fault in the history to be learnt", LIMIT, async || match live.event(Class::Connector, "in_history") {
        0 => Err(format!("{:?}", live.progress())),
        _ => Ok(()),
    })
    .await;
    assert_eq!(live.event(Class::Connector, "anomalies"), 0, "nothing about history is reported");

    // Ten minutes later: the live fault is found at once, without warming up.
    let now = History { begin: live_from, buckets: 10, slow_from: Some(3), first_number: 1_000_000, ..past };
    let calm = History { slow_from: None, service: broken.service, first_number: 2_000_000, ..now.clone() };
    documents += write_at_once(&server, &stream, &[&now, &calm]).await;
    live.clock.set(live_from.plus(10 * BUCKET));
    let anomalies = eventually("the live fault to be reported", LIMIT, async || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        // Events of incidents have no window.
        let lines: Vec<Value> = lines.into_iter().filter(|line| line.get("window").is_some()).collect();
        let events = live.registry.find("production", Class::Connector, "detector").map(|c| c.counters.events());
        if lines.is_empty() { Err(format!("{:?} {events:?}", live.progress())) } else { Ok(lines) }
    })
    .await;
    for anomaly in &anomalies {
        let start = anomaly["window"]["start"].as_u64().expect("a moment");
        assert!(start >= live_from.0, "{anomaly:#}");
        assert_eq!(anomaly["entity"]["operation"].as_str(), Some(SLOW), "{anomaly:#}");
    }
    live.stop().await;
    let spans: u64 = live.event(Class::Receiver, "documents");
    assert_eq!(first.records + spans, documents as u64, "no gap between history and live, nothing twice");
}
