//! The `elasticsearch` exporter and the client below it against real clusters.

use std::sync::Arc;
use std::time::Duration;

use anomalyd::exporters::elasticsearch::FACTORY;
use anomalyd::model::{
    Anomaly, DetectorRef, Direction, Entity, Environment, Findings, Incident, IncidentEvent, IncidentRef, Lead, Payload,
    PayloadKind, Reason, Severity, Signal, SpanKind, UnixNanos, Window,
};
use anomalyd::pipeline::{
    ComponentError, ComponentId, Context, Counters, Counts, Edge, Health, Input, Instance, Make, Output, Registry, Services,
    Status, SystemClock,
};
use anomalyd::storage::MemoryStorage;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::elasticsearch::{Elasticsearch, NEW, OLD, elasticsearch};
use crate::support::{eventually, needs, unique};

fn anomaly(id: &str, environment: &str) -> Anomaly {
    Anomaly {
        id: id.to_owned(),
        fingerprint: "series".to_owned(),
        environment: Environment::new(environment),
        detector: DetectorRef { name: "detector".to_owned(), kind: "ensemble".to_owned(), version: "1".to_owned() },
        signal: Signal::Traces,
        entity: Entity {
            service: "checkout".to_owned(),
            operation: Some("POST /pay".to_owned()),
            kind: Some(SpanKind::Server),
            attributes: vec![
                ("http.response.status_code".to_owned(), "503".to_owned()),
                ("k8s.pod.name".to_owned(), "checkout-1".to_owned()),
                ("tier".to_owned(), "gold".to_owned()),
            ],
            ..Entity::default()
        },
        metric: "span".to_owned(),
        unit: "s".to_owned(),
        function: "p99".to_owned(),
        window: Window { start: UnixNanos::from_secs(1_789_000_020), end: UnixNanos::from_secs(1_789_000_080) },
        observed: 0.412,
        expected: f64::NAN,
        lower: 0.08,
        // More than a `float` of Elasticsearch can hold.
        upper: 1e300,
        samples: 731.0,
        score: 91.5,
        probability: 1e-300,
        severity: Severity::Critical,
        direction: Direction::Spike,
        reasons: vec![Reason { component: "ar4".to_owned(), surprise: 4.0, share: 1.0, text: "it rose".to_owned() }],
        past: None,
        incident: Some(IncidentRef { id: "incident".to_owned(), lead: id == "a0" }),
    }
}

/// An event of the incident that the anomalies belong to.
fn incident(event: IncidentEvent, sequence: u32, environment: &str) -> Incident {
    let (start, updated) = (UnixNanos::from_secs(1_789_000_020), UnixNanos::from_secs(1_789_000_080));
    Incident {
        id: "incident".to_owned(),
        environment: Environment::new(environment),
        detector: DetectorRef { name: "detector".to_owned(), kind: "ensemble".to_owned(), version: "1".to_owned() },
        event,
        sequence,
        start,
        updated,
        end: (event == IncidentEvent::Ended).then_some(updated),
        score: 91.5,
        severity: Severity::Critical,
        threshold: 1.55,
        title: "checkout POST /pay is slow: p99 412 ms instead of 95 ms".to_owned(),
        lead: Lead {
            anomaly: "a0".to_owned(),
            service: "checkout".to_owned(),
            observed: 0.412,
            expected: f64::NAN,
            ..Lead::default()
        },
        anomalies: 5,
        series_count: 1,
        services: vec!["checkout".to_owned(), "cart".to_owned()],
        entities: vec!["checkout POST /pay (server)".to_owned()],
        series: vec!["checkout POST /pay (server): span p99".to_owned()],
    }
}

/// A running exporter.
struct Running {
    counters: Arc<Counters>,
    health: Health,
    edge: Edge,
    task: tokio::task::JoinHandle<Result<(), ComponentError>>,
    folder: tempfile::TempDir,
}

/// Starts an exporter of `environment`; `more` adds to where the cluster is and who asks.
fn start(elasticsearch: &Elasticsearch, environment: &str, more: &Value) -> Running {
    let folder = tempfile::tempdir().expect("a folder");
    let (counters, health) = (Arc::<Counters>::default(), Health::default());
    let context = Context {
        environment: Environment::new(environment),
        id: ComponentId::parse("elasticsearch").expect("an id"),
        counters: Arc::clone(&counters),
        health: health.clone(),
        shutdown: tokio_util::sync::CancellationToken::new(),
        services: Services {
            clock: Arc::new(SystemClock),
            storage: Arc::new(MemoryStorage::default()),
            data_dir: folder.path().to_owned(),
            files: None,
            registry: Registry::default(),
            queue_capacity: 4,
            ..Services::in_memory()
        },
    };
    let mut config = json!({
        "endpoints": [elasticsearch.url], "username": elasticsearch.user, "password": elasticsearch.password,
        "flush_interval": "10ms", "retry": { "initial_interval": "10ms", "max_interval": "100ms" },
    });
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    let problems = (FACTORY.check)(&config);
    assert!(problems.is_empty(), "{problems:?}");
    let Make::Exporter(make) = FACTORY.make else { panic!("an exporter") };
    let exporter = make(Instance { config, context }).expect("an exporter");
    let (edge, input) = Input::queue(4, Arc::clone(&counters));
    Running { counters, health, edge, task: tokio::spawn(exporter.run(input)), folder }
}

impl Running {
    async fn send(&self, anomalies: Vec<Anomaly>) {
        self.send_findings(anomalies.into()).await;
    }

    async fn send_findings(&self, findings: Findings) {
        let payload = Payload::Anomalies(Arc::new(findings));
        Output::new(vec![self.edge.clone()]).send(payload).await.expect("the exporter runs");
    }

    /// Ends the input and waits until all is delivered.
    async fn end(self) -> (Counts, Vec<Value>) {
        let Self { counters, edge, task, folder, .. } = self;
        drop(edge);
        tokio::time::timeout(Duration::from_secs(60), task).await.expect("in time").expect("no panic").expect("no error");
        let counts = counters.of(PayloadKind::Anomalies);
        assert!(counts.balanced() && counts.in_flight == 0, "{counts:?}");
        let mut dead = Vec::new();
        for file in std::fs::read_dir(folder.path().join("dead_letter")).into_iter().flatten() {
            let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
            dead.extend(text.lines().map(|l| serde_json::from_str::<Value>(l).expect("JSON")));
        }
        (counts, dead)
    }
}

/// The types of the fields that hold this much of the name.
fn type_of(mapping: &Value, field: &str) -> Value {
    let mut at = mapping;
    for part in field.split('.') {
        at = &at["properties"][part];
    }
    at["type"].clone()
}

async fn written_once_and_read_back(version: &'static str) {
    let elasticsearch = needs!(elasticsearch(version));
    let environment = unique("exported");
    let stream = format!("logs-anomaly.record-{environment}");
    for _ in 0..2 {
        // The second exporter is the daemon after a replay: the same anomalies again.
        let running = start(&elasticsearch, &environment, &json!({}));
        running.send((0..5).map(|n| anomaly(&format!("a{n}"), &environment)).collect()).await;
        running.send(vec![anomaly("a4", &environment)]).await;
        let (counts, dead) = running.end().await;
        assert_eq!((counts.received, counts.sent, dead), (6, 6, vec![]));
    }
    let mut found = elasticsearch.search(&stream, json!({ "match_all": {} })).await;
    found.sort_by_key(|d| d["anomaly"]["id"].to_string());
    let ids: Vec<&str> = found.iter().filter_map(|d| d["anomaly"]["id"].as_str()).collect();
    assert_eq!(ids, ["a0", "a1", "a2", "a3", "a4"], "every anomaly is there once");
    let document = &found[0];
    assert_eq!(document["@timestamp"], "2026-09-10T00:28:00.000Z");
    assert_eq!(document["service"], json!({ "name": "checkout", "environment": environment }));
    assert_eq!(document["data_stream"]["namespace"], json!(environment));
    assert_eq!(document["anomaly"]["typical"], Value::Null, "NaN is left out");

    // What is searched for is mapped, also where it is written with dots.
    for query in [
        json!({ "term": { "service.name": "checkout" } }),
        json!({ "term": { "http.response.status_code": 503 } }),
        json!({ "term": { "kubernetes.pod.name": "checkout-1" } }),
        json!({ "range": { "anomaly.score": { "gte": 75 } } }),
        json!({ "range": { "anomaly.upper": { "gte": 1e299 } } }),
        json!({ "match": { "message": "checkout" } }),
    ] {
        assert_eq!(elasticsearch.search(&stream, query.clone()).await.len(), 5, "{query}");
    }

    let mappings = elasticsearch.call(Method::GET, &format!("{stream}/_mapping"), None).await;
    let mapping = &mappings.as_object().and_then(|m| m.values().next()).expect("one backing index")["mappings"];
    assert_eq!(mapping["dynamic"], "false");
    assert_eq!(type_of(mapping, "anomaly.actual"), "double");
    assert_eq!(type_of(mapping, "@timestamp"), "date");
    assert_eq!(type_of(mapping, "tier"), Value::Null, "nothing is mapped that is not listed");
    let template = elasticsearch.call(Method::GET, "_index_template/logs-anomaly", None).await;
    assert_eq!(template["index_templates"][0]["index_template"]["priority"], 500);
}

#[tokio::test]
async fn anomalies_are_in_a_new_elasticsearch_once_however_often_they_are_written() {
    written_once_and_read_back(NEW).await;
}

#[tokio::test]
async fn anomalies_are_in_an_old_elasticsearch_once_however_often_they_are_written() {
    written_once_and_read_back(OLD).await;
}

async fn incidents_are_alerts_beside_their_anomalies(version: &'static str) {
    let elasticsearch = needs!(elasticsearch(version));
    let environment = unique("incidents");
    let stream = format!("logs-anomaly.record-{environment}");
    for _ in 0..2 {
        // The second exporter is the daemon after a replay: the same events again.
        let running = start(&elasticsearch, &environment, &json!({}));
        let incidents =
            vec![incident(IncidentEvent::Opened, 1, &environment), incident(IncidentEvent::Escalated, 2, &environment)];
        let anomalies = (0..5).map(|n| anomaly(&format!("a{n}"), &environment)).collect();
        running.send_findings(Findings { anomalies, incidents }).await;
        let incidents = vec![incident(IncidentEvent::Ended, 3, &environment)];
        running.send_findings(Findings { anomalies: Vec::new(), incidents }).await;
        let (counts, dead) = running.end().await;
        assert_eq!((counts.received, counts.sent, dead), (8, 8, vec![]));
    }
    let found = async |query: Value| {
        let mut found = elasticsearch.search(&stream, query).await;
        found.sort_by_key(|d| d["incident"]["sequence"].as_u64());
        found
    };
    let events = found(json!({ "term": { "incident.id": "incident" } })).await;
    let told: Vec<(&Value, &Value)> = events.iter().map(|d| (&d["event"]["action"], &d["event"]["kind"])).collect();
    let wanted = [("incident-opened", "alert"), ("incident-escalated", "alert"), ("incident-ended", "event")];
    assert_eq!(told, wanted.map(|(action, kind)| (json!(action), json!(kind))).iter().map(|(a, k)| (a, k)).collect::<Vec<_>>());
    assert_eq!(events[2]["incident"]["end"], "2026-09-10T00:28:00.000Z");
    assert_eq!(events[0]["incident"]["lead"]["expected"], Value::Null, "NaN is left out");
    for (query, count) in [
        (json!({ "term": { "event.kind": "alert" } }), 2),
        (json!({ "term": { "anomaly.incident.id": "incident" } }), 5),
        (json!({ "term": { "anomaly.incident.lead": true } }), 1),
        (json!({ "term": { "incident.services": "cart" } }), 3),
        (json!({ "range": { "incident.threshold": { "gte": 1.5 } } }), 3),
        (json!({ "match": { "incident.title": "slow" } }), 3),
        (json!({ "range": { "incident.end": { "gte": "2026-09-10" } } }), 1),
    ] {
        assert_eq!(found(query.clone()).await.len(), count, "{query}");
    }
}

#[tokio::test]
async fn incidents_are_alerts_in_a_new_elasticsearch() {
    incidents_are_alerts_beside_their_anomalies(NEW).await;
}

#[tokio::test]
async fn incidents_are_alerts_in_an_old_elasticsearch() {
    incidents_are_alerts_beside_their_anomalies(OLD).await;
}

async fn refused_documents_are_kept(version: &'static str) {
    let elasticsearch = needs!(elasticsearch(version));
    let environment = unique("refused");
    // Somebody's own template stands in the way: the score is a date there.
    let stream = format!("logs-anomaly.record-{environment}");
    let template = json!({
        "index_patterns": [stream], "priority": 1000, "data_stream": {},
        "template": { "mappings": { "dynamic": false, "properties": { "anomaly": { "properties": { "function": { "type": "long" } } } } } },
    });
    elasticsearch.call(Method::PUT, &format!("_index_template/{stream}"), Some(template)).await;
    let running = start(&elasticsearch, &environment, &json!({}));
    let mut good = anomaly("good", &environment);
    good.function = "99".to_owned();
    running.send(vec![anomaly("bad", &environment), good]).await;
    let (counts, dead) = running.end().await;
    assert_eq!((counts.sent, counts.dropped.get("dead_letter")), (1, Some(&1)));
    assert_eq!((dead.len(), &dead[0]["finding"]["id"]), (1, &json!("bad")), "{dead:?}");
    assert!(dead[0]["reason"].to_string().contains("document_parsing_exception"), "{}", dead[0]["reason"]);
    assert_eq!(elasticsearch.search(&stream, json!({ "match_all": {} })).await.len(), 1);
}

#[tokio::test]
async fn what_a_new_elasticsearch_refuses_is_in_the_dead_letter_file() {
    refused_documents_are_kept(NEW).await;
}

#[tokio::test]
async fn what_an_old_elasticsearch_refuses_is_in_the_dead_letter_file() {
    refused_documents_are_kept(OLD).await;
}

/// Waits until the exporter says that something is wrong; what it says.
async fn trouble(running: &Running) -> Status {
    eventually("the exporter to say what is wrong", Duration::from_secs(60), async || {
        let status = running.health.get();
        if status.message().is_some() { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await
}

#[tokio::test]
async fn wrong_credentials_are_told_and_nothing_is_dropped() {
    let elasticsearch = needs!(elasticsearch(NEW));
    let environment = unique("denied");
    let running = start(&elasticsearch, &environment, &json!({ "password": "not the password" }));
    running.send(vec![anomaly("a", &environment)]).await;
    let Status::PermanentError(message) = trouble(&running).await else { panic!("not permanent") };
    assert!(message.contains("status 401 security_exception: ") && message.contains("check `api_key`"), "{message}");
    assert!(!message.contains("not the password"));
    assert_eq!(running.counters.of(PayloadKind::Anomalies).in_flight, 1);
    running.task.abort();
}

#[tokio::test]
async fn a_key_that_may_only_write_still_writes() {
    let elasticsearch = needs!(elasticsearch(NEW));
    let environment = unique("least");
    let stream = format!("logs-anomaly.record-{environment}");
    let index = json!([{ "names": ["logs-anomaly.*"], "privileges": ["create_doc", "auto_configure"] }]);
    let body = json!({ "name": environment, "role_descriptors": { "writer": { "cluster": [], "indices": index } } });
    let key = elasticsearch.call(Method::POST, "_security/api_key", Some(body)).await;
    // The newline is what a secret file ends in.
    let key = format!("{}\n", key["encoded"].as_str().expect("a key"));
    // Somebody who may has installed the template.
    start(&elasticsearch, &unique("admin"), &json!({})).end().await;
    let config = json!({ "api_key": key, "username": null, "password": null });
    let running = start(&elasticsearch, &environment, &config);
    running.send(vec![anomaly("a", &environment)]).await;
    assert_eq!(running.end().await.0.sent, 1);
    assert_eq!(elasticsearch.search(&stream, json!({ "match_all": {} })).await.len(), 1);
}

#[tokio::test]
async fn a_key_that_may_only_read_waits_and_names_the_missing_privilege() {
    let elasticsearch = needs!(elasticsearch(NEW));
    let environment = unique("reader");
    let index = json!([{ "names": ["logs-*"], "privileges": ["read", "view_index_metadata"] }]);
    let body = json!({ "name": environment, "role_descriptors": { "reader": { "cluster": [], "indices": index } } });
    let key = elasticsearch.call(Method::POST, "_security/api_key", Some(body)).await;
    let config = json!({ "api_key": { "id": key["id"], "key": key["api_key"] }, "username": null, "password": null });
    let running = start(&elasticsearch, &environment, &config);
    running.send(vec![anomaly("a", &environment)]).await;
    let Status::PermanentError(message) = trouble(&running).await else { panic!("not permanent") };
    assert!(message.contains("403 security_exception") && message.contains("create_doc"), "{message}");
    assert_eq!(running.counters.of(PayloadKind::Anomalies).in_flight, 1);
    running.task.abort();
}

#[tokio::test]
async fn a_dead_node_beside_a_living_one_costs_nothing() {
    let elasticsearch = needs!(elasticsearch(NEW));
    let environment = unique("failover");
    let dead = format!("http://127.0.0.1:{}", crate::support::free_port());
    let running = start(&elasticsearch, &environment, &json!({ "endpoints": [dead, elasticsearch.url] }));
    for n in 0..10 {
        running.send(vec![anomaly(&format!("a{n}"), &environment)]).await;
    }
    assert_eq!(running.end().await.0.sent, 10);
    let found = elasticsearch.search(&format!("logs-anomaly.record-{environment}"), json!({ "match_all": {} })).await;
    assert_eq!(found.len(), 10);
}
