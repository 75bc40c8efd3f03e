//! The Elasticsearch receiver beside real servers: pages, restarts, what is lost while it is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anomalyd::model::{Batch, Environment, Payload, PayloadKind, Signal, UnixNanos};
use anomalyd::pipeline::{
    Class, ComponentId, ComponentInfo, Context, Counters, Health, Input, Instance, Make, ManualClock, Output, Outputs,
    ReceiverInstance, Registry, Services, Status,
};
use anomalyd::receivers::elasticsearch::FACTORY;
use anomalyd::storage::{MemoryStorage, Storage};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::elasticsearch::{Elasticsearch, NEW, OLD, elasticsearch};
use crate::support::{eventually, needs, unique};

const LIMIT: Duration = Duration::from_secs(60);

/// A receiver that runs in this process, from its factory.
struct Reader {
    config: Value,
    clock: Arc<ManualClock>,
    storage: Arc<dyn Storage>,
    counters: Arc<Counters>,
    health: Health,
    shutdown: CancellationToken,
    run: Option<JoinHandle<()>>,
    input: Option<Input>,
    /// How often each document came, by the text of its body.
    out: BTreeMap<String, u32>,
}

impl Reader {
    fn new(server: &Elasticsearch, indices: &[&str], more: &Value) -> Self {
        let mut config = json!({
            "endpoints": [server.url], "username": server.user, "password": server.password, "indices": indices,
            "interval": "50ms", "start": "2024-01-15T09:00:00Z", "query_delay": "1m", "query_delay_jitter": "0s",
        });
        for (key, value) in more.as_object().expect("an object") {
            config[key] = value.clone();
        }
        assert_eq!((FACTORY.check)(&config), [], "{config}");
        Self {
            config,
            clock: Arc::new(ManualClock::new(at("11:00:00"))),
            storage: Arc::new(MemoryStorage::default()),
            counters: Arc::default(),
            health: Health::default(),
            shutdown: CancellationToken::new(),
            run: None,
            input: None,
            out: BTreeMap::new(),
        }
    }

    /// Starts it. Its pipeline has room for one payload, so it goes on only as fast as it is read from.
    async fn start(&mut self) {
        let (edge, input) = Input::queue(1, Arc::default());
        self.shutdown = CancellationToken::new();
        let services = Services {
            clock: Arc::clone(&self.clock) as Arc<_>,
            storage: Arc::clone(&self.storage),
            data_dir: std::path::PathBuf::new(),
            files: None,
            registry: Registry::default(),
            queue_capacity: 1,
            ..Services::in_memory()
        };
        let context = Context {
            environment: Environment::new("test"),
            id: ComponentId::parse("elasticsearch/it").expect("an id"),
            counters: Arc::clone(&self.counters),
            health: self.health.clone(),
            shutdown: self.shutdown.clone(),
            services,
        };
        context.services.registry.add(ComponentInfo {
            environment: context.environment.clone(),
            class: Class::Receiver,
            id: context.id.clone(),
            pipeline: None,
            counters: Arc::clone(&self.counters),
            health: self.health.clone(),
        });
        let outputs = Outputs { logs: Output::new(vec![edge]), ..Outputs::default() };
        let instance = Instance { config: self.config.clone(), context };
        let Make::Receiver(make) = FACTORY.make else { panic!("a receiver") };
        let mut receiver = make(ReceiverInstance { instance, default_environment: false, outputs }).expect("a receiver");
        receiver.start().await.expect("a start");
        self.run = Some(tokio::spawn(async move { receiver.run().await.expect("a good end") }));
        self.input = Some(input);
    }

    /// Takes payloads until `enough` documents have come in all.
    async fn take(&mut self, enough: usize) {
        while self.out.values().sum::<u32>() < u32::try_from(enough).expect("a count") {
            let next = tokio::time::timeout(LIMIT, self.input.as_mut().expect("started").recv()).await;
            let Ok(Some(delivery)) = next else {
                panic!("{} of {enough} documents came; {:?} {:?}", self.out.len(), self.health.get(), self.counters);
            };
            self.keep(&delivery.payload);
            delivery.flight.sent();
        }
    }

    fn keep(&mut self, payload: &Payload) {
        let Payload::Telemetry(telemetry) = payload else { panic!("telemetry") };
        let Batch::Logs(logs) = &telemetry.batch else { panic!("logs") };
        for row in &logs.rows {
            *self.out.entry(logs.symbols.get(row.body).to_owned()).or_default() += 1;
        }
    }

    /// Stops it as a daemon does: told to stop, then its pipeline runs empty.
    async fn stop(&mut self) {
        self.shutdown.cancel();
        let mut input = self.input.take().expect("started");
        while let Some(delivery) = input.recv().await {
            self.keep(&delivery.payload);
            delivery.flight.sent();
        }
        self.run.take().expect("started").await.expect("no panic");
    }

    /// Waits until it has polled again, from now on, to the end.
    async fn polled(&mut self) {
        let polls = |counters: &Counters| counters.events().get("polls").copied().unwrap_or(0);
        let before = polls(&self.counters);
        eventually("two more polls", LIMIT, async || {
            let now = polls(&self.counters);
            if now >= before + 2 { Ok(()) } else { Err(format!("{now} polls, {:?}", self.health.get())) }
        })
        .await;
    }

    /// Each of `count` documents came exactly once, and the counters say the same.
    fn assert_once(&self, count: usize) {
        let more: Vec<_> = self.out.iter().filter(|(_, n)| **n != 1).collect();
        assert!(more.is_empty(), "came more than once: {more:?}");
        assert_eq!(self.out.len(), count);
        let counts = self.counters.of(PayloadKind::Telemetry(Signal::Logs));
        assert!(counts.balanced(), "{counts:?}");
        assert_eq!(counts.sent, count as u64, "{counts:?}");
    }
}

/// A moment of the day on which the documents are written.
fn at(time: &str) -> UnixNanos {
    let time = chrono::DateTime::parse_from_rfc3339(&format!("2024-01-15T{time}Z")).expect("a time");
    UnixNanos(u64::try_from(time.timestamp_nanos_opt().expect("in range")).expect("after 1970"))
}

fn log(time: &str, name: impl std::fmt::Display) -> Value {
    json!({ "@timestamp": format!("2024-01-15T{time}Z"), "message": name.to_string() })
}

/// Writes documents to a plain index, which unlike a data stream can be closed.
async fn write(server: &Elasticsearch, index: &str, documents: impl Iterator<Item = Value>) {
    let mappings = json!({ "properties": { "@timestamp": { "type": "date" } } });
    let settings = json!({ "number_of_replicas": 0 });
    server.call(Method::PUT, index, Some(json!({ "mappings": mappings, "settings": settings }))).await;
    server.index(index, documents).await;
}

async fn twelve_thousand_of_one_moment(version: &'static str) {
    let server = needs!(elasticsearch(version));
    let stream = format!("logs-moment-{}", unique("t"));
    server.data_stream(&stream).await;
    server.index(&stream, (0..12_000).map(|n| log("10:00:00.000", n))).await;
    server.index(&stream, (12_000..12_100).map(|n| log("10:00:00.001", n))).await;
    let mut reader = Reader::new(&server, &[&stream], &json!({ "page_size": 500, "max_documents_per_poll": 3000 }));
    for enough in [1, 2_000, 6_500] {
        reader.start().await;
        reader.take(enough).await;
        reader.stop().await;
    }
    assert!(reader.out.len() < 12_100, "the last restart is in the middle");
    reader.start().await;
    reader.take(12_100).await;
    reader.polled().await;
    reader.stop().await;
    reader.assert_once(12_100);
    assert!(reader.counters.events()["documents_seen_before"] > 0);
}

#[tokio::test]
async fn twelve_thousand_documents_of_one_moment_are_each_read_once_over_pages_and_restarts() {
    twelve_thousand_of_one_moment(NEW).await;
}

#[tokio::test]
async fn twelve_thousand_documents_of_one_moment_are_each_read_once_from_an_old_server() {
    twelve_thousand_of_one_moment(OLD).await;
}

#[tokio::test]
async fn an_index_that_vanishes_while_it_is_read_does_not_stop_the_others() {
    let server = needs!(elasticsearch(NEW));
    let word = unique("vanish");
    let (stays, goes) = (format!("{word}-stays"), format!("{word}-goes"));
    write(&server, &stays, (0..3_000).map(|n| log("10:00:00.000", format!("stays {n}")))).await;
    write(&server, &goes, (0..3_000).map(|n| log("10:30:00.000", format!("goes {n}")))).await;
    let mut reader = Reader::new(&server, &[&format!("{word}-*")], &json!({ "page_size": 200 }));
    reader.start().await;
    reader.take(1_000).await;
    server.call(Method::DELETE, &goes, None).await;
    reader.take(3_000).await;
    reader.polled().await;
    assert_eq!(reader.health.get(), Status::Ok);
    reader.stop().await;
    reader.assert_once(3_000);
    assert!(reader.counters.events()["points_in_time_lost"] > 0, "{:?}", reader.counters.events());
}

async fn a_lost_point_in_time(version: &'static str) {
    let server = needs!(elasticsearch(version));
    let index = unique("lost");
    write(&server, &index, (0..6_000).map(|n| log(&format!("10:00:00.{:03}", n / 100), n))).await;
    let mut reader = Reader::new(&server, &[&index], &json!({ "page_size": 250 }));
    reader.start().await;
    for enough in [1_000, 2_500, 4_000] {
        reader.take(enough).await;
        // Closing an index frees everything that is open over it.
        server.call(Method::POST, &format!("{index}/_close"), None).await;
        server.call(Method::POST, &format!("{index}/_open?wait_for_active_shards=1"), None).await;
    }
    reader.take(6_000).await;
    reader.polled().await;
    reader.stop().await;
    reader.assert_once(6_000);
    assert!(reader.counters.events()["points_in_time_lost"] > 0, "{:?}", reader.counters.events());
}

#[tokio::test]
async fn a_point_in_time_that_is_lost_is_opened_again_and_no_document_is_lost_or_repeated() {
    a_lost_point_in_time(NEW).await;
}

#[tokio::test]
async fn a_point_in_time_that_an_old_server_lost_is_opened_again() {
    a_lost_point_in_time(OLD).await;
}

async fn late_documents(version: &'static str) {
    let server = needs!(elasticsearch(version));
    let stream = format!("logs-late-{}", unique("t"));
    server.data_stream(&stream).await;
    server.index(&stream, (0..500).map(|n| log(&format!("10:5{}:00.000", n % 9), n))).await;
    let mut reader = Reader::new(&server, &[&stream], &json!({ "page_size": 100 }));
    reader.start().await;
    reader.take(500).await;
    reader.polled().await;
    // The window's end is 10:59. In the overlap, at its very beginning, before it, and after the end.
    let late = ["10:58:30.000", "10:54:00.000", "10:53:59.999", "10:59:00.000"];
    server.index(&stream, late.iter().map(|time| log(time, time))).await;
    reader.clock.set(at("11:00:00.001"));
    reader.take(503).await;
    reader.polled().await;
    reader.stop().await;
    reader.assert_once(503);
    assert!(!reader.out.contains_key("10:53:59.999"), "later than the overlap is too late");
    assert_eq!(reader.counters.events()["late_documents"], 2);
}

#[tokio::test]
async fn documents_that_come_late_are_read_once_within_the_overlap() {
    late_documents(NEW).await;
}

#[tokio::test]
async fn documents_that_come_late_to_an_old_server_are_read_once_within_the_overlap() {
    late_documents(OLD).await;
}

#[tokio::test]
async fn own_anomalies_are_never_read() {
    let server = needs!(elasticsearch(NEW));
    let word = unique("own");
    let own = format!("logs-anomaly.record-{word}");
    server.data_stream(&own).await;
    let anomaly = |n: u32| {
        json!({ "@timestamp": "2024-01-15T10:00:00.000Z", "message": format!("anomaly {n}"),
                "data_stream": { "type": "logs", "dataset": "anomaly.record", "namespace": word } })
    };
    server.index(&own, (0..10).map(anomaly)).await;
    let stream = format!("logs-generic-{word}");
    server.data_stream(&stream).await;
    server.index(&stream, (0..10).map(|n| log("10:00:00.000", n))).await;
    for indices in [vec![format!("logs-*-{word}")], vec![own, stream]] {
        let indices: Vec<&str> = indices.iter().map(String::as_str).collect();
        let mut reader = Reader::new(&server, &indices, &json!({}));
        reader.start().await;
        reader.take(10).await;
        reader.polled().await;
        reader.stop().await;
        reader.assert_once(10);
    }
}

#[tokio::test]
async fn an_index_that_comes_later_is_found_and_read_from_the_beginning() {
    let server = needs!(elasticsearch(NEW));
    let word = unique("later");
    let mut reader = Reader::new(&server, &[&format!("{word}-*")], &json!({}));
    reader.start().await;
    reader.polled().await;
    assert_eq!(reader.health.get(), Status::Ok, "no index yet is a state, not an error");
    // An alias makes the index and its documents visible in one moment.
    write(&server, &word, (0..10).map(|n| log("09:30:00.000", n))).await;
    let add = json!({ "actions": [{ "add": { "index": word, "alias": format!("{word}-1") } }] });
    server.call(Method::POST, "_aliases", Some(add)).await;
    reader.take(10).await;
    reader.stop().await;
    reader.assert_once(10);
}

#[tokio::test]
async fn wrong_credentials_are_told_and_documents_come_once_they_are_right() {
    let server = needs!(elasticsearch(NEW));
    let word = unique("reader");
    write(&server, &word, (0..10).map(|n| log("10:00:00.000", n))).await;
    let mut reader = Reader::new(&server, &[&word], &json!({ "username": word, "password": "test-password" }));
    reader.start().await;
    let sentence = eventually("a sentence about the credentials", LIMIT, async || {
        let state = reader.health.get();
        state.message().map(str::to_owned).ok_or(format!("{state:?}"))
    })
    .await;
    assert!(sentence.contains("401") && sentence.contains("check `api_key`"), "{sentence}");
    // The least that a reader needs: `read` on its indices, and nothing of the cluster.
    let role = json!({ "indices": [{ "names": [word], "privileges": ["read"] }] });
    server.call(Method::PUT, &format!("_security/role/{word}"), Some(role)).await;
    let user = json!({ "password": "test-password", "roles": [word] });
    server.call(Method::PUT, &format!("_security/user/{word}"), Some(user)).await;
    reader.take(10).await;
    reader.polled().await;
    assert_eq!(reader.health.get(), Status::Ok);
    reader.stop().await;
    reader.assert_once(10);
}
