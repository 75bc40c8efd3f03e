//! The daemon's own metrics in the OpenMetrics text format, which Prometheus reads.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, text::encode};
use prometheus_client::metrics::MetricType as Type;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry as Collectors;

use crate::pipeline::Registry;
use crate::telemetry::{MetricType, families};

/// OpenMetrics 1.0.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug)]
struct Components(Registry);

impl Collector for Components {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for family in families(&self.0) {
            let kind = match family.kind {
                MetricType::Counter => Type::Counter,
                MetricType::Gauge | MetricType::Level => Type::Gauge,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for sample in &family.samples {
                let one = metric.encode_family(&sample.labels)?;
                match family.kind {
                    MetricType::Counter => ConstCounter::new(sample.value as u64).encode(one)?,
                    MetricType::Gauge => ConstGauge::new(sample.value as u64).encode(one)?,
                    MetricType::Level => ConstGauge::new(sample.value).encode(one)?,
                }
            }
        }
        Ok(())
    }
}

/// All metrics as text.
pub(super) fn text(registry: &Registry) -> Result<String, std::fmt::Error> {
    let mut collectors = Collectors::default();
    collectors.register_collector(Box::new(Components(registry.clone())));
    let mut text = String::new();
    encode(&mut text, &collectors)?;
    Ok(text)
}
