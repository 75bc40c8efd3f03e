//! The daemon's own metrics, read from the component registry when somebody asks.

use crate::pipeline::{ComponentInfo, Pressure, Registry, resident};

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricType {
    /// Only grows.
    Counter,
    /// Goes up and down in whole numbers.
    Gauge,
    /// Goes up and down.
    Level,
}

/// One metric with all its labelled values.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Name without the `_total` that Prometheus adds to counters: `anomalyd_component_received`.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: MetricType,
    /// Its values.
    pub samples: Vec<Sample>,
}

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value; a whole number but for levels.
    pub value: f64,
}

/// All metrics as of now.
#[must_use]
pub fn families(registry: &Registry) -> Vec<Family> {
    let counter = |name, help| Family { name, help, kind: MetricType::Counter, samples: Vec::new() };
    let gauge = |name, help| Family { name, help, kind: MetricType::Gauge, samples: Vec::new() };
    let mut received = counter("anomalyd_component_received", "records that a component took in");
    let mut sent = counter("anomalyd_component_sent", "records that a component handed on");
    let mut refused =
        counter("anomalyd_component_refused", "records that were offered and not taken in; the sender still has them");
    let mut dropped = counter("anomalyd_component_dropped", "records that a component gave up, by reason");
    let mut in_flight = gauge("anomalyd_component_in_flight", "records taken in and neither handed on nor given up yet");
    let mut events = counter("anomalyd_component_events", "other things that a component counts");
    let mut shown =
        Family { kind: MetricType::Level, ..gauge("anomalyd_component_level", "what a component shows that goes up and down") };
    let mut status = gauge("anomalyd_component_status", "1 for the state that a component is in");
    let mut levels = gauge("anomalyd_component_series", "series that a detector has, by the state that they are in");
    for component in registry.all() {
        for (kind, counts) in component.counters.snapshot() {
            let labels = |more: Option<(&'static str, String)>| {
                let mut labels = base_labels(&component);
                labels.push(("payload", kind.to_string()));
                labels.extend(more);
                labels
            };
            received.samples.push(Sample { labels: labels(None), value: counts.received as f64 });
            sent.samples.push(Sample { labels: labels(None), value: counts.sent as f64 });
            refused.samples.push(Sample { labels: labels(None), value: counts.refused as f64 });
            in_flight.samples.push(Sample { labels: labels(None), value: counts.in_flight as f64 });
            for (reason, value) in &counts.dropped {
                dropped.samples.push(Sample { labels: labels(Some(("reason", (*reason).to_owned()))), value: *value as f64 });
            }
        }
        for (event, value) in component.counters.events() {
            let mut labels = base_labels(&component);
            labels.push(("event", event.to_owned()));
            events.samples.push(Sample { labels, value: value as f64 });
        }
        for (level, value) in component.counters.gauges() {
            let mut labels = base_labels(&component);
            labels.push(("level", level.to_owned()));
            shown.samples.push(Sample { labels, value });
        }
        for (state, value) in component.counters.all_levels() {
            let mut labels = base_labels(&component);
            labels.push(("state", state.to_owned()));
            levels.samples.push(Sample { labels, value: value as f64 });
        }
        let mut labels = base_labels(&component);
        labels.push(("status", component.health.get().name().to_owned()));
        status.samples.push(Sample { labels, value: 1.0 });
    }
    let mut asked = gauge("anomalyd_history_seconds", "how much history an environment learns before it goes live, seconds");
    let mut read = gauge("anomalyd_history_read_seconds", "how much of that history has been read, seconds");
    for (environment, history) in registry.histories() {
        let Some(progress) = history.progress() else { continue };
        let seconds = |to: crate::model::UnixNanos| to.secs().saturating_sub(progress.span.from.secs()) as f64;
        let sample = |value| Sample { labels: vec![("environment", environment.to_string())], value };
        asked.samples.push(sample(seconds(progress.span.until)));
        let until = progress.span.until;
        read.samples.push(sample(seconds(if progress.done { until } else { progress.reached.min(until) })));
    }
    let mut all = vec![received, sent, refused, dropped, in_flight, events, shown, status];
    all.extend([asked, read].into_iter().filter(|family| !family.samples.is_empty()));
    if !levels.samples.is_empty() {
        all.push(levels);
    }
    all.extend(outboxes(registry).into_iter().filter(|family| !family.samples.is_empty()));
    let memory = registry.memory();
    if let Some(limit) = memory.limit() {
        let one = |labels, value| Sample { labels, value };
        let pressure = memory.pressure();
        let state = |p: Pressure| one(vec![("state", p.as_str().to_owned())], f64::from(u8::from(p == pressure)));
        all.push(Family {
            samples: vec![one(Vec::new(), limit as f64)],
            ..gauge("anomalyd_memory_limit_bytes", "memory that the daemon may use, bytes")
        });
        all.push(Family {
            samples: Pressure::ALL.map(state).to_vec(),
            ..gauge("anomalyd_memory_pressure", "1 for how near the memory limit is: normal, tight (from 85 % on), full")
        });
    }
    all.extend(resident().map(|bytes| Family {
        samples: vec![Sample { labels: Vec::new(), value: bytes as f64 }],
        ..gauge("process_resident_memory_bytes", "memory of the process that is in use, bytes")
    }));
    all.push(Family {
        samples: vec![Sample { labels: vec![("version", env!("CARGO_PKG_VERSION").to_owned())], value: 1.0 }],
        ..gauge("anomalyd_build_info", "1, labelled with the version")
    });
    all
}

/// What waits for exporters.
fn outboxes(registry: &Registry) -> Vec<Family> {
    let empty = |name, help, kind| Family { name, help, kind, samples: Vec::new() };
    let (counter, gauge) = (MetricType::Counter, MetricType::Gauge);
    let mut waiting = empty("anomalyd_outbox_waiting", "findings that wait for an exporter", gauge);
    let mut bytes = empty("anomalyd_outbox_waiting_bytes", "bytes of the findings that wait for an exporter", gauge);
    let mut oldest =
        empty("anomalyd_outbox_oldest_seconds", "how long the oldest of them has been waiting, seconds", MetricType::Level);
    let mut delivered = empty("anomalyd_outbox_delivered", "findings that an exporter has kept", counter);
    let mut dead = empty("anomalyd_outbox_dead_letters", "findings that went to the dead letters for want of room", counter);
    for outbox in registry.outboxes() {
        let labels = || {
            vec![
                ("environment", outbox.environment.to_string()),
                ("component", outbox.detector.clone()),
                ("exporter", outbox.target.clone()),
            ]
        };
        let sample = |value: f64| Sample { labels: labels(), value };
        waiting.samples.push(sample(outbox.waiting as f64));
        bytes.samples.push(sample(outbox.bytes as f64));
        oldest.samples.push(sample(outbox.oldest));
        delivered.samples.push(sample(outbox.delivered as f64));
        dead.samples.push(sample(outbox.dead_letters as f64));
    }
    vec![waiting, bytes, oldest, delivered, dead]
}

fn base_labels(component: &ComponentInfo) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("environment", component.environment.to_string()),
        ("class", component.class.as_str().to_owned()),
        ("component", component.id.to_string()),
    ];
    labels.extend(component.pipeline.clone().map(|pipeline| ("pipeline", pipeline)));
    labels
}
