//! The quick memory: do several series at once what they seldom do?
//!
//! What is unusual for one series its own models know already: the surprise of the autoregression, of the time of day
//! and of the last twelve values' shape. The series' surprises are averaged with weights that fall by rank: the loudest
//! few decide, because an incident seldom reaches all, but one alone has less weight than several. Added to it is how
//! large all distances to the expected values are, as logarithms of their ratio to the usual ones, so that many small
//! ones count and one huge one cannot say everything.

use super::slots::Slot;
use crate::ensemble::models::{AR, TIME_OF_DAY};
use crate::verdict::Verdict;

/// Weight of each series as compared with the next louder one.
const FALLING: f64 = 0.7;
/// Series that are ranked; the weight of the next would be below 0.00002.
const RANKED: usize = 32;
/// Weight of the mean size of residuals beside the surprises.
const SIZE_WEIGHT: f64 = 0.3;
/// Residuals larger than so many standard deviations count as so many.
const LARGEST: f64 = 50.0;
const SHAPE12: usize = 1;

/// How unusual this value is for its own series, -log10 units.
///
/// Models that have no components to tell have a severity; its scale is that of the series alike.
pub(super) fn surprise(verdict: &Verdict) -> f64 {
    let [forecast, shape, day] = [AR, SHAPE12, TIME_OF_DAY].map(|component| verdict.surprises.get(component).copied());
    let known = |surprise: Option<f64>| surprise.filter(|surprise| surprise.is_finite()).unwrap_or(0.0);
    let surprise = 0.4 * known(forecast) + 0.4 * known(day) + 0.2 * known(shape);
    if surprise > 0.0 { surprise } else { known(Some(verdict.point)) }
}

/// The series of one step, taken together.
#[derive(Debug)]
pub(super) struct Change {
    /// The largest surprises, the largest first.
    ranked: [f64; RANKED],
    count: usize,
    /// Sum and number of the logarithms of residuals.
    size: f64,
    sized: u32,
}

impl Change {
    pub(super) fn new() -> Self {
        Self { ranked: [0.0; RANKED], count: 0, size: 0.0, sized: 0 }
    }

    /// Takes one series' surprise.
    pub(super) fn add(&mut self, surprise: f64) {
        self.count = (self.count + 1).min(RANKED);
        let mut falling = surprise;
        for place in self.ranked.iter_mut().take(self.count) {
            if falling > *place {
                std::mem::swap(place, &mut falling);
            }
        }
    }

    /// Takes the distance to what was expected of a series, and lets the series learn it with this `rate`.
    pub(super) fn add_residual(&mut self, slot: &mut Slot, residual: f64, rate: f64) {
        let deviation = slot.residual.deviation(residual, LARGEST);
        if slot.judged >= super::YOUNG {
            self.size += (1.0 + deviation * deviation).log10();
            self.sized += 1;
        }
        slot.residual.learn(residual, slot.judged, rate.max(1.0 / f64::from(slot.judged.saturating_add(1))));
        slot.judged = slot.judged.saturating_add(1);
    }

    /// How unusual the step is; no unit of its own.
    pub(super) fn score(&self) -> f64 {
        let (mut sum, mut weights, mut weight) = (0.0, 0.0, 1.0);
        for surprise in self.ranked.iter().take(self.count) {
            sum += weight * surprise;
            weights += weight;
            weight *= FALLING;
        }
        let size = if self.sized > 0 { self.size / f64::from(self.sized) } else { 0.0 };
        if weights > 0.0 { sum / weights + SIZE_WEIGHT * size } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(surprises: &[f64]) -> f64 {
        let mut change = Change::new();
        surprises.iter().for_each(|surprise| change.add(*surprise));
        change.score()
    }

    #[test]
    fn several_loud_series_weigh_more_than_one_and_their_order_nothing() {
        assert!(score(&[4.0, 4.0, 4.0, 0.0, 0.0, 0.0]) > 2.0 * score(&[4.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
        assert_eq!(score(&[1.0, 5.0, 3.0]), score(&[5.0, 3.0, 1.0]));
        assert!((score(&[2.0; 100]) - 2.0).abs() < 1e-9);
        assert_eq!(score(&[]), 0.0);
    }

    #[test]
    fn one_huge_residual_counts_by_its_logarithm() {
        let mut slot = Slot::default();
        for step in 0..500u32 {
            Change::new().add_residual(&mut slot, f64::from(step * 7919 % 101) / 101.0 - 0.5, 1e-3);
        }
        let size = |residual: f64| {
            let mut change = Change::new();
            change.add(0.0);
            change.add_residual(&mut slot.clone(), residual, 1e-3);
            change.score()
        };
        assert!(size(0.1) < size(3.0) && size(3.0) < size(1e9));
        assert!(size(1e9) < 0.3 * 3.5, "{}", size(1e9));
    }

    #[test]
    fn models_without_these_components_are_judged_by_their_severity() {
        assert_eq!(surprise(&Verdict { point: 2.5, ..Verdict::default() }), 2.5);
        assert_eq!(surprise(&Verdict { point: f64::NAN, ..Verdict::default() }), 0.0);
    }
}
