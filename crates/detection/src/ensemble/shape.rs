//! How far the newest shape of a series is from the nearest shape it has shown before.
//!
//! The distance to the nearest neighbour among earlier windows is the left matrix profile. Sources:
//! Yeh et al., "Matrix profile I", ICDM 2016; Lu et al., "Matrix profile XXIV: scaling time series
//! anomaly detection to trillions of datapoints" (DAMP), KDD 2022. Windows are never normalised by
//! their own spread: amplitude matters.

use serde::{Deserialize, Serialize};

/// Values dropped at once when a history is full.
const SLACK: usize = 16;
/// Longest history.
pub(crate) const LONGEST: usize = 512;
/// Means that are compared, and what a block may read beyond them.
const ROOM: usize = LONGEST + SLACK + LANES;

/// An integer that stands for a value of a history.
pub(crate) trait Quantum: Copy + Into<f32> + Into<f64> {
    /// Largest magnitude.
    const LARGEST: f64;
    /// Magnitude that is aimed at, so that there is room for larger values.
    const AIM: f64;
    /// Most that one value may widen the scale.
    const OUTLIER: f64;

    /// The nearest integer to a number of at most `LARGEST`.
    fn nearest(number: f64) -> Self;
}

impl Quantum for i16 {
    const LARGEST: f64 = 32_000.0;
    const AIM: f64 = 16_000.0;
    const OUTLIER: f64 = 64.0;

    #[expect(clippy::cast_possible_truncation, reason = "clamped to 16 bits; NaN, from 0 / 0, becomes 0")]
    fn nearest(number: f64) -> Self {
        number.round() as Self
    }
}

impl Quantum for i8 {
    const LARGEST: f64 = 127.0;
    const AIM: f64 = 110.0;
    const OUTLIER: f64 = 16.0;

    #[expect(clippy::cast_possible_truncation, reason = "clamped to 8 bits; NaN, from 0 / 0, becomes 0")]
    fn nearest(number: f64) -> Self {
        number.round() as Self
    }
}

/// What is kept of the values of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kept {
    Mean,
    Highest,
    Lowest,
}

/// The last means (or extremes) of `step` consecutive values, quantised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct History<Q> {
    kept: Kept,
    step: u8,
    filled: u8,
    /// Sum or extreme of the values of the step so far.
    sum: f64,
    /// Means that are kept at least.
    capacity: u16,
    /// Means since the last break in the order of values, saturating.
    unbroken: u16,
    /// Means until the scale is looked at again.
    review: u16,
    /// Value of a quantised 0, and the size of one quantum.
    centre: f64,
    unit: f64,
    /// Oldest first.
    #[serde(deserialize_with = "trimmed")]
    #[serde(bound(deserialize = "Q: Deserialize<'de>"))]
    means: Vec<Q>,
}

impl<Q: Quantum> History<Q> {
    pub(crate) fn new(kept: Kept, step: u8, capacity: usize) -> Self {
        let capacity = capacity.min(LONGEST);
        Self {
            kept,
            step: step.max(1),
            filled: 0,
            sum: 0.0,
            capacity: u16::try_from(capacity).unwrap_or(u16::MAX),
            unbroken: 0,
            review: 0,
            centre: 0.0,
            unit: 0.0,
            means: Vec::with_capacity(capacity + SLACK),
        }
    }

    /// Heap memory in bytes.
    pub(crate) fn heap(&self) -> usize {
        self.means.capacity() * size_of::<Q>()
    }

    /// Adds a value; true when it completes a step.
    pub(crate) fn push(&mut self, value: f64) -> bool {
        self.sum = match self.kept {
            Kept::Mean => self.sum + value,
            _ if self.filled == 0 => value,
            Kept::Highest => self.sum.max(value),
            Kept::Lowest => self.sum.min(value),
        };
        self.filled = self.filled.saturating_add(1);
        if self.filled < self.step {
            return false;
        }
        let mean = if self.kept == Kept::Mean { self.sum / f64::from(self.filled) } else { self.sum };
        self.filled = 0;
        self.sum = 0.0;
        self.push_mean(mean);
        true
    }

    /// Tells that values are missing before the next one: no window reaches over the gap.
    pub(crate) fn interrupt(&mut self) {
        self.filled = 0;
        self.sum = 0.0;
        self.unbroken = 0;
    }

    /// All means that are kept, oldest first.
    pub(crate) fn values(&self) -> Vec<f64> {
        self.means.iter().map(|quantised| self.centre + Into::<f64>::into(*quantised) * self.unit).collect()
    }

    /// Whether there is something to compare the newest `width` means with.
    pub(crate) fn knows(&self, width: usize) -> bool {
        usize::from(self.unbroken) >= width && self.means.len() >= 2 * width
    }

    /// Distance of the newest `width` means to the nearest earlier, not overlapping ones; `None` while
    /// there are none.
    pub(crate) fn distance(&self, width: usize, centred: bool) -> Option<f64> {
        if !self.knows(width) || width == 0 {
            return None;
        }
        let wide = self.widened();
        let newest = wide.get(self.means.len() - width..self.means.len())?;
        let candidates = self.means.len() + 1 - 2 * width;
        let mut best = Nearest::new();
        for start in (0..candidates).step_by(LANES) {
            let mut sums = Sums::default();
            sums.add(wide.get(start..)?, newest);
            best.take(&sums, width, centred, candidates - start);
        }
        Some(self.in_units(&best))
    }

    /// Distances of the newest `half` and of the newest `2 * half` means less their own means to the
    /// nearest earlier ones, in one pass.
    pub(crate) fn centred_distances(&self, half: usize) -> (Option<f64>, Option<f64>) {
        let width = 2 * half;
        let length = self.means.len();
        if !self.knows(width) || half == 0 {
            return (self.distance(half, true), None);
        }
        let wide = self.widened();
        let Some((older, newer)) = wide.get(length - width..length).and_then(|newest| newest.split_at_checked(half)) else {
            return (None, None);
        };
        // A window of `width` that starts at `start` ends with the window of `half` at `start + half`.
        let (candidates, longer) = (length + 1 - 3 * half, length + 1 - 2 * width);
        let (mut short, mut long) = (Nearest::new(), Nearest::new());
        for start in (0..candidates).step_by(LANES) {
            let mut sums = Sums::default();
            let (Some(all), Some(last)) = (wide.get(start..), wide.get(start + half..)) else { break };
            sums.add(last, newer);
            short.take(&sums, half, true, candidates - start);
            if let Some(left) = longer.checked_sub(start).filter(|left| *left > 0) {
                sums.add(all, older);
                long.take(&sums, width, true, left);
            }
        }
        (Some(self.in_units(&short)), Some(self.in_units(&long)))
    }

    /// All means as `f32` quanta, with room for a block to read beyond them.
    fn widened(&self) -> [f32; ROOM] {
        let mut wide = [0f32; ROOM];
        for (wide, mean) in wide.iter_mut().zip(&self.means) {
            *wide = (*mean).into();
        }
        wide
    }

    fn in_units(&self, nearest: &Nearest) -> f64 {
        f64::from(nearest.least().max(0.0)).sqrt() * self.unit
    }

    fn push_mean(&mut self, mean: f64) {
        if self.means.is_empty() {
            self.centre = mean;
        }
        if self.means.len() >= usize::from(self.capacity) + SLACK {
            self.means.drain(..SLACK);
        }
        self.review = self.review.saturating_sub(1);
        let mean = if self.means.len() < SLACK || self.unit <= 0.0 {
            mean
        } else {
            // One enormous value must not leave all others without a quantum of difference.
            let reach = Q::OUTLIER * Q::AIM * self.unit;
            mean.clamp(self.centre - reach, self.centre + reach)
        };
        let distance = (mean - self.centre).abs();
        if (distance > Q::LARGEST * self.unit && distance > 0.0) || self.review == 0 {
            self.rescale(mean);
        }
        let quantised = self.quantise(mean);
        // A restored history may lack the room for it.
        self.means.reserve_exact((usize::from(self.capacity) + SLACK).saturating_sub(self.means.len()));
        self.means.push(quantised);
        self.unbroken = self.unbroken.saturating_add(1);
    }

    /// Centres and scales all values to what is there and `mean`.
    fn rescale(&mut self, mean: f64) {
        self.review = self.capacity / 4;
        let (low, high) = self.means.iter().fold((mean, mean), |(low, high), quantised| {
            let value = self.centre + Into::<f64>::into(*quantised) * self.unit;
            (low.min(value), high.max(value))
        });
        let unit = (high - low) / 2.0 / Q::AIM;
        let centre = low + (high - low) / 2.0;
        let off = (mean - self.centre).abs() > Q::LARGEST * self.unit;
        if !off && unit > self.unit / 4.0 {
            return;
        }
        let (old_centre, old_unit) = (self.centre, self.unit);
        self.centre = centre;
        self.unit = unit;
        let mut means = std::mem::take(&mut self.means);
        for quantised in &mut means {
            *quantised = self.quantise(old_centre + Into::<f64>::into(*quantised) * old_unit);
        }
        self.means = means;
    }

    fn quantise(&self, mean: f64) -> Q {
        Q::nearest(((mean - self.centre) / self.unit).clamp(-Q::LARGEST, Q::LARGEST))
    }
}

/// A restored history takes no more memory than one that was never saved.
fn trimmed<'de, D: serde::Deserializer<'de>, Q: Deserialize<'de>>(deserializer: D) -> Result<Vec<Q>, D::Error> {
    let mut means = Vec::deserialize(deserializer)?;
    means.shrink_to_fit();
    Ok(means)
}

/// Windows that are compared at once.
const LANES: usize = 16;

/// Sums over differences to `LANES` consecutive windows.
#[derive(Default)]
struct Sums {
    squares: [f32; LANES],
    plain: [f32; LANES],
}

impl Sums {
    /// Adds the differences between `newest` and the windows that start at the first means of `past`.
    fn add(&mut self, past: &[f32], newest: &[f32]) {
        for (offset, value) in newest.iter().enumerate() {
            let Some(past) = past.get(offset..).and_then(|past| past.first_chunk::<LANES>()) else { return };
            for ((square, plain), past) in self.squares.iter_mut().zip(&mut self.plain).zip(past) {
                let difference = past - value;
                *square += difference * difference;
                *plain += difference;
            }
        }
    }
}

/// The least squared distance so far, per lane.
struct Nearest([f32; LANES]);

impl Nearest {
    fn new() -> Self {
        Self([f32::INFINITY; LANES])
    }

    /// Takes the first `valid` distances of a block.
    fn take(&mut self, sums: &Sums, width: usize, centred: bool, valid: usize) {
        // The mean difference is what centring takes away.
        let share = if centred { 1.0 / narrow(width) } else { 0.0 };
        let mut squares = sums.squares;
        for (square, plain) in squares.iter_mut().zip(&sums.plain) {
            *square -= plain * plain * share;
        }
        if valid < LANES {
            squares.iter_mut().skip(valid).for_each(|beyond| *beyond = f32::INFINITY);
        }
        for (best, square) in self.0.iter_mut().zip(&squares) {
            *best = if square < best { *square } else { *best };
        }
    }

    fn least(&self) -> f32 {
        self.0.iter().copied().fold(f32::INFINITY, f32::min)
    }
}

#[expect(clippy::cast_precision_loss, reason = "widths are small")]
fn narrow(width: usize) -> f32 {
    width as f32
}
