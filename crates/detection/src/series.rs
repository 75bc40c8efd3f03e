//! The learnt state of one series.

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::feedback::{Candidate, Feedback, Lesson};
use crate::heads;
use crate::incident::Incident;
use crate::models::{AR, COMPONENTS, Expected, Models, NOVELTY, POINT, Raws, SHAPE, TIME_OF_DAY, TIME_OF_WEEK};
use crate::quiet::{Hold, Suppressed};
use crate::refractory::Refractory;
use crate::samples::{most_surprise, trust};
use crate::scale::Scale;
use crate::verdict::{Direction, Finding, Parameters, Quantity, Reason, State, Verdict};

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
    /// An incident that nobody was told of, and why.
    unspoken: Incident,
    unspoken_because: Option<Suppressed>,
    /// From the first finding on.
    feedback: Option<Box<Feedback>>,
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
            unspoken: Incident::default(),
            unspoken_because: None,
            feedback: None,
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
        self.learn(&observation, &verdict, parameters.hold);
        verdict
    }

    /// The latest findings and what was called normal of them, in no particular order.
    pub fn recent(&self) -> impl Iterator<Item = &Lesson> {
        self.feedback.iter().flat_map(|feedback| feedback.all())
    }

    /// What was called normal.
    #[must_use]
    pub fn lessons(&self) -> &[Lesson] {
        self.feedback.as_ref().map_or(&[], |feedback| feedback.lessons())
    }

    /// The finding of the bucket that began at `time` is normal: what resembles it is no finding any more, and the
    /// calendar learns its value. False if no such finding is remembered.
    pub fn teach(&mut self, time: f64) -> bool {
        let known = self.lessons().iter().any(|lesson| lesson.time == time);
        let Some(lesson) = self.feedback.as_mut().and_then(|feedback| feedback.teach(time)) else { return false };
        if !known {
            self.models.teach(time, Some([lesson.value; 2]));
            self.incident = Incident::default();
        }
        true
    }

    /// The finding of the bucket that began at `time` is not normal after all. False if it was not called so.
    pub fn forget(&mut self, time: f64) -> bool {
        self.feedback.as_mut().is_some_and(|feedback| feedback.forget(time))
    }

    /// How many values it has seen.
    #[must_use]
    pub fn seen(&self) -> u32 {
        self.seen
    }

    /// Whether it is in an incident.
    #[must_use]
    pub fn in_incident(&self) -> bool {
        self.incident.is_on()
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
            + self.feedback.as_ref().map_or(0, |feedback| size_of::<Feedback>() + feedback.heap())
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
            self.unspoken.skip(missing);
        }
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
        let pressure = heads::page(point, novelty, calendar, penalty);
        let ready = self.state() == State::Ready;
        let news = ready && pressure >= parameters.page_threshold;
        let bounds = usual.map_or((None, None), |(expected, reach)| self.bounds(expected, reach, parameters));
        let excluded = self.excluded(observation, expected, bounds, news, parameters);
        let held = excluded.is_none() && parameters.hold != Hold::No;
        let page = if excluded.is_none() && !held { pressure } else { 0.0 };

        let mut verdict = Verdict {
            point: heads::point(point),
            alert: self.alerts.pass(heads::alert(slow, penalty), parameters.alert_refractory),
            page: self.pages.pass(page, parameters.page_refractory),
            pressure,
            surprises: observation.surprises,
            ..Verdict::default()
        };
        if let Some((expected, _)) = usual {
            let (low, high) = self.quantity.limits();
            verdict.expected = Some(self.scale().observed(expected).clamp(low, high));
            (verdict.lower, verdict.upper) = bounds;
        }
        if verdict.page >= parameters.page_threshold && ready && self.incident.is_worse(verdict.page) {
            verdict.finding = Some(self.finding(observation, &verdict, parameters));
        } else if news && (excluded.is_some() || held) && [&self.incident, &self.unspoken].iter().all(|i| i.is_worse(pressure)) {
            verdict.suppressed = excluded.or(Some(Suppressed::Held));
        } else if excluded.is_none() && !held && self.owes_a_finding() && self.is_unusual(observation) {
            // The hold is over and the series still abnormal.
            verdict.page = self.unspoken.worst();
            verdict.finding = Some(self.finding(observation, &verdict, parameters));
        }
        if verdict.finding.is_some() {
            self.remember(observation, &verdict);
        }
        verdict
    }

    /// Below and above which a value may be a finding.
    fn bounds(&self, expected: f64, reach: Option<f64>, parameters: &Parameters) -> (Option<f64>, Option<f64>) {
        let (low, high) = self.quantity.limits();
        let scale = self.scale();
        let centre = scale.observed(expected).clamp(low, high);
        let margin = self.margin(centre, parameters);
        let lower = reach.map(|reach| scale.observed(expected - reach).min(centre - margin).max(low));
        let upper = reach.map(|reach| scale.observed(expected + reach).max(centre + margin).min(high));
        (lower, upper)
    }

    /// Why this value cannot be a finding, however unusual it is. Feedback is asked about `news` only.
    fn excluded(
        &mut self,
        observation: &Observation,
        expected: Option<f64>,
        bounds: (Option<f64>, Option<f64>),
        news: bool,
        parameters: &Parameters,
    ) -> Option<Suppressed> {
        let value = observation.value;
        let Some(expected) = expected.filter(|expected| self.is_large(value, *expected, parameters)) else {
            return Some(Suppressed::TooSmall);
        };
        if !parameters.side.holds(value, expected) {
            return Some(Suppressed::Direction);
        }
        let samples = if self.quantity == Quantity::Count { value.max(expected) } else { observation.samples };
        if samples < parameters.min_samples {
            return Some(Suppressed::TooFewSamples);
        }
        if !news || self.lessons().is_empty() {
            return None;
        }
        let candidate = Candidate {
            time: observation.time,
            direction: direction(value, expected, bounds.0.zip(bounds.1)),
            value: observation.learnt,
            course: self.models.course(),
            usual_distance: self.calibrations.get(SHAPE).and_then(Calibration::tail_start),
        };
        let known = self.feedback.as_mut().is_some_and(|feedback| feedback.knows(&candidate));
        known.then_some(Suppressed::Feedback)
    }

    /// Keeps what somebody may call normal.
    fn remember(&mut self, observation: &Observation, verdict: &Verdict) {
        let Some(finding) = &verdict.finding else { return };
        let expected = verdict.expected.map_or(observation.learnt, |expected| self.scale().learnt(expected));
        let lesson = Lesson {
            time: observation.time,
            direction: finding.direction,
            value: observation.learnt,
            reach: observation.learnt - expected,
            course: self.models.course(),
        };
        self.feedback.get_or_insert_default().remember(lesson);
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
            direction: direction(observation.value, expected, verdict.lower.zip(verdict.upper)),
            reasons,
        }
    }

    /// Whether something was held back that nobody was told of.
    fn owes_a_finding(&self) -> bool {
        self.unspoken.is_on() && self.unspoken_because == Some(Suppressed::Held)
    }

    /// Takes note of what was not told. What is only too small never was an event.
    fn follow_unspoken(&mut self, verdict: &Verdict, unusual: bool) {
        let because = verdict.suppressed.filter(|because| *because != Suppressed::TooSmall);
        self.unspoken.follow(because.map(|_| verdict.pressure), unusual);
        if verdict.finding.is_some() {
            self.unspoken = Incident::default();
        }
        self.unspoken_because = match (self.unspoken.is_on(), because) {
            (false, _) => None,
            (true, Some(because)) if !self.owes_a_finding() => Some(because),
            (true, _) => self.unspoken_because,
        };
    }

    /// Whether the time of day makes this value one of its twentieth that are the least usual.
    fn is_unusual(&self, observation: &Observation) -> bool {
        let limit = self.calibrations.get(TIME_OF_DAY).and_then(Calibration::tail_start);
        matches!((observation.raws[TIME_OF_DAY], limit), (Some(raw), Some(limit)) if raw > limit)
    }

    fn learn(&mut self, observation: &Observation, verdict: &Verdict, hold: Hold) {
        let limit =
            |calibrations: &[Calibration], component: usize| calibrations.get(component).and_then(Calibration::tail_start);
        let limits = [AR, TIME_OF_DAY, TIME_OF_WEEK].map(|component| limit(&self.calibrations, component));
        let [_, day, week] = limits;
        let unusual = self.is_unusual(observation);
        self.incident.follow(verdict.finding.as_ref().map(|_| verdict.page), unusual);
        self.follow_unspoken(verdict, unusual);
        self.seen = self.seen.saturating_add(1);
        if hold == Hold::Unlearnt {
            self.models.learn(observation.time, observation.learnt, None);
            return;
        }
        // What was called normal is learnt as such.
        let unspoken = self.unspoken_because != Some(Suppressed::Feedback) && self.unspoken.is_young(self.bucket_seconds);
        let protect = unspoken || self.incident.is_young(self.bucket_seconds);
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
        self.models.learn(observation.time, observation.learnt, Some(calendar));
    }

    /// What is usual by the model with the smallest mean error, and how far from it a finding begins.
    ///
    /// During an incident the autoregression follows it and has no say.
    fn usual(&self, expected: &Expected, surprise: f64) -> Option<(f64, Option<f64>)> {
        let candidates = FORECASTERS.iter().zip(&self.errors).filter_map(|(component, error)| {
            let avoided = *component == AR && (self.incident.is_on() || self.unspoken.is_on());
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
fn direction(value: f64, expected: f64, bounds: Option<(f64, f64)>) -> Direction {
    let within = bounds.is_some_and(|(lower, upper)| lower <= value && value <= upper);
    if within {
        Direction::Shape
    } else if value >= expected {
        Direction::Spike
    } else {
        Direction::Dip
    }
}
