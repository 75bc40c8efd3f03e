//! The report as one HTML file: no script, nothing loaded from anywhere, light and dark, printable.

use std::fmt::Write as _;

use super::chart;
use super::escape::escape;
use super::report::{Finding, Report};
use super::text::{anomalies, count, length, minute, periods, rate, series, speed};
use crate::text::quantity;

const STYLE: &str = include_str!("report.css");

/// The report as a page.
#[must_use]
pub fn html(report: &Report) -> String {
    let mut out = String::with_capacity(64 << 10);
    let title = format!("{}: {} to {}", report.environment, minute(report.from), minute(report.to));
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>anomalyd backtest: {}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<a class=\"skip\" href=\"#findings\">to the findings</a>\n<main>\n",
        escape(&title),
    );
    head(&mut out, report);
    days(&mut out, report);
    findings(&mut out, report);
    out.push_str("<div class=\"two\">\n");
    services(&mut out, report);
    thresholds(&mut out, report);
    out.push_str("</div>\n");
    about(&mut out, report);
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn head(out: &mut String, report: &Report) {
    let _ = write!(
        out,
        "<header>\n<p class=\"kind\">anomalyd backtest</p>\n<h1>{}</h1>\n<p>{} to {} UTC, {}</p>\n</header>\n",
        escape(&report.environment),
        minute(report.from),
        minute(report.to),
        length(report),
    );
    if !report.complete {
        out.push_str("<p class=\"warn\" role=\"note\">Not complete: this is about what was read until it ended.</p>\n");
    }
    let tiles = [
        (count(report.anomalies), "anomalies".to_owned()),
        (rate(report.per_day), "a day".to_owned()),
        (count(report.series.seen), format!("series, {} judged", count(report.series.ready))),
        (count(report.records), "records read".to_owned()),
    ];
    out.push_str("<ul class=\"tiles\">\n");
    for (number, what) in tiles {
        let _ = writeln!(out, "<li><b>{number}</b> <span>{what}</span></li>");
    }
    out.push_str("</ul>\n");
}

fn days(out: &mut String, report: &Report) {
    let periods = periods(&report.days);
    let weekly = periods.len() < report.days.len();
    let unit = if weekly { "week" } else { "day" };
    let _ = write!(out, "<section>\n<h2>Anomalies a {unit}</h2>\n");
    if report.anomalies == 0 {
        out.push_str("<p>None: every value was within what is usual for its series.</p>\n</section>\n");
        return;
    }
    // The finding that is told first among those of a period.
    let link = |period: usize| {
        let dates: Vec<&str> = if weekly {
            report.days.chunks(7).nth(period).unwrap_or_default().iter().map(|d| d.date.as_str()).collect()
        } else {
            report.days.get(period).map(|d| d.date.as_str()).into_iter().collect()
        };
        let of_period = |f: &Finding| dates.iter().any(|date| minute(f.anomaly.window.start).starts_with(date));
        report.top.iter().position(of_period).map(|i| i + 1)
    };
    let _ = write!(out, "<figure>{}</figure>\n<details><summary>as a table</summary>\n", chart::bars(&periods, unit, link));
    let _ = writeln!(out, "<table><thead><tr><th scope=\"col\">{unit}</th><th scope=\"col\">anomalies</th></tr></thead><tbody>");
    for (name, number) in &periods {
        let _ = writeln!(out, "<tr><td>{name}</td><td class=\"n\">{}</td></tr>", count(*number));
    }
    out.push_str("</tbody></table></details>\n</section>\n");
}

fn findings(out: &mut String, report: &Report) {
    out.push_str("<section id=\"findings\">\n<h2>Most unusual</h2>\n");
    if report.top.is_empty() {
        out.push_str("<p>Nothing.</p>\n");
    } else {
        out.push_str(
            "<p class=\"legend\"><span class=\"k observed\">observed</span> <span class=\"k expected\">expected</span> \
             <span class=\"k band\">usual range</span> <span class=\"k finding\">the finding</span></p>\n",
        );
    }
    for (i, finding) in report.top.iter().enumerate() {
        one(out, i + 1, finding);
    }
    out.push_str("</section>\n");
}

fn one(out: &mut String, number: usize, finding: &Finding) {
    let anomaly = &finding.anomaly;
    let severity = anomaly.severity.as_str();
    let _ = write!(
        out,
        "<article id=\"f{number}\">\n<h3><a href=\"#f{number}\">{number}.</a> {}</h3>\n\
         <p class=\"meta\"><span class=\"sev {severity}\">{severity} {:.0}</span> <time datetime=\"{}\">{} UTC</time></p>\n",
        escape(&finding.headline),
        anomaly.score,
        anomaly.window.start.rfc3339(),
        minute(anomaly.window.start),
    );
    if let Some(svg) = chart::series(finding) {
        let _ = writeln!(out, "<figure>{svg}</figure>");
    }
    out.push_str("<ul class=\"reasons\">\n");
    for reason in anomaly.reasons.iter().filter(|r| r.share >= 0.005) {
        let percent = reason.share * 100.0;
        let _ = writeln!(
            out,
            "<li><span class=\"share\"><i style=\"width:{percent:.0}%\"></i></span><span class=\"n\">{percent:.0} %</span> {}</li>",
            escape(&reason.text)
        );
    }
    out.push_str("</ul>\n");
    if let Some(past) = &anomaly.past {
        let _ = writeln!(out, "<p class=\"past\">{}</p>", escape(&past.text()));
    }
    if !finding.also.is_empty() {
        let _ = writeln!(
            out,
            "<details><summary>{} more of {} within half an hour</summary><ul>",
            count(finding.also.len() as u64),
            escape(&anomaly.entity.service)
        );
        for also in finding.also.iter().take(50) {
            let _ = writeln!(out, "<li>{}</li>", escape(also));
        }
        out.push_str("</ul></details>\n");
    }
    let _ = writeln!(out, "<p class=\"id\">series {}, anomaly {}</p>\n</article>", anomaly.fingerprint, anomaly.id);
}

fn services(out: &mut String, report: &Report) {
    if report.services.is_empty() {
        return;
    }
    let most = report.services.iter().map(|s| s.anomalies).max().unwrap_or(1).max(1);
    out.push_str(
        "<section>\n<h2>By service</h2>\n<table><thead><tr><th scope=\"col\">service</th><th scope=\"col\">anomalies</th>\
         </tr></thead><tbody>\n",
    );
    for service in &report.services {
        let width = service.anomalies as f64 / most as f64 * 100.0;
        let _ = writeln!(
            out,
            "<tr><td>{}<span class=\"share wide\"><i style=\"width:{width:.0}%\"></i></span></td><td class=\"n\">{}</td></tr>",
            escape(&service.service),
            count(service.anomalies)
        );
    }
    out.push_str("</tbody></table>\n</section>\n");
}

fn thresholds(out: &mut String, report: &Report) {
    if report.thresholds.is_empty() {
        return;
    }
    out.push_str(
        "<section>\n<h2>At other thresholds</h2>\n<table><thead><tr><th scope=\"col\"><code>threshold</code></th>\
         <th scope=\"col\">anomalies a day</th></tr></thead><tbody>\n",
    );
    for row in &report.thresholds {
        let (class, about) = if row.in_force { (" class=\"now\"", "") } else { ("", "about ") };
        let now = if row.in_force { " <small>in force</small>" } else { "" };
        let _ = writeln!(
            out,
            "<tr{class}><td>{}{now}</td><td class=\"n\">{about}{}</td></tr>",
            quantity(row.threshold, ""),
            rate(row.per_day)
        );
    }
    out.push_str("</tbody></table>\n<p class=\"small\">One more is ten times rarer.</p>\n</section>\n");
}

fn about(out: &mut String, report: &Report) {
    let bucket = humantime::format_duration(std::time::Duration::from_secs(report.bucket_seconds));
    let rows = [
        ("read", speed(report)),
        ("from", report.sources.join(", ")),
        ("series", series(report)),
        ("anomalies", anomalies(report)),
        ("step", bucket.to_string()),
    ];
    out.push_str("<section>\n<h2>What was read</h2>\n<dl>\n");
    for (name, value) in rows {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    for (reason, records) in &report.dropped {
        let _ = writeln!(out, "<dt>not used</dt><dd>{} records: {}</dd>", count(*records), escape(reason));
    }
    for note in &report.notes {
        let _ = writeln!(out, "<dt>note</dt><dd>{}</dd>", escape(note));
    }
    out.push_str("</dl>\n</section>\n");
}
