//! What holds for any input.

use detection::{Parameters, Quantity, Series, State, Verdict, Waiting};
use proptest::prelude::*;

fn quantity() -> impl Strategy<Value = Quantity> {
    prop_oneof![
        Just(Quantity::Count),
        Just(Quantity::Rate),
        Just(Quantity::Ratio),
        Just(Quantity::Duration),
        Just(Quantity::Level)
    ]
}

/// Ordinary values, steps between scales, constants and everything that `f64` can hold.
fn values() -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![
        6 => -1.0..1.0f64,
        3 => 0.0..1e4f64,
        2 => Just(0.0),
        2 => Just(1e12),
        1 => any::<f64>(),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::MAX), Just(f64::MIN), Just(f64::MIN_POSITIVE)],
    ];
    prop::collection::vec(value, 1..700)
}

fn eager() -> Parameters {
    Parameters { warmup: 0, page_threshold: 0.1, min_relative_deviation: 0.0, ..Parameters::default() }
}

fn check(verdict: &Verdict) -> Result<(), TestCaseError> {
    for score in [verdict.point, verdict.alert, verdict.page] {
        prop_assert!(score.is_finite() && score >= 0.0, "{verdict:?}");
    }
    for bound in [verdict.expected, verdict.lower, verdict.upper].into_iter().flatten() {
        prop_assert!(bound.is_finite(), "{verdict:?}");
    }
    if let (Some(lower), Some(expected), Some(upper)) = (verdict.lower, verdict.expected, verdict.upper) {
        prop_assert!(lower <= expected && expected <= upper, "{verdict:?}");
    }
    if let Some(finding) = &verdict.finding {
        prop_assert!((0.0..=100.0).contains(&finding.score) && (0.0..=1.0).contains(&finding.probability), "{verdict:?}");
        prop_assert!(!finding.reasons.is_empty());
        let shares: f64 = finding.reasons.iter().map(|reason| reason.share).sum();
        prop_assert!((shares - 1.0).abs() < 1e-9, "{verdict:?}");
        for reason in &finding.reasons {
            prop_assert!(reason.surprise.is_finite() && reason.expected.is_finite(), "{verdict:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_values_get_finite_scores(quantity in quantity(), values in values(), samples in any::<f64>()) {
        let mut series = Series::new(quantity, 60.0);
        for (step, value) in values.iter().enumerate() {
            check(&series.observe(60.0 * step as f64, *value, samples, &eager()))?;
        }
    }

    #[test]
    fn any_times_and_steps_are_survived(times in prop::collection::vec(any::<f64>(), 1..200), bucket in any::<f64>()) {
        let mut series = Series::new(Quantity::Level, bucket);
        for time in times {
            check(&series.observe(time, time.sin(), 1.0, &eager()))?;
        }
    }

    #[test]
    fn saving_and_loading_in_the_middle_changes_nothing(quantity in quantity(), values in values(), cut in 0usize..700) {
        let mut original = Series::new(quantity, 60.0);
        let mut restored = original.clone();
        for (step, value) in values.iter().enumerate() {
            if step == cut {
                restored = serde_json::from_str(&serde_json::to_string(&restored).unwrap()).unwrap();
                prop_assert_eq!(&restored, &original);
            }
            let time = 1800.0 * step as f64;
            let expected = original.observe(time, *value, 20.0, &eager());
            prop_assert_eq!(restored.observe(time, *value, 20.0, &eager()), expected);
        }
    }
}

#[test]
fn a_constant_series_is_quiet_and_its_first_change_is_found() {
    for (level, other) in [(0.0, 30.0), (42.0, 84.0), (1e12, 0.0), (1e-9, 1e-6)] {
        let mut series = Series::new(Quantity::Level, 60.0);
        for step in 0..2000 {
            let verdict = series.observe(60.0 * f64::from(step), level, 1.0, &Parameters::default());
            assert_eq!(verdict.finding, None);
        }
        let verdict = series.observe(120_000.0, other, 1.0, &Parameters::default());
        assert!(verdict.finding.is_some(), "{level} -> {other}: {verdict:?}");
    }
}

#[test]
fn a_series_that_starts_to_live_after_days_of_silence_is_learnt() {
    let mut series = Series::new(Quantity::Count, 60.0);
    let mut findings = 0;
    for step in 0..14_400u32 {
        let busy = step >= 7_200;
        let value = if busy { 1000.0 + f64::from(step * 7919 % 101) } else { 0.0 };
        findings += u32::from(series.observe(60.0 * f64::from(step), value, 1.0, &Parameters::default()).finding.is_some());
    }
    assert!((1..=3).contains(&findings), "{findings}");
}

#[test]
fn repeated_and_earlier_times_are_not_learnt() {
    let mut series = Series::new(Quantity::Level, 60.0);
    series.observe(600.0, 1.0, 1.0, &Parameters::default());
    let before = series.clone();
    for time in [600.0, 540.0, f64::NAN, f64::INFINITY] {
        assert_eq!(series.observe(time, 5.0, 1.0, &Parameters::default()), Verdict::default());
    }
    assert_eq!(series, before);
    assert_eq!(series.state(), State::Warming { seen: 1, needed: 240, reason: Waiting::Warmup });
}

#[test]
fn few_calls_are_no_evidence() {
    let mut series = Series::new(Quantity::Ratio, 60.0);
    for step in 0..3000u32 {
        series.observe(60.0 * f64::from(step), 0.0, 2.0, &Parameters::default());
    }
    let verdict = series.clone().observe(180_000.0, 0.5, 2.0, &Parameters::default());
    assert_eq!(verdict.finding, None, "one error of two calls");
    let verdict = series.observe(180_000.0, 0.5, 200.0, &Parameters::default());
    assert!(verdict.finding.is_some(), "a hundred errors of two hundred calls: {verdict:?}");
}

#[test]
fn a_series_is_small_and_does_not_grow() {
    let mut series = Series::new(Quantity::Level, 60.0);
    let new = series.bytes();
    for step in 0..20_000u32 {
        series.observe(60.0 * f64::from(step), f64::from(step * 7919 % 1009), 1.0, &Parameters::default());
    }
    assert_eq!(series.bytes(), new);
    let restored: Series = serde_json::from_str(&serde_json::to_string(&series).unwrap()).unwrap();
    assert!(new <= 8192 && restored.bytes() <= 8192, "{new} bytes, restored {}", restored.bytes());
}

#[test]
fn a_counter_that_only_grows_is_no_finding() {
    let mut series = Series::new(Quantity::Level, 60.0);
    for step in 0..20_000u32 {
        let verdict = series.observe(60.0 * f64::from(step), 1e9 + 250.0 * f64::from(step), 1.0, &Parameters::default());
        assert_eq!(verdict.finding, None, "step {step}");
    }
}

#[test]
fn a_long_gap_is_no_finding() {
    let rhythm =
        |step: u32| 100.0 + 40.0 * (f64::from(step) / 1440.0 * std::f64::consts::TAU).sin() + f64::from(step * 7919 % 13);
    let mut series = Series::new(Quantity::Level, 60.0);
    for step in (0..7_200u32).chain(9_000..12_000).chain(12_005..16_000) {
        let verdict = series.observe(60.0 * f64::from(step), rhythm(step), 1.0, &Parameters::default());
        assert_eq!(verdict.finding, None, "step {step}");
    }
}
