//! Writes incidents and their anomalies to stdout: readable for people, or as NDJSON for programs. See `README.md` in this folder.

mod config;
mod incident;
mod render;

use std::io::{ErrorKind, Write};

use async_trait::async_trait;
use schemars::JsonSchema as _;

pub use config::{Config, Format};
pub use incident::blocks;
pub use render::{headline, render};

use crate::model::{Findings, Payload, PayloadKind};
use crate::pipeline::{BuildError, ComponentError, Context, Exporter, Factory, Input, Instance, Make, Status};

/// The `console` exporter.
pub const FACTORY: Factory = Factory {
    kind: "console",
    about: "Writes incidents and their anomalies to stdout, readable or as one JSON object per line.",
    acknowledgement: "An anomaly or event leaves the outbox when it has been written to stdout; nothing is kept for a stdout that is closed, and a crash or a full disk may print the last ones again.",
    schema: Config::json_schema,
    implicit: true,
    files: &[],
    gives: |kind| (kind == PayloadKind::Anomalies).then_some(kind),
    check: |_| Vec::new(),
    make: Make::Exporter(make),
};

fn make(instance: Instance) -> Result<Box<dyn Exporter>, BuildError> {
    let config: Config = serde_json::from_value(instance.config).map_err(BuildError::new)?;
    Ok(Box::new(Console { format: config.format, context: instance.context, out: Box::new(std::io::stdout()), begun: false }))
}

struct Console {
    format: Format,
    context: Context,
    out: Box<dyn Write + Send>,
    /// Something was written.
    begun: bool,
}

#[async_trait]
impl Exporter for Console {
    async fn run(mut self: Box<Self>, mut input: Input) -> Result<(), ComponentError> {
        let mut closed = false;
        while let Some(delivery) = input.recv().await {
            if delivery.flight.is_withdrawn() {
                delivery.flight.refused();
                continue;
            }
            let Payload::Anomalies(findings) = delivery.payload else {
                delivery.flight.dropped_rest("unsupported_payload");
                continue;
            };
            if closed {
                delivery.flight.dropped_rest("stdout_closed");
                continue;
            }
            // A terminal that is held (Ctrl-S) or a slow reader of a pipe must not hold a thread of the runtime.
            let context = self.context.clone();
            let written = tokio::task::spawn_blocking(move || {
                let result = self.write(&findings);
                (self, result)
            })
            .await;
            let result = match written {
                Ok((console, result)) => {
                    self = console;
                    result
                }
                Err(error) => {
                    delivery.flight.refused();
                    return Err(ComponentError(format!("the writer of stdout ended: {error}")));
                }
            };
            match result {
                Ok(()) => {
                    context.health.set(Status::Ok);
                    delivery.flight.sent();
                }
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    closed = true;
                    let message = "stdout was closed by its reader; further anomalies are not printed, everything else goes on";
                    tracing::warn!(environment = %context.environment, component = %context.id, message);
                    context.health.set(Status::PermanentError(message.to_owned()));
                    delivery.flight.dropped_rest("stdout_closed");
                }
                Err(error) => {
                    let message = format!("cannot write to stdout: {error}; it is tried again");
                    context.counters.event("write_errors", 1);
                    delivery.flight.refused_because(&message);
                    context.health.set(Status::RecoverableError(message));
                }
            }
        }
        Ok(())
    }
}

impl Console {
    /// Writes a batch in one go, so that the lines of several environments do not mix.
    fn write(&mut self, findings: &Findings) -> std::io::Result<()> {
        let mut text = Vec::with_capacity(512 * findings.len());
        match self.format {
            Format::Json => {
                for anomaly in &findings.anomalies {
                    serde_json::to_writer(&mut text, anomaly)?;
                    text.push(b'\n');
                }
                for incident in &findings.incidents {
                    serde_json::to_writer(&mut text, incident)?;
                    text.push(b'\n');
                }
            }
            Format::Text => {
                for block in blocks(findings) {
                    if self.begun || !text.is_empty() {
                        text.push(b'\n');
                    }
                    text.extend_from_slice(block.as_bytes());
                }
                text = for_stdout(text);
            }
        }
        self.out.write_all(&text)?;
        self.begun = true;
        self.out.flush()
    }
}

/// Takes the colours out where stdout is not a terminal, or `NO_COLOR` says so.
fn for_stdout(text: Vec<u8>) -> Vec<u8> {
    if anstream::AutoStream::choice(&std::io::stdout()) == anstream::ColorChoice::Never {
        anstream::adapter::strip_bytes(&text).into_vec()
    } else {
        text
    }
}

#[cfg(test)]
mod tests;
