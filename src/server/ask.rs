//! What people ask and tell the running components: series and why they are quiet, mutes, feedback.
//!
//! Goes to the desks that components have opened in the registry. There is no authentication: what changes something
//! is taken from this machine only, unless the daemon's file says otherwise, and only as JSON, which a web page on
//! another site cannot send unasked.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::App;
use crate::pipeline::{Desk, Refusal, RefusalKind};
use crate::text::closest;

/// Bytes of a request.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Rows of one answer, and where nothing is said.
const ROWS: (usize, usize) = (1000, 100);

/// What is refused, with its status.
pub(super) struct Failure(pub(super) StatusCode, pub(super) String);

pub(super) type Answer = Result<Value, Failure>;

/// The body of a request, if it could be read and is not too long.
pub(super) type Body = Result<Bytes, BytesRejection>;

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.kind {
            RefusalKind::Invalid => StatusCode::BAD_REQUEST,
            RefusalKind::NotFound => StatusCode::NOT_FOUND,
            RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(code, refusal.message)
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, message.into())
}

pub(super) fn respond(answer: Answer) -> Response {
    match answer {
        Ok(body) => write(StatusCode::OK, &body),
        Err(Failure(code, error)) => write(code, &json!({ "error": error })),
    }
}

/// An answer as JSON.
pub(super) fn write(code: StatusCode, body: &Value) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body:#}\n")).into_response()
}

/// `GET /series`: where series stand, in pages.
pub(super) async fn series(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    respond(all_series(&app, &query.unwrap_or_default()).await)
}

/// `GET /mutes`: what people have muted.
pub(super) async fn mutes(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    respond(all_mutes(&app, &query.unwrap_or_default()).await)
}

/// `POST /mute`.
pub(super) async fn mute(state: State<App>, peer: ConnectInfo<SocketAddr>, headers: HeaderMap, body: Body) -> Response {
    respond(tell(&state, "mute", peer.0, &headers, body).await)
}

/// `POST /unmute`.
pub(super) async fn unmute(state: State<App>, peer: ConnectInfo<SocketAddr>, headers: HeaderMap, body: Body) -> Response {
    respond(tell(&state, "unmute", peer.0, &headers, body).await)
}

/// `POST /feedback`.
pub(super) async fn feedback(state: State<App>, peer: ConnectInfo<SocketAddr>, headers: HeaderMap, body: Body) -> Response {
    respond(tell(&state, "feedback", peer.0, &headers, body).await)
}

/// `POST /dead-letters/resend`.
pub(super) async fn resend(state: State<App>, peer: ConnectInfo<SocketAddr>, headers: HeaderMap, body: Body) -> Response {
    respond(resend_all(&state, peer.0, &headers, body).await)
}

/// What is not there.
pub(super) async fn unknown(uri: Uri) -> Response {
    let path = uri.path();
    let known = ["/health", "/metrics", "/series", "/mutes", "/mute", "/unmute", "/feedback", "/reload", "/dead-letters/resend"];
    let hint = closest(path, known).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    respond(Err(Failure(StatusCode::NOT_FOUND, format!("there is no `{path}`: known are {}{hint}", known.join(", ")))))
}

/// What is not to be had in this way.
pub(super) async fn other_method(uri: Uri) -> Response {
    let message = format!("`{}` is not to be had in this way: questions are GET, commands are POST", uri.path());
    respond(Err(Failure(StatusCode::METHOD_NOT_ALLOWED, message)))
}

/// The parameters of a query, each of `known` at most once.
fn parameters(query: &str, known: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if !known.contains(&&*key) {
            let hint = closest(&key, known.iter().copied()).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            return Err(invalid(format!("unknown parameter `{key}`: known are {}{hint}", known.join(", "))));
        }
        if !value.is_empty() {
            all.insert(key.into_owned(), value.into_owned());
        }
    }
    Ok(all)
}

/// The desks that answer about `subject`.
fn desks(app: &App, subject: &str, environment: Option<&str>, detector: Option<&str>) -> Result<Vec<Desk>, Failure> {
    let all = app.registry.desks(subject);
    if all.is_empty() {
        let message = "no detector runs yet, or none any more: see /health".to_owned();
        return Err(Failure(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    let meant = |desk: &&Desk| {
        environment.is_none_or(|name| desk.environment.as_str() == name) && detector.is_none_or(|id| desk.id.to_string() == id)
    };
    let chosen: Vec<Desk> = all.iter().filter(meant).cloned().collect();
    if chosen.is_empty() {
        let there: Vec<String> = all.iter().map(place).collect();
        return Err(Failure(StatusCode::NOT_FOUND, format!("there is no such detector: there are {}", there.join(", "))));
    }
    Ok(chosen)
}

/// `production/detector`.
fn place(desk: &Desk) -> String {
    format!("{}/{}", desk.environment, desk.id)
}

async fn all_series(app: &App, query: &str) -> Answer {
    let known = ["environment", "detector", "service", "contains", "state", "limit", "after"];
    let mut given = parameters(query, &known)?;
    let (environment, detector) = (given.remove("environment"), given.remove("detector"));
    let (most, usual) = ROWS;
    let limit = match given.remove("limit") {
        None => usual,
        Some(text) => {
            let wrong = || invalid(format!("`limit`: `{text}` is not a number from 1 to {most}"));
            text.parse().ok().filter(|n| (1..=most).contains(n)).ok_or_else(wrong)?
        }
    };
    // A cursor is the place of a detector, and its own cursor.
    let after = given.remove("after");
    let after = after.as_deref().map(|cursor| cursor.split_once('|').unwrap_or((cursor, "")));
    let (mut rows, mut states, mut next) = (Vec::new(), BTreeMap::<String, u64>::new(), Value::Null);
    for desk in desks(app, "series", environment.as_deref(), detector.as_deref())? {
        let place = place(&desk);
        let mut body: Map<String, Value> = given.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
        let passed = after.is_some_and(|(at, _)| place.as_str() < at);
        if let Some((_, cursor)) = after.filter(|(at, _)| *at == place) {
            body.insert("after".to_owned(), cursor.into());
        }
        // The states are counted in any case.
        let left = limit.saturating_sub(rows.len());
        body.insert("limit".to_owned(), left.max(1).into());
        let mut answer = desk.ask("series", Value::Object(body)).await?;
        for (state, count) in answer.get("states").and_then(Value::as_object).into_iter().flatten() {
            *states.entry(state.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
        let found = answer.get_mut("series").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        if passed || found.is_empty() {
            continue;
        }
        if left == 0 {
            if next.is_null() {
                // Before everything of this detector.
                next = format!("{place}|").into();
            }
            continue;
        }
        if let Some(cursor) = answer.get("next").and_then(Value::as_str).filter(|_| next.is_null()) {
            next = format!("{place}|{cursor}").into();
        }
        rows.extend(found.into_iter().map(|mut row| {
            if let Some(row) = row.as_object_mut() {
                row.insert("environment".to_owned(), desk.environment.as_str().into());
                row.insert("detector".to_owned(), desk.id.to_string().into());
            }
            row
        }));
    }
    Ok(json!({ "series": rows, "states": states, "next": next }))
}

async fn all_mutes(app: &App, query: &str) -> Answer {
    let given = parameters(query, &["environment", "detector"])?;
    let mut all = Vec::new();
    for desk in desks(app, "mutes", given.get("environment").map(String::as_str), given.get("detector").map(String::as_str))? {
        let mut answer = desk.ask("mutes", json!({})).await?;
        let mutes = answer.get_mut("mutes").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        all.extend(mutes.into_iter().map(|mute| named(&desk, mute)));
    }
    Ok(json!({ "mutes": all }))
}

/// An answer with whose it is.
fn named(desk: &Desk, mut answer: Value) -> Value {
    if let Some(answer) = answer.as_object_mut() {
        answer.insert("environment".to_owned(), desk.environment.as_str().into());
        answer.insert("detector".to_owned(), desk.id.to_string().into());
    }
    answer
}

/// The body of a command, if commands are taken from `peer`.
pub(super) fn command(app: &App, peer: SocketAddr, headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Failure> {
    if !app.remote_commands && !peer.ip().to_canonical().is_loopback() {
        let message =
            "this is taken from the machine itself only: `server.remote_commands: true` in the daemon's file changes that";
        return Err(Failure(StatusCode::FORBIDDEN, message.to_owned()));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if kind.split(';').next().is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
        let message = "expected JSON: send it with `Content-Type: application/json`";
        return Err(Failure(StatusCode::UNSUPPORTED_MEDIA_TYPE, message.to_owned()));
    }
    let too_long = format!("the body cannot be read, or is longer than {} KiB", MAX_BODY / 1024);
    let body = body.map_err(|rejection| Failure(rejection.status(), too_long))?;
    let body: Value = serde_json::from_slice(&body).map_err(|e| invalid(format!("the body is not JSON: {e}")))?;
    let Value::Object(body) = body else { return Err(invalid("the body must be a JSON object")) };
    Ok(body)
}

/// What somebody tells, and for whom.
struct Told {
    environment: Option<String>,
    detector: Option<String>,
    body: Map<String, Value>,
}

/// Reads what is told, from where it may be told.
fn told(app: &App, peer: SocketAddr, headers: &HeaderMap, body: Body) -> Result<Told, Failure> {
    let mut body = command(app, peer, headers, body)?;
    let mut text = |key: &str| match body.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid(format!("`{key}` must be a text, found {other}"))),
    };
    Ok(Told { environment: text("environment")?, detector: text("detector")?, body })
}

/// Tells all outboxes that are meant to send dead letters again.
async fn resend_all(app: &App, peer: SocketAddr, headers: &HeaderMap, body: Body) -> Answer {
    let Told { environment, detector, body } = told(app, peer, headers, body)?;
    let (mut all, mut refused) = (Vec::new(), None);
    for desk in desks(app, "resend", environment.as_deref(), detector.as_deref())? {
        match desk.ask("resend", Value::Object(body.clone())).await {
            Ok(answer) => all.push(named(&desk, answer)),
            // Another environment may have that exporter.
            Err(refusal) if refusal.kind == RefusalKind::NotFound => refused = Some(refusal),
            Err(refusal) => return Err(refusal.into()),
        }
    }
    match refused {
        Some(refusal) if all.is_empty() => Err(refusal.into()),
        _ => Ok(json!({ "outboxes": all })),
    }
}

/// Tells the detectors something that changes them.
async fn tell(app: &App, subject: &str, peer: SocketAddr, headers: &HeaderMap, body: Body) -> Answer {
    let Told { environment, detector, body } = told(app, peer, headers, body)?;
    let desks = desks(app, subject, environment.as_deref(), detector.as_deref())?;
    // An anomaly is known to one detector; whom a mute is meant for must be said.
    if desks.len() > 1 && subject != "feedback" {
        let there: Vec<String> = desks.iter().map(place).collect();
        return Err(invalid(format!(
            "it is not said for which detector: add `environment` (and `detector`), one of {}",
            there.join(", ")
        )));
    }
    let mut refused = None;
    for desk in desks {
        match desk.ask(subject, Value::Object(body.clone())).await {
            Ok(answer) => {
                let told = json!(body).to_string();
                tracing::info!(environment = %desk.environment, component = %desk.id, %peer, told, "{subject}");
                return Ok(named(&desk, answer));
            }
            Err(refusal) if refusal.kind == RefusalKind::NotFound => refused = Some(refusal),
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(refused.map_or_else(|| invalid("nobody can be told"), Failure::from))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Registry;

    #[tokio::test]
    async fn commands_are_taken_from_this_machine_only_unless_configured() {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"))]);
        for (peer, remote, expected) in [
            ("10.1.2.3:999", false, StatusCode::FORBIDDEN),
            ("[2001:db8::1]:999", false, StatusCode::FORBIDDEN),
            // It gets further: there is no detector.
            ("10.1.2.3:999", true, StatusCode::SERVICE_UNAVAILABLE),
            ("127.0.0.1:999", false, StatusCode::SERVICE_UNAVAILABLE),
            ("[::1]:999", false, StatusCode::SERVICE_UNAVAILABLE),
            ("[::ffff:127.0.0.1]:999", false, StatusCode::SERVICE_UNAVAILABLE),
        ] {
            let app = App { registry: Registry::default(), remote_commands: remote, reloads: None };
            let answer = tell(&app, "mute", peer.parse().unwrap(), &headers, Ok(Bytes::from_static(b"{}"))).await;
            assert_eq!(answer.err().map(|Failure(code, _)| code), Some(expected), "{peer}");
        }
    }
}
