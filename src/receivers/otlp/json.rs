//! OTLP requests in JSON, read by serde straight into the same columns as protobuf.
//!
//! Rules (OTLP specification, "JSON Protobuf Encoding"): ids are hex, 64-bit integers are numbers or strings, enums are
//! integers only, keys are lowerCamelCase only, unknown keys are ignored, `null` is the default. Keys may come in any
//! order: a resource after its records, a value before its key, points before the name of their metric.

mod read;
mod value;

use std::fmt::Display;

use serde::de::{DeserializeSeed as _, Error as _, MapAccess};

use self::read::{Double, Hex, Int, Many, Object, One, Text, Whole, each, skip};
use self::value::Value;
use super::build::{Builder, Columns, DecodeError, Decoded, Limits, LogDraft, SpanDraft};
use super::points::{Buckets, MetricDraft, PointDraft, Shape, bounded};
use super::protobuf::too_deep;
use crate::model::adjusted_count;
use crate::model::{LogRecords, Points, Spans, Symbol};

/// Columns whose records can be read from JSON.
pub(super) trait Records: Columns {
    /// The keys of a request's resources, a resource's scopes, and a scope's records.
    const KEYS: [&'static str; 3];
    /// What is kept from record to record.
    type Draft: Default;
    /// One key of a span, metric or log record.
    fn field<'de, A: MapAccess<'de>>(
        b: &mut Builder<Self>,
        draft: &mut Self::Draft,
        key: &str,
        map: &mut A,
    ) -> Result<(), A::Error>;
    /// A record begins.
    fn begin(b: &mut Builder<Self>, draft: &mut Self::Draft) -> Result<(), DecodeError>;
    /// A record ends.
    fn end(b: &mut Builder<Self>, draft: &mut Self::Draft) -> Result<(), DecodeError>;
}

/// Reads a whole export request.
pub(super) fn decode<C: Records>(bytes: &[u8], limits: Limits) -> Result<Decoded<C>, DecodeError> {
    let mut level = Level { b: Builder::new(limits), draft: C::Draft::default() };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = One(&mut Request(&mut level)).deserialize(&mut json).and_then(|()| json.end());
    match read {
        Ok(()) => Ok(level.b.finish()),
        // serde's errors only carry text, so the builder is asked what it was.
        Err(e) => Err(level
            .b
            .check_size()
            .err()
            .unwrap_or_else(|| DecodeError::Malformed(format!("the body is not OTLP/JSON: {e}{}", hint(bytes))))),
    }
}

/// What a body that is not JSON probably is.
fn hint(bytes: &[u8]) -> &'static str {
    match bytes.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'<') => " (it looks like HTML or XML)",
        Some(0x0a | 0x1f) => " (it looks like protobuf or compressed data)",
        _ => "",
    }
}

/// What all levels of a request share.
struct Level<C: Records> {
    b: Builder<C>,
    draft: C::Draft,
}

fn custom<E: serde::de::Error>(e: impl Display) -> E {
    E::custom(e)
}

struct Request<'l, C: Records>(&'l mut Level<C>);

impl<C: Records> Object for Request<'_, C> {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key == C::KEYS[0] { map.next_value_seed(Many(&mut Group(self.0))) } else { skip(map) }
    }
}

struct Group<'l, C: Records>(&'l mut Level<C>);

impl<C: Records> Object for Group<'_, C> {
    fn begin<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.0.b.begin_resource();
        Ok(())
    }
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "resource" => map.next_value_seed(One(&mut Resource(self.0))),
            key if key == C::KEYS[1] => map.next_value_seed(Many(&mut Scope(self.0))),
            _ => skip(map),
        }
    }
    fn end<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.0.b.end_resource();
        Ok(())
    }
}

struct Resource<'l, C: Records>(&'l mut Level<C>);

impl<C: Records> Object for Resource<'_, C> {
    fn begin<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.0.b.begin_record();
        Ok(())
    }
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key == "attributes" { attributes(&mut self.0.b, map) } else { skip(map) }
    }
    fn end<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.0.b.resource();
        Ok(())
    }
}

struct Scope<'l, C: Records>(&'l mut Level<C>);

impl<C: Records> Object for Scope<'_, C> {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key == C::KEYS[2] { map.next_value_seed(Many(&mut Record(self.0))) } else { skip(map) }
    }
}

struct Record<'l, C: Records>(&'l mut Level<C>);

impl<C: Records> Object for Record<'_, C> {
    fn begin<E: serde::de::Error>(&mut self) -> Result<(), E> {
        C::begin(&mut self.0.b, &mut self.0.draft).map_err(custom)
    }
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        C::field(&mut self.0.b, &mut self.0.draft, key, map)
    }
    fn end<E: serde::de::Error>(&mut self) -> Result<(), E> {
        C::end(&mut self.0.b, &mut self.0.draft).map_err(custom)
    }
}

fn attributes<'de, C: Columns, A: MapAccess<'de>>(b: &mut Builder<C>, map: &mut A) -> Result<(), A::Error> {
    map.next_value_seed(Many(&mut KeyValue { b, key: Symbol::EMPTY, value: Value::default() }))
}

fn symbol<'de, C: Columns, A: MapAccess<'de>>(b: &mut Builder<C>, map: &mut A) -> Result<Symbol, A::Error> {
    map.next_value_seed(Text(|text: &str| b.intern(text)))?.unwrap_or(Ok(Symbol::EMPTY)).map_err(custom)
}

struct KeyValue<'b, C> {
    b: &'b mut Builder<C>,
    key: Symbol,
    value: Value,
}

impl<C: Columns> Object for KeyValue<'_, C> {
    fn begin<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.key = Symbol::EMPTY;
        self.value.clear();
        Ok(())
    }
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "key" => self.key = symbol(self.b, map)?,
            "value" => map.next_value_seed(One(&mut self.value))?,
            _ => skip(map)?,
        }
        Ok(())
    }
    fn end<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.value.too_deep {
            self.b.fail(too_deep());
        }
        self.b.attribute(self.key, self.value.get()).map_err(custom)
    }
}

impl Records for Spans {
    const KEYS: [&'static str; 3] = ["resourceSpans", "scopeSpans", "spans"];
    type Draft = SpanDraft;

    fn begin(b: &mut Builder<Self>, span: &mut SpanDraft) -> Result<(), DecodeError> {
        b.begin_record();
        *span = SpanDraft::default();
        Ok(())
    }

    fn field<'de, A: MapAccess<'de>>(
        b: &mut Builder<Self>,
        span: &mut SpanDraft,
        key: &str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        match key {
            "traceId" => span.trace_id = map.next_value_seed(Hex("traceId"))?,
            "spanId" => span.span_id = map.next_value_seed(Hex("spanId"))?,
            "parentSpanId" => span.parent_span_id = map.next_value_seed(Hex("parentSpanId"))?,
            "traceState" => span.weight = map.next_value_seed(Text(adjusted_count))?.flatten(),
            "name" => span.name = symbol(b, map)?,
            "kind" => span.kind = int32(map)?,
            "startTimeUnixNano" => span.start = whole(map)?,
            "endTimeUnixNano" => span.end = whole(map)?,
            "attributes" => attributes(b, map)?,
            "status" => map.next_value_seed(One(&mut Status(&mut span.status)))?,
            _ => skip(map)?,
        }
        Ok(())
    }

    fn end(b: &mut Builder<Self>, span: &mut SpanDraft) -> Result<(), DecodeError> {
        b.span(span)
    }
}

struct Status<'s>(&'s mut i32);

impl Object for Status<'_> {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key == "code" {
            *self.0 = int32(map)?;
            return Ok(());
        }
        skip(map)
    }
}

/// A uint64 or fixed64.
fn whole<'de, A: MapAccess<'de>>(map: &mut A) -> Result<u64, A::Error> {
    Ok(map.next_value::<Option<Whole>>()?.unwrap_or_default().0)
}

/// An int32 or enum.
fn int32<'de, A: MapAccess<'de>>(map: &mut A) -> Result<i32, A::Error> {
    let value = map.next_value::<Option<Int>>()?.unwrap_or_default().0;
    i32::try_from(value).map_err(|_| A::Error::custom(format_args!("{value} does not fit into 32 bits")))
}

fn double<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<f64>, A::Error> {
    Ok(map.next_value::<Option<Double>>()?.map(|v| v.0))
}

impl Records for LogRecords {
    const KEYS: [&'static str; 3] = ["resourceLogs", "scopeLogs", "logRecords"];
    type Draft = LogDraft;

    fn begin(b: &mut Builder<Self>, log: &mut LogDraft) -> Result<(), DecodeError> {
        b.begin_record();
        *log = LogDraft::default();
        Ok(())
    }

    fn field<'de, A: MapAccess<'de>>(b: &mut Builder<Self>, log: &mut LogDraft, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "timeUnixNano" => log.time = whole(map)?,
            "observedTimeUnixNano" => log.observed = whole(map)?,
            "severityNumber" => log.severity_number = int32(map)?,
            "severityText" => log.severity_named = map.next_value_seed(Text(Builder::severity))?.flatten(),
            "body" => {
                let mut body = Value::over(std::mem::take(&mut b.scratch));
                map.next_value_seed(One(&mut body))?;
                if body.too_deep {
                    b.fail(too_deep());
                }
                log.body = b.body(body.get()).map_err(custom)?;
                b.scratch = body.into_text();
            }
            "attributes" => attributes(b, map)?,
            "traceId" => log.trace_id = map.next_value_seed(Hex("traceId"))?,
            "spanId" => log.span_id = map.next_value_seed(Hex("spanId"))?,
            "eventName" => log.event_name = symbol(b, map)?,
            _ => skip(map)?,
        }
        Ok(())
    }

    fn end(b: &mut Builder<Self>, log: &mut LogDraft) -> Result<(), DecodeError> {
        b.log(log)
    }
}

impl Records for Points {
    const KEYS: [&'static str; 3] = ["resourceMetrics", "scopeMetrics", "metrics"];
    type Draft = MetricDraft;

    fn begin(b: &mut Builder<Self>, draft: &mut MetricDraft) -> Result<(), DecodeError> {
        b.begin_metric(draft)
    }

    fn field<'de, A: MapAccess<'de>>(
        b: &mut Builder<Self>,
        draft: &mut MetricDraft,
        key: &str,
        map: &mut A,
    ) -> Result<(), A::Error> {
        let shape = match key {
            "name" => {
                draft.name = symbol(b, map)?;
                return Ok(());
            }
            "unit" => {
                draft.unit = symbol(b, map)?;
                return Ok(());
            }
            "gauge" => Shape::Gauge,
            "sum" => Shape::Sum,
            "histogram" => Shape::Histogram,
            "exponentialHistogram" => Shape::Exponential,
            "summary" => Shape::Summary,
            _ => return skip(map),
        };
        draft.data(b, shape);
        map.next_value_seed(One(&mut Data { b, draft, shape }))
    }

    fn end(b: &mut Builder<Self>, draft: &mut MetricDraft) -> Result<(), DecodeError> {
        b.end_metric(draft);
        Ok(())
    }
}

struct Data<'b> {
    b: &'b mut Builder<Points>,
    draft: &'b mut MetricDraft,
    shape: Shape,
}

impl Object for Data<'_> {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "dataPoints" => {
                map.next_value_seed(Many(&mut DataPoint { b: self.b, draft: self.draft, shape: self.shape }))?;
            }
            "aggregationTemporality" => self.draft.temporality = int32(map)?,
            "isMonotonic" => self.draft.monotonic = map.next_value::<Option<bool>>()?.unwrap_or_default(),
            _ => skip(map)?,
        }
        Ok(())
    }
}

struct DataPoint<'b> {
    b: &'b mut Builder<Points>,
    draft: &'b mut MetricDraft,
    shape: Shape,
}

impl Object for DataPoint<'_> {
    fn begin<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.b.begin_point(self.draft);
        Ok(())
    }

    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let point: &mut PointDraft = &mut self.draft.point;
        match (key, self.shape) {
            ("startTimeUnixNano", _) => point.start = whole(map)?,
            ("timeUnixNano", _) => point.time = whole(map)?,
            ("flags", _) => point.flags = whole(map)?,
            ("attributes", _) => attributes(self.b, map)?,
            ("asDouble", Shape::Gauge | Shape::Sum) => point.number = double(map)?.or(point.number),
            ("asInt", Shape::Gauge | Shape::Sum) => {
                point.number = map.next_value::<Option<Int>>()?.map(|v| v.0 as f64).or(point.number);
            }
            ("count", _) => point.count = whole(map)?,
            ("sum", _) => point.sum = double(map)?,
            ("min", _) => point.min = double(map)?,
            ("max", _) => point.max = double(map)?,
            ("bucketCounts", _) => map.next_value_seed(each(|v: Whole| bounded(&mut point.counts, v.0)))?,
            ("explicitBounds", _) => map.next_value_seed(each(|v: Double| bounded(&mut point.bounds, v.0)))?,
            ("scale", _) => point.scale = int32(map)?,
            ("zeroCount", _) => point.zero_count = whole(map)?,
            ("positive", _) => map.next_value_seed(One(&mut point.positive))?,
            ("negative", _) => map.next_value_seed(One(&mut point.negative))?,
            ("quantileValues", _) => map.next_value_seed(Many(&mut Quantile { list: &mut point.quantiles, read: (0.0, 0.0) }))?,
            _ => skip(map)?,
        }
        Ok(())
    }

    fn end<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.b.end_point(self.draft).map_err(custom)
    }
}

impl Object for Buckets {
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "offset" => self.offset = int32(map)?,
            "bucketCounts" => map.next_value_seed(each(|v: Whole| bounded(&mut self.counts, v.0)))?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

struct Quantile<'p> {
    list: &'p mut Vec<(f64, f64)>,
    read: (f64, f64),
}

impl Object for Quantile<'_> {
    fn begin<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.read = (0.0, 0.0);
        Ok(())
    }
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "quantile" => self.read.0 = double(map)?.unwrap_or_default(),
            "value" => self.read.1 = double(map)?.unwrap_or_default(),
            _ => skip(map)?,
        }
        Ok(())
    }
    fn end<E: serde::de::Error>(&mut self) -> Result<(), E> {
        bounded(self.list, self.read);
        Ok(())
    }
}
