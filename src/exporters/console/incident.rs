//! Incidents as a person reads them: a headline, and the anomalies that made it beneath.

use std::fmt::Write as _;

use anstyle::Style;

use super::render::{colour, headline, moment, reasons};
use crate::model::{Anomaly, Findings, Incident, IncidentEvent, UnixNanos};

/// How many anomalies are shown below one headline; all of them are in the JSON.
const MOST_ANOMALIES: usize = 8;
/// How much of an incident's id is shown: enough to find it.
const SHORT_ID: usize = 10;

/// What was found at once, in blocks: each event of an incident with its anomalies, then anomalies of incidents that
/// go on, then those of none.
#[must_use]
pub fn blocks(findings: &Findings) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut told: Vec<&str> = Vec::new();
    for incident in &findings.incidents {
        // What opens and ends at once has its anomalies below the first of the two.
        let first = !told.contains(&incident.id.as_str());
        told.push(&incident.id);
        let anomalies = if first { of(findings, Some(&incident.id)) } else { Vec::new() };
        blocks.push(render(incident, &anomalies));
    }
    let mut others: Vec<Option<&str>> = findings.anomalies.iter().map(incident_of).collect();
    others.sort_unstable();
    others.dedup();
    for id in others.into_iter().filter(|id| id.is_none_or(|id| !told.contains(&id))) {
        let anomalies = of(findings, id);
        match id {
            Some(id) => blocks.push(goes_on(id, &anomalies)),
            None => blocks.extend(anomalies.into_iter().map(super::render::render)),
        }
    }
    blocks
}

fn incident_of(anomaly: &Anomaly) -> Option<&str> {
    anomaly.incident.as_ref().map(|i| i.id.as_str())
}

/// The anomalies of one incident: what it is about first, then the strongest.
fn of<'a>(findings: &'a Findings, id: Option<&str>) -> Vec<&'a Anomaly> {
    let lead = |a: &Anomaly| a.incident.as_ref().is_some_and(|i| i.lead);
    let mut all: Vec<&Anomaly> = findings.anomalies.iter().filter(|a| incident_of(a) == id).collect();
    all.sort_by(|a, b| {
        (lead(b).cmp(&lead(a))).then(a.window.start.cmp(&b.window.start)).then(b.score.total_cmp(&a.score)).then(a.id.cmp(&b.id))
    });
    all
}

/// One event: a line that stands for itself, and below it what was found with it.
///
/// ```text
/// 2026-01-15 10:30:00Z  critical  87  production  incident opened: checkout POST /pay is slow: p99 412 ms instead of 95 ms
///     critical  87  checkout POST /pay: latency p99 412 ms, 4.3x the expected 95 ms (usual: 60 ms to 130 ms; 42 calls)
///             62 %  412 ms is far from the 95 ms usual at this time of day
/// ```
#[must_use]
pub(super) fn render(incident: &Incident, anomalies: &[&Anomaly]) -> String {
    let mut out = String::with_capacity(256 + 128 * anomalies.len());
    let style = colour(incident.severity);
    let (at, what) = match incident.event {
        IncidentEvent::Opened => (incident.start, "incident opened".to_owned()),
        IncidentEvent::Escalated => (incident.updated, "incident escalated".to_owned()),
        IncidentEvent::Ended => (incident.updated, format!("incident over after {}", lasted(incident.duration()))),
    };
    let _ = write!(
        out,
        "{}  {style}{:<8} {:>3.0}{style:#}  {}  {what}: {}",
        moment(at),
        incident.severity.as_str(),
        incident.score,
        incident.environment,
        incident.title,
    );
    if incident.event != IncidentEvent::Opened {
        let _ = write!(
            out,
            " ({} in {})",
            count(incident.anomalies, "anomaly", "anomalies"),
            count(incident.series_count, "series", "series")
        );
    }
    let _ = writeln!(out, " [{}]", short(&incident.id));
    below(&mut out, anomalies);
    out
}

/// Further anomalies of an incident that is known, and not worse for them.
fn goes_on(id: &str, anomalies: &[&Anomaly]) -> String {
    let mut out = String::new();
    let Some(first) = anomalies.first() else { return out };
    let at = moment(first.window.start);
    let _ = writeln!(out, "{at}  {:<12}  {}  incident goes on [{}]", "", first.environment, short(id));
    below(&mut out, anomalies);
    out
}

/// The anomalies, each on a line, with the reasons of what the incident is about.
fn below(out: &mut String, anomalies: &[&Anomaly]) {
    for anomaly in anomalies.iter().take(MOST_ANOMALIES) {
        let style = colour(anomaly.severity);
        let _ =
            writeln!(out, "    {style}{:<8} {:>3.0}{style:#}  {}", anomaly.severity.as_str(), anomaly.score, headline(anomaly));
        if anomaly.incident.as_ref().is_some_and(|i| i.lead) {
            reasons(out, anomaly, "          ");
        }
    }
    if anomalies.len() > MOST_ANOMALIES {
        let dim = Style::new().dimmed();
        let _ = writeln!(out, "    {dim}and {} more{dim:#}", anomalies.len() - MOST_ANOMALIES);
    }
}

fn short(id: &str) -> &str {
    crate::text::clip(id, SHORT_ID)
}

fn lasted(nanos: u64) -> String {
    let minutes = (nanos / UnixNanos::SECOND).div_ceil(60);
    if minutes < 120 { format!("{minutes} min") } else { format!("{} h {} min", minutes / 60, minutes % 60) }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::exporters::console::tests::{anomaly, log_burst};
    use crate::model::{DetectorRef, Environment, IncidentRef, Lead, Severity};

    pub(in crate::exporters::console) fn incident(event: IncidentEvent) -> Incident {
        let start = anomaly().window.start;
        let updated = start.plus(23 * 60 * UnixNanos::SECOND);
        Incident {
            id: "o53xozlfnzsa2345".into(),
            environment: Environment::new("production"),
            detector: DetectorRef { name: "detector".into(), kind: "ensemble".into(), version: "1".into() },
            event,
            sequence: 1,
            start,
            updated,
            end: (event == IncidentEvent::Ended).then_some(updated),
            score: 87.2,
            severity: Severity::Critical,
            threshold: 1.55,
            title: "checkout POST /pay is slow: p99 412 ms instead of 95 ms, together with payments".into(),
            lead: Lead {
                anomaly: anomaly().id,
                service: "checkout".into(),
                series: anomaly().series(),
                reason: "412 ms is far from the 95 ms usual at this time of day".into(),
                observed: 0.412,
                expected: 0.095,
                unit: "s".into(),
            },
            anomalies: 2,
            series_count: 2,
            services: vec!["checkout".into(), "payments".into()],
            entities: vec!["checkout POST /pay (server)".into(), "payments".into()],
            series: vec![anomaly().series(), log_burst().series()],
        }
    }

    pub(in crate::exporters::console) fn belongs(anomaly: Anomaly, lead: bool) -> Anomaly {
        Anomaly { incident: Some(IncidentRef { id: "o53xozlfnzsa2345".into(), lead }), ..anomaly }
    }

    fn plain(findings: &Findings) -> String {
        anstream::adapter::strip_str(&blocks(findings).join("\n")).to_string()
    }

    #[test]
    fn an_incident_is_the_headline_and_its_anomalies_stand_beneath() {
        let anomalies = vec![belongs(log_burst(), false), belongs(anomaly(), true)];
        insta::assert_snapshot!(plain(&Findings { anomalies, incidents: vec![incident(IncidentEvent::Opened)] }));
    }

    #[test]
    fn what_came_of_an_incident_is_told_with_how_long_it_took() {
        let worse =
            Findings { anomalies: vec![belongs(log_burst(), false)], incidents: vec![incident(IncidentEvent::Escalated)] };
        let more = Findings { anomalies: vec![belongs(log_burst(), false)], incidents: vec![] };
        let over = Findings { anomalies: vec![], incidents: vec![incident(IncidentEvent::Ended)] };
        insta::assert_snapshot!([worse, more, over].iter().map(plain).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn a_storm_is_cut_and_says_so() {
        let anomalies = (0..300).map(|n| belongs(Anomaly { id: format!("{n}"), ..log_burst() }, false)).collect();
        let text = plain(&Findings { anomalies, incidents: vec![incident(IncidentEvent::Opened)] });
        assert_eq!(text.lines().count(), 1 + MOST_ANOMALIES + 1);
        assert_eq!(text.lines().last(), Some("    and 292 more"));
    }

    #[test]
    fn what_opens_and_ends_at_once_shows_its_anomalies_once() {
        let findings = Findings {
            anomalies: vec![belongs(anomaly(), true)],
            incidents: vec![incident(IncidentEvent::Opened), incident(IncidentEvent::Ended)],
        };
        assert_eq!(plain(&findings).matches("latency p99").count(), 1);
    }

    #[test]
    fn only_severities_have_a_colour_and_every_colour_has_its_word() {
        let findings = Findings { anomalies: vec![belongs(anomaly(), true)], incidents: vec![incident(IncidentEvent::Opened)] };
        let text = blocks(&findings).concat();
        assert_eq!(text.matches("\u{1b}[31m").count(), text.matches("critical").count(), "{text:?}");
    }
}
