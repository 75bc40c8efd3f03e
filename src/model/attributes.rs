//! Attributes in columns: one flat list per batch, a range per record.

use serde::{Deserialize, Serialize};

use super::{Symbol, Symbols};

/// One key and its value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// Interned key, as in the semantic conventions: `service.name`.
    pub key: Symbol,
    /// Its value.
    pub value: Value,
}

/// The value of an attribute. Arrays, maps and bytes are kept as their JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Text.
    Str(Symbol),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// An array, a map or bytes (base64), as JSON text.
    Json(Symbol),
}

/// A run of attributes in the list of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeRange {
    start: u32,
    end: u32,
}

/// The attributes of all records of a batch, one after the other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Attributes(Vec<Attribute>);

impl Attributes {
    /// Where the next record's attributes begin; give it to [`Attributes::since`] after pushing them.
    #[must_use]
    pub fn mark(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Adds one attribute to the record that is being read.
    pub fn push(&mut self, key: Symbol, value: Value) {
        self.0.push(Attribute { key, value });
    }

    /// The range of everything pushed since `mark`.
    #[must_use]
    pub fn since(&self, mark: u32) -> AttributeRange {
        AttributeRange { start: mark, end: self.mark() }
    }

    /// Forgets everything pushed since `mark`: the record turned out to be unusable.
    pub fn rewind(&mut self, mark: u32) {
        self.0.truncate(mark as usize);
    }

    /// The attributes of one record.
    #[must_use]
    pub fn get(&self, range: AttributeRange) -> &[Attribute] {
        self.0.get(range.start as usize..range.end as usize).unwrap_or(&[])
    }

    /// The value of `key` in `range`, if it is there.
    #[must_use]
    pub fn value(&self, range: AttributeRange, key: Symbol) -> Option<Value> {
        self.get(range).iter().find(|a| a.key == key).map(|a| a.value)
    }

    /// The text of the first of `keys` that `range` has with a non-empty text value.
    #[must_use]
    pub fn text<'a>(&self, symbols: &'a Symbols, range: AttributeRange, keys: &[&str]) -> Option<&'a str> {
        keys.iter().find_map(|key| match self.value(range, symbols.find(key)?)? {
            Value::Str(s) => Some(symbols.get(s)).filter(|t| !t.is_empty()),
            _ => None,
        })
    }
}
