//! A band of usual values per time of the day and of the week: simple bounds that anybody can check.
//!
//! Every phase has a level and a spread (mean absolute deviation), both learnt exponentially and from values cut at a
//! few spreads, so that they stand near the median where outliers come and go (Huber, "Robust estimation of a
//! location parameter", 1964). How many spreads are unusual is what the series' own past says.

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::model::{Circumstances, Evidence, MOST_SURPRISE, Model, Observation, Part, Surprises};
use crate::samples::{most_surprise, trust};
use crate::scale::Scale;

const DAY: Calendar = Calendar { period: 86_400.0, phases: 48, rate: 0.05 };
const WEEK: Calendar = Calendar { period: 604_800.0, phases: 168, rate: 0.2 };
/// Spreads at which a value is cut before it is learnt.
const CUT: f32 = 3.0;
/// Values of a phase from which on they are cut.
const KNOWN: u8 = 8;
/// Rate of the running mean errors and of the spread of the whole series.
const SLOW: f64 = 0.01;
/// Spreads of a phase below this share of that of the whole series count as this.
const NARROWEST: f64 = 0.2;
/// A page score of one model alone is worth this much of one on which several agree.
const ALONE: f64 = 0.57;

/// A period and how it is divided.
#[derive(Clone, Copy, Debug)]
struct Calendar {
    /// Seconds.
    period: f64,
    phases: usize,
    /// Slowest rate at which a phase forgets.
    rate: f32,
}

/// Level and spread of one phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Phase {
    /// Relative to the first value of the series.
    level: f32,
    spread: f32,
    seen: u8,
}

/// The learnt state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SeasonalBand {
    base: Option<f64>,
    day: Box<[Phase]>,
    week: Box<[Phase]>,
    /// Running mean distances from the levels of the day and of the week.
    errors: [Option<f64>; 2],
    /// Distances in spreads.
    distances: Calibration,
}

/// What was usual.
#[derive(Clone, Copy, Debug)]
struct Band {
    level: f64,
    spread: f64,
    weekly: bool,
}

pub(crate) struct Memo {
    band: Option<Band>,
    levels: [Option<f64>; 2],
    raw: Option<f64>,
}

impl SeasonalBand {
    pub(crate) fn new() -> Self {
        let phases = |calendar: Calendar| vec![Phase::default(); calendar.phases].into();
        Self { base: None, day: phases(DAY), week: phases(WEEK), errors: [None; 2], distances: Calibration::new() }
    }

    /// Level and spread usual at `time`, smoothed with the phases beside it; `None` while none of them was seen.
    fn usual(&self, phases: &[Phase], calendar: Calendar, time: f64) -> Option<(f64, f64)> {
        let here = calendar.phase(time);
        let last = phases.len().saturating_sub(1);
        let before = if here == 0 { last } else { here - 1 };
        let after = if here >= last { 0 } else { here + 1 };
        let (mut level, mut spread, mut weights) = (0.0, 0.0, 0.0);
        for (place, weight) in [(before, 1.0), (here, 2.0), (after, 1.0)] {
            if let Some(phase) = phases.get(place).filter(|phase| phase.seen > 0) {
                level += weight * f64::from(phase.level);
                spread += weight * f64::from(phase.spread);
                weights += weight;
            }
        }
        (weights > 0.0).then(|| (self.base.unwrap_or(0.0) + level / weights, spread / weights))
    }

    /// The band of the week where that was seen before and is nearer, else that of the day.
    fn band(&self, time: f64, [day, week]: [Option<(f64, f64)>; 2]) -> Option<Band> {
        let known = self.week.get(WEEK.phase(time)).is_some_and(|phase| phase.seen > 1);
        let nearer = matches!(self.errors, [Some(day), Some(week)] if week < day);
        let weekly = known && nearer && week.is_some();
        let (level, spread) = if weekly { week } else { day }?;
        let [day_error, week_error] = self.errors;
        let whole = if weekly { week_error } else { day_error }.unwrap_or(0.0);
        Some(Band { level, spread: spread.max(whole * NARROWEST), weekly })
    }
}

impl Calendar {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the phase is in 0..phases")]
    fn phase(self, time: f64) -> usize {
        let phase = (time.rem_euclid(self.period) / self.period * self.phases as f64) as usize;
        if phase >= self.phases { 0 } else { phase }
    }

    fn learn(self, phases: &mut [Phase], time: f64, value: f32) {
        let Some(phase) = phases.get_mut(self.phase(time)) else { return };
        phase.seen = phase.seen.saturating_add(1);
        let rate = (1.0 / f32::from(phase.seen)).max(self.rate);
        let mut distance = value - phase.level;
        if phase.seen > KNOWN && phase.spread > 0.0 {
            distance = distance.clamp(-CUT * phase.spread, CUT * phase.spread);
        }
        // The first value has nothing to be distant from.
        let deviation = if phase.seen == 1 { 0.0 } else { distance.abs() };
        phase.level += rate * distance;
        phase.spread += rate * (deviation - phase.spread);
    }
}

impl Model for SeasonalBand {
    type Memo = Memo;

    const COMPONENTS: &'static [&'static str] = &["time_of_day", "time_of_week"];

    fn skip(&mut self, _: u32) {}

    fn judge(&mut self, observation: &Observation, circumstances: &Circumstances) -> (Evidence, Memo) {
        let Observation { time, learnt, quantity, value, samples } = *observation;
        self.base.get_or_insert(learnt);
        let both = [self.usual(&self.day, DAY, time), self.usual(&self.week, WEEK, time)];
        let band = self.band(time, both);
        // A spread of 0 is one that no distance can be measured in; the distance itself says enough then.
        let unit = |band: &Band| if band.spread > 0.0 { band.spread } else { (band.level.abs() * 1e-3).max(1e-9) };
        let raw = band.map(|band| (learnt - band.level).abs() * trust(quantity, samples) / unit(&band));
        let most = band.map_or(MOST_SURPRISE, |band| {
            most_surprise(quantity, value, Scale::of(quantity).observed(band.level), samples).min(MOST_SURPRISE)
        });
        let surprise = raw.map_or(0.0, |raw| self.distances.surprise(raw).min(most));
        let rare = if surprise > 0.0 { (surprise - circumstances.penalty).max(0.0) } else { 0.0 };
        let mut surprises = Surprises::default();
        if let (Some(band), [day, week, ..]) = (band, &mut surprises) {
            *if band.weekly { week } else { day } = surprise;
        }
        let limit = self.distances.tail_start();
        let reach = self.distances.raw(circumstances.surprise_needed(ALONE));
        let evidence = Evidence {
            point: surprise,
            alert: rare,
            page: rare.min(surprise) * ALONE,
            score: surprise,
            expected: band.map(|band| band.level),
            reach: band.zip(reach).map(|(band, reach)| reach * unit(&band)),
            unusual: raw.zip(limit).is_some_and(|(raw, limit)| raw > limit),
            surprises,
        };
        (evidence, Memo { band, levels: both.map(|usual| usual.map(|(level, _)| level)), raw })
    }

    fn parts(&self, _: &Observation, evidence: &Evidence, memo: &Memo) -> Vec<Part> {
        let parts = Self::COMPONENTS.iter().zip(&evidence.surprises);
        let expected = memo.band.map(|band| band.level);
        parts.map(|(component, surprise)| Part { component, surprise: *surprise, expected }).collect()
    }

    fn learn(&mut self, observation: &Observation, circumstances: &Circumstances, memo: &Memo, protect: bool) {
        if circumstances.unlearnt {
            return;
        }
        let limit = self.distances.tail_start().filter(|limit| protect && *limit > 0.0);
        let mut value = observation.learnt;
        if let (Some(limit), Some(band)) = (limit, memo.band) {
            let reach = limit * band.spread;
            value = value.clamp(band.level - reach, band.level + reach);
        }
        for (error, level) in self.errors.iter_mut().zip(memo.levels) {
            let Some(distance) = level.map(|level| (value - level).abs()) else { continue };
            *error = Some(error.map_or(distance, |error| error + (distance - error) * SLOW));
        }
        if let Some(raw) = memo.raw {
            self.distances.learn(raw);
        }
        let value = narrow(value - self.base.unwrap_or(0.0));
        DAY.learn(&mut self.day, observation.time, value);
        WEEK.learn(&mut self.week, observation.time, value);
    }

    fn heap(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.day) + size_of_val(&*self.week)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "rounds; series are limited to magnitudes that f32 holds")]
fn narrow(value: f64) -> f32 {
    value as f32
}
