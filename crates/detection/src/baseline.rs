//! What is usual now, for models that judge without forecasting: the level of the last values or the time of day,
//! whichever was nearer of late.

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::forecast::Profile;

const DAY: f64 = 86_400.0;
const DAY_PHASES: usize = 48;
const DAY_RATE: f32 = 0.05;
/// Rate of the level: a memory of twenty values.
const LEVEL_RATE: f64 = 0.05;
/// Rate of the running mean errors.
const SKILL_RATE: f64 = 0.01;

/// Two simple forecasts and how far off each one is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    time_of_day: Profile,
    level: Option<f64>,
    errors: [Option<f64>; 2],
    distances: [Calibration; 2],
}

/// What was expected of one value: by the level and by the time of day.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usual {
    pub(crate) level: Option<f64>,
    pub(crate) time_of_day: Option<f64>,
    /// The one to trust, 0 for the level and 1 for the time of day.
    chosen: usize,
}

impl Usual {
    pub(crate) fn expected(&self) -> Option<f64> {
        if self.chosen == 1 { self.time_of_day } else { self.level }
    }
}

impl Baseline {
    pub(crate) fn new() -> Self {
        Self {
            time_of_day: Profile::new(DAY, DAY_PHASES, DAY_RATE),
            level: None,
            errors: [None; 2],
            distances: [Calibration::new(), Calibration::new()],
        }
    }

    /// What is usual at `time`. During an incident the level follows it and has no say.
    pub(crate) fn usual(&self, time: f64, incident: bool) -> Usual {
        let time_of_day = self.time_of_day.expect(time);
        let day = time_of_day.is_some()
            && match self.errors {
                [Some(level), Some(day)] => incident || day < level,
                [level, _] => level.is_none() || incident,
            };
        Usual { level: self.level, time_of_day, chosen: usize::from(day) }
    }

    /// How far from what is usual a value is whose surprise is `surprise`.
    pub(crate) fn reach(&self, usual: &Usual, surprise: f64) -> Option<f64> {
        usual.expected()?;
        self.distances.get(usual.chosen)?.raw(surprise)
    }

    /// Whether the distance from the time of day is among the largest of twenty.
    pub(crate) fn is_unusual(&self, usual: &Usual, value: f64) -> bool {
        let [_, day] = &self.distances;
        usual.time_of_day.zip(day.tail_start()).is_some_and(|(expected, limit)| (value - expected).abs() > limit)
    }

    /// Learns a value; with `protect` it belongs to an incident and must not become usual.
    pub(crate) fn learn(&mut self, usual: &Usual, time: f64, value: f64, protect: bool) {
        let expected = [usual.level, usual.time_of_day];
        let mut taught = [value; 2];
        for ((((distance, error), expected), taught), watched) in
            self.distances.iter_mut().zip(&mut self.errors).zip(expected).zip(&mut taught).zip([false, true])
        {
            let Some(expected) = expected else { continue };
            let mut raw = (value - expected).abs();
            let limit = distance.tail_start().filter(|limit| protect && *limit > 0.0);
            distance.learn(raw);
            if let Some(limit) = limit {
                raw = raw.min(limit);
                if watched {
                    *taught = value.clamp(expected - limit, expected + limit);
                }
            }
            *error = Some(error.map_or(raw, |error| error + (raw - error) * SKILL_RATE));
        }
        let [level, day] = taught;
        self.level = Some(self.level.map_or(level, |before| before + (level - before) * LEVEL_RATE));
        self.time_of_day.learn(time, day);
    }

    /// A long gap: the level before it says nothing any more.
    pub(crate) fn interrupt(&mut self) {
        self.level = None;
    }

    /// Heap memory in bytes.
    pub(crate) fn heap(&self) -> usize {
        self.time_of_day.heap()
    }
}
