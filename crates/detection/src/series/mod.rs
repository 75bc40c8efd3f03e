//! The learnt state of one series: what every model shares.

mod chosen;
mod explain;
pub(crate) mod feedback;
pub(crate) mod incident;
pub(crate) mod refractory;

use serde::{Deserialize, Serialize};

use self::chosen::{Chosen, with_model};
use self::explain::{Records, Timeline};
use self::feedback::{Candidate, Feedback, Lesson};
use self::incident::Incident;
use self::refractory::Refractory;
use crate::calibrate::Calibration;
use crate::ensemble::models::LONGEST_BRIDGE;
use crate::forest::training::Job;
use crate::heads;
use crate::model::{Circumstances, Evidence, Model, Observation, Part};
use crate::options::{Contamination, ModelKind};
use crate::quantity::Quantity;
use crate::quiet::{Hold, Suppressed};
use crate::scale::Scale;
use crate::state::{Progress, State, Version, Waiting};
use crate::verdict::{Direction, Finding, Parameters, Reason, Similar, Verdict};

/// Larger magnitudes count as this one; the state holds differences of values as `f32`.
const LARGEST: f64 = 1e35;

/// The learnt state of one series of values at a fixed step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    shell: Shell,
    model: Chosen,
}

/// All but the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Shell {
    quantity: Quantity,
    bucket_seconds: f64,
    seen: u32,
    needed: u32,
    last_time: Option<f64>,
    alerts: Refractory,
    pages: Refractory,
    incident: Incident,
    /// The history of scores, where the share of abnormal values is given.
    scores: Option<Box<Calibration>>,
    records: Records,
    timeline: Timeline,
    /// An incident that nobody was told of, and why.
    unspoken: Incident,
    unspoken_because: Option<Suppressed>,
    /// From the first finding on.
    feedback: Option<Box<Feedback>>,
}

impl Series {
    /// A series that has seen nothing. `bucket_seconds` is the step between two observations.
    ///
    /// It is judged by the model that [`Parameters::model`] of its observations names.
    #[must_use]
    pub fn new(quantity: Quantity, bucket_seconds: f64) -> Self {
        Self { shell: Shell::new(quantity, bucket_seconds), model: Chosen::new(ModelKind::default()) }
    }

    /// Judges the next value, then learns from it.
    ///
    /// `time` is the start of the bucket in Unix seconds, in ascending order; `samples` is how many
    /// measurements stand behind `value` (calls behind an error share), 0 or NaN if not known. Steps
    /// left out are gaps; a caller who knows that nothing happened observes [`Quantity::absent`].
    /// A value that is not finite, or not later than the one before, is not judged and not learnt.
    ///
    /// When `parameters` name another model than before, learning starts anew with that one.
    pub fn observe(&mut self, time: f64, value: f64, samples: f64, parameters: &Parameters) -> Verdict {
        if self.model.kind() != parameters.model.kind {
            let feedback = self.shell.feedback.take();
            self.shell = Shell { feedback, ..Shell::new(self.shell.quantity, self.shell.bucket_seconds) };
            self.model = Chosen::new(parameters.model.kind);
        }
        with_model!(&mut self.model, model => self.shell.observe(&mut **model, time, value, samples, parameters))
    }

    /// The latest findings and what was called normal of them, in no particular order.
    pub fn recent(&self) -> impl Iterator<Item = &Lesson> {
        self.shell.feedback.iter().flat_map(|feedback| feedback.all())
    }

    /// What was called normal.
    #[must_use]
    pub fn lessons(&self) -> &[Lesson] {
        self.shell.lessons()
    }

    /// The finding of the bucket that began at `time` is normal: what resembles it is no finding any more, and the
    /// calendar learns its value. False if no such finding is remembered.
    pub fn teach(&mut self, time: f64) -> bool {
        let known = self.lessons().iter().any(|lesson| lesson.time == time);
        let Some(lesson) = self.shell.feedback.as_mut().and_then(|feedback| feedback.teach(time)) else { return false };
        if !known {
            with_model!(&mut self.model, model => model.teach(time, f64::from(lesson.value)));
            self.shell.incident = Incident::default();
        }
        true
    }

    /// The finding of the bucket that began at `time` is not normal after all. False if it was not called so.
    pub fn forget(&mut self, time: f64) -> bool {
        self.shell.feedback.as_mut().is_some_and(|feedback| feedback.forget(time))
    }

    /// How many values it has seen.
    #[must_use]
    pub const fn seen(&self) -> u32 {
        self.shell.seen
    }

    /// Whether it is in an incident.
    #[must_use]
    pub fn in_incident(&self) -> bool {
        self.shell.incident.is_on()
    }

    /// Whether this series can have findings yet.
    #[must_use]
    pub fn state(&self) -> State {
        let Shell { seen, needed, .. } = self.shell;
        let warming = |seen, needed, reason| State::Warming { seen, needed, reason };
        match with_model!(&self.model, model => model.progress()) {
            Progress::Collecting { seen, needed } => warming(seen, needed, Waiting::TrainingSamples),
            Progress::Training { samples } => State::Training { samples },
            Progress::Untrained | Progress::Trained(_) if seen < needed => warming(seen, needed, Waiting::Warmup),
            Progress::Untrained => State::Ready { trained: None },
            Progress::Trained(version) => State::Ready { trained: Some(version) },
        }
    }

    /// Which model judges it.
    #[must_use]
    pub const fn model(&self) -> ModelKind {
        self.model.kind()
    }

    /// The training by which it judges; `None` before the first one, and for models that learn with every value.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        match with_model!(&self.model, model => model.progress()) {
            Progress::Trained(version) => Some(version),
            _ => None,
        }
    }

    /// The names of [`Verdict::surprises`].
    #[must_use]
    pub fn components(&self) -> &'static [&'static str] {
        fn of<M: Model>(_: &M) -> &'static [&'static str] {
            M::COMPONENTS
        }
        with_model!(&self.model, model => of(&**model))
    }

    /// Whether [`Series::job`] has something to hand out.
    #[must_use]
    pub fn is_due(&self) -> bool {
        with_model!(&self.model, model => model.is_due())
    }

    /// The training that is due, once: to be done off the hot path. See [`Job`].
    pub fn job(&mut self) -> Option<Job> {
        with_model!(&mut self.model, model => model.job())
    }

    /// Memory that this series holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.shell.heap() + with_model!(&self.model, model => model.heap())
    }
}

impl Shell {
    fn new(quantity: Quantity, bucket_seconds: f64) -> Self {
        Self {
            quantity,
            bucket_seconds: if bucket_seconds.is_finite() { bucket_seconds.max(1e-3) } else { 60.0 },
            seen: 0,
            needed: Parameters::default().warmup,
            last_time: None,
            alerts: Refractory::default(),
            pages: Refractory::default(),
            incident: Incident::default(),
            scores: None,
            records: Records::default(),
            timeline: Timeline::default(),
            unspoken: Incident::default(),
            unspoken_because: None,
            feedback: None,
        }
    }

    fn observe<M: Model>(&mut self, model: &mut M, time: f64, value: f64, samples: f64, parameters: &Parameters) -> Verdict {
        self.needed = parameters.warmup;
        if !value.is_finite() || !time.is_finite() || self.last_time.is_some_and(|last| time <= last) {
            return Verdict::default();
        }
        self.skip(model, self.missing(time));
        self.last_time = Some(time);

        let (low, high) = self.quantity.limits();
        let value = value.clamp(low.max(-LARGEST), high.min(LARGEST));
        let observation = Observation { quantity: self.quantity, time, value, learnt: self.scale().learnt(value), samples };
        let circumstances = Circumstances {
            options: parameters.model,
            bucket_seconds: self.bucket_seconds,
            penalty: heads::penalty(self.seen, self.bucket_seconds),
            page_threshold: parameters.page_threshold,
            incident: self.incident.is_on() || self.unspoken.is_on(),
            unlearnt: parameters.hold == Hold::Unlearnt,
        };
        let (evidence, memo) = model.judge(&observation, &circumstances);
        self.keep_scores(parameters);
        let mut verdict = self.judge(model, &observation, &evidence, parameters);
        if self.is_finding(evidence.unusual, &mut verdict, parameters) {
            let parts = model.parts(&observation, &evidence, &memo);
            let recent = model.recent();
            verdict.finding = Some(self.finding(parts, &recent, &observation, &verdict, parameters.page_threshold));
            // What is told again is no finding of its own that could come again.
            let again = self.again(&observation, &evidence).is_some() && !self.is_news(self.models_page(&evidence), parameters);
            self.remember(&observation, &verdict, if again { 0.0 } else { verdict.page }, &recent);
            if again && let Some(feedback) = &mut self.feedback {
                feedback.told_again(time);
            }
        }
        self.records.learn(verdict.page, time);
        self.incident.follow(verdict.finding.as_ref().map(|_| verdict.page), evidence.unusual);
        self.follow_unspoken(&verdict, evidence.unusual);
        // What was called normal is learnt as such.
        let unspoken = self.unspoken_because != Some(Suppressed::Feedback) && self.unspoken.is_young(self.bucket_seconds);
        model.learn(&observation, &circumstances, &memo, unspoken || self.incident.is_young(self.bucket_seconds));
        if let Some(scores) = self.scores.as_mut().filter(|_| !circumstances.unlearnt) {
            scores.learn(evidence.score);
        }
        self.seen = self.seen.saturating_add(1);
        verdict
    }

    /// A history of scores is kept while it decides.
    fn keep_scores(&mut self, parameters: &Parameters) {
        match parameters.model.contamination {
            Contamination::Auto => self.scores = None,
            Contamination::Share(_) => {
                self.scores.get_or_insert_with(|| Box::new(Calibration::new()));
            }
        }
    }

    /// Steps left out between the last observation and `time`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
    fn missing(&self, time: f64) -> u32 {
        self.last_time.map_or(0, |last| ((time - last) / self.bucket_seconds).round() as u32).saturating_sub(1)
    }

    fn skip<M: Model>(&mut self, model: &mut M, missing: u32) {
        if missing > 0 {
            model.skip(missing);
            self.alerts.skip(missing);
            self.pages.skip(missing);
            self.incident.skip(missing);
            self.unspoken.skip(missing);
            // The models bridge short gaps.
            if missing > LONGEST_BRIDGE { self.timeline.gap(missing) } else { self.timeline.step(missing) }
        }
        self.timeline.step(1);
    }

    fn judge<M: Model>(&mut self, model: &M, observation: &Observation, evidence: &Evidence, parameters: &Parameters) -> Verdict {
        let scale = self.scale();
        let again = self.again(observation, evidence);
        let pressure = self.models_page(evidence).max(again.unwrap_or(0.0));
        let mut verdict = Verdict {
            point: evidence.point,
            alert: self.alerts.pass_wearily(evidence.alert, parameters.alert_refractory, parameters.alert_threshold),
            pressure,
            surprises: evidence.surprises,
            ..Verdict::default()
        };
        if let Some(expected) = evidence.expected {
            let (low, high) = self.quantity.limits();
            let centre = scale.observed(expected).clamp(low, high);
            let margin = self.margin(centre, parameters);
            verdict.expected = Some(centre);
            let (below, above) = self.reach(observation, evidence);
            verdict.lower = below.map(|reach| scale.observed(expected - reach).min(centre - margin).max(low));
            verdict.upper = above.map(|reach| scale.observed(expected + reach).max(centre + margin).min(high));
        }
        let expected = evidence.expected.map(|expected| scale.observed(expected));
        let news = self.is_news(pressure, parameters);
        verdict.suppressed = self.excluded(model, observation, expected, &verdict, news, parameters);
        if verdict.suppressed.is_none() && parameters.hold != Hold::No {
            verdict.suppressed = Some(Suppressed::Held);
        }
        let page = if verdict.suppressed.is_none() { pressure } else { 0.0 };
        verdict.page = self.pages.pass(page, parameters.page_refractory);
        verdict
    }

    /// The page score by what the model has learnt.
    fn models_page(&self, evidence: &Evidence) -> f64 {
        self.scores.as_ref().map_or(evidence.page, |scores| scores.surprise(evidence.score))
    }

    /// How far below and above what was expected a finding begins, on the learnt scale.
    fn reach(&self, observation: &Observation, evidence: &Evidence) -> (Option<f64>, Option<f64>) {
        let over = !self.incident.is_on() && !self.unspoken.is_on();
        let feedback = self.feedback.as_ref().filter(|_| over);
        let (below, above) = feedback.map_or((None, None), |feedback| feedback.reach(observation.time));
        let nearer = |again: Option<f64>| evidence.reach.map(|reach| again.map_or(reach, |again| reach.min(again)));
        (nearer(below), nearer(above))
    }

    /// The page score of a finding of before that has come again after it was over.
    fn again(&self, observation: &Observation, evidence: &Evidence) -> Option<f64> {
        if self.incident.is_on() || self.unspoken.is_on() {
            return None;
        }
        let reach = observation.learnt - evidence.expected?;
        self.feedback.as_ref()?.again(observation.time, reach)
    }

    /// Whether a page score is enough for a finding.
    fn is_news(&self, page: f64, parameters: &Parameters) -> bool {
        let threshold = parameters.model.contamination.threshold().unwrap_or(parameters.page_threshold);
        self.seen >= self.needed && page > 0.0 && page >= threshold
    }

    /// Decides between a finding, one that is suppressed, and none.
    fn is_finding(&self, unusual: bool, verdict: &mut Verdict, parameters: &Parameters) -> bool {
        let worse = |page| self.incident.is_worse(page);
        if verdict.suppressed.is_some() {
            let pressure = verdict.pressure;
            let told = self.is_news(pressure, parameters) && worse(pressure) && self.unspoken.is_worse(pressure);
            verdict.suppressed = verdict.suppressed.filter(|_| told);
            return false;
        }
        if self.is_news(verdict.page, parameters) && worse(verdict.page) {
            return true;
        }
        // The hold is over and the series still abnormal.
        let owed = self.owes_a_finding() && unusual;
        if owed {
            verdict.page = self.unspoken.worst();
        }
        owed
    }

    /// Why this value cannot be a finding, however unusual it is. Feedback is asked about `news` only.
    fn excluded<M: Model>(
        &mut self,
        model: &M,
        observation: &Observation,
        expected: Option<f64>,
        verdict: &Verdict,
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
            direction: direction(value, expected, verdict),
            value: observation.learnt,
            course: feedback::course(&model.recent()),
            usual_distance: model.usual_distance(),
        };
        let known = self.feedback.as_mut().is_some_and(|feedback| feedback.knows(&candidate));
        known.then_some(Suppressed::Feedback)
    }

    fn lessons(&self) -> &[Lesson] {
        self.feedback.as_ref().map_or(&[], |feedback| feedback.lessons())
    }

    /// Keeps what somebody may call normal.
    fn remember(&mut self, observation: &Observation, verdict: &Verdict, page: f64, recent: &[f64]) {
        let Some(finding) = &verdict.finding else { return };
        let expected = verdict.expected.map_or(observation.learnt, |expected| self.scale().learnt(expected));
        let reach = observation.learnt - expected;
        let lesson = Lesson::new(observation.time, finding.direction, observation.learnt, reach, page, recent);
        self.feedback.get_or_insert_default().remember(lesson);
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

    fn finding(
        &self,
        mut parts: Vec<Part>,
        recent: &[f64],
        observation: &Observation,
        verdict: &Verdict,
        threshold: f64,
    ) -> Finding {
        let expected = verdict.expected.unwrap_or(observation.value);
        parts.retain(|part| part.surprise > 0.0);
        let all: f64 = parts.iter().map(|part| part.surprise).sum();
        let mut reasons: Vec<Reason> = parts
            .iter()
            .map(|part| Reason {
                component: part.component,
                surprise: part.surprise,
                share: part.surprise / all,
                expected: part.expected.map_or(expected, |expected| self.scale().observed(expected)),
            })
            .collect();
        if reasons.is_empty() {
            // To the model nothing about it is new: it is a finding because it was one before.
            reasons.push(Reason { component: "again", surprise: verdict.page, share: 1.0, expected });
        }
        reasons.sort_by(|left, right| right.surprise.total_cmp(&left.surprise));
        Finding {
            score: heads::severity(verdict.page, threshold),
            probability: 10f64.powf(-verdict.page),
            direction: direction(observation.value, expected, verdict),
            reasons,
            rarity: self.records.rarity(verdict.page, observation.time),
            similar: self.similar(recent, observation, expected),
        }
    }

    /// The earlier moment which comes nearest.
    fn similar(&self, recent: &[f64], observation: &Observation, expected: f64) -> Option<Similar> {
        let deviation = observation.learnt - self.scale().learnt(expected);
        let time_of = |back| observation.time - f64::from(self.timeline.buckets_back(back)) * self.bucket_seconds;
        explain::similar(recent, self.feedback.iter().flat_map(|feedback| feedback.all()), deviation, time_of)
    }

    /// Heap memory in bytes.
    fn heap(&self) -> usize {
        let scores = self.scores.as_ref().map_or(0, |_| size_of::<Calibration>());
        let feedback = self.feedback.as_ref().map_or(0, |feedback| size_of::<Feedback>() + feedback.heap());
        feedback + scores
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
