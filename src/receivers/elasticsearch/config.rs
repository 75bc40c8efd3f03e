//! The receiver's configuration.

use schemars::JsonSchema;
use serde::Deserialize;

use super::time;
use crate::config::Duration;
use crate::elasticsearch::ConnectionConfig;
use crate::pipeline::Problem;

/// Reads documents from Elasticsearch indices, each once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Config {
    /// Where the cluster is, and who asks.
    #[serde(flatten)]
    pub connection: ConnectionConfig,
    /// Names or patterns of indices, data streams and aliases, also of remote clusters: `traces-*`,
    /// `remote:logs-*`. Looked up again at every poll. The shape of a document is told by its fields, so one receiver
    /// may read all signals; what lies in `logs-anomaly.*` is never read.
    #[schemars(length(min = 1))]
    pub indices: Vec<String>,
    /// Time between two polls. A poll that finds more than it may read at once is followed by the next one without
    /// waiting.
    #[serde(default = "interval")]
    pub interval: Duration,
    /// How far a poll stays behind the present, so that documents on their way are there when their time is read.
    #[serde(default = "query_delay")]
    pub query_delay: Duration,
    /// Up to this much is added to `query_delay`: a fixed share of it that follows from environment and component, so
    /// that many receivers do not all ask for the same moments at the same time. As much as `query_delay` where it is
    /// not given.
    #[serde(default)]
    pub query_delay_jitter: Option<Duration>,
    /// How much of what was read before is looked through again for documents that came late, by their ids only. A
    /// document is read if it can be searched within `query_delay` and `overlap` of its time.
    #[serde(default = "overlap")]
    pub overlap: Duration,
    /// Most documents in one answer. Fewer are asked for while documents are large.
    #[serde(default = "page_size")]
    #[schemars(range(min = 1, max = 10000))]
    pub page_size: usize,
    /// How far back the first start begins.
    #[serde(default = "lookback")]
    pub lookback: Duration,
    /// Where the first start begins, in place of `lookback`: a moment such as `2026-01-15T10:30:00Z`. A receiver that
    /// has read before goes on where it was.
    #[serde(default)]
    pub start: Option<String>,
    /// Only documents that match this query: an object of Elasticsearch's query language such as
    /// `{ term: { "service.name": checkout } }`.
    #[serde(default)]
    pub filter: Option<serde_json::Map<String, serde_json::Value>>,
    /// Only documents that name one of these environments, or none. Empty: whatever a document says, it belongs to
    /// the environment of this file, because clusters often call theirs by another name.
    #[serde(default)]
    pub only_environments: Vec<String>,
    /// Most new documents in one poll.
    #[serde(default = "max_documents_per_poll")]
    #[schemars(range(min = 1))]
    pub max_documents_per_poll: u64,
    /// Most documents of the overlap that are remembered, 24 bytes each in the store and about 40 in memory. When
    /// more come, the overlap becomes shorter, with a warning.
    #[serde(default = "max_remembered_documents")]
    #[schemars(range(min = 1))]
    pub max_remembered_documents: usize,
    /// How long the cluster keeps a point in time open between two pages. Must be longer than the slowest page takes.
    #[serde(default = "keep_alive")]
    pub keep_alive: Duration,
}

const fn interval() -> Duration {
    Duration::from_secs(30)
}

const fn query_delay() -> Duration {
    Duration::from_secs(60)
}

const fn overlap() -> Duration {
    Duration::from_secs(300)
}

const fn page_size() -> usize {
    5000
}

const fn lookback() -> Duration {
    Duration::from_secs(900)
}

const fn max_documents_per_poll() -> u64 {
    500_000
}

const fn max_remembered_documents() -> usize {
    5_000_000
}

const fn keep_alive() -> Duration {
    Duration::from_secs(120)
}

/// What is wrong with a configuration that its schema cannot say.
pub(super) fn problems(value: &serde_json::Value) -> Vec<Problem> {
    // What does not even parse breaks the schema, and that was said already.
    let Ok(config) = serde_json::from_value::<Config>(value.clone()) else { return Vec::new() };
    let mut problems = config.connection.problems();
    let mut add = |path: &[&str], fatal: bool, message: String, hint: Option<&str>| {
        problems.push(Problem {
            path: path.iter().map(|&p| p.to_owned()).collect(),
            message,
            hint: hint.map(str::to_owned),
            fatal,
        });
    };
    if config.indices.is_empty() {
        let message = "no index is named: expected at least one name or pattern such as `traces-*`";
        add(&["indices"], true, message.to_owned(), None);
    }
    for (i, pattern) in config.indices.iter().enumerate() {
        let reason = match pattern.rsplit(':').next().unwrap_or_default() {
            "" => "is empty",
            p if p.contains([',', ' ', '"', '\\', '/', '|', '<', '>', '?', '#']) => "has characters that no name of an index has",
            p if p.chars().any(char::is_uppercase) => "has upper case letters, which no name of an index has",
            _ => continue,
        };
        let message = format!("`{pattern}` {reason}: expected a name or a pattern such as `traces-*`");
        add(&["indices", &i.to_string()], true, message, None);
    }
    for (key, duration, least) in [("interval", config.interval, 1), ("keep_alive", config.keep_alive, 1000)] {
        if duration.get().as_millis() < least {
            let message = format!("`{duration}` is too short: expected at least {least}ms");
            add(&[key], true, message, None);
        }
    }
    if let Some(start) = config.start.as_deref().filter(|s| time::parse(s).is_none()) {
        let message = format!("`{start}` is not a moment: expected one such as `2026-01-15T10:30:00Z`");
        add(&["start"], true, message, None);
    }
    if config.filter.as_ref().is_some_and(|f| f.len() != 1) {
        let message = "not a query: expected an object with one key, the kind of the query, such as `{ term: { ... } }`";
        add(&["filter"], true, message.to_owned(), Some("join several conditions in `{ bool: { filter: [ ... ] } }`"));
    }
    if config.overlap.get().is_zero() {
        let message =
            "without an overlap, documents that can be searched later than `query_delay` after their time are never read";
        add(&["overlap"], false, message.to_owned(), None);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn three_keys_are_enough() {
        let config: Config = serde_json::from_value(json!({
            "endpoints": ["https://es-1:9200"], "api_key": "id:key", "indices": ["traces-*"],
        }))
        .unwrap();
        let seconds = [config.interval, config.query_delay, config.overlap, config.lookback].map(|d| d.get().as_secs());
        assert_eq!((seconds, config.page_size), ([30, 60, 300, 900], 5000));
        assert_eq!(config.query_delay_jitter, None);
    }

    #[test]
    fn problems_name_the_key_and_say_what_was_expected() {
        let of = |more: serde_json::Value| {
            let mut config = json!({ "endpoints": ["http://es-1:9200"], "indices": ["logs-*", "eu:traces-*"] });
            for (key, value) in more.as_object().unwrap() {
                config[key] = value.clone();
            }
            problems(&config)
        };
        assert_eq!(of(json!({})), []);
        let broken = of(json!({
            "indices": ["Logs", "a,b", ""], "interval": "0s", "start": "yesterday", "filter": { "a": 1, "b": 2 }, "overlap": "0s",
        }));
        let told: Vec<String> = broken.iter().map(|p| format!("{} ({}): {}", p.path.join("."), p.fatal, p.message)).collect();
        insta::assert_snapshot!(told.join("\n"), @"
        indices.0 (true): `Logs` has upper case letters, which no name of an index has: expected a name or a pattern such as `traces-*`
        indices.1 (true): `a,b` has characters that no name of an index has: expected a name or a pattern such as `traces-*`
        indices.2 (true): `` is empty: expected a name or a pattern such as `traces-*`
        interval (true): `0s` is too short: expected at least 1ms
        start (true): `yesterday` is not a moment: expected one such as `2026-01-15T10:30:00Z`
        filter (true): not a query: expected an object with one key, the kind of the query, such as `{ term: { ... } }`
        overlap (false): without an overlap, documents that can be searched later than `query_delay` after their time are never read
        ");
        assert_eq!(of(json!({ "indices": [] }))[0].path, ["indices"]);
    }
}
