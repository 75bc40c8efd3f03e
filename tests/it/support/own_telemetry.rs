//! An OTLP server that keeps what a daemon exports about itself.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric::Data, number_data_point};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// What has come so far.
#[derive(Clone, Default)]
pub(crate) struct OwnTelemetry {
    /// All metrics of the last export.
    metrics: Arc<Mutex<Vec<Metric>>>,
    /// The names of all spans.
    spans: Arc<Mutex<Vec<String>>>,
}

/// A server that runs; ends when it is let go.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) received: OwnTelemetry,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl MetricsService for OwnTelemetry {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let resources = request.into_inner().resource_metrics;
        let scopes = resources.into_iter().flat_map(|r| r.scope_metrics);
        *self.metrics.lock().expect("the metrics") = scopes.flat_map(|s| s.metrics).collect();
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl TraceService for OwnTelemetry {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans = resources.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans);
        self.spans.lock().expect("the spans").extend(spans.map(|s| s.name));
        Ok(Response::new(Default::default()))
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let received = OwnTelemetry::default();
        let stop = CancellationToken::new();
        let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let port = incoming.local_addr().expect("an address").port();
        let router = tonic::transport::Server::builder()
            .add_service(MetricsServiceServer::new(received.clone()))
            .add_service(TraceServiceServer::new(received.clone()));
        tokio::spawn(router.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()));
        Self { port, received, stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl OwnTelemetry {
    /// The sum of the points of `name` that carry all of `labels`, in the last export.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let metrics = self.metrics.lock().expect("the metrics");
        let points = metrics.iter().filter(|m| m.name == name).filter_map(|m| match &m.data {
            Some(Data::Sum(sum)) => Some(&sum.data_points),
            Some(Data::Gauge(gauge)) => Some(&gauge.data_points),
            _ => None,
        });
        points.flatten().filter(|p| labels.iter().all(|(k, v)| label(&p.attributes, k) == Some(v))).map(value).sum()
    }

    /// The names of the spans that have come.
    pub(crate) fn spans(&self) -> Vec<String> {
        self.spans.lock().expect("the spans").clone()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.metrics.lock().expect("the metrics").clear();
        self.spans.lock().expect("the spans").clear();
    }
}

fn label<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    attributes.iter().find(|a| a.key == key).and_then(|a| match &a.value.as_ref()?.value {
        Some(Value::StringValue(text)) => Some(text.as_str()),
        _ => None,
    })
}

fn value(point: &NumberDataPoint) -> u64 {
    match point.value {
        Some(number_data_point::Value::AsInt(n)) => u64::try_from(n).unwrap_or(0),
        Some(number_data_point::Value::AsDouble(x)) => x as u64,
        None => 0,
    }
}
