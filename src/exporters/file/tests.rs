//! The exporter against real files.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::model::{Anomaly, Incident};
use crate::pipeline::{Edge, Output, Services};

fn anomaly(n: usize) -> Anomaly {
    Anomaly::example(&format!("id{n}"))
}

/// Starts an exporter with this configuration.
fn start(config: serde_json::Value) -> (Context, Edge, tokio::task::JoinHandle<Result<(), ComponentError>>) {
    let context = Context::of_test("test", "file", Services { data_dir: std::env::temp_dir(), ..Services::in_memory() });
    assert_eq!(check(&config), []);
    let exporter = make(Instance { config, context: context.clone() }).unwrap();
    let (edge, input) = Input::queue(4, Arc::clone(&context.counters));
    (context, edge, tokio::spawn(exporter.run(input)))
}

async fn send(edge: &Edge, anomalies: std::ops::Range<usize>) {
    let payload = Payload::Anomalies(Arc::new(anomalies.map(anomaly).collect::<Vec<_>>().into()));
    Output::new(vec![edge.clone()]).send(payload).await.unwrap();
}

fn ids(path: &std::path::Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| serde_json::from_str::<Anomaly>(l).unwrap().id).collect()
}

#[tokio::test]
async fn every_anomaly_is_a_line_that_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/anomalies.ndjson");
    let (context, edge, task) = start(json!({ "path": path }));
    send(&edge, 0..3).await;
    send(&edge, 3..5).await;
    drop(edge);
    task.await.unwrap().unwrap();
    assert_eq!(ids(&path), ["id0", "id1", "id2", "id3", "id4"]);
    let first = std::fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
    assert_eq!(serde_json::from_str::<Anomaly>(&first).unwrap(), anomaly(0));
    let counts = context.counters.of(PayloadKind::Anomalies);
    assert_eq!((counts.received, counts.sent, counts.in_flight, counts.balanced()), (5, 5, 0, true));
}

#[tokio::test]
async fn every_event_of_an_incident_is_a_line_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anomalies.ndjson");
    let (context, edge, task) = start(json!({ "path": path }));
    let incident = Incident::example("incident", 1);
    let findings = Findings { anomalies: vec![anomaly(0)], incidents: vec![incident.clone()] };
    Output::new(vec![edge]).send(Payload::Anomalies(Arc::new(findings))).await.unwrap();
    task.await.unwrap().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(serde_json::from_str::<Anomaly>(lines[0]).unwrap(), anomaly(0));
    assert_eq!(serde_json::from_str::<Incident>(lines[1]).unwrap(), incident);
    assert_eq!((lines.len(), context.counters.of(PayloadKind::Anomalies).sent), (2, 2));
}

#[tokio::test]
async fn what_was_written_right_before_a_crash_is_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("anomalies.ndjson");
    let config = json!({ "path": path, "rotation": { "max_size": "1KiB", "backups": 9 } });
    let (_, edge, task) = start(config.clone());
    send(&edge, 0..4).await;
    drop(edge);
    task.await.unwrap().unwrap();
    // The crash tore the last line.
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}{}", &whole[..40])).unwrap();
    let (context, edge, task) = start(config.clone());
    send(&edge, 2..4).await;
    send(&edge, 3..6).await;
    drop(edge);
    task.await.unwrap().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let whole: Vec<&str> = text.lines().filter(|line| line.ends_with('}')).collect();
    assert_eq!(whole.iter().filter(|line| line.contains("\"id2\"") || line.contains("\"id3\"")).count(), 0, "in the file before");
    assert_eq!(whole.len(), 2);
    let counts = context.counters.of(PayloadKind::Anomalies);
    assert_eq!((counts.sent, context.counters.events().get("already_written")), (5, Some(&3)));
}

#[tokio::test]
async fn nothing_is_lost_while_the_file_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("blocked");
    std::fs::write(&blocked, "a file where a folder should be").unwrap();
    let path = blocked.join("anomalies.ndjson");
    let (context, edge, task) = start(json!({ "path": path, "rotation": { "max_size": "1MiB" } }));
    send(&edge, 0..2).await;
    while context.health.get().message().is_none() {
        tokio::task::yield_now().await;
    }
    let Status::RecoverableError(message) = context.health.get() else { panic!("{:?}", context.health.get()) };
    assert!(message.starts_with(&format!("cannot write {}: ", path.display())), "{message}");
    assert_eq!(context.counters.of(PayloadKind::Anomalies).in_flight, 2);
    std::fs::remove_file(&blocked).unwrap();
    drop(edge);
    task.await.unwrap().unwrap();
    assert_eq!(ids(&path), ["id0", "id1"]);
    assert_eq!((context.health.get(), context.counters.of(PayloadKind::Anomalies).sent), (Status::Ok, 2));
}

#[test]
fn a_folder_is_not_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let problems = check(&json!({ "path": folder.path() }));
    assert_eq!(problems.len(), 1);
    assert!(problems[0].fatal && problems[0].message.contains("is not a file"));
}
