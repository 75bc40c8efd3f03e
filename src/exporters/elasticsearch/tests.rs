//! The exporter against a server that does what no well cluster does. The tests against real clusters are in
//! `tests/it/elasticsearch_exporter.rs`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::document::tests::anomaly;
use super::*;
use crate::elasticsearch::stub::{Answer, Seen, Stub};
use crate::model::Anomaly;
use crate::pipeline::{Context, Counts, Edge, Origin, Output, Receipt, Services, Status};

/// A running exporter.
struct Running {
    context: Context,
    edge: Option<Edge>,
    task: JoinHandle<Result<(), ComponentError>>,
    folder: tempfile::TempDir,
}

/// Starts an exporter that writes to `url`, with waits that suit a test. `more` adds to the configuration.
fn start(url: &str, more: &Value) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let services = Services { data_dir: folder.path().to_owned(), ..Services::in_memory() };
    let context = Context::of_test("production", "elasticsearch/anomalies", services);
    let mut config = json!({
        "endpoints": [url], "setup": false, "flush_interval": "1ms", "request_timeout": "500ms",
        "retry": { "initial_interval": "1ms", "max_interval": "4ms" },
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    assert_eq!(check(&config), []);
    let exporter = make(Instance { config, context: context.clone() }).unwrap();
    let (edge, input) = Input::queue(4, Arc::clone(&context.counters));
    Running { context, edge: Some(edge), task: tokio::spawn(exporter.run(input)), folder }
}

impl Running {
    async fn send(&self, ids: &[&str]) {
        let payload = Payload::Anomalies(Arc::new(ids.iter().map(|id| anomaly(id)).collect::<Vec<_>>().into()));
        Output::new(self.edge.iter().cloned().collect()).send(payload).await.unwrap();
    }

    /// Ends the input and waits until all is delivered.
    async fn end(&mut self) -> Counts {
        self.edge = None;
        (&mut self.task).await.unwrap().unwrap();
        let counts = self.counts();
        assert!(counts.balanced() && counts.in_flight == 0, "{counts:?}");
        counts
    }

    fn counts(&self) -> Counts {
        self.context.counters.of(PayloadKind::Anomalies)
    }

    fn event(&self, name: &str) -> u64 {
        self.context.counters.events().get(name).copied().unwrap_or(0)
    }

    /// Waits until the exporter says that something is wrong.
    async fn trouble(&self) -> Status {
        loop {
            let status = self.context.health.get();
            if status.message().is_some() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn dead_letters(&self) -> Vec<Value> {
        let file = self.folder.path().join("dead_letter/production-elasticsearch_anomalies.ndjson");
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    }
}

/// The ids in a bulk request.
fn ids(seen: &Seen) -> Vec<String> {
    seen.lines().iter().filter_map(|l| l["create"]["_id"].as_str().map(str::to_owned)).collect()
}

/// An answer to a bulk request with these statuses and error types.
fn items(answers: &[(u16, &str)]) -> Answer {
    let item = |(status, kind): &(u16, &str)| {
        let mut create = json!({ "status": status });
        if !kind.is_empty() {
            create["error"] = json!({ "type": kind, "reason": format!("because of {kind}") });
        }
        json!({ "create": create })
    };
    let errors = answers.iter().any(|(_, kind)| !kind.is_empty());
    Answer::json(200, &json!({ "errors": errors, "took": 1, "items": answers.iter().map(item).collect::<Vec<_>>() }))
}

/// Says that everything is written.
fn all_written(seen: &Seen) -> Answer {
    items(&vec![(201, ""); ids(seen).len()])
}

#[tokio::test]
async fn documents_are_created_with_the_anomalys_id_in_a_data_stream() {
    let stub = Stub::with(|seen| Some(all_written(seen))).await;
    let mut exporter = start(&stub.url, &json!({ "flush_interval": "10s", "max_batch_size": "1KiB" }));
    exporter.send(&["a", "b"]).await;
    let counts = exporter.end().await;
    assert_eq!((counts.received, counts.sent), (2, 2));
    let seen = stub.seen();
    let uri = "/logs-anomaly.record-production/_bulk?filter_path=errors%2Ctook%2Citems.*.status%2Citems.*.error%2Citems.*.failure_store&require_data_stream=true";
    assert_eq!(seen.iter().map(|s| s.uri.as_str()).collect::<Vec<_>>(), [uri, uri], "1 KiB holds one document");
    assert_eq!(seen[0].header("content-type"), "application/x-ndjson");
    assert_eq!(seen[0].header("x-opaque-id"), "anomalyd/production/elasticsearch/anomalies");
    assert_eq!(ids(&seen[0]), ["a"]);
    assert_eq!(seen[0].lines()[1]["anomaly"]["id"], "a");
}

#[tokio::test]
async fn deliveries_go_together_until_the_batch_is_full_or_the_time_is_up() {
    let stub = Stub::with(|seen| Some(all_written(seen))).await;
    let mut exporter = start(&stub.url, &json!({ "flush_interval": "10s" }));
    for id in ["a", "b", "c"] {
        exporter.send(&[id]).await;
    }
    exporter.end().await;
    assert_eq!(stub.seen().iter().map(ids).collect::<Vec<_>>(), [["a", "b", "c"]]);
}

#[tokio::test]
async fn only_what_was_not_taken_is_sent_again_and_in_its_order() {
    let stub = Stub::answering([
        items(&[
            (201, ""),
            (429, "es_rejected_execution_exception"),
            (201, ""),
            (503, "unavailable_shards_exception"),
            (429, "circuit_breaking_exception"),
        ]),
        items(&[(429, "es_rejected_execution_exception"), (201, ""), (201, "")]),
        items(&[(201, "")]),
    ])
    .await;
    let mut exporter = start(&stub.url, &json!({}));
    exporter.send(&["a", "b", "c", "d", "e"]).await;
    assert_eq!(exporter.end().await.sent, 5);
    assert_eq!(stub.seen().iter().map(|s| ids(s).concat()).collect::<Vec<_>>(), ["abcde", "bde", "b"]);
    assert_eq!(exporter.event("items_retried"), 4);
}

#[tokio::test]
async fn nothing_overtakes_what_was_refused_for_now() {
    let refused = Mutex::new(0);
    let stub = Stub::with(move |seen| {
        let mut refused = refused.lock().unwrap();
        let mut answer = |id: &String| {
            let refuses = id == "b" && *refused < 3;
            *refused += u8::from(refuses);
            if refuses { (429, "es_rejected_execution_exception") } else { (201, "") }
        };
        Some(items(&ids(seen).iter().map(&mut answer).collect::<Vec<_>>()))
    })
    .await;
    let mut exporter = start(&stub.url, &json!({ "flush_interval": "10s", "max_batch_size": "8KiB" }));
    exporter.send(&["a", "b", "c", "d", "e", "f"]).await;
    assert_eq!(exporter.end().await.sent, 6);
    let seen: Vec<String> = stub.seen().iter().map(|seen| ids(seen).concat()).collect();
    let first = seen[0].len();
    assert!((2..6).contains(&first), "a part of them fits into a request: {seen:?}");
    assert_eq!(seen[1..4], ["b", "b", "b"]);
    assert_eq!(seen[0].clone() + &seen[4..].concat(), "abcdef");
}

#[tokio::test]
async fn what_is_there_already_counts_as_written() {
    let stub = Stub::answering([items(&[(409, "version_conflict_engine_exception"), (201, "")])]).await;
    let mut exporter = start(&stub.url, &json!({}));
    exporter.send(&["a", "b"]).await;
    assert_eq!(exporter.end().await.sent, 2);
    assert_eq!((exporter.event("already_written"), exporter.dead_letters().len()), (1, 0));
}

#[tokio::test]
async fn what_will_never_be_taken_goes_to_the_dead_letter_file_and_the_rest_goes_on() {
    let stub = Stub::answering([items(&[(201, ""), (400, "document_parsing_exception"), (201, "")])]).await;
    let mut exporter = start(&stub.url, &json!({}));
    exporter.send(&["a", "b", "c"]).await;
    let counts = exporter.end().await;
    assert_eq!((counts.sent, counts.dropped.get("dead_letter")), (2, Some(&1)));
    let letters = exporter.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0]["exporter"], &letters[0]["environment"]), (&json!("elasticsearch/anomalies"), &json!("production")));
    assert_eq!(letters[0]["reason"], "document_parsing_exception: because of document_parsing_exception");
    assert_eq!(serde_json::from_value::<Anomaly>(letters[0]["finding"].clone()).unwrap(), anomaly("b"), "all of it");
}

#[tokio::test]
async fn a_dead_letter_that_cannot_be_kept_is_not_lost() {
    let stub = Stub::with(|seen| Some(items(&vec![(400, "document_parsing_exception"); ids(seen).len()]))).await;
    let mut exporter = start(&stub.url, &json!({}));
    let blocked = exporter.folder.path().join("dead_letter");
    std::fs::write(&blocked, "a file where the folder should be").unwrap();
    exporter.send(&["a"]).await;
    let Status::RecoverableError(message) = exporter.trouble().await else { panic!("not recoverable") };
    assert!(message.contains("the dead-letter file cannot keep it: cannot write"), "{message}");
    assert!(exporter.event("dead_letter_errors") > 0 && exporter.counts().in_flight == 1);
    std::fs::remove_file(blocked).unwrap();
    assert_eq!(exporter.end().await.dropped.get("dead_letter"), Some(&1));
    assert_eq!(exporter.dead_letters().len(), 1);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_halved_until_it_fits() {
    let stub = Stub::with(|seen| Some(if ids(seen).len() > 2 { Answer::empty(413) } else { all_written(seen) })).await;
    let mut exporter = start(&stub.url, &json!({}));
    exporter.send(&["a", "b", "c", "d", "e", "f", "g"]).await;
    assert_eq!(exporter.end().await.sent, 7);
    let written: Vec<String> = stub.seen().iter().map(|s| ids(s).concat()).filter(|i| i.len() <= 2).collect();
    assert_eq!(written.concat(), "abcdefg");
}

#[tokio::test]
async fn one_document_that_is_too_large_goes_to_the_dead_letter_file() {
    let stub =
        Stub::with(|seen| Some(if ids(seen).contains(&"c".to_owned()) { Answer::html(413) } else { all_written(seen) })).await;
    let mut exporter = start(&stub.url, &json!({}));
    exporter.send(&["a", "b", "c", "d"]).await;
    let counts = exporter.end().await;
    assert_eq!((counts.sent, counts.dropped.get("dead_letter")), (3, Some(&1)));
    assert_eq!(exporter.dead_letters()[0]["finding"]["id"], "c");
}

#[tokio::test]
async fn a_proxy_a_timeout_and_a_cut_answer_cost_nothing_but_time() {
    let stub = Stub::answering([
        Answer::html(502),
        Answer::html(200),
        items(&[(201, "")]).after(Duration::from_secs(60)),
        Answer::text(200, "application/json", r#"{"errors":fal"#).cut(),
        Answer::json(200, &json!({ "took": 1, "errors": false })),
        Answer::empty(500),
        items(&[(201, "")]),
    ])
    .await;
    let mut exporter = start(&stub.url, &json!({}));
    exporter.send(&["a"]).await;
    assert_eq!(exporter.end().await.sent, 1);
    assert_eq!((stub.seen().len(), exporter.event("requests_failed")), (7, 6));
    assert_eq!(exporter.context.health.get(), Status::Ok);
}

#[tokio::test]
async fn a_key_that_is_not_known_stops_the_writing_until_it_is() {
    for (status, whole) in [(401, true), (403, true), (403, false)] {
        let known = Arc::new(Mutex::new(false));
        let stub = Stub::with({
            let known = Arc::clone(&known);
            move |seen| {
                Some(match (*known.lock().unwrap(), whole) {
                    (true, _) => all_written(seen),
                    (false, true) => Answer::json(status, &json!({ "error": { "type": "security_exception", "reason": "no" } })),
                    (false, false) => items(&vec![(status, "security_exception"); ids(seen).len()]),
                })
            }
        })
        .await;
        let mut exporter = start(&stub.url, &json!({}));
        exporter.send(&["a"]).await;
        let Status::PermanentError(message) = exporter.trouble().await else { panic!("{status}: not permanent") };
        assert!(message.contains(&format!("{status} security_exception: ")), "{message}");
        *known.lock().unwrap() = true;
        assert_eq!(exporter.end().await.sent, 1);
        assert_eq!(exporter.context.health.get(), Status::Ok);
    }
}

#[tokio::test]
async fn a_missing_data_stream_is_set_up_again_and_nothing_is_lost() {
    let made = Arc::new(Mutex::new(0));
    let stub = Stub::with({
        let made = Arc::clone(&made);
        move |seen| {
            let mut made = made.lock().unwrap();
            if seen.uri.starts_with("/_index_template/") {
                *made += 1;
            }
            seen.uri.contains("_bulk").then(|| match *made {
                0 | 1 => items(&vec![(404, "index_not_found_exception"); ids(seen).len()]),
                _ => all_written(seen),
            })
        }
    })
    .await;
    let mut exporter = start(&stub.url, &json!({ "setup": true }));
    exporter.send(&["a", "b"]).await;
    let Status::PermanentError(message) = exporter.trouble().await else { panic!("not permanent") };
    assert!(message.contains("the data stream is not there"), "{message}");
    assert_eq!((exporter.end().await.sent, *made.lock().unwrap()), (2, 2));
}

#[tokio::test]
async fn an_old_cluster_is_not_asked_for_a_data_stream() {
    let stub = Stub::with(|seen| {
        let reason = "request [/x/_bulk] contains unrecognized parameter: [require_data_stream]";
        let error = json!({ "error": { "type": "illegal_argument_exception", "reason": reason } });
        Some(if seen.uri.contains("require_data_stream") { Answer::json(400, &error) } else { all_written(seen) })
    })
    .await;
    let mut exporter = start(&stub.url, &json!({}));
    exporter.send(&["a", "b"]).await;
    assert_eq!((exporter.end().await.sent, stub.seen().len()), (2, 2));
}

#[tokio::test]
async fn a_cluster_that_is_away_at_the_start_holds_nobody_up_who_wants_to_end() {
    let mut exporter =
        start("http://127.0.0.1:9", &json!({ "setup": true, "retry": { "initial_interval": "1h", "max_interval": "1h" } }));
    assert!(matches!(exporter.trouble().await, Status::RecoverableError(_)));
    assert_eq!(exporter.end().await, Counts::default());
}

#[tokio::test]
async fn back_pressure_reaches_the_sender_and_an_abort_counts_what_is_lost() {
    let stub = Stub::with(|_| Some(Answer::empty(503))).await;
    let exporter = start(&stub.url, &json!({}));
    exporter.send(&["a", "b"]).await;
    exporter.trouble().await;
    let output = Output::new(exporter.edge.iter().cloned().collect());
    let mut accepted = 0;
    while let Ok(room) = output.room_within(Duration::from_millis(20)).await {
        room.send(&Payload::Anomalies(Arc::new(vec![anomaly("x")].into())), &Origin::default(), Receipt::default());
        accepted += 1;
    }
    assert!(accepted <= 4, "the queue holds 4");
    exporter.task.abort();
    while exporter.counts().in_flight > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let counts = exporter.counts();
    assert_eq!((counts.sent, counts.dropped.get("aborted").copied()), (0, Some(2 + accepted)));
}

#[tokio::test]
async fn what_its_sender_withdraws_is_let_go_even_while_the_cluster_is_down() {
    let stub = Stub::with(|_| Some(Answer::empty(503))).await;
    let mut exporter = start(&stub.url, &json!({}));
    let (receipt, waiting) = Receipt::new();
    let payload = Payload::Anomalies(Arc::new(vec![anomaly("a"), anomaly("b")].into()));
    let output = Output::new(exporter.edge.iter().cloned().collect());
    output.send_on(payload, Origin::default(), receipt).await.unwrap();
    exporter.trouble().await;
    drop((waiting, output));
    let counts = exporter.end().await;
    assert_eq!((counts.sent, counts.dropped_total(), counts.refused), (0, 0, 2), "its sender has it, so it is not lost");
}

/// Every fault at random places, always the same for the same seed.
#[tokio::test]
async fn whatever_goes_wrong_every_anomaly_ends_in_exactly_one_place() {
    for seed in 0..12 {
        let stored: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let dice = Mutex::new(fastrand::Rng::with_seed(seed));
        let stub = Stub::with({
            let stored = Arc::clone(&stored);
            move |seen| {
                let (mut dice, mut stored) = (dice.lock().unwrap(), stored.lock().unwrap());
                let ids = ids(seen);
                match dice.u32(0..12) {
                    0 => return Some(Answer::html(502)),
                    1 => return Some(Answer::empty(429)),
                    2 if ids.len() > 1 => return Some(Answer::empty(413)),
                    3 => return Some(Answer::html(200)),
                    _ => {}
                }
                let answers: Vec<(u16, &str)> = ids
                    .iter()
                    .map(|id| match dice.u32(0..6) {
                        // The document decides whether it is refused, as in a real cluster.
                        _ if id.ends_with('7') => (400, "document_parsing_exception"),
                        0 => (429, "es_rejected_execution_exception"),
                        _ if stored.contains_key(id) => (409, "version_conflict_engine_exception"),
                        _ => {
                            *stored.entry(id.clone()).or_default() += 1;
                            (201, "")
                        }
                    })
                    .collect();
                // Written, but the answer does not arrive.
                Some(if dice.u32(0..8) == 0 { Answer::text(200, "application/json", "{").cut() } else { items(&answers) })
            }
        })
        .await;
        let mut exporter = start(&stub.url, &json!({ "max_batch_size": "8KiB" }));
        let ids: Vec<String> = (0..40).map(|n| format!("id{n}")).collect();
        for some in ids.chunks(7) {
            exporter.send(&some.iter().map(String::as_str).collect::<Vec<_>>()).await;
            assert!(exporter.counts().balanced());
        }
        let counts = exporter.end().await;
        let dead: Vec<String> = exporter.dead_letters().iter().map(|l| l["finding"]["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!((counts.sent, counts.dropped_total(), dead.len()), (36, 4, 4), "seed {seed}");
        let stored = stored.lock().unwrap();
        for id in &ids {
            let places = stored.get(id).copied().unwrap_or(0) + u32::from(dead.contains(id));
            assert_eq!(places, 1, "seed {seed}: {id}");
        }
    }
}

#[test]
fn the_schema_is_closed_and_describes_every_key() {
    let schema = (FACTORY.schema)(&mut schemars::SchemaGenerator::default());
    let schema = schema.as_value();
    assert_eq!(schema["additionalProperties"], json!(false));
    assert!(schema.get("unevaluatedProperties").is_none());
    let properties = schema["properties"].as_object().unwrap();
    for (name, property) in properties {
        assert!(property["description"].is_string() || property.get("$ref").is_some(), "{name}: {property}");
    }
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    insta::assert_snapshot!(names.join(" "));
}
