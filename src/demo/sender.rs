//! Sends what the simulated services did as real OTLP: traces over gRPC, logs over HTTP, both over the loopback.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode as Outcome,
};
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;

use super::DemoError;
use super::services::{Activity, SERVICES};
use crate::model::UnixNanos;

/// How often a request that the daemon refuses because it is full is sent again.
const ATTEMPTS: u32 = 200;

/// Where the daemon listens, on the loopback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// OTLP over gRPC.
    pub(super) grpc: u16,
    /// OTLP over HTTP.
    pub(super) http: u16,
}

/// The connections of one environment's services.
pub(super) struct Sender {
    pub(super) environment: &'static str,
    traces: TraceServiceClient<Channel>,
    logs: http1::SendRequest<Full<Bytes>>,
    ids: Rng,
    /// Spans and log records that were accepted.
    pub(super) sent: u64,
}

impl Sender {
    /// Connects to both ports.
    pub(super) async fn connect(environment: &'static str, ports: Ports, seed: u64) -> Result<Self, DemoError> {
        let address = format!("http://127.0.0.1:{}", ports.grpc);
        let traces = TraceServiceClient::connect(address.clone()).await;
        let traces = traces.map_err(|e| DemoError(format!("cannot connect to the daemon's OTLP/gRPC port at {address}: {e}")))?;
        let http = |e: &dyn std::fmt::Display| {
            DemoError(format!("cannot connect to the daemon's OTLP/HTTP port at 127.0.0.1:{}: {e}", ports.http))
        };
        let stream = TcpStream::connect(("127.0.0.1", ports.http)).await.map_err(|e| http(&e))?;
        stream.set_nodelay(true).map_err(|e| http(&e))?;
        let (logs, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| http(&e))?;
        // Ends with the sender; what goes wrong is told by the request that it happens to.
        tokio::spawn(connection);
        Ok(Self { environment, traces, logs, ids: Rng::with_seed(seed), sent: 0 })
    }

    /// Sends what the services did in one minute, and returns when the daemon has accepted it.
    pub(super) async fn send(&mut self, activities: &[Activity]) -> Result<(), DemoError> {
        let spans: usize = activities.iter().map(|a| a.calls.len()).sum();
        let lines: usize = activities.iter().map(|a| a.lines.len()).sum();
        let traces = self.traces_request(activities);
        self.send_traces(traces).await?;
        let logs = Bytes::from(self.logs_request(activities).encode_to_vec());
        self.send_logs(logs).await?;
        self.sent += (spans + lines) as u64;
        Ok(())
    }

    async fn send_traces(&mut self, request: ExportTraceServiceRequest) -> Result<(), DemoError> {
        for attempt in 0..ATTEMPTS {
            match self.traces.export(request.clone()).await {
                Ok(response) => {
                    let partial = response.into_inner().partial_success.unwrap_or_default();
                    return self.all_accepted("spans", partial.rejected_spans, &partial.error_message);
                }
                Err(status) if status.code() == Code::Unavailable => pause(attempt).await,
                Err(status) => return Err(self.refused("spans", &status)),
            }
        }
        Err(self.refused("spans", &"it stayed full"))
    }

    async fn send_logs(&mut self, body: Bytes) -> Result<(), DemoError> {
        for attempt in 0..ATTEMPTS {
            let request = Request::post("/v1/logs")
                .header(header::HOST, "127.0.0.1")
                .header(header::CONTENT_TYPE, "application/x-protobuf")
                .body(Full::new(body.clone()))
                .map_err(|e| self.refused("log records", &e))?;
            self.logs.ready().await.map_err(|e| self.refused("log records", &e))?;
            let response = self.logs.send_request(request).await.map_err(|e| self.refused("log records", &e))?;
            let status = response.status();
            let answer = response.into_body().collect().await.map_err(|e| self.refused("log records", &e))?.to_bytes();
            match status {
                StatusCode::OK => {
                    let answer = ExportLogsServiceResponse::decode(answer).map_err(|e| self.refused("log records", &e))?;
                    let partial = answer.partial_success.unwrap_or_default();
                    return self.all_accepted("log records", partial.rejected_log_records, &partial.error_message);
                }
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => pause(attempt).await,
                other => return Err(self.refused("log records", &other)),
            }
        }
        Err(self.refused("log records", &"it stayed full"))
    }

    fn all_accepted(&self, what: &str, rejected: i64, message: &str) -> Result<(), DemoError> {
        if rejected == 0 { Ok(()) } else { Err(self.refused(what, &format!("{rejected} rejected: {message}"))) }
    }

    fn refused(&self, what: &str, why: &dyn std::fmt::Display) -> DemoError {
        DemoError(format!("the daemon did not take the {what} of `{}`: {why}", self.environment))
    }

    fn resource(&self, service: &str) -> Option<Resource> {
        let attributes = vec![text("service.name", service), text("deployment.environment.name", self.environment)];
        Some(Resource { attributes, ..Resource::default() })
    }

    fn traces_request(&mut self, activities: &[Activity]) -> ExportTraceServiceRequest {
        let mut resource_spans = Vec::with_capacity(SERVICES.len());
        for (service, activity) in SERVICES.iter().zip(activities) {
            let mut spans = Vec::with_capacity(activity.calls.len());
            for call in &activity.calls {
                let Some(operation) = service.operations.get(call.operation) else { continue };
                let nanos = (call.seconds * UnixNanos::SECOND as f64) as u64;
                let (outcome, code) = if call.failed { (Outcome::Error, 503) } else { (Outcome::Unset, 200) };
                spans.push(Span {
                    trace_id: self.ids.u128(1..).to_be_bytes().to_vec(),
                    span_id: self.ids.u64(1..).to_be_bytes().to_vec(),
                    name: operation.name.to_owned(),
                    kind: SpanKind::Server.into(),
                    start_time_unix_nano: call.start.0,
                    end_time_unix_nano: call.start.plus(nanos).0,
                    attributes: vec![attribute("http.response.status_code", Value::IntValue(code))],
                    status: Some(Status { code: outcome.into(), ..Status::default() }),
                    ..Span::default()
                });
            }
            let scope_spans = vec![ScopeSpans { scope: scope(), spans, ..ScopeSpans::default() }];
            resource_spans.push(ResourceSpans { resource: self.resource(service.name), scope_spans, ..ResourceSpans::default() });
        }
        ExportTraceServiceRequest { resource_spans }
    }

    fn logs_request(&self, activities: &[Activity]) -> ExportLogsServiceRequest {
        let of_service = |(service, activity): (&super::services::Service, &Activity)| {
            let log_records = activity.lines.iter().map(|line| LogRecord {
                time_unix_nano: line.time.0,
                observed_time_unix_nano: line.time.0,
                severity_number: i32::from(line.severity),
                body: Some(AnyValue { value: Some(Value::StringValue(line.text.clone())) }),
                ..LogRecord::default()
            });
            let scope_logs = vec![ScopeLogs { scope: scope(), log_records: log_records.collect(), ..ScopeLogs::default() }];
            ResourceLogs { resource: self.resource(service.name), scope_logs, ..ResourceLogs::default() }
        };
        ExportLogsServiceRequest { resource_logs: SERVICES.iter().zip(activities).map(of_service).collect() }
    }
}

/// As the protocol asks of a client: longer from time to time, and never for long on the loopback.
async fn pause(attempt: u32) {
    tokio::time::sleep(Duration::from_millis(u64::from(attempt.min(20)) * 10 + 5)).await;
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope { name: "anomalyd.demo".to_owned(), ..InstrumentationScope::default() })
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}
