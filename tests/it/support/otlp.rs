//! OTLP: requests, and senders over gRPC and HTTP.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

/// One call of an operation, in the form that every way into the daemon can carry.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) service: String,
    pub(crate) operation: String,
    /// Nanoseconds since the epoch.
    pub(crate) start: u64,
    /// Nanoseconds.
    pub(crate) duration: u64,
    pub(crate) failed: bool,
    /// Tells it apart from all others of the test.
    pub(crate) number: u64,
}

impl Call {
    /// A call that has just been.
    pub(crate) fn now(number: u64) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_nanos();
        let (service, operation) = ("checkout".to_owned(), "POST /pay".to_owned());
        Self { service, operation, start: now as u64, duration: 5_000_000, failed: false, number }
    }

    /// Hexadecimal trace id.
    pub(crate) fn trace_id(&self) -> String {
        format!("{:032x}", u128::from(self.number) + 1)
    }

    /// Hexadecimal span id.
    pub(crate) fn span_id(&self) -> String {
        format!("{:016x}", self.number + 1)
    }
}

/// An attribute whose value is a text.
pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn resource(service: &str, environment: Option<&str>) -> Option<Resource> {
    let mut attributes = vec![text("service.name", service)];
    attributes.extend(environment.map(|e| text("deployment.environment.name", e)));
    Some(Resource { attributes, ..Resource::default() })
}

/// A request with one server span for each of `calls`.
pub(crate) fn traces(calls: &[Call], environment: Option<&str>) -> ExportTraceServiceRequest {
    let resource_spans = calls.iter().map(|call| {
        let span = Span {
            trace_id: (u128::from(call.number) + 1).to_be_bytes().to_vec(),
            span_id: (call.number + 1).to_be_bytes().to_vec(),
            name: call.operation.clone(),
            kind: 2,
            start_time_unix_nano: call.start,
            end_time_unix_nano: call.start + call.duration,
            status: Some(Status { code: if call.failed { 2 } else { 0 }, ..Status::default() }),
            ..Span::default()
        };
        ResourceSpans {
            resource: resource(&call.service, environment),
            scope_spans: vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    });
    ExportTraceServiceRequest { resource_spans: resource_spans.collect() }
}

/// A request with `count` log records of one service.
pub(crate) fn logs(service: &str, environment: Option<&str>, time: u64, count: usize) -> ExportLogsServiceRequest {
    let body = Some(AnyValue { value: Some(Value::StringValue("something happened".to_owned())) });
    let record = LogRecord { time_unix_nano: time, severity_number: 9, body, ..LogRecord::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record; count], ..ScopeLogs::default() }];
    let resource_logs = ResourceLogs { resource: resource(service, environment), scope_logs, ..ResourceLogs::default() };
    ExportLogsServiceRequest { resource_logs: vec![resource_logs] }
}

/// A request with one gauge that has these values, a second apart.
pub(crate) fn gauge(service: &str, environment: Option<&str>, time: u64, values: &[f64]) -> ExportMetricsServiceRequest {
    let point = |(i, value): (usize, &f64)| NumberDataPoint {
        time_unix_nano: time + i as u64 * 1_000_000_000,
        value: Some(number_data_point::Value::AsDouble(*value)),
        ..NumberDataPoint::default()
    };
    let data = Some(metric::Data::Gauge(Gauge { data_points: values.iter().enumerate().map(point).collect() }));
    let metrics = vec![Metric { name: "queue.length".to_owned(), data, ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    let of_resource = ResourceMetrics { resource: resource(service, environment), scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }
}

/// Sends spans over gRPC.
pub(crate) async fn send_grpc(port: u16, request: ExportTraceServiceRequest) -> Result<(), tonic::Status> {
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut client = TraceServiceClient::connect(endpoint).await.map_err(|e| tonic::Status::unknown(e.to_string()))?;
    client.export(request).await.map(drop)
}

/// Sends calls over gRPC in requests of 500, in their order.
pub(crate) async fn send_all(port: u16, calls: impl Iterator<Item = Call>, environment: &str) {
    let mut client = TraceServiceClient::connect(format!("http://127.0.0.1:{port}")).await.expect("a connection");
    let calls: Vec<Call> = calls.collect();
    for part in calls.chunks(500) {
        client.export(traces(part, Some(environment))).await.expect("the daemon takes the spans");
    }
}

/// Posts a body to the HTTP receiver; the status and the answer's body.
pub(crate) async fn post(port: u16, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Vec<u8>) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut request = client.post(format!("http://127.0.0.1:{port}{path}")).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("the daemon answers");
    let status = answer.status().as_u16();
    (status, answer.bytes().await.expect("the daemon ends its answer").to_vec())
}

/// Sends spans over HTTP as protobuf; the status.
pub(crate) async fn send_http(port: u16, request: &ExportTraceServiceRequest) -> u16 {
    post(port, "/v1/traces", &[("content-type", "application/x-protobuf")], request.encode_to_vec()).await.0
}
