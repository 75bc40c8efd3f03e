//! A server that answers what a test tells it to: the faults that no well cluster shows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::BodyExt as _;

/// What the stub answers.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    /// Waits this long before it answers.
    pub(crate) delay: Duration,
    /// Breaks the connection after the body's bytes, which are then fewer than promised.
    pub(crate) cut: bool,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::text(status, "application/json", body.to_string())
    }

    pub(crate) fn html(status: u16) -> Self {
        Self::text(status, "text/html", "<html>\n<head><title>Bad Gateway</title></head></html>")
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), delay: Duration::ZERO, cut: false }
    }

    pub(crate) fn text(status: u16, kind: &str, body: impl Into<Bytes>) -> Self {
        Self { headers: vec![("content-type", kind.to_owned())], body: body.into(), ..Self::empty(status) }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) fn cut(mut self) -> Self {
        self.cut = true;
        self
    }
}

/// A request that the stub got. The body is decompressed.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// Path and query, as they came.
    pub(crate) uri: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("")
    }

    /// The body as lines of JSON.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let lines = self.body.split(|b| *b == b'\n').filter(|l| !l.is_empty());
        lines.map(|l| serde_json::from_slice(l).unwrap()).collect()
    }
}

type Handler = dyn Fn(&Seen) -> Option<Answer> + Send + Sync;

#[derive(Default)]
struct Inner {
    queue: VecDeque<Answer>,
    seen: Vec<Seen>,
}

/// A running stub; it ends with its runtime.
#[derive(Clone)]
pub(crate) struct Stub {
    pub(crate) url: String,
    inner: Arc<Mutex<Inner>>,
    handler: Arc<Handler>,
}

impl Stub {
    /// Answers with `answers`, one each, then with an empty JSON object.
    pub(crate) async fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let stub = Self::with(|_| None).await;
        stub.inner.lock().unwrap().queue.extend(answers);
        stub
    }

    /// Answers what `handler` says; where it says nothing, as [`Stub::answering`].
    pub(crate) async fn with(handler: impl Fn(&Seen) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::on(listener, url, handler)
    }

    /// Answers on `listener`, which clients reach at `url`.
    pub(crate) fn on<L>(listener: L, url: String, handler: impl Fn(&Seen) -> Option<Answer> + Send + Sync + 'static) -> Self
    where
        L: axum::serve::Listener,
        L::Addr: std::fmt::Debug,
    {
        let stub = Self { url, inner: Arc::default(), handler: Arc::new(handler) };
        let app = Router::new().fallback(answer).with_state(stub.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        stub
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.lock().unwrap().seen.clone()
    }
}

async fn answer(State(stub): State<Stub>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if parts.headers.get("content-encoding").is_some_and(|v| v == "gzip") {
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut plain).unwrap();
        body = plain.into();
    }
    let uri = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let seen = Seen { method: parts.method.to_string(), uri, headers: parts.headers, body };
    let told = (stub.handler)(&seen);
    let answer = {
        let mut inner = stub.inner.lock().unwrap();
        inner.seen.push(seen);
        told.or_else(|| inner.queue.pop_front()).unwrap_or_else(|| Answer::json(200, &serde_json::json!({})))
    };
    tokio::time::sleep(answer.delay).await;
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        response = response.header(*name, value);
    }
    if !answer.cut {
        return response.body(Body::from(answer.body)).unwrap();
    }
    let first = futures::stream::once(async move { Ok(answer.body) });
    let broken = futures::stream::once(async {
        // Lets the first part leave before the connection breaks.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(std::io::Error::other("cut"))
    });
    response.body(Body::from_stream(futures::StreamExt::chain(first, broken))).unwrap()
}
