//! Bounded queues between components. A full queue makes the sender wait: that is the back-pressure that
//! reaches the receiver.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::{Counters, Flight};
use crate::model::{Payload, PayloadKind, Signal};

/// A payload in a queue, and its account.
#[derive(Debug)]
pub struct Delivery {
    /// The payload.
    pub payload: Payload,
    /// To be ended by whoever takes it.
    pub flight: Flight,
}

/// The sending side of one component's queue. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Edge {
    sender: mpsc::Sender<Delivery>,
    counters: Arc<Counters>,
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
        (Edge { sender, counters }, Self { receiver })
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

    /// Hands `payload` to all targets, waiting as long as it takes for room in every queue.
    ///
    /// # Errors
    /// [`Refused::Closed`] when a target has ended; then none of them got it.
    pub async fn send(&self, payload: Payload) -> Result<(), Refused> {
        let mut permits = Vec::with_capacity(self.edges.len());
        // Room in every queue first, so that a payload is never in one and refused by another.
        for edge in &self.edges {
            permits.push((edge, edge.sender.reserve().await.map_err(|_| Refused::Closed)?));
        }
        for (edge, permit) in permits {
            let flight = edge.counters.begin(payload_kind(&payload), payload.len());
            permit.send(Delivery { payload: payload.clone(), flight });
        }
        Ok(())
    }

    /// As [`Output::send`], but gives up after `wait`.
    ///
    /// # Errors
    /// [`Refused::Full`] when there was no room in time; then no target got it.
    pub async fn offer(&self, payload: Payload, wait: Duration) -> Result<(), Refused> {
        // `send` hands over only after its last await, so cancelling it cannot hand over a part.
        tokio::time::timeout(wait, self.send(payload)).await.unwrap_or(Err(Refused::Full))
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

    fn payload() -> Payload {
        Payload::Anomalies(Arc::default())
    }

    #[tokio::test]
    async fn a_full_target_refuses_for_all_targets() {
        let (one, mut one_in) = Input::queue(4, Arc::default());
        let (two, _two_in) = Input::queue(1, Arc::default());
        let output = Output::new(vec![one, two]);
        output.send(payload()).await.unwrap();
        assert_eq!(output.offer(payload(), Duration::ZERO).await, Err(Refused::Full));
        assert!(one_in.try_recv().is_some());
        assert!(one_in.try_recv().is_none(), "the refused payload must not be in the other queue");
    }

    #[tokio::test]
    async fn an_ended_target_closes_the_output() {
        let (edge, input) = Input::queue(1, Arc::default());
        drop(input);
        assert_eq!(Output::new(vec![edge]).send(payload()).await, Err(Refused::Closed));
    }
}
