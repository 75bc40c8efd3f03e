//! What chance alone does to counts and shares: few events or few trials are no evidence.
//!
//! Both are large-deviation (Chernoff) bounds: the chance of a count as far off is at most
//! `exp(-n KL)`, so no surprise above `n KL / ln 10` is believed. Source: Boucheron, Lugosi and Massart,
//! "Concentration inequalities", 2013, section 2.2.

use crate::quantity::Quantity;

/// Trials of prior belief behind an expected share.
const PRIOR_TRIALS: f64 = 100.0;
/// Samples at which a value counts half.
const HALF_TRUSTED: f64 = 10.0;

/// The largest surprise that `value` can support where `expected` is expected.
pub(crate) fn most_surprise(quantity: Quantity, value: f64, expected: f64, samples: f64) -> f64 {
    let nats = match quantity {
        Quantity::Count => {
            let mean = expected.max(0.0) + 0.5;
            let value = value.max(0.0);
            divergence(value, mean) - value + mean
        }
        Quantity::Ratio if known(samples) => {
            let share = ((expected.clamp(0.0, 1.0) * PRIOR_TRIALS + 0.5) / (PRIOR_TRIALS + 1.0)).clamp(1e-6, 1.0 - 1e-6);
            let value = value.clamp(0.0, 1.0);
            samples * (divergence(value, share) + divergence(1.0 - value, 1.0 - share))
        }
        Quantity::Ratio | Quantity::Rate | Quantity::Duration | Quantity::Level => return f64::INFINITY,
    };
    nats.max(0.0) / std::f64::consts::LN_10
}

/// How much a deviation counts, 0 to 1: a mean of few samples scatters by itself.
pub(crate) fn trust(quantity: Quantity, samples: f64) -> f64 {
    match quantity {
        Quantity::Ratio | Quantity::Duration if known(samples) => samples / (samples + HALF_TRUSTED),
        _ => 1.0,
    }
}

fn known(samples: f64) -> bool {
    samples.is_finite() && samples > 0.0
}

fn divergence(value: f64, expected: f64) -> f64 {
    if value <= 0.0 { 0.0 } else { value * (value / expected).ln() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_events_support_little_surprise() {
        let most = |value, expected| most_surprise(Quantity::Count, value, expected, f64::NAN);
        assert!(most(2.0, 0.0) < 1.0, "two events where none were expected");
        assert!(most(0.0, 3.0) < 2.0, "none where three were expected");
        assert!(most(20.0, 1.0) > 8.0 && most(0.0, 50.0) > 8.0);
    }

    #[test]
    fn a_share_of_few_trials_supports_little_surprise() {
        let most = |value, samples| most_surprise(Quantity::Ratio, value, 0.01, samples);
        assert!(most(0.5, 2.0) < 2.0, "one error of two calls");
        assert!(most(0.3, 100.0) > 20.0, "thirty of a hundred");
        assert_eq!(most(0.3, f64::NAN), f64::INFINITY, "unknown trials are no limit");
    }

    #[test]
    fn the_bound_holds_for_the_exact_poisson_tail() {
        for (mean, value) in [(0.5f64, 3u32), (4.0, 12), (30.0, 60)] {
            let mut probability = 1.0;
            let mut term = (-mean).exp();
            for count in 0..value {
                probability -= term;
                term *= mean / f64::from(count + 1);
            }
            let most = most_surprise(Quantity::Count, f64::from(value), mean - 0.5, f64::NAN);
            assert!(most <= -probability.log10(), "{most}, exact {}", -probability.log10());
        }
    }
}
