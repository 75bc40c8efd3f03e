//! Moments as Elasticsearch writes them.

use crate::model::UnixNanos;

/// Reads a moment: RFC 3339, or milliseconds since 1970 with or without decimals (`1705314600000.25`, which is how
/// the Collector's exporter writes them). `None` before 1970, after 2554, and for anything else.
pub(super) fn parse(text: &str) -> Option<UnixNanos> {
    let text = text.trim();
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return epoch_millis(text);
    }
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    let seconds = u64::try_from(time.timestamp()).ok()?;
    let nanos = seconds.checked_mul(UnixNanos::SECOND)?.checked_add(u64::from(time.timestamp_subsec_nanos()))?;
    Some(UnixNanos(nanos))
}

/// Decimals are read from the text, because a double has no room for nanoseconds.
fn epoch_millis(text: &str) -> Option<UnixNanos> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let millis: u64 = whole.parse().ok()?;
    let mut nanos = 0u64;
    for digit in decimals.bytes().chain(std::iter::repeat(b'0')).take(6) {
        nanos = nanos * 10 + u64::from(digit.checked_sub(b'0').filter(|d| *d < 10)?);
    }
    Some(UnixNanos(millis.checked_mul(1_000_000)?.checked_add(nanos)?))
}

/// As Elasticsearch's `strict_date_optional_time_nanos` takes it.
pub(super) fn format(time: UnixNanos) -> String {
    let seconds = i64::try_from(time.secs()).unwrap_or(i64::MAX);
    let nanos = u32::try_from(time.0 % UnixNanos::SECOND).unwrap_or(0);
    chrono::DateTime::from_timestamp(seconds, nanos)
        .map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true))
        .unwrap_or_else(|| time.rfc3339())
}

/// The millisecond that holds `time`: `date` fields know nothing finer, so borders of windows lie on milliseconds.
pub(super) const fn millisecond(time: UnixNanos) -> UnixNanos {
    time.floor(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_in_which_a_moment_comes_is_read() {
        let wanted = Some(UnixNanos(1_705_314_600_000_000_000));
        for text in
            ["2024-01-15T10:30:00.000Z", "2024-01-15T10:30:00Z", "2024-01-15T11:30:00+01:00", "1705314600000", "1705314600000.0"]
        {
            assert_eq!(parse(text), wanted, "{text}");
        }
        assert_eq!(parse("1705314600000.25"), Some(UnixNanos(1_705_314_600_000_250_000)));
        assert_eq!(parse("2024-01-15T10:30:00.123456789Z"), Some(UnixNanos(1_705_314_600_123_456_789)));
    }

    #[test]
    fn what_is_no_moment_is_none() {
        for text in [
            "",
            "now",
            ".",
            "-1",
            "1969-12-31T23:59:59Z",
            "2024-13-01T00:00:00Z",
            "1.2.3",
            "99999999999999999999",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(nanos in 0u64..4_102_444_800_000_000_000) {
            prop_assert_eq!(parse(&format(UnixNanos(nanos))), Some(UnixNanos(nanos)));
        }
    }
}
