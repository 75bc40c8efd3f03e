//! A running daemon takes up what has changed in its files, and nobody else notices.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Channel, Endpoint};

use crate::support::daemon::{Daemon, Setup, signal, terminate};
use crate::support::history::History;
use crate::support::otlp::{Call, send_all, send_grpc, traces};
use crate::support::{eventually, free_port, pipelines};

const SOON: Duration = Duration::from_secs(60);

/// Connects over TCP and counts how often.
#[derive(Clone)]
struct Counting(Arc<AtomicU32>);

impl tonic::codegen::Service<http::Uri> for Counting {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        let address = uri.authority().expect("an address").to_string();
        Box::pin(async move { Ok(TokioIo::new(TcpStream::connect(address).await?)) })
    }
}

/// Sends one call after the other over one channel.
struct Load {
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicU32>,
    taken: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<Vec<tonic::Status>>,
}

impl Load {
    async fn start(port: u16, environment: &'static str) -> Self {
        let (stop, connections, taken) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default(), Arc::<AtomicU64>::default());
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
        let channel = endpoint.connect_with_connector(Counting(Arc::clone(&connections))).await.expect("a connection");
        let task = tokio::spawn(send(TraceServiceClient::new(channel), environment, Arc::clone(&stop), Arc::clone(&taken)));
        Self { stop, connections, taken, task }
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits until another `more` calls have been taken.
    async fn goes_on(&self, more: u64) {
        let wanted = self.taken() + more;
        eventually("calls that are taken", SOON, async || {
            let taken = self.taken();
            if taken >= wanted { Ok(()) } else { Err(format!("{taken} of {wanted}")) }
        })
        .await;
    }

    /// How many were taken, over how many connections, and what was refused.
    async fn end(self) -> (u64, u32, Vec<tonic::Status>) {
        self.stop.store(true, Ordering::Relaxed);
        let refused = self.task.await.expect("the load ends");
        (self.taken.load(Ordering::Relaxed), self.connections.load(Ordering::Relaxed), refused)
    }
}

async fn send(
    mut client: TraceServiceClient<Channel>,
    environment: &'static str,
    stop: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
) -> Vec<tonic::Status> {
    let mut refused = Vec::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        match client.export(traces(&[Call::now(number)], Some(environment))).await {
            Ok(answer) => {
                assert!(answer.into_inner().partial_success.is_none_or(|p| p.rejected_spans == 0), "nothing is rejected");
                taken.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
            // The same call comes again.
            Err(status) => {
                refused.push(status);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    refused
}

/// `anomalyd reload`.
async fn reload(setup: &Setup) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_anomalyd"));
    command.args(["reload", "--endpoint", &format!("127.0.0.1:{}", setup.admin())]).env("NO_COLOR", "1");
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(SOON, output).await.expect("the command ends").expect("the command runs")
}

/// Exit code, and what is printed.
fn told(output: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// The last reload in `/health`.
async fn last(daemon: &Daemon) -> Value {
    let (_, body) = daemon.health().await;
    let health: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}"));
    health["reload"].clone()
}

fn with_threshold(pipeline: &str, threshold: f64) -> String {
    pipeline.replace("lateness: 10s", &format!("lateness: 10s, threshold: {threshold}"))
}

const UNCHANGED_AND_THRESHOLD: &str = "production: unchanged\nstaging: restarted (connectors.detector.threshold changed)\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_keeps_its_connection_and_loses_no_request_while_another_of_its_port_is_changed_ten_times() {
    let (setup, pipeline, [grpc, _]) = Setup::otlp(&["production", "staging"]);
    let mut daemon = setup.start().await;
    let (production, staging) = (Load::start(grpc, "production").await, Load::start(grpc, "staging").await);
    production.goes_on(20).await;
    for round in 0..10 {
        setup.rewrite("staging", &with_threshold(&pipeline, 2.0 + f64::from(round)));
        let expected = (Some(0), UNCHANGED_AND_THRESHOLD.to_owned());
        assert_eq!(told(&reload(&setup).await), expected, "round {round}: {}", daemon.said());
        production.goes_on(5).await;
        staging.goes_on(1).await;
    }
    let (taken, connections, refused) = production.end().await;
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(connections, 1, "one connection all the time");
    let receiver = [("environment", "production"), ("class", "receiver")];
    assert_eq!(daemon.metrics().await.received(&receiver), taken, "counted from the start, each once");

    let (staged, connections, refused) = staging.end().await;
    assert_eq!(connections, 1, "the port was never closed");
    assert!(refused.iter().all(|status| status.code() == tonic::Code::Unavailable), "{refused:?}");
    assert!(staged > 10, "{staged}");
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

/// How many series the detector has, by its own account; `None` while nobody answers.
async fn series(setup: &Setup) -> Option<u64> {
    let client = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
    let answer = client.get(format!("http://127.0.0.1:{}/series", setup.admin())).send().await.expect("an answer");
    let answer: Value = answer.json().await.expect("JSON");
    Some(answer["states"].as_object()?.values().filter_map(Value::as_u64).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_learnt_survives_and_finds_what_comes_after() {
    let (setup, pipeline, [grpc, _]) = Setup::otlp(&["staging"]);
    let mut daemon = setup.start().await;
    let history = History::of_hours("checkout", 7).with_fault();
    let (calm, fault): (Vec<Call>, Vec<Call>) = history.calls().partition(|call| call.start < history.fault().0);
    send_all(grpc, calm.into_iter(), "staging").await;
    daemon.metrics_when("all calls to be counted", SOON, crate::support::metrics::Metrics::drained).await;
    let known = series(&setup).await;
    assert!(known.is_some_and(|known| known > 0), "{known:?}: {}", daemon.said());
    assert!(!daemon.printed().contains("POST /pay"), "nothing is wrong yet: {}", daemon.printed());
    setup.rewrite("staging", &with_threshold(&pipeline, 2.5));
    let expected = "staging: restarted (connectors.detector.threshold changed)\n".to_owned();
    assert_eq!(told(&reload(&setup).await), (Some(0), expected), "{}", daemon.said());
    eventually("the detector", SOON, async || series(&setup).await.map(drop).ok_or_else(|| daemon.said())).await;
    assert_eq!(series(&setup).await, known, "{}", daemon.said());
    send_all(grpc, fault.into_iter(), "staging").await;
    eventually("the anomaly", SOON, async || if daemon.printed().contains("POST /pay") { Ok(()) } else { Err(daemon.said()) })
        .await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_changes_nothing_and_says_why() {
    let (setup, pipeline, [grpc, _]) = Setup::otlp(&["production", "staging"]);
    let mut daemon = setup.start().await;
    let load = Load::start(grpc, "staging").await;
    load.goes_on(3).await;
    setup.rewrite("staging", &pipeline.replace("exporters: [detector]", "exporters: [detektor]").replace("otlp:", "otpl:"));
    setup.rewrite("production", &with_threshold(&pipeline, 2.5));
    let (code, text) = told(&reload(&setup).await);
    assert_eq!(code, Some(78), "{text}");
    for part in ["staging.yml:3:", "otpl", "detektor", "did you mean", "errors: the daemon runs on as it did"] {
        assert!(text.contains(part), "it does not say `{part}`:\n{text}");
    }
    assert_eq!(last(&daemon).await["result"], "failed");

    // The same by signal: in the log, with its place.
    signal(daemon.pid(), "HUP");
    eventually("the log", SOON, async || {
        let said = daemon.said();
        if said.matches("not reloaded").count() == 2 && said.contains("staging.yml:3:") { Ok(()) } else { Err(said) }
    })
    .await;
    load.goes_on(3).await;
    let (taken, connections, refused) = load.end().await;
    assert_eq!((connections, refused.len()), (1, 0), "{refused:?}");
    let metrics = daemon.metrics().await;
    assert_eq!(metrics.received(&[("environment", "staging"), ("class", "receiver")]), taken, "nobody was restarted");

    // Mended, everything is taken up.
    setup.rewrite("staging", &pipeline);
    let expected = "production: restarted (connectors.detector.threshold changed)\nstaging: unchanged\n".to_owned();
    assert_eq!(told(&reload(&setup).await), (Some(0), expected));
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_leaves_everything_as_it_was() {
    let (setup, _, [grpc, _]) = Setup::otlp(&["production", "staging"]);
    let mut daemon = setup.start().await;
    let load = Load::start(grpc, "staging").await;
    load.goes_on(3).await;
    let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let taken = other.local_addr().expect("an address").port();
    setup.rewrite("staging", &pipelines::otlp_to_console(taken, free_port()));
    let (code, text) = told(&reload(&setup).await);
    assert_eq!(code, Some(1), "{text}");
    let expected = format!("error: environment `staging`, receiver `otlp`: cannot listen on grpc endpoint 127.0.0.1:{taken}: ");
    assert!(text.starts_with(&expected), "{text}");
    load.goes_on(3).await;
    let (_, connections, refused) = load.end().await;
    assert_eq!((connections, refused.len()), (1, 0), "{refused:?}");

    // Found only when the port has been given up: what was stopped runs again.
    let (own, elsewhere) = (free_port(), free_port());
    let narrow = pipelines::otlp_to_console(own, elsewhere);
    setup.rewrite("staging", &narrow);
    assert_eq!(told(&reload(&setup).await).0, Some(0), "{}", daemon.said());
    let _other = TcpListener::bind(("127.0.0.2", own)).await.expect("a port");
    setup.rewrite("staging", &narrow.replace(&format!("127.0.0.1:{own}"), &format!("0.0.0.0:{own}")));
    let (code, text) = told(&reload(&setup).await);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains(&format!("0.0.0.0:{own}")) && text.ends_with("stopped and started again as before: staging\n"),
        "{text}"
    );
    send_grpc(own, traces(&[Call::now(1)], None)).await.expect("it listens again");
    send_grpc(grpc, traces(&[Call::now(1)], None)).await.expect("and so does the other");
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_come_and_go_ports_move_and_what_needs_a_restart_is_named() {
    let (mut setup, _, [grpc, http]) = Setup::otlp(&["production", "old"]);
    let mut daemon = setup.start().await;
    let (moved, web) = (free_port(), free_port());
    setup.without("old").environment("dev", &pipelines::otlp_to_console(grpc, http));
    setup.rewrite("production", &pipelines::otlp_to_console(moved, web));
    setup.more("pipeline: { queue_size: 7, shutdown_deadline: 20s }\n").config();
    let (code, text) = told(&reload(&setup).await);
    let expected = "\
production: restarted (receivers.otlp.protocols.grpc.endpoint, receivers.otlp.protocols.http.endpoint changed)
dev: started
old: ended
note: `pipeline.queue_size`, `pipeline.shutdown_deadline` changed: that takes effect after a restart
";
    assert_eq!((code, text.as_str()), (Some(0), expected), "{}", daemon.said());
    send_grpc(moved, traces(&[Call::now(1)], Some("production"))).await.expect("the new port");
    send_grpc(grpc, traces(&[Call::now(1)], Some("dev"))).await.expect("the old port is that of another now");
    let metrics = daemon.metrics().await;
    assert!(!metrics.text().contains("environment=\"old\""), "what has ended is forgotten: {}", metrics.text());

    // Nobody is left on it: it closes.
    setup.rewrite("dev", &pipelines::otlp_to_console(moved, web));
    assert_eq!(told(&reload(&setup).await).0, Some(0), "{}", daemon.said());
    assert!(send_grpc(grpc, traces(&[Call::now(1)], None)).await.is_err(), "the port is closed");
    send_grpc(moved, traces(&[Call::now(1)], Some("dev"))).await.expect("they share the port");
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signal_and_command_do_the_same_and_reloads_wait_for_each_other() {
    let (setup, pipeline, _) = Setup::otlp(&["production", "staging"]);
    let mut daemon = setup.start().await;
    assert_eq!(last(&daemon).await, Value::Null);
    setup.rewrite("staging", &with_threshold(&pipeline, 2.5));
    signal(daemon.pid(), "HUP");
    eventually("the reload", SOON, async || match last(&daemon).await {
        Value::Null => Err(daemon.said()),
        _ => Ok(()),
    })
    .await;
    let (last, said) = (last(&daemon).await, daemon.said());
    assert_eq!((last["result"].as_str(), last["message"].as_str()), (Some("applied"), Some(UNCHANGED_AND_THRESHOLD.trim_end())));
    assert!(said.contains("staging") && said.contains("connectors.detector.threshold changed"), "{said}");

    setup.rewrite("staging", &with_threshold(&pipeline, 3.5));
    let all = futures::future::join_all([reload(&setup), reload(&setup), reload(&setup)]).await;
    let mut texts: Vec<_> = all.iter().map(told).collect();
    texts.sort();
    let unchanged = (Some(0), "production: unchanged\nstaging: unchanged\n".to_owned());
    assert_eq!(texts, [(Some(0), UNCHANGED_AND_THRESHOLD.to_owned()), unchanged.clone(), unchanged], "{}", daemon.said());
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_during_a_reload_is_obeyed_and_reloads_are_refused_from_then_on() {
    let (grpc, http) = (free_port(), free_port());
    let nobody = free_port();
    let exporter = format!("  elasticsearch: {{ endpoints: [\"http://127.0.0.1:{nobody}\"] }}\n");
    let stuck = pipelines::traces("otlp", &pipelines::otlp(grpc, http), "elasticsearch", &exporter);
    let mut setup = Setup::new();
    setup
        .more("pipeline: { shutdown_deadline: 15s }\n")
        .environment("production", &pipelines::otlp_to_console(grpc, http))
        .environment("staging", &stuck);
    let mut daemon = setup.start().await;
    send_all(grpc, History::of_hours("checkout", 7).with_fault().calls(), "staging").await;
    let of_exporter = [("class", "exporter"), ("component", "elasticsearch")];
    daemon.metrics_when("an anomaly that nobody takes", SOON, |m| m.received(&of_exporter) > 0).await;

    setup.rewrite("staging", &with_threshold(&stuck, 2.5));
    let (draining, ()) = tokio::join!(reload(&setup), async {
        eventually("the drain", SOON, async || {
            let (status, health) = daemon.health().await;
            // The others are served on, so nobody is to take the daemon out of service.
            assert_eq!(status, 200, "{health}");
            if health.contains("\"stopping\"") { Ok(()) } else { Err(health) }
        })
        .await;
        terminate(daemon.pid());
    });
    let begin = Instant::now();
    let refused = (Some(1), "error: the daemon is stopping: nothing was changed\n".to_owned());
    assert_eq!(told(&draining), refused);
    assert_eq!(told(&reload(&setup).await), refused, "while it drains");
    assert_eq!(daemon.end(SOON).await.code(), Some(0), "what nobody takes is kept on disk: {}", daemon.said());
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}:\n{}", begin.elapsed(), daemon.said());
}
