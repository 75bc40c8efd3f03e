//! Exporters that keep, forget to say so, refuse, hang or end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::machine::Machine;
use crate::model::{Finding, Payload};
use crate::pipeline::Input;

/// What an exporter does with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Does {
    /// The other side has it, and the sender hears so.
    Keep,
    /// The other side has it, and nobody hears so.
    KeepSilently,
    /// Says no.
    Refuse,
    /// Does nothing for a while.
    Hang,
    /// Ends, with all that waits.
    End,
}

/// What the other side of an exporter has, over all restarts.
#[derive(Clone, Debug, Default)]
pub(super) struct OtherSide(Arc<Mutex<Received>>);

#[derive(Debug, Default)]
struct Received {
    /// In the order in which each came first.
    order: Vec<String>,
    all: BTreeMap<String, String>,
    times: u64,
    /// One that came again was not the same.
    changed: Vec<String>,
    /// Something was refused or let go: what came behind it may have overtaken it.
    disturbed: bool,
}

/// What is compared at the end.
#[derive(Debug, PartialEq)]
pub(super) struct Delivered {
    /// Ids, in the order in which each came first.
    pub(super) order: Vec<String>,
    /// By id, as JSON.
    pub(super) all: BTreeMap<String, String>,
}

impl OtherSide {
    /// What came, and how often all of it together.
    ///
    /// # Errors
    /// When one came again with another content.
    pub(super) fn delivered(&self) -> Result<(Delivered, u64), String> {
        let received = self.0.lock().unwrap();
        match received.changed.first() {
            Some(changed) => Err(format!("a finding came again as another one:\n{changed}")),
            None => Ok((Delivered { order: received.order.clone(), all: received.all.clone() }, received.times)),
        }
    }

    /// Whether the order may be another one.
    pub(super) fn is_disturbed(&self) -> bool {
        self.0.lock().unwrap().disturbed
    }

    fn take(&self, finding: &Finding<'_>) {
        let mut received = self.0.lock().unwrap();
        let (id, json) = (finding.id(), serde_json::to_string(finding).unwrap());
        received.times += 1;
        match received.all.get(&id) {
            Some(before) if *before != json => {
                let both = format!("{before}\n{json}");
                received.changed.push(both);
            }
            Some(_) => {}
            None => {
                received.order.push(id.clone());
                received.all.insert(id, json);
            }
        }
    }
}

/// Runs as `does` says, one for each delivery, and keeps everything after that.
pub(super) async fn run(mut input: Input, does: Vec<Does>, other: OtherSide, machine: Machine) {
    let mut does = does.into_iter();
    while let Some(delivery) = input.recv().await {
        let now = does.next().unwrap_or(Does::Keep);
        if matches!(now, Does::Keep | Does::KeepSilently) {
            let Payload::Anomalies(found) = &delivery.payload else { panic!("only findings go to exporters") };
            if machine.is_dead() {
                return;
            }
            found.iter().for_each(|finding| other.take(&finding));
        }
        match now {
            Does::Keep => delivery.flight.sent(),
            Does::KeepSilently => drop(delivery),
            Does::Refuse => {
                other.0.lock().unwrap().disturbed = true;
                delivery.flight.refused();
            }
            Does::Hang => {
                tokio::time::sleep(Duration::from_millis(30)).await;
                other.0.lock().unwrap().disturbed = true;
                drop(delivery);
            }
            Does::End => return,
        }
    }
}
