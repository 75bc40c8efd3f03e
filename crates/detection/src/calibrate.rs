//! How unusual a raw surprise is against its own past, as -log10 of a tail probability.
//!
//! Below the 95 % quantile the empirical rank, above it a generalised Pareto distribution fitted by
//! probability-weighted moments. Sources: Hosking and Wallis, "Parameter and quantile estimation for
//! the generalized Pareto distribution", Technometrics 29(3), 1987; Siffer et al., "Anomaly detection
//! in streams with extreme value theory", KDD 2017.
//!
//! The past is a histogram rather than a list: four bins per factor of two over 16 factors of two,
//! placed around the 95 % quantile, 16-bit weights that are halved when they are full. It remembers
//! the last 2,000 to 4,000 values in 128 bytes.

use serde::{Deserialize, Serialize};

/// Bins of the histogram.
const BINS: usize = 64;
/// Bits of the mantissa that number the bins of a factor of two.
const SHIFT: u32 = 52 - 2;
/// Weight of one value.
const WEIGHT: u16 = 16;
/// All weights are halved when they reach this in total.
const FULL: u32 = 2600 * WEIGHT as u32;
/// Where the tail begins.
const TAIL: f64 = 0.95;
/// Values seen before anything is surprising.
const WARM: u16 = 50;
/// Bins that stay below the 95 % quantile when outliers push the histogram upwards.
const BELOW: i32 = 16;
/// Raw surprises smaller than this are zero.
const SMALLEST: f64 = 1e-36;

/// The past of one raw surprise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    #[serde(with = "bins")]
    weights: [u16; BINS],
    zero: u16,
    /// Values seen, saturating.
    seen: u16,
    /// Number of the first bin on the scale of all positive numbers.
    bottom: i32,
    total: u32,
    tail: Tail,
    fit_in: u8,
}

/// The fitted tail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tail {
    /// The 95 % quantile.
    start: f32,
    /// Share of values above it; 0 when there are too few to fit.
    share: f32,
    /// Scale of the generalised Pareto distribution; 0 when all values equal the quantile.
    scale: f32,
    /// Its shape, 0 to 0.7.
    shape: f32,
}

impl Tail {
    fn new(start: f64, share: f64, scale: f64, shape: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "seven digits of a fit are enough")]
        let narrow = |value: f64| value.clamp(f32::MIN.into(), f32::MAX.into()) as f32;
        Self { start: narrow(start), share: narrow(share), scale: narrow(scale), shape: narrow(shape) }
    }

    fn parts(self) -> (f64, f64, f64, f64) {
        (self.start.into(), self.share.into(), self.scale.into(), self.shape.into())
    }
}

impl Calibration {
    pub(crate) fn new() -> Self {
        Self { weights: [0; BINS], zero: 0, seen: 0, bottom: 0, total: 0, tail: Tail::default(), fit_in: 0 }
    }

    /// -log10 of the chance that a raw surprise is at least `raw`; 0 while little is known.
    pub(crate) fn surprise(&self, raw: f64) -> f64 {
        if self.seen < WARM {
            return 0.0;
        }
        let count = f64::from(self.total) / f64::from(WEIGHT);
        let (start, share, scale, shape) = self.tail.parts();
        if raw <= start || share <= 0.0 {
            return -((count - self.below(raw) + 0.5) / (count + 1.0)).log10();
        }
        let excess = raw - start;
        if scale <= 0.0 {
            let beyond = (1.0 + excess / start.max(1e-9) * 10.0).log10();
            return ((count + 1.0) * 2.0).log10() + beyond.min(3.0);
        }
        let log_tail = if shape < 1e-3 { excess / scale } else { (shape * excess / scale).ln_1p() / shape };
        log_tail / std::f64::consts::LN_10 - share.log10()
    }

    /// The raw surprise whose surprise is `surprise`, at least the 95 % quantile; `None` while little is known.
    pub(crate) fn raw(&self, surprise: f64) -> Option<f64> {
        if self.seen < WARM {
            return None;
        }
        let (start, share, scale, shape) = self.tail.parts();
        if share <= 0.0 || scale <= 0.0 {
            return Some(start);
        }
        let log_tail = (surprise + share.log10()).max(0.0) * std::f64::consts::LN_10;
        let excess = if shape < 1e-3 { log_tail * scale } else { (log_tail * shape).min(600.0).exp_m1() * scale / shape };
        Some(start + excess)
    }

    /// The 95 % quantile of raw surprises; `None` while little is known.
    pub(crate) fn tail_start(&self) -> Option<f64> {
        (self.seen >= WARM).then_some(self.tail.start.into())
    }

    /// Remembers a raw surprise.
    pub(crate) fn learn(&mut self, raw: f64) {
        if self.total + u32::from(WEIGHT) > FULL {
            self.halve();
        }
        if raw < SMALLEST {
            self.zero = self.zero.saturating_add(WEIGHT);
        } else {
            let offset = self.place(bin_of(raw));
            if let Some(bin) = self.weights.get_mut(offset) {
                *bin = bin.saturating_add(WEIGHT);
            }
        }
        self.total += u32::from(WEIGHT);
        self.seen = self.seen.saturating_add(1);
        if self.fit_in == 0 && self.seen + 1 >= WARM {
            self.fit();
            self.fit_in = u8::try_from((self.seen / 32).clamp(1, 4)).unwrap_or(4);
        }
        self.fit_in = self.fit_in.saturating_sub(1);
    }

    /// Values below `raw`.
    fn below(&self, raw: f64) -> f64 {
        if raw < SMALLEST {
            return 0.0;
        }
        let offset = bin_of(raw) - self.bottom;
        let Ok(offset) = usize::try_from(offset) else {
            return f64::from(self.zero) / f64::from(WEIGHT);
        };
        let lower: u32 = self.weights.iter().take(offset).map(|weight| u32::from(*weight)).sum();
        let (from, to) = self.edges(offset);
        let inside =
            self.weights.get(offset).map_or(0.0, |weight| f64::from(*weight) * ((raw - from) / (to - from)).clamp(0.0, 1.0));
        (f64::from(u32::from(self.zero) + lower) + inside) / f64::from(WEIGHT)
    }

    /// Where the bin of that number is, after moving the histogram if it must.
    fn place(&mut self, bin: i32) -> usize {
        let last = BINS as i32 - 1;
        if self.total == u32::from(self.zero) {
            self.bottom = bin - BINS as i32 / 2;
        }
        if bin > self.bottom + last {
            let mut up = bin - self.bottom - last;
            if self.seen >= WARM && f64::from(self.tail.start) > SMALLEST {
                up = up.min((bin_of(self.tail.start.into()) - BELOW - self.bottom).max(0));
            }
            self.move_up(usize::try_from(up).unwrap_or(0));
        } else if bin < self.bottom {
            let empty = self.weights.iter().rev().take_while(|weight| **weight == 0).count();
            let down = usize::try_from(self.bottom - bin).unwrap_or(0).min(empty);
            self.weights.rotate_right(down.min(BINS));
            self.bottom -= i32::try_from(down).unwrap_or(0);
        }
        usize::try_from((bin - self.bottom).clamp(0, last)).unwrap_or(0)
    }

    fn move_up(&mut self, up: usize) {
        let moved = up.min(self.weights.len());
        let lowest = self.weights.iter().take(moved).fold(0u16, |sum, weight| sum.saturating_add(*weight));
        self.weights.iter_mut().take(moved).for_each(|weight| *weight = 0);
        self.weights.rotate_left(moved);
        if let Some(first) = self.weights.first_mut() {
            *first = first.saturating_add(lowest);
        }
        self.bottom += i32::try_from(up).unwrap_or(0);
    }

    fn halve(&mut self) {
        self.weights.iter_mut().for_each(|weight| *weight /= 2);
        self.zero /= 2;
        self.total = self.weights.iter().map(|weight| u32::from(*weight)).sum::<u32>() + u32::from(self.zero);
    }

    fn edges(&self, offset: usize) -> (f64, f64) {
        let bin = self.bottom.saturating_add(i32::try_from(offset).unwrap_or(0));
        (edge_of(bin), edge_of(bin.saturating_add(1)))
    }

    fn fit(&mut self) {
        let total = f64::from(self.total);
        let limit = (TAIL * total).floor();
        let excess = (total - limit) / f64::from(WEIGHT) - 1.0;
        let mut start = None;
        let mut lower = f64::from(self.zero);
        let (mut rank, mut mean, mut moment) = (0.0, 0.0, 0.0);
        if lower > limit {
            start = Some(0.0);
            rank = (lower - limit) / f64::from(WEIGHT);
        }
        for (offset, weight) in self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            let weight = f64::from(*weight);
            let (from, to) = self.edges(offset);
            let (mut value, mut count) = ((from + to) / 2.0, weight);
            if start.is_none() && lower + weight > limit {
                let cut = from + (to - from) * ((limit - lower) / weight).clamp(0.0, 1.0);
                start = Some(cut);
                value = (cut + to) / 2.0;
                count = lower + weight - limit;
            }
            lower += weight;
            if let Some(start) = start {
                let count = count / f64::from(WEIGHT);
                let distance = value - start;
                mean += count * distance;
                moment += count * distance * (1.0 - ((rank + count / 2.0 + 0.15) / excess.max(1.0)).min(1.0));
                rank += count;
            }
        }
        let start = start.unwrap_or(0.0);
        if excess < 5.0 {
            self.tail = Tail::new(start, 0.0, 0.0, 0.0);
            return;
        }
        let (mean, moment) = (mean / rank.max(1.0), moment / rank.max(1.0));
        let share = rank * f64::from(WEIGHT) / total;
        if mean <= start * 1e-12 {
            self.tail = Tail::new(start, share, 0.0, 0.0);
            return;
        }
        let difference = mean - 2.0 * moment;
        let shape = if difference > mean * 1e-12 { (2.0 - mean / difference).clamp(0.0, 0.7) } else { 0.0 };
        self.tail = Tail::new(start, share, mean * (1.0 - shape), shape);
    }
}

/// Bins as a sequence: serde knows arrays of at most 32.
mod bins {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::BINS;

    pub(super) fn serialize<S: Serializer>(bins: &[u16; BINS], serializer: S) -> Result<S::Ok, S::Error> {
        bins.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u16; BINS], D::Error> {
        let bins = Vec::deserialize(deserializer)?;
        bins.try_into().map_err(|bins: Vec<u16>| D::Error::invalid_length(bins.len(), &"64 weights"))
    }
}

/// Number of the bin of a positive number: its exponent and the first two bits of its mantissa.
fn bin_of(value: f64) -> i32 {
    i32::try_from(value.to_bits() >> SHIFT).unwrap_or(0)
}

/// Lower edge of a bin.
fn edge_of(bin: i32) -> f64 {
    f64::from_bits(u64::try_from(bin.max(0)).unwrap_or(0) << SHIFT).min(f64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a standard exponential distribution, evenly spread.
    fn exponential(count: u32, scale: f64) -> impl Iterator<Item = f64> {
        (0..count).map(move |step| -scale * (1.0 - f64::from(step * 7919 % count) / f64::from(count)).ln())
    }

    fn taught(raws: impl Iterator<Item = f64>) -> Calibration {
        let mut calibration = Calibration::new();
        raws.for_each(|raw| calibration.learn(raw));
        calibration
    }

    #[test]
    fn an_exponential_tail_is_extrapolated() {
        let calibration = taught(exponential(2000, 3.0));
        for decades in [0.3, 1.0, 2.0, 4.0, 6.0] {
            let raw = 3.0 * decades * std::f64::consts::LN_10;
            let surprise = calibration.surprise(raw);
            assert!((surprise - decades).abs() < 0.1 + 0.15 * decades, "{decades}: {surprise}");
        }
    }

    #[test]
    fn a_raw_surprise_is_found_back_from_its_surprise() {
        let calibration = taught(exponential(2000, 3.0));
        for surprise in [1.5, 3.0, 10.0] {
            let raw = calibration.raw(surprise).unwrap();
            assert!((calibration.surprise(raw) - surprise).abs() < 1e-6);
        }
    }

    #[test]
    fn nothing_is_surprising_at_first() {
        let calibration = taught(exponential(49, 1.0));
        assert_eq!((calibration.surprise(1e9), calibration.raw(3.0), calibration.tail_start()), (0.0, None, None));
    }

    #[test]
    fn a_new_scale_is_learnt_in_both_directions() {
        for (before, after) in [(1.0, 1e9), (1e3, 1.0), (0.0, 5.0)] {
            let calibration = taught(exponential(3000, before).chain(exponential(15_000, after)));
            let surprise = calibration.surprise(after * 3.0 * std::f64::consts::LN_10);
            assert!((2.0..3.6).contains(&surprise), "{before} to {after}: {surprise}");
        }
    }

    #[test]
    fn one_enormous_value_does_not_hide_a_large_one() {
        let mut calibration = taught(exponential(2000, 1.0));
        calibration.learn(1e12);
        calibration.learn(1.0);
        (0..32).for_each(|_| calibration.learn(0.5));
        assert!(calibration.surprise(100.0) > 2.0, "{}", calibration.surprise(100.0));
    }
}
