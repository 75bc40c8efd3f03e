//! What is sent to a detector, in stages. Within a stage the batches may come in any order and as often as they like:
//! the same is learnt of them. A stage begins when the one before was taken in.

use super::super::*;
use crate::model::{AttributeRange, Batch, Metric, MetricKind, Point, PointValue, Points, Telemetry, Value};
use crate::pipeline::{BatchId, Mark, Origin};

/// Minutes that all series are healthy at first.
pub(super) const HEALTHY: u64 = 300;
/// Minutes of the whole.
pub(super) const ALL: u64 = 340;

/// What is done.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// These are sent together.
    Send(Vec<Parcel>),
    /// A page of a poller.
    Page(Parcel, u64),
    /// Somebody mutes something; the reason tells it from other mutes.
    Mute(String),
    /// Somebody calls an anomaly normal.
    Normal(String),
    /// The poller has read all of the history that was asked for.
    HistoryRead,
}

/// A batch as its sender keeps it.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) payload: Payload,
    pub(super) origin: Origin,
}

/// Where the poller's batches come from.
pub(super) const POLLER: &str = "poller";

fn second(minute: u64, within: u64) -> u64 {
    BEGIN + minute * MINUTE + within
}

/// Whether `minute` is one of a fault of the stream with this number.
fn is_faulty(stream: u64, minute: u64) -> bool {
    let begin = HEALTHY + 3 + stream % 5;
    (begin..begin + 5).contains(&minute) || (begin + 14..begin + 17).contains(&minute)
}

/// A level of the poller's own service, and one that it and the OTLP clients both report.
fn polled(minute: u64, stream: u64, within: u64) -> Vec<Observation> {
    let at = second(minute, within);
    let level = if is_faulty(stream, minute) { 400.0 } else { 20.0 };
    vec![gauge("orders", at, level + noise(at)), gauge("shared", at, 30.0 + noise(at + 1))]
}

fn spans(minute: u64, stream: u64, within: u64) -> Vec<Observation> {
    let at = second(minute, within);
    let mut all = if is_faulty(stream, minute) { faulty(at) } else { healthy(at) };
    all.push(gauge("shared", at, 30.0 + noise(at + 2)));
    all
}

fn observations(source: &str, items: Vec<Observation>, salt: u64) -> Parcel {
    let newest = items.iter().map(|o| o.time).max().unwrap_or_default();
    let calls = vec![crate::model::Call { caller: Arc::from("cart"), callee: Arc::from("checkout") }];
    let id = BatchId::of(&[source.as_bytes(), &newest.0.to_le_bytes(), &salt.to_le_bytes()]);
    let observations = Observations {
        environment: environment(),
        source: SourceId::from(source),
        signal: Signal::Traces,
        items,
        newest,
        versions: Vec::new(),
        calls,
    };
    Parcel { payload: Payload::Observations(Arc::new(observations)), origin: Origin { id: Some(id), mark: None } }
}

/// A metric point of every ten seconds: what a detector takes as it came in.
fn points(minute: u64, stream: u64, within: &[u64]) -> Parcel {
    let mut points = Points::default();
    let name = points.symbols.intern("pool.used");
    points.metrics.push(Metric { name, unit: points.symbols.intern("1"), kind: MetricKind::Gauge });
    let mark = points.attributes.mark();
    let (key, service) = (points.symbols.intern("service.name"), points.symbols.intern("cart"));
    points.attributes.push(key, Value::Str(service));
    let resource = points.attributes.since(mark);
    for &within in within {
        let at = second(minute, within);
        let level = if is_faulty(stream, minute) { 90.0 } else { 5.0 };
        points.rows.push(Point {
            resource,
            metric: 0,
            time: UnixNanos::from_secs(at),
            start: UnixNanos(0),
            value: PointValue::Number(level + noise(at + 3)),
            attributes: AttributeRange::default(),
        });
    }
    let id = BatchId::of(&[b"points", &minute.to_le_bytes(), &[within[0] as u8]]);
    let telemetry = Telemetry { environment: environment(), source: SourceId::from("otlp"), batch: Batch::Metrics(points) };
    Parcel { payload: Payload::Telemetry(Arc::new(telemetry)), origin: Origin { id: Some(id), mark: None } }
}

fn page(items: Vec<Observation>, generation: u64) -> Stage {
    let mut parcel = observations(POLLER, items, generation);
    let source = SourceId::from(POLLER);
    let mark = Mark { source, signal: Signal::Traces, generation, bytes: generation.to_le_bytes().to_vec() };
    parcel.origin = Origin { id: None, mark: Some(Arc::new(mark)) };
    Stage::Page(parcel, generation)
}

/// Divides what is sent at once between a few requests.
fn requests(random: &mut fastrand::Rng, items: Vec<Observation>) -> Vec<Parcel> {
    let parts = random.usize(1..4);
    let mut divided = vec![Vec::new(); parts];
    for item in items {
        // Running totals stay together: until their bucket closes they wait in the order in which they came.
        let part = if &*item.metric == "requests" { 0 } else { random.usize(0..parts) };
        divided[part].push(item);
    }
    let mut salt = 0;
    divided.retain(|part| !part.is_empty());
    let mut parcel = |part| {
        salt += 1;
        observations("otlp", part, salt * 100 + random.u64(0..100))
    };
    divided.into_iter().map(&mut parcel).collect()
}

/// The stream with this number. `normal` is an anomaly that somebody calls normal when the fault is over.
pub(super) fn stream(number: u64, normal: Option<&str>) -> Vec<Stage> {
    let mut random = fastrand::Rng::with_seed(number);
    let mut stages = Vec::new();
    let mut generation = 0;
    let mut page = |items| {
        generation += 1;
        page(items, generation)
    };
    // What was learnt long ago came in large batches.
    let steps = || [0, 30];
    for from in (0..HEALTHY).step_by(30) {
        let minutes = from..from + 30;
        let of = |make: fn(u64, u64, u64) -> Vec<Observation>| {
            minutes.clone().flat_map(|m| steps().into_iter().flat_map(move |w| make(m, number, w))).collect::<Vec<_>>()
        };
        // Event time goes on by minutes here, so all of it comes in one.
        stages.push(Stage::Send(vec![observations("otlp", of(spans), 0)]));
        stages.push(page(of(polled)));
        for minute in minutes.clone() {
            stages.push(Stage::Send(vec![points(minute, number, &[0, 30])]));
        }
    }
    let mut late = Vec::new();
    for minute in HEALTHY..ALL {
        // Up to here nothing closes, so it does not matter what comes first: also what is late from the minute before.
        let early: Vec<Observation> = [0, 10, 20].into_iter().flat_map(|w| spans(minute, number, w)).collect();
        let mut all = requests(&mut random, early);
        if !late.is_empty() {
            all.push(observations("otlp", std::mem::take(&mut late), 7));
        }
        all.push(points(minute, number, &[0, 10, 20]));
        stages.push(Stage::Send(all));
        stages.push(page([0, 10, 20].into_iter().flat_map(|w| polled(minute, number, w)).collect()));
        // The first of these closes the minute before.
        let mut rest: Vec<Observation> = [30, 40, 50].into_iter().flat_map(|w| spans(minute, number, w)).collect();
        if random.bool() {
            let at = UnixNanos::from_secs(second(minute, 40));
            late.extend(rest.extract_if(.., |o| o.time == at && &*o.metric != "requests"));
        }
        stages.push(Stage::Send(requests(&mut random, rest)));
        stages.push(Stage::Send(vec![points(minute, number, &[30, 40, 50])]));
        stages.push(page([30, 40, 50].into_iter().flat_map(|w| polled(minute, number, w)).collect()));
        match minute {
            310 => stages.push(Stage::Mute("load test".to_owned())),
            325 => stages.extend(normal.map(|id| Stage::Normal(id.to_owned()))),
            _ => {}
        }
    }
    stages
}

/// Much more than a log holds, all of it in one minute.
pub(super) fn standing_still() -> Vec<Stage> {
    let step = |salt| {
        let items = (0..40).map(|i| gauge(&format!("service-{i}"), second(0, 10), noise(salt))).collect();
        Stage::Send(vec![observations("otlp", items, salt)])
    };
    (0..600).map(step).collect()
}

/// A few requests and pages by turns.
pub(super) fn by_turns() -> Vec<Stage> {
    let turn = |m| [Stage::Send(vec![observations("otlp", spans(m, 0, 0), 0)]), page(polled(m, 0, 0), m + 1)];
    (0..6).flat_map(turn).collect()
}

/// A history is read, and then comes something that is no history.
pub(super) fn after_history() -> Vec<Stage> {
    let at = |minute| Stage::Send(vec![observations("otlp", spans(minute, 0, 0), 0)]);
    vec![at(0), Stage::HistoryRead, at(1)]
}
