use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::model::{Environment, PayloadKind, Signal};
use crate::pipeline::{Class, ComponentId, ComponentInfo, Counters, Health, Refusal, Status};

fn registry() -> (Registry, ComponentInfo) {
    let registry = Registry::default();
    let component = ComponentInfo {
        environment: Environment::new("production"),
        class: Class::Receiver,
        id: ComponentId::parse("elasticsearch/apm").unwrap(),
        pipeline: None,
        counters: Arc::new(Counters::default()),
        health: Health::default(),
    };
    registry.add(component.clone());
    (registry, component)
}

#[test]
fn health_is_503_until_all_components_work_and_when_one_needs_a_person() {
    let (registry, component) = registry();
    assert!(!health::report(&registry, None).serving());
    component.health.set(Status::Ok);
    assert!(health::report(&registry, None).serving());
    component.health.set(Status::RecoverableError("no node of the cluster answers".into()));
    assert!(health::report(&registry, None).serving(), "what tries again must not get the daemon restarted");
    component.health.set(Status::PermanentError("the key was revoked".into()));
    let report = health::report(&registry, None);
    assert!(!report.serving());
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}

#[test]
fn metrics_show_every_count_with_its_component() {
    let (registry, component) = registry();
    let mut flight = component.counters.begin(PayloadKind::Telemetry(Signal::Traces), 10);
    flight.dropped(3, "unknown_shape");
    flight.sent_part(5);
    component.counters.event("polls", 2);
    let text = prometheus::text(&registry).unwrap();
    // The process's memory is the one value that differs from run to run.
    let text: Vec<&str> = text.lines().filter(|l| !l.starts_with("process_resident_memory_bytes")).collect();
    insta::assert_snapshot!(text.join("\n"));
}

/// A server with a detector in each of two environments that says what it was asked.
async fn server(remote: bool) -> (SocketAddr, CancellationToken) {
    let registry = Registry::default();
    let id = ComponentId::parse("detector").unwrap();
    for environment in ["production", "staging"] {
        let subjects = &["series", "mutes", "mute", "unmute", "feedback"];
        let mut questions = registry.open_desk(&Environment::new(environment), Class::Connector, &id, subjects);
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                let answer = answer(environment, &question.subject, &question.body);
                question.answer(answer);
            }
        });
    }
    let server = Server::bind("127.0.0.1:0").await.unwrap().with_remote_commands(remote);
    let (address, end) = (server.address(), CancellationToken::new());
    tokio::spawn(server.serve(registry, end.clone()));
    (address, end)
}

/// Three series each; only staging knows the anomaly `known`.
fn answer(environment: &str, subject: &str, body: &Value) -> Result<Value, Refusal> {
    match subject {
        "series" => {
            let limit = body["limit"].as_u64().unwrap() as usize;
            let after = body["after"].as_str().unwrap_or("");
            let all = ["a", "b", "c"].into_iter().filter(|name| *name > after);
            let rows: Vec<&str> = all.clone().take(limit).collect();
            let next = (all.count() > limit).then(|| rows.last().copied()).flatten();
            let rows: Vec<Value> = rows.iter().map(|name| json!({ "series": name })).collect();
            Ok(json!({ "series": rows, "states": { "normal": 3 }, "next": next }))
        }
        "feedback" if environment == "production" || body["anomaly"] != "known" => {
            Err(Refusal::not_found("the anomaly is not known".to_owned()))
        }
        _ => Ok(json!({ "asked": body })),
    }
}

async fn get_json(address: SocketAddr, path: &str) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("http://{address}{path}")).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn post(address: SocketAddr, path: &str, kind: &str, body: String) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{address}{path}")).header("content-type", kind).body(body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.text().await.unwrap();
    let said = serde_json::from_str::<Value>(&body).ok().and_then(|b| Some(b["error"].as_str()?.to_owned()));
    (status, said.unwrap_or(body))
}

#[tokio::test]
async fn series_of_all_environments_come_in_pages() {
    let (address, _end) = server(false).await;
    for limit in 1..=7 {
        let mut all = Vec::new();
        let mut path = format!("/series?limit={limit}");
        loop {
            let (status, page) = get_json(address, &path).await;
            assert_eq!((status, &page["states"]), (200, &json!({ "normal": 6 })), "{page}");
            let rows = page["series"].as_array().unwrap();
            assert!(rows.len() <= limit);
            let name = |row: &Value| format!("{} {}", row["environment"].as_str().unwrap(), row["series"].as_str().unwrap());
            all.extend(rows.iter().map(name));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/series?limit={limit}&after={next}");
        }
        let expected = ["production a", "production b", "production c", "staging a", "staging b", "staging c"];
        assert_eq!(all, expected, "in pages of {limit}");
    }
    let (status, page) = get_json(address, "/series?environment=staging&contains=").await;
    assert_eq!((status, page["series"].as_array().unwrap().len()), (200, 3));
}

#[tokio::test]
async fn commands_go_to_the_detector_that_is_meant() {
    let (address, _end) = server(false).await;
    let json = "application/json";
    let (status, body) = post(address, "/feedback", json, json!({ "anomaly": "known", "verdict": "normal" }).to_string()).await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()["environment"].as_str()), (200, Some("staging")));
    let (status, body) = post(address, "/mute", json, json!({ "environment": "production", "for": "1h" }).to_string()).await;
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &told["asked"], &told["environment"]), (200, &json!({ "for": "1h" }), &json!("production")));
}

#[tokio::test]
async fn what_cannot_be_done_is_told_as_json_with_a_sentence() {
    let (address, _end) = server(false).await;
    let mut said = Vec::new();
    for path in ["/series?state=x&colour=red", "/series?limit=0", "/series?environment=test", "/serie"] {
        let (status, body) = get_json(address, path).await;
        said.push(format!("GET {path}: {status} {}", body["error"].as_str().unwrap()));
    }
    let json = "application/json";
    for (path, kind, body) in [
        ("/mute", "text/plain", "{}"),
        ("/mute", json, "{"),
        ("/mute", json, "[]"),
        ("/mute", json, "{}"),
        ("/mute", json, r#"{"environment": 7}"#),
        ("/feedback", json, r#"{"anomaly": "x"}"#),
    ] {
        let (status, error) = post(address, path, kind, body.to_owned()).await;
        said.push(format!("POST {path} {kind} {body}: {status} {error}"));
    }
    let (status, error) = post(address, "/mute", json, format!("{{\"reason\": \"{}\"}}", "x".repeat(70_000))).await;
    said.push(format!("POST /mute with 70 kB: {status} {error}"));
    let (status, error) = post(address, "/series", json, "{}".to_owned()).await;
    said.push(format!("POST /series: {status} {error}"));
    insta::assert_snapshot!(said.join("\n"));
}

#[tokio::test]
async fn a_detector_that_has_not_started_yet_is_waited_for_with_a_sentence() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.address();
    tokio::spawn(server.serve(Registry::default(), CancellationToken::new()));
    let (status, body) = get_json(address, "/series").await;
    assert_eq!((status, body["error"].as_str()), (503, Some("no detector runs yet, or none any more: see /health")));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = Server::bind("127.0.0.1:0").await.unwrap();
    let error = Server::bind(&first.address().to_string()).await.unwrap_err();
    assert!(error.contains(&first.address().to_string()) && error.contains("choose another port"), "{error}");
}
