//! An exporter that only the demo knows: it hands what is found to the demo, which prints and judges it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::model::{Findings, Payload, PayloadKind};
use crate::pipeline::{BuildError, ComponentError, Exporter, Factory, Input, Instance, Make};

/// The `demo` exporter.
pub(super) const FACTORY: Factory = Factory {
    kind: "demo",
    about: "Hands anomalies and incidents to the demo that runs in the same process.",
    acknowledgement: "An anomaly or event counts as sent when the demo has taken it.",
    schema: Config::json_schema,
    implicit: false,
    files: &[],
    gives: |kind| (kind == PayloadKind::Anomalies).then_some(kind),
    check: |_| Vec::new(),
    make: Make::Exporter(make),
};

/// Configuration of the `demo` exporter.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Name of the inbox that the demo has opened.
    inbox: String,
}

/// A factory is a plain function and can hold no channel, so the exporter finds its inbox here, by name.
static INBOXES: LazyLock<Mutex<HashMap<String, mpsc::Sender<Arc<Findings>>>>> = LazyLock::new(Mutex::default);

fn inboxes() -> MutexGuard<'static, HashMap<String, mpsc::Sender<Arc<Findings>>>> {
    INBOXES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the exporters of one demo run have handed over. Closed when it is let go.
pub(super) struct Inbox {
    name: String,
    receiver: mpsc::Receiver<Arc<Findings>>,
}

impl Inbox {
    /// Opens the inbox `name`; one of the same name is replaced.
    pub(super) fn open(name: &str) -> Self {
        let (sender, receiver) = mpsc::channel(1_024);
        inboxes().insert(name.to_owned(), sender);
        Self { name: name.to_owned(), receiver }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// No further exporter can send to it, so that it ends when those that do have ended.
    pub(super) fn seal(&self) {
        inboxes().remove(&self.name);
    }

    /// What is found next, or `None` when it is sealed and all exporters have ended.
    pub(super) async fn recv(&mut self) -> Option<Arc<Findings>> {
        self.receiver.recv().await
    }

    /// What is found next if it is waiting.
    pub(super) fn try_recv(&mut self) -> Option<Arc<Findings>> {
        self.receiver.try_recv().ok()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.seal();
    }
}

fn make(instance: Instance) -> Result<Box<dyn Exporter>, BuildError> {
    let config: Config = serde_json::from_value(instance.config).map_err(BuildError::new)?;
    let sender = inboxes().get(&config.inbox).cloned();
    let missing = || BuildError::new(format!("inbox `{}` is not open: this exporter is the demo's own", config.inbox));
    let sender = sender.ok_or_else(missing)?;
    Ok(Box::new(Collect { sender }))
}

struct Collect {
    sender: mpsc::Sender<Arc<Findings>>,
}

#[async_trait]
impl Exporter for Collect {
    async fn run(self: Box<Self>, mut input: Input) -> Result<(), ComponentError> {
        while let Some(delivery) = input.recv().await {
            let Payload::Anomalies(findings) = delivery.payload else {
                delivery.flight.dropped_rest("unsupported_payload");
                continue;
            };
            match self.sender.send(findings).await {
                Ok(()) => delivery.flight.sent(),
                Err(_) => delivery.flight.dropped_rest("demo_ended"),
            }
        }
        Ok(())
    }
}
