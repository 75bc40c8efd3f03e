//! Writes anomalies and the events of their incidents to an Elasticsearch data stream, each at least once and visible once.

mod bulk;
mod config;
mod document;
mod incident;
mod template;
#[cfg(test)]
mod tests;
mod writer;

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

pub use bulk::{Outcome, read as read_bulk_answer};
pub use config::Config;

use crate::elasticsearch::{Client, closed};
use crate::model::{Payload, PayloadKind};
use crate::pipeline::{BuildError, ComponentError, DeadLetters, Delivery, Exporter, Factory, Input, Instance, Make, Problem};
use config::DataStream;
use writer::{Batch, Writer};

/// The component type.
pub const FACTORY: Factory = Factory {
    kind: "elasticsearch",
    about: "Writes anomalies and the events of their incidents to an Elasticsearch data stream.",
    acknowledgement: "An anomaly or event leaves the outbox when Elasticsearch has answered that it is in the data stream, once whatever fails; one that it can never take is on disk in the dead-letter file.",
    schema: |generator| closed(<Config as schemars::JsonSchema>::json_schema(generator)),
    implicit: false,
    files: &["ca_file"],
    gives: |kind| (kind == PayloadKind::Anomalies).then_some(kind),
    check,
    make: Make::Exporter(make),
};

fn check(config: &serde_json::Value) -> Vec<Problem> {
    match serde_json::from_value::<Config>(config.clone()) {
        Ok(config) => config.problems(),
        // The schema has told what is wrong, and where.
        Err(_) => Vec::new(),
    }
}

fn make(instance: Instance) -> Result<Box<dyn Exporter>, BuildError> {
    let Instance { config, context } = instance;
    let config: Config = serde_json::from_value(config).map_err(ComponentError::new)?;
    let opaque_id = format!("anomalyd/{}/{}", context.environment, context.id);
    let client = Client::new(&config.connection, &opaque_id).map_err(ComponentError::new)?;
    let stream = config.index.as_deref().and_then(DataStream::parse).unwrap_or_else(|| DataStream::of(&context.environment));
    let mut writer = Writer::new(&config, client, stream, DeadLetters::of(&context));
    writer.counters = context.counters;
    writer.health = context.health;
    Ok(Box::new(ElasticsearchExporter {
        writer,
        max_bytes: config.max_batch_size.as_usize(),
        flush_interval: config.flush_interval.get(),
    }))
}

struct ElasticsearchExporter {
    writer: Writer,
    /// A batch of this size does not wait for more.
    max_bytes: usize,
    flush_interval: Duration,
}

impl ElasticsearchExporter {
    /// The next delivery. While nothing comes, what setup could not do yet is tried again.
    async fn next(&mut self, input: &mut Input, retry_setup_at: &mut Option<Instant>) -> Option<Delivery> {
        while let Some(at) = *retry_setup_at {
            tokio::select! {
                delivery = input.recv() => return delivery,
                () = tokio::time::sleep_until(at) => *retry_setup_at = self.writer.prepare().await.map(|wait| Instant::now() + wait),
            }
        }
        input.recv().await
    }

    fn add(&self, batch: &mut Batch, delivery: Delivery) {
        let Delivery { payload, flight, .. } = delivery;
        match payload {
            // Its sender has it again.
            _ if flight.is_withdrawn() => flight.refused(),
            Payload::Anomalies(findings) => batch.add(findings, &self.writer.stream, flight),
            // The graph is checked, so nothing else comes.
            _ => flight.dropped_rest("not_anomalies"),
        }
    }
}

#[async_trait]
impl Exporter for ElasticsearchExporter {
    async fn run(mut self: Box<Self>, mut input: Input) -> Result<(), ComponentError> {
        let mut retry_setup_at = Some(Instant::now());
        while let Some(first) = self.next(&mut input, &mut retry_setup_at).await {
            let mut batch = Batch::default();
            self.add(&mut batch, first);
            let deadline = Instant::now() + self.flush_interval;
            while batch.bytes() < self.max_bytes {
                match tokio::time::timeout_at(deadline, input.recv()).await {
                    Ok(Some(delivery)) => self.add(&mut batch, delivery),
                    // Nothing more comes, or not soon enough.
                    Ok(None) | Err(_) => break,
                }
            }
            // Nothing is read while this batch waits, so the queue fills and those who send wait too.
            let withdrawn = batch.withdrawn();
            tokio::select! {
                () = self.writer.deliver(&mut batch) => {}
                () = withdrawn => batch.let_go(),
            }
        }
        Ok(())
    }
}
