//! A daemon behind a real Collector, with a wire between them for each protocol, and requests that can be told apart.
//!
//! Every request has one record, whose service is the id of the request: `id-grpc-0007`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anomalyd::storage::{DiskFiles, Reader};
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message as _;
use tonic_types::StatusExt as _;

use super::collector::{Collector, Running};
use super::daemon::{Daemon, Setup, get};
use super::metrics::Metrics;
use super::otlp::{Call, logs, traces};
use super::wire::{Protocol, Wire};
use super::{eventually, free_port};

/// Both ways of a request.
pub(crate) const BOTH: [&str; 2] = ["grpc", "http"];
/// A machine that is busy with other things needs long for little.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// What differs from the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Lines of the daemon's own file.
    pub(crate) daemon: &'static str,
    /// Keys of the `otlp` receiver: lines, indented by four.
    pub(crate) receiver: &'static str,
    /// Keys of both protocols, each after a comma.
    pub(crate) protocols: &'static str,
}

/// A daemon and a Collector. What comes in at one port of the Collector goes out over gRPC, at the other over HTTP.
pub(crate) struct Relay {
    pub(crate) daemon: Daemon,
    pub(crate) wires: [Wire; 2],
    setup: Setup,
    collector: Running,
    /// The ports of the daemon, and those of the Collector.
    ports: [u16; 2],
    entries: [u16; 2],
    telemetry: u16,
    /// Spans that the Collector was given.
    given: [u64; 2],
    ids: BTreeSet<String>,
}

impl Relay {
    pub(crate) async fn start(collector: &Collector, options: Options) -> Self {
        let ports = [free_port(), free_port()];
        let entries = [free_port(), free_port()];
        let telemetry = free_port();
        let [grpc, http] = ports;
        let Options { daemon, receiver, protocols } = options;
        let mut setup = Setup::new();
        setup.more(daemon).environment(
            "production",
            &format!(
                "receivers:
  otlp:
    protocols:
      grpc: {{ endpoint: \"127.0.0.1:{grpc}\"{protocols} }}
      http: {{ endpoint: \"127.0.0.1:{http}\"{protocols} }}
{receiver}connectors:
  detector: {{ bucket: 1m, lateness: 10s }}
exporters:
  console: {{}}
service:
  pipelines:
    traces: {{ receivers: [otlp], processors: [red_metrics], exporters: [detector] }}
    anomalies: {{ receivers: [detector], exporters: [console] }}
"
            ),
        );
        let daemon = setup.start().await;
        let wires = [Wire::to(grpc, Protocol::Grpc).await, Wire::to(http, Protocol::Http).await];
        let (to_grpc, to_http) = (wires[0].port(), wires[1].port());
        let sending = "compression: none
    timeout: 2s
    retry_on_failure: { initial_interval: 100ms, max_interval: 300ms, max_elapsed_time: 120s }
    sending_queue: { queue_size: 10000 }";
        let [from_grpc, from_http] = entries;
        let config = format!(
            "receivers:
  otlp/grpc: {{ protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{from_grpc}\" }} }} }}
  otlp/http: {{ protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{from_http}\" }} }} }}
exporters:
  otlp_grpc:
    endpoint: \"127.0.0.1:{to_grpc}\"
    tls: {{ insecure: true }}
    {sending}
  otlp_http:
    endpoint: \"http://127.0.0.1:{to_http}\"
    {sending}
service:
  telemetry:
    metrics: {{ level: normal, readers: [{{ pull: {{ exporter: {{ prometheus: {{ host: 127.0.0.1, port: {telemetry} }} }} }} }}] }}
  pipelines:
    traces/grpc: {{ receivers: [otlp/grpc], exporters: [otlp_grpc] }}
    traces/http: {{ receivers: [otlp/http], exporters: [otlp_http] }}
    logs/grpc: {{ receivers: [otlp/grpc], exporters: [otlp_grpc] }}
    logs/http: {{ receivers: [otlp/http], exporters: [otlp_http] }}
"
        );
        let collector = collector.run(&config, &[from_grpc, from_http, telemetry]).await;
        Self { daemon, wires, setup, collector, ports, entries, telemetry, given: [0; 2], ids: BTreeSet::new() }
    }

    /// Starts the daemon that has ended.
    pub(crate) async fn restart(&mut self) {
        self.daemon = self.setup.start().await;
    }

    /// Gives the Collector requests with these numbers, over both protocols; it takes them in its queue.
    pub(crate) async fn send(&mut self, numbers: Range<u64>) {
        for (to, protocol) in BOTH.into_iter().enumerate() {
            for number in numbers.clone() {
                let id = format!("id-{protocol}-{number:04}");
                self.give(to, traces(&[Call { service: id.clone(), ..Call::now(number) }], None)).await;
                self.ids.insert(id);
            }
        }
    }

    /// Gives the Collector one request of spans for a protocol.
    pub(crate) async fn give(&mut self, to: usize, request: ExportTraceServiceRequest) {
        self.given[to] += request.resource_spans.len() as u64;
        let endpoint = format!("http://127.0.0.1:{}", self.entries[to]);
        let mut client = TraceServiceClient::connect(endpoint).await.expect("the Collector");
        client.export(request).await.expect("the Collector takes it in its queue");
    }

    /// Gives the Collector a log record for a protocol.
    pub(crate) async fn give_log(&self, to: usize) {
        let endpoint = format!("http://127.0.0.1:{}", self.entries[to]);
        let mut client = LogsServiceClient::connect(endpoint).await.expect("the Collector");
        client.export(logs("checkout", None, Call::now(0).start, 1)).await.expect("the Collector takes it in its queue");
    }

    /// What the daemon answers to this request, in the words of gRPC and of HTTP. Goes over the wires.
    pub(crate) async fn ask(&self, request: &ExportTraceServiceRequest) -> [String; 2] {
        let client = TraceServiceClient::connect(format!("http://127.0.0.1:{}", self.wires[0].port())).await;
        let partial = |partial: bool| if partial { ", partial success" } else { "" };
        let grpc = match client.expect("the daemon").export(request.clone()).await {
            Ok(answer) => format!("`OK`{}", partial(answer.into_inner().partial_success.is_some())),
            Err(status) => {
                let retry = if status.get_details_retry_info().is_some() { ", `RetryInfo`" } else { "" };
                format!("`{}`{retry}", code(status.code()))
            }
        };
        [grpc, self.ask_http("/v1/traces", request.encode_to_vec()).await]
    }

    /// What the daemon answers to a body over HTTP.
    pub(crate) async fn ask_http(&self, path: &str, body: Vec<u8>) -> String {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("http://127.0.0.1:{}{path}", self.wires[1].port());
        let answer = client.post(url).header("content-type", "application/x-protobuf").body(body).send().await;
        let answer = answer.expect("the daemon answers");
        let mut text = answer.status().as_u16().to_string();
        if answer.headers().contains_key("retry-after") {
            text.push_str(", `Retry-After`");
        }
        let success = answer.status().is_success();
        if success && !answer.bytes().await.expect("the daemon ends its answer").is_empty() {
            text.push_str(", partial success");
        }
        text
    }

    /// What the daemon answers to logs over gRPC and HTTP.
    pub(crate) async fn ask_with_logs(&self) -> [String; 2] {
        let request = logs("checkout", None, Call::now(0).start, 1);
        let client = LogsServiceClient::connect(format!("http://127.0.0.1:{}", self.wires[0].port())).await;
        let status = client.expect("the daemon").export(request.clone()).await.expect_err("nobody takes logs");
        [format!("`{}`", code(status.code())), self.ask_http("/v1/logs", request.encode_to_vec()).await]
    }

    /// What the daemon answers to something that is not of the Collector.
    pub(crate) async fn probe(&self) -> [String; 2] {
        let number = fastrand::u64(1 << 20..1 << 40);
        self.ask(&traces(&[Call { service: "probe".to_owned(), ..Call::now(number) }], None)).await
    }

    /// Asks until the daemon refuses; its answers then.
    pub(crate) async fn refuses(&self) -> [String; 2] {
        eventually("the daemon to refuse", SOON, async || {
            let answers = self.probe().await;
            let refused = answers[0] != "`OK`" && answers[1] != "200";
            if refused { Ok(answers) } else { Err(format!("{answers:?}\n{}", self.daemon.said())) }
        })
        .await
    }

    /// The calls that were begun on each wire.
    pub(crate) fn calls(&self) -> [u64; 2] {
        self.wires.each_ref().map(Wire::calls)
    }

    /// Waits until `more` calls have come on each wire since `before`.
    pub(crate) async fn called(&self, before: [u64; 2], more: u64) {
        eventually("calls of the Collector", SOON, async || {
            let calls = self.calls();
            let enough = calls.iter().zip(before).all(|(now, before)| *now >= before + more);
            if enough { Ok(()) } else { Err(format!("{calls:?} after {before:?}\n{}", self.collector.log())) }
        })
        .await;
    }

    /// What the exporters of the Collector count, over gRPC and over HTTP.
    pub(crate) async fn exported(&self, what: &str) -> [u64; 2] {
        let (status, text) = get(self.telemetry, "/metrics").await.expect("the Collector's metrics");
        assert_eq!(status, 200, "{text}");
        let metrics = Metrics::parse(&text);
        BOTH.map(|protocol| metrics.sum(&format!("otelcol_exporter_{what}"), &[("exporter", &format!("otlp_{protocol}"))]))
    }

    /// Waits until the exporters of the Collector have counted as much.
    pub(crate) async fn exported_when(&self, what: &str, expected: [u64; 2]) {
        eventually(what, SOON, async || {
            let seen = self.exported(what).await;
            if seen == expected { Ok(()) } else { Err(format!("{seen:?} of {expected:?}\n{}", self.collector.log())) }
        })
        .await;
    }

    /// Waits until the Collector has sent all that it was given, and checks that the daemon has each id once.
    pub(crate) async fn settled(&self) {
        self.exported_when("sent_spans", self.given).await;
        assert_eq!(self.exported("send_failed_spans").await, [0, 0], "the Collector gave up\n{}", self.collector.log());
        let taken = self.taken();
        let expected: BTreeMap<String, u64> = self.ids.iter().map(|id| (id.clone(), 1)).collect();
        let of_collector: BTreeMap<String, u64> = taken.into_iter().filter(|(id, _)| id.starts_with("id-")).collect();
        assert_eq!(of_collector, expected, "times that each id is in the input log\n{}", self.daemon.said());
        self.daemon.metrics_when("the pipelines to be empty", SOON, Metrics::drained).await;
    }

    /// Waits until the detector watches a series of every id.
    pub(crate) async fn watched(&self) {
        eventually("a series of every id", SOON, async || {
            let (mut seen, mut after) = (BTreeSet::new(), String::new());
            loop {
                let (status, page) = get(self.setup.admin(), &format!("/series?limit=1000&contains=id-{after}")).await?;
                let page: serde_json::Value = serde_json::from_str(&page).map_err(|e| format!("{status}: {e}: {page}"))?;
                let rows = page["series"].as_array().ok_or_else(|| format!("{status}: {page}"))?;
                seen.extend(rows.iter().filter_map(|row| row["service"].as_str()).map(str::to_owned));
                let Some(next) = page["next"].as_str() else { break };
                after = format!("&after={}", url::form_urlencoded::byte_serialize(next.as_bytes()).collect::<String>());
            }
            let missing: Vec<_> = self.ids.difference(&seen).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("no series of {missing:?}\n{}", self.daemon.said())) }
        })
        .await;
    }

    /// In how many entries of the input log each service stands.
    pub(crate) fn taken(&self) -> BTreeMap<String, u64> {
        let mut reader = Reader::open(Arc::new(DiskFiles), self.log_folder(), 0).expect("the input log");
        let mut taken = BTreeMap::new();
        while let Some(record) = reader.read() {
            let (_, bytes) = record.expect("no damage in the input log");
            let text = String::from_utf8_lossy(bytes);
            let found: BTreeSet<&str> =
                text.match_indices("id-").filter_map(|(at, _)| text.get(at..at + "id-grpc-0000".len())).collect();
            for id in found {
                *taken.entry(id.to_owned()).or_default() += 1;
            }
        }
        taken
    }

    /// Where the detector's input log is.
    pub(crate) fn log_folder(&self) -> std::path::PathBuf {
        self.setup.path("data").join("production/detector/log")
    }

    /// The counts of the daemon's components.
    pub(crate) async fn event(&self, class: &str, event: &str) -> u64 {
        self.daemon.metrics().await.sum("anomalyd_component_events_total", &[("class", class), ("event", event)])
    }

    /// The ports of the daemon.
    pub(crate) const fn ports(&self) -> [u16; 2] {
        self.ports
    }

    /// What the Collector has logged.
    pub(crate) fn collector_log(&self) -> String {
        self.collector.log()
    }

    /// Spans that the Collector was given so far, for each protocol.
    pub(crate) const fn given(&self) -> [u64; 2] {
        self.given
    }
}

/// A code in the words of the specification.
fn code(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::InvalidArgument => "INVALID_ARGUMENT",
        tonic::Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        tonic::Code::Unavailable => "UNAVAILABLE",
        tonic::Code::Unimplemented => "UNIMPLEMENTED",
        _ => "another",
    }
}
