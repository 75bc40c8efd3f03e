//! Asks a running daemon over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::config::Endpoint;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const MOST: usize = 64 << 20;

/// Where the daemon is asked.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Daemon {
    /// The daemon's `server.endpoint`.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:13133")]
    endpoint: Endpoint,
}

impl Daemon {
    /// `GET path`, or `POST` of `body`.
    ///
    /// # Errors
    /// A sentence: what kept it from answering, or what it refused.
    pub(super) fn ask(&self, path: &str, body: Option<&Value>) -> Result<Value, String> {
        match self.answer(path, body, PATIENCE)? {
            (status, body) if status.is_success() => Ok(body),
            (_, body) => Err(body.get("error").and_then(Value::as_str).unwrap_or("it does not say why").to_owned()),
        }
    }

    /// As [`Daemon::ask`], with `patience`; also what it refuses is an answer.
    ///
    /// # Errors
    /// A sentence: what kept it from answering.
    pub(super) fn answer(&self, path: &str, body: Option<&Value>, patience: Duration) -> Result<(StatusCode, Value), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| format!("cannot start: {e}"))?;
        runtime.block_on(async {
            let asked = tokio::time::timeout(patience, self.request(path, body)).await;
            asked.unwrap_or_else(|_| Err(format!("{} does not answer within {patience:?}", self.endpoint)))
        })
    }

    async fn request(&self, path: &str, body: Option<&Value>) -> Result<(StatusCode, Value), String> {
        let endpoint = &self.endpoint;
        let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await.map_err(|e| {
            format!("no daemon can be reached at {endpoint}: {e}; is it running, and is that its `server.endpoint`? (--endpoint)")
        })?;
        let failed = |e: hyper::Error| format!("{endpoint}: {e}");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::spawn(connection);
        let request = http::Request::builder().uri(path).header(http::header::HOST, endpoint.to_string());
        let request = match body {
            None => request.body(Full::new(Bytes::new())),
            Some(body) => request
                .method(http::Method::POST)
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body.to_string()))),
        };
        let request = request.map_err(|e| format!("{endpoint}: {e}"))?;
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let bytes = Limited::new(answer.into_body(), MOST).collect().await.map_err(|e| format!("{endpoint}: {e}"))?.to_bytes();
        let body: Value =
            serde_json::from_slice(&bytes).map_err(|_| format!("{endpoint} is no anomalyd: it answers {status} without JSON"))?;
        Ok((status, body))
    }
}

/// A query of those of `parameters` that are set.
pub(super) fn query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in parameters {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_carry_any_text() {
        assert_eq!(query("/series", &[("a", None)]), "/series");
        assert_eq!(
            query("/series", &[("contains", Some("POST /pay & co")), ("state", None)]),
            "/series?contains=POST+%2Fpay+%26+co"
        );
    }
}
