//! How the series of an entity vary together, and how far a step is from that.
//!
//! The Mahalanobis distance (Mahalanobis, 1936) with an exponentially weighted correlation matrix, shrunk towards
//! independence (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004), so
//! that copies of one series and constant ones do no harm. The matrix is factored (Cholesky) now and then; a distance
//! is one forward substitution.

use serde::{Deserialize, Serialize};

use super::slots::Row;

/// How much correlations are drawn towards 0.
const SHRINKAGE: f64 = 0.02;
/// Steps between two factorisations.
const EVERY: u32 = 50;
/// Smallest variance of a series given all before it; half the shrinkage is what copies have.
const SMALLEST: f64 = SHRINKAGE / 2.0;

/// Correlations of the deviations of all pairs of series, and their Cholesky factor; lower triangles, row by row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Correlation {
    size: usize,
    products: Vec<f32>,
    factor: Vec<f32>,
    until_factored: u32,
}

impl Correlation {
    pub(super) fn heap(&self) -> usize {
        (self.products.capacity() + self.factor.capacity()) * size_of::<f32>()
    }

    /// A series at the next place, or a new one at a known place: it varies with no other.
    pub(super) fn add(&mut self, place: usize) {
        if place >= self.size {
            self.size = place + 1;
            let cells = start(self.size);
            self.products.reserve_exact(cells.saturating_sub(self.products.len()));
            self.factor.reserve_exact(cells.saturating_sub(self.factor.len()));
            self.products.resize(cells, 0.0);
            self.factor.resize(cells, 0.0);
        }
        for row in place..self.size {
            for column in 0..=row {
                if row == place || column == place {
                    let cell = if row == column { 1.0 } else { 0.0 };
                    if let Some(product) = self.products.get_mut(start(row) + column) {
                        *product = cell;
                    }
                }
            }
        }
        self.refactor();
    }

    /// Mean square of the deviations that are left when each is explained by the ones before it: about 1 when usual.
    /// A series without a value counts as what the others let expect.
    pub(super) fn distance(&self, deviations: &Row) -> f64 {
        let (squares, count, _) = self.solve(deviations);
        if count > 0 { squares / f64::from(count) } else { 0.0 }
    }

    /// Each series' part in the distance: its deviation times what the others do not explain of it.
    pub(super) fn parts(&self, deviations: &Row) -> Vec<f64> {
        let (_, _, mut solved) = self.solve(deviations);
        // Backward substitution: the inverse matrix times the deviations.
        for row in (0..self.size).rev() {
            let below = (row + 1..self.size).map(|lower| self.cell(lower, row) * solved.get(lower).copied().unwrap_or(0.0));
            let rest = below.sum::<f64>();
            if let Some(value) = solved.get_mut(row) {
                *value = (*value - rest) / self.cell(row, row);
            }
        }
        let part = |(deviation, solved): (&Option<f64>, &f64)| (deviation.unwrap_or(0.0) * solved).max(0.0);
        deviations.iter().zip(&solved).take(self.size).map(part).collect()
    }

    /// Learns the deviations of a step; `rates` are the rates of the series, a pair learns with the larger one.
    pub(super) fn learn(&mut self, deviations: &Row, rates: &[f64]) {
        let mut rows = self.products.as_mut_slice();
        for (row, (deviation, rate)) in deviations.iter().zip(rates).take(self.size).enumerate() {
            let Some((cells, rest)) = rows.split_at_mut_checked(row + 1) else { return };
            rows = rest;
            let Some(deviation) = *deviation else { continue };
            for ((cell, other), other_rate) in cells.iter_mut().zip(deviations).zip(rates) {
                let Some(other) = *other else { continue };
                let product = f64::from(*cell);
                *cell = narrow(product + rate.max(*other_rate).min(1.0) * (deviation * other - product));
            }
        }
        self.until_factored = self.until_factored.saturating_sub(1);
        if self.until_factored == 0 {
            self.refactor();
        }
    }

    fn solve(&self, deviations: &Row) -> (f64, u32, [f64; super::MOST_CHANNELS]) {
        let mut solved = [0.0; super::MOST_CHANNELS];
        let (mut squares, mut count) = (0.0, 0);
        let mut rows = self.factor.as_slice();
        for (row, deviation) in deviations.iter().take(self.size).enumerate() {
            let Some((cells, rest)) = rows.split_at_checked(row + 1) else { break };
            rows = rest;
            let (Some(deviation), Some((diagonal, cells))) = (*deviation, cells.split_last()) else { continue };
            let explained: f64 = cells.iter().zip(&solved).map(|(cell, solved)| f64::from(*cell) * solved).sum();
            let left = (deviation - explained) / f64::from(*diagonal);
            if let Some(solved) = solved.get_mut(row) {
                *solved = left;
            }
            squares += left * left;
            count += 1;
        }
        (squares, count, solved)
    }

    /// Factors anew. Pairs that were learnt from different steps need not fit together; each row is cut to what is
    /// left of its length 1, so that the factor is always that of some correlation matrix.
    fn refactor(&mut self) {
        self.until_factored = EVERY;
        for row in 0..self.size {
            let mut left = 1.0;
            for column in 0..row {
                let mut rest = (1.0 - SHRINKAGE) * self.correlation(row, column);
                for before in 0..column {
                    rest -= self.cell(row, before) * self.cell(column, before);
                }
                let longest = (left - SMALLEST).max(0.0_f64).sqrt();
                let value = (rest / self.cell(column, column)).clamp(-longest, longest);
                left -= value * value;
                self.set(row, column, value);
            }
            self.set(row, row, left.max(SMALLEST).sqrt());
        }
    }

    fn set(&mut self, row: usize, column: usize, value: f64) {
        if let Some(cell) = self.factor.get_mut(start(row) + column) {
            *cell = narrow(value);
        }
    }

    fn correlation(&self, row: usize, column: usize) -> f64 {
        let product = |row: usize, column: usize| self.products.get(start(row) + column).map_or(0.0, |cell| f64::from(*cell));
        let scale = (product(row, row).max(1e-3) * product(column, column).max(1e-3)).sqrt();
        (product(row, column) / scale).clamp(-1.0, 1.0)
    }

    /// A cell of the factor.
    fn cell(&self, row: usize, column: usize) -> f64 {
        self.factor.get(start(row) + column).map_or(0.0, |cell| f64::from(*cell))
    }
}

/// Where a row of a lower triangle begins.
fn start(row: usize) -> usize {
    row * (row + 1) / 2
}

#[expect(clippy::cast_possible_truncation, reason = "rounds; deviations are limited")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entity::MOST_CHANNELS;

    fn row(values: &[f64]) -> Row {
        let mut row = [None; MOST_CHANNELS];
        row.iter_mut().zip(values).for_each(|(cell, value)| *cell = Some(*value));
        row
    }

    fn noise(step: u32) -> f64 {
        // Uniform, with a deviation of 1.
        (f64::from(step * 7919 % 10_007) / 10_007.0 - 0.5) * 12f64.sqrt()
    }

    /// Three series: the second is the first with a little noise, the third goes its own way.
    fn taught() -> Correlation {
        let mut correlation = Correlation::default();
        (0..3).for_each(|place| correlation.add(place));
        for step in 0..4000 {
            let first = noise(step);
            let values = row(&[first, 0.95 * first + 0.3 * noise(step * 31 + 7), noise(step * 17 + 3)]);
            correlation.learn(&values, &[1.0 / f64::from(step + 1); MOST_CHANNELS]);
        }
        correlation
    }

    #[test]
    fn values_that_contradict_each_other_are_further_away_than_values_that_agree() {
        let correlation = taught();
        let distances = [[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, 1.0]].map(|values| correlation.distance(&row(&values)));
        assert!(distances[1] > 5.0 * distances[0] && distances[1] > 5.0 * distances[2], "{distances:?}");
    }

    #[test]
    fn usual_values_are_at_a_distance_of_one() {
        let correlation = taught();
        let mean = (0..2000u32)
            .map(|step| {
                let first = noise(step * 13 + 5);
                correlation.distance(&row(&[first, 0.95 * first + 0.3 * noise(step * 29 + 1), noise(step * 11 + 2)]))
            })
            .sum::<f64>()
            / 2000.0;
        assert!((0.8..1.2).contains(&mean), "{mean}");
    }

    #[test]
    fn a_missing_value_is_as_the_others_let_expect() {
        let correlation = taught();
        let mut values = row(&[2.0, 0.0, 0.5]);
        values[1] = None;
        let (without, with) = (correlation.distance(&values), correlation.distance(&row(&[2.0, 1.9, 0.5])));
        assert!((without - with * 1.5).abs() < 0.2, "{without} of two, {with} of three");
    }

    #[test]
    fn the_parts_of_a_distance_point_at_the_contradiction() {
        let parts = taught().parts(&row(&[1.5, -1.5, 0.5]));
        assert!(parts[0] > 10.0 * parts[2] && parts[1] > 10.0 * parts[2], "{parts:?}");
        let (sum, distance) = (parts.iter().sum::<f64>(), taught().distance(&row(&[1.5, -1.5, 0.5])));
        assert!((sum - 3.0 * distance).abs() < 1e-3 * sum, "{sum}, {distance}");
    }

    #[test]
    fn copies_and_constants_do_no_harm() {
        let mut correlation = Correlation::default();
        (0..MOST_CHANNELS).for_each(|place| correlation.add(place));
        for step in 0..500 {
            let mut values = [noise(step); MOST_CHANNELS];
            values[5..9].fill(0.0);
            correlation.learn(&row(&values), &[0.01; MOST_CHANNELS]);
        }
        let usual = correlation.distance(&row(&[1.0; MOST_CHANNELS]));
        assert!(usual.is_finite() && usual < 3.0, "{usual}");
        let odd = correlation
            .distance(&row(&std::array::from_fn::<f64, MOST_CHANNELS, _>(|place| if place == 20 { -1.0 } else { 1.0 })));
        assert!(odd.is_finite() && odd > 2.0 * usual, "{odd}");
    }

    #[test]
    fn a_place_given_to_another_series_starts_without_correlations() {
        let mut correlation = taught();
        correlation.add(1);
        let distance = correlation.distance(&row(&[1.0, -1.0, 0.0]));
        assert!((distance - 2.0 / 3.0).abs() < 0.1, "{distance}");
    }
}
