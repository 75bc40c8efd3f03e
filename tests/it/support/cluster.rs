//! A cluster that keeps documents by their id and hands out others to whoever reads, as Elasticsearch does, and has bad
//! days.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::index::{Index, halve};

/// What it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Documents {
    /// By id, without what tells when they were written.
    pub(crate) all: BTreeMap<String, Value>,
    /// The numbers of the requests that each was in, and of the one by which it was taken.
    pub(crate) offered: BTreeMap<String, Vec<u64>>,
    pub(crate) taken: BTreeMap<String, u64>,
    /// Documents that came again: answered with 409.
    pub(crate) repeated: u64,
    /// Requests that went wrong.
    pub(crate) refused: u64,
}

struct Inner {
    random: fastrand::Rng,
    /// Whether it has bad days.
    moody: bool,
    /// What every day is like when it has none.
    mood: Mood,
    documents: Documents,
    /// Bulk requests so far.
    requests: u64,
    /// What readers find.
    index: Index,
    searches_refused: u64,
}

/// See the module. It ends with its runtime.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) url: String,
    inner: Arc<Mutex<Inner>>,
}

impl Cluster {
    /// One that answers as it should until it is told to be moody; `seed` decides how.
    pub(crate) async fn start(seed: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let inner = Inner {
            random: fastrand::Rng::with_seed(seed),
            moody: false,
            mood: Mood::Well,
            requests: 0,
            documents: Documents::default(),
            index: Index::default(),
            searches_refused: 0,
        };
        let cluster = Self { url, inner: Arc::new(Mutex::new(inner)) };
        let app = Router::new().fallback(answer).with_state(cluster.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        cluster
    }

    pub(crate) fn moody(&self, moody: bool) {
        self.inner.lock().expect("the cluster").moody = moody;
    }

    /// It is like this from now on.
    pub(crate) fn is(&self, mood: Mood) {
        self.inner.lock().expect("the cluster").mood = mood;
    }

    pub(crate) fn documents(&self) -> Documents {
        self.inner.lock().expect("the cluster").documents.clone()
    }

    /// What it has for readers.
    pub(crate) fn index<T>(&self, with: impl FnOnce(&mut Index) -> T) -> T {
        with(&mut self.inner.lock().expect("the cluster").index)
    }

    /// Searches that went wrong.
    pub(crate) fn searches_refused(&self) -> u64 {
        self.inner.lock().expect("the cluster").searches_refused
    }

    /// The block of an exporter that writes here.
    pub(crate) fn exporter(&self) -> String {
        format!(
            "  elasticsearch: {{ endpoints: [\"{}\"], setup: false, flush_interval: 10ms, compression: none, \
             retry: {{ initial_interval: 20ms, max_interval: 200ms }} }}\n",
            self.url
        )
    }
}

impl Inner {
    /// What is no bulk request.
    fn look(&mut self, method: &Method, path: &str, body: &[u8], partly: bool) -> (StatusCode, Value) {
        let body = || serde_json::from_slice(body).expect("JSON");
        match (method, path) {
            (&Method::POST, "/_search") => {
                let (status, mut answer) = self.index.search(&body());
                if partly {
                    halve(&mut answer);
                }
                (status, answer)
            }
            (&Method::DELETE, "/_pit") => self.index.close(&body()),
            (&Method::POST, path) if path.ends_with("/_pit") => (StatusCode::OK, self.index.open()),
            (_, path) if path.ends_with("/_field_caps") => (StatusCode::OK, json!({ "fields": {} })),
            _ => (StatusCode::OK, json!({ "version": { "number": "9.4.3" }, "tagline": "You Know, for Search" })),
        }
    }

    /// Takes the documents of a request, some of them not now; the answer.
    fn take(&mut self, body: &[u8], partly: bool) -> Value {
        self.requests += 1;
        let mut lines = body.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let mut items = Vec::new();
        let mut errors = false;
        while let (Some(action), Some(mut document)) = (lines.next(), lines.next()) {
            let id = action["create"]["_id"].as_str().expect("an id").to_owned();
            self.documents.offered.entry(id.clone()).or_default().push(self.requests);
            let reason = if self.mood == Mood::Strict { format!("document {id} is strange") } else { "not now".to_owned() };
            let error = |status: u16, kind: &str| json!({ "status": status, "error": { "type": kind, "reason": reason } });
            let answer = if self.mood == Mood::Strict {
                error(400, "document_parsing_exception")
            } else if partly && self.random.bool() {
                error([429, 503][self.random.usize(0..2)], "es_rejected_execution_exception")
            } else if let Some(_there) = self.documents.all.get(&id) {
                self.documents.repeated += 1;
                error(409, "version_conflict_engine_exception")
            } else {
                if let Some(event) = document.get_mut("event").and_then(Value::as_object_mut) {
                    event.remove("created");
                }
                self.documents.taken.insert(id.clone(), self.requests);
                self.documents.all.insert(id, document);
                json!({ "status": 201 })
            };
            errors |= answer.get("error").is_some();
            items.push(json!({ "create": answer }));
        }
        json!({ "errors": errors, "took": 1, "items": items })
    }
}

/// What a day is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Slow,
    TooMany,
    Unavailable,
    /// A page of a proxy.
    BadGateway,
    /// Some of the documents of a request; some of the hits of a search.
    Partly,
    /// The connection ends before anything was done, or after.
    CutBefore,
    CutAfter,
    /// A node ends, and with it all points in time.
    NodeLost,
    /// It takes no document, ever.
    Strict,
}

impl Mood {
    /// Of a request that writes two of three go wrong, of those that read, of which there are many more, two of seven.
    fn any(random: &mut fastrand::Rng, writes: bool) -> Self {
        match random.u8(0..if writes { 9 } else { 28 }) {
            0 => Self::TooMany,
            1 => Self::Unavailable,
            2 => Self::BadGateway,
            3 => Self::Partly,
            4 => Self::CutBefore,
            5 => Self::CutAfter,
            6 => Self::Slow,
            7 if !writes => Self::NodeLost,
            _ => Self::Well,
        }
    }
}

async fn answer(State(cluster): State<Cluster>, request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let Ok(body) = request.into_body().collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let body = body.to_bytes();
    let writes = path.ends_with("_bulk");
    let (mood, wait) = {
        let mut inner = cluster.inner.lock().expect("the cluster");
        let mood = if inner.moody { Mood::any(&mut inner.random, writes) } else { inner.mood };
        if !matches!(mood, Mood::Well | Mood::Slow | Mood::Strict) {
            let refused = if writes { &mut inner.documents.refused } else { &mut inner.searches_refused };
            *refused += 1;
        }
        let longest = if writes { 400 } else { 150 };
        (mood, inner.random.u64(longest / 8..longest))
    };
    let reply = |partly| {
        let mut inner = cluster.inner.lock().expect("the cluster");
        let (status, answer) =
            if writes { (StatusCode::OK, inner.take(&body, partly)) } else { inner.look(&method, &path, &body, partly) };
        (status, [("content-type", "application/json"), ("x-elastic-product", "Elasticsearch")], answer.to_string())
            .into_response()
    };
    let cut = || {
        Body::from_stream(futures::stream::iter([Ok(bytes::Bytes::from_static(b"{\"err")), Err(std::io::Error::other("cut"))]))
    };
    match mood {
        Mood::Well | Mood::Strict => reply(false),
        Mood::Slow => {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            reply(false)
        }
        Mood::TooMany => StatusCode::TOO_MANY_REQUESTS.into_response(),
        Mood::Unavailable => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Mood::BadGateway => {
            (StatusCode::BAD_GATEWAY, [("content-type", "text/html")], "<html><title>Bad Gateway</title></html>").into_response()
        }
        Mood::Partly => reply(true),
        Mood::CutBefore => cut().into_response(),
        Mood::CutAfter => {
            drop(reply(false));
            cut().into_response()
        }
        Mood::NodeLost => {
            cluster.inner.lock().expect("the cluster").index.lose_points();
            reply(false)
        }
    }
}
