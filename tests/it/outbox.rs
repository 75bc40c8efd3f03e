//! Findings reach an exporter that is down for a while, whatever happens to the daemon meanwhile: each once.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::{Cluster, Mood};
use crate::support::daemon::Setup;
use crate::support::history::History;
use crate::support::judge::id;
use crate::support::otlp::send_all;
use crate::support::{eventually, free_port, pipelines};

const SOON: Duration = Duration::from_secs(60);

/// The ids in the file of the `file` exporter, in their order.
fn ids(setup: &Setup) -> Vec<String> {
    let text = std::fs::read_to_string(setup.path("found.ndjson")).unwrap_or_default();
    text.lines().map(id).collect()
}

async fn cluster(mood: Mood) -> Cluster {
    let cluster = Cluster::start(0).await;
    cluster.is(mood);
    cluster
}

/// A daemon with this cluster and a file as exporters.
fn setup(cluster: &Cluster, grpc: u16) -> Setup {
    let mut setup = Setup::new();
    let file = format!("  file: {{ path: \"{}\" }}\n", setup.path("found.ndjson").display());
    let exporters = file + &cluster.exporter();
    setup.more("pipeline: { shutdown_deadline: 6s }\n").environment(
        "production",
        &pipelines::traces("otlp", &pipelines::otlp(grpc, free_port()), "file, elasticsearch", &exporters),
    );
    setup
}

const ELASTICSEARCH: [(&str, &str); 1] = [("exporter", "elasticsearch")];
const FILE: [(&str, &str); 1] = [("exporter", "file")];

#[tokio::test]
async fn what_an_exporter_missed_while_it_was_down_comes_once_through_kills_and_stops() {
    let (cluster, grpc) = (cluster(Mood::Unavailable).await, free_port());
    let setup = setup(&cluster, grpc);
    let mut daemon = setup.start().await;
    send_all(grpc, History::of_hours("checkout", 7).with_fault().calls(), "production").await;
    let waits = |m: &crate::support::metrics::Metrics| m.sum("anomalyd_outbox_waiting", &ELASTICSEARCH);
    daemon.metrics_when("findings that wait", SOON, |m| waits(m) > 0 && m.sum("anomalyd_outbox_waiting", &FILE) == 0).await;
    daemon.kill();

    // After a kill: all of them wait still, and the file has no line twice.
    let mut daemon = setup.start().await;
    let metrics =
        daemon.metrics_when("the same findings", SOON, |m| waits(m) as usize == ids(&setup).len() && waits(m) > 0).await;
    let found = ids(&setup);
    let mut once = found.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), found.len(), "the file holds each once: {}", metrics.text());

    // An orderly stop while it is down: nothing is lost, and it is told what waits.
    let status = daemon.stop().await;
    assert_eq!(status.code(), Some(0), "{}", daemon.said());
    let told = format!("{} findings wait in the outbox for exporter `elasticsearch`", found.len());
    assert!(daemon.said().contains(&told), "{told}\n{}", daemon.said());
    assert!(cluster.documents().all.is_empty());

    // It writes, and its answers are cut: killed in the middle, and it is well again.
    cluster.is(Mood::CutAfter);
    let mut daemon = setup.start().await;
    eventually("documents", SOON, async || if cluster.documents().all.is_empty() { Err("none".to_owned()) } else { Ok(()) })
        .await;
    daemon.kill();
    cluster.is(Mood::Well);
    let mut daemon = setup.start().await;
    daemon.metrics_when("nothing waits", SOON, |m| waits(m) == 0 && m.drained()).await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    let documents = cluster.documents().all;
    assert_eq!(documents.keys().cloned().collect::<Vec<_>>(), once, "every finding is there");
    assert_eq!(ids(&setup), found, "and the file has what it had");
}

#[tokio::test]
async fn what_was_refused_is_listed_with_its_reason_and_sent_again_when_told() {
    let (cluster, grpc) = (cluster(Mood::Strict).await, free_port());
    let setup = setup(&cluster, grpc);
    let mut daemon = setup.start().await;
    send_all(grpc, History::of_hours("checkout", 7).with_fault().calls(), "production").await;
    let refused = |m: &crate::support::metrics::Metrics| {
        m.sum("anomalyd_component_dropped_total", &[("class", "exporter"), ("reason", "dead_letter")])
    };
    let metrics = daemon.metrics_when("dead letters", SOON, |m| refused(m) > 0 && m.drained()).await;
    let count = refused(&metrics);

    let data = setup.path("data").display().to_string();
    let endpoint = format!("127.0.0.1:{}", setup.admin());
    let command = async |arguments: &[&str]| {
        let output = tokio::process::Command::from(Command::new(env!("CARGO_BIN_EXE_anomalyd")))
            .arg("dead-letters")
            .args(arguments)
            .output()
            .await
            .expect("the command");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let list = ["--data-dir", data.as_str(), "--format", "json"];
    let (code, listed, _) = command(&list).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!(code, Some(0));
    let reasons = json!([{ "reason": "document_parsing_exception: document ... is strange", "findings": count }]);
    let pile = &listed["dead_letters"][0];
    assert_eq!((&pile["exporter"], &pile["findings"]), (&json!("elasticsearch"), &json!(count)), "{listed}");
    // The events of incidents have a number behind the incident's id.
    let told: u64 = pile["reasons"].as_array().expect("reasons").iter().filter_map(|r| r["findings"].as_u64()).sum();
    assert!(told == count && pile["reasons"].to_string().contains(" is strange"), "{listed}; expected about {reasons}");

    // What is refused again comes back.
    let (code, said, errors) = command(&["resend", "--exporter", "elasticsearch", "--endpoint", &endpoint]).await;
    assert_eq!(
        (code, said.as_str()),
        (Some(0), format!("production elasticsearch: {count} findings are sent again\n").as_str()),
        "{errors}"
    );
    daemon.metrics_when("they are refused again", SOON, |m| refused(m) == 2 * count && m.drained()).await;

    // The cluster has learnt to read them.
    cluster.is(Mood::Well);
    let (code, said, errors) = command(&["resend", "--endpoint", &endpoint]).await;
    assert_eq!(
        (code, said.as_str()),
        (Some(0), format!("production elasticsearch: {count} findings are sent again\n").as_str()),
        "{errors}"
    );
    daemon.metrics_when("they are delivered", SOON, |m| m.drained() && cluster.documents().all.len() as u64 == count).await;
    let mut found = ids(&setup);
    found.sort();
    assert_eq!(cluster.documents().all.into_keys().collect::<Vec<_>>(), found);
    let (_, said, _) = command(&["resend", "--endpoint", &endpoint]).await;
    assert_eq!(said, "there is nothing to send again\n");
    let (_, said, _) = command(&["--data-dir", &data]).await;
    assert_eq!(said, "there are no dead letters\n");
    let (code, _, said) = command(&["resend", "--exporter", "elastic", "--endpoint", &endpoint]).await;
    assert_eq!(code, Some(1));
    assert_eq!(said, "error: connector `detector` of production has no exporter `elastic`: it has elasticsearch, file\n");
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}
