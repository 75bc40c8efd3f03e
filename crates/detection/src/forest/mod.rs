//! A series judged by an isolation forest of its own past.
//!
//! Every value is seen with the step to it and its distance from the time of day. A forest is grown from the last
//! `training_samples` of them, anew every `retrain_interval`; how unusual a path length is, is measured against the
//! history of the path lengths themselves.

mod chance;
mod features;
mod isolation;
pub(crate) mod training;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::chance::Chance;
use self::features::{COMPONENTS, Features, Past, Point, WIDTH};
pub use self::isolation::{Growth, IsolationForest};
use self::training::{Handed, Job, Trained, raw};
use crate::baseline::{Baseline, Usual};
use crate::calibrate::Calibration;
use crate::ensemble::models::LONGEST_BRIDGE;
use crate::model::{Circumstances, Evidence, MOST_SURPRISE, Model, Observation, Part, Surprises};
use crate::options::{ModelKind, ModelOptions};
use crate::samples::{most_surprise, trust};
use crate::scale::Scale;
use crate::state::{Progress, Version};

/// Seconds between the request for training and the value from which its result judges, in which the work can be done
/// elsewhere; one step where steps are longer.
const DELAY: f64 = 600.0;
/// Requested values are put aside after this many further ones at the latest.
const MOST_AFTER: u32 = 128;
/// Values among which an earlier moment like a finding is looked for.
const RECENT: usize = 512;
/// How much of the interval between trainings is used to spread them, so that not all series train at once.
const SPREAD: f64 = 0.125;
/// A page score of one model alone is worth this much of one on which several agree.
const ALONE: f64 = 0.45;

/// The learnt state of a series that is judged by an isolation forest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Forest {
    extended: bool,
    baseline: Baseline,
    /// The first value; the others are kept relative to it so that `f32` holds them.
    base: Option<f64>,
    past: Past,
    /// A long gap precedes the next value.
    broken: bool,
    /// Values that may be learnt, up to `needed`.
    collected: u32,
    needed: u32,
    current: Option<Arc<Trained>>,
    /// The history of scores, which goes on from that of the training.
    scores: Calibration,
    /// The share of the interval between trainings after which this series is trained again.
    share: f64,
    /// Event time before which training is not asked for again.
    postponed: f64,
    request: Option<Request>,
    #[serde(skip)]
    handed: Handed,
}

/// Training that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Request {
    version: Version,
    /// How it is grown was fixed with the request.
    growth: Growth,
    /// Values that it looks back on; what belongs to incidents is left out.
    window: u32,
    /// Event time from which the result judges.
    from: f64,
    /// Values seen since.
    after: u32,
}

/// How a value looked before it was learnt.
pub(crate) struct Memo {
    usual: Usual,
    features: Features,
    raw: Option<f64>,
}

impl Forest {
    pub(crate) fn new(extended: bool) -> Self {
        Self {
            extended,
            baseline: Baseline::new(),
            base: None,
            past: Past::default(),
            broken: false,
            collected: 0,
            needed: ModelOptions::default().training_samples,
            current: None,
            scores: Calibration::new(),
            share: 1.0,
            postponed: f64::MIN,
            request: None,
            handed: Handed::default(),
        }
    }

    pub(crate) const fn kind(&self) -> ModelKind {
        if self.extended { ModelKind::ExtendedIsolationForest } else { ModelKind::IsolationForest }
    }

    /// From its time on the new forest judges.
    fn swap(&mut self, time: f64) {
        if self.request.is_none_or(|request| time < request.from) {
            return;
        }
        let job = self.prepared();
        self.request = None;
        self.handed = Handed::default();
        if let Some(trained) = job.as_ref().map(Job::trained) {
            self.scores = trained.scores.clone();
            let seed = self.past.fingerprint() ^ u64::from(trained.version.number);
            self.share = 1.0 - SPREAD * Chance::new(seed).uniform();
            self.current = Some(Arc::clone(trained));
        }
    }

    /// The requested work, with its values put aside.
    fn prepared(&mut self) -> Option<Job> {
        let Request { version, growth, window, after, .. } = self.request?;
        let kind = self.kind();
        let job = self.handed.0.get_or_insert_with(|| {
            let rows = self.past.rows(window as usize, after as usize);
            Job::new(kind, version, growth, WIDTH, rows)
        });
        Some(job.clone())
    }

    /// Asks for training when that is due.
    fn request(&mut self, time: f64, circumstances: &Circumstances) {
        let options = &circumstances.options;
        if let Some(request) = &mut self.request {
            request.after += 1;
            if request.after + LONGEST_BRIDGE >= MOST_AFTER {
                self.prepared();
            }
            return;
        }
        let trained = self.current.as_ref().map(|trained| trained.version.trained_at as f64);
        let due = trained.map_or(f64::MIN, |at| at + options.retrain_seconds * self.share);
        if self.collected < self.needed || time < due.max(self.postponed) {
            return;
        }
        let samples = self.past.usable(self.needed as usize);
        if samples < self.needed / 2 {
            // Too much of the past belongs to incidents; this is asked again when some of that is forgotten.
            self.postponed = (time + 10.0 * DELAY.max(circumstances.bucket_seconds)).min(f64::MAX);
            return;
        }
        let number = self.current.as_ref().map_or(0, |trained| trained.version.number).saturating_add(1);
        let seed = u64::from(number);
        let growth = Growth { trees: options.trees, subsample: options.subsample, extended: self.extended, seed };
        let version = Version { number, trained_at: seconds(time), samples };
        let from = (time + DELAY.max(circumstances.bucket_seconds)).min(f64::MAX);
        self.request = Some(Request { version, growth, window: self.needed, from, after: 0 });
    }

    /// Values to keep: those to train on, and those that come while that waits.
    const fn kept(&self) -> usize {
        (self.needed + MOST_AFTER) as usize
    }

    fn raw(&self, features: &Features) -> Option<f64> {
        let forest = &self.current.as_ref()?.forest;
        Some(raw(forest, forest.path_length(&forest.project(features))))
    }
}

impl Model for Forest {
    type Memo = Memo;

    const COMPONENTS: &'static [&'static str] = &COMPONENTS;

    fn skip(&mut self, missing: u32) {
        if missing > LONGEST_BRIDGE {
            self.broken = true;
            self.baseline.interrupt();
        } else {
            self.past.bridge(missing, self.kept());
            if let Some(request) = &mut self.request {
                request.after += missing;
            }
        }
    }

    fn judge(&mut self, observation: &Observation, circumstances: &Circumstances) -> (Evidence, Memo) {
        self.swap(observation.time);
        let usual = self.baseline.usual(observation.time, circumstances.incident);
        let expected = usual.expected();
        // What few samples say counts less.
        let trusted = trust(observation.quantity, observation.samples);
        let value = expected.map_or(observation.learnt, |expected| expected + (observation.learnt - expected) * trusted);
        let base = *self.base.get_or_insert(observation.learnt);
        let residual = usual.time_of_day.map_or(0.0, |expected| narrow(value - expected));
        let level = narrow(value - base);
        let change = self.past.last().filter(|_| !self.broken).map_or(0.0, |last| level - last);
        let features = [level, change, residual];
        self.past.push(Point { features, usable: true }, self.kept());
        let raw = self.raw(&features);
        let most = expected.map_or(MOST_SURPRISE, |expected| {
            let expected = Scale::of(observation.quantity).observed(expected);
            most_surprise(observation.quantity, observation.value, expected, observation.samples).min(MOST_SURPRISE)
        });
        let surprise = raw.map_or(0.0, |raw| self.scores.surprise(raw).min(most));
        let rare = if surprise > 0.0 { (surprise - circumstances.penalty).max(0.0) } else { 0.0 };
        let evidence = Evidence {
            point: surprise,
            alert: rare,
            page: rare.min(surprise) * ALONE,
            score: surprise,
            expected,
            reach: self.baseline.reach(&usual, circumstances.surprise_needed(ALONE)),
            unusual: self.baseline.is_unusual(&usual, observation.learnt),
            surprises: Surprises::default(),
        };
        (evidence, Memo { usual, features, raw })
    }

    /// How much less unusual the value were if a component was as usual.
    fn parts(&self, _: &Observation, evidence: &Evidence, memo: &Memo) -> Vec<Part> {
        let Some(trained) = &self.current else { return Vec::new() };
        let whole = memo.raw.unwrap_or(0.0);
        let mut gains = [0.0; WIDTH];
        for (place, (gain, centre)) in gains.iter_mut().zip(trained.forest.centres()).enumerate() {
            let mut features = memo.features;
            if let Some(feature) = features.get_mut(place) {
                *feature = centre;
            }
            *gain = (whole - self.raw(&features).unwrap_or(0.0)).max(0.0);
        }
        let all: f64 = gains.iter().sum();
        let share = |gain: f64| if all > 0.0 { gain / all } else { 1.0 / COMPONENTS.len() as f64 };
        let parts = COMPONENTS.iter().zip(&gains).map(|(component, gain)| Part {
            component,
            surprise: evidence.score * share(*gain),
            expected: memo.usual.time_of_day.filter(|_| *component == "time_of_day"),
        });
        parts.collect()
    }

    fn learn(&mut self, observation: &Observation, circumstances: &Circumstances, memo: &Memo, protect: bool) {
        if circumstances.unlearnt {
            self.past.mark_last(false);
            self.broken = false;
            return;
        }
        if let Some(raw) = memo.raw {
            self.scores.learn(raw);
        }
        self.baseline.learn(&memo.usual, observation.time, observation.learnt, protect);
        self.needed = circumstances.options.training_samples.clamp(ModelOptions::FEWEST_SAMPLES, ModelOptions::MOST_SAMPLES);
        self.past.mark_last(!protect);
        self.broken = false;
        self.collected = self.collected.saturating_add(u32::from(!protect)).min(self.needed);
        self.request(observation.time, circumstances);
    }

    fn recent(&self) -> Vec<f64> {
        let base = self.base.unwrap_or(0.0);
        self.past.levels(RECENT).map(|level| base + f64::from(level)).collect()
    }

    fn progress(&self) -> Progress {
        match (&self.current, &self.request) {
            (Some(trained), _) => Progress::Trained(trained.version),
            (None, Some(request)) => Progress::Training { samples: request.version.samples },
            (None, None) => Progress::Collecting { seen: self.collected, needed: self.needed },
        }
    }

    fn is_due(&self) -> bool {
        self.request.is_some() && self.handed.0.is_none()
    }

    fn job(&mut self) -> Option<Job> {
        if self.is_due() { self.prepared() } else { None }
    }

    fn heap(&self) -> usize {
        let trained = self.current.as_ref().map_or(0, |trained| size_of::<Trained>() + trained.forest.heap());
        size_of::<Self>() + self.baseline.heap() + self.past.heap() + trained
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounds; series are limited to magnitudes that f32 holds")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
fn seconds(time: f64) -> i64 {
    time as i64
}
