//! `POST /reload`: the daemon reads its configuration again, and applies what is different.
//!
//! Whoever asks waits for the result. One reload runs at a time; others wait for their turn.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use super::App;
use super::ask::{self, Body, Failure};

/// Reloads that wait for their turn.
const WAITING: usize = 16;

/// What a reload did with one environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its name.
    pub environment: String,
    /// `unchanged`, `started`, `restarted` or `ended`.
    pub change: String,
    /// More about it: which keys have changed, what was lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// `staging: restarted (receivers.otlp.wait changed)`.
impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.environment, self.change)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, " ({})", self.details.join("; ")) }
    }
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Every environment that there was or is.
    pub environments: Vec<Changed>,
    /// What is worth knowing: what takes effect later, or not at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Why a reload did nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotApplied {
    /// A sentence.
    pub error: String,
    /// What is wrong with the files, each with its place and the line it is about; nothing if they can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diagnostics: Option<String>,
}

/// What became of a reload.
pub type Outcome = Result<Applied, NotApplied>;

/// The last reload, as `/health` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Last {
    /// When it was over; RFC 3339.
    time: String,
    /// `applied` or `failed`.
    result: &'static str,
    message: String,
}

/// Where the daemon is told to reload. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reloads {
    sender: mpsc::Sender<Request>,
    state: Arc<Mutex<Progress>>,
}

#[derive(Debug, Default)]
struct Progress {
    running: bool,
    last: Option<Last>,
}

/// Somebody who waits for a reload.
#[derive(Debug)]
pub struct Request(oneshot::Sender<Outcome>);

impl Request {
    /// Tells what became of it. Whoever asked may have gone away.
    pub fn answer(self, outcome: Outcome) {
        let _ = self.0.send(outcome);
    }
}

/// Where to ask for reloads, and those that are asked for.
#[must_use]
pub fn reloads() -> (Reloads, mpsc::Receiver<Request>) {
    let (sender, requests) = mpsc::channel(WAITING);
    (Reloads { sender, state: Arc::default() }, requests)
}

impl Reloads {
    fn state(&self) -> MutexGuard<'_, Progress> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One has begun.
    pub fn begin(&self) {
        self.state().running = true;
    }

    /// It is over.
    pub fn end(&self, now: DateTime<Utc>, outcome: &Outcome) {
        let (result, message) = match outcome {
            Ok(applied) => {
                let all = applied.environments.iter().map(ToString::to_string);
                ("applied", all.chain(applied.notes.iter().cloned()).collect::<Vec<_>>().join("\n"))
            }
            Err(refused) => ("failed", refused.error.clone()),
        };
        let time = now.to_rfc3339_opts(SecondsFormat::Millis, true);
        *self.state() = Progress { running: false, last: Some(Last { time, result, message }) };
    }

    /// Whether one is under way.
    pub(super) fn is_running(&self) -> bool {
        self.state().running
    }

    /// The last one.
    pub(super) fn last(&self) -> Option<Last> {
        self.state().last.clone()
    }

    async fn ask(&self) -> Result<Outcome, Failure> {
        let stopping = || Failure(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping: nothing was changed".to_owned());
        let (answer, heard) = oneshot::channel();
        self.sender.try_send(Request(answer)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => {
                Failure(StatusCode::SERVICE_UNAVAILABLE, "too many reloads wait for their turn already".to_owned())
            }
            mpsc::error::TrySendError::Closed(_) => stopping(),
        })?;
        heard.await.map_err(|_| stopping())
    }
}

/// `POST /reload`.
pub(super) async fn reload(app: State<App>, peer: ConnectInfo<SocketAddr>, headers: HeaderMap, body: Body) -> Response {
    match asked(&app, peer.0, &headers, body).await {
        Ok(Ok(applied)) => ask::respond(Ok(json!(applied))),
        Ok(Err(refused)) => {
            let code = if refused.diagnostics.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::CONFLICT };
            ask::write(code, &json!(refused))
        }
        Err(failure) => ask::respond(Err(failure)),
    }
}

async fn asked(app: &App, peer: SocketAddr, headers: &HeaderMap, body: Body) -> Result<Outcome, Failure> {
    let body: Map<String, Value> = ask::command(app, peer, headers, body)?;
    if let Some(key) = body.keys().next() {
        return Err(ask::invalid(format!("`{key}` means nothing here: expected {{}}")));
    }
    let Some(reloads) = &app.reloads else {
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, "this daemon has no files to read again".to_owned()));
    };
    tracing::info!(%peer, "reload");
    reloads.ask().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_one_line() {
        let line = |change: &str, details: &[&str]| {
            let details = details.iter().map(|d| (*d).to_owned()).collect();
            Changed { environment: "staging".to_owned(), change: change.to_owned(), details }.to_string()
        };
        assert_eq!(line("unchanged", &[]), "staging: unchanged");
        let keys = "receivers.otlp, connectors.detector.threshold changed";
        assert_eq!(
            line("restarted", &[keys, "3 records were cut off"]),
            format!("staging: restarted ({keys}; 3 records were cut off)")
        );
    }

    #[tokio::test]
    async fn who_waits_when_the_daemon_stops_is_told_so() {
        let (reloads, mut requests) = reloads();
        let waiting = tokio::spawn({
            let reloads = reloads.clone();
            async move { reloads.ask().await.map_err(|Failure(code, message)| (code, message)) }
        });
        let request = requests.recv().await.unwrap();
        drop(requests);
        drop(request);
        let stopping = (StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping: nothing was changed".to_owned());
        assert_eq!(waiting.await.unwrap(), Err(stopping.clone()));
        assert_eq!(reloads.ask().await.map_err(|Failure(code, message)| (code, message)), Err(stopping));
    }

    #[tokio::test]
    async fn the_last_one_is_remembered_with_its_result() {
        let (reloads, _requests) = reloads();
        assert_eq!((reloads.is_running(), reloads.last()), (false, None));
        reloads.begin();
        assert!(reloads.is_running());
        let now = DateTime::from_timestamp(1_768_473_000, 0).unwrap();
        reloads.end(now, &Err(NotApplied { error: "no".to_owned(), diagnostics: None }));
        let last = Last { time: "2026-01-15T10:30:00.000Z".to_owned(), result: "failed", message: "no".to_owned() };
        assert_eq!((reloads.is_running(), reloads.last()), (false, Some(last)));
    }
}
