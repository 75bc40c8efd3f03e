//! OTLP requests in protobuf: the wire bytes are walked once, straight into columns.
//!
//! Field numbers are those of opentelemetry-proto 1.x (`trace.proto`, `metrics.proto`, `logs.proto`, `common.proto`).
//! What no column holds (events, links, exemplars, scopes) is passed over without being looked into.

use super::any_value::{Any, MAX_DEPTH, write_bytes, write_scalar, write_text};
use super::build::{Builder, Columns, DecodeError, Decoded, Fault, Limits, LogDraft, SpanDraft};
use super::points::{Buckets, MetricDraft, PointDraft, Shape, bounded};
use super::wire::{Field, Reader};
use crate::model::adjusted_count;
use crate::model::{LogRecords, Points, Spans};

/// Columns whose records can be read from protobuf.
pub(super) trait Records: Columns {
    /// What is kept from record to record.
    type Draft: Default;
    /// Reads one span, metric or log record.
    fn record(b: &mut Builder<Self>, draft: &mut Self::Draft, message: Reader<'_>) -> Result<(), DecodeError>;
}

/// Reads a whole export request. The three kinds differ only in what a scope holds.
pub(super) fn decode<C: Records>(bytes: &[u8], limits: Limits) -> Result<Decoded<C>, DecodeError> {
    let mut b = Builder::new(limits);
    let mut draft = C::Draft::default();
    let mut request = Reader::new(bytes);
    while let Some((number, field)) = request.next()? {
        if number == 1 {
            group(&mut b, &mut draft, field.message("resource")?)?;
        }
    }
    Ok(b.finish())
}

fn group<C: Records>(b: &mut Builder<C>, draft: &mut C::Draft, message: Reader<'_>) -> Result<(), DecodeError> {
    b.begin_resource();
    // The resource may come after its records; skipping those costs nothing.
    let mut fields = message;
    while let Some((number, field)) = fields.next()? {
        if number == 1 {
            attributes(b, field.message("resource")?, 1)?;
        }
    }
    b.resource();
    let mut fields = message;
    while let Some((number, field)) = fields.next()? {
        if number == 2 {
            let mut scope = field.message("scope")?;
            while let Some((number, field)) = scope.next()? {
                if number == 2 {
                    C::record(b, draft, field.message("record")?)?;
                }
            }
        }
    }
    b.end_resource();
    Ok(())
}

/// All attributes in field `tag` of a message.
fn attributes<C: Columns>(b: &mut Builder<C>, mut message: Reader<'_>, tag: u32) -> Result<(), DecodeError> {
    while let Some((number, field)) = message.next()? {
        if number == tag {
            attribute(b, field)?;
        }
    }
    Ok(())
}

fn attribute<C: Columns>(b: &mut Builder<C>, field: Field<'_>) -> Result<(), DecodeError> {
    let (key, value) = key_value(field)?;
    let key = b.intern(key)?;
    with_value(b, value, |b, value| b.attribute(key, value))
}

fn key_value<'a>(field: Field<'a>) -> Result<(&'a str, Option<Reader<'a>>), DecodeError> {
    let (mut key, mut value) = ("", None);
    let mut message = field.message("attributes")?;
    while let Some((number, field)) = message.next()? {
        match number {
            1 => key = field.text("KeyValue.key")?,
            2 => value = Some(field.message("KeyValue.value")?),
            _ => {}
        }
    }
    Ok((key, value))
}

/// Reads an `AnyValue` and hands it on; nested ones are written to the builder's scratch.
fn with_value<C: Columns, T>(
    b: &mut Builder<C>,
    message: Option<Reader<'_>>,
    take: impl FnOnce(&mut Builder<C>, Any<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let Some(message) = message else { return take(b, Any::Empty) };
    let mut scratch = std::mem::take(&mut b.scratch);
    scratch.clear();
    let value = any_value(message)?;
    let value = match value {
        AnyValue::Scalar(value) => value,
        nested => {
            if !write_any(nested, &mut scratch, 1)? {
                b.fail(too_deep());
            }
            Any::Json(&scratch)
        }
    };
    let taken = take(b, value);
    b.scratch = scratch;
    taken
}

/// The fault of a record with a value of more than [`MAX_DEPTH`] levels.
pub(super) fn too_deep() -> Fault {
    Fault::new("value_too_deep", format!("a value has arrays or maps of more than {MAX_DEPTH} levels"))
}

#[derive(Clone, Copy)]
enum AnyValue<'a> {
    Scalar(Any<'a>),
    Array(Reader<'a>),
    Map(Reader<'a>),
    Bytes(&'a [u8]),
}

fn any_value(mut message: Reader<'_>) -> Result<AnyValue<'_>, DecodeError> {
    let mut value = AnyValue::Scalar(Any::Empty);
    while let Some((number, field)) = message.next()? {
        value = match number {
            1 => AnyValue::Scalar(Any::Str(field.text("AnyValue.string_value")?)),
            2 => AnyValue::Scalar(Any::Bool(field.varint("AnyValue.bool_value")? != 0)),
            3 => AnyValue::Scalar(Any::Int(field.varint("AnyValue.int_value")?.cast_signed())),
            4 => AnyValue::Scalar(Any::Double(field.double("AnyValue.double_value")?)),
            5 => AnyValue::Array(field.message("AnyValue.array_value")?),
            6 => AnyValue::Map(field.message("AnyValue.kvlist_value")?),
            7 => AnyValue::Bytes(field.bytes("AnyValue.bytes_value")?),
            _ => value,
        };
    }
    Ok(value)
}

/// Writes a value as JSON; `false` where it was too deep and `null` stands in its place.
fn write_any(value: AnyValue<'_>, out: &mut String, depth: u32) -> Result<bool, DecodeError> {
    let mut whole = true;
    match value {
        AnyValue::Scalar(value) => write_scalar(value, out),
        AnyValue::Bytes(bytes) => write_bytes(bytes, out),
        AnyValue::Array(_) | AnyValue::Map(_) if depth > MAX_DEPTH => {
            out.push_str("null");
            return Ok(false);
        }
        AnyValue::Array(mut items) => {
            out.push('[');
            let mut first = true;
            while let Some((number, field)) = items.next()? {
                if number == 1 {
                    separate(&mut first, out);
                    whole &= write_any(any_value(field.message("ArrayValue.values")?)?, out, depth + 1)?;
                }
            }
            out.push(']');
        }
        AnyValue::Map(mut items) => {
            out.push('{');
            let mut first = true;
            while let Some((number, field)) = items.next()? {
                if number == 1 {
                    separate(&mut first, out);
                    let (key, value) = key_value(field)?;
                    write_text(key, out);
                    out.push(':');
                    let value = value.map_or(Ok(AnyValue::Scalar(Any::Empty)), any_value)?;
                    whole &= write_any(value, out, depth + 1)?;
                }
            }
            out.push('}');
        }
    }
    Ok(whole)
}

fn separate(first: &mut bool, out: &mut String) {
    if !std::mem::take(first) {
        out.push(',');
    }
}

impl Records for Spans {
    type Draft = ();

    fn record(b: &mut Builder<Self>, (): &mut (), mut message: Reader<'_>) -> Result<(), DecodeError> {
        b.begin_record();
        let mut span = SpanDraft::default();
        while let Some((number, field)) = message.next()? {
            match number {
                1 => span.trace_id = field.id("Span.trace_id")?,
                2 => span.span_id = field.id("Span.span_id")?,
                3 => span.weight = adjusted_count(field.text("Span.trace_state")?),
                4 => span.parent_span_id = field.id("Span.parent_span_id")?,
                5 => span.name = b.intern(field.text("Span.name")?)?,
                6 => span.kind = field.int32("Span.kind")?,
                7 => span.start = field.fixed64("Span.start_time_unix_nano")?,
                8 => span.end = field.fixed64("Span.end_time_unix_nano")?,
                9 => attribute(b, field)?,
                15 => {
                    let mut status = field.message("Span.status")?;
                    while let Some((number, field)) = status.next()? {
                        if number == 3 {
                            span.status = field.int32("Status.code")?;
                        }
                    }
                }
                _ => {}
            }
        }
        b.span(&span)
    }
}

impl Records for LogRecords {
    type Draft = ();

    fn record(b: &mut Builder<Self>, (): &mut (), mut message: Reader<'_>) -> Result<(), DecodeError> {
        b.begin_record();
        let mut log = LogDraft::default();
        while let Some((number, field)) = message.next()? {
            match number {
                1 => log.time = field.fixed64("LogRecord.time_unix_nano")?,
                2 => log.severity_number = field.int32("LogRecord.severity_number")?,
                3 => log.severity_named = Builder::severity(field.text("LogRecord.severity_text")?),
                5 => {
                    let body = field.message("LogRecord.body")?;
                    log.body = with_value(b, Some(body), Builder::body)?;
                }
                6 => attribute(b, field)?,
                9 => log.trace_id = field.id("LogRecord.trace_id")?,
                10 => log.span_id = field.id("LogRecord.span_id")?,
                11 => log.observed = field.fixed64("LogRecord.observed_time_unix_nano")?,
                12 => log.event_name = b.intern(field.text("LogRecord.event_name")?)?,
                _ => {}
            }
        }
        b.log(&log)
    }
}

impl Records for Points {
    type Draft = MetricDraft;

    fn record(b: &mut Builder<Self>, draft: &mut MetricDraft, mut message: Reader<'_>) -> Result<(), DecodeError> {
        b.begin_metric(draft)?;
        while let Some((number, field)) = message.next()? {
            let shape = match number {
                1 => {
                    draft.name = b.intern(field.text("Metric.name")?)?;
                    continue;
                }
                3 => {
                    draft.unit = b.intern(field.text("Metric.unit")?)?;
                    continue;
                }
                5 => Shape::Gauge,
                7 => Shape::Sum,
                9 => Shape::Histogram,
                10 => Shape::Exponential,
                11 => Shape::Summary,
                _ => continue,
            };
            draft.data(b, shape);
            let mut data = field.message("Metric.data")?;
            while let Some((number, field)) = data.next()? {
                match number {
                    1 => {
                        b.begin_point(draft);
                        point(b, &mut draft.point, shape, field.message("data_points")?)?;
                        b.end_point(draft)?;
                    }
                    2 => draft.temporality = field.int32("aggregation_temporality")?,
                    3 => draft.monotonic = field.varint("is_monotonic")? != 0,
                    _ => {}
                }
            }
        }
        b.end_metric(draft);
        Ok(())
    }
}

fn point(b: &mut Builder<Points>, point: &mut PointDraft, shape: Shape, mut message: Reader<'_>) -> Result<(), DecodeError> {
    while let Some((number, field)) = message.next()? {
        match (number, shape) {
            (2, _) => point.start = field.fixed64("start_time_unix_nano")?,
            (3, _) => point.time = field.fixed64("time_unix_nano")?,
            (4, Shape::Gauge | Shape::Sum) => point.number = Some(field.double("NumberDataPoint.as_double")?),
            (6, Shape::Gauge | Shape::Sum) => {
                point.number = Some(field.fixed64("NumberDataPoint.as_int")?.cast_signed() as f64);
            }
            (7, Shape::Gauge | Shape::Sum | Shape::Summary) | (9, Shape::Histogram) | (1, Shape::Exponential) => {
                attribute(b, field)?;
            }
            (8, Shape::Gauge | Shape::Sum | Shape::Summary) | (10, Shape::Histogram | Shape::Exponential) => {
                point.flags = field.varint("flags")?;
            }
            (4, _) => point.count = field.fixed64("count")?,
            (5, Shape::Histogram | Shape::Exponential | Shape::Summary) => point.sum = Some(field.double("sum")?),
            (6, Shape::Histogram) => field.each_fixed64("HistogramDataPoint.bucket_counts", |v| {
                bounded(&mut point.counts, v);
                Ok(())
            })?,
            (7, Shape::Histogram) => field.each_fixed64("HistogramDataPoint.explicit_bounds", |v| {
                bounded(&mut point.bounds, f64::from_bits(v));
                Ok(())
            })?,
            (11, Shape::Histogram) => point.min = Some(field.double("min")?),
            (12, Shape::Histogram) => point.max = Some(field.double("max")?),
            (6, Shape::Exponential) => point.scale = field.sint32("ExponentialHistogramDataPoint.scale")?,
            (7, Shape::Exponential) => point.zero_count = field.fixed64("ExponentialHistogramDataPoint.zero_count")?,
            (8, Shape::Exponential) => buckets(&mut point.positive, field.message("positive")?)?,
            (9, Shape::Exponential) => buckets(&mut point.negative, field.message("negative")?)?,
            (6, Shape::Summary) => {
                let (mut quantile, mut value) = (0.0, 0.0);
                let mut message = field.message("quantile_values")?;
                while let Some((number, field)) = message.next()? {
                    match number {
                        1 => quantile = field.double("ValueAtQuantile.quantile")?,
                        2 => value = field.double("ValueAtQuantile.value")?,
                        _ => {}
                    }
                }
                bounded(&mut point.quantiles, (quantile, value));
            }
            _ => {}
        }
    }
    Ok(())
}

fn buckets(buckets: &mut Buckets, mut message: Reader<'_>) -> Result<(), DecodeError> {
    while let Some((number, field)) = message.next()? {
        match number {
            1 => buckets.offset = field.sint32("Buckets.offset")?,
            2 => field.each_varint("Buckets.bucket_counts", |v| {
                bounded(&mut buckets.counts, v);
                Ok(())
            })?,
            _ => {}
        }
    }
    Ok(())
}
