//! A file as it is used: variables resolved, secrets redacted.

use serde::{Serialize, Serializer};

use super::mask;
use super::scalars::REDACTED;
use super::source::Span;
use super::tree::{Node, Origin, Value};

/// `node` as YAML. `secrets` are the places of what is never printed.
pub(super) fn yaml(node: &Node, secrets: &[(Span, String)]) -> String {
    // A tree of plain values can always be written; an empty text would be a bug worth seeing.
    serde_yaml::to_string(&Redacted { node, secrets, suspicious: false }).unwrap_or_default()
}

/// Serializes a tree in the order of its file.
struct Redacted<'a> {
    node: &'a Node,
    secrets: &'a [(Span, String)],
    /// The key says that it may be a secret, though no schema does. What came from outside is not shown then.
    suspicious: bool,
}

impl Serialize for Redacted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { node, secrets, suspicious } = *self;
        let of = |node, suspicious| Redacted { node, secrets, suspicious };
        let from_outside = matches!(node.origin, Origin::Variable { .. });
        let secret = (suspicious && from_outside) || secrets.iter().any(|(span, _)| *span == node.span);
        match &node.value {
            Value::Null => serializer.serialize_unit(),
            _ if secret => serializer.serialize_str(REDACTED),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Number(number) => number.serialize(serializer),
            Value::Text(text) => serializer.serialize_str(text),
            Value::List(items) => serializer.collect_seq(items.iter().map(|item| of(item, suspicious))),
            Value::Map(entries) => {
                let each = entries.iter().map(|e| (e.key.as_str(), of(&e.value, mask::names_a_secret(&e.key))));
                serializer.collect_map(each)
            }
        }
    }
}
