//! The records of one page, per signal, in columns.

use super::fields::{Field, Fields, Values};
use crate::model::{
    AttributeRange, Attributes, Batch, LogRecords, Metric, MetricKind, Points, Signal, Spans, Symbol, Symbols, Value,
};

/// Texts up to this long are looked up, so that equal ones are stored once; longer ones seldom repeat.
const WORD: usize = 64;

/// What the documents of a page became.
#[derive(Debug, Default)]
pub(super) struct Columns {
    pub(super) spans: Spans,
    pub(super) logs: LogRecords,
    pub(super) points: Points,
    /// The resource of the last record of each signal: neighbours often share it.
    pub(super) resources: Resources,
}

/// See [`Columns::resources`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resources {
    pub(super) spans: AttributeRange,
    pub(super) logs: AttributeRange,
    pub(super) points: AttributeRange,
}

impl Columns {
    /// Takes the records of one signal out.
    pub(super) fn take(&mut self, signal: Signal) -> Batch {
        match signal {
            Signal::Traces => {
                self.resources.spans = AttributeRange::default();
                Batch::Traces(std::mem::take(&mut self.spans))
            }
            Signal::Metrics => {
                self.resources.points = AttributeRange::default();
                Batch::Metrics(std::mem::take(&mut self.points))
            }
            Signal::Logs => {
                self.resources.logs = AttributeRange::default();
                Batch::Logs(std::mem::take(&mut self.logs))
            }
        }
    }

    /// How many records of one signal there are.
    pub(super) fn len(&self, signal: Signal) -> usize {
        match signal {
            Signal::Traces => self.spans.rows.len(),
            Signal::Metrics => self.points.rows.len(),
            Signal::Logs => self.logs.rows.len(),
        }
    }
}

/// The attributes of the record that is being read.
pub(super) struct Writer<'a> {
    pub(super) symbols: &'a mut Symbols,
    pub(super) attributes: &'a mut Attributes,
}

impl<'a> Writer<'a> {
    pub(super) const fn new(symbols: &'a mut Symbols, attributes: &'a mut Attributes) -> Self {
        Self { symbols, attributes }
    }

    /// Adds one attribute.
    pub(super) fn put(&mut self, key: &str, value: Field<'_>) {
        let value = match value {
            Field::Bool(b) => Value::Bool(b),
            Field::Int(n) => Value::Int(n),
            Field::Double(n) => Value::Double(n),
            Field::Str(text) => Value::Str(word(self.symbols, text)),
        };
        let key = self.symbols.intern(key);
        self.attributes.push(key, value);
    }

    /// Adds one attribute: a single value as itself, several as a JSON array.
    pub(super) fn put_all(&mut self, key: &str, values: Values<'_>) {
        if let Some(value) = values.single() {
            return self.put(key, value);
        }
        let text = json_array(values);
        let text = self.symbols.push(&text);
        let key = self.symbols.intern(key);
        self.attributes.push(key, Value::Json(text));
    }

    /// Adds the first of `paths` that has a text, as `key`.
    pub(super) fn put_text(&mut self, key: &str, fields: &Fields, paths: &[&str]) {
        if let Some(text) = fields.text(paths) {
            self.put(key, Field::Str(text));
        }
    }

    /// The attributes that `fill` adds; those of the record before, if they are the same.
    pub(super) fn shared(&mut self, last: &mut AttributeRange, fill: impl FnOnce(&mut Self)) -> AttributeRange {
        let mark = self.attributes.mark();
        fill(self);
        let range = self.attributes.since(mark);
        if self.attributes.get(range) == self.attributes.get(*last) {
            self.attributes.rewind(mark);
        } else {
            *last = range;
        }
        *last
    }

    /// The attributes that `fill` adds.
    pub(super) fn own(&mut self, fill: impl FnOnce(&mut Self)) -> AttributeRange {
        let mark = self.attributes.mark();
        fill(self);
        self.attributes.since(mark)
    }
}

/// The symbol of a text that may repeat.
pub(super) fn word(symbols: &mut Symbols, text: &str) -> Symbol {
    if text.len() <= WORD { symbols.intern(text) } else { symbols.push(text) }
}

fn json_array(values: Values<'_>) -> String {
    let list: Vec<serde_json::Value> = values.iter().map(json).collect();
    serde_json::Value::Array(list).to_string()
}

/// One value as JSON.
pub(super) fn json(field: Field<'_>) -> serde_json::Value {
    match field {
        Field::Bool(b) => b.into(),
        Field::Int(n) => n.into(),
        Field::Double(n) => n.into(),
        Field::Str(text) => text.into(),
    }
}

/// The index of a metric in the batch, which is added if it is not there.
pub(super) fn metric(points: &mut Points, name: &str, unit: &str, kind: MetricKind) -> u32 {
    let wanted = Metric { name: points.symbols.intern(name), unit: points.symbols.intern(unit), kind };
    // Looked for from the end: the documents of one poll repeat the same few metrics.
    let found = points.metrics.iter().rposition(|m| *m == wanted);
    let index = found.unwrap_or_else(|| {
        points.metrics.push(wanted);
        points.metrics.len() - 1
    });
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// A hexadecimal id of `N` bytes; zeros where it is none.
pub(super) fn id<const N: usize>(text: Option<&str>) -> [u8; N] {
    let mut bytes = [0; N];
    let Some(text) = text.filter(|t| t.len() == 2 * N) else { return bytes };
    match data_encoding::HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut bytes) {
        Ok(_) => bytes,
        Err(_) => [0; N],
    }
}
