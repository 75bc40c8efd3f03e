//! The report as text.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::report::{Day, Report};
use crate::model::{Severity, UnixNanos};
use crate::text::quantity;

/// Width of the longest bar.
const BAR: usize = 40;
/// More days than this are told by weeks.
const MOST_DAYS: usize = 45;
/// Findings that are told; the HTML report has more.
const MOST_FINDINGS: usize = 10;
/// Others of the same service that are told beside a finding.
const MOST_ALSO: usize = 3;
/// Reasons with a smaller share are not told.
const LEAST_SHARE: f64 = 0.05;

/// The report as people read it, with ANSI styles.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out, report);
    if report.anomalies > 0 {
        per_day(&mut out, report);
        services(&mut out, report);
        findings(&mut out, report);
    }
    thresholds(&mut out, report);
    out
}

/// `2026-01-15 10:30`.
pub(super) fn minute(at: UnixNanos) -> String {
    at.rfc3339().chars().take(16).collect::<String>().replace('T', " ")
}

/// `14 days`, `36 hours`.
pub(super) fn length(report: &Report) -> String {
    let days = report.length_in_days();
    if days >= 2.0 { format!("{} days", quantity(days, "")) } else { format!("{} hours", quantity(days * 24.0, "")) }
}

pub(super) fn count(number: u64) -> String {
    quantity(number as f64, "{record}")
}

/// A number a day: `2.6`, `0.07`.
pub(super) fn rate(per_day: f64) -> String {
    if per_day <= 0.0 {
        return "0".to_owned();
    }
    if per_day >= 9.95 {
        format!("{per_day:.0}")
    } else if per_day >= 0.095 {
        format!("{per_day:.1}")
    } else {
        format!("{per_day:.2}")
    }
}

/// What was read, and how fast.
pub(super) fn speed(report: &Report) -> String {
    format!(
        "{} records in {}: {} a second, {} times real time",
        count(report.records),
        quantity(report.seconds, "s"),
        count((report.records as f64 / report.seconds.max(1e-3)).round() as u64),
        count(report.times_real_time().round() as u64),
    )
}

/// `380 ready, 32 still warming`.
pub(super) fn series(report: &Report) -> String {
    let all = report.series;
    match (all.ready, all.warming) {
        (ready, 0) => format!("{} seen, all of them judged", count(ready)),
        (ready, warming) => {
            format!("{} seen: {} judged, {} with too few values yet", count(all.seen), count(ready), count(warming))
        }
    }
}

/// `37: 12 critical, 25 minor; 2.6 a day`.
pub(super) fn anomalies(report: &Report) -> String {
    if report.anomalies == 0 {
        return "none".to_owned();
    }
    let incidents = match report.incidents {
        0 => String::new(),
        1 => " in 1 incident".to_owned(),
        n => format!(" in {} incidents", count(n)),
    };
    let bands = report.severities.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{} {name}", count(*n)));
    format!("{}{incidents}: {}; {} a day", count(report.anomalies), bands.collect::<Vec<_>>().join(", "), rate(report.per_day))
}

fn head(out: &mut String, report: &Report) {
    let bold = Style::new().bold();
    let bucket = humantime::format_duration(std::time::Duration::from_secs(report.bucket_seconds));
    let _ = writeln!(
        out,
        "{bold}{}{bold:#}  {} to {} UTC ({}), in steps of {bucket}",
        report.environment,
        minute(report.from),
        minute(report.to),
        length(report),
    );
    if !report.complete {
        let yellow = Style::new().fg_color(Some(AnsiColor::Yellow.into()));
        let _ = writeln!(out, "{yellow}not complete: this is about what was read until it ended{yellow:#}");
    }
    let _ = writeln!(out, "  read       {}", speed(report));
    let _ = writeln!(out, "  from       {}", report.sources.join(", "));
    let _ = writeln!(out, "  series     {}", series(report));
    let _ = writeln!(out, "  anomalies  {}", anomalies(report));
    for (reason, records) in &report.dropped {
        let _ = writeln!(out, "  not used   {} records: {reason}", count(*records));
    }
    for note in &report.notes {
        let _ = writeln!(out, "  note       {note}");
    }
}

/// Days, or weeks where there are many days: name and count.
pub(super) fn periods(days: &[Day]) -> Vec<(String, u64)> {
    if days.len() <= MOST_DAYS {
        return days.iter().map(|day| (day.date.clone(), day.anomalies)).collect();
    }
    days.chunks(7)
        .map(|week| {
            let first = week.first().map(|day| day.date.clone()).unwrap_or_default();
            (first, week.iter().map(|day| day.anomalies).sum())
        })
        .collect()
}

fn per_day(out: &mut String, report: &Report) {
    let periods = periods(&report.days);
    let weekly = periods.len() < report.days.len();
    let _ = writeln!(out, "\nanomalies a {}", if weekly { "week, from" } else { "day" });
    bars(out, &periods);
}

fn bars(out: &mut String, rows: &[(String, u64)]) {
    let most = rows.iter().map(|(_, n)| *n).max().unwrap_or(0).max(1);
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).min(40);
    for (name, number) in rows {
        let eighths = usize::try_from(number * (BAR as u64 * 8) / most).unwrap_or(0).max(usize::from(*number > 0));
        let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied().unwrap_or_default();
        let bar = "█".repeat(eighths / 8) + rest;
        let gap = if bar.is_empty() { "" } else { " " };
        let _ = writeln!(out, "  {name:<width$}  {bar}{gap}{}", count(*number));
    }
}

fn services(out: &mut String, report: &Report) {
    if report.services.len() > 1 {
        let _ = writeln!(out, "\nby service");
        let rows: Vec<(String, u64)> = report.services.iter().map(|s| (s.service.clone(), s.anomalies)).collect();
        bars(out, &rows);
    }
}

fn findings(out: &mut String, report: &Report) {
    let _ = writeln!(out, "\nmost unusual");
    let dim = Style::new().dimmed();
    for (i, finding) in report.top.iter().take(MOST_FINDINGS).enumerate() {
        let anomaly = &finding.anomaly;
        let style = style(anomaly.severity);
        let _ = writeln!(
            out,
            "{:>3}. {}Z  {style}{:<8} {:>3.0}{style:#}  {}",
            i + 1,
            minute(anomaly.window.start),
            anomaly.severity.as_str(),
            anomaly.score,
            finding.headline,
        );
        for reason in anomaly.reasons.iter().filter(|r| r.share >= LEAST_SHARE).take(3) {
            let _ = writeln!(out, "     {dim}{:>3.0} %  {}{dim:#}", reason.share * 100.0, reason.text);
        }
        if let Some(past) = &anomaly.past {
            let _ = writeln!(out, "     {dim}       {}{dim:#}", past.text());
        }
        for also in finding.also.iter().take(MOST_ALSO) {
            let _ = writeln!(out, "     {dim} also  {also}{dim:#}");
        }
        if let Some(more) = finding.also.len().checked_sub(MOST_ALSO).filter(|more| *more > 0) {
            let _ = writeln!(out, "     {dim} also  {more} more of this service within half an hour{dim:#}");
        }
    }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Critical => Style::new().fg_color(Some(AnsiColor::Red.into())).bold(),
        Severity::Major => Style::new().fg_color(Some(AnsiColor::Red.into())),
        Severity::Minor => Style::new().fg_color(Some(AnsiColor::Yellow.into())),
        Severity::Warning => Style::new().fg_color(Some(AnsiColor::Blue.into())),
    }
}

fn thresholds(out: &mut String, report: &Report) {
    if report.thresholds.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nat other thresholds (`threshold` of the detector)");
    let _ = writeln!(out, "  threshold  anomalies a day");
    for row in &report.thresholds {
        let (about, now) = if row.in_force { ("     ", "  <- now") } else { ("about", "") };
        let _ = writeln!(out, "  {:>9}  {about} {:>6}{now}", quantity(row.threshold, ""), rate(row.per_day));
    }
}
