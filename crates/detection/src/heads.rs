//! How the components' surprises become three scores.

/// The step, in seconds, at which the thresholds were chosen.
const USUAL_STEP: f64 = 300.0;

/// An alpha-spending penalty: the longer a series is watched, the rarer an event must be; and the finer its steps of
/// `step` seconds, because what matters to people is how often they are called in a day, not in a thousand values.
pub(crate) fn penalty(seen: u32, step: f64) -> f64 {
    let watched = (f64::from(seen.max(1)) / 500.0).log10();
    let fineness = (USUAL_STEP / step).log10().max(0.0);
    0.5 * (watched + fineness)
}

/// A single component cannot say more than this in the alert head: several must agree.
const LOUDEST: f64 = 4.0;

/// Severity of a point: root mean square of the point components.
pub(crate) fn point(surprises: &[f64]) -> f64 {
    root_mean_square(surprises.iter().copied())
}

/// One alert for one event: root mean square of the alert components less the penalty.
pub(crate) fn alert(surprises: &[f64], penalty: f64) -> f64 {
    let surprise = root_mean_square(surprises.iter().map(|surprise| surprise.min(LOUDEST)));
    // The penalty of a young series is below 0; where nothing is surprising it must not make a score of its own.
    if surprise > 0.0 { (surprise - penalty).max(0.0) } else { 0.0 }
}

/// Both heads agree: geometric mean of the mean point surprise and of extremes and calendar, half each, less the
/// penalty. All are means of surprises.
pub(crate) fn page(point: f64, extremes: f64, calendar: f64, penalty: f64) -> f64 {
    let penalty = penalty.max(0.0);
    let slow = f64::midpoint(extremes, calendar);
    ((slow - penalty).max(0.0) * (point - penalty).max(0.0)).sqrt()
}

fn root_mean_square(surprises: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = surprises.len().max(1) as f64;
    (surprises.map(|surprise| surprise * surprise).sum::<f64>() / count).sqrt()
}

/// Mean surprise.
pub(crate) fn mean(surprises: &[f64]) -> f64 {
    surprises.iter().sum::<f64>() / surprises.len().max(1) as f64
}

/// The 0 to 100 scale: 25 at the threshold, 50 at 1.7 times and 75 at three times the threshold, in -log10 units;
/// below the threshold under 25.
pub(crate) fn severity(page: f64, threshold: f64) -> f64 {
    let ratio = page.max(0.0) / threshold.max(1e-9);
    100.0 * ratio * ratio / (ratio * ratio + 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_penalty_grows_by_half_a_decade_per_decade_of_values_and_of_values_a_day() {
        assert_eq!(penalty(500, 300.0), 0.0);
        assert!((penalty(50_000, 300.0) - 1.0).abs() < 1e-12);
        assert!((penalty(500, 30.0) - 0.5).abs() < 1e-12, "ten times as many values a day");
        assert_eq!(penalty(500, 3600.0), 0.0, "coarse steps are not judged more lightly");
    }

    #[test]
    fn severity_has_its_bands_at_one_root_three_and_three_thresholds() {
        let scores = [0.0, 1.75, 1.75 * 3f64.sqrt(), 5.25].map(|page| severity(page, 1.75).round());
        assert_eq!(scores, [0.0, 25.0, 50.0, 75.0]);
        assert!(severity(300.0, 1.75) < 100.0);
    }

    #[test]
    fn one_head_alone_does_not_page() {
        assert_eq!(page(9.0, 0.0, 0.0, 0.0), 0.0);
        assert_eq!(page(0.0, 9.0, 9.0, 0.0), 0.0);
        assert!((page(4.0, 4.0, 4.0, 1.0) - 3.0).abs() < 1e-12);
    }
}
