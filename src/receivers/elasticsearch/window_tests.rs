//! The poller against a model of a cluster: documents that come late and out of order, many of one moment, pages of
//! any size, points in time and indices that are lost, restarts anywhere. Each document must come out exactly once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::cursor::Cursor;
use super::decode::Decoder;
use super::search::{PageRequest, Search, SearchError};
use super::time::{format, parse};
use super::window::{Outcome, PollError, Poller, Settings};
use crate::model::{Batch, Payload, PayloadKind, Signal, UnixNanos};
use crate::pipeline::{Context, Counters, Delivery, Input, Mark, Memory, Output, Outputs, Registry, Services};
use crate::storage::{FullStorage, Storage};

const SECOND: u64 = UnixNanos::SECOND;
const START: UnixNanos = UnixNanos::from_secs(1_700_000_000);
const DELAY: u64 = 60 * SECOND;
const OVERLAP: u64 = 300 * SECOND;

/// One document of the model.
#[derive(Clone, Debug)]
struct Document {
    id: u32,
    index: u8,
    time: UnixNanos,
}

/// What happens at a call of the cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    /// The point in time is lost.
    Gone,
    /// The answer is too large.
    TooLarge,
    /// The cluster does not answer.
    Down,
    /// The daemon is told to stop before the answer comes.
    Stop,
    /// An index is deleted.
    Delete(u8),
    /// A document arrives while the poll goes on.
    Arrive(i64),
}

#[derive(Default)]
struct World {
    /// Everything that can be searched now.
    documents: Vec<Document>,
    deleted: HashSet<u8>,
    next: u32,
    /// Open points in time: what could be searched then, in the order of time.
    points: HashMap<String, Vec<Document>>,
    opened: u32,
    faults: Vec<Fault>,
    now: UnixNanos,
    shutdown: CancellationToken,
    calls: u64,
}

impl World {
    /// A document of `offset` nanoseconds around the edge of what a poll still finds.
    fn arrive(&mut self, offset: i64) {
        let earliest = self.now.minus(DELAY + OVERLAP).max(START);
        let span = self.now.0 + DELAY - earliest.0;
        let time = UnixNanos(earliest.0 + offset.unsigned_abs() % span.max(1));
        // A third of one second, a third of one millisecond, a third on nanoseconds.
        let time = match offset % 3 {
            0 => time.floor(SECOND).max(earliest.floor(SECOND).plus(SECOND)),
            1 => time.floor(1_000_000).max(earliest.floor(1_000_000).plus(1_000_000)),
            _ => time,
        };
        let index = (offset.unsigned_abs() % 4) as u8;
        if !self.deleted.contains(&index) {
            self.documents.push(Document { id: self.next, index, time });
        }
        self.next += 1;
    }
}

#[derive(Clone, Default)]
struct Model(Arc<Mutex<World>>);

#[async_trait]
impl Search for Model {
    async fn open(&self) -> Result<Option<String>, SearchError> {
        let mut world = self.0.lock().unwrap();
        world.opened += 1;
        let name = format!("p{}", world.opened);
        let mut snapshot = world.documents.clone();
        snapshot.sort_by_key(|d| d.time);
        if world.deleted.len() == 4 {
            return Ok(None);
        }
        world.points.insert(name.clone(), snapshot);
        Ok(Some(name))
    }

    async fn page(&self, request: PageRequest<'_>) -> Result<Bytes, SearchError> {
        let fault = self.0.lock().unwrap().faults.pop().unwrap_or(Fault::None);
        if fault == Fault::Stop {
            let shutdown = self.0.lock().unwrap().shutdown.clone();
            shutdown.cancel();
            return std::future::pending().await;
        }
        let mut world = self.0.lock().unwrap();
        world.calls += 1;
        match fault {
            Fault::None | Fault::Stop => {}
            Fault::Gone => drop(world.points.remove(request.pit)),
            Fault::TooLarge => return Err(SearchError::TooLarge("too large".to_owned())),
            Fault::Down => return Err(SearchError::Failed("no connection".to_owned())),
            Fault::Delete(index) => {
                world.deleted.insert(index);
                world.documents.retain(|d| d.index != index);
                world.points.retain(|_, snapshot| snapshot.iter().all(|d| d.index != index));
            }
            Fault::Arrive(offset) => world.arrive(offset),
        }
        let Some(snapshot) = world.points.get(request.pit) else {
            return Err(SearchError::Gone("no search context".to_owned()));
        };
        let after = request.after.map(|text| {
            let (time, place): (String, usize) = serde_json::from_str(text).unwrap();
            (parse(&time).unwrap(), place)
        });
        let hits: Vec<String> = snapshot
            .iter()
            .enumerate()
            .filter(|(place, d)| {
                let wanted = request.ids.is_none_or(|ids| ids.contains(&d.id.to_string()));
                wanted && d.time >= request.from && d.time < request.to && after.is_none_or(|a| (d.time, *place) > a)
            })
            .take(request.size)
            .map(|(place, d)| {
                let source = match (request.source, d.id % 3) {
                    (false, _) => String::new(),
                    (_, 0) => format!(r#""_source":{{"span_id":"x","name":"{}","duration":5}},"#, d.id),
                    (_, 1) => format!(r#""_source":{{"severity_number":9,"body":{{"text":"{}"}}}},"#, d.id),
                    _ => format!(r#""_source":{{"broken":{}}},"#, d.id),
                };
                format!(r#"{{"_index":"i{}","_id":"{}",{source}"sort":["{}",{place}]}}"#, d.index, d.id, format(d.time))
            })
            .collect();
        let body = format!(
            r#"{{"pit_id":"{}","timed_out":false,"_shards":{{"total":4,"failed":0}},"hits":{{"hits":[{}]}}}}"#,
            request.pit,
            hits.join(",")
        );
        Ok(body.into())
    }

    async fn close(&self, pit: String) {
        self.0.lock().unwrap().points.remove(&pit);
    }

    async fn counters(&self) -> Result<HashSet<String>, SearchError> {
        Ok(HashSet::new())
    }
}

/// The receiver's inside, its store, and what came out of it.
struct Bench {
    model: Model,
    store: Arc<FullStorage>,
    settings: Settings,
    counters: Arc<Counters>,
    /// Of 100 bytes.
    memory: Memory,
    poller: Poller<Model>,
    spans: Input,
    logs: Input,
    /// How often each document came out.
    out: BTreeMap<u32, u32>,
    /// The last mark of each signal that came with them.
    marks: HashMap<Signal, Mark>,
    /// Whether a poll was cut off: then what it had in hand is not accounted for.
    killed: bool,
}

impl Bench {
    fn new(page_size: usize, max_documents: u64) -> Self {
        let model = Model::default();
        model.0.lock().unwrap().now = START.plus(DELAY);
        let store = Arc::new(FullStorage::default());
        let settings = Settings { delay: DELAY, overlap: OVERLAP, page_size, max_documents, max_remembered: usize::MAX };
        let counters = Arc::default();
        let memory = Memory::new(Some(100));
        let marks = HashMap::new();
        let (poller, spans, logs) = Self::poller(&model, &store, settings, (&counters, &memory), &marks);
        Self { model, store, settings, counters, memory, poller, spans, logs, out: BTreeMap::new(), marks, killed: false }
    }

    fn poller(
        model: &Model,
        store: &Arc<FullStorage>,
        settings: Settings,
        (counters, memory): (&Arc<Counters>, &Memory),
        marks: &HashMap<Signal, Mark>,
    ) -> (Poller<Model>, Input, Input) {
        let registry = Registry::default();
        registry.share_memory(memory.clone());
        let shutdown = CancellationToken::new();
        model.0.lock().unwrap().shutdown = shutdown.clone();
        let services = Services { storage: Arc::clone(store) as Arc<dyn Storage>, registry, ..Services::in_memory() };
        let counters = Arc::clone(counters);
        let context = Context { counters, shutdown, ..Context::of_test("test", "elasticsearch/model", services) };
        let (traces, spans_in) = Input::queue(10_000, Arc::default());
        let (logs, logs_in) = Input::queue(10_000, Arc::default());
        let outputs = Outputs { traces: Output::new(vec![traces]), logs: Output::new(vec![logs]), metrics: Output::default() };
        let (mut cursor, damage) = Cursor::load(Arc::clone(store) as Arc<dyn Storage>, "cursor/test".to_owned(), START).unwrap();
        assert_eq!(damage, None);
        let mut marks: Vec<Mark> = marks.values().cloned().collect();
        marks.sort_by_key(|mark| mark.generation);
        cursor.catch_up(&marks);
        (Poller::new(model.clone(), cursor, settings, Decoder::default(), outputs, context), spans_in, logs_in)
    }

    /// The process ends at once, and begins again.
    fn restart(&mut self) {
        let others = (&self.counters, &self.memory);
        (self.poller, self.spans, self.logs) = Self::poller(&self.model, &self.store, self.settings, others, &self.marks);
    }

    fn world<T>(&self, with: impl FnOnce(&mut World) -> T) -> T {
        with(&mut self.model.0.lock().unwrap())
    }

    /// Polls, while whoever is behind the pipelines takes what comes.
    async fn poll(&mut self) -> Result<Outcome, PollError> {
        self.poll_for(usize::MAX).await.unwrap()
    }

    /// As [`Self::poll`], but cuts it off after so many steps.
    async fn poll_for(&mut self, mut steps: usize) -> Option<Result<Outcome, PollError>> {
        let now = self.world(|w| w.now);
        let poll = self.poller.poll(now);
        tokio::pin!(poll);
        loop {
            tokio::select! {
                biased;
                outcome = &mut poll => return Some(outcome),
                () = tokio::task::yield_now() => {
                    if steps == 0 {
                        return None;
                    }
                    steps -= 1;
                    for input in [&mut self.spans, &mut self.logs] {
                        collect(input, &mut self.out, &mut self.marks);
                    }
                }
            }
        }
    }

    /// Lets time pass until everything can be read, and reads it.
    async fn settle(&mut self) {
        self.world(|w| {
            w.faults.clear();
            w.now = w.now.plus(2 * DELAY + SECOND);
        });
        while self.poll().await.unwrap() == Outcome::More {}
    }

    /// Each document that can be read has come out once, and none more often.
    fn check(&self) {
        let twice: Vec<u32> = self.out.iter().filter(|(_, n)| **n > 1).map(|(id, _)| *id).collect();
        assert!(twice.is_empty(), "read twice: {twice:?}");
        let readable = self.world(|w| w.documents.clone()).into_iter().filter(|d| d.id % 3 != 2);
        let lost: Vec<Document> = readable.filter(|d| !self.out.contains_key(&d.id)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let [spans, logs] = [Signal::Traces, Signal::Logs].map(|s| self.counters.of(PayloadKind::Telemetry(s)));
        assert!(spans.balanced() && logs.balanced(), "{spans:?} {logs:?}");
        assert!(self.killed || (spans.sent + logs.sent) as usize == self.out.len());
        // Those that cannot be read are counted once, too.
        let broken = logs.dropped.get("unknown_shape").copied().unwrap_or(0) as usize;
        assert!(broken >= self.world(|w| w.documents.iter().filter(|d| d.id % 3 == 2).count()));
        assert!(self.killed || broken <= self.world(|w| w.next as usize) / 3 + 1);
    }
}

/// Takes in what has come, as a log on disk does: with the last mark of each signal.
fn collect(input: &mut Input, out: &mut BTreeMap<u32, u32>, marks: &mut HashMap<Signal, Mark>) {
    while let Some(Delivery { payload, flight, origin }) = input.try_recv() {
        let Payload::Telemetry(telemetry) = &payload else { continue };
        let names: Vec<&str> = match &telemetry.batch {
            Batch::Traces(b) => b.rows.iter().map(|r| b.symbols.get(r.name)).collect(),
            Batch::Logs(b) => b.rows.iter().map(|r| b.symbols.get(r.body)).collect(),
            Batch::Metrics(_) => Vec::new(),
        };
        for name in names {
            *out.entry(name.parse().unwrap()).or_default() += 1;
        }
        let mark = Mark::clone(&origin.mark.unwrap());
        assert!(marks.get(&mark.signal).is_none_or(|before| before.generation < mark.generation), "marks count up");
        marks.insert(mark.signal, mark);
        flight.sent();
    }
}

/// One thing that happens.
#[derive(Clone, Debug)]
enum Event {
    Arrive(Vec<i64>),
    /// Many documents of one moment.
    Burst(usize, i64),
    Pass(u64),
    Poll(Vec<Fault>),
    StoreFull,
    Restart,
    /// A poll is cut off, and the process begins again.
    Kill(usize),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        2 => Just(Fault::Gone),
        1 => Just(Fault::TooLarge),
        1 => Just(Fault::Down),
        2 => Just(Fault::Stop),
        1 => (0u8..2).prop_map(Fault::Delete),
        2 => (0i64..i64::MAX).prop_map(Fault::Arrive),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => prop::collection::vec(0i64..i64::MAX, 1..30).prop_map(Event::Arrive),
        1 => (1usize..60, 0i64..i64::MAX).prop_map(|(n, at)| Event::Burst(n, at)),
        3 => (1u64..400).prop_map(Event::Pass),
        5 => prop::collection::vec(fault(), 0..12).prop_map(Event::Poll),
        1 => Just(Event::StoreFull),
        1 => Just(Event::Restart),
        2 => (0usize..30).prop_map(Event::Kill),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]
    #[test]
    fn each_document_is_read_exactly_once_whatever_happens(
        events in prop::collection::vec(event(), 1..40), page_size in 1usize..12, max_documents in 1u64..40,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let mut bench = Bench::new(page_size, max_documents);
            for event in events {
                match event {
                    Event::Arrive(offsets) => bench.world(|w| offsets.iter().for_each(|o| w.arrive(*o))),
                    Event::Burst(n, offset) => bench.world(|w| (0..n).for_each(|_| w.arrive(offset))),
                    Event::Pass(seconds) => bench.world(|w| w.now = w.now.plus(seconds * SECOND)),
                    Event::Poll(faults) => {
                        bench.world(|w| w.faults = faults);
                        let outcome = bench.poll().await;
                        if bench.world(|w| w.shutdown.is_cancelled()) {
                            assert_eq!(outcome, Ok(Outcome::Stopped));
                            bench.restart();
                        }
                    }
                    Event::StoreFull => bench.store.full.store(true, std::sync::atomic::Ordering::SeqCst),
                    Event::Kill(steps) => {
                        bench.world(|w| w.faults.clear());
                        bench.killed = true;
                        let _ = bench.poll_for(steps).await;
                        // A process that ends writes no more: what is being written has the one thread for that.
                        tokio::task::spawn_blocking(|| ()).await.unwrap();
                        bench.restart();
                    }
                    Event::Restart => {
                        // Also while its store is full: what was taken in is known by its marks.
                        bench.killed |= bench.store.full.swap(false, std::sync::atomic::Ordering::SeqCst);
                        bench.killed |= bench.poller.is_unfinished();
                        bench.restart();
                    }
                }
            }
            bench.store.full.store(false, std::sync::atomic::Ordering::SeqCst);
            bench.settle().await;
            bench.check();
        });
    }
}

#[tokio::test]
async fn thousands_of_documents_of_one_moment_survive_pages_and_restarts() {
    let mut bench = Bench::new(100, 1_000);
    bench.world(|w| (0..3_000).for_each(|_| w.arrive(3)));
    bench.world(|w| w.now = w.now.plus(DELAY + 10 * SECOND));
    for stop_at in [3, 7, 1, 12] {
        let mut faults = vec![Fault::Stop];
        faults.extend(vec![Fault::None; stop_at]);
        bench.world(|w| w.faults = faults);
        while bench.poll().await != Ok(Outcome::Stopped) {}
        bench.restart();
    }
    bench.settle().await;
    bench.check();
}

#[tokio::test]
async fn what_came_late_is_fetched_alone_and_the_rest_of_the_overlap_only_by_its_ids() {
    let mut bench = Bench::new(1_000, 100_000);
    bench.world(|w| w.now = w.now.plus(600 * SECOND));
    bench.world(|w| (0..600).for_each(|n| w.arrive(n * 3)));
    bench.settle().await;
    let read = bench.out.len();
    bench.world(|w| w.now = w.now.plus(30 * SECOND));
    let (id, calls) = bench.world(|w| {
        w.next = w.next.next_multiple_of(3);
        let time = w.now.minus(DELAY + 200 * SECOND);
        let document = Document { id: w.next, index: 1, time };
        w.next += 1;
        w.documents.push(document.clone());
        (document.id, w.calls)
    });
    assert_eq!(bench.poll().await, Ok(Outcome::CaughtUp));
    assert_eq!((bench.out.len(), bench.out.get(&id)), (read + 1, Some(&1)));
    assert_eq!(bench.counters.events().get("late_documents"), Some(&1));
    assert_eq!(bench.world(|w| w.calls) - calls, 3, "the ids, the late document, and the new part of the window");
}

#[tokio::test]
async fn where_no_index_matches_the_cursor_waits() {
    let mut bench = Bench::new(10, 100);
    bench.world(|w| w.deleted = HashSet::from([0, 1, 2, 3]));
    bench.world(|w| w.now = w.now.plus(3_600 * SECOND));
    assert_eq!(bench.poll().await, Ok(Outcome::NoIndex));
    // An hour of documents appears at once: a cluster that was restored, a key that was given its right to read.
    bench.world(|w| {
        w.deleted.clear();
        for n in 0..50 {
            w.documents.push(Document { id: n * 3, index: 0, time: START.plus(u64::from(n) * 60 * SECOND) });
        }
        w.next = 150;
    });
    bench.settle().await;
    assert_eq!(bench.out.len(), 50);
}

#[tokio::test]
async fn a_point_in_time_that_is_lost_again_and_again_is_an_error_and_not_a_loop() {
    let mut bench = Bench::new(10, 100);
    bench.world(|w| w.arrive(3));
    bench.world(|w| {
        w.now = w.now.plus(DELAY);
        w.faults = vec![Fault::Gone; 100];
    });
    assert_eq!(bench.poll().await, Err(PollError::Search("no search context".to_owned())));
    bench.settle().await;
    bench.check();
}

#[tokio::test]
async fn what_the_pipelines_did_not_take_is_read_again_and_nothing_else() {
    let mut bench = Bench::new(100, 1_000);
    bench.world(|w| (0..60).for_each(|n| w.arrive(n * 3)));
    bench.world(|w| w.now = w.now.plus(2 * DELAY));
    bench.logs = Input::queue(1, Arc::default()).1;
    assert_eq!(bench.poll().await, Err(PollError::Ended));
    let spans = bench.out.len();
    assert!(spans > 0 && bench.out.keys().all(|id| id % 3 == 0));
    let logs = bench.counters.of(PayloadKind::Telemetry(Signal::Logs));
    assert!(logs.refused > 0 && logs.sent == 0, "{logs:?}");
    bench.restart();
    bench.settle().await;
    bench.check();
}

#[tokio::test]
async fn a_full_seen_set_shortens_the_overlap_and_reads_nothing_twice() {
    let mut bench = Bench::new(50, 10_000);
    bench.settings.max_remembered = 100;
    bench.restart();
    for _ in 0..10 {
        bench.world(|w| {
            w.now = w.now.plus(20 * SECOND);
            let now = w.now;
            for n in 0..60 {
                w.documents.push(Document { id: w.next * 3, index: 0, time: now.minus(DELAY + n * SECOND / 6) });
                w.next += 1;
            }
        });
        bench.poll().await.unwrap();
    }
    assert!(bench.counters.events()["overlap_shortened"] > 0);
    assert!(bench.out.values().all(|n| *n == 1) && bench.out.len() > 500, "{}", bench.out.len());
}

#[tokio::test]
async fn while_there_is_no_memory_nothing_is_read_and_nothing_is_lost_by_it() {
    let mut bench = Bench::new(10, 1_000);
    bench.world(|w| (0..60).for_each(|n| w.arrive(n * 3)));
    bench.world(|w| w.now = w.now.plus(2 * DELAY));
    bench.memory.note(100);
    assert!(bench.poll_for(10_000).await.is_none(), "it waits");
    assert!(bench.out.is_empty());
    bench.memory.note(10);
    bench.settle().await;
    assert!(!bench.out.is_empty());
    bench.check();
}
