//! The learnt state of one series.

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::forecast::{Autoregression, Profile};
use crate::heads;
use crate::incident::Incident;
use crate::refractory::Refractory;
use crate::samples::{most_surprise, trust};
use crate::verdict::{Direction, Finding, Parameters, Quantity, Reason, State, Verdict};

const DAY: f64 = 86_400.0;
/// Phases of the time-of-day profile: half an hour each.
const DAY_PHASES: usize = 48;
/// Slowest rate of the time-of-day profile.
const DAY_RATE: f32 = 0.05;
/// Larger magnitudes count as this one; the state holds differences of values as `f32`.
const LARGEST: f64 = 1e35;
/// Durations shorter than this count as this one, because their logarithm is what is learnt.
const SHORTEST: f64 = 1e-12;
/// Gaps longer than this many steps break the order of values.
const LONGEST_BRIDGE: u32 = 12;
/// Rate of the running mean error by which a model is chosen to tell the expected value.
const SKILL_RATE: f64 = 0.01;
/// Surprises above this say nothing more.
const MOST_SURPRISE: f64 = 300.0;

/// The learnt state of one series of values at a fixed step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    quantity: Quantity,
    bucket_seconds: f64,
    seen: u32,
    needed: u32,
    last_time: Option<f64>,
    autoregression: Model<Autoregression>,
    time_of_day: Model<Profile>,
    alerts: Refractory,
    pages: Refractory,
    incident: Incident,
}

/// A forecaster, the past of its residuals and its running mean error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Model<T> {
    forecaster: T,
    calibration: Calibration,
    error: f64,
    judged: u32,
}

impl<T> Model<T> {
    fn new(forecaster: T) -> Self {
        Self { forecaster, calibration: Calibration::new(), error: 0.0, judged: 0 }
    }

    fn remember(&mut self, raw: f64) {
        self.calibration.learn(raw);
        self.judged = self.judged.saturating_add(1);
        self.error += (raw - self.error) * (1.0 / f64::from(self.judged)).max(SKILL_RATE);
    }
}

/// What one component says about one value.
#[derive(Clone, Copy)]
struct Opinion {
    component: &'static str,
    /// On the learnt scale.
    expected: Option<f64>,
    raw: f64,
    surprise: f64,
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
            autoregression: Model::new(Autoregression::new()),
            time_of_day: Model::new(Profile::new(DAY, DAY_PHASES, DAY_RATE)),
            alerts: Refractory::default(),
            pages: Refractory::default(),
            incident: Incident::default(),
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
        let missing = self.missing(time);
        self.last_time = Some(time);
        self.skip(missing);

        let (low, high) = self.quantity.limits();
        let observed = value.clamp(low.max(-LARGEST), high.min(LARGEST));
        let learnt = self.to_learnt(observed);
        let trusted = trust(self.quantity, samples);
        let opinions = self.opinions(time, learnt, observed, trusted, samples, missing);
        let verdict = self.judge(observed, &opinions, parameters);
        self.learn(time, learnt, &opinions, &verdict);
        verdict
    }

    /// Whether this series can have findings yet.
    #[must_use]
    pub fn state(&self) -> State {
        if self.seen < self.needed { State::Warming { seen: self.seen, needed: self.needed } } else { State::Ready }
    }

    /// Steps left out between the last observation and `time`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
    fn missing(&self, time: f64) -> u32 {
        self.last_time.map_or(0, |last| ((time - last) / self.bucket_seconds).round() as u32).saturating_sub(1)
    }

    fn skip(&mut self, missing: u32) {
        if missing > 0 {
            self.autoregression.forecaster.skip(missing);
            self.alerts.skip(missing);
            self.pages.skip(missing);
            self.incident.skip(missing);
        }
    }

    fn opinions(&self, time: f64, learnt: f64, observed: f64, trusted: f64, samples: f64, missing: u32) -> [Opinion; 2] {
        let calendar = self.time_of_day.forecaster.expect(time);
        // After a long gap the last values say nothing: the calendar alone would decide, so nothing is said.
        let recent = if missing > LONGEST_BRIDGE { None } else { self.autoregression.forecaster.expect() };
        let opinion = |component, expected: Option<f64>, calibration: &Calibration| {
            let raw = expected.map_or(0.0, |expected| (learnt - expected).abs() * trusted);
            let most = expected.map_or(0.0, |expected| {
                most_surprise(self.quantity, observed, self.to_observed(expected), samples).min(MOST_SURPRISE)
            });
            Opinion { component, expected, raw, surprise: calibration.surprise(raw).min(most) }
        };
        [
            opinion("ar4", recent, &self.autoregression.calibration),
            opinion("time_of_day", calendar, &self.time_of_day.calibration),
        ]
    }

    fn judge(&mut self, observed: f64, opinions: &[Opinion; 2], parameters: &Parameters) -> Verdict {
        let [recent, calendar] = opinions;
        let penalty = heads::penalty(self.seen);
        let point = heads::root_mean_square(&[recent.surprise]);
        let alert = (heads::root_mean_square(&[calendar.surprise]) - penalty).max(0.0);
        let agreed =
            (heads::mean(&[recent.surprise]) - penalty).max(0.0) * (heads::mean(&[calendar.surprise]) - penalty).max(0.0);
        let large = opinions
            .iter()
            .filter_map(|opinion| opinion.expected)
            .any(|expected| self.is_large(observed, self.to_observed(expected), parameters));
        let page = if large { agreed.sqrt() } else { 0.0 };
        let (alert, page) =
            (self.alerts.pass(alert, parameters.alert_refractory), self.pages.pass(page, parameters.page_refractory));

        let mut verdict = Verdict { point, alert, page, ..Verdict::default() };
        if let Some((expected, reach)) = self.usual(opinions, parameters.page_threshold + penalty) {
            let (low, high) = self.quantity.limits();
            let centre = self.to_observed(expected).clamp(low, high);
            let margin = self.margin(centre, parameters);
            verdict.expected = Some(centre);
            verdict.lower = reach.map(|reach| self.to_observed(expected - reach).min(centre - margin).max(low));
            verdict.upper = reach.map(|reach| self.to_observed(expected + reach).max(centre + margin).min(high));
        }
        if page >= parameters.page_threshold && self.incident.is_worse(page) && self.state() == State::Ready {
            verdict.finding = Some(self.finding(observed, page, opinions, &verdict, parameters));
        }
        verdict
    }

    fn finding(&self, observed: f64, page: f64, opinions: &[Opinion; 2], verdict: &Verdict, parameters: &Parameters) -> Finding {
        let all: f64 = opinions.iter().map(|opinion| opinion.surprise).sum();
        let mut reasons: Vec<Reason> = opinions
            .iter()
            .filter(|opinion| opinion.surprise > 0.0)
            .map(|opinion| Reason {
                component: opinion.component,
                surprise: opinion.surprise,
                share: opinion.surprise / all,
                expected: opinion.expected.map_or(observed, |expected| self.to_observed(expected)),
            })
            .collect();
        reasons.sort_by(|left, right| right.surprise.total_cmp(&left.surprise));
        let expected = verdict.expected.unwrap_or(observed);
        Finding {
            score: heads::severity(page, parameters.page_threshold),
            probability: 10f64.powf(-page),
            direction: if observed >= expected { Direction::Spike } else { Direction::Dip },
            reasons,
        }
    }

    fn learn(&mut self, time: f64, learnt: f64, opinions: &[Opinion; 2], verdict: &Verdict) {
        let [recent, calendar] = opinions;
        let limit = self.time_of_day.calibration.tail_start();
        self.incident.follow(verdict.finding.as_ref().map(|_| verdict.page), limit.is_some_and(|limit| calendar.raw > limit));
        let protect = self.incident.is_young(self.bucket_seconds);
        // Nothing is clipped to a limit of 0: a constant series must be able to learn that it moves.
        let clip = |raw: f64, limit: Option<f64>| match limit {
            Some(limit) if protect && limit > 0.0 => raw.min(limit),
            _ => raw,
        };

        if recent.expected.is_some() {
            let raw = clip(recent.raw, self.autoregression.calibration.tail_start());
            self.autoregression.remember(raw);
        } else {
            self.autoregression.forecaster.restart(learnt);
        }
        self.autoregression.forecaster.learn(learnt);

        if calendar.expected.is_some() {
            self.time_of_day.remember(clip(calendar.raw, limit));
        }
        let taught = match (calendar.expected, limit) {
            (Some(expected), Some(limit)) if protect && limit > 0.0 => learnt.clamp(expected - limit, expected + limit),
            _ => learnt,
        };
        self.time_of_day.forecaster.learn(time, taught);
        self.seen = self.seen.saturating_add(1);
    }

    /// The model with the smaller mean error says what is usual, the calendar during an incident,
    /// because the last values are then part of it; with the distance from it that would be a finding.
    fn usual(&self, opinions: &[Opinion; 2], surprise: f64) -> Option<(f64, Option<f64>)> {
        let [recent, calendar] = opinions;
        let by_calendar = (calendar.expected, &self.time_of_day.calibration);
        let by_recent = (recent.expected, &self.autoregression.calibration);
        let prefer_calendar = self.incident.is_on() || self.time_of_day.error <= self.autoregression.error;
        let order = if prefer_calendar { [by_calendar, by_recent] } else { [by_recent, by_calendar] };
        order.into_iter().find_map(|(expected, calibration)| Some((expected?, calibration.raw(surprise))))
    }

    fn is_large(&self, observed: f64, expected: f64, parameters: &Parameters) -> bool {
        let deviation = (observed - expected).abs();
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

    /// The scale on which noise does not depend on the value.
    fn to_learnt(&self, observed: f64) -> f64 {
        match self.quantity {
            // The square root makes the noise of a Poisson count independent of its mean (Anscombe, 1948).
            Quantity::Count | Quantity::Rate => observed.max(0.0).sqrt(),
            Quantity::Duration => observed.max(SHORTEST).ln(),
            Quantity::Ratio | Quantity::Level => observed,
        }
    }

    fn to_observed(&self, learnt: f64) -> f64 {
        match self.quantity {
            Quantity::Count | Quantity::Rate => learnt.max(0.0) * learnt.max(0.0),
            Quantity::Duration => learnt.clamp(-300.0, 300.0).exp(),
            Quantity::Ratio | Quantity::Level => learnt,
        }
    }
}
