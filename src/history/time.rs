//! Points in time as files write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

/// Numbers above this are milliseconds, below it seconds: it is the year 5138 in seconds, and 1973 in milliseconds.
const MILLISECONDS: f64 = 1e11;

/// Without an offset they are taken as UTC.
const FORMATS: [&str; 6] = [
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S%.f",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
];

/// Unix seconds of `2026-01-15T10:30:00Z`, `2026-01-15 10:30:00`, `2026-01-15`, or a number of seconds or milliseconds.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return number.is_finite().then(|| if number.abs() > MILLISECONDS { number / 1000.0 } else { number });
    }
    let of = |micros: i64| micros as f64 / 1e6;
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(of(time.timestamp_micros()));
    }
    let naive = FORMATS.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let naive = naive.or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0));
    naive.map(|time| of(time.and_utc().timestamp_micros()))
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
            "2018-07-03 14:00",
            "07/03/2018 14:00",
            "1530626400",
            "1530626400000",
            " 2018/07/03 14:00:00.000 ",
        ];
        for way in ways {
            assert_eq!(seconds(way), Some(1_530_626_400.0), "{way}");
        }
        assert_eq!(seconds("2018-07-03"), Some(1_530_576_000.0));
        for wrong in ["", "yesterday", "NaN", "2018-13-03 14:00:00"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
