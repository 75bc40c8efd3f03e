//! A cluster that keeps documents by their id, as Elasticsearch does, and has bad days.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

/// What it has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Documents {
    /// By id, without what tells when they were written.
    pub(crate) all: BTreeMap<String, Value>,
    /// Documents that came again: answered with 409.
    pub(crate) repeated: u64,
    /// Requests that went wrong.
    pub(crate) refused: u64,
}

struct Inner {
    random: fastrand::Rng,
    /// Whether it has bad days.
    moody: bool,
    documents: Documents,
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
        let inner = Inner { random: fastrand::Rng::with_seed(seed), moody: false, documents: Documents::default() };
        let cluster = Self { url, inner: Arc::new(Mutex::new(inner)) };
        let app = Router::new().fallback(answer).with_state(cluster.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        cluster
    }

    pub(crate) fn moody(&self, moody: bool) {
        self.inner.lock().expect("the cluster").moody = moody;
    }

    pub(crate) fn documents(&self) -> Documents {
        self.inner.lock().expect("the cluster").documents.clone()
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
    /// Takes the documents of a request, some of them not now; the answer.
    fn take(&mut self, body: &[u8], partly: bool) -> Value {
        let mut lines = body.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let mut items = Vec::new();
        let mut errors = false;
        while let (Some(action), Some(mut document)) = (lines.next(), lines.next()) {
            let id = action["create"]["_id"].as_str().expect("an id").to_owned();
            let error = |status: u16, kind: &str| json!({ "status": status, "error": { "type": kind, "reason": "not now" } });
            let answer = if partly && self.random.bool() {
                error([429, 503][self.random.usize(0..2)], "es_rejected_execution_exception")
            } else if self.documents.all.contains_key(&id) {
                self.documents.repeated += 1;
                error(409, "version_conflict_engine_exception")
            } else {
                if let Some(event) = document.get_mut("event").and_then(Value::as_object_mut) {
                    event.remove("created");
                }
                self.documents.all.insert(id, document);
                json!({ "status": 201 })
            };
            errors |= answer.get("error").is_some();
            items.push(json!({ "create": answer }));
        }
        json!({ "errors": errors, "took": 1, "items": items })
    }
}

async fn answer(State(cluster): State<Cluster>, request: Request) -> Response {
    let bulk = request.uri().path().ends_with("_bulk");
    let Ok(body) = request.into_body().collect().await else { return StatusCode::BAD_REQUEST.into_response() };
    let body = body.to_bytes();
    let json = |value: Value| {
        ([("content-type", "application/json"), ("x-elastic-product", "Elasticsearch")], value.to_string()).into_response()
    };
    if !bulk {
        return json(json!({ "version": { "number": "9.4.3" }, "tagline": "You Know, for Search" }));
    }
    let (mood, wait) = {
        let mut inner = cluster.inner.lock().expect("the cluster");
        let mood = if inner.moody { inner.random.u8(0..12) } else { u8::MAX };
        inner.documents.refused += u64::from(mood < 6);
        (mood, inner.random.u64(50..400))
    };
    let take = |partly| cluster.inner.lock().expect("the cluster").take(&body, partly);
    let cut = || Body::from_stream(futures::stream::iter([Ok(bytes::Bytes::from_static(b"{\"err")), Err(std::io::Error::other("cut"))]));
    match mood {
        0 => StatusCode::TOO_MANY_REQUESTS.into_response(),
        1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        2 => (StatusCode::BAD_GATEWAY, [("content-type", "text/html")], "<html><title>Bad Gateway</title></html>").into_response(),
        3 => json(take(true)),
        // The answer is lost, with the request or without it.
        4 => cut().into_response(),
        5 => {
            take(false);
            cut().into_response()
        }
        6 => {
            tokio::time::sleep(Duration::from_millis(wait)).await;
            json(take(false))
        }
        _ => json(take(false)),
    }
}
