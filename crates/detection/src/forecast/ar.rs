//! Autoregression of order four, learnt by recursive least squares.
//!
//! Source: Haykin, "Adaptive Filter Theory" (recursive least squares with exponential forgetting);
//! the clipping makes single outliers harmless to the weights.

use serde::{Deserialize, Serialize};

const ORDER: usize = 4;
/// The lags and a constant.
const INPUTS: usize = ORDER + 1;
/// Forgetting per point: a memory of 2000 points.
const FORGETTING: f64 = 0.9995;
/// Uncertainty of the weights at the start.
const UNCERTAINTY: f64 = 100.0;
/// Scaled inputs and targets are cut here.
const INPUT_LIMIT: f64 = 6.0;
/// Scaled errors that the weights learn from are cut here.
const ERROR_LIMIT: f64 = 4.0;
/// Slowest rate of the running mean and variance.
const SCALE_RATE: f64 = 0.002;

/// What the last four values let expect of the next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Autoregression {
    weights: [f64; INPUTS],
    /// Inverse correlation of the inputs.
    inverse: [[f64; INPUTS]; INPUTS],
    /// The last values, newest first.
    lags: [f64; ORDER],
    mean: f64,
    variance: f64,
    seen: u32,
    /// A long gap precedes the next value.
    broken: bool,
}

impl Autoregression {
    pub(crate) fn new() -> Self {
        let mut weights = [0.0; INPUTS];
        weights[0] = 1.0;
        Self { weights, inverse: diagonal(), lags: [0.0; ORDER], mean: 0.0, variance: 1e-9, seen: 0, broken: false }
    }

    /// The next value; `None` before the first one and after a long gap.
    pub(crate) fn expect(&self) -> Option<f64> {
        if self.seen == 0 || self.broken {
            return None;
        }
        Some(dot(&self.weights, &self.inputs()) * self.deviation() + self.mean)
    }

    /// Learns the next value.
    pub(crate) fn learn(&mut self, value: f64) {
        if self.broken {
            self.broken = false;
            self.lags = [value; ORDER];
            return;
        }
        self.learn_step(value);
        self.shift(value);
    }

    /// Forgets the last values, which say nothing about the next one after a long gap.
    pub(crate) fn interrupt(&mut self) {
        self.broken = true;
    }

    /// Takes a value as the last one without learning from it.
    pub(crate) fn shift(&mut self, value: f64) {
        self.lags.rotate_right(1);
        self.lags[0] = value;
    }

    fn learn_step(&mut self, value: f64) {
        if self.seen == 0 {
            self.seen = 1;
            self.mean = value;
            self.lags = [value; ORDER];
            return;
        }
        let inputs = self.inputs();
        let target = ((value - self.mean) / self.deviation()).clamp(-INPUT_LIMIT, INPUT_LIMIT);
        let error = (target - dot(&self.weights, &inputs)).clamp(-ERROR_LIMIT, ERROR_LIMIT);
        let mut projected = [0.0; INPUTS];
        for (out, row) in projected.iter_mut().zip(&self.inverse) {
            *out = dot(row, &inputs);
        }
        let divisor = FORGETTING + dot(&inputs, &projected);
        let gain = projected.map(|value| value / divisor);
        for (weight, gain) in self.weights.iter_mut().zip(&gain) {
            *weight += gain * error;
        }
        let mut trace = 0.0;
        for (number, (row, gain)) in self.inverse.iter_mut().zip(&gain).enumerate() {
            for (column, (cell, projected)) in row.iter_mut().zip(&projected).enumerate() {
                *cell = (*cell - gain * projected) / FORGETTING;
                if column == number {
                    trace += *cell;
                }
            }
        }
        if trace.is_nan() || trace > 1e6 * INPUTS as f64 {
            self.inverse = diagonal();
        }
        self.seen = self.seen.saturating_add(1);
        let rate = (1.0 / f64::from(self.seen)).max(SCALE_RATE);
        let limit = INPUT_LIMIT * self.variance.sqrt() + 1e-9;
        let mut difference = value - self.mean;
        if self.seen > 31 {
            difference = difference.clamp(-limit, limit);
        }
        self.mean += rate * difference;
        self.variance += rate * (difference * difference - self.variance);
    }

    fn inputs(&self) -> [f64; INPUTS] {
        let deviation = self.deviation();
        let mut inputs = [1.0; INPUTS];
        for (input, lag) in inputs.iter_mut().zip(&self.lags) {
            *input = ((lag - self.mean) / deviation).clamp(-INPUT_LIMIT, INPUT_LIMIT);
        }
        inputs
    }

    fn deviation(&self) -> f64 {
        self.variance.max(0.0).sqrt() + 1e-9
    }
}

fn diagonal() -> [[f64; INPUTS]; INPUTS] {
    let mut matrix = [[0.0; INPUTS]; INPUTS];
    for (number, row) in matrix.iter_mut().enumerate() {
        for (column, cell) in row.iter_mut().enumerate() {
            if column == number {
                *cell = UNCERTAINTY;
            }
        }
    }
    matrix
}

fn dot(left: &[f64; INPUTS], right: &[f64; INPUTS]) -> f64 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}
