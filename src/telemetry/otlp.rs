//! The daemon's own traces and metrics over OTLP/gRPC, so that it can be watched like any other service.

use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::Layer;

use super::families::{MetricType, families};
use crate::config::Otlp;
use crate::pipeline::Registry;

/// The running export; ends with [`OwnTelemetry::shutdown`].
#[derive(Debug, Default)]
pub struct OwnTelemetry {
    tracer: Option<SdkTracerProvider>,
    meter: Option<SdkMeterProvider>,
}

impl OwnTelemetry {
    pub(super) fn start(settings: Option<&Otlp>, registry: &Registry) -> Result<Self, String> {
        let Some(settings) = settings else { return Ok(Self::default()) };
        let fail = |e: &dyn std::fmt::Display| format!("telemetry.otlp.endpoint `{}`: {e}", settings.endpoint);
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let spans = SpanExporter::builder().with_tonic().with_endpoint(&settings.endpoint).build().map_err(|e| fail(&e))?;
        let points = MetricExporter::builder().with_tonic().with_endpoint(&settings.endpoint).build().map_err(|e| fail(&e))?;
        let tracer = SdkTracerProvider::builder().with_batch_exporter(spans).with_resource(resource.clone()).build();
        let reader = PeriodicReader::builder(points).with_interval(settings.interval.get()).build();
        let meter = SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build();
        register(&meter, registry);
        global::set_tracer_provider(tracer.clone());
        Ok(Self { tracer: Some(tracer), meter: Some(meter) })
    }

    /// The layer that turns `tracing` spans into exported ones.
    pub(super) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    {
        let tracer = self.tracer.as_ref()?.tracer("anomalyd");
        // The export's own transport speaks through tracing too; exporting that would never end.
        let own = tracing_subscriber::filter::filter_fn(|meta| meta.target().starts_with("anomalyd"));
        Some(tracing_opentelemetry::layer().with_tracer(tracer).with_filter(own))
    }

    /// Sends what is left. Blocks until it is sent or given up, at most a few seconds.
    pub fn shutdown(self) {
        let limit = Duration::from_secs(5);
        let traces = self.tracer.map(|t| t.shutdown_with_timeout(limit));
        let metrics = self.meter.map(|m| m.shutdown_with_timeout(limit));
        for error in [traces, metrics].into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, "the daemon's own last telemetry was not delivered");
        }
    }
}

/// One observable instrument per family; its callback reads the registry when the reader asks.
fn register(provider: &SdkMeterProvider, registry: &Registry) {
    let meter = provider.meter("anomalyd");
    for family in families(registry) {
        let (name, registry) = (family.name, registry.clone());
        let values = move || {
            let family = families(&registry).into_iter().find(|f| f.name == name);
            family.into_iter().flat_map(|f| f.samples).map(|sample| {
                let labels: Vec<KeyValue> = sample.labels.into_iter().map(|(k, v)| KeyValue::new(k, v)).collect();
                (sample.value, labels)
            })
        };
        match family.kind {
            MetricType::Counter => {
                let instrument = meter.u64_observable_counter(name).with_description(family.help);
                instrument
                    .with_callback(move |to| values().for_each(|(value, labels)| to.observe(value as u64, &labels)))
                    .build();
            }
            MetricType::Gauge | MetricType::Level => {
                let instrument = meter.f64_observable_gauge(name).with_description(family.help);
                instrument.with_callback(move |to| values().for_each(|(value, labels)| to.observe(value, &labels))).build();
            }
        }
    }
}
