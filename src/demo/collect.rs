//! An exporter that only the demo knows: it hands the anomalies to the demo, which prints and judges them.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::model::{Anomaly, Payload, PayloadKind};
use crate::pipeline::{BuildError, ComponentError, Exporter, Factory, Input, Instance, Make};

/// The `demo` exporter.
pub(super) const FACTORY: Factory = Factory {
    kind: "demo",
    about: "Hands anomalies to the demo that runs in the same process.",
    acknowledgement: "An anomaly counts as sent when the demo has taken it.",
    schema: Config::json_schema,
    implicit: false,
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
static INBOXES: LazyLock<Mutex<HashMap<String, mpsc::Sender<Anomaly>>>> = LazyLock::new(Mutex::default);

fn inboxes() -> MutexGuard<'static, HashMap<String, mpsc::Sender<Anomaly>>> {
    INBOXES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the exporters of one demo run have handed over. Closed when it is let go.
pub(super) struct Inbox {
    name: String,
    receiver: mpsc::Receiver<Anomaly>,
}

impl Inbox {
    /// Opens the inbox `name`; one of the same name is replaced.
    pub(super) fn open(name: &str) -> Self {
        let (sender, receiver) = mpsc::channel(4_096);
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

    /// The next anomaly, or `None` when it is sealed and all exporters have ended.
    pub(super) async fn recv(&mut self) -> Option<Anomaly> {
        self.receiver.recv().await
    }

    /// The next anomaly if one is waiting.
    pub(super) fn try_recv(&mut self) -> Option<Anomaly> {
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
    sender: mpsc::Sender<Anomaly>,
}

#[async_trait]
impl Exporter for Collect {
    async fn run(self: Box<Self>, mut input: Input) -> Result<(), ComponentError> {
        while let Some(mut delivery) = input.recv().await {
            let Payload::Anomalies(anomalies) = &delivery.payload else {
                delivery.flight.dropped_rest("unsupported_payload");
                continue;
            };
            for anomaly in &anomalies.anomalies {
                match self.sender.send(anomaly.clone()).await {
                    Ok(()) => delivery.flight.sent_part(1),
                    Err(_) => delivery.flight.dropped(1, "demo_ended"),
                }
            }
        }
        Ok(())
    }
}
