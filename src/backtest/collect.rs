//! Looks on while the past is judged, and keeps what a report needs: bounded, and without a lock per value.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::{Anomaly, Findings, IncidentEvent, UnixNanos};
use crate::pipeline::{Judgement, Observer, Track, Watched};

/// Values before an anomaly that its chart shows.
const BEFORE: usize = 240;
/// Values after it.
const AFTER: usize = 60;
/// Charts that are kept; those of the most unusual anomalies.
const MAX_CHARTS: usize = 200;
/// Anomalies that are kept with everything they say; all are counted.
const MAX_ANOMALIES: usize = 20_000;
/// What the report says about other thresholds.
pub(super) const THRESHOLDS: [f64; 9] = [1.0, 1.25, 1.55, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0];
/// As the detector does, an event counts once until it has been over for so many values...
const AFTERGLOW: u8 = 30;
/// ...or has become so much worse.
const ESCALATION: f64 = 1.25;

/// One value of a chart; NaN where something is not known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) at: UnixNanos,
    pub(super) observed: f64,
    pub(super) expected: f64,
    pub(super) lower: f64,
    pub(super) upper: f64,
}

/// What all series together came to.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) anomalies: Vec<Anomaly>,
    /// Anomalies that were not kept.
    pub(super) more: u64,
    /// Values around an anomaly, by fingerprint and start of its bucket.
    pub(super) charts: BTreeMap<(String, UnixNanos), Vec<Sample>>,
    /// Incidents that were opened.
    pub(super) incidents: u64,
    pub(super) ready: u64,
    pub(super) warming: u64,
    pub(super) values: u64,
    /// Events per threshold of [`THRESHOLDS`].
    pub(super) events: [u64; THRESHOLDS.len()],
    /// The threshold that was in force.
    pub(super) threshold: f64,
    /// Nanoseconds.
    pub(super) bucket: u64,
    /// The first and the last value that was judged.
    pub(super) judged: Option<(UnixNanos, UnixNanos)>,
    /// The page scores of the charts, the least unusual first.
    kept: Vec<(f64, (String, UnixNanos))>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Collector(Arc<Mutex<Collected>>);

impl Collector {
    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was collected.
    pub(super) fn take(&self) -> Collected {
        std::mem::take(&mut *self.lock())
    }
}

impl Observer for Collector {
    fn series(&self, series: Watched<'_>) -> Box<dyn Track> {
        self.lock().bucket = series.bucket;
        Box::new(Record {
            collector: self.clone(),
            fingerprint: series.fingerprint.to_owned(),
            ring: VecDeque::new(),
            pending: Vec::new(),
            events: [Event::default(); THRESHOLDS.len()],
            threshold: 0.0,
            values: 0,
            ready: false,
            judged: None,
        })
    }

    fn findings(&self, findings: &Findings) {
        let Findings { anomalies, incidents } = findings;
        let mut collected = self.lock();
        collected.incidents += incidents.iter().filter(|i| i.event == IncidentEvent::Opened).count() as u64;
        let room = MAX_ANOMALIES.saturating_sub(collected.anomalies.len());
        collected.anomalies.extend(anomalies.iter().take(room).cloned());
        collected.more += anomalies.len().saturating_sub(room) as u64;
    }
}

/// What one threshold would have made of a series.
#[derive(Clone, Copy, Debug, Default)]
struct Event {
    left: u8,
    worst: f64,
    count: u64,
}

/// Follows one series.
#[derive(Debug)]
struct Record {
    collector: Collector,
    fingerprint: String,
    ring: VecDeque<Sample>,
    /// Anomalies whose charts are not complete: when, how unusual, how many values ago.
    pending: Vec<(UnixNanos, f64, usize)>,
    events: [Event; THRESHOLDS.len()],
    threshold: f64,
    values: u64,
    ready: bool,
    judged: Option<(UnixNanos, UnixNanos)>,
}

impl Track for Record {
    fn judged(&mut self, judgement: &Judgement) {
        let or_nan = |value: Option<f64>| value.unwrap_or(f64::NAN);
        self.values += 1;
        self.judged = Some((self.judged.map_or(judgement.at, |(first, _)| first), judgement.at));
        self.ready = judgement.ready;
        self.threshold = judgement.threshold;
        if self.ring.len() > BEFORE + AFTER {
            self.ring.pop_front();
        }
        self.ring.push_back(Sample {
            at: judgement.at,
            observed: judgement.observed,
            expected: or_nan(judgement.expected),
            lower: or_nan(judgement.lower),
            upper: or_nan(judgement.upper),
        });
        for (_, _, age) in &mut self.pending {
            *age += 1;
        }
        while self.pending.first().is_some_and(|(_, _, age)| *age >= AFTER) {
            self.chart();
        }
        if judgement.finding {
            self.pending.push((judgement.at, judgement.page, 0));
        }
        if judgement.ready {
            self.count(judgement);
        }
    }
}

impl Record {
    fn count(&mut self, judgement: &Judgement) {
        let outside = |bound: Option<f64>, is: fn(f64, f64) -> bool| bound.is_some_and(|b| is(judgement.observed, b));
        let unusual = outside(judgement.lower, |v, b| v < b) || outside(judgement.upper, |v, b| v > b);
        for (event, threshold) in self.events.iter_mut().zip(THRESHOLDS) {
            if judgement.page >= threshold && judgement.page >= event.worst * ESCALATION {
                *event = Event { left: AFTERGLOW, worst: judgement.page, count: event.count + 1 };
            } else if event.left > 0 {
                event.left = if unusual { AFTERGLOW } else { event.left - 1 };
                event.worst = if event.left == 0 { 0.0 } else { event.worst };
            }
        }
    }

    /// Keeps the values around the oldest pending anomaly.
    fn chart(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let (at, page, _) = self.pending.remove(0);
        let key = (self.fingerprint.clone(), at);
        let mut collected = self.collector.lock();
        if collected.kept.len() >= MAX_CHARTS {
            if collected.kept.first().is_some_and(|(least, _)| *least >= page) {
                return;
            }
            let (_, least) = collected.kept.remove(0);
            collected.charts.remove(&least);
        }
        let place = collected.kept.partition_point(|(other, _)| *other < page);
        collected.kept.insert(place, (page, key.clone()));
        collected.charts.insert(key, self.ring.iter().copied().collect());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        while !self.pending.is_empty() {
            self.chart();
        }
        let mut collected = self.collector.lock();
        if self.ready {
            collected.ready += 1;
        } else {
            collected.warming += 1;
        }
        collected.values += self.values;
        collected.judged = match (collected.judged, self.judged) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (all, own) => all.or(own),
        };
        collected.threshold = self.threshold;
        for (all, event) in collected.events.iter_mut().zip(&self.events) {
            *all += event.count;
        }
    }
}
