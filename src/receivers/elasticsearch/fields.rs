//! One document as a flat table: path and value, in memory that is used again for the next document.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Objects nested deeper than this are passed over: no field that is looked for lies so deep.
const DEEPEST: usize = 32;

/// A document's text is at most this long, so that 32 bits are enough for a place in it.
const LONGEST: usize = u32::MAX as usize;

/// Paths and texts may have so many times the bytes of the document: a long key above many small values would else
/// be kept once for each of them.
const SPREAD: usize = 16;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// A text.
    Str(&'a str),
}

impl<'a> Field<'a> {
    /// The text, if it is one and not empty.
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Str(text) => Some(text).filter(|t| !t.is_empty()),
            _ => None,
        }
    }

    /// The number, also when it came as text.
    pub(super) fn number(self) -> Option<f64> {
        let number = match self {
            Self::Int(n) => n as f64,
            Self::Double(n) => n,
            Self::Str(text) => text.trim().parse().ok()?,
            Self::Bool(_) => return None,
        };
        number.is_finite().then_some(number)
    }
}

type Range = (u32, u32);

#[derive(Clone, Copy, Debug)]
enum Cell {
    Bool(bool),
    Int(i64),
    Double(f64),
    Str(Range),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    path: Range,
    cell: Cell,
}

/// The fields of one document. Nested objects and dotted keys give the same paths, as they do in Elasticsearch;
/// an array gives its path several times, and of an array of objects only the first object is kept. Nulls are absent.
#[derive(Debug, Default)]
pub(super) struct Fields {
    text: String,
    entries: Vec<Entry>,
    /// The path of the value that is being read.
    path: String,
    /// Most bytes of `text`, and whether it would have had more.
    room: usize,
    full: bool,
}

impl Fields {
    /// Reads `json` in place of what was there before.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub(super) fn read(&mut self, json: &str) -> Result<(), serde_json::Error> {
        self.text.clear();
        self.entries.clear();
        self.path.clear();
        (self.room, self.full) = (json.len().saturating_mul(SPREAD).min(LONGEST), false);
        if json.len() > LONGEST / 4 {
            return Err(serde_json::Error::custom("the document is larger than 1 GiB"));
        }
        let mut deserializer = serde_json::Deserializer::from_str(json);
        deserializer.deserialize_map(Object { fields: self, depth: 0 })?;
        if self.full {
            return Err(serde_json::Error::custom(format_args!(
                "the paths of its fields have more than {SPREAD} times the bytes of the document"
            )));
        }
        Ok(())
    }

    /// The first value at `path`.
    pub(super) fn get(&self, path: &str) -> Option<Field<'_>> {
        self.entries.iter().find(|e| self.slice(e.path) == path).map(|e| self.field(e.cell))
    }

    /// The first of `paths` that holds a text that is not empty.
    pub(super) fn text(&self, paths: &[&str]) -> Option<&str> {
        paths.iter().find_map(|path| self.get(path)?.text())
    }

    /// The first of `paths` that holds a finite number.
    pub(super) fn number(&self, paths: &[&str]) -> Option<f64> {
        paths.iter().find_map(|path| self.get(path)?.number())
    }

    /// Whether there is a field whose path begins with `prefix`.
    pub(super) fn has_prefix(&self, prefix: &str) -> bool {
        self.entries.iter().any(|e| self.slice(e.path).starts_with(prefix))
    }

    /// All values at `path`.
    pub(super) fn values<'a>(&'a self, path: &'a str) -> impl Iterator<Item = Field<'a>> {
        self.entries.iter().filter(move |e| self.slice(e.path) == path).map(|e| self.field(e.cell))
    }

    /// Every path with its values, in the order of the document.
    pub(super) fn runs(&self) -> impl Iterator<Item = (&str, Values<'_>)> {
        self.entries.chunk_by(|a, b| self.slice(a.path) == self.slice(b.path)).filter_map(|entries| {
            let path = self.slice(entries.first()?.path);
            Some((path, Values { fields: self, entries }))
        })
    }

    fn slice(&self, (start, end): Range) -> &str {
        self.text.get(start as usize..end as usize).unwrap_or("")
    }

    fn field(&self, cell: Cell) -> Field<'_> {
        match cell {
            Cell::Bool(b) => Field::Bool(b),
            Cell::Int(n) => Field::Int(n),
            Cell::Double(n) => Field::Double(n),
            Cell::Str(range) => Field::Str(self.slice(range)),
        }
    }

    fn keep(&mut self, text: &str) -> Range {
        let start = self.text.len() as u32;
        self.text.push_str(text);
        (start, self.text.len() as u32)
    }

    fn push(&mut self, cell: Cell) {
        let same = self.entries.last().map(|e| e.path).filter(|&range| self.slice(range) == self.path);
        if same.is_none() && self.text.len() + self.path.len() > self.room {
            self.full = true;
            return;
        }
        let path = same.unwrap_or_else(|| {
            let start = self.text.len() as u32;
            self.text.push_str(&self.path);
            (start, self.text.len() as u32)
        });
        self.entries.push(Entry { path, cell });
    }
}

/// The values of one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    fields: &'a Fields,
    entries: &'a [Entry],
}

impl<'a> Values<'a> {
    /// The value, if there is just one.
    pub(super) fn single(self) -> Option<Field<'a>> {
        match self.entries {
            [one] => Some(self.fields.field(one.cell)),
            _ => None,
        }
    }

    /// All of them.
    pub(super) fn iter(self) -> impl Iterator<Item = Field<'a>> {
        self.entries.iter().map(move |e| self.fields.field(e.cell))
    }
}

struct Value<'f> {
    fields: &'f mut Fields,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.fields.push(Cell::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.fields.push(Cell::Int(value));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.fields.push(i64::try_from(value).map_or(Cell::Double(value as f64), Cell::Int));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.fields.push(Cell::Double(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        let range = self.fields.keep(value);
        self.fields.push(Cell::Str(range));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        Object { fields: self.fields, depth: self.depth }.visit_map(map)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.depth + 1;
        if depth > DEEPEST {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let before = self.fields.entries.len();
        if seq.next_element_seed(Value { fields: self.fields, depth })?.is_none() {
            return Ok(());
        }
        // Fields of further objects would stand at the same paths, as if they belonged to the first one.
        let of_objects = self.fields.entries.get(before).is_some_and(|e| self.fields.slice(e.path) != self.fields.path);
        if of_objects {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
        } else {
            while seq.next_element_seed(Value { fields: self.fields, depth })?.is_some() {}
        }
        Ok(())
    }
}

struct Object<'f> {
    fields: &'f mut Fields,
    depth: usize,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document (a JSON object)")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.depth + 1;
        let parent = self.fields.path.len();
        while map.next_key_seed(Key(&mut self.fields.path))?.is_some() {
            if depth > DEEPEST {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Value { fields: self.fields, depth })?;
            }
            self.fields.path.truncate(parent);
        }
        Ok(())
    }
}

/// Adds a key to the path.
struct Key<'p>(&'p mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<(), E> {
        if !self.0.is_empty() {
            self.0.push('.');
        }
        self.0.push_str(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(json: &str) -> Fields {
        let mut fields = Fields::default();
        fields.read(json).unwrap();
        fields
    }

    fn shown(fields: &Fields) -> Vec<String> {
        fields.runs().map(|(path, values)| format!("{path} = {:?}", values.iter().collect::<Vec<_>>())).collect()
    }

    #[test]
    fn nested_and_dotted_keys_give_the_same_paths() {
        let nested = read(r#"{"resource":{"attributes":{"service":{"name":"a"},"host.name":"h"}},"duration":5}"#);
        let dotted = read(r#"{"resource.attributes.service.name":"a","resource.attributes.host.name":"h","duration":5}"#);
        assert_eq!(shown(&nested), shown(&dotted));
        assert_eq!(nested.text(&["resource.attributes.service.name"]), Some("a"));
        assert_eq!(nested.number(&["absent", "duration"]), Some(5.0));
    }

    #[test]
    fn arrays_of_values_are_kept_and_of_objects_only_the_first() {
        let fields = read(r#"{"a":[1,2],"o":[{"x":1,"y":2},{"x":3}],"one":["s"],"e":[],"n":null,"m":[[1],[2,3]]}"#);
        insta::assert_snapshot!(shown(&fields).join("\n"), @"
        a = [Int(1), Int(2)]
        o.x = [Int(1)]
        o.y = [Int(2)]
        one = [Str(\"s\")]
        m = [Int(1), Int(2), Int(3)]
        ");
    }

    #[test]
    fn a_document_that_is_nested_without_end_is_read_as_far_as_it_matters() {
        let deep = format!("{}1{}", r#"{"a":"#.repeat(5000), "}".repeat(5000));
        let fields = read(&format!(r#"{{"deep":{deep},"after":1,"list":{}{}}}"#, "[".repeat(5000), "]".repeat(5000)));
        assert_eq!(shown(&fields), ["after = [Int(1)]"]);
    }

    #[test]
    fn numbers_come_as_numbers_or_as_text_and_never_as_infinity() {
        let fields = read(r#"{"a":"150000","b":1e3,"c":"inf","d":"NaN","e":18446744073709551615,"f":true}"#);
        assert_eq!(fields.number(&["a"]), Some(150_000.0));
        assert_eq!(fields.number(&["b"]), Some(1000.0));
        assert_eq!(fields.number(&["c", "d", "f"]), None);
        assert_eq!(fields.number(&["e"]), Some(18_446_744_073_709_551_615.0));
    }

    #[test]
    fn a_long_key_above_many_values_is_not_kept_for_each_of_them() {
        let values: Vec<String> = (0..1000).map(|i| format!("\"{i}\":1")).collect();
        let json = format!("{{\"{}\":{{{}}}}}", "a".repeat(5000), values.join(","));
        let mut fields = Fields::default();
        insta::assert_snapshot!(fields.read(&json).unwrap_err(), @"the paths of its fields have more than 16 times the bytes of the document");
        assert!(fields.text.len() <= SPREAD * json.len());
        fields.read(r#"{"a":1}"#).unwrap();
    }

    proptest! {
        #[test]
        fn no_text_whatever_makes_the_reader_panic(text in ".{0,200}") {
            let mut fields = Fields::default();
            let _ = fields.read(&text);
            let _ = fields.read(&format!("{{\"a\":{text}}}"));
        }
    }
}
