//! What clients send to a daemon, or write where it reads, minute by minute, in a past that does not depend on the clock.
//! Sums are exact in any order, so that the same is learnt however requests and pages are divided, and in whatever order
//! those of a step arrive.

use std::sync::Arc;
use std::time::Duration;

use anomalyd::model::UnixNanos;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::documents::otel;
use super::index::Written;
use super::otlp::{Call, gauge, logs, traces};

/// Minutes that are sent in large requests at first.
const LEARNT: u64 = 240;
/// A second, and the smallest duration that is exact both in nanoseconds and in binary seconds, in nanoseconds.
const SECOND: u64 = 1_000_000_000;
const TICK: u64 = 1_953_125;
/// Where event time begins: 2023-11-15, at the start of a minute, in seconds.
const BEGIN: u64 = 1_700_006_400;

/// A request of one signal.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// Requests that are sent at once; the next step is sent when all of them were taken in.
pub(crate) type Step = Vec<Request>;

/// All that is sent in `minutes` minutes after those that come in large requests.
pub(crate) fn traffic(minutes: u64) -> Arc<Vec<Step>> {
    let mut steps = Vec::new();
    for from in (0..LEARNT).step_by(30) {
        let calls: Vec<Call> = (from..from + 30).flat_map(|minute| calls(minute, 0..60)).collect();
        steps.push(vec![Request::Traces(traces(&calls, None))]);
        for minute in from..from + 30 {
            steps.push(vec![metrics(minute)]);
        }
        steps.extend((from..from + 30).map(|minute| vec![log_records(minute)]));
    }
    for minute in LEARNT..LEARNT + minutes {
        // The first half closes nothing, the second the minute before: within each it does not matter what comes first.
        for half in [0..30, 30..60] {
            let calls = calls(minute, half);
            let (one, two) = calls.split_at(calls.len() / 2);
            steps.push([one, two].map(|part| Request::Traces(traces(part, None))).to_vec());
        }
        steps.push(vec![metrics(minute)]);
        steps.push(vec![log_records(minute)]);
    }
    Arc::new(steps)
}

/// What is wrong in this minute: one of four things in turn, for a few minutes of every twenty.
fn fault(minute: u64) -> Option<u64> {
    (minute >= LEARNT && minute % 20 >= 15).then_some(minute / 20 % 4)
}

fn noise(seed: u64) -> u64 {
    seed.wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32
}

/// A call of each of three operations every five seconds, and every one has its own number.
fn calls(minute: u64, seconds: std::ops::Range<u64>) -> Vec<Call> {
    let operations = [("checkout", "POST /pay", 40), ("checkout", "GET /cart", 8), ("search", "GET /search", 16)];
    let of = |second: u64| {
        operations.iter().enumerate().map(move |(place, (service, operation, usual))| {
            let number = (minute * 60 + second) * 8 + place as u64;
            let bad = fault(minute) == Some(place as u64 * 2);
            let ticks = usual * if bad { 20 } else { 1 } + noise(number) % usual;
            Call {
                service: (*service).to_owned(),
                operation: (*operation).to_owned(),
                start: (BEGIN + minute * 60 + second) * SECOND,
                duration: ticks * TICK,
                failed: bad && second.is_multiple_of(2),
                number,
            }
        })
    };
    seconds.step_by(5).flat_map(of).collect()
}

fn metrics(minute: u64) -> Request {
    let level = if fault(minute) == Some(1) { 900.0 } else { 50.0 };
    let values: Vec<f64> = (0..60).step_by(10).map(|s| level + (noise(minute * 60 + s) % 64) as f64 / 16.0).collect();
    Request::Metrics(gauge("search", None, (BEGIN + minute * 60 + 40) * SECOND, &values))
}

fn log_records(minute: u64) -> Request {
    let count = 20 + noise(minute) % 5 + if fault(minute) == Some(3) { 200 } else { 0 };
    Request::Logs(logs("checkout", None, (BEGIN + minute * 60 + 45) * SECOND, count as usize))
}

/// How long after its minute the last document of it is found.
pub(crate) const LATEST: u64 = 5;

/// The end of a minute, in nanoseconds since the epoch.
pub(crate) const fn end_of(minute: u64) -> u64 {
    (BEGIN + (minute + 1) * 60) * SECOND
}

/// How many minutes there are in all, where `minutes` follow those that come in large requests.
pub(crate) const fn all(minutes: u64) -> u64 {
    LEARNT + minutes
}

/// When event time begins, as a text.
pub(crate) fn begin() -> String {
    UnixNanos::from_secs(BEGIN).rfc3339()
}

/// What others write to a cluster in as many minutes: the same calls, other metrics and logs. A document is found at the
/// end of its minute, or up to [`LATEST`] minutes later.
pub(crate) fn documents(minutes: u64) -> Vec<Written> {
    let mut written = Vec::new();
    for minute in 0..all(minutes) {
        let mut write = |id: String, time: u64, mut source: Value| {
            source["@timestamp"] = json!(UnixNanos(time).rfc3339());
            let number = written.len() as u64;
            let late = if noise(number).is_multiple_of(8) { noise(number) / 8 % (LATEST + 1) } else { 0 };
            written.push(Written { id, time, found_from: end_of(minute + late), source });
        };
        for call in calls(minute, 0..60) {
            write(format!("span-{}", call.number), call.start, otel(&call, "polled"));
        }
        let of = |service: &str| json!({ "attributes": { "service.name": service } });
        let level = if fault(minute) == Some(1) { 900.0 } else { 50.0 };
        for second in (0..60).step_by(20) {
            let value = level + (noise(minute * 60 + second) % 64) as f64 / 16.0;
            let source = json!({ "metrics": { "stock.level": value }, "resource": of("warehouse") });
            write(format!("metric-{minute}-{second}"), (BEGIN + minute * 60 + second) * SECOND, source);
        }
        let count = 5 + noise(minute) % 3 + if fault(minute) == Some(3) { 60 } else { 0 };
        for number in 0..count {
            let source = json!({ "severity_number": 9, "body": { "text": "something was booked" }, "resource": of("ledger") });
            // Several of one moment.
            write(format!("log-{minute}-{number}"), (BEGIN + minute * 60 + number % 7) * SECOND, source);
        }
    }
    written
}

/// A client as a Collector is one: what was refused or not answered is sent again, with the same bytes.
#[derive(Clone)]
pub(crate) struct Client(Channel);

impl Client {
    /// Of the daemon that listens on this port of this machine, now or later.
    pub(crate) fn new(port: u16) -> Self {
        let endpoint = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("an address");
        Self(endpoint.connect_timeout(Duration::from_secs(1)).timeout(Duration::from_secs(10)).connect_lazy())
    }

    /// Sends until it is taken in. How often it was sent.
    pub(crate) async fn deliver(&self, request: &Request) -> u64 {
        for times in 1.. {
            let taken = match request.clone() {
                Request::Traces(request) => TraceServiceClient::new(self.0.clone()).export(request).await.map(drop),
                Request::Metrics(request) => MetricsServiceClient::new(self.0.clone()).export(request).await.map(drop),
                Request::Logs(request) => LogsServiceClient::new(self.0.clone()).export(request).await.map(drop),
            };
            if taken.is_ok() {
                return times;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        0
    }
}
