//! An event of an incident as a document of the Elastic Common Schema.

use serde::Serialize;

use super::config::DataStream;
use super::document::{ECS, Ecs, Event, OBSERVER, Observer, Rule, Stream, date, finite, severity_number};
use crate::model::{DetectorRef, Incident, IncidentEvent, Severity};

/// One event of an incident as it is written. Numbers that JSON cannot hold (NaN, infinity) are left out.
#[derive(Debug, Serialize)]
pub(super) struct IncidentDocument<'a> {
    /// End of the last bucket that was not normal: when it could be known at the earliest.
    #[serde(rename = "@timestamp")]
    timestamp: String,
    message: &'a str,
    ecs: Ecs,
    data_stream: Stream<'a>,
    event: Event<'a>,
    rule: Rule<'a>,
    observer: Observer,
    service: Service<'a>,
    incident: Facts<'a>,
}

/// Of the finding that the incident is about.
#[derive(Debug, Serialize)]
struct Service<'a> {
    name: &'a str,
    environment: &'a str,
}

#[derive(Debug, Serialize)]
struct Facts<'a> {
    id: &'a str,
    event: IncidentEvent,
    sequence: u32,
    title: &'a str,
    severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    threshold: Option<f64>,
    start: String,
    updated: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    duration_s: u64,
    detector: &'a DetectorRef,
    anomalies: u64,
    series_count: u64,
    services: &'a [String],
    entities: &'a [String],
    series: &'a [String],
    lead: Lead<'a>,
}

#[derive(Debug, Serialize)]
struct Lead<'a> {
    anomaly: &'a str,
    service: &'a str,
    series: &'a str,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    observed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<f64>,
    #[serde(skip_serializing_if = "str::is_empty")]
    unit: &'a str,
}

impl<'a> IncidentDocument<'a> {
    /// The document of `incident` in `stream`. A function of its arguments alone: writing it again writes the same.
    pub(super) fn new(incident: &'a Incident, stream: &'a DataStream) -> Self {
        let (kind, r#type, action) = match incident.event {
            IncidentEvent::Opened => ("alert", "start", "incident-opened"),
            IncidentEvent::Escalated => ("alert", "change", "incident-escalated"),
            // Nobody is called because something is over.
            IncidentEvent::Ended => ("event", "end", "incident-ended"),
        };
        Self {
            timestamp: date(incident.updated),
            message: &incident.title,
            ecs: Ecs { version: ECS },
            data_stream: Stream { r#type: "logs", dataset: &stream.dataset, namespace: &stream.namespace },
            event: Event {
                kind,
                r#type: [r#type],
                action,
                module: "anomaly",
                dataset: &stream.dataset,
                provider: "anomalyd",
                id: &incident.id,
                reason: incident.lead.reason.clone(),
                start: date(incident.start),
                end: date(incident.updated),
                duration: incident.duration(),
                severity: severity_number(incident.score),
                risk_score: finite(incident.score),
            },
            rule: Rule {
                id: format!("{}/incident", incident.detector.name),
                name: "Incident".to_owned(),
                version: &incident.detector.version,
                category: "incident",
                ruleset: "anomalyd",
            },
            observer: OBSERVER,
            service: Service { name: &incident.lead.service, environment: incident.environment.as_str() },
            incident: Facts::new(incident),
        }
    }
}

impl<'a> Facts<'a> {
    fn new(incident: &'a Incident) -> Self {
        let lead = &incident.lead;
        Self {
            id: &incident.id,
            event: incident.event,
            sequence: incident.sequence,
            title: &incident.title,
            severity: incident.severity,
            score: finite(incident.score),
            threshold: finite(incident.threshold),
            start: date(incident.start),
            updated: date(incident.updated),
            end: incident.end.map(date),
            duration_s: incident.duration() / crate::model::UnixNanos::SECOND,
            detector: &incident.detector,
            anomalies: incident.anomalies,
            series_count: incident.series_count,
            services: &incident.services,
            entities: &incident.entities,
            series: &incident.series,
            lead: Lead {
                anomaly: &lead.anomaly,
                service: &lead.service,
                series: &lead.series,
                reason: &lead.reason,
                observed: finite(lead.observed),
                expected: finite(lead.expected),
                unit: &lead.unit,
            },
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{Environment, UnixNanos};

    pub(in crate::exporters::elasticsearch) fn incident(event: IncidentEvent, sequence: u32) -> Incident {
        let start = UnixNanos::from_secs(1_789_000_020);
        let updated = start.plus(20 * 60 * UnixNanos::SECOND);
        Incident {
            id: "o53xozlfnzsa".to_owned(),
            environment: Environment::new("production"),
            detector: DetectorRef { name: "detector".to_owned(), kind: "ensemble".to_owned(), version: "1".to_owned() },
            event,
            sequence,
            start,
            updated,
            end: (event == IncidentEvent::Ended).then_some(updated),
            score: 91.5,
            severity: Severity::Critical,
            threshold: 1.55,
            title: "checkout POST /pay is slow: p99 412 ms instead of 95 ms, together with cart".to_owned(),
            lead: crate::model::Lead {
                anomaly: "mfrggzdfmztwq".to_owned(),
                service: "checkout".to_owned(),
                series: "checkout POST /pay (server): span p99".to_owned(),
                reason: "p99 412 ms, expected 95 ms at this time of day".to_owned(),
                observed: 0.412,
                expected: f64::NAN,
                unit: "s".to_owned(),
            },
            anomalies: 7,
            series_count: 4,
            services: vec!["checkout".to_owned(), "cart".to_owned()],
            entities: vec!["checkout POST /pay (server)".to_owned(), "cart".to_owned()],
            series: vec!["checkout POST /pay (server): span p99".to_owned()],
        }
    }

    #[test]
    fn an_event_becomes_a_document_of_the_elastic_common_schema() {
        let (incident, stream) = (incident(IncidentEvent::Ended, 3), DataStream::of(&Environment::new("production")));
        let document = serde_json::to_value(IncidentDocument::new(&incident, &stream)).unwrap();
        insta::with_settings!({ filters => vec![(env!("CARGO_PKG_VERSION"), "[version]")] }, {
            insta::assert_json_snapshot!(document);
        });
    }

    #[test]
    fn what_calls_for_a_person_is_an_alert_and_the_end_is_none() {
        let stream = DataStream::of(&Environment::new("x"));
        let kinds = [IncidentEvent::Opened, IncidentEvent::Escalated, IncidentEvent::Ended].map(|event| {
            let incident = incident(event, 1);
            let document = IncidentDocument::new(&incident, &stream);
            format!("{} {} {}", document.event.kind, document.event.r#type[0], document.event.action)
        });
        assert_eq!(kinds, ["alert start incident-opened", "alert change incident-escalated", "event end incident-ended"]);
    }
}
