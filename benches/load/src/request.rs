//! Requests, each a function of its number and its time: what is sent again is made again, the same to the byte, and
//! nothing has to be kept of it.

use std::io::Write as _;

use bytes::Bytes;
use fastrand::Rng;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Signal {
    /// Log records.
    Logs,
    /// Spans.
    Traces,
    /// Points of gauges.
    Metrics,
}

impl Signal {
    /// Lower case name, as in the daemon's metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }
}

/// What all requests of a run have in common.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What.
    pub signal: Signal,
    /// Records per request.
    pub records: usize,
    /// Services...
    pub services: usize,
    /// ...and operations of each: as many series of each metric.
    pub operations: usize,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// So that two runs against one daemon send nothing twice.
    pub seed: u64,
}

/// Services whose records stand in one request.
const RESOURCES: usize = 4;

fn text(key: &str, value: String) -> KeyValue {
    pair(key, Value::StringValue(value))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

impl Shape {
    /// The body of request `number`, whose records happened at `time` (nanoseconds since the epoch), in protobuf.
    ///
    /// # Errors
    /// Never, as long as there is memory to compress in.
    pub fn body(&self, number: u64, time: u64) -> std::io::Result<Bytes> {
        let plain = self.message(number, time);
        if !self.gzip {
            return Ok(plain.into());
        }
        let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(plain.len() / 4), flate2::Compression::fast());
        encoder.write_all(&plain)?;
        Ok(encoder.finish()?.into())
    }

    fn message(&self, number: u64, time: u64) -> Vec<u8> {
        let mut rng = Rng::with_seed(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let (services, operations) = (self.services.max(1), self.operations.max(1));
        let resources = RESOURCES.min(services).min(self.records.max(1));
        // Records per resource; the first ones get the rest.
        let share = |i: usize| self.records / resources + usize::from(i < self.records % resources);
        let first = number as usize * resources;
        let groups = (0..resources).map(|i| ((first + i) % services, share(i)));
        let next_operation = |rng: &mut Rng| format!("GET /operation/{}", rng.usize(0..operations));
        match self.signal {
            Signal::Traces => {
                let mut group = |(service, records): (usize, usize)| {
                    let spans = (0..records).map(|_| span(&mut rng, time, next_operation)).collect();
                    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
                    ResourceSpans { resource: resource(service), scope_spans, ..ResourceSpans::default() }
                };
                ExportTraceServiceRequest { resource_spans: groups.map(&mut group).collect() }.encode_to_vec()
            }
            Signal::Logs => {
                let mut group = |(service, records): (usize, usize)| {
                    let log_records = (0..records).map(|_| log(&mut rng, time, operations)).collect();
                    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
                    ResourceLogs { resource: resource(service), scope_logs, ..ResourceLogs::default() }
                };
                ExportLogsServiceRequest { resource_logs: groups.map(&mut group).collect() }.encode_to_vec()
            }
            Signal::Metrics => {
                let mut group = |(service, records): (usize, usize)| {
                    let points = (0..records).map(|i| point(&mut rng, time, (first + i) % operations)).collect();
                    let data = Some(metric::Data::Gauge(Gauge { data_points: points }));
                    let name = "http.server.active_requests".to_owned();
                    let metrics = vec![Metric { name, unit: "{request}".to_owned(), data, ..Metric::default() }];
                    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
                    ResourceMetrics { resource: resource(service), scope_metrics, ..ResourceMetrics::default() }
                };
                ExportMetricsServiceRequest { resource_metrics: groups.map(&mut group).collect() }.encode_to_vec()
            }
        }
    }
}

fn resource(service: usize) -> Option<Resource> {
    let attributes = vec![
        text("service.name", format!("service-{service}")),
        text("service.version", "1.4.2".to_owned()),
        text("service.instance.id", format!("service-{service}-0")),
        text("host.name", format!("host-{}", service % 8)),
    ];
    Some(Resource { attributes, ..Resource::default() })
}

fn span(rng: &mut Rng, time: u64, operation: impl Fn(&mut Rng) -> String) -> Span {
    // 1 to 60 ms, most of them short; 1 % fail.
    let duration = 1_000_000 + rng.u64(0..8_000_000) * rng.u64(1..8);
    let failed = rng.u8(0..100) == 0;
    let name = operation(rng);
    Span {
        trace_id: rng.u128(1..).to_be_bytes().to_vec(),
        span_id: rng.u64(1..).to_be_bytes().to_vec(),
        parent_span_id: rng.u64(1..).to_be_bytes().to_vec(),
        kind: 2,
        start_time_unix_nano: time.saturating_sub(duration),
        end_time_unix_nano: time,
        attributes: vec![
            text("http.request.method", "GET".to_owned()),
            text("http.route", name.trim_start_matches("GET ").to_owned()),
            pair("http.response.status_code", Value::IntValue(if failed { 500 } else { 200 })),
            text("network.protocol.version", "1.1".to_owned()),
        ],
        name,
        status: Some(Status { code: if failed { 2 } else { 0 }, ..Status::default() }),
        ..Span::default()
    }
}

fn log(rng: &mut Rng, time: u64, operations: usize) -> LogRecord {
    let (operation, user, ms) = (rng.usize(0..operations), rng.u32(..), rng.u32(1..500));
    let failed = rng.u8(0..100) == 0;
    let outcome = if failed { "failed" } else { "done" };
    let body = format!("operation {operation} of user {user} {outcome} after {ms} ms");
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: if failed { 17 } else { 9 },
        severity_text: if failed { "ERROR" } else { "INFO" }.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes: vec![
            text("thread.name", format!("worker-{}", rng.u8(0..16))),
            text("code.namespace", format!("shop.module{operation}")),
        ],
        trace_id: rng.u128(1..).to_be_bytes().to_vec(),
        span_id: rng.u64(1..).to_be_bytes().to_vec(),
        ..LogRecord::default()
    }
}

fn point(rng: &mut Rng, time: u64, operation: usize) -> NumberDataPoint {
    NumberDataPoint {
        time_unix_nano: time,
        value: Some(number_data_point::Value::AsDouble(f64::from(rng.u32(0..1000)) / 10.0)),
        attributes: vec![text("http.route", format!("/operation/{operation}"))],
        ..NumberDataPoint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(signal: Signal) -> Shape {
        Shape { signal, records: 10, services: 3, operations: 5, gzip: false, seed: 1 }
    }

    #[test]
    fn the_same_number_and_time_make_the_same_bytes_and_others_make_others() {
        for signal in [Signal::Logs, Signal::Traces, Signal::Metrics] {
            let shape = shape(signal);
            assert_eq!(shape.body(1, 5).unwrap(), shape.body(1, 5).unwrap());
            assert_ne!(shape.body(1, 5).unwrap(), shape.body(2, 5).unwrap());
            let packed = Shape { gzip: true, ..shape }.body(1, 5).unwrap();
            let mut unpacked = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*packed), &mut unpacked).unwrap();
            assert_eq!(unpacked, shape.body(1, 5).unwrap());
        }
    }

    #[test]
    fn a_request_has_as_many_records_as_were_asked_for() {
        let logs = ExportLogsServiceRequest::decode(shape(Signal::Logs).body(7, 5).unwrap()).unwrap();
        let records: usize = logs.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum();
        assert_eq!((logs.resource_logs.len(), records), (3, 10));
    }
}
