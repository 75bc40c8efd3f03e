//! An OTLP server that keeps the metrics that a daemon exports about itself.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, metric::Data, number_data_point};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// What has come so far.
#[derive(Clone, Default)]
pub(crate) struct OwnTelemetry {
    /// All metrics of the last export.
    metrics: Arc<Mutex<Vec<Metric>>>,
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

impl Server {
    pub(crate) async fn start() -> Self {
        let received = OwnTelemetry::default();
        let stop = CancellationToken::new();
        let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let port = incoming.local_addr().expect("an address").port();
        let router = tonic::transport::Server::builder().add_service(MetricsServiceServer::new(received.clone()));
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

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.metrics.lock().expect("the metrics").clear();
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
