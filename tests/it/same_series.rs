//! It does not matter which way a call comes in: what is measured of it is the same.

use std::collections::BTreeMap;
use std::time::Duration;

use anomalyd::model::{Measure, UnixNanos};
use serde_json::Value;

use crate::support::daemon::Setup;
use crate::support::documents::{apm, otel};
use crate::support::elasticsearch::{Elasticsearch, NEW, OLD, elasticsearch};
use crate::support::engine::{Engine, kept};
use crate::support::otlp::{Call, send_grpc, traces};
use crate::support::{eventually, free_port, needs, unique};

/// 1,200 calls within ten minutes, an hour ago: three operations of two services with latencies and failures of
/// their own. Times are whole milliseconds and durations whole microseconds, which every document can carry.
fn calls() -> Vec<Call> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let begin = UnixNanos::from_secs(now - 3600).floor(600 * UnixNanos::SECOND).0;
    let mut random = fastrand::Rng::with_seed(7);
    let operations = [("checkout", "POST /pay", 80_000), ("checkout", "GET /cart", 9_000), ("search", "GET /search", 30_000)];
    let call = |number: u64| {
        let (service, operation, usual) = operations[random.usize(0..operations.len())];
        Call {
            service: service.to_owned(),
            operation: operation.to_owned(),
            start: begin + random.u64(0..600_000) * 1_000_000,
            duration: (usual as f64 * (0.5 + random.f64() * random.f64() * 4.0)) as u64 * 1000,
            failed: random.u64(0..100) < 7,
            number,
        }
    };
    (0..1200).map(call).collect()
}

/// Calls, failures, and p50, p95 and p99 in microseconds, of each operation and minute.
type Series = BTreeMap<(String, String), (f64, f64, Vec<u64>)>;

/// What was measured, once all `wanted` calls are.
async fn series(environment: &str, engine: &Engine, wanted: usize) -> Series {
    let mut merged: BTreeMap<(String, String), (f64, f64, detection::Sketch)> = BTreeMap::new();
    eventually(&format!("{wanted} calls in {environment}"), Duration::from_secs(60), async || {
        assert!(!engine.ended(), "the daemon ended");
        merged.clear();
        for observation in kept(environment).observations {
            let Measure::Calls { count, errors, latency } = observation.measure else { continue };
            assert_eq!((&*observation.metric, &*observation.unit), ("span", "s"));
            let minute = observation.time.floor(60 * UnixNanos::SECOND).rfc3339();
            let all = merged.entry((observation.entity.key(), minute)).or_default();
            all.0 += count;
            all.1 += errors;
            all.2.merge(&latency);
        }
        let so_far: f64 = merged.values().map(|(count, ..)| count).sum();
        if so_far >= wanted as f64 { Ok(()) } else { Err(format!("{so_far} calls")) }
    })
    .await;
    let quantiles = |latency: &detection::Sketch| {
        [0.5, 0.95, 0.99].iter().map(|&q| (latency.quantile(q).expect("a latency") * 1e6).round() as u64).collect()
    };
    merged.into_iter().map(|(key, (count, errors, latency))| (key, (count, errors, quantiles(&latency)))).collect()
}

/// A pipeline file that measures the spans of this receiver, and keeps what was measured.
fn measured(receivers: &str, receiver: &str) -> String {
    format!(
        "default: true
receivers:
{receivers}service:
  pipelines:
    traces: {{ receivers: [{receiver}], processors: [red_metrics], exporters: [keep] }}
"
    )
}

async fn over_otlp(calls: &[Call]) -> Series {
    let environment = unique("otlp");
    let grpc = free_port();
    let receiver = format!("  otlp: {{ protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{grpc}\" }} }} }}\n");
    let mut setup = Setup::new();
    let engine = Engine::start(setup.environment(&environment, &measured(&receiver, "otlp")));
    for part in calls.chunks(100) {
        eventually("the receiver to take a request", Duration::from_secs(60), async || {
            send_grpc(grpc, traces(part, None)).await.map_err(|e| e.to_string())
        })
        .await;
    }
    let series = series(&environment, &engine, calls.len()).await;
    engine.stop().await;
    series
}

/// As documents of one kind in a data stream, which the receiver polls.
async fn from_documents(elasticsearch: &Elasticsearch, stream: &str, documents: Vec<Value>) -> Series {
    let environment = unique("documents");
    let stream = format!("{stream}-{environment}");
    let wanted = documents.len();
    elasticsearch.data_stream(&stream).await;
    elasticsearch.index(&stream, documents).await;
    let mut setup = Setup::new();
    let engine = Engine::start(setup.environment(&environment, &measured(&elasticsearch.receiver(&stream), "elasticsearch")));
    let series = series(&environment, &engine, wanted).await;
    engine.stop().await;
    series
}

async fn every_way_in_gives_the_same_series(version: &'static str) {
    let elasticsearch = needs!(elasticsearch(version));
    let calls = calls();
    let expected = over_otlp(&calls).await;
    assert_eq!(expected.values().map(|(count, ..)| count).sum::<f64>(), calls.len() as f64);
    assert_eq!(expected.values().map(|(_, errors, _)| errors).sum::<f64>(), calls.iter().filter(|c| c.failed).count() as f64);
    assert!(expected.len() >= 30, "three operations in ten minutes: {expected:?}");

    let native = calls.iter().map(|c| otel(c, "production")).collect();
    assert_eq!(from_documents(&elasticsearch, "traces-generic.otel", native).await, expected, "OTel-native documents");
    let transactions = calls.iter().map(|c| apm(c, "production")).collect();
    assert_eq!(from_documents(&elasticsearch, "traces-apm", transactions).await, expected, "APM documents");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otlp_and_documents_of_a_new_elasticsearch_give_the_same_series() {
    every_way_in_gives_the_same_series(NEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otlp_and_documents_of_an_old_elasticsearch_give_the_same_series() {
    every_way_in_gives_the_same_series(OLD).await;
}
