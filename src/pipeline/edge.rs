//! Bounded queues between components. A full queue makes the sender wait: that is the back-pressure that
//! reaches the receiver.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Counters, Flight, Origin, Receipt};
use crate::model::{Payload, PayloadKind, Signal};

/// A payload in a queue, and its account.
#[derive(Debug)]
pub struct Delivery {
    /// The payload.
    pub payload: Payload,
    /// To be ended by whoever takes it; holds the receipt.
    pub flight: Flight,
    /// Where it comes from.
    pub origin: Origin,
}

/// The sending side of one component's queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Edge {
    sender: mpsc::Sender<Delivery>,
    counters: Arc<Counters>,
    name: Option<Arc<str>>,
}

/// The receiving side of one component's queue.
#[derive(Debug)]
pub struct Input {
    receiver: mpsc::Receiver<Delivery>,
}

impl Input {
    /// A queue of `capacity` payloads in front of the component that counts with `counters`.
    #[must_use]
    pub fn queue(capacity: usize, counters: Arc<Counters>) -> (Edge, Self) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        (Edge { sender, counters, name: None }, Self { receiver })
    }

    /// The next payload, or `None` when all senders are gone and the queue is empty: time to flush and end.
    pub async fn recv(&mut self) -> Option<Delivery> {
        self.receiver.recv().await
    }

    /// The next payload if one is waiting.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        self.receiver.try_recv().ok()
    }
}

impl Edge {
    /// With the name of what is behind it, the same after every start: the id of an exporter or connector, or the name
    /// of a pipeline that begins with processors.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(Arc::from(name)), ..self }
    }
}

/// Why an offer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A queue stayed full for the whole wait: try again later.
    #[error("the pipeline is full")]
    Full,
    /// A consumer has ended: the daemon is shutting down.
    #[error("the pipeline has ended")]
    Closed,
}

/// Everything that one component sends to. A payload goes to all of them, or to none.
#[derive(Clone, Debug, Default)]
pub struct Output {
    edges: Vec<Edge>,
}

impl Output {
    /// Sends to all of `edges`.
    #[must_use]
    pub const fn new(edges: Vec<Edge>) -> Self {
        Self { edges }
    }

    /// Whether nobody listens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edges.is_empty()
    }

    /// Each target on its own, by its name; where it has none, by its place. One that stands here twice comes once.
    #[must_use]
    pub fn targets(&self) -> BTreeMap<Arc<str>, Self> {
        let name = |place: usize, edge: &Edge| edge.name.clone().unwrap_or_else(|| Arc::from(format!("target {place}")));
        let alone = |(place, edge): (usize, &Edge)| (name(place, edge), Self::new(vec![edge.clone()]));
        self.edges.iter().enumerate().map(alone).collect()
    }

    /// Hands `payload` to all targets, waiting as long as it takes for room in every queue.
    ///
    /// # Errors
    /// [`Refused::Closed`] when a target has ended; then none of them got it.
    pub async fn send(&self, payload: Payload) -> Result<(), Refused> {
        self.send_on(payload, Origin::default(), Receipt::default()).await
    }

    /// As [`Output::send`], for what comes from somewhere, and whose sender waits for `receipt`.
    ///
    /// # Errors
    /// As [`Output::send`]; the receipt is let go then.
    pub async fn send_on(&self, payload: Payload, origin: Origin, receipt: Receipt) -> Result<(), Refused> {
        self.room().await?.send(&payload, &origin, receipt);
        Ok(())
    }

    /// Room for one payload in the queues of all targets, waiting as long as it takes. A payload is never in one queue
    /// and refused by another; and who sends to several outputs at once asks all of them for room first.
    ///
    /// # Errors
    /// [`Refused::Closed`] when a target has ended.
    pub async fn room(&self) -> Result<Room<'_>, Refused> {
        let mut permits = Vec::with_capacity(self.edges.len());
        for edge in &self.edges {
            permits.push((edge, edge.sender.reserve().await.map_err(|_| Refused::Closed)?));
        }
        Ok(Room { permits })
    }

    /// As [`Output::room`], but gives up after `wait`.
    ///
    /// # Errors
    /// [`Refused::Full`] when there was no room in time.
    pub async fn room_within(&self, wait: Duration) -> Result<Room<'_>, Refused> {
        tokio::time::timeout(wait, self.room()).await.unwrap_or(Err(Refused::Full))
    }
}

/// Room for one payload in front of every target of an output. Given back when it is let go.
#[derive(Debug)]
pub struct Room<'a> {
    permits: Vec<(&'a Edge, mpsc::Permit<'a, Delivery>)>,
}

impl Room<'_> {
    /// Hands `payload` to all targets; all of them must keep it before its sender hears that it is safe.
    pub fn send(self, payload: &Payload, origin: &Origin, receipt: Receipt) {
        for (edge, permit) in self.permits {
            let mut flight = edge.counters.begin(payload_kind(payload), payload.len());
            flight.attach(receipt.share());
            permit.send(Delivery { payload: payload.clone(), flight, origin: origin.clone() });
        }
        receipt.kept();
    }
}

/// The kind of a payload.
pub(super) fn payload_kind(payload: &Payload) -> PayloadKind {
    match payload {
        Payload::Telemetry(t) => PayloadKind::Telemetry(t.signal()),
        Payload::Observations(_) => PayloadKind::Observations,
        Payload::Anomalies(_) => PayloadKind::Anomalies,
    }
}

/// What a receiver sends to: one output per signal.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// To the traces pipelines.
    pub traces: Output,
    /// To the metrics pipelines.
    pub metrics: Output,
    /// To the logs pipelines.
    pub logs: Output,
}

impl Outputs {
    /// The output of `signal`.
    #[must_use]
    pub const fn of(&self, signal: Signal) -> &Output {
        match signal {
            Signal::Traces => &self.traces,
            Signal::Metrics => &self.metrics,
            Signal::Logs => &self.logs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Batch, Environment, LogRecords, SourceId, Telemetry};

    fn payload() -> Payload {
        let rows = vec![crate::model::LogRecord::default()];
        let batch = Batch::Logs(LogRecords { rows, ..LogRecords::default() });
        Payload::Telemetry(Arc::new(Telemetry { environment: Environment::new("test"), source: SourceId::from("test"), batch }))
    }

    #[tokio::test]
    async fn a_full_target_refuses_for_all_targets() {
        let (one, mut one_in) = Input::queue(4, Arc::default());
        let (two, _two_in) = Input::queue(1, Arc::default());
        let output = Output::new(vec![one, two]);
        output.send(payload()).await.unwrap();
        assert_eq!(output.room_within(Duration::ZERO).await.unwrap_err(), Refused::Full);
        assert!(one_in.try_recv().is_some());
        assert!(one_in.try_recv().is_none(), "the refused payload must not be in the other queue");
    }

    #[tokio::test]
    async fn an_ended_target_closes_the_output() {
        let (edge, input) = Input::queue(1, Arc::default());
        drop(input);
        assert_eq!(Output::new(vec![edge]).send(payload()).await, Err(Refused::Closed));
    }

    #[tokio::test]
    async fn a_payload_is_safe_when_every_target_has_ended_its_flight() {
        let (one, mut one_in) = Input::queue(4, Arc::default());
        let (two, mut two_in) = Input::queue(4, Arc::default());
        let output = Output::new(vec![one, two]);
        let (receipt, waiting) = Receipt::new();
        output.send_on(payload(), Origin::default(), receipt).await.unwrap();
        one_in.try_recv().unwrap().flight.sent();
        two_in.try_recv().unwrap().flight.dropped_rest("dead_letter");
        assert_eq!(waiting.heard().await, Ok(()));
        let (receipt, waiting) = Receipt::new();
        output.send_on(payload(), Origin::default(), receipt).await.unwrap();
        one_in.try_recv().unwrap().flight.sent();
        drop(two_in);
        assert!(waiting.heard().await.is_err(), "what is left in a queue that ends is not safe");
    }
}
