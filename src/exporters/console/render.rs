//! An anomaly as a person reads it. Pure: an anomaly in, text out.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::model::{Anomaly, Direction, Severity, UnixNanos};
use crate::text::{alike, quantity};

/// How many reasons are shown; all of them are in the JSON.
const MOST_REASONS: usize = 3;
/// Reasons with a smaller share than this are not shown.
const LEAST_SHARE: f64 = 0.05;

/// One anomaly: a line that stands for itself, and its main reasons below, strongest first, each with its share.
///
/// With ANSI styles (severity in its colour, reasons dimmed); whoever writes it strips them where they do not belong.
///
/// ```text
/// 2026-01-15 10:30:00Z  critical  87  production  checkout POST /pay: latency p99 412 ms, 4.3x the expected 95 ms ...
///       62 %  412 ms is far from the 95 ms usual at this time of day
/// ```
#[must_use]
pub fn render(anomaly: &Anomaly) -> String {
    let mut out = String::with_capacity(256);
    let style = colour(anomaly.severity);
    let _ = writeln!(
        out,
        "{}  {style}{:<8} {:>3.0}{style:#}  {}  {}",
        moment(anomaly.window.start),
        anomaly.severity.as_str(),
        anomaly.score,
        anomaly.environment,
        headline(anomaly),
    );
    reasons(&mut out, anomaly, "  ");
    out
}

/// The main reasons, strongest first, each with its share.
pub(super) fn reasons(out: &mut String, anomaly: &Anomaly, indent: &str) {
    let dim = Style::new().dimmed();
    // The detector says what components of one kind agree on once, the strongest first.
    for reason in anomaly.reasons.iter().filter(|reason| reason.share >= LEAST_SHARE).take(MOST_REASONS) {
        let _ = writeln!(out, "{indent}{dim}{:>6.0} %  {}{dim:#}", reason.share * 100.0, reason.text);
    }
    if let Some(past) = &anomaly.past {
        let _ = writeln!(out, "{indent}{dim}          {}{dim:#}", past.text());
    }
}

/// Who does what: `checkout POST /pay: latency p99 412 ms, 4.3x the expected 95 ms (usual: 60 ms to 130 ms; 42 calls)`.
#[must_use]
pub fn headline(anomaly: &Anomaly) -> String {
    format!("{}: {}", anomaly.subject(), finding(anomaly))
}

/// `2026-01-15 10:30:00Z`.
pub(super) fn moment(time: UnixNanos) -> String {
    let time = time.rfc3339();
    format!("{}Z", time.split('.').next().unwrap_or(&time).replacen('T', " ", 1))
}

/// The colour of a severity; its word stands beside it.
pub(super) fn colour(severity: Severity) -> Style {
    match severity {
        Severity::Critical => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Severity::Major => Style::new().fg_color(Some(AnsiColor::Red.into())),
        Severity::Minor => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Severity::Warning => Style::new().fg_color(Some(AnsiColor::Blue.into())),
    }
}

/// What was measured: `latency p99`, `error log records`, `jvm.memory.used mean`.
fn measure(anomaly: &Anomaly) -> String {
    match (anomaly.metric.as_str(), anomaly.function.as_str()) {
        ("span", "rate") => "calls".to_owned(),
        ("span", "error_share") => "failed calls".to_owned(),
        ("span", function) => format!("latency {function}"),
        ("log.records", _) => {
            anomaly.log_severity().map_or_else(|| "log records".to_owned(), |severity| format!("{severity} log records"))
        }
        (metric, function) => format!("{metric} {function}"),
    }
}

/// What is not normal about it.
fn finding(anomaly: &Anomaly) -> String {
    if let Some(joint) = anomaly.joint() {
        return joint;
    }
    // All rates of one line in one unit: `26/min to 84/min` rather than `26/min to 1.4/s`.
    let said = alike(&anomaly.unit, &[anomaly.observed, anomaly.expected, anomaly.upper]);
    let measure = measure(anomaly);
    let (observed, expected) = (said(anomaly.observed), said(anomaly.expected));
    let usual = match (anomaly.lower.is_finite(), anomaly.upper.is_finite()) {
        (true, true) => format!("usual: {} to {}", said(anomaly.lower), said(anomaly.upper)),
        (true, false) => format!("usual: at least {}", said(anomaly.lower)),
        (false, true) => format!("usual: at most {}", said(anomaly.upper)),
        (false, false) => "no usual range yet".to_owned(),
    };
    // How much is behind the value; of a count the value itself says so.
    let samples = match anomaly.metric.as_str() {
        "span" => format!("; {} calls", quantity(anomaly.samples, "")),
        "log.records" => String::new(),
        _ if anomaly.samples == 1.0 => "; 1 point".to_owned(),
        _ => format!("; {} points", quantity(anomaly.samples, "")),
    };
    match anomaly.direction {
        Direction::Spike | Direction::Dip => {
            let against = compared(anomaly.observed, anomaly.expected);
            format!("{measure} {observed}, {against}expected {expected} ({usual}{samples})")
        }
        Direction::Shape => format!("{measure} {observed} in an order not seen before ({usual}{samples})"),
        Direction::New => format!("{measure} {observed}, not seen before"),
        Direction::Missing => format!("{measure} missing, expected {expected} ({usual})"),
    }
}

/// `4.3x the ` or `10 % of the ` where the two are far apart and the ratio says something; else nothing.
fn compared(observed: f64, expected: f64) -> String {
    let ratio = observed / expected;
    if !ratio.is_finite() || expected <= 0.0 || ratio < 0.0 {
        return String::new();
    }
    match ratio {
        r if r >= 10.0 => format!("{r:.0}x the "),
        r if r >= 1.5 => format!("{r:.1}x the "),
        r if r <= 0.67 => format!("{} of the ", quantity(r, "1")),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exporters::console::tests::{anomaly, log_burst};
    use crate::model::{Entity, Reason, SpanKind};

    fn plain(anomaly: &Anomaly) -> String {
        anstream::adapter::strip_str(&render(anomaly)).to_string()
    }

    #[test]
    fn a_slow_operation_reads_as_one_line_and_its_reasons() {
        insta::assert_snapshot!(plain(&anomaly()));
    }

    #[test]
    fn a_log_burst_names_the_severity_once() {
        insta::assert_snapshot!(plain(&log_burst()));
    }

    #[test]
    fn the_main_reasons_are_shown_and_what_hardly_counts_is_not() {
        let reason = |component: &str, share: f64| Reason {
            component: component.into(),
            surprise: share * 10.0,
            share,
            text: format!("as {component} has it"),
        };
        let reasons = vec![
            reason("shape12", 0.48),
            reason("time_of_day", 0.30),
            reason("ar4", 0.15),
            reason("nov3x2", 0.04),
            reason("time_of_week", 0.03),
        ];
        let text = plain(&Anomaly { reasons, ..anomaly() });
        let said: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
        assert_eq!(said, ["48 %  as shape12 has it", "30 %  as time_of_day has it", "15 %  as ar4 has it"]);
    }

    #[test]
    fn every_direction_and_kind_of_series_has_its_words() {
        let slow = anomaly();
        let dip = Anomaly {
            metric: "span".into(),
            function: "rate".into(),
            unit: "1/s".into(),
            direction: Direction::Dip,
            severity: Severity::Major,
            score: 61.4,
            observed: 0.05,
            expected: 0.5,
            lower: 0.3,
            upper: 0.7,
            samples: 3.0,
            reasons: Vec::new(),
            ..slow.clone()
        };
        let errors = Anomaly {
            function: "error_share".into(),
            unit: "1".into(),
            observed: 0.31,
            expected: 0.0,
            lower: 0.0,
            upper: 0.034,
            ..Anomaly { direction: Direction::Spike, ..dip.clone() }
        };
        let client = Anomaly { entity: Entity { kind: Some(SpanKind::Client), ..slow.entity.clone() }, ..dip.clone() };
        let gauge = Anomaly {
            entity: Entity {
                service: "cart".into(),
                instance: Some("cart-7d9".into()),
                attributes: vec![("pool".into(), "G1 Old Gen".into())],
                ..Entity::default()
            },
            metric: "jvm.memory.used".into(),
            function: "mean".into(),
            unit: "By".into(),
            observed: 3.1e9,
            expected: 1.2e9,
            lower: f64::NEG_INFINITY,
            upper: 1.6e9,
            samples: 6.0,
            severity: Severity::Minor,
            score: 33.0,
            direction: Direction::Spike,
            ..dip.clone()
        };
        let shape = Anomaly { direction: Direction::Shape, lower: f64::NEG_INFINITY, upper: f64::INFINITY, ..gauge.clone() };
        let new = Anomaly { direction: Direction::New, severity: Severity::Warning, score: 4.0, ..dip.clone() };
        let missing = Anomaly { direction: Direction::Missing, ..dip.clone() };
        let all: String = [dip, errors, client, gauge, shape, new, missing].iter().map(plain).collect();
        insta::assert_snapshot!(all);
    }

    #[test]
    fn only_the_severity_has_a_colour_and_each_band_its_own() {
        let bands = [(90.0, "\u{1b}[1m\u{1b}[31m"), (60.0, "\u{1b}[31m"), (30.0, "\u{1b}[33m"), (10.0, "\u{1b}[34m")];
        for (score, colour) in bands {
            let text = render(&Anomaly { score, severity: Severity::of(score), reasons: Vec::new(), ..anomaly() });
            assert!(text.contains(&format!("  {colour}{}", Severity::of(score).as_str())), "{text:?}");
            assert_eq!(text.matches("\u{1b}[0m").count(), 1, "{text:?}");
        }
    }
}
