//! Writes anomalies and incidents to a file, one JSON object per line.

mod config;
mod tail;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;

pub use config::{Config, Rotation};

use crate::model::{Findings, Payload, PayloadKind};
use crate::pipeline::{BuildError, ComponentError, Context, Exporter, Factory, Flight, Input, Instance, Make, Problem, Status};
use crate::storage::LineFile;

/// The first wait after a write that failed; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Deliveries that wait already are written together up to about this many bytes.
const MAX_BATCH: usize = 1 << 20;

/// The component type.
pub const FACTORY: Factory = Factory {
    kind: "file",
    about: "Writes anomalies and the events of their incidents to a file, one JSON object per line.",
    acknowledgement: "An anomaly or event leaves the outbox when it is on disk; after a crash it is known by the end of the file, and not written again.",
    schema: <Config as schemars::JsonSchema>::json_schema,
    implicit: false,
    files: &[],
    gives: |kind| (kind == PayloadKind::Anomalies).then_some(kind),
    check,
    make: Make::Exporter(make),
};

fn check(config: &serde_json::Value) -> Vec<Problem> {
    let Ok(config) = serde_json::from_value::<Config>(config.clone()) else { return Vec::new() };
    let mut problems = Vec::new();
    if config.path.as_os_str().is_empty() || config.path.is_dir() {
        problems.push(Problem {
            path: vec!["path".to_owned()],
            message: format!("`{}` is not a file: expected a path such as `/var/log/anomalies.ndjson`", config.path.display()),
            hint: None,
            fatal: true,
        });
    }
    problems
}

fn make(instance: Instance) -> Result<Box<dyn Exporter>, BuildError> {
    let Instance { config, context } = instance;
    let config: Config = serde_json::from_value(config).map_err(ComponentError::new)?;
    let rotation = config.rotation.map(|r| crate::storage::Rotation { max_size: r.max_size.bytes(), backups: r.backups });
    Ok(Box::new(FileExporter { file: LineFile::new(config.path, rotation), context, known: HashSet::new() }))
}

struct FileExporter {
    file: LineFile,
    context: Context,
    /// Ids of what the file held at its end when this began.
    known: HashSet<String>,
}

impl FileExporter {
    /// Writes `lines`, however long it takes.
    async fn write(&self, lines: Bytes) {
        if lines.is_empty() {
            return;
        }
        let mut wait = FIRST_WAIT;
        let mut trouble: Option<String> = None;
        while let Err(error) = self.try_write(lines.clone()).await {
            self.context.counters.event("write_errors", 1);
            if trouble.as_ref() != Some(&error) {
                tracing::warn!(environment = %self.context.environment, exporter = %self.context.id, "anomalies wait: {error}");
                let message = format!("{error}; it is tried again: make room there, or correct `path`");
                self.context.health.set(Status::RecoverableError(message));
                trouble = Some(error);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
        if trouble.is_some() {
            self.context.health.set(Status::Ok);
        }
    }

    async fn try_write(&self, lines: Bytes) -> Result<(), String> {
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || file.append(&lines)).await;
        written.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
    }
}

impl FileExporter {
    /// Adds one line per anomaly and per event of an incident, but for those that are in the file already.
    fn add(&self, lines: &mut Vec<u8>, findings: &Findings, flight: &mut Flight) {
        for finding in findings.iter() {
            if self.known.contains(&finding.id()) {
                self.context.counters.event("already_written", 1);
                continue;
            }
            match serde_json::to_vec(&finding) {
                Ok(line) => {
                    lines.extend_from_slice(&line);
                    lines.push(b'\n');
                }
                Err(error) => {
                    tracing::error!(id = finding.id(), %error, "a finding cannot be written as JSON");
                    flight.dropped(1, "not_json");
                }
            }
        }
    }

    /// What the file holds at its end: before a crash it may have been written, and the outbox not told.
    async fn read_tail(&mut self) {
        let (path, backup) = (self.file.path().to_owned(), self.file.backup(1));
        let read = tokio::task::spawn_blocking(move || tail::ids(&path, &backup)).await;
        self.known = read.map_err(ComponentError::new).and_then(|ids| ids.map_err(ComponentError::new)).unwrap_or_else(|error| {
            let (environment, exporter) = (&self.context.environment, &self.context.id);
            tracing::warn!(%environment, %exporter, %error, "the end of the file cannot be read; what was written right before a crash may be written again");
            HashSet::new()
        });
    }
}

#[async_trait]
impl Exporter for FileExporter {
    async fn run(mut self: Box<Self>, mut input: Input) -> Result<(), ComponentError> {
        let mut begun = false;
        while let Some(first) = input.recv().await {
            if !std::mem::replace(&mut begun, true) {
                self.read_tail().await;
            }
            let (mut lines, mut flights) = (Vec::new(), Vec::new());
            let mut next = Some(first);
            while let Some(mut delivery) = next {
                match &delivery.payload {
                    // Its sender has it again.
                    _ if delivery.flight.is_withdrawn() => delivery.flight.refused(),
                    Payload::Anomalies(findings) => {
                        self.add(&mut lines, findings, &mut delivery.flight);
                        flights.push(delivery.flight);
                    }
                    // The graph is checked, so nothing else comes.
                    _ => delivery.flight.dropped_rest("not_anomalies"),
                }
                next = if lines.len() < MAX_BATCH { input.try_recv() } else { None };
            }
            let withdrawn = join_all(flights.iter().map(Flight::withdrawn).collect::<Vec<_>>());
            let written = tokio::select! {
                () = self.write(lines.into()) => true,
                _ = withdrawn => false,
            };
            flights.into_iter().for_each(if written { Flight::sent } else { Flight::refused });
        }
        Ok(())
    }
}
