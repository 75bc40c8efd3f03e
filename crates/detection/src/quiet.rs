//! What keeps an unusual value from becoming a finding.
//!
//! All of it is applied before a finding is made: what is not told neither begins an incident nor silences what
//! comes after it.

use serde::{Deserialize, Serialize};

/// Which side of the expected value may have findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Both.
    #[default]
    Both,
    /// Only values above what was expected.
    Above,
    /// Only values below what was expected.
    Below,
}

impl Side {
    /// Whether `value` is on this side of `expected`.
    #[must_use]
    pub fn holds(self, value: f64, expected: f64) -> bool {
        match self {
            Self::Both => true,
            Self::Above => value >= expected,
            Self::Below => value < expected,
        }
    }
}

/// Whether findings are held back for now. What is held back is told at the end of the hold, if the series is still
/// abnormal then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// They are told.
    #[default]
    No,
    /// They are held back; values are learnt as always.
    Quiet,
    /// They are held back, and values are not learnt as normal: neither by the calendar nor by the calibration.
    Unlearnt,
}

/// Why a value that is unusual enough is no finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suppressed {
    /// It deviates to a side that is not of interest.
    Direction,
    /// It is nearer to what was expected than the smallest deviation of interest.
    TooSmall,
    /// Too few samples stand behind it.
    TooFewSamples,
    /// It resembles what somebody said is normal.
    Feedback,
    /// Findings are held back for now.
    Held,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Parameters, Quantity, Series, Verdict};

    const MINUTE: f64 = 60.0;
    const FAULT: u32 = 2000;

    /// 200 calls a minute with noise; from `FAULT` on `level`, for `lasts` minutes.
    fn run(lasts: u32, level: f64, until: u32, parameters: impl Fn(u32) -> Parameters) -> (Series, Vec<(u32, Verdict)>) {
        let mut series = Series::new(Quantity::Count, MINUTE);
        let mut told = Vec::new();
        for minute in 0..until {
            let noise = f64::from(minute.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 * 24.0;
            let value = noise + if (FAULT..FAULT + lasts).contains(&minute) { level } else { 200.0 };
            let verdict = series.observe(f64::from(minute) * MINUTE, value, f64::NAN, &parameters(minute));
            if verdict.finding.is_some() || verdict.suppressed.is_some() {
                told.push((minute, verdict));
            }
        }
        (series, told)
    }

    fn found(told: &[(u32, Verdict)]) -> Vec<u32> {
        told.iter().filter(|(_, v)| v.finding.is_some()).map(|(minute, _)| *minute).collect()
    }

    fn suppressed(told: &[(u32, Verdict)], reason: Suppressed) -> usize {
        told.iter().filter(|(_, v)| v.suppressed == Some(reason)).count()
    }

    fn always(parameters: Parameters) -> impl Fn(u32) -> Parameters {
        move |_| parameters
    }

    /// Holds from `FAULT` for so many minutes.
    fn held(minutes: u32, hold: Hold) -> impl Fn(u32) -> Parameters {
        move |minute| Parameters {
            hold: if (FAULT..FAULT + minutes).contains(&minute) { hold } else { Hold::No },
            ..Parameters::default()
        }
    }

    #[test]
    fn a_side_that_is_not_of_interest_has_no_findings_and_begins_no_incident() {
        for (side, level, expected) in [
            (Side::Above, 20.0, 0),
            (Side::Below, 20.0, 1),
            (Side::Below, 900.0, 0),
            (Side::Above, 900.0, 1),
            (Side::Both, 900.0, 1),
        ] {
            let (series, told) = run(30, level, FAULT + 30, always(Parameters { side, ..Parameters::default() }));
            assert_eq!(found(&told).len(), expected, "{side:?} {level}");
            assert_eq!(suppressed(&told, Suppressed::Direction) > 0, expected == 0, "{side:?} {level}");
            assert_eq!(series.in_incident(), expected > 0);
        }
    }

    #[test]
    fn small_deviations_and_few_samples_are_told_apart() {
        let parameters = Parameters { min_absolute_deviation: 1000.0, ..Parameters::default() };
        let (_, told) = run(30, 900.0, FAULT + 30, always(parameters));
        assert!(found(&told).is_empty() && suppressed(&told, Suppressed::TooSmall) > 0);
        let parameters = Parameters { min_samples: 300.0, ..Parameters::default() };
        let (_, told) = run(30, 20.0, FAULT + 30, always(parameters));
        assert!(found(&told).is_empty() && suppressed(&told, Suppressed::TooFewSamples) > 0);
        let (_, told) = run(30, 0.0, FAULT + 30, always(Parameters { min_samples: 100.0, ..Parameters::default() }));
        assert_eq!(found(&told), [FAULT], "none where two hundred were expected is well supported");
    }

    #[test]
    fn what_is_held_back_is_told_after_the_hold_if_it_is_still_so() {
        for hold in [Hold::Quiet, Hold::Unlearnt] {
            let (_, told) = run(600, 900.0, FAULT + 300, held(60, hold));
            assert_eq!(found(&told), [FAULT + 60], "{hold:?}");
            assert!(suppressed(&told, Suppressed::Held) > 0);
            let (_, told) = run(45, 900.0, FAULT + 300, held(60, hold));
            assert!(found(&told).is_empty(), "{hold:?}: it was over before: {:?}", found(&told));
        }
    }

    #[test]
    fn a_hold_that_does_not_learn_leaves_the_calendar_as_it_was() {
        let day = |hold| {
            let (_, told) = run(120, 900.0, FAULT + 1440 + 10, held(120, hold));
            let mut series = run(120, 900.0, FAULT + 1440, held(120, hold)).0;
            let verdict = series.observe(f64::from(FAULT + 1440) * MINUTE, 210.0, f64::NAN, &Parameters::default());
            (verdict.expected.unwrap(), found(&told))
        };
        let (expected, told) = day(Hold::Unlearnt);
        assert!((180.0..240.0).contains(&expected), "{expected}");
        assert!(told.is_empty(), "{told:?}");
    }
}
