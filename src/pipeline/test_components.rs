//! Components that do as little as possible, for the tests of the engine.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::model::{
    Batch, Environment, Observations, Payload, PayloadKind, Signal, Span, SpanKind, Spans, StatusCode, Symbol, Telemetry,
    UnixNanos,
};

pub(super) const FACTORIES: &[Factory] = &[
    factory(
        "source",
        false,
        |k| matches!(k, PayloadKind::Telemetry(_)).then_some(k),
        Make::Receiver(|instance| Ok(Box::new(Source { instance }))),
    ),
    factory(
        "measure",
        true,
        |k| (k == PayloadKind::Telemetry(Signal::Traces)).then_some(PayloadKind::Observations),
        Make::Processor(|_| Ok(Box::new(Measure))),
    ),
    factory(
        "judge",
        true,
        |k| (k == PayloadKind::Observations).then_some(PayloadKind::Anomalies),
        Make::Connector(|_| Ok(Box::new(Judge))),
    ),
    factory(
        "loop",
        false,
        |k| (k == PayloadKind::Anomalies).then_some(PayloadKind::Anomalies),
        Make::Connector(|_| Ok(Box::new(Judge))),
    ),
    factory("sink", false, Some, Make::Exporter(|i| Ok(Box::new(Sink { config: i.config })))),
];

const fn factory(kind: &'static str, implicit: bool, gives: fn(PayloadKind) -> Option<PayloadKind>, make: Make) -> Factory {
    Factory {
        kind,
        about: "for tests",
        acknowledgement: "nothing is promised",
        schema: |_| schemars::json_schema!({ "type": "object" }),
        implicit,
        files: &["ca_file"],
        gives,
        check: |_| Vec::new(),
        make,
    }
}

/// `batches` batches of `spans` spans as fast as they are taken; then it waits for the shutdown.
struct Source {
    instance: ReceiverInstance,
}

#[async_trait]
impl Receiver for Source {
    async fn start(&mut self) -> Result<(), ComponentError> {
        match self.instance.instance.config.get("fail") {
            Some(_) => Err(ComponentError::new("the port is taken")),
            None => Ok(()),
        }
    }

    async fn run(self: Box<Self>) -> Result<(), ComponentError> {
        let number = |key| self.instance.instance.config.get(key).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let context = &self.instance.instance.context;
        for _ in 0..number("batches") {
            let payload = spans(&context.environment, number("spans") as usize);
            let flight = context.counters.begin(PayloadKind::Telemetry(Signal::Traces), payload.len());
            tokio::select! {
                sent = self.instance.outputs.traces.send(payload) => if sent.is_ok() { flight.sent() },
                () = context.shutdown.cancelled() => { flight.refused(); return Ok(()); }
            }
        }
        context.shutdown.cancelled().await;
        Ok(())
    }
}

fn spans(environment: &Environment, count: usize) -> Payload {
    let span = Span {
        resource: Default::default(),
        name: Symbol::EMPTY,
        kind: SpanKind::Server,
        status: StatusCode::Unset,
        start: UnixNanos(1),
        duration: 1,
        weight: 1.0,
        trace_id: [0; 16],
        span_id: [0; 8],
        parent_span_id: [0; 8],
        attributes: Default::default(),
    };
    let batch = Batch::Traces(Spans { rows: vec![span; count], ..Spans::default() });
    Payload::Telemetry(Arc::new(Telemetry { environment: environment.clone(), source: "source".into(), batch }))
}

/// Drops one span of each batch and makes nothing but an empty list of the rest.
struct Measure;

impl Processor for Measure {
    fn process(&mut self, payload: Payload) -> Processed {
        let Payload::Telemetry(telemetry) = payload else { return Processed::all(payload) };
        let observation = crate::model::Observation {
            entity: Arc::default(),
            metric: "span".into(),
            unit: "".into(),
            time: UnixNanos(1),
            measure: crate::model::Measure::Count(telemetry.len() as f64),
        };
        let observations = Observations {
            environment: telemetry.environment.clone(),
            source: telemetry.source.clone(),
            signal: Signal::Traces,
            items: vec![observation],
            newest: UnixNanos(1),
            versions: Vec::new(),
            calls: Vec::new(),
        };
        Processed { output: Some(Payload::Observations(Arc::new(observations))), dropped: vec![("filtered", 1)] }
    }
}

/// Passes on nothing at all.
struct Judge;

#[async_trait]
impl Connector for Judge {
    async fn run(self: Box<Self>, mut input: Input, _output: Output) -> Result<(), ComponentError> {
        while let Some(delivery) = input.recv().await {
            delivery.flight.sent();
        }
        Ok(())
    }
}

/// Takes everything; `stuck: true` takes one payload and never ends it.
struct Sink {
    config: serde_json::Value,
}

#[async_trait]
impl Exporter for Sink {
    async fn run(self: Box<Self>, mut input: Input) -> Result<(), ComponentError> {
        while let Some(delivery) = input.recv().await {
            if self.config.get("stuck").is_some() {
                tokio::time::sleep(Duration::from_secs(100_000)).await;
            }
            delivery.flight.sent();
        }
        Ok(())
    }
}
