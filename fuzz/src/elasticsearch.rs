//! What Elasticsearch answers, or a proxy before it.

use anomalyd::elasticsearch::Refusal;
use anomalyd::exporters::elasticsearch::{Outcome, read_bulk_answer};
use anomalyd::receivers::elasticsearch::decode;
use serde_json::Value;

use crate::batch::rows;
use crate::memory::bounded;

/// A JSON tree takes some hundred bytes for each `[]` of two bytes.
const EACH: u64 = 256;
const FIXED: u64 = 64 << 10;

/// The answer to a search: every document becomes well-formed rows, or is counted.
pub(crate) fn search(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let read = || decode(&text).map(|(batches, rejected)| (batches.iter().flat_map(rows).collect::<Vec<_>>(), rejected));
    // A document is flattened: every field has its path in front.
    let first = bounded(text.len(), 64, FIXED, || decode(&text));
    if let Err(message) = &first {
        assert!(!message.is_empty(), "an error without a message");
    }
    assert_eq!(read(), read(), "the same answer, another time");
}

/// The answer to a bulk request. The first byte is how many documents were sent. A document that the answer does not
/// call written must never be taken for written.
pub(crate) fn bulk(input: &[u8]) {
    let (count, answer) = input.split_first().unwrap_or((&0, &[]));
    let count = usize::from(count % 8);
    let Ok(outcomes) = bounded(answer.len(), EACH, FIXED, || read_bulk_answer(answer, count)) else { return };
    assert_eq!(outcomes.len(), count, "each document has one outcome");
    let plain: Value = serde_json::from_slice(answer).unwrap_or_default();
    let items = plain.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for (outcome, item) in outcomes.iter().zip(items) {
        // Where a key comes twice the two readings may differ: the last counts here, the reader refuses it.
        let Some(status) = item.pointer("/create/status").and_then(Value::as_u64) else { continue };
        match outcome {
            Outcome::Written | Outcome::InFailureStore => assert!((200..300).contains(&status), "{outcome:?}: {item}"),
            Outcome::AlreadyWritten => assert_eq!(status, 409, "{item}"),
            Outcome::Later(_) | Outcome::NoDataStream(_) | Outcome::Forbidden(_) | Outcome::Refused(_) => {
                assert!(!(200..300).contains(&status) || item.pointer("/create/error").is_some(), "{outcome:?}: {item}");
            }
        }
    }
}

/// The body of an answer that says no: the sentence about it stays short and on one line.
pub(crate) fn error(input: &[u8]) {
    let (status, body) =
        input.split_first_chunk::<2>().map_or((503, input), |(status, body)| (u16::from_be_bytes(*status), body));
    let refusal = bounded(body.len(), EACH, FIXED, || Refusal::read(status, None, body));
    let text = refusal.to_string();
    assert!(text.chars().count() < 16_000, "{} characters about {} bytes", text.chars().count(), body.len());
}
