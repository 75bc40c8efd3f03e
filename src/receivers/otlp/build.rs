//! Where both encodings push what they read: the columns of one request, and what had to be rejected.
//!
//! There is one place for every rule (times, sizes, ids, severities), so protobuf and JSON cannot differ.

use std::ops::Range;

use super::any_value::Any;
use crate::model::{
    AttributeRange, Attributes, Batch, LogRecord, LogRecords, Points, SeverityBand, Span, SpanKind, Spans, StatusCode, Symbol,
    Symbols, UnixNanos, Value,
};

/// 2000-01-01T00:00:00Z: nothing that speaks OTLP is older; an earlier time is a clock that was not set.
pub(super) const MIN_TIME: UnixNanos = UnixNanos::from_secs(946_684_800);

/// What a request may hold. Times are judged against `now`, so decoding reads no clock.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time of arrival.
    pub now: UnixNanos,
    /// How far after `now` an event may be, in nanoseconds.
    pub max_future: u64,
    /// Bytes of one attribute's value.
    pub max_attribute_value_size: usize,
    /// Bytes of all columns of one request: keeps a small body of very many empty records from becoming large.
    pub max_decoded_size: usize,
}

/// Why a whole request cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not what it should be; says where and what was expected.
    #[error("{0}")]
    Malformed(String),
    /// It holds more than is allowed.
    #[error("{0}")]
    TooLarge(String),
}

/// Records that were rejected for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejected {
    /// The counter's label.
    pub(super) reason: &'static str,
    /// How many.
    pub(super) count: u64,
    /// What was wrong with the first of them.
    pub(super) example: String,
}

/// The counter's label for points that say that there is no value: dropped as OTLP wants it, and no error.
pub(super) const NO_RECORDED_VALUE: &str = "no_recorded_value";

/// What belongs to one resource.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Its rows.
    pub(super) rows: Range<usize>,
    /// Its attributes.
    pub(super) resource: AttributeRange,
    /// What of it was rejected.
    pub(super) rejected: Vec<Rejected>,
}

/// A decoded request.
#[derive(Clone, Debug)]
pub(super) struct Decoded<C> {
    /// All rows.
    pub(super) columns: C,
    /// All resources, in order.
    pub(super) groups: Vec<Group>,
    /// Bytes of the columns, as charged.
    pub(super) size: usize,
}

/// The columns of one signal.
pub(super) trait Columns: Default + Send {
    /// A row.
    type Row: Copy;
    /// What a row is called, in the plural.
    const ROWS: &'static str;

    fn symbols(&mut self) -> &mut Symbols;
    fn attributes(&mut self) -> &mut Attributes;
    fn rows(&mut self) -> &mut Vec<Self::Row>;
    fn resource_of(row: &mut Self::Row) -> &mut AttributeRange;
    fn into_batch(self) -> Batch;
}

macro_rules! columns {
    ($type:ident, $row:ident, $signal:ident, $rows:literal) => {
        impl Columns for $type {
            type Row = crate::model::$row;
            const ROWS: &'static str = $rows;

            fn symbols(&mut self) -> &mut Symbols {
                &mut self.symbols
            }
            fn attributes(&mut self) -> &mut Attributes {
                &mut self.attributes
            }
            fn rows(&mut self) -> &mut Vec<Self::Row> {
                &mut self.rows
            }
            fn resource_of(row: &mut Self::Row) -> &mut AttributeRange {
                &mut row.resource
            }
            fn into_batch(self) -> Batch {
                Batch::$signal(self)
            }
        }
    };
}
columns!(Spans, Span, Traces, "spans");
columns!(LogRecords, LogRecord, Logs, "log records");
columns!(Points, Point, Metrics, "data points");

/// What is wrong with the record that is being read.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) reason: &'static str,
    pub(super) detail: String,
}

impl Fault {
    pub(super) const fn new(reason: &'static str, detail: String) -> Self {
        Self { reason, detail }
    }
}

/// Builds the columns of one request.
pub(super) struct Builder<C> {
    pub(super) columns: C,
    pub(super) limits: Limits,
    groups: Vec<Group>,
    size: usize,
    /// Where the rows of the current resource begin.
    first_row: usize,
    resource: AttributeRange,
    resource_fault: Option<Fault>,
    rejected: Vec<Rejected>,
    /// Where the attributes of the current record begin.
    mark: u32,
    fault: Option<Fault>,
    /// The text of nested values while it is written.
    pub(super) scratch: String,
}

impl<C: Columns> Builder<C> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            columns: C::default(),
            limits,
            groups: Vec::new(),
            size: 0,
            first_row: 0,
            resource: AttributeRange::default(),
            resource_fault: None,
            rejected: Vec::new(),
            mark: 0,
            fault: None,
            scratch: String::new(),
        }
    }

    pub(super) fn finish(self) -> Decoded<C> {
        Decoded { columns: self.columns, groups: self.groups, size: self.size }
    }

    /// Accounts for `bytes` more of columns.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.size = self.size.saturating_add(bytes);
        self.check_size()
    }

    /// Whether the columns are within their limit.
    pub(super) fn check_size(&self) -> Result<(), DecodeError> {
        if self.size > self.limits.max_decoded_size {
            return Err(DecodeError::TooLarge(format!(
                "the {} and their attributes need more than {} bytes when decoded: send smaller batches",
                C::ROWS,
                self.limits.max_decoded_size
            )));
        }
        Ok(())
    }

    /// The symbol of a text that repeats.
    pub(super) fn intern(&mut self, text: &str) -> Result<Symbol, DecodeError> {
        // An upper bound: a text that is known already costs nothing.
        self.charge(text.len())?;
        Ok(self.columns.symbols().intern(text))
    }

    /// A new resource begins.
    pub(super) fn begin_resource(&mut self) {
        self.first_row = self.columns.rows().len();
        self.resource = AttributeRange::default();
        self.resource_fault = None;
        self.begin_record();
    }

    /// All attributes since the last `begin_record` are the resource's.
    pub(super) fn resource(&mut self) {
        self.resource = self.columns.attributes().since(self.mark);
        self.resource_fault = self.fault.take();
    }

    /// The resource and everything in it was read. Its attributes may have come after its records, so only now
    /// do the rows learn them.
    pub(super) fn end_resource(&mut self) {
        let (first, resource) = (self.first_row, self.resource);
        if let Some(fault) = self.resource_fault.take() {
            let count = (self.columns.rows().len() - first) as u64;
            self.columns.rows().truncate(first);
            self.count_rejected(fault, count);
        }
        let rows = self.columns.rows();
        let range = first..rows.len();
        for row in rows.get_mut(range.clone()).unwrap_or_default() {
            *C::resource_of(row) = resource;
        }
        let rejected = std::mem::take(&mut self.rejected);
        if !range.is_empty() || !rejected.is_empty() {
            self.groups.push(Group { rows: range, resource, rejected });
        }
    }

    /// A new record (or resource) begins: what follows are its attributes.
    pub(super) fn begin_record(&mut self) {
        self.mark = self.columns.attributes().mark();
        self.fault = None;
    }

    /// The attributes of the record that is being read.
    pub(super) fn record_attributes(&mut self) -> AttributeRange {
        let mark = self.mark;
        self.columns.attributes().since(mark)
    }

    /// One attribute of the record that is being read.
    pub(super) fn attribute(&mut self, key: Symbol, value: Any<'_>) -> Result<(), DecodeError> {
        let (Any::Str(text) | Any::Json(text)) = value else {
            let value = match value {
                Any::Bool(v) => Value::Bool(v),
                Any::Int(v) => Value::Int(v),
                Any::Double(v) => Value::Double(v),
                Any::Empty | Any::Str(_) | Any::Json(_) => Value::Str(Symbol::EMPTY),
            };
            return self.push_attribute(key, value);
        };
        let (size, limit) = (text.len(), self.limits.max_attribute_value_size);
        if size > limit {
            let key = shorten(self.columns.symbols().get(key));
            self.fail(Fault::new("attribute_too_large", format!("attribute `{key}` has {size} bytes, the limit is {limit}")));
            return Ok(());
        }
        let symbol = self.intern(text)?;
        self.push_attribute(key, if matches!(value, Any::Str(_)) { Value::Str(symbol) } else { Value::Json(symbol) })
    }

    fn push_attribute(&mut self, key: Symbol, value: Value) -> Result<(), DecodeError> {
        self.charge(size_of::<crate::model::Attribute>())?;
        self.columns.attributes().push(key, value);
        Ok(())
    }

    /// The record that is being read cannot be used; the first reason counts.
    pub(super) fn fail(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    /// Ends the record that is being read: `row` if nothing was wrong with it.
    pub(super) fn end_record(&mut self, row: C::Row) -> Result<bool, DecodeError> {
        if let Some(fault) = self.fault.take() {
            let mark = self.mark;
            self.columns.attributes().rewind(mark);
            self.count_rejected(fault, 1);
            return Ok(false);
        }
        self.charge(size_of::<C::Row>())?;
        self.columns.rows().push(row);
        Ok(true)
    }

    pub(super) fn count_rejected(&mut self, fault: Fault, count: u64) {
        if count == 0 {
            return;
        }
        match self.rejected.iter_mut().find(|r| r.reason == fault.reason) {
            Some(known) => known.count += count,
            None => self.rejected.push(Rejected { reason: fault.reason, count, example: fault.detail }),
        }
    }

    /// Checks the time of an event of the record that is being read.
    pub(super) fn check_time(&mut self, what: &str, name: Symbol, time: UnixNanos) {
        let latest = self.limits.now.plus(self.limits.max_future);
        if (MIN_TIME..=latest).contains(&time) {
            return;
        }
        let name = shorten(self.columns.symbols().get(name));
        let name = if name.is_empty() { String::new() } else { format!(" of `{name}`") };
        let problem = if time.0 == 0 {
            "is not set".to_owned()
        } else if time < MIN_TIME {
            format!("is {time}, expected one after {MIN_TIME}")
        } else {
            format!("is {time}, which is in the future (now {}, at most {latest} is accepted)", self.limits.now)
        };
        self.fail(Fault::new("bad_timestamp", format!("{what}{name} {problem}")));
    }
}

/// A text that fits into a message.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default().escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

/// A span while it is read.
#[derive(Debug, Default)]
pub(super) struct SpanDraft {
    pub(super) name: Symbol,
    pub(super) kind: i32,
    pub(super) status: i32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) weight: Option<f64>,
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
    pub(super) parent_span_id: [u8; 8],
}

impl Builder<Spans> {
    pub(super) fn span(&mut self, draft: &SpanDraft) -> Result<(), DecodeError> {
        let (start, end) = (UnixNanos(draft.start), UnixNanos(draft.end));
        self.check_time("the start time", draft.name, start);
        if end > start {
            self.check_time("the end time", draft.name, end);
        }
        let attributes = self.record_attributes();
        self.end_record(Span {
            resource: AttributeRange::default(),
            name: draft.name,
            kind: SpanKind::from_otlp(draft.kind.into()),
            status: StatusCode::from_otlp(draft.status.into()),
            start,
            duration: end.0.saturating_sub(start.0),
            weight: draft.weight.unwrap_or(1.0),
            trace_id: draft.trace_id,
            span_id: draft.span_id,
            parent_span_id: draft.parent_span_id,
            attributes,
        })?;
        Ok(())
    }
}

/// A log record while it is read.
#[derive(Debug, Default)]
pub(super) struct LogDraft {
    pub(super) time: u64,
    pub(super) observed: u64,
    pub(super) severity_number: i32,
    /// The number that the level's name stands for.
    pub(super) severity_named: Option<u8>,
    pub(super) body: Symbol,
    pub(super) event_name: Symbol,
    pub(super) trace_id: [u8; 16],
    pub(super) span_id: [u8; 8],
}

impl Builder<LogRecords> {
    /// The text of a body: a string as it is, anything else as JSON.
    pub(super) fn body(&mut self, value: Any<'_>) -> Result<Symbol, DecodeError> {
        Ok(match value {
            Any::Empty => Symbol::EMPTY,
            Any::Str(text) | Any::Json(text) => {
                self.charge(text.len())?;
                if text.is_empty() { Symbol::EMPTY } else { self.columns.symbols.push(text) }
            }
            Any::Bool(v) => self.columns.symbols.intern(if v { "true" } else { "false" }),
            Any::Int(v) => self.columns.symbols.push(&v.to_string()),
            Any::Double(v) => {
                let mut text = String::new();
                super::any_value::write_double(v, &mut text);
                self.columns.symbols.push(&text)
            }
        })
    }

    pub(super) fn log(&mut self, draft: &LogDraft) -> Result<(), DecodeError> {
        let time = [draft.time, draft.observed, self.limits.now.0].into_iter().find(|t| *t != 0);
        let time = UnixNanos(time.unwrap_or_default());
        self.check_time("the time", draft.event_name, time);
        let number = u8::try_from(draft.severity_number).ok().filter(|n| (1..=24).contains(n));
        let attributes = self.record_attributes();
        self.end_record(LogRecord {
            resource: AttributeRange::default(),
            time,
            severity_number: number.or(draft.severity_named).unwrap_or(0),
            body: draft.body,
            event_name: draft.event_name,
            trace_id: draft.trace_id,
            span_id: draft.span_id,
            attributes,
        })?;
        Ok(())
    }

    /// The severity number of a level's name.
    pub(super) fn severity(text: &str) -> Option<u8> {
        SeverityBand::number_of(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_odd_texts_are_shortened_for_messages() {
        assert_eq!(shorten("a\nb"), "a\\nb");
        assert_eq!(shorten(&"ü".repeat(200)).chars().count(), 83);
    }
}
