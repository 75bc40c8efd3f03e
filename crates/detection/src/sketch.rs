//! A mergeable quantile sketch with bounded relative error.
//!
//! Source: Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
//! relative-error guarantees", PVLDB 12(12), 2019.

use serde::{Deserialize, Serialize};

/// Relative accuracy of [`Sketch::quantile`]: the answer is within 1 % of the true quantile.
pub const RELATIVE_ACCURACY: f64 = 0.01;

/// Most bins kept on each side of zero; 2048 bins of 2 % span 17 orders of magnitude.
pub const MAX_BINS: usize = 2048;

/// Magnitudes below this are counted as zero, so that every bin index is far inside `i32`.
const SMALLEST: f64 = 1e-300;

/// Distribution of weighted values, with quantiles of 1 % relative accuracy.
///
/// Values fall into bins of geometrically growing width, kept apart for positive and negative
/// values. Merging adds bins, so the order of additions and merges changes the result only as far
/// as `f64` addition rounds. When one side spans more than [`MAX_BINS`] bins, those nearest to zero
/// collapse into one: high quantiles of durations and sizes keep their accuracy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sketch {
    positive: Bins,
    negative: Bins,
    zero: f64,
    count: f64,
    sum: f64,
    /// Smallest and largest value seen.
    range: Option<(f64, f64)>,
}

impl Sketch {
    /// An empty sketch. Does not allocate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `value` with `weight` (1 for one observation). Values that are not finite and weights
    /// that are not positive and finite are ignored.
    pub fn add(&mut self, value: f64, weight: f64) {
        if !value.is_finite() || !weight.is_finite() || weight <= 0.0 {
            return;
        }
        if value.abs() < SMALLEST {
            self.zero = saturating(self.zero + weight);
        } else if value > 0.0 {
            self.positive.add(index_of(value), weight);
        } else {
            self.negative.add(index_of(-value), weight);
        }
        self.count = saturating(self.count + weight);
        self.sum = saturating(self.sum + value * weight);
        self.range = Some(self.range.map_or((value, value), |(low, high)| (low.min(value), high.max(value))));
    }

    /// Adds everything that `other` has seen.
    pub fn merge(&mut self, other: &Self) {
        self.positive.merge(&other.positive);
        self.negative.merge(&other.negative);
        self.zero = saturating(self.zero + other.zero);
        self.count = saturating(self.count + other.count);
        self.sum = saturating(self.sum + other.sum);
        self.range = match (self.range, other.range) {
            (Some((low, high)), Some((other_low, other_high))) => Some((low.min(other_low), high.max(other_high))),
            (mine, others) => mine.or(others),
        };
    }

    /// The smallest value at or below which a share of `q` (0 to 1, clamped) of the weight lies, within
    /// 1 %. `q` 0 and 1 are the exact minimum and maximum. `None` when empty or `q` is not a number.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let (low, high) = self.range?;
        if q.is_nan() {
            return None;
        }
        if q <= 0.0 {
            return Some(low);
        }
        if q >= 1.0 {
            return Some(high);
        }
        // A share of one in 10^12 absorbs what rounding of q * count may add to an exact rank.
        let rank = q * self.count * (1.0 - 1e-12);
        let mut seen = 0.0;
        let negative = self.negative.iter().rev().map(|(index, weight)| (-value_of(index), weight));
        let positive = self.positive.iter().map(|(index, weight)| (value_of(index), weight));
        for (value, weight) in negative.chain([(0.0, self.zero)]).chain(positive) {
            seen += weight;
            if weight > 0.0 && seen >= rank {
                return Some(value.clamp(low, high));
            }
        }
        Some(high)
    }

    /// Total weight.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.count
    }

    /// Weighted sum of the values.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Weighted mean of the values.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let (low, high) = self.range?;
        Some((self.sum / self.count).clamp(low, high))
    }

    /// The smallest value, exact.
    #[must_use]
    pub fn min(&self) -> Option<f64> {
        self.range.map(|(low, _)| low)
    }

    /// The largest value, exact.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        self.range.map(|(_, high)| high)
    }

    /// Whether nothing has been added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.range.is_none()
    }
}

/// Weights of consecutive bins; the first and the last are not zero, so that equal content is equal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Bins {
    first: i32,
    weights: Vec<f64>,
}

impl Bins {
    fn add(&mut self, index: i32, weight: f64) {
        if let Some(slot) = self.room_for(index) {
            *slot = saturating(*slot + weight);
        }
    }

    fn merge(&mut self, other: &Self) {
        // From the highest down, so that the final lower limit is known at once.
        for (index, weight) in other.iter().rev().filter(|(_, weight)| *weight > 0.0) {
            self.add(index, weight);
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = (i32, f64)> + '_ {
        self.weights.iter().enumerate().map(|(offset, weight)| (self.first.saturating_add(signed(offset)), *weight))
    }

    /// The bin for `index`, or the lowest one where `index` lies below the kept range.
    fn room_for(&mut self, index: i32) -> Option<&mut f64> {
        if self.weights.is_empty() {
            self.first = index;
        }
        let last = self.first.saturating_add(signed(self.weights.len())).saturating_sub(1).max(index);
        let lowest = last.saturating_sub(signed(MAX_BINS) - 1);
        if self.first < lowest {
            let surplus = unsigned(lowest.saturating_sub(self.first)).min(self.weights.len());
            let collapsed = self.weights.drain(..surplus).fold(0.0, |sum, weight| saturating(sum + weight));
            self.first = lowest;
            match self.weights.first_mut() {
                Some(bin) => *bin = saturating(*bin + collapsed),
                None => self.weights.push(collapsed),
            }
        }
        let index = index.max(lowest);
        if index < self.first {
            let missing = unsigned(self.first.saturating_sub(index));
            self.weights.splice(..0, std::iter::repeat_n(0.0, missing));
            self.first = index;
        }
        let offset = unsigned(index.saturating_sub(self.first));
        if self.weights.len() <= offset {
            self.weights.resize(offset + 1, 0.0);
        }
        self.weights.get_mut(offset)
    }
}

/// Ratio of the upper to the lower edge of a bin.
const GAMMA: f64 = (1.0 + RELATIVE_ACCURACY) / (1.0 - RELATIVE_ACCURACY);

#[expect(clippy::cast_possible_truncation, reason = "|ln(value)| is below 745, so the index is below 40,000")]
fn index_of(magnitude: f64) -> i32 {
    (magnitude.ln() / GAMMA.ln()).ceil() as i32
}

/// The value whose relative distance to both edges of the bin is [`RELATIVE_ACCURACY`].
fn value_of(index: i32) -> f64 {
    ((f64::from(index) * GAMMA.ln()).exp() * (2.0 / (1.0 + GAMMA))).min(f64::MAX)
}

/// Keeps sums of huge finite values finite.
fn saturating(value: f64) -> f64 {
    value.clamp(-f64::MAX, f64::MAX)
}

fn signed(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

fn unsigned(difference: i32) -> usize {
    usize::try_from(difference).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::new();
        values.iter().for_each(|value| sketch.add(*value, 1.0));
        sketch
    }

    /// The smallest value with at least a share `q` of the values at or below it.
    fn exact(values: &[f64], q: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = (q * sorted.len() as f64 * (1.0 - 1e-12)).ceil().max(1.0) as usize;
        sorted[rank - 1]
    }

    #[test]
    fn an_empty_sketch_answers_nothing() {
        let empty = Sketch::new();
        assert!(empty.is_empty());
        assert_eq!((empty.quantile(0.5), empty.mean(), empty.min(), empty.max()), (None, None, None, None));
        assert_eq!((empty.count(), empty.sum()), (0.0, 0.0));
    }

    #[test]
    fn what_is_not_a_number_or_has_no_weight_is_ignored() {
        let mut sketch = Sketch::new();
        for (value, weight) in
            [(f64::NAN, 1.0), (f64::INFINITY, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, f64::NAN), (1.0, f64::INFINITY)]
        {
            sketch.add(value, weight);
        }
        assert_eq!(sketch, Sketch::new());
        assert_eq!(of(&[1.0]).quantile(f64::NAN), None);
    }

    #[test]
    fn weights_count_like_repeated_values() {
        let mut weighted = Sketch::new();
        weighted.add(10.0, 3.0);
        weighted.add(1000.0, 1.0);
        assert_eq!(weighted, of(&[10.0, 10.0, 10.0, 1000.0]));
        assert_eq!(weighted.mean(), Some(257.5));
    }

    #[test]
    fn zero_and_negative_values_keep_their_order() {
        let sketch = of(&[-100.0, -1.0, 0.0, 1.0, 100.0]);
        assert_eq!((sketch.quantile(0.0), sketch.quantile(0.5), sketch.quantile(1.0)), (Some(-100.0), Some(0.0), Some(100.0)));
        let low = sketch.quantile(0.4).unwrap();
        assert!((low + 1.0).abs() <= RELATIVE_ACCURACY, "{low}");
    }

    #[test]
    fn the_number_of_bins_is_bounded_and_high_quantiles_stay_accurate() {
        let values: Vec<f64> = (-300..300).map(|exponent| 10f64.powi(exponent)).collect();
        let sketch = of(&values);
        assert!(sketch.positive.weights.len() <= MAX_BINS);
        let high = sketch.quantile(0.99).unwrap();
        let truth = exact(&values, 0.99);
        assert!((high - truth).abs() <= truth * RELATIVE_ACCURACY * 1.000_001, "{high} {truth}");
    }

    proptest! {
        #[test]
        fn quantiles_are_within_one_percent(
            values in prop::collection::vec(prop_oneof![1e-6..1e6f64, -1e6..-1e-6f64, Just(0.0)], 1..300),
            q in 0.0..=1.0f64,
        ) {
            let answer = of(&values).quantile(q).unwrap();
            let truth = exact(&values, q);
            prop_assert!((answer - truth).abs() <= truth.abs() * RELATIVE_ACCURACY * 1.000_001, "{} {}", answer, truth);
        }

        #[test]
        fn merging_in_any_order_is_adding_everything(
            values in prop::collection::vec(-1e150..1e150f64, 0..200),
            small in prop::collection::vec(1e-300..1e-100f64, 0..50),
            cut in 0usize..200,
        ) {
            let all: Vec<f64> = values.iter().chain(&small).copied().collect();
            let (left, right) = all.split_at(cut.min(all.len()));
            let (mut forward, mut backward) = (of(left), of(right));
            forward.merge(&of(right));
            backward.merge(&of(left));
            prop_assert_eq!(&forward.positive, &backward.positive);
            prop_assert_eq!(&forward.negative, &backward.negative);
            let at_once = of(&all);
            prop_assert_eq!(&forward.positive, &at_once.positive);
            prop_assert_eq!(forward.quantile(0.9), at_once.quantile(0.9));
            prop_assert_eq!(forward.count(), at_once.count());
        }

        #[test]
        fn any_input_gives_finite_answers_and_survives_serialisation(
            pairs in prop::collection::vec((any::<f64>(), any::<f64>()), 0..60),
        ) {
            let mut sketch = Sketch::new();
            pairs.iter().for_each(|(value, weight)| sketch.add(*value, *weight));
            prop_assert!(sketch.count().is_finite() && sketch.sum().is_finite());
            if !sketch.is_empty() {
                for q in [0.0, 0.01, 0.5, 0.99, 1.0] {
                    prop_assert!(sketch.quantile(q).unwrap().is_finite());
                }
                prop_assert!(sketch.mean().unwrap().is_finite());
            }
            let text = serde_json::to_string(&sketch).unwrap();
            prop_assert_eq!(serde_json::from_str::<Sketch>(&text).unwrap(), sketch);
        }
    }
}
