//! A daemon that is stopped while it catches up reads on where it was: every document once.

use std::time::Duration;

use anomalyd::model::UnixNanos;

use crate::support::daemon::Setup;
use crate::support::documents::otel;
use crate::support::elasticsearch::{NEW, OLD, elasticsearch};
use crate::support::engine::{Engine, kept};
use crate::support::otlp::Call;
use crate::support::{eventually, needs, unique};

const DOCUMENTS: u64 = 40_000;

async fn every_document_is_read_once(version: &'static str) {
    let elasticsearch = needs!(elasticsearch(version));
    let environment = unique("restart");
    let stream = format!("traces-generic.otel-{environment}");
    elasticsearch.data_stream(&stream).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    let begin = UnixNanos::from_secs(now - 3 * 3600);
    // Sixteen documents of every moment: a page may end among equal timestamps.
    let call = |number: u64| Call {
        service: "checkout".to_owned(),
        operation: "POST /pay".to_owned(),
        start: begin.plus(number / 16 * 4 * UnixNanos::SECOND).0,
        duration: 5_000_000,
        failed: false,
        number,
    };
    elasticsearch.index(&stream, (0..DOCUMENTS).map(|n| otel(&call(n), &environment))).await;

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
