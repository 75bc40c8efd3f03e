//! What the data stream needs before the first document: the templates, the stream itself, its retention.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::config::DataStream;
use crate::elasticsearch::{Client, ClientError, Method, Request, Retry, segment};

/// Name of the component template with the mapping, and of the index template.
const NAME: &str = "logs-anomaly";
/// Grows with the mapping. A newer version that is installed already is left as it is.
const VERSION: u64 = 2;

/// Types that the mapping can do without, and what stands in for them where a cluster does not have them (some are
/// modules of Elastic's own distribution).
const STAND_INS: [(&str, &str); 3] = [
    ("constant_keyword", r#"{"type":"keyword"}"#),
    ("match_only_text", r#"{"type":"text"}"#),
    ("flattened", r#"{"type":"object","enabled":false}"#),
];

/// Installs the templates and makes the stream. Answers with what could not be done but can be done without; the text
/// says what is missing.
///
/// # Errors
/// When writing must wait: the cluster does not answer, does not know us, or does not take the templates.
pub(super) async fn install(client: &Client, stream: &DataStream, retention: Duration) -> Result<Vec<String>, ClientError> {
    let retention = retention_text(retention);
    let mut warnings = Vec::new();
    match templates(client, &retention, &mut warnings).await {
        Err(error) if error.status() == Some(403) => warnings.push(format!(
            "the index template `{NAME}` cannot be installed, so the data stream has the mapping of whatever template is there: \
             {error}; or let somebody install it and set `setup: false`"
        )),
        other => other?,
    }
    data_stream(client, &stream.name, &retention, &mut warnings).await?;
    Ok(warnings)
}

async fn templates(client: &Client, retention: &str, warnings: &mut Vec<String>) -> Result<(), ClientError> {
    let component = format!("_component_template/{NAME}");
    let installed = client.send(once(Method::GET, &component)).await;
    let version = match &installed {
        Ok(reply) => reply.json::<Value>()?.pointer("/component_templates/0/component_template/version").and_then(Value::as_u64),
        Err(_) => None,
    };
    if version.is_some_and(|v| v > VERSION) {
        return Ok(());
    }
    put(client, &component, component_template(), warnings).await?;
    put(client, &format!("_index_template/{NAME}"), index_template(retention), warnings).await
}

/// Makes the stream if it is not there, and sets its retention, which a template sets for new streams only. Where
/// that is not allowed or not known the first document makes the stream.
async fn data_stream(client: &Client, name: &str, retention: &str, warnings: &mut Vec<String>) -> Result<(), ClientError> {
    let path = format!("_data_stream/{}", segment(name));
    match client.send(once(Method::PUT, &path)).await {
        Ok(_) => {}
        Err(e) if e.error_type() == Some("resource_already_exists_exception") => {}
        Err(e) if e.status() == Some(401) || e.is_retryable() => return Err(e),
        Err(error) => {
            tracing::debug!(%error, "the first document will make the data stream");
            return Ok(());
        }
    }
    let lifecycle = once(Method::PUT, &format!("{path}/_lifecycle")).json(&json!({ "data_retention": retention }));
    match client.send(lifecycle).await {
        Err(e) if e.status() == Some(401) || e.is_retryable() => Err(e),
        Err(e) => {
            warnings.push(format!("the retention of {retention} cannot be set: {e}"));
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

fn once(method: Method, path: &str) -> Request {
    Request::new(method, path).retry(Retry::Never)
}

/// Puts a template, and puts it again without what this cluster does not know.
async fn put(client: &Client, path: &str, mut template: Value, warnings: &mut Vec<String>) -> Result<(), ClientError> {
    loop {
        let Err(error) = client.send(once(Method::PUT, path).json(&template)).await else { return Ok(()) };
        let missing = if error.status() == Some(400) { do_without(&mut template, &error.to_string()) } else { None };
        match missing {
            Some(what) => warnings.push(format!("this cluster does not know {what}, so `{path}` does without it")),
            None => return Err(error),
        }
    }
}

/// Takes out of `template` what the cluster says that it does not know.
fn do_without(template: &mut Value, reason: &str) -> Option<String> {
    for (kind, stand_in) in STAND_INS {
        if reason.contains(&format!("[{kind}]")) && replace_type(template, kind, &serde_json::from_str(stand_in).ok()?) {
            return Some(format!("the field type `{kind}`"));
        }
    }
    if reason.contains("index.mode") && remove(template, "/template/settings", "index.mode") {
        return Some("the setting `index.mode`".to_owned());
    }
    if reason.contains("lifecycle") && remove(template, "/template", "lifecycle") {
        return Some("the retention of data streams".to_owned());
    }
    None
}

fn remove(template: &mut Value, pointer: &str, key: &str) -> bool {
    template.pointer_mut(pointer).and_then(Value::as_object_mut).and_then(|o| o.remove(key)).is_some()
}

fn replace_type(value: &mut Value, kind: &str, stand_in: &Value) -> bool {
    let Some(fields) = value.as_object_mut() else { return false };
    if fields.get("type").and_then(Value::as_str) == Some(kind) {
        *value = stand_in.clone();
        return true;
    }
    let mut found = false;
    for inner in fields.values_mut() {
        found |= replace_type(inner, kind, stand_in);
    }
    found
}

/// `90d`: in the largest unit that Elasticsearch knows and that divides it.
fn retention_text(retention: Duration) -> String {
    let seconds = retention.as_secs();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60)] {
        if seconds.is_multiple_of(length) {
            return format!("{}{unit}", seconds / length);
        }
    }
    format!("{seconds}s")
}

fn index_template(retention: &str) -> Value {
    json!({
        "index_patterns": ["logs-anomaly.*-*"],
        // Above Elastic's own templates for `logs-*-*`: 100 built in, 120 OpenTelemetry, 200 integrations.
        "priority": 500,
        "version": VERSION,
        "composed_of": [NAME],
        "data_stream": {},
        "template": { "lifecycle": { "data_retention": retention } },
        "_meta": { "managed_by": "anomalyd", "description": "Anomalies and incidents that anomalyd has found" },
    })
}

fn component_template() -> Value {
    json!({
        "version": VERSION,
        "template": {
            "settings": { "index.mode": "standard", "index.mapping.total_fields.limit": 500 },
            "mappings": mappings(),
        },
        "_meta": { "managed_by": "anomalyd", "description": "Anomalies and incidents that anomalyd has found" },
    })
}

/// All fields by kind, as dotted names. See `README.md` for what they hold.
const FIELDS: [(&str, &[&str]); 13] = [
    (
        "date",
        &[
            "@timestamp",
            "event.start",
            "event.end",
            "event.created",
            "event.ingested",
            "anomaly.window.start",
            "anomaly.past.similar.time",
            "anomaly.window.end",
            "incident.start",
            "incident.updated",
            "incident.end",
        ],
    ),
    (
        "match_only_text",
        &[
            "anomaly.past.text",
            "message",
            "anomaly.log_pattern.template",
            "anomaly.log_pattern.example",
            "incident.title",
            "incident.lead.reason",
        ],
    ),
    (
        "keyword",
        &[
            "tags",
            "ecs.version",
            "event.kind",
            "event.category",
            "event.type",
            "event.action",
            "event.outcome",
            "event.module",
            "event.dataset",
            "event.provider",
            "event.id",
            "event.reason",
            "event.url",
            "rule.id",
            "rule.name",
            "rule.version",
            "rule.category",
            "rule.ruleset",
            "rule.description",
            "rule.reference",
            "observer.vendor",
            "observer.product",
            "observer.name",
            "observer.type",
            "observer.version",
            "service.name",
            "service.environment",
            "service.version",
            "service.node.name",
            "host.name",
            "kubernetes.namespace",
            "kubernetes.pod.name",
            "cloud.region",
            "url.path",
            "trace.id",
            "transaction.id",
            "transaction.name",
            "transaction.type",
            "span.id",
            "error.grouping_key",
            "related.hosts",
            "related.user",
            "anomaly.id",
            "anomaly.fingerprint",
            "anomaly.incident.id",
            "anomaly.severity",
            "anomaly.direction",
            "anomaly.status",
            "anomaly.detector.name",
            "anomaly.detector.type",
            "anomaly.detector.version",
            "anomaly.detector.model_id",
            "anomaly.detector.config_hash",
            "anomaly.function",
            "anomaly.signal",
            "anomaly.metric.name",
            "anomaly.metric.unit",
            "anomaly.entity.type",
            "anomaly.entity.key",
            "anomaly.source.environment",
            "anomaly.source.cluster",
            "anomaly.source.index_pattern",
            "anomaly.source.data_stream",
            "anomaly.source.query_hash",
            "anomaly.log_pattern.id",
            "incident.id",
            "incident.event",
            "incident.severity",
            "incident.detector.name",
            "incident.detector.type",
            "incident.detector.version",
            "incident.services",
            "incident.entities",
            "incident.series",
            "incident.lead.anomaly",
            "incident.lead.service",
            "incident.lead.series",
            "incident.lead.unit",
        ],
    ),
    ("constant_keyword", &["data_stream.type", "data_stream.dataset", "data_stream.namespace"]),
    ("link", &["anomaly.runbook_url", "anomaly.dashboard_url", "anomaly.apm_url"]),
    (
        "long",
        &[
            "event.duration",
            "event.severity",
            "http.response.status_code",
            "anomaly.sample_count",
            "incident.sequence",
            "incident.anomalies",
            "incident.series_count",
            "incident.duration_s",
        ],
    ),
    (
        "float",
        &[
            "event.risk_score",
            "anomaly.score",
            "anomaly.confidence",
            "anomaly.past.rarest_in_s",
            "anomaly.past.similar.likeness",
            "anomaly.window.bucket_span_s",
            "incident.score",
            "incident.threshold",
        ],
    ),
    // Byte counts and very small probabilities need more than a `float` has.
    (
        "double",
        &[
            "anomaly.actual",
            "anomaly.typical",
            "anomaly.lower",
            "anomaly.upper",
            "anomaly.deviation",
            "anomaly.probability",
            "incident.lead.observed",
            "incident.lead.expected",
        ],
    ),
    ("boolean", &["anomaly.is_interim", "anomaly.suppressed", "anomaly.incident.lead", "anomaly.past.unprecedented"]),
    ("ip", &["host.ip"]),
    ("flattened", &["anomaly.entity.fields", "anomaly.partition", "anomaly.explanation"]),
    ("disabled", &["anomaly.exemplars"]),
    ("labels", &["labels"]),
];

fn definition(kind: &str) -> Value {
    match kind {
        "keyword" | "flattened" => json!({ "type": kind, "ignore_above": 1024 }),
        "link" => json!({ "type": "keyword", "index": false, "doc_values": false }),
        "ip" => json!({ "type": "ip", "ignore_malformed": true }),
        "disabled" => json!({ "type": "object", "enabled": false }),
        "labels" => json!({ "type": "object", "dynamic": true }),
        kind => json!({ "type": kind }),
    }
}

/// Puts `definition` at the dotted `name` below `field`.
fn insert(field: &mut Map<String, Value>, name: &str, definition: Value) {
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    let Value::Object(inner) = field.entry(first).or_insert_with(|| json!({})) else { return };
    match rest {
        None => *inner = definition.as_object().cloned().unwrap_or_default(),
        Some(rest) => {
            if let Value::Object(properties) = inner.entry("properties").or_insert_with(|| json!({})) {
                insert(properties, rest, definition);
            }
        }
    }
}

fn mappings() -> Value {
    let mut properties = Map::new();
    for (kind, names) in FIELDS {
        for name in names {
            insert(&mut properties, name, definition(kind));
        }
    }
    json!({
        // Fields that are not listed are kept in the document and not indexed, so nothing can make the mapping explode.
        "dynamic": false,
        "date_detection": false,
        "dynamic_templates": [{ "labels": { "path_match": "labels.*", "mapping": definition("keyword") } }],
        "properties": properties,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elasticsearch::ConnectionConfig;
    use crate::elasticsearch::stub::{Answer, Stub};
    use crate::model::Environment;

    /// The types of all fields, by dotted name.
    fn fields(mapping: &Value, name: &str, found: &mut Vec<String>) {
        for (key, field) in mapping["properties"].as_object().into_iter().flatten() {
            let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            match field["type"].as_str() {
                Some(kind) => found.push(format!("{name}: {kind}")),
                None => fields(field, &name, found),
            }
        }
    }

    #[test]
    fn the_mapping_has_the_documented_fields() {
        let mut found = Vec::new();
        fields(&mappings(), "", &mut found);
        insta::assert_snapshot!(found.join("\n"));
    }

    #[test]
    fn retention_is_written_as_elasticsearch_reads_it() {
        let text = |s| retention_text(Duration::from_secs(s));
        assert_eq!([text(90 * 86_400), text(36 * 3_600), text(90 * 60), text(61)], ["90d", "36h", "90m", "61s"]);
    }

    async fn installed(stub: &Stub) -> Result<Vec<String>, ClientError> {
        let client = Client::new(&ConnectionConfig::new(&stub.url), "test").unwrap();
        let warnings = install(&client, &DataStream::of(&Environment::new("prod")), Duration::from_secs(86_400)).await?;
        Ok(warnings.iter().map(|w| w.replace(&stub.url, "[url]")).collect())
    }

    fn refusal(status: u16, kind: &str, reason: &str) -> Answer {
        Answer::json(status, &json!({ "error": { "type": kind, "reason": reason }, "status": status }))
    }

    #[tokio::test]
    async fn what_a_cluster_does_not_know_is_done_without() {
        let stub = Stub::with(|seen| {
            let body = String::from_utf8_lossy(&seen.body).into_owned();
            let unknown = ["constant_keyword", "match_only_text"].into_iter().find(|t| body.contains(t));
            Some(match (seen.method.as_str(), unknown) {
                ("GET", _) => refusal(404, "resource_not_found_exception", "component template not found"),
                (_, Some(kind)) => {
                    refusal(400, "mapper_parsing_exception", &format!("No handler for type [{kind}] declared on field [x]"))
                }
                _ if seen.uri.contains("_data_stream") => {
                    refusal(400, "", "no handler found for uri [/_data_stream/x] and method [PUT]")
                }
                _ if body.contains("lifecycle") => {
                    refusal(400, "x_content_parse_exception", "[template] unknown field [lifecycle]")
                }
                _ if body.contains("index.mode") => refusal(400, "illegal_argument_exception", "unknown setting [index.mode]"),
                _ => Answer::json(200, &json!({ "acknowledged": true })),
            })
        })
        .await;
        insta::assert_snapshot!(installed(&stub).await.unwrap().join("\n"));
    }

    #[tokio::test]
    async fn a_key_that_may_not_manage_templates_is_told_what_is_missing_and_goes_on() {
        let stub = Stub::with(|_| {
            Some(refusal(403, "security_exception", "action [x] is unauthorized, this action is granted by the cluster privileges [manage_index_templates,manage,all]"))
        })
        .await;
        insta::assert_snapshot!(installed(&stub).await.unwrap().join("\n"));
    }

    #[tokio::test]
    async fn a_newer_template_is_left_alone() {
        let stub = Stub::with(|seen| {
            (seen.method == "GET").then(|| {
                Answer::json(
                    200,
                    &json!({ "component_templates": [{ "name": NAME, "component_template": { "version": VERSION + 1 } }] }),
                )
            })
        })
        .await;
        assert_eq!(installed(&stub).await.unwrap(), [""; 0]);
        assert!(stub.seen().iter().all(|s| !(s.method == "PUT" && s.uri.contains("template"))));
    }

    #[tokio::test]
    async fn a_cluster_that_does_not_know_us_or_does_not_answer_makes_us_wait() {
        for status in [401, 503] {
            let stub = Stub::with(move |_| Some(Answer::empty(status))).await;
            assert_eq!(installed(&stub).await.unwrap_err().status(), Some(status));
        }
    }
}
