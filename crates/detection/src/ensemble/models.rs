//! The models of a series: each says what it expected, or how far from everything known a shape is.

use serde::{Deserialize, Serialize};

use crate::ensemble::shape::{History, Kept};
use crate::forecast::{Autoregression, Profile, Spread};

/// The components of the ensemble: the first four see single points and short shapes (point head), the others novelty
/// and the calendar (alert head).
pub const COMPONENTS: [&str; 13] = [
    "ar4",
    "shape12",
    "shape24",
    "shape12x3",
    "nov3x10",
    "nov12x10",
    "nov24x10",
    "max10",
    "min10",
    "mean10",
    "time_of_day",
    "time_of_week",
    "time_of_week_scaled",
];
/// Components of the point head; the others are those of the alert head.
pub(crate) const POINT: usize = 4;
/// Where the components of extremes begin and end, and those of the calendar begin: both are in the page head.
pub(crate) const EXTREMES: std::ops::Range<usize> = 7..9;
pub(crate) const CALENDAR: std::ops::RangeFrom<usize> = TIME_OF_DAY..;
pub(crate) const AR: usize = 0;
/// Course of the last twelve values.
pub(crate) const SHAPE: usize = 1;
pub(crate) const MEAN: usize = 9;
pub(crate) const TIME_OF_DAY: usize = 10;
pub(crate) const TIME_OF_WEEK: usize = 11;
pub(crate) const TIME_OF_WEEK_SCALED: usize = 12;

const DAY: f64 = 86_400.0;
const DAY_PHASES: usize = 48;
const DAY_RATE: f32 = 0.05;
const WEEK: f64 = 604_800.0;
const WEEK_PHASES: usize = 336;
const WEEK_RATE: f32 = 0.3;
/// Steps of ten values that are remembered: 3.5 days of one-minute values, 17 days of five-minute ones.
const TENS: usize = 504;
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
            TIME_OF_DAY | MEAN => self.time_of_day,
            TIME_OF_WEEK | TIME_OF_WEEK_SCALED => self.time_of_week,
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
    /// Usual distance to what the time of the week expects, by time of day.
    spread: Spread,
    every1: History<i16>,
    every3: History<i8>,
    every10: History<i8>,
    highest: History<i8>,
    lowest: History<i8>,
    /// Sum and number of the distances to what the time of day expected in the step of ten so far.
    residuals: (f64, u8),
    /// Last distance of `shape12x3`, which stands until its next step.
    held: Option<f64>,
}

impl Models {
    pub(crate) fn new() -> Self {
        Self {
            autoregression: Autoregression::new(),
            time_of_day: Profile::new(DAY, DAY_PHASES, DAY_RATE),
            time_of_week: Profile::new(WEEK, WEEK_PHASES, WEEK_RATE),
            spread: Spread::new(DAY, DAY_PHASES, DAY_RATE),
            every1: History::new(Kept::Mean, 1, 320),
            every3: History::new(Kept::Mean, 3, 256),
            every10: History::new(Kept::Mean, 10, TENS),
            highest: History::new(Kept::Highest, 10, TENS),
            lowest: History::new(Kept::Lowest, 10, TENS),
            residuals: (0.0, 0),
            held: None,
        }
    }

    /// Heap memory in bytes.
    pub(crate) fn heap(&self) -> usize {
        let coarse = [&self.every3, &self.every10, &self.highest, &self.lowest];
        self.every1.heap()
            + coarse.map(History::heap).iter().sum::<usize>()
            + self.time_of_day.heap()
            + self.time_of_week.heap()
            + self.spread.heap()
    }

    /// The last values, oldest first; what bridges a short gap is among them.
    pub(crate) fn recent(&self) -> Vec<f64> {
        self.every1.values()
    }

    /// Tells that `missing` values were not seen before the next one.
    pub(crate) fn skip(&mut self, missing: u32) {
        if missing > LONGEST_BRIDGE {
            self.held = None;
            self.residuals = (0.0, 0);
            self.every1.interrupt();
            [&mut self.every3, &mut self.every10, &mut self.highest, &mut self.lowest].into_iter().for_each(History::interrupt);
            self.autoregression.interrupt();
            return;
        }
        for _ in 0..missing {
            // Coarser steps take what was seen alone.
            if let Some(value) = self.autoregression.expect() {
                self.autoregression.shift(value);
                self.every1.push(value);
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
    pub(crate) fn judge(&mut self, time: f64, value: f64, expected: &Expected, trusted: f64) -> Raws {
        let residual = |expected: Option<f64>| expected.map(|expected| (value - expected).abs() * trusted);
        self.every1.push(value);
        self.push_three(value);
        let (shape12, shape24) = self.every1.centred_distances(12);
        if let Some(expected) = expected.time_of_day {
            self.residuals.0 += (value - expected) * trusted;
            self.residuals.1 = self.residuals.1.saturating_add(1);
        }
        let completed = self.push_ten(value);
        let novelty = |history: &History<i8>, width: usize| {
            if completed { history.distance(width, false) } else { history.knows(width).then_some(0.0) }
        };
        let (sum, count) = self.residuals;
        let mean = (count > 0).then(|| if completed { (sum / f64::from(count)).abs() } else { 0.0 });
        if completed {
            self.residuals = (0.0, 0);
        }
        let week = residual(expected.time_of_week);
        [
            residual(expected.autoregression),
            shape12,
            shape24,
            self.held,
            novelty(&self.every10, 3),
            novelty(&self.every10, 12),
            novelty(&self.every10, 24),
            novelty(&self.highest, 1),
            novelty(&self.lowest, 1),
            mean,
            residual(expected.time_of_day),
            week,
            week.and_then(|week| self.spread.relative(time, week)),
        ]
    }

    /// Teaches the forecasters: the autoregression `value`, the calendar `taught`, if anything, and how far from the
    /// time of the week the value was.
    pub(crate) fn learn(&mut self, time: f64, value: f64, week: Option<f64>, taught: Option<[f64; 2]>) {
        self.autoregression.learn(value);
        if let Some(week) = week {
            self.spread.learn(time, week);
        }
        self.teach(time, taught);
    }

    /// Teaches the calendar.
    pub(crate) fn teach(&mut self, time: f64, taught: Option<[f64; 2]>) {
        let Some([day, week]) = taught else { return };
        self.time_of_day.learn(time, day);
        self.time_of_week.learn(time, week);
    }

    fn push_three(&mut self, value: f64) {
        if self.every3.push(value) {
            self.held = self.every3.distance(12, true);
        }
    }

    /// True when a step of ten is complete.
    fn push_ten(&mut self, value: f64) -> bool {
        self.highest.push(value);
        self.lowest.push(value);
        self.every10.push(value)
    }
}
