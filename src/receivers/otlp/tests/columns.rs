//! Bytes to columns.

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exponential_histogram_data_point::Buckets, metric::Data,
    number_data_point::Value as Number, summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use proptest::prelude::*;
use prost::Message as _;

use super::super::{DecodeError, Format, Limits, decode};
use super::support::{LIMITS, NOW, logs_json, metrics_json, pair, resource, rows, span, text, traces_json, traces_of};
use crate::model::Signal;

fn read(signal: Signal, format: Format, body: &[u8]) -> Result<(Vec<String>, u64), DecodeError> {
    decode(signal, format, body, LIMITS).map(|(batch, rejected)| (rows(&batch), rejected))
}

// --- A plain reading of prost's objects: slow and obvious ---

fn plain_json(value: &AnyValue) -> String {
    match &value.value {
        None | Some(Any::StringValueStrindex(_)) => "null".to_owned(),
        Some(Any::StringValue(v)) => serde_json::to_string(v).unwrap(),
        Some(Any::BoolValue(v)) => v.to_string(),
        Some(Any::IntValue(v)) => v.to_string(),
        Some(Any::DoubleValue(v)) if v.is_nan() => "\"NaN\"".to_owned(),
        Some(Any::DoubleValue(v)) if *v == f64::INFINITY => "\"Infinity\"".to_owned(),
        Some(Any::DoubleValue(v)) if *v == f64::NEG_INFINITY => "\"-Infinity\"".to_owned(),
        Some(Any::DoubleValue(v)) => format!("{v:?}"),
        Some(Any::BytesValue(v)) => format!("\"{}\"", data_encoding::BASE64.encode(v)),
        Some(Any::ArrayValue(v)) => format!("[{}]", v.values.iter().map(plain_json).collect::<Vec<_>>().join(",")),
        Some(Any::KvlistValue(v)) => {
            let one = |kv: &KeyValue| {
                let value = kv.value.as_ref().map_or("null".to_owned(), plain_json);
                format!("{}:{value}", serde_json::to_string(&kv.key).unwrap())
            };
            format!("{{{}}}", v.values.iter().map(one).collect::<Vec<_>>().join(","))
        }
    }
}

fn plain_attributes(attributes: &[KeyValue]) -> String {
    let one = |kv: &KeyValue| {
        let value = match kv.value.as_ref().and_then(|v| v.value.as_ref()) {
            None | Some(Any::StringValueStrindex(_)) => "\"\"".to_owned(),
            Some(Any::StringValue(v)) => format!("{v:?}"),
            Some(Any::BoolValue(v)) => v.to_string(),
            Some(Any::IntValue(v)) => v.to_string(),
            Some(Any::DoubleValue(v)) => format!("{v:?}"),
            Some(_) => format!("json {}", plain_json(kv.value.as_ref().unwrap())),
        };
        format!("{:?}={value}", kv.key)
    };
    attributes.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn id<const N: usize>(bytes: &[u8]) -> [u8; N] {
    if bytes.is_empty() { [0; N] } else { bytes.try_into().unwrap() }
}

fn good_time(time: u64) -> bool {
    (946_684_800_000_000_000..=NOW + LIMITS.max_future).contains(&time)
}

fn plain_traces(request: &ExportTraceServiceRequest) -> Vec<String> {
    let mut rows = Vec::new();
    for group in &request.resource_spans {
        let resource = group.resource.as_ref().map(|r| plain_attributes(&r.attributes)).unwrap_or_default();
        for s in group.scope_spans.iter().flat_map(|s| &s.spans) {
            let (start, end) = (s.start_time_unix_nano, s.end_time_unix_nano);
            if !good_time(start) || end > start && !good_time(end) {
                continue;
            }
            let kind = ["Unspecified", "Internal", "Server", "Client", "Producer", "Consumer"]
                [usize::try_from(s.kind).ok().filter(|k| *k <= 5).unwrap_or(0)];
            let status = ["Unset", "Ok", "Error"]
                [s.status.as_ref().and_then(|s| usize::try_from(s.code).ok()).filter(|c| *c <= 2).unwrap_or(0)];
            let ids = (id::<16>(&s.trace_id), id::<8>(&s.span_id), id::<8>(&s.parent_span_id));
            rows.push(format!(
                "[{resource}] {:?} {kind} {status} {start} +{} x1 {ids:?} [{}]",
                s.name,
                end.saturating_sub(start),
                plain_attributes(&s.attributes)
            ));
        }
    }
    rows
}

fn plain_logs(request: &ExportLogsServiceRequest) -> Vec<String> {
    let mut rows = Vec::new();
    for group in &request.resource_logs {
        let resource = group.resource.as_ref().map(|r| plain_attributes(&r.attributes)).unwrap_or_default();
        for l in group.scope_logs.iter().flat_map(|s| &s.log_records) {
            let time = [l.time_unix_nano, l.observed_time_unix_nano, NOW].into_iter().find(|t| *t != 0).unwrap();
            if !good_time(time) {
                continue;
            }
            let severity = match (l.severity_number, l.severity_text.as_str()) {
                (1..=24, _) => l.severity_number,
                (_, "WARN") => 13,
                (_, "error") => 17,
                _ => 0,
            };
            let body = match l.body.as_ref() {
                None | Some(AnyValue { value: None }) => String::new(),
                Some(AnyValue { value: Some(Any::StringValue(v)) }) => v.clone(),
                Some(other) => plain_json(other),
            };
            let ids = (id::<16>(&l.trace_id), id::<8>(&l.span_id));
            rows.push(format!(
                "[{resource}] {time} {severity} {body:?} {:?} {ids:?} [{}]",
                l.event_name,
                plain_attributes(&l.attributes)
            ));
        }
    }
    rows
}

/// Gauges and sums only; histograms have tests of their own beside their rules.
fn plain_numbers(request: &ExportMetricsServiceRequest) -> Vec<String> {
    let mut rows = Vec::new();
    for group in &request.resource_metrics {
        let resource = group.resource.as_ref().map(|r| plain_attributes(&r.attributes)).unwrap_or_default();
        for m in group.scope_metrics.iter().flat_map(|s| &s.metrics) {
            let (points, kind) = match &m.data {
                Some(Data::Gauge(d)) => (&d.data_points, "Gauge".to_owned()),
                Some(Data::Sum(d)) => {
                    let temporality = match d.aggregation_temporality {
                        1 => "Delta",
                        2 => "Cumulative",
                        _ => continue,
                    };
                    (&d.data_points, format!("Sum {{ temporality: {temporality}, monotonic: {} }}", d.is_monotonic))
                }
                _ => continue,
            };
            for p in points {
                let value = match p.value {
                    Some(Number::AsInt(v)) => v as f64,
                    Some(Number::AsDouble(v)) if v.is_finite() => v,
                    _ => continue,
                };
                if p.flags & 1 == 1 || !good_time(p.time_unix_nano) {
                    continue;
                }
                rows.push(format!(
                    "[{resource}] {:?} {:?} {kind} {} from {} {value:?} [{}]",
                    m.name,
                    m.unit,
                    p.time_unix_nano,
                    p.start_time_unix_nano,
                    plain_attributes(&p.attributes)
                ));
            }
        }
    }
    rows
}

// --- Random requests ---

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        Just(None),
        any::<String>().prop_map(|v| Some(Any::StringValue(v))),
        any::<bool>().prop_map(|v| Some(Any::BoolValue(v))),
        any::<i64>().prop_map(|v| Some(Any::IntValue(v))),
        any::<f64>().prop_map(|v| Some(Any::DoubleValue(v))),
        Just(Some(Any::DoubleValue(f64::NAN))),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|v| Some(Any::BytesValue(v))),
    ]
    .prop_map(|value| AnyValue { value });
    leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|values| AnyValue { value: Some(Any::ArrayValue(ArrayValue { values })) }),
            prop::collection::vec((any::<String>(), inner), 0..3).prop_map(|values| {
                let values = values.into_iter().map(|(key, value)| pair(&key, value)).collect();
                AnyValue { value: Some(Any::KvlistValue(KeyValueList { values })) }
            }),
        ]
    })
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    let key = prop_oneof![Just("service.name".to_owned()), "[a-z.]{0,6}", any::<String>()];
    let one = (key, prop::option::of(any_value())).prop_map(|(key, value)| KeyValue { key, value, ..KeyValue::default() });
    prop::collection::vec(one, 0..4)
}

fn some_resource() -> impl Strategy<Value = Option<Resource>> {
    prop::option::of(attributes().prop_map(|attributes| Resource { attributes, ..Resource::default() }))
}

fn time() -> impl Strategy<Value = u64> {
    prop_oneof![4 => Just(NOW - 1_000_000), 2 => NOW - 1_000_000_000..NOW, 1 => Just(0), 1 => any::<u64>(), 1 => Just(86_400)]
}

fn bytes_or_none(n: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), prop::collection::vec(any::<u8>(), n)]
}

prop_compose! {
    fn some_span()(
        name in any::<String>(), kind in -1i32..8, start in time(), end in time(), code in prop::option::of(-1i32..4),
        trace_id in bytes_or_none(16), span_id in bytes_or_none(8), parent_span_id in bytes_or_none(8), attributes in attributes(),
    ) -> Span {
        Span {
            name, kind, trace_id, span_id, parent_span_id, attributes, start_time_unix_nano: start, end_time_unix_nano: end,
            status: code.map(|code| Status { code, message: "m".to_owned() }),
            trace_state: "a=b".to_owned(), flags: 1, dropped_links_count: 3, ..Span::default()
        }
    }
}

prop_compose! {
    fn some_log()(
        time_unix_nano in time(), observed_time_unix_nano in time(), severity_number in -1i32..27, body in prop::option::of(any_value()),
        severity_text in prop_oneof![Just("WARN"), Just("error"), Just("?"), Just("")], event_name in any::<String>(),
        trace_id in bytes_or_none(16), span_id in bytes_or_none(8), attributes in attributes(),
    ) -> LogRecord {
        LogRecord {
            time_unix_nano, observed_time_unix_nano, severity_number, body, event_name, trace_id, span_id, attributes,
            severity_text: severity_text.to_owned(), flags: 1, ..LogRecord::default()
        }
    }
}

prop_compose! {
    fn some_number()(
        time_unix_nano in time(), start_time_unix_nano in any::<u64>(), flags in 0u32..3, attributes in attributes(),
        value in prop::option::of(prop_oneof![
            any::<i64>().prop_map(Number::AsInt), any::<f64>().prop_map(Number::AsDouble), Just(Number::AsDouble(f64::INFINITY)),
        ]),
    ) -> NumberDataPoint {
        NumberDataPoint { time_unix_nano, start_time_unix_nano, flags, attributes, value, ..NumberDataPoint::default() }
    }
}

prop_compose! {
    fn some_histogram()(
        time_unix_nano in time(), counts in prop::collection::vec(0u64..9, 0..6), sum in prop::option::of(any::<f64>()),
        min in prop::option::of(-9f64..9.0), max in prop::option::of(0f64..99.0), right in any::<bool>(), attributes in attributes(),
    ) -> HistogramDataPoint {
        let explicit_bounds = (1..counts.len() + usize::from(!right)).map(|b| b as f64).collect();
        HistogramDataPoint {
            time_unix_nano, count: counts.iter().sum(), bucket_counts: counts, explicit_bounds, sum, min, max, attributes,
            ..HistogramDataPoint::default()
        }
    }
}

prop_compose! {
    fn some_exponential()(
        time_unix_nano in time(), scale in -3i32..20, zero_count in 0u64..3, attributes in attributes(),
        positive in prop::collection::vec(0u64..300, 0..6), negative in prop::collection::vec(0u64..3, 0..6), offset in -40i32..40,
    ) -> ExponentialHistogramDataPoint {
        let count = zero_count + positive.iter().sum::<u64>() + negative.iter().sum::<u64>();
        ExponentialHistogramDataPoint {
            time_unix_nano, scale, zero_count, count, attributes,
            positive: Some(Buckets { offset, bucket_counts: positive }), negative: Some(Buckets { offset, bucket_counts: negative }),
            ..ExponentialHistogramDataPoint::default()
        }
    }
}

prop_compose! {
    fn some_summary()(
        time_unix_nano in time(), count in 0u64..99, sum in any::<f64>(), values in prop::collection::vec((0f64..1.1, 0f64..9.0), 0..4),
    ) -> SummaryDataPoint {
        let quantile_values = values.into_iter().map(|(quantile, value)| ValueAtQuantile { quantile, value }).collect();
        SummaryDataPoint { time_unix_nano, count, sum, quantile_values, ..SummaryDataPoint::default() }
    }
}

fn some_data() -> impl Strategy<Value = Data> {
    let numbers = || prop::collection::vec(some_number(), 0..4);
    prop_oneof![
        numbers().prop_map(|data_points| Data::Gauge(Gauge { data_points })),
        (numbers(), 0i32..4, any::<bool>()).prop_map(|(data_points, aggregation_temporality, is_monotonic)| {
            Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
        }),
        (prop::collection::vec(some_histogram(), 0..4), 0i32..3).prop_map(|(data_points, aggregation_temporality)| {
            Data::Histogram(Histogram { data_points, aggregation_temporality })
        }),
        (prop::collection::vec(some_exponential(), 0..4), 0i32..3).prop_map(|(data_points, aggregation_temporality)| {
            Data::ExponentialHistogram(ExponentialHistogram { data_points, aggregation_temporality })
        }),
        prop::collection::vec(some_summary(), 0..4).prop_map(|data_points| Data::Summary(Summary { data_points })),
    ]
}

fn some_metrics() -> impl Strategy<Value = ExportMetricsServiceRequest> {
    let metric = (any::<String>(), "[a-z]{0,3}", prop::option::of(some_data())).prop_map(|(name, unit, data)| Metric {
        name,
        unit,
        data,
        ..Metric::default()
    });
    let group = (some_resource(), prop::collection::vec(metric, 0..4)).prop_map(|(resource, metrics)| ResourceMetrics {
        resource,
        scope_metrics: vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }],
        ..ResourceMetrics::default()
    });
    prop::collection::vec(group, 0..3).prop_map(|resource_metrics| ExportMetricsServiceRequest { resource_metrics })
}

fn some_traces() -> impl Strategy<Value = ExportTraceServiceRequest> {
    let scope = prop::collection::vec(some_span(), 0..4).prop_map(|spans| ScopeSpans { spans, ..ScopeSpans::default() });
    let group = (some_resource(), prop::collection::vec(scope, 0..3)).prop_map(|(resource, scope_spans)| ResourceSpans {
        resource,
        scope_spans,
        ..ResourceSpans::default()
    });
    prop::collection::vec(group, 0..3).prop_map(|resource_spans| ExportTraceServiceRequest { resource_spans })
}

fn some_logs() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope = prop::collection::vec(some_log(), 0..4).prop_map(|log_records| ScopeLogs { log_records, ..ScopeLogs::default() });
    let group = (some_resource(), prop::collection::vec(scope, 0..3)).prop_map(|(resource, scope_logs)| ResourceLogs {
        resource,
        scope_logs,
        ..ResourceLogs::default()
    });
    prop::collection::vec(group, 0..3).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn both(signal: Signal, protobuf: &[u8], json: &serde_json::Value) -> (Vec<String>, u64) {
    let protobuf = read(signal, Format::Protobuf, protobuf).unwrap();
    let json = read(signal, Format::Json, json.to_string().as_bytes()).unwrap();
    assert_eq!(protobuf, json, "the two encodings must give the same rows");
    protobuf
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_are_columns_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for signal in Signal::ALL {
            for format in [Format::Protobuf, Format::Json] {
                let _ = read(signal, format, &bytes);
            }
        }
    }

    #[test]
    fn a_request_that_is_broken_anywhere_is_columns_or_an_error(request in some_metrics(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = request.encode_to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = read(Signal::Metrics, Format::Protobuf, &bytes);
            let _ = read(Signal::Metrics, Format::Protobuf, &bytes[..at]);
            let _ = read(Signal::Traces, Format::Protobuf, &bytes);
            let mut json = metrics_json(&request).to_string().into_bytes();
            json[at] = byte;
            let _ = read(Signal::Metrics, Format::Json, &json);
        }
    }

    #[test]
    fn traces_read_as_a_plain_reading_does(request in some_traces()) {
        let (rows, rejected) = both(Signal::Traces, &request.encode_to_vec(), &traces_json(&request));
        let all: usize = request.resource_spans.iter().flat_map(|g| &g.scope_spans).map(|s| s.spans.len()).sum();
        prop_assert_eq!(rows.len() as u64 + rejected, all as u64);
        prop_assert_eq!(rows, plain_traces(&request));
    }

    #[test]
    fn logs_read_as_a_plain_reading_does(request in some_logs()) {
        let (rows, _) = both(Signal::Logs, &request.encode_to_vec(), &logs_json(&request));
        prop_assert_eq!(rows, plain_logs(&request));
    }

    #[test]
    fn metrics_read_as_a_plain_reading_does(request in some_metrics()) {
        both(Signal::Metrics, &request.encode_to_vec(), &metrics_json(&request));
        // What histograms and summaries become has tests of its own.
        let mut numbers = request;
        for metric in numbers.resource_metrics.iter_mut().flat_map(|g| &mut g.scope_metrics).flat_map(|s| &mut s.metrics) {
            metric.data = metric.data.take().filter(|d| matches!(d, Data::Gauge(_) | Data::Sum(_)));
        }
        let (rows, _) = both(Signal::Metrics, &numbers.encode_to_vec(), &metrics_json(&numbers));
        prop_assert_eq!(rows, plain_numbers(&numbers));
    }
}

fn one_metric(name: &str, data: Data) -> ExportMetricsServiceRequest {
    let metrics = vec![Metric { name: name.to_owned(), unit: "s".to_owned(), data: Some(data), ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let resource = resource(&[("service.name", "checkout")]);
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
    }
}

#[test]
fn every_kind_of_metric_becomes_points() {
    let histogram = HistogramDataPoint {
        time_unix_nano: NOW,
        start_time_unix_nano: NOW - 60_000_000_000,
        count: 6,
        sum: Some(12.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![1.0, 4.0],
        min: Some(0.5),
        max: Some(9.0),
        attributes: vec![pair("http.route", text("/pay"))],
        ..HistogramDataPoint::default()
    };
    let exponential = ExponentialHistogramDataPoint {
        time_unix_nano: NOW,
        count: 4,
        zero_count: 1,
        positive: Some(Buckets { offset: 0, bucket_counts: vec![2, 1] }),
        ..ExponentialHistogramDataPoint::default()
    };
    let quantile_values =
        vec![ValueAtQuantile { quantile: 0.99, value: 3.0 }, ValueAtQuantile { quantile: 0.5, value: f64::NAN }];
    let summary = SummaryDataPoint { time_unix_nano: NOW, count: 9, sum: 4.0, quantile_values, ..SummaryDataPoint::default() };
    let number = NumberDataPoint { time_unix_nano: NOW, value: Some(Number::AsInt(-3)), ..NumberDataPoint::default() };
    let all = [
        Data::Gauge(Gauge { data_points: vec![number.clone()] }),
        Data::Sum(Sum { data_points: vec![number], aggregation_temporality: 2, is_monotonic: true }),
        Data::Histogram(Histogram { data_points: vec![histogram.clone()], aggregation_temporality: 1 }),
        Data::Histogram(Histogram { data_points: vec![histogram], aggregation_temporality: 2 }),
        Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![exponential], aggregation_temporality: 1 }),
        Data::Summary(Summary { data_points: vec![summary] }),
    ];
    let mut text = String::new();
    for data in all {
        let request = one_metric("m", data);
        let (rows, rejected) = both(Signal::Metrics, &request.encode_to_vec(), &metrics_json(&request));
        assert_eq!((rows.len(), rejected), (1, 0));
        text += &rows[0];
        text.push('\n');
    }
    insta::assert_snapshot!(text);
}

#[test]
fn points_without_a_value_or_temporality_or_with_nan_are_rejected_and_the_others_kept() {
    let point = |value, flags| NumberDataPoint { time_unix_nano: NOW, value, flags, ..NumberDataPoint::default() };
    let nan = Some(Number::AsDouble(f64::NAN));
    let good = point(Some(Number::AsInt(1)), 0);
    let data_points = vec![point(nan, 0), point(None, 0), point(None, 1), good.clone()];
    let request = one_metric("m", Data::Sum(Sum { data_points, aggregation_temporality: 1, is_monotonic: true }));
    let (rows, rejected) = both(Signal::Metrics, &request.encode_to_vec(), &metrics_json(&request));
    assert_eq!((rows.len(), rejected), (1, 3));
    let request = one_metric("m", Data::Sum(Sum { data_points: vec![good], aggregation_temporality: 0, is_monotonic: true }));
    let (rows, rejected) = both(Signal::Metrics, &request.encode_to_vec(), &metrics_json(&request));
    assert_eq!((rows.len(), rejected), (0, 1));
}

#[test]
fn keys_of_json_may_come_in_any_order() {
    let body = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"attributes":[{{"value":{{"intValue":5}},"key":"n"}}],
        "startTimeUnixNano":{NOW},"name":"a"}}],"scope":{{"name":"x"}}}}],"schemaUrl":"",
        "resource":{{"attributes":[{{"value":{{"kvlistValue":{{"values":[{{"value":{{}},"key":"k"}}]}}}},"key":"map"}},
        {{"key":"service.name","value":{{"stringValue":"checkout"}}}}]}}}}]}}"#
    );
    let (rows, _) = read(Signal::Traces, Format::Json, body.as_bytes()).unwrap();
    insta::assert_snapshot!(rows.join("\n"));
    let metric = format!(
        r#"{{"resourceMetrics":[{{"scopeMetrics":[{{"metrics":[{{"sum":{{"dataPoints":[{{"asInt":"7","timeUnixNano":"{NOW}"}}],
        "isMonotonic":true,"aggregationTemporality":2}},"unit":"1","name":"requests"}}]}}],
        "resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"checkout"}}}}]}}}}]}}"#
    );
    let (rows, _) = read(Signal::Metrics, Format::Json, metric.as_bytes()).unwrap();
    insta::assert_snapshot!(rows.join("\n"));
}

#[test]
fn what_is_no_otlp_json_is_said_with_its_place() {
    let bad = [
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"kind":"SPAN_KIND_SERVER"}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"abc"}]}]}]}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"startTimeUnixNano":"-1"}]}]}]}"#,
        r#"{"resourceSpans":{}}"#,
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":3}]}]}]}"#,
        r#"{"resourceSpans":["#,
        "<html><body>502 Bad Gateway</body></html>",
        "",
        "[]",
    ];
    let messages: Vec<String> =
        bad.iter().map(|b| read(Signal::Traces, Format::Json, b.as_bytes()).unwrap_err().to_string()).collect();
    insta::assert_snapshot!(messages.join("\n"));
}

#[test]
fn a_string_that_is_not_utf8_is_said_with_its_field() {
    let mut bytes = ExportTraceServiceRequest { resource_spans: vec![traces_of(&[], vec![span("abcd")])] }.encode_to_vec();
    let at = bytes.windows(4).position(|w| w == b"abcd").unwrap();
    bytes[at + 2] = 0xff;
    let error = read(Signal::Traces, Format::Protobuf, &bytes).unwrap_err().to_string();
    assert!(error.contains("`Span.name` is not valid UTF-8 (after 2 good bytes)"), "{error}");
}

fn nested(levels: usize) -> AnyValue {
    (0..levels).fold(text("core"), |value, _| AnyValue { value: Some(Any::ArrayValue(ArrayValue { values: vec![value] })) })
}

#[test]
fn a_value_that_nests_too_deep_rejects_its_record_only() {
    for (levels, kept) in [(24, 2), (25, 1), (90, 1)] {
        let deep = Span { attributes: vec![pair("deep", nested(levels))], ..span("deep") };
        let request = ExportTraceServiceRequest { resource_spans: vec![traces_of(&[], vec![deep, span("flat")])] };
        let (rows, rejected) = both(Signal::Traces, &request.encode_to_vec(), &traces_json(&request));
        assert_eq!((rows.len(), rejected), (kept, 2 - kept as u64), "{levels} levels");
    }
    // Far deeper than any stack: still an answer.
    let deep = Span { attributes: vec![pair("deep", nested(400))], ..span("deep") };
    let bytes = ExportTraceServiceRequest { resource_spans: vec![traces_of(&[], vec![deep])] }.encode_to_vec();
    assert_eq!(read(Signal::Traces, Format::Protobuf, &bytes).unwrap(), (Vec::new(), 1));
}

#[test]
fn many_empty_records_in_a_small_body_do_not_become_much_memory() {
    // A log record of two bytes becomes a row of a hundred.
    let scope_logs = vec![ScopeLogs { log_records: vec![LogRecord::default(); 1_000_000], ..ScopeLogs::default() }];
    let bytes =
        ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }.encode_to_vec();
    assert!(bytes.len() < 3 << 20);
    let limits = Limits { max_decoded_size: 24 << 20, ..LIMITS };
    let error = decode(Signal::Logs, Format::Protobuf, &bytes, limits).map(|(batch, _)| rows(&batch).len()).unwrap_err();
    let expected = "the log records and their attributes need more than 25165824 bytes when decoded: send smaller batches";
    assert_eq!(error, DecodeError::TooLarge(expected.to_owned()));
}

#[test]
fn a_sampled_span_counts_for_those_that_were_not_kept() {
    let sampled = Span { trace_state: "ot=th:c".to_owned(), ..span("a") };
    let request = ExportTraceServiceRequest { resource_spans: vec![traces_of(&[], vec![sampled])] };
    let (rows, _) = both(Signal::Traces, &request.encode_to_vec(), &traces_json(&request));
    assert!(rows[0].contains(" x4 "), "{rows:?}");
}
