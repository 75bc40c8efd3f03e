//! How values with UCUM units are written for people. The only place that does so.

/// `value` in `unit` (UCUM: `s`, `ms`, `By`, `1/s`, `{request}`), as a person would write it.
pub(super) fn write(value: f64, unit: &str) -> String {
    match unit {
        "s" => time(value),
        "ms" => time(value / 1e3),
        "us" => time(value / 1e6),
        "ns" => time(value / 1e9),
        "min" => time(value * 60.0),
        "By" => bytes(value),
        "KiBy" => bytes(value * 1024.0),
        "MiBy" => bytes(value * 1024.0 * 1024.0),
        "%" => format!("{} %", number(value)),
        "" | "1" => number(value),
        _ => match unit.strip_suffix("/s") {
            Some("By") => format!("{}/s", bytes(value)),
            Some(of) => rate(value, of),
            None => format!("{} {}", number(value), plain(unit)),
        },
    }
}

/// A share of 0 to 1 in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// Three digits: `0.0123`, `1.23`, `12.3`, `123`, `12300`; large ones in powers of ten.
fn number(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if !(1e-4..1e9).contains(&size) {
        format!("{value:.2e}")
    } else {
        let digits = (2 - size.log10().floor() as i32).clamp(0, 6);
        let text = format!("{value:.*}", usize::try_from(digits).unwrap_or(0));
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
    }
}

fn time(seconds: f64) -> String {
    let size = seconds.abs();
    if size == 0.0 {
        "0 ms".to_owned()
    } else if size < 0.000_999_5 {
        format!("{} us", number(seconds * 1e6))
    } else if size < 0.999_5 {
        format!("{} ms", number(seconds * 1e3))
    } else if size < 120.0 {
        format!("{} s", number(seconds))
    } else if size < 7200.0 {
        format!("{} min", number(seconds / 60.0))
    } else {
        format!("{} h", number(seconds / 3600.0))
    }
}

fn bytes(value: f64) -> String {
    let size = value.abs();
    let (divisor, name) = match size {
        s if s >= 1e12 => (1e12, "TB"),
        s if s >= 1e9 => (1e9, "GB"),
        s if s >= 1e6 => (1e6, "MB"),
        s if s >= 1e3 => (1e3, "kB"),
        _ => (1.0, "B"),
    };
    format!("{} {name}", number(value / divisor))
}

/// Per second; rare things per minute or per hour, so that they are not written as small fractions.
fn rate(per_second: f64, of: &str) -> String {
    let of = if of == "1" { String::new() } else { format!(" {}", plain(of)) };
    let size = per_second.abs();
    if size == 0.0 || size >= 0.5 {
        format!("{}{of}/s", number(per_second))
    } else if size * 60.0 >= 0.5 {
        format!("{}{of}/min", number(per_second * 60.0))
    } else {
        format!("{}{of}/h", number(per_second * 3600.0))
    }
}

/// UCUM writes what is counted in braces.
fn plain(unit: &str) -> String {
    unit.replace(['{', '}'], "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_a_person_would() {
        let written: Vec<String> = [
            (0.4123, "s"),
            (0.000_25, "s"),
            (1.5, "s"),
            (95.0, "ms"),
            (300.0, "s"),
            (0.0, "s"),
            (12.34, "1/s"),
            (0.05, "1/s"),
            (0.0005, "1/s"),
            (0.0, "1/s"),
            (1_234_567.0, "By"),
            (2048.0, "By/s"),
            (17.0, "{connection}"),
            (3.2, "{record}/s"),
            (0.0, ""),
            (123_456.0, "1"),
            (1e12, "1"),
            (-3.25, "Cel"),
        ]
        .iter()
        .map(|&(value, unit)| write(value, unit))
        .collect();
        insta::assert_snapshot!(written.join("\n"));
        assert_eq!(percent(0.123), "12.3 %");
    }
}
