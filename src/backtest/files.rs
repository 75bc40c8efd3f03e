//! A receiver of rows from files: values become metric points, as a gauge would send them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::Value as Json;

use super::rows::{Merged, Row};
use crate::model::{
    Batch, Metric, MetricKind, Payload, PayloadKind, Point, PointValue, Points, Signal, SourceId, Telemetry, UnixNanos, Value,
};
use crate::pipeline::{BuildError, ComponentError, Context, Factory, Make, Outputs, Receiver, ReceiverInstance, Span};

/// Points in one batch.
const BATCH: usize = 2_000;
/// All points are of this kind.
const KIND: PayloadKind = PayloadKind::Telemetry(Signal::Metrics);

/// The receiver's type. Not one that a pipeline file may name.
pub(super) const FACTORY: Factory = Factory {
    kind: "files",
    about: "Reads values from files.",
    acknowledgement: "A row counts as read when the pipeline has taken it.",
    schema: |generator| generator.subschema_for::<Json>(),
    implicit: false,
    files: &[],
    gives: |kind| (kind == KIND).then_some(kind),
    check: |_| Vec::new(),
    make: Make::Receiver(make),
};

#[derive(Deserialize)]
struct Config {
    inputs: Vec<PathBuf>,
}

fn make(ReceiverInstance { instance, outputs, .. }: ReceiverInstance) -> Result<Box<dyn Receiver>, BuildError> {
    let Config { inputs } = serde_json::from_value(instance.config).map_err(BuildError::new)?;
    Ok(Box::new(Files { inputs, outputs, context: instance.context, rows: None }))
}

struct Files {
    inputs: Vec<PathBuf>,
    outputs: Outputs,
    context: Context,
    rows: Option<Merged>,
}

#[async_trait]
impl Receiver for Files {
    async fn start(&mut self) -> Result<(), ComponentError> {
        self.rows = Some(Merged::open(&self.inputs).map_err(ComponentError)?);
        Ok(())
    }

    async fn run(self: Box<Self>) -> Result<(), ComponentError> {
        let Self { rows, outputs, context, .. } = *self;
        let Some(rows) = rows else { return Ok(()) };
        let out = Out { outputs, context };
        let Context { environment, id, services, shutdown, .. } = &out.context;
        let history = services.registry.history(environment);
        let Some(Span { from, until, .. }) = history.span() else { return Ok(()) };
        let reader = id.to_string();
        history.join(&reader, UnixNanos(0));
        let mut batch = Pending::default();
        let mut failed = None;
        for row in rows {
            let row = match row {
                Ok(row) if row.time < from || row.time >= until => continue,
                Ok(row) => row,
                Err(error) => {
                    failed = Some(ComponentError(error));
                    break;
                }
            };
            batch.add(&row);
            if batch.points.rows.len() >= BATCH {
                out.hand_over(&mut batch).await?;
                if shutdown.is_cancelled() {
                    break;
                }
            }
        }
        out.hand_over(&mut batch).await?;
        if failed.is_none() && !shutdown.is_cancelled() {
            // The last rows' bucket is complete: there are no more.
            let reached = history.progress().map_or(from, |p| p.reached);
            history.reached(&reader, reached.plus(3600 * UnixNanos::SECOND).min(until), None, 0);
        }
        history.done(&reader);
        failed.map_or(Ok(()), Err)
    }
}

/// Where rows go.
struct Out {
    outputs: Outputs,
    context: Context,
}

impl Out {
    async fn hand_over(&self, batch: &mut Pending) -> Result<(), ComponentError> {
        let Pending { points, first, last, rows, .. } = std::mem::take(batch);
        if points.rows.is_empty() {
            return Ok(());
        }
        let Context { environment, id, services, counters, .. } = &self.context;
        let flight = counters.begin(KIND, points.rows.len());
        let source = SourceId::from(id.to_string());
        let telemetry = Telemetry { environment: environment.clone(), source, batch: Batch::Metrics(points) };
        if self.outputs.metrics.send(Payload::Telemetry(Arc::new(telemetry))).await.is_err() {
            flight.refused();
            return Err(ComponentError::new("the detector has ended early"));
        }
        flight.sent();
        services.registry.history(environment).reached(&id.to_string(), last, Some(first), rows);
        Ok(())
    }
}

/// A batch that is being filled.
#[derive(Default)]
struct Pending {
    points: Points,
    metrics: HashMap<String, u32>,
    first: UnixNanos,
    last: UnixNanos,
    rows: u64,
}

impl Pending {
    fn add(&mut self, row: &Row) {
        if self.rows == 0 {
            self.first = row.time;
        }
        self.rows += 1;
        self.last = self.last.max(row.time);
        let points = &mut self.points;
        for (name, value) in &row.values {
            let metric = match self.metrics.get(&name.metric) {
                Some(known) => *known,
                None => {
                    let number = u32::try_from(points.metrics.len()).unwrap_or(u32::MAX);
                    let (symbol, unit) = (points.symbols.intern(&name.metric), points.symbols.intern(""));
                    points.metrics.push(Metric { name: symbol, unit, kind: MetricKind::Gauge });
                    self.metrics.insert(name.metric.clone(), number);
                    number
                }
            };
            let mark = points.attributes.mark();
            let (key, service) = (points.symbols.intern("service.name"), points.symbols.intern(&name.service));
            points.attributes.push(key, Value::Str(service));
            let resource = points.attributes.since(mark);
            points.rows.push(Point {
                resource,
                metric,
                time: row.time,
                start: UnixNanos(0),
                value: PointValue::Number(*value),
                attributes: points.attributes.since(points.attributes.mark()),
            });
        }
    }
}
