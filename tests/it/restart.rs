//! A daemon that is stopped while it catches up reads on where it was: every document once.

use std::time::Duration;

use anomalyd::model::UnixNanos;

use crate::support::daemon::Setup;
use crate::support::documents::otel;
use crate::support::elasticsearch::{Elasticsearch, NEW, OLD, elasticsearch};
use crate::support::engine::{Engine, kept};
use crate::support::otlp::Call;
use crate::support::{eventually, needs, own_telemetry, pipelines, unique};

const DOCUMENTS: u64 = 40_000;

/// A data stream of the last three hours. Sixteen documents of every moment: a page may end among equal timestamps.
async fn documents(elasticsearch: &Elasticsearch, environment: &str) -> String {
    let stream = format!("traces-generic.otel-{environment}");
    elasticsearch.data_stream(&stream).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let begin = UnixNanos::from_secs(now - 3 * 3600);
    let call = |number: u64| Call {
        service: "checkout".to_owned(),
        operation: "POST /pay".to_owned(),
        start: begin.plus(number / 16 * 4 * UnixNanos::SECOND).0,
        duration: 5_000_000,
        failed: false,
        number,
    };
    elasticsearch.index(&stream, (0..DOCUMENTS).map(|n| otel(&call(n), environment))).await;
    stream
}

async fn every_document_is_read_once(version: &'static str) {
    let elasticsearch = needs!(elasticsearch(version));
    let environment = unique("restart");
    let stream = documents(&elasticsearch, &environment).await;
    let mut setup = Setup::new();
    setup.environment(
        &environment,
        &format!(
            "receivers:
{}    page_size: 500
service:
  pipelines:
    traces: {{ receivers: [elasticsearch], exporters: [keep] }}
",
            elasticsearch.receiver(&stream)
        ),
    );
    let start = || Engine::start(&setup);
    let read = || kept(&environment).spans.len() as u64;
    let mut stops = 0;
    let mut received = 0;
    // Stopped wherever it is, three times on its way.
    for part in 1..=3 {
        let engine = start();
        eventually("a part of the documents", Duration::from_secs(60), async || {
            assert!(!engine.ended(), "the daemon ended");
            if read() >= DOCUMENTS * part / 5 { Ok(()) } else { Err(format!("{} documents", read())) }
        })
        .await;
        received += engine.stop().await.iter().map(|c| c.received).sum::<u64>();
        stops += u64::from(read() < DOCUMENTS);
    }
    assert!(stops > 0, "it was never stopped in the middle of its catch-up");
    let engine = start();
    eventually("all documents", Duration::from_secs(120), async || {
        assert!(!engine.ended(), "the daemon ended");
        if read() == DOCUMENTS { Ok(()) } else { Err(format!("{} documents", read())) }
    })
    .await;
    received += engine.stop().await.iter().map(|c| c.received).sum::<u64>();

    let spans = kept(&environment).spans;
    let again: Vec<_> = spans.iter().filter(|(_, times)| **times > 1).take(3).collect();
    assert!(again.is_empty(), "read more than once: {again:?}");
    assert_eq!(received, DOCUMENTS, "what the receiver says it has received");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_in_a_catch_up_every_document_of_a_new_elasticsearch_is_read_once() {
    every_document_is_read_once(NEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_in_a_catch_up_every_document_of_an_old_elasticsearch_is_read_once() {
    every_document_is_read_once(OLD).await;
}

#[tokio::test]
async fn a_daemon_that_is_told_to_stop_in_a_catch_up_counts_every_document_once_over_both_runs() {
    let elasticsearch = needs!(elasticsearch(NEW));
    let environment = unique("terminate");
    let stream = documents(&elasticsearch, &environment).await;
    // The last counts of a run are in what the daemon tells about itself at its end.
    let own = own_telemetry::Server::start().await;
    let receiver = elasticsearch.receiver(&stream) + "    page_size: 500\n";
    let mut setup = Setup::new();
    setup
        .more(&format!("telemetry: {{ otlp: {{ endpoint: \"http://127.0.0.1:{}\", interval: 1h }} }}\n", own.port))
        .environment(&environment, &pipelines::traces("elasticsearch", &receiver, "console", "  console: {}\n"));
    let labels = [("environment", environment.as_str()), ("class", "receiver")];
    let last = || {
        let count = |what: &str| own.received.sum(&format!("anomalyd_component_{what}"), &labels);
        let (received, sent, in_flight) = (count("received"), count("sent"), count("in_flight"));
        assert_eq!((sent, in_flight), (received, 0), "all that was read was handed on");
        own.received.clear();
        received
    };

    let mut daemon = setup.start().await;
    daemon.metrics_when("a part of the documents", Duration::from_secs(60), |m| m.received(&labels) > DOCUMENTS / 10).await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    let first = last();
    assert!(first < DOCUMENTS, "it was stopped in the middle of its catch-up");

    let mut daemon = setup.start().await;
    let rest = DOCUMENTS - first;
    daemon.metrics_when("the rest of the documents", Duration::from_secs(120), |m| m.received(&labels) >= rest).await;
    // Two more polls find nothing more.
    let polls = |m: &crate::support::metrics::Metrics| {
        m.sum("anomalyd_component_events_total", &[("environment", environment.as_str()), ("event", "polls")])
    };
    let before = polls(&daemon.metrics().await);
    daemon.metrics_when("two more polls", Duration::from_secs(60), |m| polls(m) >= before + 2).await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    assert_eq!(last(), rest, "what the second run read");
}
