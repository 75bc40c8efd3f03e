//! The default model: thirteen components, each calibrated against its own past, combined in three heads.

pub(crate) mod models;
pub(crate) mod shape;

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
pub use crate::ensemble::models::COMPONENTS;
use crate::ensemble::models::{
    AR, CALENDAR, EXTREMES, Expected, Models, POINT, Raws, SHAPE, TIME_OF_DAY, TIME_OF_WEEK, TIME_OF_WEEK_SCALED,
};
use crate::heads;
use crate::model::{Circumstances, Evidence, MOST_SURPRISE, Model, Observation, Part, Surprises};
use crate::samples::{most_surprise, trust};
use crate::scale::Scale;

/// Rate of the running mean error by which a model is chosen to tell the expected value.
const SKILL_RATE: f64 = 0.01;
/// Models that expect a value.
const FORECASTERS: [usize; 3] = [AR, TIME_OF_DAY, TIME_OF_WEEK];

/// The learnt state of all components.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ensemble {
    models: Models,
    calibrations: Box<[Calibration]>,
    /// Running mean errors of the forecasters.
    errors: [Option<f64>; FORECASTERS.len()],
}

/// What was expected of a value, and how far from it each component found it.
pub(crate) struct Memo {
    expected: Expected,
    raws: Raws,
}

impl Ensemble {
    pub(crate) fn new() -> Self {
        Self {
            models: Models::new(),
            calibrations: COMPONENTS.iter().map(|_| Calibration::new()).collect(),
            errors: [None; FORECASTERS.len()],
        }
    }

    fn surprises(&self, observation: &Observation, Memo { expected, raws }: &Memo) -> Surprises {
        let scale = Scale::of(observation.quantity);
        // What the forecasters expect limits what shapes can say about few events as well.
        let most = |expected: Option<f64>| {
            expected.map_or(MOST_SURPRISE, |expected| {
                let expected = scale.observed(expected);
                most_surprise(observation.quantity, observation.value, expected, observation.samples).min(MOST_SURPRISE)
            })
        };
        let general = most(expected.time_of_day.or(expected.autoregression));
        let (autoregression, week) = (most(expected.autoregression), most(expected.time_of_week));
        let mut surprises = Surprises::default();
        for (component, ((surprise, raw), calibration)) in surprises.iter_mut().zip(raws).zip(&self.calibrations).enumerate() {
            let limit = match component {
                AR => autoregression,
                TIME_OF_WEEK | TIME_OF_WEEK_SCALED => week,
                _ => general,
            };
            *surprise = raw.map_or(0.0, |raw| calibration.surprise(raw).min(limit));
        }
        surprises
    }

    /// What is usual by the model with the smallest mean error, and how far from it a finding begins.
    ///
    /// During an incident the autoregression follows it and has no say.
    fn usual(&self, expected: &Expected, surprise: f64, incident: bool) -> Option<(f64, Option<f64>)> {
        let candidates = FORECASTERS.iter().zip(&self.errors).filter_map(|(component, error)| {
            let avoided = *component == AR && incident;
            Some((avoided, (*error)?, *component, expected.of(*component)?))
        });
        let (_, _, component, expected) =
            candidates.min_by(|left, right| left.0.cmp(&right.0).then(left.1.total_cmp(&right.1)))?;
        Some((expected, self.calibrations.get(component).and_then(|calibration| calibration.raw(surprise))))
    }

    /// Where raw surprises of a component begin to be unusual.
    fn limit(&self, component: usize) -> Option<f64> {
        self.calibrations.get(component).and_then(Calibration::tail_start)
    }
}

impl Model for Ensemble {
    type Memo = Memo;

    const COMPONENTS: &'static [&'static str] = &COMPONENTS;

    fn skip(&mut self, missing: u32) {
        self.models.skip(missing);
    }

    fn judge(&mut self, observation: &Observation, circumstances: &Circumstances) -> (Evidence, Memo) {
        let expected = self.models.expect(observation.time);
        let raws =
            self.models.judge(observation.time, observation.learnt, &expected, trust(observation.quantity, observation.samples));
        let memo = Memo { expected, raws };
        let surprises = self.surprises(observation, &memo);
        let penalty = circumstances.penalty;
        let (point, slow) = surprises.split_at(POINT);
        let part = |range: Option<&'_ [f64]>| range.map_or(0.0, heads::mean);
        let (extremes, calendar) = (part(surprises.get(EXTREMES)), part(surprises.get(CALENDAR)));
        let usual = self.usual(&memo.expected, circumstances.surprise_needed(1.0), circumstances.incident);
        let evidence = Evidence {
            point: heads::point(point),
            alert: heads::alert(slow, penalty),
            page: heads::page(heads::mean(point), extremes, calendar, penalty),
            score: heads::page(heads::mean(point), extremes, calendar, 0.0),
            expected: usual.map(|(expected, _)| expected),
            reach: usual.and_then(|(_, reach)| reach),
            unusual: matches!((memo.raws[TIME_OF_DAY], self.limit(TIME_OF_DAY)), (Some(raw), Some(limit)) if raw > limit),
            surprises,
        };
        (evidence, memo)
    }

    fn parts(&self, _: &Observation, evidence: &Evidence, memo: &Memo) -> Vec<Part> {
        let parts = COMPONENTS.iter().zip(&evidence.surprises).enumerate();
        parts
            .map(|(index, (component, surprise))| Part { component, surprise: *surprise, expected: memo.expected.of(index) })
            .collect()
    }

    fn learn(&mut self, observation: &Observation, circumstances: &Circumstances, memo: &Memo, protect: bool) {
        if circumstances.unlearnt {
            self.models.learn(observation.time, observation.learnt, None, None);
            return;
        }
        let limits = FORECASTERS.map(|component| self.limit(component));
        let [_, day, week] = limits;
        for (calibration, raw) in self.calibrations.iter_mut().zip(&memo.raws) {
            let Some(raw) = *raw else { continue };
            calibration.learn(raw);
        }
        for ((error, component), limit) in self.errors.iter_mut().zip(FORECASTERS).zip(limits) {
            let Some(Some(raw)) = memo.raws.get(component).copied() else { continue };
            let raw = limit.filter(|_| protect).map_or(raw, |limit| raw.min(limit));
            *error = Some(error.map_or(raw, |error| error + (raw - error) * SKILL_RATE));
        }
        let taught = |expected: Option<f64>, limit: Option<f64>| match (expected, limit) {
            (Some(expected), Some(limit)) if protect && limit > 0.0 => {
                observation.learnt.clamp(expected - limit, expected + limit)
            }
            _ => observation.learnt,
        };
        let calendar = [taught(memo.expected.time_of_day, day), taught(memo.expected.time_of_week, week)];
        let week = memo.expected.time_of_week.map(|expected| (observation.learnt - expected).abs());
        self.models.learn(observation.time, observation.learnt, week, Some(calendar));
    }

    fn teach(&mut self, time: f64, learnt: f64) {
        self.models.teach(time, Some([learnt; 2]));
    }

    fn usual_distance(&self) -> Option<f64> {
        self.limit(SHAPE)
    }

    fn recent(&self) -> Vec<f64> {
        self.models.recent()
    }

    fn heap(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.calibrations) + self.models.heap()
    }
}
