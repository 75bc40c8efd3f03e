//! OTLP requests as other exporters write them in JSON: 64-bit integers as strings, ids in hex.

use anomalyd::model::Signal;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, Metric, NumberDataPoint, SummaryDataPoint,
    exponential_histogram_data_point::Buckets, metric::Data, number_data_point::Value as Number,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};

/// The request in `body` written again in protobuf, and in JSON; nothing where prost does not take it.
pub(crate) fn of(signal: Signal, body: &[u8]) -> Option<(Vec<u8>, Value)> {
    fn both<M: Message + Default>(body: &[u8], json: impl FnOnce(&M) -> Value) -> Option<(Vec<u8>, Value)> {
        let message = M::decode(body).ok()?;
        Some((message.encode_to_vec(), json(&message)))
    }
    match signal {
        Signal::Traces => both(body, traces),
        Signal::Metrics => both(body, metrics),
        Signal::Logs => both(body, logs),
    }
}

fn list<T>(items: &[T], one: impl Fn(&T) -> Value) -> Value {
    items.iter().map(one).collect()
}

fn whole(value: impl std::fmt::Display) -> Value {
    Value::String(value.to_string())
}

fn double(value: f64) -> Value {
    match value {
        v if v.is_finite() => json!(v),
        v if v.is_nan() => json!("NaN"),
        v => json!(if v > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}

fn hex(id: &[u8]) -> Value {
    Value::String(data_encoding::HEXLOWER.encode(id))
}

fn any(value: &AnyValue) -> Value {
    match &value.value {
        None | Some(Any::StringValueStrindex(_)) => json!({}),
        Some(Any::StringValue(v)) => json!({ "stringValue": v }),
        Some(Any::BoolValue(v)) => json!({ "boolValue": v }),
        Some(Any::IntValue(v)) => json!({ "intValue": whole(v) }),
        Some(Any::DoubleValue(v)) => json!({ "doubleValue": double(*v) }),
        Some(Any::BytesValue(v)) => json!({ "bytesValue": data_encoding::BASE64.encode(v) }),
        Some(Any::ArrayValue(v)) => json!({ "arrayValue": { "values": list(&v.values, any) } }),
        Some(Any::KvlistValue(v)) => json!({ "kvlistValue": { "values": attributes(&v.values) } }),
    }
}

fn attributes(attributes: &[KeyValue]) -> Value {
    list(attributes, |kv| match &kv.value {
        Some(value) => json!({ "key": kv.key, "value": any(value) }),
        None => json!({ "key": kv.key }),
    })
}

fn resource(resource: Option<&Resource>) -> Value {
    resource.map_or(Value::Null, |r| json!({ "attributes": attributes(&r.attributes) }))
}

fn traces(request: &ExportTraceServiceRequest) -> Value {
    let span = |s: &Span| {
        json!({
            "traceId": hex(&s.trace_id), "spanId": hex(&s.span_id), "parentSpanId": hex(&s.parent_span_id),
            "traceState": s.trace_state, "name": s.name, "kind": s.kind, "attributes": attributes(&s.attributes),
            "startTimeUnixNano": whole(s.start_time_unix_nano), "endTimeUnixNano": whole(s.end_time_unix_nano),
            "status": s.status.as_ref().map(|s| json!({ "code": s.code, "message": s.message })),
        })
    };
    let groups = list(&request.resource_spans, |g| {
        let scopes = list(&g.scope_spans, |s| json!({ "spans": list(&s.spans, span) }));
        json!({ "resource": resource(g.resource.as_ref()), "scopeSpans": scopes })
    });
    json!({ "resourceSpans": groups })
}

fn logs(request: &ExportLogsServiceRequest) -> Value {
    let log = |l: &LogRecord| {
        json!({
            "timeUnixNano": whole(l.time_unix_nano), "observedTimeUnixNano": whole(l.observed_time_unix_nano),
            "severityNumber": l.severity_number, "severityText": l.severity_text, "body": l.body.as_ref().map(any),
            "attributes": attributes(&l.attributes), "traceId": hex(&l.trace_id), "spanId": hex(&l.span_id),
            "eventName": l.event_name, "flags": l.flags,
        })
    };
    let groups = list(&request.resource_logs, |g| {
        let scopes = list(&g.scope_logs, |s| json!({ "logRecords": list(&s.log_records, log) }));
        json!({ "resource": resource(g.resource.as_ref()), "scopeLogs": scopes })
    });
    json!({ "resourceLogs": groups })
}

fn number(p: &NumberDataPoint) -> Value {
    let mut point = json!({
        "attributes": attributes(&p.attributes), "startTimeUnixNano": whole(p.start_time_unix_nano),
        "timeUnixNano": whole(p.time_unix_nano), "flags": p.flags,
    });
    let value = match p.value {
        Some(Number::AsDouble(v)) => Some(("asDouble", double(v))),
        Some(Number::AsInt(v)) => Some(("asInt", whole(v))),
        None => None,
    };
    if let (Some((key, value)), Some(point)) = (value, point.as_object_mut()) {
        point.insert(key.to_owned(), value);
    }
    point
}

fn histogram(p: &HistogramDataPoint) -> Value {
    json!({
        "attributes": attributes(&p.attributes), "startTimeUnixNano": whole(p.start_time_unix_nano),
        "timeUnixNano": whole(p.time_unix_nano), "flags": p.flags, "count": whole(p.count), "sum": p.sum.map(double),
        "bucketCounts": list(&p.bucket_counts, |v| whole(*v)), "explicitBounds": list(&p.explicit_bounds, |v| double(*v)),
        "min": p.min.map(double), "max": p.max.map(double),
    })
}

fn exponential(p: &ExponentialHistogramDataPoint) -> Value {
    let buckets = |b: &Buckets| json!({ "offset": b.offset, "bucketCounts": list(&b.bucket_counts, |v| whole(*v)) });
    json!({
        "attributes": attributes(&p.attributes), "startTimeUnixNano": whole(p.start_time_unix_nano),
        "timeUnixNano": whole(p.time_unix_nano), "flags": p.flags, "count": whole(p.count), "sum": p.sum.map(double),
        "scale": p.scale, "zeroCount": whole(p.zero_count), "zeroThreshold": double(p.zero_threshold),
        "positive": p.positive.as_ref().map(buckets), "negative": p.negative.as_ref().map(buckets),
        "min": p.min.map(double), "max": p.max.map(double),
    })
}

fn summary(p: &SummaryDataPoint) -> Value {
    json!({
        "attributes": attributes(&p.attributes), "startTimeUnixNano": whole(p.start_time_unix_nano),
        "timeUnixNano": whole(p.time_unix_nano), "flags": p.flags, "count": whole(p.count), "sum": double(p.sum),
        "quantileValues": list(&p.quantile_values, |q| json!({ "quantile": double(q.quantile), "value": double(q.value) })),
    })
}

fn metrics(request: &ExportMetricsServiceRequest) -> Value {
    let metric = |m: &Metric| {
        let mut metric = json!({ "name": m.name, "unit": m.unit, "description": m.description });
        let data = m.data.as_ref().map(|data| match data {
            Data::Gauge(d) => ("gauge", json!({ "dataPoints": list(&d.data_points, number) })),
            Data::Sum(d) => {
                let (temporality, monotonic) = (d.aggregation_temporality, d.is_monotonic);
                let points = list(&d.data_points, number);
                ("sum", json!({ "dataPoints": points, "aggregationTemporality": temporality, "isMonotonic": monotonic }))
            }
            Data::Histogram(d) => {
                let (temporality, points) = (d.aggregation_temporality, list(&d.data_points, histogram));
                ("histogram", json!({ "dataPoints": points, "aggregationTemporality": temporality }))
            }
            Data::ExponentialHistogram(d) => {
                let (temporality, points) = (d.aggregation_temporality, list(&d.data_points, exponential));
                ("exponentialHistogram", json!({ "dataPoints": points, "aggregationTemporality": temporality }))
            }
            Data::Summary(d) => ("summary", json!({ "dataPoints": list(&d.data_points, summary) })),
        });
        if let (Some((key, data)), Some(metric)) = (data, metric.as_object_mut()) {
            metric.insert(key.to_owned(), data);
        }
        metric
    };
    let groups = list(&request.resource_metrics, |g| {
        let scopes = list(&g.scope_metrics, |s| json!({ "metrics": list(&s.metrics, metric) }));
        json!({ "resource": resource(g.resource.as_ref()), "scopeMetrics": scopes })
    });
    json!({ "resourceMetrics": groups })
}
