//! A score on the scale of -log10(probability), by the median and the 99 % quantile of its own past.
//!
//! Between and beyond the two the tail is taken as exponential, for which -log10(probability) is a straight line. That
//! keeps the order of scores as it is, however large; a rank in the past would make all large scores alike, and a
//! long incident would be usual by its own past. The past is a histogram with eight bins per factor of two, whose
//! weights are halved when twice the memory is full.

use serde::{Deserialize, Serialize};

/// Scores that only tell where the quantiles are about.
const WARM: u32 = 60;
/// Bins per factor of two.
const FINENESS: f64 = 8.0;
/// Smallest score that has a bin of its own.
const SMALLEST: f64 = 1.0 / 64.0;
const BINS: usize = 96;
/// The higher quantile, and what it is in -log10 units.
const HIGH: f64 = 0.75;
const HIGH_SURPRISE: f64 = 2.0 * std::f64::consts::LOG10_2;
/// What the median is in -log10 units.
const MEDIAN_SURPRISE: f64 = std::f64::consts::LOG10_2;
/// The quantiles are at least this far apart.
const NARROWEST: f64 = 1e-2;
/// Scores between two looks at the quantiles.
const EVERY: u32 = 32;

/// The usual range of a score that is gathered over some minutes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Span {
    /// All weights are halved at this total.
    full: u32,
    seen: u32,
    total: u32,
    /// The score, gathered over the last minutes.
    gathered: f64,
    median: f64,
    high: f64,
    bins: Box<[u32]>,
}

impl Span {
    /// A past of about `memory` scores, of which none is known.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "limited before")]
    pub(super) fn new(memory: f64) -> Self {
        let full = (memory * 4.0 / 3.0).clamp(1e2, 1e9) as u32;
        Self { full, seen: 0, total: 0, gathered: 0.0, median: 0.0, high: 0.0, bins: vec![0; BINS].into() }
    }

    pub(super) fn heap(&self) -> usize {
        size_of_val(&*self.bins)
    }

    /// Gathers a score with the ones before it, of which `fresh` is the share of the new one; gives -log10 of the
    /// chance of as much, 0 while little is known.
    pub(super) fn follow(&mut self, score: f64, fresh: f64) -> f64 {
        self.gathered = if self.seen == 0 { score } else { self.gathered + fresh * (score - self.gathered) };
        let surprise = self.surprise();
        self.learn();
        surprise
    }

    fn surprise(&self) -> f64 {
        if self.seen < WARM {
            return 0.0;
        }
        let distance = (self.gathered - self.median) / (self.high - self.median).max(NARROWEST);
        (MEDIAN_SURPRISE + distance * (HIGH_SURPRISE - MEDIAN_SURPRISE)).max(0.0)
    }

    fn learn(&mut self) {
        if self.total >= self.full {
            self.bins.iter_mut().for_each(|weight| *weight /= 2);
            self.total = self.bins.iter().sum();
        }
        if let Some(weight) = self.bins.get_mut(bin(self.gathered)) {
            *weight += 1;
            self.total += 1;
        }
        self.seen = self.seen.saturating_add(1);
        if self.seen.is_multiple_of(EVERY) || self.seen == WARM {
            self.median = self.quantile(0.5);
            self.high = self.quantile(HIGH);
        }
    }

    fn quantile(&self, share: f64) -> f64 {
        let wanted = share * f64::from(self.total);
        let mut below = 0.0;
        for (number, weight) in self.bins.iter().enumerate() {
            let weight = f64::from(*weight);
            if below + weight >= wanted && weight > 0.0 {
                return edge(number as f64 + (wanted - below) / weight);
            }
            below += weight;
        }
        edge(BINS as f64)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
fn bin(score: f64) -> usize {
    let place = ((score / SMALLEST).max(1e-9).log2() * FINENESS) + 1.0;
    (place.max(0.0) as usize).min(BINS - 1)
}

/// The score at a place among the bins; the first one begins at 0.
fn edge(place: f64) -> f64 {
    if place < 1.0 { SMALLEST * place } else { SMALLEST * ((place - 1.0) / FINENESS).exp2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scores of a standard exponential distribution, in a scrambled order, each by itself.
    fn taught(count: u32, scale: f64) -> Span {
        let mut span = Span::new(1e5);
        for step in 0..count {
            span.follow(-scale * (1.0 - f64::from(step * 7919 % count) / f64::from(count)).ln(), 1.0);
        }
        span
    }

    #[test]
    fn an_exponential_score_is_on_the_scale_of_its_probability() {
        for scale in [0.1, 1.0, 4.0] {
            for decades in [0.3, 0.6, 2.0, 4.0] {
                let surprise = taught(4000, scale).follow(scale * decades * std::f64::consts::LN_10, 1.0);
                assert!((surprise - decades).abs() < 0.1 + 0.1 * decades, "{scale}, {decades}: {surprise}");
            }
        }
    }

    #[test]
    fn an_incident_of_a_tenth_of_the_past_changes_little_of_what_is_usual() {
        let mut span = taught(4000, 1.0);
        let before = span.follow(20.0, 1.0);
        (0..400).for_each(|_| {
            span.follow(20.0, 1.0);
        });
        let after = span.follow(20.0, 1.0);
        assert!(after > 0.7 * before, "{before} before, {after} after; its rank would be 1.0");
    }

    #[test]
    fn what_is_usual_is_forgotten_after_the_memory() {
        let mut span = Span::new(500.0);
        (0..2000).for_each(|step| {
            span.follow(8.0 + f64::from(step % 7), 1.0);
        });
        (0..3000).for_each(|step| {
            span.follow(0.1 + 0.01 * f64::from(step % 7), 1.0);
        });
        assert!(span.follow(8.0, 1.0) > 10.0);
    }

    #[test]
    fn little_is_unusual_at_first_and_a_constant_score_never() {
        let mut span = Span::new(1000.0);
        assert!((0..59).all(|step| span.follow(f64::from(step * step), 1.0) == 0.0));
        let mut span = Span::new(1000.0);
        assert!((0..500).all(|_| span.follow(1.0, 1.0) < 5.0));
    }
}
