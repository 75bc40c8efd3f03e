//! An anomaly as a document of the Elastic Common Schema.

use std::collections::BTreeMap;

use serde::Serialize;

use super::config::DataStream;
use crate::model::{Anomaly, Direction, Entity, IncidentRef, Severity, Signal, SpanKind, UnixNanos};
use crate::text::alike;

/// The version of the Elastic Common Schema that the fields follow.
pub(super) const ECS: &str = "8.17.0";

/// One anomaly as it is written. Numbers that JSON cannot hold (NaN, infinity) are left out.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    /// End of the window: when it could be known at the earliest.
    #[serde(rename = "@timestamp")]
    timestamp: String,
    message: String,
    ecs: Ecs,
    data_stream: Stream<'a>,
    event: Event<'a>,
    rule: Rule<'a>,
    observer: Observer,
    service: Service<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction: Option<Transaction<'a>>,
    /// Those of the entity's attributes that the Elastic Common Schema has fields for, by dotted name.
    #[serde(flatten)]
    attributes: BTreeMap<&'static str, Attribute<'a>>,
    anomaly: Finding<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct Ecs {
    pub(super) version: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Stream<'a> {
    pub(super) r#type: &'static str,
    pub(super) dataset: &'a str,
    pub(super) namespace: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct Event<'a> {
    pub(super) kind: &'static str,
    pub(super) r#type: [&'static str; 1],
    pub(super) action: &'static str,
    pub(super) module: &'static str,
    pub(super) dataset: &'a str,
    pub(super) provider: &'static str,
    pub(super) id: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) reason: String,
    pub(super) start: String,
    pub(super) end: String,
    /// Nanoseconds.
    pub(super) duration: u64,
    /// 1 to 99.
    pub(super) severity: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) risk_score: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Rule<'a> {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) version: &'a str,
    pub(super) category: &'static str,
    pub(super) ruleset: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Observer {
    pub(super) vendor: &'static str,
    pub(super) product: &'static str,
    pub(super) r#type: &'static str,
    pub(super) version: &'static str,
}

#[derive(Debug, Serialize)]
struct Service<'a> {
    name: &'a str,
    environment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Named<'a>>,
}

#[derive(Debug, Serialize)]
struct Named<'a> {
    name: &'a str,
}

#[derive(Debug, Serialize)]
struct Transaction<'a> {
    name: &'a str,
    r#type: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Attribute<'a> {
    Text(&'a str),
    Number(u64),
}

#[derive(Debug, Serialize)]
struct Finding<'a> {
    id: &'a str,
    fingerprint: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    severity: Severity,
    #[serde(skip_serializing_if = "Option::is_none")]
    probability: Option<f64>,
    direction: Direction,
    is_interim: bool,
    suppressed: bool,
    status: &'static str,
    detector: &'a crate::model::DetectorRef,
    function: &'a str,
    signal: Signal,
    metric: Metric<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actual: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    typical: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lower: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upper: Option<f64>,
    /// `actual` less `typical`.
    #[serde(skip_serializing_if = "Option::is_none")]
    deviation: Option<f64>,
    window: Bucket,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample_count: Option<u64>,
    entity: Who<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incident: Option<&'a IncidentRef>,
    source: Source<'a>,
    /// By component of the model.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    explanation: BTreeMap<&'a str, Explanation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    past: Option<History>,
}

/// How rare it is, and what it is like.
#[derive(Debug, Serialize)]
struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    rarest_in_s: Option<f64>,
    unprecedented: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    similar: Option<Precedent>,
    text: String,
}

#[derive(Debug, Serialize)]
struct Precedent {
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    likeness: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Metric<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    unit: &'a str,
}

#[derive(Debug, Serialize)]
struct Bucket {
    start: String,
    end: String,
    bucket_span_s: f64,
}

#[derive(Debug, Serialize)]
struct Who<'a> {
    r#type: &'static str,
    key: String,
    fields: BTreeMap<&'a str, &'a str>,
}

#[derive(Debug, Serialize)]
struct Source<'a> {
    environment: &'a str,
}

#[derive(Debug, Serialize)]
struct Explanation<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    surprise: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    text: &'a str,
}

/// Who has written it.
pub(super) const OBSERVER: Observer =
    Observer { vendor: "anomalyd", product: "anomalyd", r#type: "anomaly-detector", version: env!("CARGO_PKG_VERSION") };

impl<'a> Document<'a> {
    /// The document of `anomaly` in `stream`. A function of its arguments alone: writing it again writes the same.
    pub(super) fn new(anomaly: &'a Anomaly, stream: &'a DataStream) -> Self {
        let entity = &anomaly.entity;
        let (start, end) = (anomaly.window.start, anomaly.window.end);
        Self {
            timestamp: date(end),
            message: message(anomaly),
            ecs: Ecs { version: ECS },
            data_stream: Stream { r#type: "logs", dataset: &stream.dataset, namespace: &stream.namespace },
            event: Event {
                // Elastic Security promotes alerts from `logs-*`: that is what incidents are for.
                kind: "event",
                r#type: ["info"],
                action: "anomaly-detected",
                module: "anomaly",
                dataset: &stream.dataset,
                provider: "anomalyd",
                id: &anomaly.id,
                reason: anomaly.reasons.iter().map(|r| r.text.as_str()).collect::<Vec<_>>().join("; "),
                start: date(start),
                end: date(end),
                duration: end.0.saturating_sub(start.0),
                severity: severity_number(anomaly.score),
                risk_score: finite(anomaly.score),
            },
            rule: Rule {
                id: format!("{}/{}/{}", anomaly.detector.name, anomaly.metric, anomaly.function),
                name: format!("Anomalous {} {}", anomaly.metric, anomaly.function),
                version: &anomaly.detector.version,
                category: "anomaly",
                ruleset: "anomalyd",
            },
            observer: OBSERVER,
            service: Service {
                name: &entity.service,
                environment: anomaly.environment.as_str(),
                node: entity.instance.as_deref().map(|name| Named { name }),
            },
            transaction: transaction(anomaly),
            attributes: known_attributes(entity),
            anomaly: Finding::new(anomaly),
        }
    }
}

impl<'a> Finding<'a> {
    fn new(anomaly: &'a Anomaly) -> Self {
        let (start, end) = (anomaly.window.start, anomaly.window.end);
        let explanation = anomaly
            .reasons
            .iter()
            .map(|r| (r.component.as_str(), Explanation { surprise: finite(r.surprise), share: finite(r.share), text: &r.text }));
        Self {
            id: &anomaly.id,
            fingerprint: &anomaly.fingerprint,
            score: finite(anomaly.score),
            severity: anomaly.severity,
            probability: finite(anomaly.probability),
            direction: anomaly.direction,
            is_interim: false,
            suppressed: false,
            status: "open",
            detector: &anomaly.detector,
            function: &anomaly.function,
            signal: anomaly.signal,
            metric: Metric { name: &anomaly.metric, unit: &anomaly.unit },
            actual: finite(anomaly.observed),
            typical: finite(anomaly.expected),
            lower: finite(anomaly.lower),
            upper: finite(anomaly.upper),
            deviation: finite(anomaly.observed - anomaly.expected),
            window: Bucket { start: date(start), end: date(end), bucket_span_s: end.secs_f64() - start.secs_f64() },
            sample_count: finite(anomaly.samples).map(|n| n.round().clamp(0.0, 9e15) as u64),
            entity: Who::new(&anomaly.entity),
            incident: anomaly.incident.as_ref(),
            source: Source { environment: anomaly.environment.as_str() },
            explanation: explanation.collect(),
            past: anomaly.past.as_ref().map(|past| History {
                rarest_in_s: finite(past.rarest_in),
                unprecedented: past.unprecedented,
                similar: past.similar.map(|s| Precedent { time: date(s.time), likeness: finite(s.likeness) }),
                text: past.text(),
            }),
        }
    }
}

impl<'a> Who<'a> {
    fn new(entity: &'a Entity) -> Self {
        let mut fields: BTreeMap<&str, &str> = entity.attributes.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        fields.insert("service.name", &entity.service);
        if let Some(instance) = &entity.instance {
            fields.insert("service.instance.id", instance);
        }
        if let Some(operation) = &entity.operation {
            fields.insert("span.name", operation);
        }
        if let Some(kind) = entity.kind {
            fields.insert("span.kind", kind.as_str());
        }
        let r#type = match entity {
            Entity { operation: Some(_), .. } => "operation",
            Entity { instance: Some(_), .. } => "instance",
            _ => "service",
        };
        Self { r#type, key: entity.key(), fields }
    }
}

/// What Elastic APM calls a transaction: an operation that the service itself serves.
fn transaction(anomaly: &Anomaly) -> Option<Transaction<'_>> {
    let r#type = match anomaly.entity.kind? {
        SpanKind::Server => "request",
        SpanKind::Consumer => "messaging",
        _ => return None,
    };
    anomaly.entity.operation.as_deref().map(|name| Transaction { name, r#type })
}

fn known_attributes(entity: &Entity) -> BTreeMap<&'static str, Attribute<'_>> {
    let known = entity.attributes.iter().filter_map(|(name, value)| {
        Some(match name.as_str() {
            "host.name" => ("host.name", Attribute::Text(value)),
            "k8s.namespace.name" => ("kubernetes.namespace", Attribute::Text(value)),
            "k8s.pod.name" => ("kubernetes.pod.name", Attribute::Text(value)),
            "cloud.region" => ("cloud.region", Attribute::Text(value)),
            "url.path" => ("url.path", Attribute::Text(value)),
            "http.response.status_code" => ("http.response.status_code", Attribute::Number(value.parse().ok()?)),
            _ => return None,
        })
    });
    known.collect()
}

pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Elastic's numbers for severity go from 1 to 99.
pub(super) fn severity_number(score: f64) -> u8 {
    if score.is_nan() { 1 } else { score.round().clamp(1.0, 99.0) as u8 }
}

pub(super) fn date(time: UnixNanos) -> String {
    time.rfc3339()
}

/// `checkout POST /pay (server): span p99 is 412 ms, expected 95 ms (80 ms to 120 ms)`.
fn message(anomaly: &Anomaly) -> String {
    if let Some(joint) = anomaly.joint() {
        return format!("{}: {joint}", anomaly.entity.key());
    }
    let say = alike(&anomaly.unit, &[anomaly.observed, anomaly.expected, anomaly.upper]);
    format!(
        "{} is {}, expected {} ({} to {})",
        anomaly.series(),
        say(anomaly.observed),
        say(anomaly.expected),
        say(anomaly.lower),
        say(anomaly.upper)
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{DetectorRef, Environment, Past, Reason, Similar, Window};
    use proptest::prelude::*;

    pub(in crate::exporters::elasticsearch) fn anomaly(id: &str) -> Anomaly {
        Anomaly {
            id: id.to_owned(),
            fingerprint: "nb2hi4dthixs6".to_owned(),
            environment: Environment::new("production"),
            detector: DetectorRef { name: "detector".to_owned(), kind: "ensemble".to_owned(), version: "1".to_owned() },
            signal: Signal::Traces,
            entity: Entity {
                service: "checkout".to_owned(),
                instance: None,
                operation: Some("POST /pay".to_owned()),
                kind: Some(SpanKind::Server),
                attributes: vec![
                    ("http.response.status_code".to_owned(), "200".to_owned()),
                    ("k8s.pod.name".to_owned(), "checkout-7d9f".to_owned()),
                    ("tier".to_owned(), "gold".to_owned()),
                ],
            },
            metric: "span".to_owned(),
            unit: "s".to_owned(),
            function: "p99".to_owned(),
            window: Window { start: UnixNanos::from_secs(1_789_000_020), end: UnixNanos::from_secs(1_789_000_080) },
            observed: 0.412,
            expected: 0.095,
            lower: 0.08,
            upper: 0.12,
            samples: 731.4,
            score: 91.5,
            probability: 1e-9,
            severity: Severity::Critical,
            direction: Direction::Spike,
            reasons: vec![
                Reason {
                    component: "time_of_day".to_owned(),
                    surprise: 9.0,
                    share: 0.7,
                    text: "412 ms is far from the 95 ms usual at this time of day".to_owned(),
                },
                Reason { component: "ar4".to_owned(), surprise: 4.0, share: 0.3, text: "it rose within one bucket".to_owned() },
            ],
            past: Some(Past {
                rarest_in: 1_036_800.0,
                unprecedented: false,
                similar: Some(Similar { time: UnixNanos::from_secs(1_787_963_220), likeness: 0.82 }),
            }),
            incident: Some(IncidentRef { id: "o53xozlfnzsa".to_owned(), lead: true }),
        }
    }

    #[test]
    fn an_anomaly_becomes_a_document_of_the_elastic_common_schema() {
        let (anomaly, stream) = (anomaly("mfrggzdfmztwq"), DataStream::of(&Environment::new("production")));
        let document = serde_json::to_value(Document::new(&anomaly, &stream)).unwrap();
        insta::with_settings!({ filters => vec![(env!("CARGO_PKG_VERSION"), "[version]")] }, {
            insta::assert_json_snapshot!(document);
        });
    }

    proptest! {
        #[test]
        fn no_number_breaks_a_document(observed: f64, expected: f64, score: f64, samples: f64, surprise: f64, start: u64, end: u64) {
            let stream = DataStream::of(&Environment::new("x"));
            let mut anomaly = anomaly("a");
            (anomaly.observed, anomaly.expected, anomaly.score, anomaly.samples) = (observed, expected, score, samples);
            anomaly.window = Window { start: UnixNanos(start), end: UnixNanos(end) };
            anomaly.reasons[0].surprise = surprise;
            let text = serde_json::to_string(&Document::new(&anomaly, &stream)).unwrap();
            prop_assert!(!text.contains("null") && !text.contains("NaN"), "{text}");
            let back: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert!((1..=99).contains(&back["event"]["severity"].as_u64().unwrap()));
        }
    }
}
