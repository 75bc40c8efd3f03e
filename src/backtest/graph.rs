//! The graph of a backtest: an environment's own, but for its ends.

use std::path::PathBuf;

use async_trait::async_trait;
use indexmap::IndexMap;
use serde_json::{Value, json};

use super::{files, rows};
use crate::components;
use crate::model::{Environment, Payload, PayloadKind, UnixNanos};
use crate::pipeline::{
    self, BuildError, Class, ComponentError, ComponentId, Context, EnvironmentSpec, Exporter, Factory, Input, Instance, Make,
    PipelineKind, PipelineSpec, Plan, Span,
};

/// What is to be run.
#[derive(Clone)]
pub struct Job {
    /// The graph.
    pub plan: Plan,
    /// The time that is read.
    pub span: Span,
    /// What the clock shows.
    pub now: UnixNanos,
    /// What is read, in words.
    pub sources: Vec<String>,
    /// What is left out of the configuration, in sentences.
    pub left_out: Vec<String>,
    /// What is worth knowing about the input, in sentences.
    pub notes: Vec<String>,
}

/// The end of the graph: hands anomalies to who looks on.
const COLLECT: Factory = Factory {
    kind: "backtest",
    about: "Collects anomalies for a report.",
    acknowledgement: "An anomaly counts as sent when it is in the report.",
    schema: |generator| generator.subschema_for::<Value>(),
    implicit: true,
    files: &[],
    gives: |kind| (kind == PayloadKind::Anomalies).then_some(kind),
    check: |_| Vec::new(),
    make: Make::Exporter(collect),
};

fn collect(instance: Instance) -> Result<Box<dyn Exporter>, BuildError> {
    Ok(Box::new(Collect(instance.context)))
}

struct Collect(Context);

#[async_trait]
impl Exporter for Collect {
    async fn run(self: Box<Self>, mut input: Input) -> Result<(), ComponentError> {
        let observer = self.0.services.registry.observer();
        while let Some(delivery) = input.recv().await {
            if let (Payload::Anomalies(anomalies), Some(observer)) = (&delivery.payload, &observer) {
                observer.findings(anomalies);
            }
            delivery.flight.sent();
        }
        Ok(())
    }
}

/// All types of components that a backtest knows.
fn factories() -> Vec<Factory> {
    let mut all = components::FACTORIES.to_vec();
    all.extend([COLLECT, files::FACTORY]);
    all
}

fn id(text: &str) -> Result<ComponentId, String> {
    ComponentId::parse(text)
}

/// The job of an environment: its pipelines, fed by those of its receivers that can read the past.
///
/// # Errors
/// A sentence: none of its receivers can.
pub fn of_environment(plan: &Plan, span: Span, now: UnixNanos) -> Result<Job, String> {
    let (mut spec, name) = (plan.spec.clone(), &plan.spec.environment);
    let reads = |id: &ComponentId| components::READ_THE_PAST.contains(&id.kind());
    let used: Vec<&ComponentId> = plan.used.iter().filter(|u| u.factory.class() == Class::Receiver).map(|u| &u.id).collect();
    let (readers, pushed): (Vec<&ComponentId>, Vec<&ComponentId>) = used.into_iter().partition(|id| reads(id));
    let names = |ids: &[&ComponentId]| ids.iter().map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
    if readers.is_empty() {
        return Err(format!(
            "environment `{name}` has no receiver that can read the past, only {}, to which data is sent: add an \
             `elasticsearch` receiver to one of its pipelines, or give files with --input",
            names(&pushed)
        ));
    }
    let left_out = pushed.iter().map(|id| format!("receiver `{id}` is left out: what is sent to it is not kept anywhere"));
    let left_out = left_out.collect();
    let collector = id(COLLECT.kind)?;
    for (pipeline, parts) in &mut spec.pipelines {
        if PipelineKind::of(pipeline) == Some(PipelineKind::Anomalies) {
            parts.exporters = vec![collector.clone()];
        } else {
            parts
                .receivers
                .retain(|id| reads(id) || spec.connectors.contains_key(id) || plan.find(Class::Connector, id).is_some());
            parts.exporters.retain(|id| plan.find(Class::Connector, id).is_some());
        }
    }
    spec.exporters = IndexMap::from([(collector, json!({}))]);
    spec.receivers.retain(|id, _| reads(id));
    prune(&mut spec);
    let sources = readers.iter().map(ToString::to_string).collect();
    Ok(Job { plan: planned(&spec)?, span, now, sources, left_out, notes: Vec::new() })
}

/// Takes out what nothing comes to any more.
fn prune(spec: &mut EnvironmentSpec) {
    loop {
        let fed: Vec<ComponentId> = spec.pipelines.values().flat_map(|p| p.exporters.clone()).collect();
        let before = spec.pipelines.len();
        let receivers = &spec.receivers;
        for parts in spec.pipelines.values_mut() {
            parts.receivers.retain(|id| receivers.contains_key(id) || fed.contains(id));
        }
        spec.pipelines.retain(|_, parts| !parts.receivers.is_empty() && !parts.exporters.is_empty());
        if spec.pipelines.len() == before {
            break;
        }
    }
    let named = |of: fn(&PipelineSpec) -> Vec<ComponentId>| spec.pipelines.values().flat_map(of).collect::<Vec<_>>();
    let (receivers, processors) = (named(|p| p.receivers.clone()), named(|p| p.processors.clone()));
    let exporters = named(|p| p.exporters.clone());
    spec.receivers.retain(|id, _| receivers.contains(id));
    spec.processors.retain(|id, _| processors.contains(id));
    spec.connectors.retain(|id, _| exporters.contains(id));
}

fn planned(spec: &EnvironmentSpec) -> Result<Plan, String> {
    pipeline::plan(spec, &factories()).map_err(|problems| {
        let told: Vec<String> = problems.into_iter().map(|p| p.message).collect();
        format!("the pipelines of environment `{}` cannot be run over the past: {}", spec.environment, told.join("; "))
    })
}

/// The job of files, judged by the detector of `like`, or by one with its defaults.
///
/// # Errors
/// A sentence: what cannot be read.
pub fn of_files(inputs: &[PathBuf], like: Option<&Plan>, span: Span) -> Result<Job, String> {
    let detector = like.and_then(|plan| plan.used.iter().find(|u| u.factory.class() == Class::Connector));
    let surveyed = rows::survey(inputs)?;
    let step = surveyed.step.round().clamp(10.0, 3600.0) as u64 / 10 * 10;
    let mut notes = surveyed.notes;
    let mut config = detector.map_or_else(|| json!({}), |used| used.config.clone());
    let configured = config.get("bucket").and_then(Value::as_str).map(str::to_owned);
    let configured = if detector.is_some() { Some(configured.unwrap_or_else(|| "1m".to_owned())) } else { None };
    match configured.as_deref().map(|text| (text.to_owned(), humantime::parse_duration(text))) {
        Some((text, Ok(bucket))) => {
            if bucket.as_secs_f64() < surveyed.step * 0.9 {
                notes.push(format!(
                    "rows are {} apart, and the configured bucket is {text}: most buckets are empty; a bucket as long as the step judges better",
                    humantime::format_duration(std::time::Duration::from_secs_f64(surveyed.step.round()))
                ));
            }
        }
        _ => {
            if let Some(config) = config.as_object_mut() {
                config.insert("bucket".to_owned(), format!("{step}s").into());
            }
            if surveyed.step > 3600.0 * 1.1 {
                notes.push("rows are more than 1h apart: the longest bucket is 1h, so most buckets are empty".to_owned());
            }
        }
    }
    let environment = like.map_or_else(|| Environment::new("history"), |plan| plan.spec.environment.clone());
    let (reader, detector) = (id(files::FACTORY.kind)?, detector.map_or_else(|| id("detector"), |used| Ok(used.id.clone()))?);
    let collector = id(COLLECT.kind)?;
    let paths: Vec<String> = inputs.iter().map(|path| path.display().to_string()).collect();
    let pipeline = |from: &ComponentId, to: &ComponentId| PipelineSpec {
        receivers: vec![from.clone()],
        processors: Vec::new(),
        exporters: vec![to.clone()],
    };
    let spec = EnvironmentSpec {
        environment,
        default: false,
        pipelines: IndexMap::from([
            ("metrics".to_owned(), pipeline(&reader, &detector)),
            ("anomalies".to_owned(), pipeline(&detector, &collector)),
        ]),
        receivers: IndexMap::from([(reader, json!({ "inputs": paths }))]),
        processors: IndexMap::new(),
        connectors: IndexMap::from([(detector, config)]),
        exporters: IndexMap::from([(collector, json!({}))]),
    };
    // Files may hold times of years to come; the clock is ahead of all of them.
    let now = UnixNanos(u64::MAX / 2).max(span.from);
    Ok(Job { plan: planned(&spec)?, span, now, sources: paths, left_out: Vec::new(), notes })
}
