//! A score on the scale of -log10(probability), by the median and the 99 % quantile of its own past.
//!
//! Between and beyond the two the tail is taken as exponential, for which -log10(probability) is a straight line. That
//! keeps the order of scores as it is, however large; a rank in the past would make all large scores alike, and a
//! long incident would be usual by its own past. The quantiles are followed by stochastic approximation (Robbins and
//! Monro, 1951; Tierney, "A space-efficient recursive procedure for estimating a quantile", 1983) in 40 bytes.

use serde::{Deserialize, Serialize};

/// Scores that only tell where the quantiles are about.
const WARM: u32 = 60;
/// How fast quantiles move, in spreads per memory.
const SPEED: f64 = 5.0;
/// The higher quantile, and what it is in -log10 units.
const HIGH: f64 = 0.99;
const HIGH_SURPRISE: f64 = 2.0;
/// What the median is in -log10 units.
const MEDIAN_SURPRISE: f64 = std::f64::consts::LOG10_2;
/// The quantiles are at least this far apart.
const NARROWEST: f64 = 1e-3;

/// The usual range of a score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Span {
    /// Scores remembered.
    memory: f64,
    seen: u32,
    median: f64,
    high: f64,
    /// Mean distance to the median.
    spread: f64,
    /// Mean distance to the high quantile.
    reach: f64,
}

impl Span {
    /// A past of about `memory` scores, of which none is known.
    pub(super) fn new(memory: f64) -> Self {
        Self { memory: memory.max(1.0), seen: 0, median: 0.0, high: 0.0, spread: 0.0, reach: 0.0 }
    }

    /// -log10 of the chance of a score of at least `score`; 0 while little is known.
    pub(super) fn surprise(&self, score: f64) -> f64 {
        if self.seen < WARM {
            return 0.0;
        }
        let distance = (score - self.median) / (self.high - self.median).max(NARROWEST);
        (MEDIAN_SURPRISE + distance * (HIGH_SURPRISE - MEDIAN_SURPRISE)).max(0.0)
    }

    /// Remembers a score.
    pub(super) fn learn(&mut self, score: f64) {
        self.seen = self.seen.saturating_add(1);
        let rate = (1.0 / f64::from(self.seen)).max(1.0 / self.memory);
        if self.seen < WARM {
            self.median += rate * (score - self.median);
            self.spread += rate * ((score - self.median).abs() - self.spread);
            self.high = self.median + 2.0 * self.spread;
            self.reach = 2.0 * self.spread;
            return;
        }
        self.spread += rate * ((score - self.median).abs() - self.spread);
        self.reach += rate * ((score - self.high).abs() - self.reach);
        let above = |quantile: f64| if score > quantile { 1.0 } else { 0.0 };
        self.median += SPEED * rate * self.spread * (above(self.median) - 0.5);
        self.high += SPEED * rate * self.reach * (above(self.high) - (1.0 - HIGH));
        self.high = self.high.max(self.median);
    }
}
