//! A configuration file as a tree in which every value and every key knows where it stands.

use std::rc::Rc;

use serde_json::{Map, Number, Value as Json};

use super::source::Span;

/// A value of a file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) span: Span,
    /// A scalar as it was written or as its variable says, before it was given a type.
    pub(super) raw: String,
    pub(super) origin: Origin,
}

/// What kind of value it is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

/// How the value got into the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Written as it is.
    Plain,
    /// Written in quotes or as a block: it is text, whatever it looks like.
    Quoted,
    /// It is or contains what a variable stands for. Such values are never printed.
    Variable {
        /// As written: `${env:KEY}`.
        written: Rc<str>,
        /// Nothing but the variable.
        alone: bool,
    },
}

impl Node {
    pub(super) fn new(value: Value, span: Span) -> Self {
        Self { value, span, raw: String::new(), origin: Origin::Plain }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        if let Value::Map(entries) = &self.value { entries } else { &[] }
    }

    pub(super) fn items(&self) -> &[Node] {
        if let Value::List(items) = &self.value { items } else { &[] }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|e| &e.value)
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// How many values it is made of.
    pub(super) fn size(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Map(entries) => entries.iter().map(|e| e.value.size()).sum(),
            _ => 0,
        }
    }

    /// Where a message about the value at `path` points: the value if it is a scalar, else its key; the
    /// nearest thing above it where there is nothing at `path`.
    pub(super) fn locate(&self, path: &[String]) -> Span {
        let mut node = self;
        let mut at = self.span;
        for step in path {
            let (next, key) = match &node.value {
                Value::Map(entries) => match entries.iter().find(|e| e.key == *step) {
                    Some(entry) => (&entry.value, entry.key_span),
                    None => break,
                },
                Value::List(items) => match step.parse::<usize>().ok().and_then(|i| items.get(i)) {
                    Some(item) => (item, item.span),
                    None => break,
                },
                _ => break,
            };
            at = match next.value {
                Value::Map(_) | Value::List(_) | Value::Null => key,
                _ => next.span,
            };
            node = next;
        }
        at
    }

    /// As JSON, for serde.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Number(n) => Json::Number(n.clone()),
            Value::Text(t) => Json::String(t.clone()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                Json::Object(entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect::<Map<_, _>>())
            }
        }
    }
}

impl Value {
    /// The value that an unquoted scalar stands for, by the core schema of YAML 1.2 (section 10.3.2).
    pub(super) fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => return Self::Null,
            "true" | "True" | "TRUE" => return Self::Bool(true),
            "false" | "False" | "FALSE" => return Self::Bool(false),
            _ => {}
        }
        number(text).map_or_else(|| Self::Text(text.to_owned()), Self::Number)
    }
}

fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(Number::from);
    }
    if let Some(octal) = text.strip_prefix("0o") {
        return u64::from_str_radix(octal, 8).ok().map(Number::from);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        return text.parse::<i64>().map(Number::from).or_else(|_| text.parse::<u64>().map(Number::from)).ok();
    }
    // Rust also reads `inf` and `nan`, which do not begin with a digit.
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> String {
        Node::new(Value::of_plain(text), Span::default()).to_json().to_string()
    }

    #[test]
    fn plain_scalars_have_the_types_of_yaml_1_2() {
        let cases = [
            ("~", "null"),
            ("true", "true"),
            ("yes", "\"yes\""),
            ("-12", "-12"),
            ("+12", "12"),
            ("0x1F", "31"),
            ("18446744073709551615", "18446744073709551615"),
            ("0.05", "0.05"),
            (".5", "0.5"),
            ("1e3", "1000.0"),
            (".inf", "\".inf\""),
            ("1.2.3", "\"1.2.3\""),
            ("0.0.0.0:4317", "\"0.0.0.0:4317\""),
            ("30s", "\"30s\""),
        ];
        for (text, expected) in cases {
            assert_eq!(json(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn numbers_keep_their_value(n: i64) {
            prop_assert_eq!(json(&n.to_string()), n.to_string());
        }
    }
}
