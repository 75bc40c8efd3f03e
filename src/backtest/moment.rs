//! Moments as people give them to a command: `2026-01-01`, `2026-01-01T10:30:00+01:00`, `now`, `14d`.

use crate::model::UnixNanos;

/// Why a text is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a moment: expected a date (`2026-01-01`), a time (`2026-01-01T10:30:00Z`, without an offset it is UTC), `now`, or how long ago (`14d`, `36h`)"
)]
pub struct MomentError(String);

/// What a moment may be relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The moment.
    pub at: UnixNanos,
    /// Whether it was given as so long before now.
    pub relative: bool,
}

/// Reads a moment; how long ago is counted from `now`.
///
/// # Errors
/// What was expected.
pub fn parse(text: &str, now: UnixNanos) -> Result<Reading, MomentError> {
    let wrong = || MomentError(text.to_owned());
    let word = text.trim().to_lowercase();
    if word == "now" {
        return Ok(Reading { at: now, relative: true });
    }
    let ago = word.strip_suffix("ago").unwrap_or(&word).trim();
    let ago = ago.strip_prefix("now").map_or(ago, str::trim).trim_start_matches('-').trim();
    // `14d`; a bare number is a Unix time.
    if ago.ends_with(|c: char| c.is_ascii_alphabetic())
        && let Ok(duration) = humantime::parse_duration(ago)
    {
        let nanos = u64::try_from(duration.as_nanos()).map_err(|_| wrong())?;
        return Ok(Reading { at: now.minus(nanos), relative: true });
    }
    let seconds = history::seconds(text).filter(|s| (0.0..1.8e10).contains(s)).ok_or_else(wrong)?;
    Ok(Reading { at: UnixNanos((seconds * 1e3).round() as u64 * 1_000_000), relative: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos::from_secs(1_768_473_000);

    #[test]
    fn every_way_to_say_a_moment_is_understood() {
        let day = 86_400 * UnixNanos::SECOND;
        for (text, wanted, relative) in [
            ("now", NOW, true),
            ("14d", NOW.minus(14 * day), true),
            ("now-14d", NOW.minus(14 * day), true),
            ("36h ago", NOW.minus(36 * 3600 * UnixNanos::SECOND), true),
            ("2026-01-01", UnixNanos::from_secs(1_767_225_600), false),
            ("2026-01-01 10:30", UnixNanos::from_secs(1_767_263_400), false),
            ("2026-01-01T10:30:00", UnixNanos::from_secs(1_767_263_400), false),
            ("2026-01-01T11:30:00+01:00", UnixNanos::from_secs(1_767_263_400), false),
            ("1767263400", UnixNanos::from_secs(1_767_263_400), false),
        ] {
            assert_eq!(parse(text, NOW), Ok(Reading { at: wanted, relative }), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_says_what_one_is() {
        for text in ["", "soon", "14 parsecs", "2026-13-01", "-5"] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
        insta::assert_snapshot!(parse("soon", NOW).unwrap_err());
    }
}
