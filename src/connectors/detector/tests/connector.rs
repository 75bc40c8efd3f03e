//! The connector with its threads, its clock and its store.

use std::time::Duration;

use super::*;
use crate::model::{Incident, IncidentEvent, PayloadKind};
use crate::pipeline::{Class, Context, Counters, Counts, Input, Instance, Make, ManualClock, Memory, Output, Registry, Services};
use crate::storage::{Files as _, LogOptions, Storage};

pub(super) struct Ran {
    pub(super) anomalies: Vec<Anomaly>,
    pub(super) incidents: Vec<Incident>,
    pub(super) counts: Counts,
    pub(super) out: Counts,
    pub(super) events: std::collections::BTreeMap<&'static str, u64>,
}

impl Ran {
    /// The anomalies as the shards find them.
    pub(super) fn plain(&self) -> Vec<Anomaly> {
        self.anomalies.iter().cloned().map(|a| Anomaly { incident: None, ..a }).collect()
    }
}

/// What survives a restart.
pub(super) struct Disk {
    pub(super) storage: Arc<MemoryStorage>,
    pub(super) files: SimFiles,
}

impl Default for Disk {
    fn default() -> Self {
        Self { storage: Arc::default(), files: SimFiles::new(7) }
    }
}

impl Disk {
    /// What a detector on this disk is given; `now` in seconds.
    pub(super) fn context(&self, now: u64, counters: &Arc<Counters>) -> Context {
        let services = Services {
            clock: Arc::new(ManualClock::new(UnixNanos::from_secs(now))),
            storage: Arc::clone(&self.storage) as Arc<dyn Storage>,
            data_dir: "data".into(),
            files: Some(Arc::new(self.files.clone())),
            queue_capacity: 4,
            ..Services::in_memory()
        };
        Context { counters: Arc::clone(counters), ..Context::of_test(environment().as_str(), "detector", services) }
    }
}

/// Runs the connector over `payloads` to its end.
async fn run(disk: &Arc<Disk>, shards: u64, now: u64, payloads: Vec<Payload>) -> Ran {
    run_with(serde_json::json!({ "shards": shards, "warmup": 240, "threshold": 1.5 }), disk, now, payloads).await
}

/// As [`run`], with any configuration.
pub(super) async fn run_with(config: serde_json::Value, disk: &Arc<Disk>, now: u64, payloads: Vec<Payload>) -> Ran {
    run_in(Registry::default(), config, disk, now, payloads).await
}

/// As [`run_with`], among other components.
async fn run_in(registry: Registry, config: serde_json::Value, disk: &Arc<Disk>, now: u64, payloads: Vec<Payload>) -> Ran {
    let counters = Arc::new(Counters::default());
    let mut context = disk.context(now, &counters);
    context.services.registry = registry;
    let Make::Connector(make) = super::super::FACTORY.make else { panic!("a connector") };
    assert_eq!(super::super::FACTORY.class(), Class::Connector);
    let mut detector = make(Instance { config, context }).map_err(|e| e.to_string()).unwrap();
    detector.start().await.unwrap();
    let (edge, input) = Input::queue(4, Arc::clone(&counters));
    let behind = Arc::new(Counters::default());
    let (target, mut anomalies) = Input::queue(1, Arc::clone(&behind));
    let feed = async move {
        let output = Output::new(vec![edge]);
        for payload in payloads {
            output.send(payload).await.unwrap();
        }
    };
    let collect = async move {
        let (mut all, mut incidents) = (Vec::new(), Vec::new());
        while let Some(delivery) = anomalies.recv().await {
            let Payload::Anomalies(found) = &delivery.payload else { panic!("only anomalies") };
            incidents.extend(found.incidents.iter().cloned());
            all.extend(found.anomalies.iter().cloned());
            delivery.flight.sent();
        }
        super::super::anomaly::sort(&mut all);
        (all, incidents)
    };
    let all = async { tokio::join!(detector.run(input, Output::new(vec![target])), feed, collect) };
    let (ended, (), (anomalies, incidents)) =
        tokio::time::timeout(Duration::from_secs(120), all).await.expect("the detector ends with its input");
    ended.unwrap();
    Ran {
        anomalies,
        incidents,
        counts: counters.of(PayloadKind::Observations),
        out: behind.of(PayloadKind::Anomalies),
        events: counters.events(),
    }
}

pub(super) fn payloads(from: u64, to: u64) -> Vec<Payload> {
    minutes(from, to, FAULT).chunk_by(|a, b| a.time == b.time).map(|batch| payload(batch.to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_memory_is_tight_known_series_go_on_and_no_new_ones_are_begun_even_after_a_restart() {
    let (disk, now) = (Arc::default(), BEGIN + 400 * 86_400);
    let config = || serde_json::json!({ "shards": 2 });
    let among = |used: u64| {
        let registry = Registry::default();
        let memory = Memory::new(Some(100));
        memory.note(used);
        registry.share_memory(memory);
        registry
    };
    let one = || vec![payload(vec![gauge("known", BEGIN, 1.0)])];
    let more = || vec![payload(vec![gauge("known", BEGIN + 60, 1.0), gauge("new", BEGIN + 60, 1.0)])];
    let before = run_in(among(10), config(), &disk, now, one()).await;
    assert_eq!((before.counts.dropped_total(), before.events.get("series_added")), (0, Some(&1)));
    let tight = run_in(among(90), config(), &disk, now, more()).await;
    assert_eq!((tight.counts.dropped, tight.events.get("series_added")), ([("memory_limit", 1)].into(), None));
    let after = run_in(among(10), config(), &disk, now, more()).await;
    assert_eq!((after.counts.dropped_total(), after.events.get("series_added")), (0, Some(&1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connector_finds_what_the_core_finds_and_accounts_for_everything() {
    let now = BEGIN + 400 * 86_400;
    let mut bench = Bench::new(&config(), 1, now);
    bench.play(&minutes(0, LONG, FAULT));
    let ran = run(&Arc::default(), 3, now, payloads(0, LONG)).await;
    assert_eq!(ran.plain(), bench.found());
    assert!(!ran.anomalies.is_empty());
    assert!(ran.counts.balanced() && ran.counts.in_flight == 0, "{:?}", ran.counts);
    assert_eq!(ran.counts.sent, minutes(0, LONG, FAULT).len() as u64);
    assert_eq!(ran.out.received, (ran.anomalies.len() + ran.incidents.len()) as u64);
    assert_eq!(ran.events.get("anomalies").copied(), Some(ran.anomalies.len() as u64));
    assert_eq!(ran.events.get("buckets_closed").copied(), Some(bench.closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_learnt_survives_a_restart_with_another_number_of_shards() {
    let now = BEGIN + 400 * 86_400;
    let disk = Arc::new(Disk::default());
    let first = run(&disk, 2, now, payloads(0, 100)).await;
    let second = run(&disk, 3, now, payloads(100, FAULT)).await;
    let third = run(&disk, 1, now, payloads(FAULT, LONG)).await;
    assert!(first.anomalies.is_empty() && second.anomalies.is_empty());
    let through = run(&Arc::default(), 2, now, payloads(0, LONG)).await;
    assert_eq!(third.anomalies, through.anomalies, "no warming up again, and the same ids");
    assert_eq!(third.incidents, through.incidents);
    assert!(!third.anomalies.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_by_all_shards_between_two_feeds() {
    let registry = Registry::default();
    let services = Services {
        clock: Arc::new(ManualClock::new(UnixNanos::from_secs(BEGIN + 86_400))),
        storage: Arc::new(MemoryStorage::default()),
        data_dir: std::path::PathBuf::new(),
        registry: registry.clone(),
        queue_capacity: 4,
        ..Services::in_memory()
    };
    let context = Context::of_test(environment().as_str(), "detector", services);
    let counters = Arc::clone(&context.counters);
    let Make::Connector(make) = super::super::FACTORY.make else { panic!("a connector") };
    let mut detector = make(Instance { config: serde_json::json!({ "shards": 3 }), context }).map_err(|e| e.to_string()).unwrap();
    detector.start().await.unwrap();
    let (edge, input) = Input::queue(4, counters);
    let ask = async move {
        let output = Output::new(vec![edge]);
        for payload in payloads(0, 20) {
            output.send(payload).await.unwrap();
        }
        // What is in the queue is fed before long: a question does not wait for it.
        let seen = async || loop {
            let Some(desk) = registry.desks("series").pop() else {
                tokio::task::yield_now().await;
                continue;
            };
            let answer = desk.ask("series", serde_json::json!({ "contains": "queue", "limit": 10 })).await.unwrap();
            let seen: Vec<u64> = answer["series"].as_array().unwrap().iter().map(|row| row["seen"].as_u64().unwrap()).collect();
            if seen == [19, 19] {
                return;
            }
            tokio::task::yield_now().await;
        };
        tokio::time::timeout(Duration::from_secs(60), seen()).await.expect("both services have seen 19 minutes");
        let desk = registry.desks("mute").remove(0);
        let refused = desk.ask("mute", serde_json::json!({ "for": "1h" })).await.unwrap_err();
        assert!(refused.message.contains("not said what to mute"), "{}", refused.message);
    };
    let (ended, ()) = tokio::join!(detector.run(input, Output::new(Vec::new())), ask);
    ended.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn late_records_are_dropped_with_their_reason() {
    let mut all = payloads(0, 10);
    all.push(payload(vec![calls("cart", BEGIN, 1, 0, 1.0)]));
    let ran = run(&Arc::default(), 2, BEGIN + 86_400, all).await;
    assert_eq!(ran.counts.dropped.get("late"), Some(&1));
    assert_eq!(ran.events.get("late_observations"), Some(&1));
    assert!(ran.counts.balanced());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_is_one_incident_that_survives_a_restart_in_the_middle() {
    let now = BEGIN + 400 * 86_400;
    let repaired = || {
        let all = minutes(0, FAULT, FAULT).into_iter().chain(minutes(FAULT, FAULT + 8, FAULT));
        let all: Vec<Observation> = all.chain(minutes(FAULT + 8, FAULT + 60, FAULT + 60)).collect();
        all.chunk_by(|a, b| a.time == b.time).map(|batch| payload(batch.to_vec())).collect::<Vec<_>>()
    };
    let through = run(&Arc::default(), 3, now, repaired()).await;
    let events: Vec<(IncidentEvent, u32)> = through.incidents.iter().map(|i| (i.event, i.sequence)).collect();
    assert_eq!(events.first(), Some(&(IncidentEvent::Opened, 1)), "{:#?}", through.incidents);
    assert_eq!(events.last().map(|e| e.0), Some(IncidentEvent::Ended), "{:#?}", through.incidents);
    let ids: std::collections::BTreeSet<&str> = through.incidents.iter().map(|i| i.id.as_str()).collect();
    assert_eq!(ids.len(), 1, "{:#?}", through.incidents);
    assert!(through.anomalies.iter().all(|a| a.incident.as_ref().is_some_and(|i| ids.contains(i.id.as_str()))));
    assert_eq!(through.incidents[0].lead.service, "checkout");

    let disk = Arc::new(Disk::default());
    let mut first = repaired();
    let second = first.split_off(((FAULT + 4) * 6) as usize);
    let before = run(&disk, 2, now, first).await;
    let after = run(&disk, 1, now, second).await;
    let pieces: Vec<Incident> = before.incidents.into_iter().chain(after.incidents).collect();
    assert_eq!(pieces, through.incidents);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_learnt_is_in_a_folder_of_the_detector_and_a_damaged_file_is_passed_over() {
    let now = BEGIN + 400 * 86_400;
    let disk = Arc::new(Disk::default());
    let folder = std::path::Path::new("data/production/detector");
    let newest = |disk: &Disk| disk.files.all().into_iter().map(|(path, _)| path).rfind(|path| path.parent() == Some(folder));
    let first = run(&disk, 2, now, payloads(0, 100)).await;
    let one = newest(&disk).unwrap();
    assert_eq!((first.events.get("checkpoints_written"), first.events.get("series_restored")), (Some(&1), None));
    run(&disk, 2, now, payloads(100, 101)).await;
    let two = newest(&disk).unwrap();
    assert!(two > one && disk.files.flip(&two, 4000));
    let third = run(&disk, 2, now, payloads(101, 102)).await;
    assert_eq!(third.events.get("checkpoints_unusable"), Some(&1));
    assert_eq!(third.events.get("series_restored"), Some(&14), "of the one before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_the_end_is_told_and_leaves_what_was_there() {
    let now = BEGIN + 400 * 86_400;
    let disk = Arc::new(Disk::default());
    run(&disk, 2, now, payloads(0, 100)).await;
    disk.files.faults(|f| f.free = Some(1000));
    let counters = Arc::new(Counters::default());
    let Make::Connector(make) = super::super::FACTORY.make else { panic!("a connector") };
    let instance = Instance { config: serde_json::json!({ "shards": 2 }), context: disk.context(now, &counters) };
    let mut detector = make(instance).map_err(|e| e.to_string()).unwrap();
    detector.start().await.unwrap();
    let (edge, input) = Input::queue(4, Arc::clone(&counters));
    drop(edge);
    let error = detector.run(input, Output::new(Vec::new())).await.unwrap_err();
    insta::assert_snapshot!(error.0);
    assert_eq!(counters.events().get("checkpoints_lost"), Some(&1));
    disk.files.heal();
    let again = run(&disk, 1, now, payloads(100, 101)).await;
    assert_eq!(again.events.get("series_restored"), Some(&14));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_waits_for_a_disk_says_why_and_ends_when_it_is_given_up() {
    let now = BEGIN + 400 * 86_400;
    let disk = Arc::new(Disk::default());
    // So much comes after the first finding that it does not fit into the queues behind the journal.
    let through = run_logged(&disk, now, payloads(0, LONG + 120)).await;
    assert!(!through.is_empty());
    // All of it happens again, and what is found has to go into the outbox again.
    for (path, _) in disk.files.all() {
        if path.to_string_lossy().contains("checkpoint-") || path.to_string_lossy().contains("outbox") {
            disk.files.remove(&path).unwrap();
        }
    }
    disk.files.faults(|faults| faults.write_errors = u32::MAX);
    let counters = Arc::new(Counters::default());
    let mut context = disk.context(now, &counters);
    context.services.input_log = Some(LogOptions { segment_size: 1 << 20, max_size: 64 << 20 });
    let (health, shutdown) = (context.health.clone(), context.shutdown.clone());
    let starting = tokio::spawn(async move {
        let mut detector = made(context);
        detector.start().await.map(|()| detector)
    });
    let soon = Duration::from_secs(60);
    let told = async {
        while health.get().message().is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(soon, told).await.expect("it says what it waits for");
    insta::assert_snapshot!(health.get().message().unwrap());
    assert!(!starting.is_finished());
    // As at a stop.
    starting.abort();
    shutdown.cancel();
    assert!(starting.await.is_err_and(|ended| ended.is_cancelled()));
    let ended = async {
        while Arc::strong_count(&counters) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(soon, ended).await.expect("no thread of it goes on");

    disk.files.heal();
    let again = run_logged(&disk, now, Vec::new()).await;
    assert_eq!(again, through, "nothing is lost by it");
}

fn made(context: Context) -> Box<dyn crate::pipeline::Connector> {
    let Make::Connector(make) = super::super::FACTORY.make else { panic!("a connector") };
    let config = serde_json::json!({ "shards": 2, "warmup": 240, "threshold": 1.5 });
    make(Instance { config, context }).map_err(|e| e.to_string()).unwrap()
}

/// The ids of what the connector hands on, with an input log.
async fn run_logged(disk: &Disk, now: u64, payloads: Vec<Payload>) -> Vec<String> {
    let counters = Arc::new(Counters::default());
    let mut context = disk.context(now, &counters);
    context.services.input_log = Some(LogOptions { segment_size: 1 << 20, max_size: 64 << 20 });
    let mut detector = made(context);
    detector.start().await.unwrap();
    let (edge, input) = Input::queue(4, counters);
    let (target, mut anomalies) = Input::queue(1, Arc::default());
    let feed = async move {
        let output = Output::new(vec![edge]);
        for payload in payloads {
            output.send(payload).await.unwrap();
        }
    };
    let collect = async move {
        let mut ids = Vec::new();
        while let Some(delivery) = anomalies.recv().await {
            let Payload::Anomalies(found) = &delivery.payload else { panic!("only anomalies") };
            ids.extend(found.anomalies.iter().map(|anomaly| anomaly.id.clone()));
            delivery.flight.sent();
        }
        ids
    };
    let (ended, (), ids) = tokio::join!(detector.run(input, Output::new(vec![target])), feed, collect);
    ended.unwrap();
    ids
}
