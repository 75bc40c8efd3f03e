//! Small helpers for texts: messages that people read, names that come from outside.

mod cache;

pub(crate) use self::cache::Cache;

/// The candidate that `typed` most likely meant, if one is near enough to suggest.
pub(crate) fn closest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = typed.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::damerau_levenshtein(&wanted, &c.to_lowercase()), c))
        .filter(|(distance, c)| *distance <= (wanted.chars().count().max(c.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

/// At most the first `bytes` bytes of `text`, cut between characters.
pub(crate) fn clip(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let end = (0..=bytes).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    text.get(..end).unwrap_or("")
}

/// `value` of the UCUM unit `unit` as a person would say it: `412 ms`, `0.83 %`, `12.5/s`, `3.2 MiB`.
///
/// Three significant digits, or all before the point. Times, shares, rates and bytes are scaled; an annotation (`{request}`) says what is
/// counted, which the series' name says already, so it is left out; a unit that is not known stands as it is.
pub(crate) fn quantity(value: f64, unit: &str) -> String {
    let annotated = unit.split('{').next().unwrap_or(unit);
    let unit = match unit.strip_prefix('{').and_then(|u| u.split_once('}')) {
        Some((_, "/s")) => "1/s",
        Some((_, rest)) => rest,
        None => annotated,
    };
    if !value.is_finite() {
        return if value.is_nan() {
            "not a number"
        } else if value > 0.0 {
            "infinity"
        } else {
            "-infinity"
        }
        .to_owned();
    }
    match unit {
        "" => number(value),
        "1" => format!("{} %", number(value * 100.0)),
        "1/s" | "Hz" if value != 0.0 && value.abs() < 1.0 => format!("{}/min", number(value * 60.0)),
        "1/s" | "Hz" => format!("{}/s", number(value)),
        "1/min" => format!("{}/min", number(value)),
        "ns" => duration(value * 1e-9),
        "us" => duration(value * 1e-6),
        "ms" => duration(value * 1e-3),
        "s" => duration(value),
        "min" => duration(value * 60.0),
        "h" => duration(value * 3600.0),
        "d" => duration(value * 86_400.0),
        "By" => bytes(value),
        "KiBy" => bytes(value * 1024.0),
        "MiBy" => bytes(value * 1_048_576.0),
        "By/s" => format!("{}/s", bytes(value)),
        "Cel" => format!("{} °C", number(value)),
        "%" => format!("{} %", number(value)),
        other => format!("{} {other}", number(value)),
    }
}

/// Writes several values of one series alike: rates per minute where all of `values` are slow. Values that are not
/// finite do not count.
pub(crate) fn alike(unit: &str, values: &[f64]) -> impl Fn(f64) -> String + use<> {
    let rates = unit.ends_with("/s") && !unit.starts_with("By");
    let slow = rates && values.iter().all(|v| !v.is_finite() || v.abs() < 10.0);
    let unit = unit.to_owned();
    move |value| if slow { quantity(value * 60.0, "1/min") } else { quantity(value, &unit) }
}

/// Three significant digits or all before the point, thousands in groups, no trailing zeros.
fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    if !(1e-6..1e15).contains(&size) {
        return format!("{value:.2e}");
    }
    // 999.6 has three digits before the point only until it is rounded.
    let digits = if size >= 99.95 {
        0
    } else if size >= 9.995 {
        1
    } else if size >= 0.9995 {
        2
    } else {
        // Below one: as many zeros after the point as there are, and three digits after them.
        2 + usize::try_from((-size.log10()).ceil() as i64).unwrap_or(0)
    };
    let text = format!("{value:.digits$}");
    if digits > 0 {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    grouped(&text)
}

/// `-1234567` as `-1,234,567`.
fn grouped(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |d| ("-", d));
    let mut grouped = String::from(sign);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn duration(seconds: f64) -> String {
    let (scale, unit) = match seconds.abs() {
        0.0 => (1.0, "s"),
        s if s < 0.999_5e-6 => (1e9, "ns"),
        s if s < 0.999_5e-3 => (1e6, "us"),
        s if s < 0.999_5 => (1e3, "ms"),
        s if s < 119.95 => (1.0, "s"),
        s if s < 7_197.0 => (1.0 / 60.0, "min"),
        s if s < 172_728.0 => (1.0 / 3_600.0, "h"),
        _ => (1.0 / 86_400.0, "d"),
    };
    format!("{} {unit}", number(seconds * scale))
}

fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut scaled = value;
    let mut unit = "B";
    for next in UNITS {
        unit = next;
        if scaled.abs() < 1023.5 {
            break;
        }
        if next != "PiB" {
            scaled /= 1024.0;
        }
    }
    format!("{} {unit}", number(scaled))
}

#[cfg(test)]
mod tests {
    use super::{clip, closest, quantity};
    use proptest::prelude::*;

    #[test]
    fn a_clipped_text_ends_between_characters() {
        assert_eq!(clip("naïve", 3), "na");
        assert_eq!(clip("naïve", 4), "naï");
        assert_eq!(clip("naïve", 99), "naïve");
    }

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let keys = ["grpc", "http", "endpoint"];
        assert_eq!(closest("grcp", keys), Some("grpc"));
        assert_eq!(closest("Endpiont", keys), Some("endpoint"));
        assert_eq!(closest("elasticsearch", keys), None);
    }

    #[test]
    fn values_read_as_a_person_would_say_them() {
        let said = [
            (0.412, "s", "412 ms"),
            (0.000_087_3, "s", "87.3 us"),
            (1.234, "s", "1.23 s"),
            (0.999_9, "s", "1 s"),
            (600.0, "s", "10 min"),
            (412.0, "ms", "412 ms"),
            (0.0, "s", "0 s"),
            (0.0083, "1", "0.83 %"),
            (0.3, "1", "30 %"),
            (1.0, "1", "100 %"),
            (12.54, "1/s", "12.5/s"),
            (0.05, "1/s", "3/min"),
            (0.0, "1/s", "0/s"),
            (12.54, "{request}/s", "12.5/s"),
            (17.0, "{record}", "17"),
            (17.0, "", "17"),
            (12_345_678.0, "", "12,345,678"),
            (-1234.0, "", "-1,234"),
            (0.001_234, "", "0.00123"),
            (3_355_443.0, "By", "3.2 MiB"),
            (100.0, "By", "100 B"),
            (2048.0, "By/s", "2 KiB/s"),
            (61.5, "Cel", "61.5 °C"),
            (3.0, "V", "3 V"),
            (f64::NAN, "s", "not a number"),
        ];
        for (value, unit, text) in said {
            assert_eq!(quantity(value, unit), text, "{value} {unit}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_number_reads_back_within_half_a_percent(value in prop::num::f64::NORMAL, unit in "[a-z{}/%]{0,4}") {
            let _ = quantity(value, &unit);
            let back: f64 = quantity(value, "").replace(',', "").parse().unwrap();
            prop_assert!((back - value).abs() <= value.abs() * 0.005 + f64::MIN_POSITIVE, "{value} as {back}");
        }
    }
}
