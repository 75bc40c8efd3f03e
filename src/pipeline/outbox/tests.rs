//! An outbox against targets that keep, refuse, let go and stand still, and against disks that lose their power.

mod model;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::model::{Incident, Lead, Payload};
use crate::pipeline::{Counters, Delivery, Edge, Input, ManualClock, Output, Services};
use crate::storage::{Files, SimFiles};

/// An event whose id tells the entry that it comes from.
pub(super) fn event(entry: u64, number: u32) -> Incident {
    let lead = Lead { observed: f64::NAN, ..Lead::default() };
    Incident { lead, ..Incident::example(&format!("e{entry}"), number) }
}

/// What one entry brings: `count` events.
pub(super) fn findings(entry: u64, count: u32) -> Findings {
    Findings { anomalies: Vec::new(), incidents: (1..=count).map(|number| event(entry, number)).collect() }
}

pub(super) fn ids(findings: &Findings) -> Vec<String> {
    findings.iter().map(|finding| finding.id()).collect()
}

/// A detector's context on `files`; dead letters go to a real folder.
pub(super) fn context(files: Option<SimFiles>, folder: &std::path::Path, max_size: u64) -> Context {
    let services = Services {
        clock: Arc::new(ManualClock::new(UnixNanos::from_secs(1_800_000_000))),
        data_dir: folder.to_owned(),
        files: files.map(|files| Arc::new(files) as Arc<dyn Files>),
        outbox: OutboxSettings { max_size, patience: Duration::from_millis(300) },
        ..Services::in_memory()
    };
    Context::of_test("production", "detector", services)
}

/// A target that a test plays.
pub(super) struct Played {
    pub(super) edge: Edge,
    pub(super) input: Input,
    pub(super) counters: Arc<Counters>,
}

pub(super) fn played(name: &str, queue: usize) -> Played {
    let counters = Arc::new(Counters::default());
    let (edge, input) = Input::queue(queue, Arc::clone(&counters));
    Played { edge: edge.named(name), input, counters }
}

fn found(delivery: &Delivery) -> Vec<String> {
    let Payload::Anomalies(findings) = &delivery.payload else { panic!("only findings") };
    ids(findings)
}

/// The next delivery that its sender has not withdrawn, as exporters take it.
async fn next(input: &mut Input) -> Delivery {
    loop {
        let delivery = tokio::time::timeout(Duration::from_secs(20), input.recv()).await.expect("a delivery").expect("a sender");
        if !delivery.flight.is_withdrawn() {
            return delivery;
        }
        delivery.flight.refused();
    }
}

/// Takes everything that comes until `count` findings have come.
async fn take(input: &mut Input, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    while all.len() < count {
        let delivery = next(input).await;
        all.extend(found(&delivery));
        delivery.flight.sent();
    }
    all
}

fn run(outbox: &Outbox, output: Output) -> tokio::task::JoinHandle<Result<(), crate::pipeline::ComponentError>> {
    let outbox = outbox.clone();
    tokio::spawn(async move { outbox.run(&output).await })
}

/// Appends on a thread where waiting is allowed.
async fn append(outbox: &Outbox, entry: u64, count: u32) {
    let outbox = outbox.clone();
    tokio::task::spawn_blocking(move || outbox.append(entry, &findings(entry, count))).await.unwrap().unwrap();
}

fn levels(outbox: &Outbox) -> BTreeMap<String, OutboxLevels> {
    OutboxView(Arc::downgrade(&outbox.0)).levels().into_iter().map(|levels| (levels.target.clone(), levels)).collect()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "{what} never happened");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn dead_letters(folder: &std::path::Path) -> Vec<serde_json::Value> {
    let files = super::super::dead_letter_files(folder).unwrap();
    let texts = files.iter().map(|path| std::fs::read_to_string(path).unwrap());
    texts.flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>()).collect()
}

fn dead_ids(letters: &[serde_json::Value]) -> Vec<String> {
    let id =
        |letter: &serde_json::Value| format!("{}-{}", letter["finding"]["id"].as_str().unwrap(), letter["finding"]["sequence"]);
    letters.iter().map(id).collect()
}

#[test]
fn a_record_reads_back_the_same_and_large_findings_come_in_parts() {
    let all = Findings {
        anomalies: Vec::new(),
        incidents: (0..600).map(|n| Incident { lead: Lead::default(), ..event(7, n) }).collect(),
    };
    let parts = record::parts(7, UnixNanos(5), &all).unwrap();
    assert_eq!(parts.len(), 3);
    let back: Vec<record::Record> = parts.iter().map(|(_, bytes)| record::decode(3, bytes).unwrap()).collect();
    let incidents: Vec<Incident> = back.iter().flat_map(|record| record.findings.incidents.clone()).collect();
    assert_eq!(incidents, all.incidents);
    assert_eq!(back[1].header.position, Some(record::Position { entry: 7, part: 1 }));
    assert_eq!(record::header(&parts[2].1), Some(parts[2].0.clone()));
    assert_eq!(record::decode(0, b"no record").map(|r| r.index), None);
    // A later anomalyd may write more fields.
    let newer = b"{\"at\":5,\"findings\":0,\"colour\":\"red\"}\n{\"anomalies\":[],\"incidents\":[],\"more\":1}";
    assert!(record::decode(0, newer).is_some());
}

#[tokio::test]
async fn every_target_gets_every_finding_in_order_and_the_room_is_given_back() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let context = context(Some(files.clone()), folder.path(), 1 << 20);
    let outbox = Outbox::open(&context).unwrap();
    let (mut a, mut b) = (played("a", 4), played("b", 4));
    let running = run(&outbox, Output::new(vec![a.edge.clone(), b.edge.clone()]));
    for entry in 0..500 {
        append(&outbox, entry, 2).await;
    }
    let wanted: Vec<String> = (0..500).flat_map(|entry| ids(&findings(entry, 2))).collect();
    let (got_a, got_b) = tokio::join!(take(&mut a.input, 1000), take(&mut b.input, 1000));
    assert_eq!(got_a, wanted);
    assert_eq!(got_b, wanted);
    outbox.close();
    running.await.unwrap().unwrap();
    let size: u64 =
        files.all().into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "log")).map(|(_, s)| s).sum();
    assert!(size < 50_000, "what was delivered is trimmed: {size} bytes are left");
    assert_eq!(levels(&outbox)["a"].delivered, 1000);
    assert!(a.counters.of(crate::model::PayloadKind::Anomalies).balanced());
}

#[tokio::test]
async fn a_target_that_stands_still_holds_up_no_other_and_gets_its_findings_after_the_next_start() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let context = context(Some(files), folder.path(), 8 << 20);
    let outbox = Outbox::open(&context).unwrap();
    let (mut good, dead) = (played("good", 4), played("dead", 4));
    let running = run(&outbox, Output::new(vec![good.edge.clone(), dead.edge.clone()]));
    for entry in 0..100 {
        append(&outbox, entry, 1).await;
    }
    assert_eq!(take(&mut good.input, 100).await.len(), 100);
    until("the levels are shown", || levels(&outbox)["dead"].waiting == 100 && levels(&outbox)["good"].waiting == 0).await;
    outbox.close();
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("its patience ends").unwrap().unwrap();
    assert_eq!(levels(&outbox)["dead"].waiting, 100, "it waits and is not lost");
    drop((outbox, dead));

    let outbox = Outbox::open(&context).unwrap();
    assert_eq!(outbox.last_entry(), Some(99));
    let (mut good, mut dead) = (played("good", 4), played("dead", 4));
    let running = run(&outbox, Output::new(vec![good.edge.clone(), dead.edge.clone()]));
    // The journal's replay finds the last ones again.
    for entry in 90..102 {
        append(&outbox, entry, 1).await;
    }
    assert_eq!(take(&mut dead.input, 102).await, (0..102).flat_map(|e| ids(&findings(e, 1))).collect::<Vec<_>>());
    assert_eq!(take(&mut good.input, 2).await, ["e100-1", "e101-1"], "once");
    outbox.close();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_on_its_way_at_the_end_is_withdrawn_so_that_the_exporter_lets_go() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let outbox = Outbox::open(&context(Some(files), folder.path(), 1 << 20)).unwrap();
    let mut dead = played("dead", 4);
    let running = run(&outbox, Output::new(vec![dead.edge.clone()]));
    append(&outbox, 0, 3).await;
    let delivery = dead.input.recv().await.unwrap();
    outbox.close();
    tokio::time::timeout(Duration::from_secs(20), delivery.flight.withdrawn()).await.expect("it is withdrawn");
    delivery.flight.refused();
    running.await.unwrap().unwrap();
    let counts = dead.counters.of(crate::model::PayloadKind::Anomalies);
    assert_eq!((counts.refused, counts.dropped_total(), counts.received), (3, 0, 0), "it counts as lost nowhere");
}

#[tokio::test]
async fn what_a_target_lets_go_is_sent_again_until_it_is_kept_and_nothing_overtakes_it() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let outbox = Outbox::open(&context(Some(files), folder.path(), 1 << 20)).unwrap();
    let mut target = played("target", 8);
    let running = run(&outbox, Output::new(vec![target.edge.clone()]));
    for entry in 0..40 {
        append(&outbox, entry, 1).await;
    }
    let (mut kept, mut tries) = (Vec::new(), 0);
    while kept.len() < 40 {
        let delivery = next(&mut target.input).await;
        tries += 1;
        if tries % 7 == 3 {
            drop(delivery);
        } else {
            kept.extend(found(&delivery));
            delivery.flight.sent();
        }
    }
    assert_eq!(kept, (0..40).flat_map(|e| ids(&findings(e, 1))).collect::<Vec<_>>(), "each once, in order");
    outbox.close();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_outbox_puts_the_oldest_into_the_dead_letters_of_the_target_that_does_not_take_them() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let context = context(Some(files), folder.path(), 64 << 10);
    let outbox = Outbox::open(&context).unwrap();
    let (mut good, mut dead) = (played("good", 4), played("dead/es", 4));
    let running = run(&outbox, Output::new(vec![good.edge.clone(), dead.edge.clone()]));
    let first = dead.input.recv();
    for entry in 0..1000 {
        append(&outbox, entry, 1).await;
        if entry % 50 == 49 {
            take(&mut good.input, 50).await;
        }
    }
    let first = first.await.unwrap();
    assert!(first.flight.is_withdrawn(), "what went to the dead letters is no longer on its way");
    first.flight.refused();
    let letters = dead_letters(folder.path());
    let buried = letters.len();
    assert!(buried > 500, "{buried}");
    assert_eq!(dead_ids(&letters), (0..buried as u64).flat_map(|e| ids(&findings(e, 1))).collect::<Vec<_>>());
    assert_eq!(letters[0]["exporter"], "dead/es");
    assert_eq!(letters[0]["environment"], "production");
    insta::assert_snapshot!(letters[0]["reason"].as_str().unwrap(), @"outbox full: there was no more room to wait for the exporter");
    let shown = levels(&outbox)["dead/es"].clone();
    assert_eq!((shown.dead_letters, shown.waiting), (buried as u64, 1000 - buried as u64));
    until("the health says it", || context.health.get().message().is_some_and(|m| m.contains("exporter `dead/es`"))).await;

    // It comes back: the rest comes, and then the dead letters, told to.
    let mut rest = Vec::new();
    while rest.len() < 1000 - buried {
        let delivery = next(&mut dead.input).await;
        rest.extend(found(&delivery));
        delivery.flight.sent();
    }
    assert_eq!(rest, (buried as u64..1000).flat_map(|e| ids(&findings(e, 1))).collect::<Vec<_>>());
    until("the health is good again", || context.health.get().message().is_none()).await;
    let mut again = Vec::new();
    loop {
        let desk = context.services.registry.desks("resend").remove(0);
        let answer = desk.ask("resend", serde_json::json!({ "exporter": "dead/es" })).await.unwrap();
        let resent = answer["resent"]["dead/es"].as_u64().unwrap_or(0) as usize;
        again.extend(take(&mut dead.input, resent).await);
        until("its room is given back", || levels(&outbox)["dead/es"].waiting == 0).await;
        if resent == 0 {
            break;
        }
    }
    assert_eq!(again, (0..buried as u64).flat_map(|e| ids(&findings(e, 1))).collect::<Vec<_>>(), "in their order");
    assert!(dead_letters(folder.path()).is_empty());
    assert!(good.input.try_recv().is_none(), "only the exporter that they are of gets them");
    outbox.close();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn dead_letters_that_cannot_be_read_stay_and_are_counted() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let context = context(Some(files), folder.path(), 1 << 20);
    let letters = DeadLetters::for_exporter(&context, "es");
    letters.keep([("first", crate::model::Finding::Incident(&event(1, 1)))]).unwrap();
    let text = std::fs::read_to_string(letters.path()).unwrap();
    std::fs::write(letters.path(), format!("{{\"index\":\"old\"}}\n{text}{text}{{\"to")).unwrap();
    let outbox = Outbox::open(&context).unwrap();
    let mut target = played("es", 4);
    let running = run(&outbox, Output::new(vec![target.edge.clone()]));
    until("the desk is open", || !context.services.registry.desks("resend").is_empty()).await;
    let desk = context.services.registry.desks("resend").remove(0);
    let unknown = desk.ask("resend", serde_json::json!({ "exporter": "elastic" })).await.unwrap_err();
    assert_eq!(unknown.message, "connector `detector` of production has no exporter `elastic`: it has es");
    let answer = desk.ask("resend", serde_json::json!({})).await.unwrap();
    assert_eq!(
        answer,
        serde_json::json!({ "resent": { "es": 2 }, "stay": { "it is no dead letter that can be read": 2 }, "more": false })
    );
    assert_eq!(take(&mut target.input, 2).await, ["e1-1", "e1-1"]);
    let left: Vec<PathBuf> = super::super::dead_letter_files(folder.path()).unwrap();
    assert_eq!(std::fs::read_to_string(&left[0]).unwrap(), "{\"index\":\"old\"}\n{\"to\n");
    outbox.close();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_waits_for_an_exporter_that_was_removed_goes_to_its_dead_letters() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let context = context(Some(files), folder.path(), 1 << 20);
    let outbox = Outbox::open(&context).unwrap();
    let (a, b) = (played("a", 4), played("b", 4));
    let running = run(&outbox, Output::new(vec![a.edge.clone(), b.edge.clone()]));
    append(&outbox, 0, 2).await;
    outbox.close();
    running.await.unwrap().unwrap();
    drop(outbox);
    let outbox = Outbox::open(&context).unwrap();
    let (mut a, mut new) = (played("a", 4), played("new", 4));
    let running = run(&outbox, Output::new(vec![a.edge.clone(), new.edge.clone()]));
    assert_eq!(take(&mut a.input, 2).await, ["e0-1", "e0-2"]);
    let letters = dead_letters(folder.path());
    assert_eq!(dead_ids(&letters), ["e0-1", "e0-2"]);
    assert_eq!(
        (&letters[0]["exporter"], &letters[0]["reason"]),
        (&"b".into(), &"exporter gone: the configuration has it no longer".into())
    );
    append(&outbox, 1, 1).await;
    assert_eq!(take(&mut new.input, 1).await, ["e1-1"], "a new exporter begins with what is found from now on");
    outbox.close();
    assert_eq!(take(&mut a.input, 1).await, ["e1-1"]);
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn in_memory_nothing_is_dropped_the_detector_waits_for_room() {
    let folder = tempfile::tempdir().unwrap();
    let outbox = Outbox::open(&context(None, folder.path(), 32 << 10)).unwrap();
    let mut target = played("target", 1);
    let running = run(&outbox, Output::new(vec![target.edge.clone()]));
    let appended = Arc::new(AtomicU64::new(0));
    let (filling, count) = (outbox.clone(), Arc::clone(&appended));
    let filled = tokio::task::spawn_blocking(move || {
        for entry in 0..500 {
            filling.append(entry, &findings(entry, 1)).unwrap();
            count.store(entry + 1, SeqCst);
        }
        filling.close();
    });
    until("it is full", || appended.load(SeqCst) > 10).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(appended.load(SeqCst) < 200, "{appended:?} did not wait");
    let all = take(&mut target.input, 500).await;
    assert_eq!(all, (0..500).flat_map(|e| ids(&findings(e, 1))).collect::<Vec<_>>());
    filled.await.unwrap();
    running.await.unwrap().unwrap();
    assert!(dead_letters(folder.path()).is_empty());
}

#[tokio::test]
async fn a_disk_that_takes_nothing_makes_the_detector_wait_and_says_so() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let context = context(Some(files.clone()), folder.path(), 1 << 20);
    let outbox = Outbox::open(&context).unwrap();
    let mut target = played("target", 4);
    let running = run(&outbox, Output::new(vec![target.edge.clone()]));
    append(&outbox, 0, 1).await;
    assert_eq!(take(&mut target.input, 1).await, ["e0-1"]);
    files.faults(|faults| faults.free = Some(0));
    let (waiting, done) = (outbox.clone(), Arc::new(Mutex::new(false)));
    let flag = Arc::clone(&done);
    let appending = tokio::task::spawn_blocking(move || {
        waiting.append(1, &findings(1, 1)).unwrap();
        *flag.lock().unwrap() = true;
    });
    until("the health says it", || {
        context.health.get().message().is_some_and(|m| m.contains("the outbox") && m.contains("no space"))
    })
    .await;
    assert!(!*done.lock().unwrap());
    files.heal();
    assert_eq!(take(&mut target.input, 1).await, ["e1-1"]);
    appending.await.unwrap();
    outbox.close();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_long_outage_drains_in_order_when_it_is_over() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let context = context(Some(files.clone()), folder.path(), 64 << 20);
    let outbox = Outbox::open(&context).unwrap();
    let mut target = played("target", 8);
    let running = run(&outbox, Output::new(vec![target.edge.clone()]));
    let filling = outbox.clone();
    tokio::task::spawn_blocking(move || {
        for entry in 0..5000 {
            filling.append(entry, &findings(entry, 2)).unwrap();
        }
    })
    .await
    .unwrap();
    let shown = levels(&outbox)["target"].clone();
    assert_eq!(shown.waiting, 10_000);
    let each = shown.bytes / shown.waiting;
    assert!((300..1500).contains(&each), "{each} bytes each");
    assert_eq!(take(&mut target.input, 10_000).await, (0..5000).flat_map(|e| ids(&findings(e, 2))).collect::<Vec<_>>());
    outbox.close();
    running.await.unwrap().unwrap();
    let left: u64 = files.all().into_iter().map(|(_, size)| size).sum();
    assert!(left < 1 << 20, "{left} bytes are left");
}

#[tokio::test]
async fn what_an_exporter_that_ended_had_not_taken_comes_after_the_next_start() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let context = context(Some(files), folder.path(), 1 << 20);
    let outbox = Outbox::open(&context).unwrap();
    let mut target = played("target", 2);
    let running = run(&outbox, Output::new(vec![target.edge.clone()]));
    for entry in 0..10 {
        append(&outbox, entry, 1).await;
    }
    assert_eq!(take(&mut target.input, 3).await.len(), 3);
    until("three are off", || levels(&outbox)["target"].waiting == 7).await;
    drop(target.input);
    outbox.close();
    running.await.unwrap().unwrap();
    drop(outbox);
    // In the same process, as after a reload.
    let outbox = Outbox::open(&context).unwrap();
    let mut target = played("target", 2);
    let running = run(&outbox, Output::new(vec![target.edge.clone()]));
    assert_eq!(take(&mut target.input, 7).await, (3..10).flat_map(|e| ids(&findings(e, 1))).collect::<Vec<_>>());
    outbox.close();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn when_it_cannot_be_read_how_far_a_target_was_it_gets_all_that_is_there() {
    let (files, folder) = (SimFiles::new(1), tempfile::tempdir().unwrap());
    let context = context(Some(files.clone()), folder.path(), 1 << 20);
    let outbox = Outbox::open(&context).unwrap();
    let mut target = played("target", 2);
    let running = run(&outbox, Output::new(vec![target.edge.clone()]));
    append(&outbox, 5, 2).await;
    assert_eq!(take(&mut target.input, 2).await.len(), 2);
    outbox.close();
    running.await.unwrap().unwrap();
    drop(outbox);
    files.put(&context.folder().join("outbox/cursors.json"), b"{\"targets\":{\"tar".to_vec());
    let outbox = Outbox::open(&context).unwrap();
    assert_eq!((outbox.last_entry(), outbox.highest_entry()), (Some(5), Some(5)));
    let mut target = played("target", 2);
    let running = run(&outbox, Output::new(vec![target.edge.clone()]));
    assert_eq!(take(&mut target.input, 2).await, ["e5-1", "e5-2"]);
    append(&outbox, 6, 1).await;
    assert_eq!(take(&mut target.input, 1).await, ["e6-1"]);
    outbox.close();
    running.await.unwrap().unwrap();
}
