//! The ten models of a series: each says what it expected, or how far from everything known a shape is.

use serde::{Deserialize, Serialize};

use crate::forecast::{Autoregression, Profile};
use crate::shape::History;

/// The components of the ensemble: the first four see single points and short shapes (point head), the
/// others novelty and the calendar (alert head).
pub const COMPONENTS: [&str; 10] =
    ["ar4", "shape12", "shape24", "shape12x3", "nov3x2", "nov3x10", "nov12x7", "nov12x10", "time_of_day", "time_of_week"];
/// Components of the point head; the others are those of the alert head.
pub(crate) const POINT: usize = 4;
/// Components of novelty, which follow them; the last two are those of the calendar.
pub(crate) const NOVELTY: usize = 4;
pub(crate) const AR: usize = 0;
/// Course of the last twelve values.
pub(crate) const SHAPE: usize = 1;
pub(crate) const TIME_OF_DAY: usize = 8;
pub(crate) const TIME_OF_WEEK: usize = 9;

const DAY: f64 = 86_400.0;
const DAY_PHASES: usize = 48;
const DAY_RATE: f32 = 0.05;
const WEEK: f64 = 604_800.0;
const WEEK_PHASES: usize = 336;
const WEEK_RATE: f32 = 0.3;
/// Gaps longer than this many steps break the order of values; shorter ones are bridged by forecasts.
pub(crate) const LONGEST_BRIDGE: u32 = 12;

/// Raw surprises of all components; `None` where a component knows nothing yet.
pub(crate) type Raws = [Option<f64>; COMPONENTS.len()];

/// What the forecasters expect of one value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) autoregression: Option<f64>,
    pub(crate) time_of_day: Option<f64>,
    pub(crate) time_of_week: Option<f64>,
}

impl Expected {
    pub(crate) fn of(&self, component: usize) -> Option<f64> {
        match component {
            AR => self.autoregression,
            TIME_OF_DAY => self.time_of_day,
            TIME_OF_WEEK => self.time_of_week,
            _ => None,
        }
    }
}

/// The learnt state of all components.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Models {
    autoregression: Autoregression,
    time_of_day: Profile,
    time_of_week: Profile,
    every1: History,
    every2: History,
    every3: History,
    every7: History,
    every10: History,
    /// Last distance of `shape12x3`, which stands until its next step.
    held: Option<f64>,
}

impl Models {
    pub(crate) fn new() -> Self {
        Self {
            autoregression: Autoregression::new(),
            time_of_day: Profile::new(DAY, DAY_PHASES, DAY_RATE),
            time_of_week: Profile::new(WEEK, WEEK_PHASES, WEEK_RATE),
            every1: History::new(1, 512),
            every2: History::new(2, 256),
            every3: History::new(3, 256),
            every7: History::new(7, 256),
            every10: History::new(10, 256),
            held: None,
        }
    }

    /// Heap memory in bytes.
    pub(crate) fn heap(&self) -> usize {
        let histories = [&self.every1, &self.every2, &self.every3, &self.every7, &self.every10];
        histories.map(History::heap).iter().sum::<usize>() + self.time_of_day.heap() + self.time_of_week.heap()
    }

    /// The last values, oldest first; what bridges a short gap is among them.
    pub(crate) fn recent(&self) -> Vec<f64> {
        self.every1.values()
    }

    /// Tells that `missing` values were not seen before the next one.
    pub(crate) fn skip(&mut self, missing: u32) {
        if missing > LONGEST_BRIDGE {
            self.held = None;
            [&mut self.every1, &mut self.every2, &mut self.every3, &mut self.every7, &mut self.every10]
                .into_iter()
                .for_each(History::interrupt);
            self.autoregression.interrupt();
            return;
        }
        for _ in 0..missing {
            if let Some(value) = self.autoregression.expect() {
                self.autoregression.shift(value);
                self.every1.push(value);
                self.every2.push(value);
                if self.every3.push(value) {
                    self.held = self.every3.distance(12, true);
                }
                self.every7.push(value);
                self.every10.push(value);
            }
        }
    }

    /// What is expected at `time`.
    pub(crate) fn expect(&self, time: f64) -> Expected {
        Expected {
            autoregression: self.autoregression.expect(),
            time_of_day: self.time_of_day.expect(time),
            time_of_week: self.time_of_week.expect(time),
        }
    }

    /// Takes the next value into the shapes; gives the raw surprises of all components.
    pub(crate) fn judge(&mut self, value: f64, expected: &Expected, trusted: f64) -> Raws {
        let residual = |expected: Option<f64>| expected.map(|expected| (value - expected).abs() * trusted);
        self.every1.push(value);
        if self.every3.push(value) {
            self.held = self.every3.distance(12, true);
        }
        let (shape12, shape24) = self.every1.centred_distances(12);
        let completed = |history: &mut History| history.push(value);
        let (two, seven, ten) = (completed(&mut self.every2), completed(&mut self.every7), completed(&mut self.every10));
        let novelty = |history: &History, completed: bool, width: usize| {
            if completed { history.distance(width, false) } else { history.knows(width).then_some(0.0) }
        };
        [
            residual(expected.autoregression),
            shape12,
            shape24,
            self.held,
            novelty(&self.every2, two, 3),
            novelty(&self.every10, ten, 3),
            novelty(&self.every7, seven, 12),
            novelty(&self.every10, ten, 12),
            residual(expected.time_of_day),
            residual(expected.time_of_week),
        ]
    }

    /// Teaches the forecasters: the autoregression `value`, the calendar `taught`, if anything.
    pub(crate) fn learn(&mut self, time: f64, value: f64, taught: Option<[f64; 2]>) {
        self.autoregression.learn(value);
        self.teach(time, taught);
    }

    /// Teaches the calendar.
    pub(crate) fn teach(&mut self, time: f64, taught: Option<[f64; 2]>) {
        let Some([day, week]) = taught else { return };
        self.time_of_day.learn(time, day);
        self.time_of_week.learn(time, week);
    }
}
