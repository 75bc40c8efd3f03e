//! `AnyValue` in JSON: scalars as they are, arrays, maps and bytes as JSON text.

use serde::de::MapAccess;

use super::super::any_value::{Any, MAX_DEPTH, write_bytes, write_scalar, write_text};
use super::read::{Bytes, Double, Int, Many, Object, One, Text, skip};

/// An `AnyValue` at the top of an attribute or body.
#[derive(Default)]
pub(super) struct Value {
    kind: Kind,
    /// Of text, and of what became JSON.
    text: String,
    /// Whether a part of it was too deep to be kept.
    pub(super) too_deep: bool,
}

#[derive(Clone, Copy, Default)]
enum Kind {
    #[default]
    Empty,
    Text,
    Json,
    Bool(bool),
    Int(i64),
    Double(f64),
}

impl Value {
    /// An empty value that uses the room of `text`.
    pub(super) fn over(text: String) -> Self {
        Self { text, ..Self::default() }
    }

    /// Gives the room back.
    pub(super) fn into_text(self) -> String {
        self.text
    }

    pub(super) fn clear(&mut self) {
        self.kind = Kind::Empty;
        self.text.clear();
        self.too_deep = false;
    }

    pub(super) fn get(&self) -> Any<'_> {
        match self.kind {
            Kind::Empty => Any::Empty,
            Kind::Text => Any::Str(&self.text),
            Kind::Json => Any::Json(&self.text),
            Kind::Bool(v) => Any::Bool(v),
            Kind::Int(v) => Any::Int(v),
            Kind::Double(v) => Any::Double(v),
        }
    }
}

impl Object for Value {
    fn begin<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.clear();
        Ok(())
    }
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let text = &mut self.text;
        self.kind = match key {
            "stringValue" => {
                text.clear();
                map.next_value_seed(Text(|t: &str| text.push_str(t)))?.map_or(Kind::Empty, |()| Kind::Text)
            }
            "boolValue" => map.next_value::<Option<bool>>()?.map_or(Kind::Empty, Kind::Bool),
            "intValue" => map.next_value::<Option<Int>>()?.map_or(Kind::Empty, |v| Kind::Int(v.0)),
            "doubleValue" => map.next_value::<Option<Double>>()?.map_or(Kind::Empty, |v| Kind::Double(v.0)),
            "arrayValue" | "kvlistValue" | "bytesValue" => {
                text.clear();
                Nested { out: text, depth: 1, too_deep: &mut self.too_deep }.field(key, map)?;
                Kind::Json
            }
            _ => return skip(map),
        };
        Ok(())
    }
}

/// An `AnyValue` inside of another one, written as JSON text.
struct Nested<'o> {
    out: &'o mut String,
    depth: u32,
    too_deep: &'o mut bool,
}

impl Nested<'_> {
    fn at(&mut self, depth: u32) -> Nested<'_> {
        Nested { out: self.out, depth, too_deep: self.too_deep }
    }
}

impl Object for Nested<'_> {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "stringValue" => {
                map.next_value_seed(Text(|text: &str| write_text(text, self.out)))?;
            }
            "boolValue" => write_scalar(map.next_value::<Option<bool>>()?.map_or(Any::Empty, Any::Bool), self.out),
            "intValue" => write_scalar(map.next_value::<Option<Int>>()?.map_or(Any::Empty, |v| Any::Int(v.0)), self.out),
            "doubleValue" => write_scalar(map.next_value::<Option<Double>>()?.map_or(Any::Empty, |v| Any::Double(v.0)), self.out),
            "bytesValue" => write_bytes(&map.next_value::<Option<Bytes>>()?.unwrap_or_default().0, self.out),
            "arrayValue" | "kvlistValue" if self.depth > MAX_DEPTH => {
                *self.too_deep = true;
                skip(map)?;
            }
            "arrayValue" => {
                self.out.push('[');
                map.next_value_seed(One(&mut Values(self.at(self.depth + 1), false)))?;
                self.out.push(']');
            }
            "kvlistValue" => {
                self.out.push('{');
                map.next_value_seed(One(&mut Values(self.at(self.depth + 1), true)))?;
                self.out.push('}');
            }
            _ => skip(map)?,
        }
        Ok(())
    }
}

/// The `values` of an array, or of a map (`true`).
struct Values<'o>(Nested<'o>, bool);

impl Object for Values<'_> {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match (key, self.1) {
            ("values", false) => map.next_value_seed(Many(&mut Item { at: 0, first: true, nested: self.0.at(self.0.depth) })),
            ("values", true) => map.next_value_seed(Many(&mut Pair {
                key: String::new(),
                value: String::new(),
                first: true,
                nested: self.0.at(self.0.depth),
            })),
            _ => skip(map),
        }
    }
}

/// An element of an array.
struct Item<'o> {
    /// Where it begins in the text: nothing written since means that it is empty.
    at: usize,
    first: bool,
    nested: Nested<'o>,
}

impl Object for Item<'_> {
    fn begin<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if !std::mem::take(&mut self.first) {
            self.nested.out.push(',');
        }
        self.at = self.nested.out.len();
        Ok(())
    }
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        self.nested.field(key, map)
    }
    fn end<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.nested.out.len() == self.at {
            self.nested.out.push_str("null");
        }
        Ok(())
    }
}

/// An entry of a map. Its value may come before its key, so both are gathered first.
struct Pair<'o> {
    key: String,
    value: String,
    first: bool,
    nested: Nested<'o>,
}

impl Object for Pair<'_> {
    fn begin<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.key.clear();
        self.value.clear();
        Ok(())
    }
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "key" => map.next_value_seed(Text(|text: &str| self.key.push_str(text))).map(|_| ()),
            "value" => {
                self.value.clear();
                let nested = &mut self.nested;
                let mut value = Nested { out: &mut self.value, depth: nested.depth, too_deep: nested.too_deep };
                map.next_value_seed(One(&mut value))
            }
            _ => skip(map),
        }
    }
    fn end<E: serde::de::Error>(&mut self) -> Result<(), E> {
        let out = &mut *self.nested.out;
        if !std::mem::take(&mut self.first) {
            out.push(',');
        }
        write_text(&self.key, out);
        out.push(':');
        out.push_str(if self.value.is_empty() { "null" } else { &self.value });
        Ok(())
    }
}
