//! Elasticsearch: `ELASTICSEARCH_URL`, else what `tests/support/elasticsearch.sh` starts; and a plain client for it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Absent, project};

/// The first cluster.
pub(crate) const NEW: &str = "9.4.3";
/// The second cluster: the major version before.
pub(crate) const OLD: &str = "8.19.8";

/// A cluster that all tests share; each uses data streams with names of its own.
#[derive(Debug)]
struct Cluster {
    url: String,
    user: String,
    password: String,
    /// The script that runs the node. It stops the node when this process ends, however it ends,
    /// because its standard input ends then.
    _script: Option<Child>,
}

/// A cluster, with a client that belongs to the test.
pub(crate) struct Elasticsearch {
    pub(crate) url: &'static str,
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
    http: reqwest::Client,
}

/// The cluster of this version, started if it is not running yet.
///
/// `ELASTICSEARCH_URL` stands for the first cluster and `ELASTICSEARCH_URL_2` for the second, with user and
/// password in the URL. They should be clusters for tests: what the tests write stays there.
pub(crate) fn elasticsearch(version: &'static str) -> Result<Elasticsearch, Absent> {
    static FIRST: OnceLock<Result<Cluster, Absent>> = OnceLock::new();
    static SECOND: OnceLock<Result<Cluster, Absent>> = OnceLock::new();
    let (cluster, variable) = if version == NEW { (&FIRST, "ELASTICSEARCH_URL") } else { (&SECOND, "ELASTICSEARCH_URL_2") };
    let cluster = cluster.get_or_init(|| match std::env::var(variable) {
        Ok(url) if !url.is_empty() => given(variable, &url),
        _ => start(version),
    });
    match cluster {
        Ok(Cluster { url, user, password, .. }) => {
            let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client");
            Ok(Elasticsearch { url, user, password, http })
        }
        Err(absent) => Err(absent.clone()),
    }
}

fn given(variable: &str, url: &str) -> Result<Cluster, Absent> {
    let mut parsed: url::Url = url.parse().map_err(|e| Absent(format!("{variable} is not a URL: {e}")))?;
    let user = parsed.username().to_owned();
    let password = parsed.password().unwrap_or_default().to_owned();
    let bare = parsed.set_username("").and_then(|()| parsed.set_password(None));
    bare.map_err(|()| Absent(format!("{variable} is not a URL of a server")))?;
    Ok(Cluster { url: parsed.as_str().trim_end_matches('/').to_owned(), user, password, _script: None })
}

fn start(version: &str) -> Result<Cluster, Absent> {
    let folder = std::env::temp_dir().join(super::unique("anomalyd-test-elasticsearch-"));
    let password = super::unique("test-password-");
    let mut script = Command::new("bash")
        .arg(project("tests/support/elasticsearch.sh"))
        .args(["run", version])
        .arg(&folder)
        .arg(&password)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| Absent(format!("cannot run bash: {e}")))?;
    let mut url = String::new();
    let output = script.stdout.take().map(BufReader::new);
    output.map_or(Ok(0), |mut o| o.read_line(&mut url)).map_err(|e| Absent(format!("elasticsearch.sh: {e}")))?;
    if url.trim().is_empty() {
        let said = script.wait_with_output().map(|o| String::from_utf8_lossy(&o.stderr).into_owned()).unwrap_or_default();
        return Err(Absent(said.lines().last().unwrap_or("elasticsearch.sh said nothing").to_owned()));
    }
    Ok(Cluster { url: url.trim().to_owned(), user: "elastic".to_owned(), password, _script: Some(script) })
}

impl Elasticsearch {
    /// One request; the answer must be a success.
    pub(crate) async fn call(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> Value {
        let (mut status, mut answer) = self.try_call(method.clone(), path, body.clone()).await;
        // The shards of an index that was just made take a moment.
        let begun = std::time::Instant::now();
        while status == reqwest::StatusCode::SERVICE_UNAVAILABLE && begun.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(200)).await;
            (status, answer) = self.try_call(method.clone(), path, body.clone()).await;
        }
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    /// One request, whatever the answer.
    pub(crate) async fn try_call(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<Value>,
    ) -> (reqwest::StatusCode, Value) {
        let url = format!("{}/{path}", self.url);
        let mut request = self.http.request(method, url).basic_auth(self.user, Some(self.password));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("Elasticsearch answers");
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    /// Makes `name` a data stream with a time, with texts as keywords, as the templates that Elastic ships do.
    /// Not every server that the tests can have brings those templates.
    pub(crate) async fn data_stream(&self, name: &str) {
        let texts =
            json!({ "texts": { "match_mapping_type": "string", "mapping": { "type": "keyword", "ignore_above": 1024 } } });
        let template = json!({
            "index_patterns": [name],
            "priority": 1000,
            "data_stream": {},
            "template": {
                "settings": { "number_of_replicas": 0 },
                "mappings": {
                    "properties": { "@timestamp": { "type": "date", "format": "strict_date_optional_time||epoch_millis" } },
                    "dynamic_templates": [texts],
                },
            },
        });
        self.call(reqwest::Method::PUT, &format!("_index_template/{name}"), Some(template)).await;
    }

    /// Makes `name` an index, which unlike a data stream can be deleted everywhere.
    pub(crate) async fn plain_index(&self, name: &str) {
        let time = json!({ "type": "date", "format": "strict_date_optional_time||epoch_millis" });
        let settings = json!({ "number_of_replicas": 0 });
        let body = json!({ "settings": settings, "mappings": { "properties": { "@timestamp": time } } });
        self.call(reqwest::Method::PUT, name, Some(body)).await;
    }

    /// Writes documents to a data stream or an index, in requests of 5,000; they can be searched when this returns.
    pub(crate) async fn index(&self, data_stream: &str, documents: impl IntoIterator<Item = Value>) {
        let mut documents = documents.into_iter().peekable();
        while documents.peek().is_some() {
            let mut body = String::new();
            for document in documents.by_ref().take(5_000) {
                body.push_str("{\"create\":{}}\n");
                body.push_str(&document.to_string());
                body.push('\n');
            }
            let request = self.http.post(format!("{}/{data_stream}/_bulk?filter_path=errors,items.*.error", self.url));
            let request = request.basic_auth(self.user, Some(self.password)).header("content-type", "application/x-ndjson");
            let answer = request.body(body).send().await.expect("Elasticsearch answers");
            let status = answer.status();
            let answer: Value = answer.json().await.expect("JSON");
            assert!(status.is_success() && answer["errors"] == json!(false), "bulk to {data_stream}: {status} {answer}");
        }
        self.call(reqwest::Method::POST, &format!("{data_stream}/_refresh"), None).await;
    }

    /// The sources of all documents (at most 10,000) that match, none where there is no such index.
    pub(crate) async fn search(&self, index: &str, query: Value) -> Vec<Value> {
        let refreshed = self.try_call(reqwest::Method::POST, &format!("{index}/_refresh?ignore_unavailable=true"), None).await;
        if !refreshed.0.is_success() {
            return Vec::new();
        }
        let body = json!({ "size": 10_000, "query": query, "sort": ["@timestamp"] });
        let answer = self.call(reqwest::Method::POST, &format!("{index}/_search?ignore_unavailable=true"), Some(body)).await;
        let hits = answer["hits"]["hits"].as_array().cloned().unwrap_or_default();
        hits.into_iter().map(|mut hit| hit["_source"].take()).collect()
    }

    /// Lines for a pipeline file: a receiver that reads `indices` from a day ago on and goes on without delay.
    pub(crate) fn receiver(&self, indices: &str) -> String {
        let connection = self.yaml(4);
        format!(
            "  elasticsearch:\n{connection}    indices: [\"{indices}\"]\n    interval: 1s\n    lookback: 24h\n    query_delay: 0s\n"
        )
    }

    /// Lines for a pipeline file: where the cluster is and who asks, at this indent.
    pub(crate) fn yaml(&self, indent: usize) -> String {
        let space = " ".repeat(indent);
        let Self { url, user, password, .. } = self;
        format!("{space}endpoints: [\"{url}\"]\n{space}username: {user}\n{space}password: {password}\n")
    }
}
