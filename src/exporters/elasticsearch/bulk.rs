//! The bulk request and what Elasticsearch says to each of its items.

use serde::Deserialize;
use serde_json::Value;

use crate::elasticsearch::{ClientError, Reply, reason_of, retryable_status};

/// One document on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Of the anomaly or the event, and so of the document: writing it twice is harmless.
    pub(super) id: String,
    /// The document as JSON, on one line.
    pub(super) document: String,
    /// Which of the batch's deliveries it came with.
    pub(super) delivery: usize,
    /// Which of that delivery's findings it is.
    pub(super) place: usize,
    /// It was refused for now: it goes before those that were not sent yet.
    pub(super) again: bool,
}

impl Item {
    /// Bytes that it takes in a request.
    pub(super) fn size(&self) -> usize {
        self.id.len() + self.document.len() + r#"{"create":{"_id":""}}"#.len() + 2
    }
}

/// The body that creates `items`.
pub(super) fn body<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<u8> {
    let mut body = Vec::new();
    for item in items {
        body.extend_from_slice(br#"{"create":{"_id":"#);
        body.extend_from_slice(Value::from(item.id.as_str()).to_string().as_bytes());
        body.extend_from_slice(b"}}\n");
        body.extend_from_slice(item.document.as_bytes());
        body.push(b'\n');
    }
    body
}

/// What became of one item.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is in the data stream.
    Written,
    /// It did not fit the mapping and is in the data stream's failure store.
    InFailureStore,
    /// It has been there before.
    AlreadyWritten,
    /// Not now: try again.
    Later(String),
    /// The data stream is not there, and may not be made by a document.
    NoDataStream(String),
    /// The key may not write it.
    Forbidden(String),
    /// It will never be taken.
    Refused(Value),
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    errors: bool,
    #[serde(default)]
    items: Vec<Action>,
}

#[derive(Deserialize)]
struct Action {
    create: Answered,
}

#[derive(Deserialize)]
struct Answered {
    status: u16,
    error: Option<Value>,
    failure_store: Option<String>,
}

/// What became of each of the `count` items of a request.
///
/// # Errors
/// When `reply` is not an answer to such a request.
pub(super) fn outcomes(reply: &Reply, count: usize) -> Result<Vec<Outcome>, ClientError> {
    read(&reply.body, count).map_err(|why| reply.unexpected(why))
}

/// What `answer`, the body of an answer to a bulk request of `count` items, says of each of them.
///
/// # Errors
/// Why it is no such answer.
pub fn read(answer: &[u8], count: usize) -> Result<Vec<Outcome>, String> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|e| e.to_string())?;
    if answer.items.len() != count {
        let (has, expected) = (answer.items.len(), if answer.errors { "" } else { " and no errors" });
        return Err(format!("it speaks of {has} documents{expected}, expected {count}"));
    }
    Ok(answer.items.into_iter().map(|item| outcome(item.create)).collect())
}

fn outcome(answered: Answered) -> Outcome {
    let Answered { status, error, failure_store } = answered;
    let kind = error.as_ref().and_then(|e| e.get("type")).and_then(Value::as_str).unwrap_or_default().to_owned();
    let said = || {
        let reason = error.as_ref().map(reason_of).unwrap_or_default();
        format!("status {status} {kind}: {reason}")
    };
    match (status, kind.as_str()) {
        (200..=299, _) if failure_store.as_deref() == Some("used") => Outcome::InFailureStore,
        (200..=299, _) => Outcome::Written,
        (409, _) => Outcome::AlreadyWritten,
        (_, "es_rejected_execution_exception" | "circuit_breaking_exception") => Outcome::Later(said()),
        (status, _) if retryable_status(status) || status >= 500 => Outcome::Later(said()),
        (404, _) => Outcome::NoDataStream(said()),
        (401 | 403, _) => Outcome::Forbidden(said()),
        _ => Outcome::Refused(error.unwrap_or_else(|| Value::from(format!("status {status}")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(answer: Value) -> String {
        match outcome(serde_json::from_value(answer).unwrap()) {
            Outcome::Refused(_) => "refused".to_owned(),
            Outcome::Later(_) => "later".to_owned(),
            Outcome::Forbidden(_) => "forbidden".to_owned(),
            Outcome::NoDataStream(_) => "no data stream".to_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn every_answer_has_its_outcome() {
        let error = |status: u16, kind: &str| said(json!({ "status": status, "error": { "type": kind, "reason": "x" } }));
        assert_eq!(said(json!({ "status": 201 })), "Written");
        assert_eq!(said(json!({ "status": 201, "failure_store": "not_applicable_or_unknown" })), "Written");
        assert_eq!(said(json!({ "status": 201, "failure_store": "used" })), "InFailureStore");
        assert_eq!(error(409, "version_conflict_engine_exception"), "AlreadyWritten");
        for status in [429, 500, 502, 503, 504] {
            assert_eq!(error(status, "whatever"), "later");
        }
        assert_eq!(error(400, "es_rejected_execution_exception"), "later");
        assert_eq!(error(400, "circuit_breaking_exception"), "later");
        assert_eq!(error(400, "document_parsing_exception"), "refused");
        assert_eq!(error(413, "whatever"), "refused");
        assert_eq!(error(404, "index_not_found_exception"), "no data stream");
        assert_eq!(error(403, "security_exception"), "forbidden");
    }

    #[test]
    fn the_size_is_what_the_item_takes_in_the_body() {
        let item = Item { id: "mfrggz".to_owned(), document: "{}".to_owned(), delivery: 0, place: 0, again: false };
        assert_eq!(body([&item].into_iter()), b"{\"create\":{\"_id\":\"mfrggz\"}}\n{}\n");
        assert_eq!(body([&item].into_iter()).len(), item.size());
    }
}
