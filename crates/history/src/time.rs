//! Points in time as files write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// Numbers above this are milliseconds, below it seconds: it is the year 5138 in seconds, and 1973 in milliseconds.
/// Above a thousand times as much they are microseconds, and so on.
const MILLISECONDS: f64 = 1e11;

/// Without an offset they are taken as UTC.
const FORMATS: [&str; 7] = [
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y/%m/%d %H:%M:%S%.f",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
];

/// Formats with an offset that RFC 3339 does not allow.
const OFFSET_FORMATS: [&str; 2] = ["%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z"];

/// Unix seconds of `2026-01-15T10:30:00Z`, `2026-01-15 10:30:00`, `2026-01-15`, or of a Unix time in seconds,
/// milliseconds, microseconds or nanoseconds. Without an offset a time is UTC.
#[must_use]
pub fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return from_number(number);
    }
    let of = |micros: i64| micros as f64 / 1e6;
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(of(time.timestamp_micros()));
    }
    let naive = FORMATS.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let naive = naive.or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
    if let Some(time) = naive {
        return Some(of(time.and_utc().timestamp_micros()));
    }
    let time = OFFSET_FORMATS.iter().find_map(|format| DateTime::parse_from_str(text, format).ok())?;
    Some(of(time.timestamp_micros()))
}

/// Unix seconds of a Unix time in seconds or a thousandth, a millionth or a billionth of them.
pub(crate) fn from_number(number: f64) -> Option<f64> {
    let unit = [1.0, 1e3, 1e6, 1e9].into_iter().find(|unit| number.abs() <= MILLISECONDS * unit)?;
    Some(number / unit)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn the_usual_ways_to_write_a_moment_mean_the_same() {
        let ways = [
            "2018-07-03 14:00:00",
            "2018-07-03T14:00:00Z",
            "2018-07-03T16:00:00+02:00",
            "2018-07-03 16:00:00+0200",
            "2018-07-03 14:00",
            "2018-07-03T14:00",
            "07/03/2018 14:00",
            "1530626400",
            "1530626400000",
            "1530626400000000",
            "1530626400000000000",
            " 2018/07/03 14:00:00.000 ",
        ];
        for way in ways {
            assert_eq!(seconds(way), Some(1_530_626_400.0), "{way}");
        }
        assert_eq!(seconds("2018-07-03"), Some(1_530_576_000.0));
        for wrong in ["", "yesterday", "NaN", "inf", "2018-13-03 14:00:00"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
