//! The client that the Elasticsearch receiver and exporter share.
//!
//! Of the `elasticsearch` crate it takes what requests are made of. It does not send with it: the crate neither limits the
//! time of requests nor tries again, does not notice dead nodes, reads answers of any size, and panics on an API key that
//! ends in a newline. Here every request has a time limit and a largest answer, goes to a node that is alive, is tried
//! again when that makes sense, and fails with a sentence. There is no sniffing: the addresses that nodes tell about
//! themselves are of no use behind a proxy or an ingress. The proxies that `HTTPS_PROXY` and its like name are used,
//! except for loopback.

mod config;
mod error;
mod nodes;
#[cfg(test)]
pub(crate) mod stub;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
mod transport;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration as Time;

use bytes::Bytes;
pub use elasticsearch::http::Method;
use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

pub use crate::pipeline::Backoff;
pub use config::{ApiKey, Compression, ConnectionConfig, RetryConfig, closed};
pub use error::{ClientError, Place, Refusal, excerpt, reason_of, retryable_status};

use nodes::Nodes;
use transport::Node;

/// A node that answered this lately is not probed before the next request.
const FRESH: Time = Time::from_secs(60);

/// What a body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Content {
    /// One JSON value.
    #[default]
    Json,
    /// One JSON value per line, each line ended (`_bulk`, `_msearch`).
    NdJson,
}

/// Whether a request is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// As the `retry` block of the configuration says. For requests that may arrive twice.
    #[default]
    Configured,
    /// Once only, but on another node if it could not even be sent to the first. For callers with a loop of their own.
    Never,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, with or without a leading slash, each part through [`segment`] where it is not fixed.
    pub path: String,
    /// The query, not encoded.
    pub query: Vec<(&'static str, String)>,
    /// The body.
    pub body: Option<Bytes>,
    /// What the body is.
    pub content: Content,
    /// Whether it is tried again.
    pub retry: Retry,
    /// Time limit of one try; `None` for the configured one.
    pub timeout: Option<Time>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            query: Vec::new(),
            body: None,
            content: Content::Json,
            retry: Retry::Configured,
            timeout: None,
        }
    }

    /// `GET path`.
    #[must_use]
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::Get, path)
    }

    /// `POST path`.
    #[must_use]
    pub fn post(path: impl Into<String>) -> Self {
        Self::new(Method::Post, path)
    }

    /// `PUT path`.
    #[must_use]
    pub fn put(path: impl Into<String>) -> Self {
        Self::new(Method::Put, path)
    }

    /// `DELETE path`.
    #[must_use]
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::Delete, path)
    }

    /// Adds a parameter to the query.
    #[must_use]
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Sets the body to `value` as JSON. What JSON cannot hold (a map with keys that are no text) becomes `null`.
    #[must_use]
    pub fn json(mut self, value: &impl Serialize) -> Self {
        self.body = Some(serde_json::to_vec(value).unwrap_or_else(|_| b"null".to_vec()).into());
        self.content = Content::Json;
        self
    }

    /// Sets the body to lines of JSON.
    #[must_use]
    pub fn ndjson(mut self, lines: impl Into<Bytes>) -> Self {
        self.body = Some(lines.into());
        self.content = Content::NdJson;
        self
    }

    /// Sets whether it is tried again.
    #[must_use]
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Sets the time limit of one try.
    #[must_use]
    pub const fn timeout(mut self, limit: Time) -> Self {
        self.timeout = Some(limit);
        self
    }
}

/// Everything that a part of a path may hold as it is. `*` and `,` belong to index patterns.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'*').remove(b',');

/// `text` as one part of a path: an index pattern such as `remote:logs-*,-logs-anomaly.*`, an id.
#[must_use]
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// An answer that says yes.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status, 200 to 299.
    pub status: u16,
    /// The body as it came, decompressed.
    pub body: Bytes,
    place: Box<Place>,
}

impl Reply {
    /// The body read as JSON.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] with the beginning of the body when it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|e| self.unexpected(e.to_string()))
    }

    /// The error that says that this answer is JSON, but not what was to be expected.
    #[must_use]
    pub fn unexpected(&self, detail: impl Into<String>) -> ClientError {
        ClientError::Unexpected { place: self.place.clone(), detail: detail.into(), excerpt: excerpt(&self.body) }
    }

    /// What this answers.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }
}

/// A cluster. Cheap to clone; all clones share connections and what is known about the nodes.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    nodes: Vec<Node>,
    state: Mutex<Nodes>,
    headers: HeaderMap,
    connect_timeout: Time,
    request_timeout: Time,
    retry: RetryConfig,
}

impl Client {
    /// The cluster that `config` reaches. Connects to nothing yet. `opaque_id` is what operators see in the cluster's
    /// slow logs and tasks: `anomalyd/<environment>/<component>`.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the endpoints, the credentials or the CA file cannot be used.
    pub fn new(config: &ConnectionConfig, opaque_id: &str) -> Result<Self, ClientError> {
        if let Some(problem) = config.problems().into_iter().next() {
            return Err(ClientError::Config(problem.message));
        }
        let nodes = transport::nodes(config)?;
        Ok(Self(Arc::new(Shared {
            state: Mutex::new(Nodes::new(nodes.len())),
            nodes,
            headers: transport::headers(config, opaque_id)?,
            connect_timeout: config.connect_timeout.get(),
            request_timeout: config.request_timeout.get(),
            retry: config.retry,
        })))
    }

    /// Sends `request` to a node that is alive, and again as `request.retry` says.
    ///
    /// # Errors
    /// What came of the last try, when no try was answered with a status of 200 to 299.
    pub async fn send(&self, request: Request) -> Result<Reply, ClientError> {
        let shared = &*self.0;
        let started = Instant::now();
        let mut backoff = Backoff::new(shared.retry.initial_interval.get(), shared.retry.max_interval.get());
        let retries = if request.retry == Retry::Never { 0 } else { shared.retry.max_retries };
        let mut left = retries;
        let mut nodes_left = shared.nodes.len();
        loop {
            let error = match shared.try_once(&request).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            nodes_left = nodes_left.saturating_sub(1);
            let repeatable = request.retry != Retry::Never || matches!(error, ClientError::Connection { unsent: true, .. });
            if error.is_of_the_node() && repeatable && nodes_left > 0 && !shared.state().all_dead(Instant::now()) {
                tracing::debug!(%error, "trying another node");
                continue;
            }
            let wait = backoff.next(error.retry_after());
            if !error.is_retryable() || left == 0 || started.elapsed() + wait > shared.retry.max_elapsed_time.get() {
                return Err(error);
            }
            tracing::debug!(%error, ?wait, "trying again");
            tokio::time::sleep(wait).await;
            left -= 1;
            nodes_left = shared.nodes.len();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, Nodes> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One try on one node, and what it tells about that node.
    async fn try_once(&self, request: &Request) -> Result<Reply, ClientError> {
        let now = Instant::now();
        let (i, fresh) = {
            let mut state = self.state();
            let i = state.choose(now);
            (i, state.fresh(i, now, FRESH))
        };
        let Some(node) = self.nodes.get(i) else {
            return Err(ClientError::Config("no endpoint is given".to_owned()));
        };
        let probed = if fresh { Ok(()) } else { node.probe(request, self.connect_timeout).await };
        let result = match probed {
            Ok(()) => node.send(request, &self.headers, request.timeout.unwrap_or(self.request_timeout)).await,
            Err(error) => Err(error),
        };
        match &result {
            Err(error) if error.is_of_the_node() => {
                tracing::debug!(%error, "node did not answer");
                self.state().failed(i, Instant::now());
            }
            _ => self.state().answered(i, Instant::now()),
        }
        result
    }
}
