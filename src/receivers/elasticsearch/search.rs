//! What the poller asks of a cluster.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::time;
use crate::elasticsearch::{Client, ClientError, Request, Retry, segment};
use crate::model::UnixNanos;

/// Why a page was not had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SearchError {
    /// The point in time, or an index that it holds, is gone: with a new one the search can go on.
    Gone(String),
    /// The answer is larger than is read.
    TooLarge(String),
    /// Anything else; in a sentence.
    Failed(String),
}

/// One page that is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageRequest<'a> {
    /// The point in time.
    pub(super) pit: &'a str,
    /// Documents of this moment and later...
    pub(super) from: UnixNanos,
    /// ...and before this one.
    pub(super) to: UnixNanos,
    /// Only after these sort values.
    pub(super) after: Option<&'a str>,
    /// Only documents with these ids.
    pub(super) ids: Option<&'a [String]>,
    /// Most documents.
    pub(super) size: usize,
    /// Whether the documents themselves are wanted.
    pub(super) source: bool,
}

/// A cluster, as far as the poller knows it.
#[async_trait]
pub(super) trait Search: Send + Sync {
    /// Opens a point in time over what the patterns match now; `None` when that is nothing.
    async fn open(&self) -> Result<Option<String>, SearchError>;

    /// The body of the answer to a search, sorted by time.
    async fn page(&self, request: PageRequest<'_>) -> Result<Bytes, SearchError>;

    /// Closes a point in time, if that can be done.
    async fn close(&self, pit: String);

    /// The metrics (without the `metrics.` in front) that are mapped as counters.
    async fn counters(&self) -> Result<HashSet<String>, SearchError>;
}

/// The real one.
pub(super) struct Cluster {
    client: Client,
    indices: String,
    keep_alive: String,
    filter: Option<Map<String, Value>>,
}

impl Cluster {
    pub(super) fn new(client: Client, indices: &[String], keep_alive: Duration, filter: Option<Map<String, Value>>) -> Self {
        Self { client, indices: segment(&patterns(indices)), keep_alive: format!("{}ms", keep_alive.as_millis()), filter }
    }

    fn body(&self, request: PageRequest<'_>) -> Value {
        let PageRequest { pit, from, to, after, ids, size, source } = request;
        let mut filter = vec![json!({ "range": { "@timestamp": {
            "gte": time::format(from), "lt": time::format(to), "format": "strict_date_optional_time_nanos"
        }}})];
        filter.extend(ids.map(|ids| json!({ "ids": { "values": ids } })));
        filter.extend(self.filter.clone().map(Value::Object));
        let mut body = json!({
            "pit": { "id": pit, "keep_alive": self.keep_alive },
            "size": size,
            "_source": source,
            "track_total_hits": false,
            "query": { "bool": { "filter": filter, "must_not": [
                // What the detectors write must never come back as input.
                { "prefix": { "data_stream.dataset": "anomaly." } },
                // Bookkeeping of APM Server, no telemetry.
                { "term": { "data_stream.dataset": "apm.sampled" } },
            ]}},
            // `date` and `date_nanos` fields come out in one form; else nanoseconds would be cut off in
            // `search_after`, which then skips or repeats documents.
            "sort": [
                { "@timestamp": {
                    "order": "asc", "format": "strict_date_optional_time_nanos",
                    "numeric_type": "date_nanos", "unmapped_type": "date"
                }},
                { "_shard_doc": "asc" },
            ],
        });
        if let (Some(after), Some(body)) = (after.and_then(|a| serde_json::from_str::<Value>(a).ok()), body.as_object_mut()) {
            body.insert("search_after".to_owned(), after);
        }
        body
    }
}

/// The patterns as one expression. What must not be read can only be taken out after a pattern with a star.
fn patterns(indices: &[String]) -> String {
    let mut all = indices.to_vec();
    if indices.iter().any(|i| i.contains('*') && !i.contains(':')) {
        all.extend(["-logs-anomaly.*".to_owned(), "-anomaly-incidents-*".to_owned()]);
    }
    all.join(",")
}

#[async_trait]
impl Search for Cluster {
    async fn open(&self) -> Result<Option<String>, SearchError> {
        #[derive(Deserialize)]
        struct Opened {
            id: String,
            #[serde(rename = "_shards")]
            shards: Option<Shards>,
        }
        #[derive(Deserialize)]
        struct Shards {
            total: u64,
        }
        let request = Request::post(format!("{}/_pit", self.indices))
            .query("keep_alive", self.keep_alive.as_str())
            .query("ignore_unavailable", "true");
        let reply = self.client.send(request).await.map_err(failure)?;
        let opened: Opened = reply.json().map_err(failure)?;
        Ok(opened.shards.is_none_or(|s| s.total > 0).then_some(opened.id))
    }

    async fn page(&self, request: PageRequest<'_>) -> Result<Bytes, SearchError> {
        let request = Request::post("_search").query("allow_partial_search_results", "false").json(&self.body(request));
        Ok(self.client.send(request).await.map_err(failure)?.body)
    }

    async fn close(&self, pit: String) {
        let request = Request::delete("_pit").json(&json!({ "id": pit })).retry(Retry::Never).timeout(Duration::from_secs(5));
        if let Err(error) = self.client.send(request).await {
            // It ends by itself when its time is up.
            tracing::debug!(%error, "point in time not closed");
        }
    }

    async fn counters(&self) -> Result<HashSet<String>, SearchError> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            fields: std::collections::HashMap<String, std::collections::HashMap<String, Capability>>,
        }
        #[derive(Deserialize)]
        struct Capability {
            time_series_metric: Option<String>,
        }
        let request = Request::get(format!("{}/_field_caps", self.indices))
            .query("fields", "metrics.*")
            .query("ignore_unavailable", "true")
            .query("filter_path", "fields.*.*.time_series_metric");
        let answer: Answer = self.client.send(request).await.map_err(failure)?.json().map_err(failure)?;
        let counter = |types: &std::collections::HashMap<String, Capability>| {
            types.values().any(|c| c.time_series_metric.as_deref() == Some("counter"))
        };
        let names = answer.fields.into_iter().filter(|(_, types)| counter(types));
        Ok(names.filter_map(|(name, _)| name.strip_prefix("metrics.").map(str::to_owned)).collect())
    }
}

/// What a point in time that is gone is called: it ran out, its node ended, its index was deleted or closed, a shard
/// moved.
const GONE: [&str; 5] = [
    "search_context_missing_exception",
    "index_not_found_exception",
    "shard_not_found_exception",
    "index_closed_exception",
    "no_shard_available_action_exception",
];

fn failure(error: ClientError) -> SearchError {
    let sentence = error.to_string();
    match error {
        ClientError::TooLarge { .. } => SearchError::TooLarge(sentence),
        ClientError::Refused { refusal, .. }
            if GONE.iter().any(|kind| refusal.kind.as_deref() == Some(kind) || refusal.reason.contains(kind)) =>
        {
            SearchError::Gone(sentence)
        }
        _ => SearchError::Failed(sentence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elasticsearch::ConnectionConfig;

    #[test]
    fn own_anomalies_are_taken_out_after_a_pattern() {
        let of = |indices: &[&str]| patterns(&indices.iter().map(|&i| i.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["traces-*", "logs-*"]), "traces-*,logs-*,-logs-anomaly.*,-anomaly-incidents-*");
        assert_eq!(of(&["traces-apm-default"]), "traces-apm-default", "an exclusion alone would be an index name");
        assert_eq!(of(&["eu:logs-*"]), "eu:logs-*");
    }

    #[test]
    fn a_page_is_asked_for_as_the_specification_says() {
        let client = Client::new(&ConnectionConfig::new("http://localhost:9200"), "test").unwrap();
        let filter = json!({ "term": { "service.name": "a" } }).as_object().cloned();
        let cluster = Cluster::new(client, &["traces-*".to_owned()], Duration::from_secs(60), filter);
        let body = cluster.body(PageRequest {
            pit: "p",
            from: UnixNanos::from_secs(0),
            to: UnixNanos::from_secs(1),
            after: Some(r#"["2024-01-15T10:30:00.000Z",4294967296]"#),
            ids: Some(&["a".to_owned()]),
            size: 10,
            source: true,
        });
        insta::assert_json_snapshot!(body);
    }
}
