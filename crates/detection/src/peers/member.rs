//! What is usual for one member in relation to its siblings.

use serde::{Deserialize, Serialize};

use crate::series::incident::Incident;

/// Smoothing of the level: a mean age of three steps.
const LEVEL_RATE: f64 = 0.25;
/// Smoothing of the spread.
const CHANGE_RATE: f64 = 0.125;
/// What is usual is learnt at least this fast: the memory is about 1,000 steps.
const SLOW: f64 = 1.0 / 1_000.0;
/// As `SLOW` when a deviation has lasted so long that it is the new normal.
const ADOPT: f64 = 1.0 / 30.0;
/// What a newcomer inherits counts as this many steps.
const INHERITED: f64 = 120.0;
/// Of one way off the group learns this many steps, so that what goes off slowly does not hide itself.
const TEACHING: u32 = 20;
/// A newcomer's own past counts as much as that of earlier ones after this many steps.
pub(super) const UNCERTAIN: f64 = 30.0;
/// Steps after which a newcomer is one no more.
pub(super) const SETTLED: u32 = 128;
/// Ages of a newcomer: 1, 2-3, 4-7, ... 64-127 steps.
pub(super) const AGES: usize = SETTLED.ilog2() as usize;
/// Deviations are learnt up to this many usual ones.
const CLIP: f64 = 3.0;
/// Relative changes below this are no spread.
const LEAST_CHANGE: f64 = 0.01;
/// Usual deviations of the spread are at least this, as a logarithm.
const LEAST_SPREAD: f64 = 0.2;
/// Levels below this do not matter: half a percent.
const LEAST_LEVEL: f64 = 0.005;
/// Nothing is further away.
const FARTHEST: f64 = 1e4;

/// Mean deviation of one newcomer, by age.
pub(super) type Early = [f32; AGES];

/// The features of one member in one step, in usual deviations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Features {
    /// Of the smoothed deviation from what siblings make likely.
    pub(super) level: f64,
    /// Of how much it changes from step to step, less what all do; not below 0.
    pub(super) spread: f64,
    /// One usual deviation of the level on the learnt scale.
    pub(super) scale: f64,
}

/// What settled members of the group show: medians.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Typical {
    pub(super) variance: f64,
    pub(super) change: f64,
    pub(super) spread: f64,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Steps in which it was there.
    pub(super) seen: u32,
    /// Steps since it was there.
    pub(super) absent: u32,
    /// It was there when the group began: nobody to inherit from.
    pub(super) founding: bool,
    /// Usual deviation from the common movement, beside what newcomers show.
    pub(super) offset: f64,
    /// Smoothed deviation from that, and how far it usually goes.
    level: f64,
    pub(super) variance: f64,
    last: f64,
    /// Smoothed change of the deviation from step to step, now and usually.
    pub(super) change: f64,
    pub(super) usual_change: f64,
    /// How far the logarithm of their ratio usually goes.
    pub(super) spread_variance: f64,
    spread: f64,
    /// Steps in a row in which it was far off.
    off: u32,
    /// What it showed while it was new.
    pub(super) early: Option<Box<Early>>,
    /// In which of the last steps it stood apart, the last in the lowest bit.
    apart: u8,
    pub(super) incident: Incident,
}

impl Features {
    /// The distance from where a member used to be.
    pub(super) fn distance(&self) -> f64 {
        self.level.hypot(self.spread)
    }

    pub(super) const fn point(&self) -> [f64; 2] {
        [self.level, self.spread]
    }

    /// Whether it is the level, rather than the spread, that is unusual.
    pub(super) fn is_level(&self) -> bool {
        self.level.abs() >= self.spread
    }

    /// The level's part in the distance, 0 to 1.
    pub(super) fn level_share(&self) -> f64 {
        let all = self.distance().powi(2);
        if all > 0.0 { self.level.powi(2) / all } else { 1.0 }
    }
}

impl Member {
    pub(super) fn new(founding: bool) -> Self {
        Self {
            seen: 0,
            absent: 0,
            founding,
            offset: 0.0,
            level: 0.0,
            variance: 0.0,
            last: 0.0,
            change: 0.0,
            usual_change: 0.0,
            spread_variance: 0.0,
            spread: 0.0,
            off: 0,
            early: (!founding).then(Box::default),
            apart: 0,
            incident: Incident::default(),
        }
    }

    /// Whether it is judged by its own past rather than by that of newcomers.
    pub(super) const fn is_settled(&self) -> bool {
        self.founding || self.seen >= SETTLED
    }

    /// Takes in the next deviation, of whose usual value `uncertain` is the standard deviation. The spread is still
    /// the logarithm of a ratio; [`Member::spread`] makes a feature of it.
    pub(super) fn follow(&mut self, deviation: f64, uncertain: f64, typical: &Typical) -> Features {
        if self.seen == 0 {
            // A founding member is where it is; of a newcomer the deviation counts at once.
            if self.founding {
                self.offset = deviation;
            } else {
                (self.level, self.last) = (deviation, deviation);
            }
            (self.variance, self.change, self.usual_change) = (typical.variance, typical.change, typical.change);
            self.spread_variance = typical.spread;
        } else {
            self.level += (deviation - self.level) * LEVEL_RATE;
            let change = (deviation - self.last).abs();
            self.change += (change - self.change) * CHANGE_RATE;
            self.last = deviation;
        }
        let young = self.founding && self.seen < SETTLED;
        let usual = |own: f64, typical: f64| if young { own.max(typical) } else { own };
        let scale = (usual(self.variance, typical.variance) + uncertain * uncertain).sqrt().max(LEAST_LEVEL);
        let usual_change = usual(self.usual_change, typical.change);
        Features {
            level: (self.level / scale).clamp(-FARTHEST, FARTHEST),
            spread: ((self.change + LEAST_CHANGE) / (usual_change + LEAST_CHANGE)).ln().clamp(-5.0, 5.0),
            scale,
        }
    }

    /// The feature made of what this member's spread is beyond that of all.
    pub(super) fn spread(&mut self, excess: f64) -> f64 {
        self.spread = excess;
        (excess / self.spread_variance.sqrt().max(LEAST_SPREAD)).min(FARTHEST)
    }

    /// Notes whether it is far off; whether the group learns from it.
    pub(super) fn teaches(&mut self, off: bool) -> bool {
        self.off = if off { self.off.saturating_add(1) } else { 0 };
        !self.incident.is_on() && self.off <= TEACHING
    }

    /// Notes whether it stands apart in this step; whether it has done so for long enough.
    pub(super) fn stands(&mut self, apart: bool, persistence: u32) -> bool {
        self.apart = (self.apart << 1) | u8::from(apart);
        let persistence = persistence.clamp(1, 7);
        let last = u8::try_from((1u32 << (persistence + 1)) - 1).unwrap_or(u8::MAX);
        apart && (self.apart & last).count_ones() >= persistence
    }

    /// Learns from the step that was followed. During an incident nothing is learnt, until it is the new normal.
    pub(super) fn learn(&mut self, bucket_seconds: f64) {
        let seen = f64::from(self.seen) + if self.founding { 0.0 } else { INHERITED };
        let offset_rate = if self.founding { 1.0 / (seen + 1.0) } else { 1.0 / (f64::from(self.seen) + UNCERTAIN) };
        self.seen = self.seen.saturating_add(1);
        if self.incident.is_young(bucket_seconds) {
            return;
        }
        let adopts = self.incident.is_on();
        let usual = self.variance.sqrt().max(LEAST_LEVEL);
        let clip = if adopts || !self.is_settled() { f64::INFINITY } else { CLIP * usual };
        // The level, not the deviation: it lags by three steps only.
        let step = self.level.clamp(-clip, clip) * offset_rate.max(if adopts { ADOPT } else { SLOW });
        let level = self.level.clamp(-CLIP * usual, CLIP * usual);
        self.offset += step;
        self.level -= step;
        self.last -= step;
        let follow = |old: f64, new: f64| old + (new - old) * SLOW.max(1.0 / (seen + 1.0));
        self.variance = follow(self.variance, level * level);
        let change = if self.seen > 1 { self.change.min(CLIP * (self.usual_change + LEAST_CHANGE)) } else { self.change };
        self.usual_change = follow(self.usual_change, change);
        self.spread_variance = follow(self.spread_variance, self.spread.min(1.0).powi(2));
    }
}
