//! What the tests share: rows that can be compared, OTLP/JSON, a running receiver, and an HTTP client that sends
//! exactly what it is told to.

use std::net::SocketAddr;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::super::Limits;
use super::super::listeners::Otlp;
use super::super::share::Protocol;
use crate::model::{
    AttributeRange, Attributes, Batch, Payload, PayloadKind, PointValue, Signal, Symbols, Telemetry, UnixNanos,
    Value as Attribute,
};
use crate::pipeline::{
    Context, Counters, Counts, Delivery, Health, Input, Instance, Listeners as _, ManualClock, Memory, Origin, Output, Outputs,
    ReceiverInstance, Registry, Services,
};
use crate::storage::MemoryStorage;

/// 2026-01-15T10:30:00Z
pub(super) const NOW: u64 = 1_768_473_000_000_000_000;

pub(super) const LIMITS: Limits =
    Limits { now: UnixNanos(NOW), max_future: 600_000_000_000, max_attribute_value_size: 1 << 20, max_decoded_size: 64 << 20 };

pub(super) fn attributes_text(symbols: &Symbols, attributes: &Attributes, range: AttributeRange) -> String {
    let one = |a: &crate::model::Attribute| {
        let value = match a.value {
            Attribute::Str(s) => format!("{:?}", symbols.get(s)),
            Attribute::Json(s) => format!("json {}", symbols.get(s)),
            Attribute::Bool(v) => v.to_string(),
            Attribute::Int(v) => v.to_string(),
            Attribute::Double(v) => format!("{v:?}"),
        };
        format!("{:?}={value}", symbols.get(a.key))
    };
    attributes.get(range).iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Every row with all its texts in place, so that batches with different dictionaries compare.
pub(super) fn rows(batch: &Batch) -> Vec<String> {
    let attrs = attributes_text;
    match batch {
        Batch::Traces(b) => b
            .rows
            .iter()
            .map(|r| {
                let (resource, own) =
                    (attrs(&b.symbols, &b.attributes, r.resource), attrs(&b.symbols, &b.attributes, r.attributes));
                let name = b.symbols.get(r.name);
                let ids = (r.trace_id, r.span_id, r.parent_span_id);
                format!(
                    "[{resource}] {name:?} {:?} {:?} {} +{} x{} {ids:?} [{own}]",
                    r.kind, r.status, r.start.0, r.duration, r.weight
                )
            })
            .collect(),
        Batch::Logs(b) => b
            .rows
            .iter()
            .map(|r| {
                let (resource, own) =
                    (attrs(&b.symbols, &b.attributes, r.resource), attrs(&b.symbols, &b.attributes, r.attributes));
                let (body, event) = (b.symbols.get(r.body), b.symbols.get(r.event_name));
                let ids = (r.trace_id, r.span_id);
                format!("[{resource}] {} {} {body:?} {event:?} {ids:?} [{own}]", r.time.0, r.severity_number)
            })
            .collect(),
        Batch::Metrics(b) => b
            .rows
            .iter()
            .map(|r| {
                let (resource, own) =
                    (attrs(&b.symbols, &b.attributes, r.resource), attrs(&b.symbols, &b.attributes, r.attributes));
                let metric = b.metrics[r.metric as usize];
                let (name, unit) = (b.symbols.get(metric.name), b.symbols.get(metric.unit));
                let value = match &r.value {
                    PointValue::Number(v) => format!("{v:?}"),
                    PointValue::Distribution(d) => format!("n={} sum={:?} {:?}", d.count, d.sum, b.bins_of(d)),
                };
                format!("[{resource}] {name:?} {unit:?} {:?} {} from {} {value} [{own}]", metric.kind, r.time.0, r.start.0)
            })
            .collect(),
    }
}

pub(super) fn text(value: &str) -> AnyValue {
    AnyValue { value: Some(Any::StringValue(value.to_owned())) }
}

pub(super) fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

pub(super) fn resource(attributes: &[(&str, &str)]) -> Option<Resource> {
    Some(Resource { attributes: attributes.iter().map(|(k, v)| pair(k, text(v))).collect(), ..Resource::default() })
}

pub(super) fn span(name: &str) -> Span {
    Span {
        name: name.to_owned(),
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        kind: 2,
        start_time_unix_nano: NOW - 2_000_000,
        end_time_unix_nano: NOW,
        attributes: vec![pair("http.route", text("/pay"))],
        ..Span::default()
    }
}

pub(super) fn traces_of(resource_attributes: &[(&str, &str)], spans: Vec<Span>) -> ResourceSpans {
    ResourceSpans {
        resource: resource(resource_attributes),
        scope_spans: vec![ScopeSpans { spans, ..ScopeSpans::default() }],
        ..ResourceSpans::default()
    }
}

pub(super) fn traces(spans: usize) -> ExportTraceServiceRequest {
    let spans = (0..spans).map(|i| span(&format!("GET /{i}"))).collect();
    ExportTraceServiceRequest { resource_spans: vec![traces_of(&[("service.name", "checkout")], spans)] }
}

// --- OTLP/JSON, as other exporters write it: 64-bit integers as strings, ids in hex ---

fn any_json(value: &AnyValue) -> Value {
    match &value.value {
        None | Some(Any::StringValueStrindex(_)) => json!({}),
        Some(Any::StringValue(v)) => json!({ "stringValue": v }),
        Some(Any::BoolValue(v)) => json!({ "boolValue": v }),
        Some(Any::IntValue(v)) => json!({ "intValue": v.to_string() }),
        Some(Any::DoubleValue(v)) => json!({ "doubleValue": double(*v) }),
        Some(Any::BytesValue(v)) => json!({ "bytesValue": data_encoding::BASE64.encode(v) }),
        Some(Any::ArrayValue(v)) => json!({ "arrayValue": { "values": v.values.iter().map(any_json).collect::<Vec<_>>() } }),
        Some(Any::KvlistValue(v)) => json!({ "kvlistValue": { "values": attributes_json(&v.values) } }),
    }
}

fn double(v: f64) -> Value {
    match v {
        v if v.is_finite() => json!(v),
        v if v.is_nan() => json!("NaN"),
        v => json!(if v > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}

fn attributes_json(attributes: &[KeyValue]) -> Value {
    let one = |kv: &KeyValue| match &kv.value {
        Some(value) => json!({ "key": kv.key, "value": any_json(value) }),
        None => json!({ "key": kv.key }),
    };
    attributes.iter().map(one).collect()
}

fn resource_json(resource: Option<&Resource>) -> Value {
    resource.map_or(Value::Null, |r| json!({ "attributes": attributes_json(&r.attributes), "unknownKey": [{ "x": 1 }] }))
}

fn hex(id: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(id)
}

pub(super) fn traces_json(request: &ExportTraceServiceRequest) -> Value {
    let span = |s: &Span| {
        json!({
            "traceId": hex(&s.trace_id), "spanId": hex(&s.span_id), "parentSpanId": hex(&s.parent_span_id),
            "traceState": s.trace_state, "name": s.name, "kind": s.kind,
            "startTimeUnixNano": s.start_time_unix_nano.to_string(), "endTimeUnixNano": s.end_time_unix_nano,
            "attributes": attributes_json(&s.attributes), "status": s.status.as_ref().map(|s| json!({ "code": s.code })),
            "events": [{ "name": "e", "attributes": [] }], "droppedAttributesCount": 1,
        })
    };
    let group = |g: &ResourceSpans| {
        let scopes: Vec<Value> =
            g.scope_spans.iter().map(|s| json!({ "spans": s.spans.iter().map(span).collect::<Vec<_>>() })).collect();
        json!({ "resource": resource_json(g.resource.as_ref()), "scopeSpans": scopes })
    };
    json!({ "resourceSpans": request.resource_spans.iter().map(group).collect::<Vec<_>>() })
}

pub(super) fn logs_json(request: &ExportLogsServiceRequest) -> Value {
    let log = |l: &opentelemetry_proto::tonic::logs::v1::LogRecord| {
        json!({
            "timeUnixNano": l.time_unix_nano.to_string(), "observedTimeUnixNano": l.observed_time_unix_nano.to_string(),
            "severityNumber": l.severity_number, "severityText": l.severity_text, "body": l.body.as_ref().map(any_json),
            "attributes": attributes_json(&l.attributes), "traceId": hex(&l.trace_id), "spanId": hex(&l.span_id),
            "eventName": l.event_name, "flags": l.flags,
        })
    };
    let group = |g: &opentelemetry_proto::tonic::logs::v1::ResourceLogs| {
        let scopes: Vec<Value> =
            g.scope_logs.iter().map(|s| json!({ "logRecords": s.log_records.iter().map(log).collect::<Vec<_>>() })).collect();
        json!({ "resource": resource_json(g.resource.as_ref()), "scopeLogs": scopes })
    };
    json!({ "resourceLogs": request.resource_logs.iter().map(group).collect::<Vec<_>>() })
}

fn data_json(data: &metric::Data) -> (&'static str, Value) {
    let number = |p: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        let mut point = json!({
            "timeUnixNano": p.time_unix_nano.to_string(), "startTimeUnixNano": p.start_time_unix_nano.to_string(),
            "attributes": attributes_json(&p.attributes), "flags": p.flags, "exemplars": [{ "asDouble": 1 }],
        });
        match p.value {
            Some(number_data_point::Value::AsInt(v)) => point["asInt"] = json!(v.to_string()),
            Some(number_data_point::Value::AsDouble(v)) => point["asDouble"] = double(v),
            None => {}
        }
        point
    };
    let strings = |v: &[u64]| v.iter().map(u64::to_string).collect::<Vec<_>>();
    match data {
        metric::Data::Gauge(d) => ("gauge", json!({ "dataPoints": d.data_points.iter().map(number).collect::<Vec<_>>() })),
        metric::Data::Sum(d) => (
            "sum",
            json!({ "dataPoints": d.data_points.iter().map(number).collect::<Vec<_>>(),
                    "aggregationTemporality": d.aggregation_temporality, "isMonotonic": d.is_monotonic }),
        ),
        metric::Data::Histogram(d) => (
            "histogram",
            json!({ "aggregationTemporality": d.aggregation_temporality, "dataPoints": d.data_points.iter().map(|p| json!({
                "timeUnixNano": p.time_unix_nano, "startTimeUnixNano": p.start_time_unix_nano, "count": p.count.to_string(),
                "sum": p.sum.map(double), "min": p.min.map(double), "max": p.max.map(double), "flags": p.flags,
                "bucketCounts": strings(&p.bucket_counts),
                "explicitBounds": p.explicit_bounds.iter().map(|b| double(*b)).collect::<Vec<_>>(),
                "attributes": attributes_json(&p.attributes),
            })).collect::<Vec<_>>() }),
        ),
        metric::Data::ExponentialHistogram(d) => (
            "exponentialHistogram",
            json!({ "aggregationTemporality": d.aggregation_temporality, "dataPoints": d.data_points.iter().map(|p| {
                let buckets = |b: &Option<opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets>| {
                    b.as_ref().map(|b| json!({ "offset": b.offset, "bucketCounts": strings(&b.bucket_counts) }))
                };
                json!({
                    "timeUnixNano": p.time_unix_nano, "startTimeUnixNano": p.start_time_unix_nano, "count": p.count,
                    "sum": p.sum.map(double), "scale": p.scale, "zeroCount": p.zero_count, "flags": p.flags,
                    "positive": buckets(&p.positive), "negative": buckets(&p.negative),
                    "attributes": attributes_json(&p.attributes),
                })
            }).collect::<Vec<_>>() }),
        ),
        metric::Data::Summary(d) => (
            "summary",
            json!({ "dataPoints": d.data_points.iter().map(|p| json!({
                "timeUnixNano": p.time_unix_nano, "startTimeUnixNano": p.start_time_unix_nano, "count": p.count,
                "sum": double(p.sum), "flags": p.flags, "attributes": attributes_json(&p.attributes),
                "quantileValues": p.quantile_values.iter().map(|q| json!({ "quantile": q.quantile, "value": double(q.value) })).collect::<Vec<_>>(),
            })).collect::<Vec<_>>() }),
        ),
    }
}

pub(super) fn metrics_json(request: &ExportMetricsServiceRequest) -> Value {
    let metric = |m: &Metric| {
        let mut object = json!({ "name": m.name, "unit": m.unit, "description": m.description });
        if let Some((key, data)) = m.data.as_ref().map(data_json) {
            object[key] = data;
        }
        object
    };
    let group = |g: &opentelemetry_proto::tonic::metrics::v1::ResourceMetrics| {
        let scopes: Vec<Value> =
            g.scope_metrics.iter().map(|s| json!({ "metrics": s.metrics.iter().map(metric).collect::<Vec<_>>() })).collect();
        json!({ "resource": resource_json(g.resource.as_ref()), "scopeMetrics": scopes })
    };
    json!({ "resourceMetrics": request.resource_metrics.iter().map(group).collect::<Vec<_>>() })
}

// --- A running receiver ---

/// One environment of a test.
pub(super) struct Tenant {
    pub(super) name: &'static str,
    pub(super) default: bool,
    pub(super) config: Value,
    pub(super) signals: &'static [Signal],
    /// How many requests its queue holds.
    pub(super) queue: usize,
    /// Nothing is taken out of the queue until it is released.
    pub(super) held: bool,
}

impl Tenant {
    /// An environment that takes all signals over both protocols.
    pub(super) fn new(name: &'static str) -> Self {
        Self { name, default: false, config: both(&json!({})), signals: &Signal::ALL, queue: 8, held: false }
    }
}

/// A configuration of both protocols at free ports, and `more`.
pub(super) fn both(more: &Value) -> Value {
    let mut config = json!({ "protocols": { "grpc": { "endpoint": "127.0.0.1:0" }, "http": { "endpoint": "127.0.0.1:0" } } });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// What the pipelines of one environment see.
pub(super) struct Pipeline {
    pub(super) counters: Arc<Counters>,
    taken: mpsc::UnboundedReceiver<(Arc<Telemetry>, Origin)>,
    taking: mpsc::UnboundedSender<(Arc<Telemetry>, Origin)>,
    pub(super) held: Option<Input>,
}

impl Pipeline {
    fn new(counters: Arc<Counters>, input: Input, held: bool) -> Self {
        let (taking, taken) = mpsc::unbounded_channel();
        Self { counters, taken, taking, held: Some(input) }.released(!held)
    }

    fn released(mut self, now: bool) -> Self {
        if now {
            self.release();
        }
        self
    }

    /// From now on everything is taken that its sender has not withdrawn.
    pub(super) fn release(&mut self) {
        let (mut input, taking) = (self.held.take().unwrap(), self.taking.clone());
        tokio::spawn(async move {
            while let Some(Delivery { payload, mut flight, origin }) = input.recv().await {
                let receipt = flight.receipt();
                if receipt.is_withdrawn() {
                    flight.refused();
                    continue;
                }
                let Payload::Telemetry(telemetry) = payload else { panic!("a receiver gives telemetry") };
                let _ = taking.send((telemetry, origin));
                flight.sent();
                receipt.kept();
            }
        });
    }

    /// The next batch.
    pub(super) async fn next(&mut self) -> Arc<Telemetry> {
        self.next_with_origin().await.0
    }

    pub(super) async fn next_with_origin(&mut self) -> (Arc<Telemetry>, Origin) {
        self.taken.recv().await.unwrap()
    }

    /// The receiver's counts; they balance at any time.
    pub(super) fn counts(&self, signal: Signal) -> Counts {
        let counts = self.counters.of(PayloadKind::Telemetry(signal));
        assert!(counts.balanced(), "{counts:?}");
        counts
    }
}

pub(super) struct Running {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) pipelines: Vec<Pipeline>,
    pub(super) memory: Memory,
    pub(super) healths: Vec<Health>,
    pub(super) shutdown: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

pub(super) fn instances(tenants: Vec<Tenant>) -> (Vec<ReceiverInstance>, Vec<Pipeline>, CancellationToken) {
    let shutdown = CancellationToken::new();
    let services = Services {
        clock: Arc::new(ManualClock::new(UnixNanos(NOW))),
        storage: Arc::new(MemoryStorage::default()),
        data_dir: "unused".into(),
        registry: Registry::default(),
        queue_capacity: 8,
        ..Services::in_memory()
    };
    services.registry.share_memory(Memory::new(Some(512 << 20)));
    let (mut instances, mut pipelines) = (Vec::new(), Vec::new());
    for tenant in tenants {
        let context = Context { shutdown: shutdown.clone(), ..Context::of_test(tenant.name, "otlp", services.clone()) };
        let (edge, input) = Input::queue(tenant.queue, Arc::default());
        let output = |signal| Output::new(if tenant.signals.contains(&signal) { vec![edge.clone()] } else { vec![] });
        let outputs = Outputs { traces: output(Signal::Traces), metrics: output(Signal::Metrics), logs: output(Signal::Logs) };
        pipelines.push(Pipeline::new(Arc::clone(&context.counters), input, tenant.held));
        instances.push(ReceiverInstance {
            instance: Instance { config: tenant.config, context },
            default_environment: tenant.default,
            outputs,
        });
    }
    (instances, pipelines, shutdown)
}

impl Running {
    pub(super) async fn start(tenants: Vec<Tenant>) -> Self {
        let (instances, pipelines, shutdown) = instances(tenants);
        let of = |i: &ReceiverInstance| (i.instance.context.services.registry.memory(), i.instance.context.health.clone());
        let (memories, healths): (Vec<Memory>, Vec<Health>) = instances.iter().map(of).unzip();
        let memory = memories[0].clone();
        let mut otlp = Otlp::default();
        otlp.prepare(&instances).await.unwrap();
        otlp.serve(instances).await.unwrap();
        let address = |protocol| otlp.listeners.iter().find(|l| l.protocol() == protocol).unwrap().address;
        let (grpc, http) = (address(Protocol::Grpc), address(Protocol::Http));
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            stop.cancelled().await;
            otlp.stop().await;
        });
        Self { grpc, http, pipelines, memory, healths, shutdown, task }
    }

    pub(super) async fn one(name: &'static str) -> Self {
        Self::start(vec![Tenant::new(name)]).await
    }

    pub(super) async fn channel(&self) -> tonic::transport::Channel {
        tonic::transport::Endpoint::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    /// POSTs `body` to `path` with `headers`.
    pub(super) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.send(&[head.as_bytes(), b"connection: close\r\n\r\n", body].concat()).await
    }

    /// Sends exactly `request`, and reads until the server closes.
    pub(super) async fn send(&self, request: &[u8]) -> Answer {
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no answer to {request:?}"));
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let body = answer[end + 4..].to_vec();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_lowercase(), body }
    }
}

/// What an HTTP client gets.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The `google.rpc.Status` in the body, in the encoding that the content type says.
    pub(super) fn rpc_status(&self) -> (i64, String) {
        if self.header("content-type") == Some("application/json") {
            let status: Value = serde_json::from_slice(&self.body).unwrap();
            return (status["code"].as_i64().unwrap(), status["message"].as_str().unwrap().to_owned());
        }
        assert_eq!(self.header("content-type"), Some("application/x-protobuf"));
        let status: tonic_types::Status = prost::Message::decode(self.body.as_slice()).unwrap();
        (status.code.into(), status.message)
    }
}
