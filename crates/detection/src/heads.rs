//! How the components' surprises become three scores.

/// An alpha-spending penalty: the longer a series is watched, the rarer an event must be.
///
pub(crate) fn penalty(seen: u32) -> f64 {
    0.5 * (f64::from(seen.max(1)) / 500.0).log10()
}

/// Root mean square.
pub(crate) fn root_mean_square(surprises: &[f64]) -> f64 {
    (surprises.iter().map(|surprise| surprise * surprise).sum::<f64>() / surprises.len().max(1) as f64).sqrt()
}

/// Arithmetic mean.
pub(crate) fn mean(surprises: &[f64]) -> f64 {
    surprises.iter().sum::<f64>() / surprises.len().max(1) as f64
}

/// The 0 to 100 scale: 25 at the threshold, 50 at three times and 75 at nine times the threshold, in
/// -log10 units; below the threshold under 25.
pub(crate) fn severity(page: f64, threshold: f64) -> f64 {
    let ratio = page.max(0.0) / threshold.max(1e-9);
    100.0 * ratio / (ratio + 3.0)
}
