//! The learnt state of one series.

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::explain::{self, Moments, Records, Timeline};
use crate::heads;
use crate::incident::Incident;
use crate::models::{AR, COMPONENTS, Expected, LONGEST_BRIDGE, Models, NOVELTY, POINT, Raws, TIME_OF_DAY, TIME_OF_WEEK};
use crate::refractory::Refractory;
use crate::samples::{most_surprise, trust};
use crate::scale::Scale;
use crate::verdict::{Direction, Finding, Parameters, Quantity, Reason, Similar, State, Verdict};

/// Larger magnitudes count as this one; the state holds differences of values as `f32`.
const LARGEST: f64 = 1e35;
/// Rate of the running mean error by which a model is chosen to tell the expected value.
const SKILL_RATE: f64 = 0.01;
/// Surprises above this say nothing more.
const MOST_SURPRISE: f64 = 300.0;
/// Models that expect a value.
const FORECASTERS: [usize; 3] = [AR, TIME_OF_DAY, TIME_OF_WEEK];

type Surprises = [f64; COMPONENTS.len()];

/// The learnt state of one series of values at a fixed step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    quantity: Quantity,
    bucket_seconds: f64,
    seen: u32,
    needed: u32,
    last_time: Option<f64>,
    models: Models,
    calibrations: Box<[Calibration]>,
    /// Running mean errors of the forecasters.
    errors: [Option<f64>; FORECASTERS.len()],
    alerts: Refractory,
    pages: Refractory,
    incident: Incident,
    records: Records,
    timeline: Timeline,
    moments: Moments,
}

/// One value on its way through the models.
struct Observation {
    time: f64,
    /// In the series' own unit, within limits.
    value: f64,
    /// On the learnt scale.
    learnt: f64,
    samples: f64,
    expected: Expected,
    raws: Raws,
    surprises: Surprises,
}

impl Series {
    /// A series that has seen nothing. `bucket_seconds` is the step between two observations.
    #[must_use]
    pub fn new(quantity: Quantity, bucket_seconds: f64) -> Self {
        Self {
            quantity,
            bucket_seconds: if bucket_seconds.is_finite() { bucket_seconds.max(1e-3) } else { 60.0 },
            seen: 0,
            needed: Parameters::default().warmup,
            last_time: None,
            models: Models::new(),
            calibrations: COMPONENTS.iter().map(|_| Calibration::new()).collect(),
            errors: [None; FORECASTERS.len()],
            alerts: Refractory::default(),
            pages: Refractory::default(),
            incident: Incident::default(),
            records: Records::default(),
            timeline: Timeline::default(),
            moments: Moments::default(),
        }
    }

    /// Judges the next value, then learns from it.
    ///
    /// `time` is the start of the bucket in Unix seconds, in ascending order; `samples` is how many
    /// measurements stand behind `value` (calls behind an error share), 0 or NaN if not known. Steps
    /// left out are gaps; a caller who knows that nothing happened observes [`Quantity::absent`].
    /// A value that is not finite, or not later than the one before, is not judged and not learnt.
    pub fn observe(&mut self, time: f64, value: f64, samples: f64, parameters: &Parameters) -> Verdict {
        self.needed = parameters.warmup;
        if !value.is_finite() || !time.is_finite() || self.last_time.is_some_and(|last| time <= last) {
            return Verdict::default();
        }
        self.skip(self.missing(time));
        self.last_time = Some(time);

        let (low, high) = self.quantity.limits();
        let value = value.clamp(low.max(-LARGEST), high.min(LARGEST));
        let learnt = self.scale().learnt(value);
        let expected = self.models.expect(time);
        let raws = self.models.judge(learnt, &expected, trust(self.quantity, samples));
        let mut observation = Observation { time, value, learnt, samples, expected, raws, surprises: [0.0; COMPONENTS.len()] };
        self.surprise(&mut observation);
        let verdict = self.judge(&observation, parameters);
        self.learn(&observation, &verdict);
        verdict
    }

    /// Whether this series can have findings yet.
    #[must_use]
    pub fn state(&self) -> State {
        if self.seen < self.needed { State::Warming { seen: self.seen, needed: self.needed } } else { State::Ready }
    }

    /// Memory that this series holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val(&*self.calibrations)
            + self.calibrations.iter().map(Calibration::heap).sum::<usize>()
            + self.models.heap()
            + self.records.heap()
            + self.timeline.heap()
            + self.moments.heap()
    }

    /// Steps left out between the last observation and `time`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
    fn missing(&self, time: f64) -> u32 {
        self.last_time.map_or(0, |last| ((time - last) / self.bucket_seconds).round() as u32).saturating_sub(1)
    }

    fn skip(&mut self, missing: u32) {
        if missing > 0 {
            self.models.skip(missing);
            self.alerts.skip(missing);
            self.pages.skip(missing);
            self.incident.skip(missing);
            // The models bridge short gaps.
            if missing > LONGEST_BRIDGE { self.timeline.gap(missing) } else { self.timeline.step(missing) }
        }
        self.timeline.step(1);
    }

    fn surprise(&self, observation: &mut Observation) {
        let scale = self.scale();
        // What the forecasters expect limits what shapes can say about few events as well.
        let most = |expected: Option<f64>| {
            expected.map_or(MOST_SURPRISE, |expected| {
                most_surprise(self.quantity, observation.value, scale.observed(expected), observation.samples).min(MOST_SURPRISE)
            })
        };
        let expected = &observation.expected;
        let general = most(expected.time_of_day.or(expected.autoregression));
        let limits = [most(expected.autoregression), most(expected.time_of_day), most(expected.time_of_week)];
        for (component, ((surprise, raw), calibration)) in
            observation.surprises.iter_mut().zip(&observation.raws).zip(&self.calibrations).enumerate()
        {
            let limit =
                FORECASTERS.iter().zip(&limits).find(|(index, _)| **index == component).map_or(general, |(_, limit)| *limit);
            *surprise = raw.map_or(0.0, |raw| calibration.surprise(raw).min(limit));
        }
    }

    fn judge(&mut self, observation: &Observation, parameters: &Parameters) -> Verdict {
        let penalty = heads::penalty(self.seen, self.bucket_seconds);
        let (point, slow) = observation.surprises.split_at(POINT);
        let (novelty, calendar) = slow.split_at(NOVELTY);
        let usual = self.usual(&observation.expected, parameters.page_threshold + penalty);
        let expected = usual.map(|(expected, _)| self.scale().observed(expected));
        let large = expected.is_some_and(|expected| self.is_large(observation.value, expected, parameters));
        let page = if large { heads::page(point, novelty, calendar, penalty) } else { 0.0 };

        let mut verdict = Verdict {
            point: heads::point(point),
            alert: self.alerts.pass(heads::alert(slow, penalty), parameters.alert_refractory),
            page: self.pages.pass(page, parameters.page_refractory),
            surprises: observation.surprises,
            ..Verdict::default()
        };
        if let Some((expected, reach)) = usual {
            let (low, high) = self.quantity.limits();
            let scale = self.scale();
            let centre = scale.observed(expected).clamp(low, high);
            let margin = self.margin(centre, parameters);
            verdict.expected = Some(centre);
            verdict.lower = reach.map(|reach| scale.observed(expected - reach).min(centre - margin).max(low));
            verdict.upper = reach.map(|reach| scale.observed(expected + reach).max(centre + margin).min(high));
        }
        if verdict.page >= parameters.page_threshold && self.incident.is_worse(verdict.page) && self.state() == State::Ready {
            verdict.finding = Some(self.finding(observation, &verdict, parameters));
        }
        verdict
    }

    fn finding(&self, observation: &Observation, verdict: &Verdict, parameters: &Parameters) -> Finding {
        let all: f64 = observation.surprises.iter().sum();
        let expected = verdict.expected.unwrap_or(observation.value);
        let mut reasons: Vec<Reason> = COMPONENTS
            .iter()
            .zip(&observation.surprises)
            .enumerate()
            .filter(|(_, (_, surprise))| **surprise > 0.0)
            .map(|(index, (component, surprise))| Reason {
                component,
                surprise: *surprise,
                share: surprise / all,
                expected: observation.expected.of(index).map_or(expected, |expected| self.scale().observed(expected)),
            })
            .collect();
        reasons.sort_by(|left, right| right.surprise.total_cmp(&left.surprise));
        Finding {
            score: heads::severity(verdict.page, parameters.page_threshold),
            probability: 10f64.powf(-verdict.page),
            direction: direction(observation.value, expected, verdict),
            reasons,
            rarity: self.records.rarity(verdict.page, observation.time),
            similar: self.similar(observation, expected),
        }
    }

    /// The earlier moment which comes nearest.
    fn similar(&self, observation: &Observation, expected: f64) -> Option<Similar> {
        let deviation = observation.learnt - self.scale().learnt(expected);
        let time_of = |back| observation.time - f64::from(self.timeline.buckets_back(back)) * self.bucket_seconds;
        explain::similar(&self.models.recent(), &self.moments, deviation, time_of)
    }

    fn learn(&mut self, observation: &Observation, verdict: &Verdict) {
        let limit =
            |calibrations: &[Calibration], component: usize| calibrations.get(component).and_then(Calibration::tail_start);
        let limits = [AR, TIME_OF_DAY, TIME_OF_WEEK].map(|component| limit(&self.calibrations, component));
        let [_, day, week] = limits;
        let unusual = matches!((observation.raws[TIME_OF_DAY], day), (Some(raw), Some(limit)) if raw > limit);
        self.records.learn(verdict.page, observation.time);
        if verdict.finding.is_some() && let Some(newest) = self.models.recent().last_chunk() {
            self.moments.learn(observation.time, newest);
        }
        self.incident.follow(verdict.finding.as_ref().map(|_| verdict.page), unusual);
        let protect = self.incident.is_young(self.bucket_seconds);
        for (calibration, raw) in self.calibrations.iter_mut().zip(&observation.raws) {
            let Some(raw) = *raw else { continue };
            calibration.learn(raw);
        }
        for ((error, component), limit) in self.errors.iter_mut().zip(FORECASTERS).zip(limits) {
            let Some(Some(raw)) = observation.raws.get(component).copied() else { continue };
            let raw = limit.filter(|_| protect).map_or(raw, |limit| raw.min(limit));
            *error = Some(error.map_or(raw, |error| error + (raw - error) * SKILL_RATE));
        }
        let taught = |expected: Option<f64>, limit: Option<f64>| match (expected, limit) {
            (Some(expected), Some(limit)) if protect && limit > 0.0 => {
                observation.learnt.clamp(expected - limit, expected + limit)
            }
            _ => observation.learnt,
        };
        let calendar = [taught(observation.expected.time_of_day, day), taught(observation.expected.time_of_week, week)];
        self.models.learn(observation.time, observation.learnt, calendar);
        self.seen = self.seen.saturating_add(1);
    }

    /// What is usual by the model with the smallest mean error, and how far from it a finding begins.
    ///
    /// During an incident the autoregression follows it and has no say.
    fn usual(&self, expected: &Expected, surprise: f64) -> Option<(f64, Option<f64>)> {
        let candidates = FORECASTERS.iter().zip(&self.errors).filter_map(|(component, error)| {
            let avoided = *component == AR && self.incident.is_on();
            Some((avoided, (*error)?, *component, expected.of(*component)?))
        });
        let (_, _, component, expected) =
            candidates.min_by(|left, right| left.0.cmp(&right.0).then(left.1.total_cmp(&right.1)))?;
        Some((expected, self.calibrations.get(component).and_then(|calibration| calibration.raw(surprise))))
    }

    /// Whether the value is far enough from what is usual.
    fn is_large(&self, value: f64, expected: f64, parameters: &Parameters) -> bool {
        let deviation = (value - expected).abs();
        deviation > 0.0 && deviation >= self.margin(expected, parameters)
    }

    /// The smallest deviation from `expected` that is worth a finding.
    fn margin(&self, expected: f64, parameters: &Parameters) -> f64 {
        match self.quantity {
            // Success shares near 1 are error shares near 0.
            Quantity::Ratio => {
                let scale = expected.min(1.0 - expected).max(0.0);
                (scale * parameters.min_relative_deviation).max(parameters.min_ratio_deviation)
            }
            _ => (expected.abs() * parameters.min_relative_deviation).max(parameters.min_absolute_deviation),
        }
    }

    fn scale(&self) -> Scale {
        Scale::of(self.quantity)
    }
}

/// A value within its bounds has an unusual place in an unusual order of values.
fn direction(value: f64, expected: f64, verdict: &Verdict) -> Direction {
    let within = verdict.lower.zip(verdict.upper).is_some_and(|(lower, upper)| lower <= value && value <= upper);
    if within {
        Direction::Shape
    } else if value >= expected {
        Direction::Spike
    } else {
        Direction::Dip
    }
}
