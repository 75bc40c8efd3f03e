//! What happens to a detector, as it stands in the journal: everything that its state depends on, in order.
//!
//! The state of a detector is a function of its entries alone. An entry is a tag byte and its fields in postcard; a tag
//! is never given another meaning, so that a newer version reads what an older one wrote.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{append, observations};
use crate::model::{Batch, Environment, Payload, Points, Signal, SourceId, Telemetry, UnixNanos};
use crate::pipeline::{BatchId, Mark};

/// One thing that happens.
#[derive(Clone, Debug)]
pub(in super::super) enum Entry {
    /// The detector begins to run, or goes on after a time in which it could take nothing in: what lies between was not
    /// watched.
    Started(Started),
    /// Something comes in.
    Feed(Box<Fed>),
    /// The clock shows this.
    Tick(UnixNanos),
    /// History is learnt; live from here on.
    Live,
    /// A replay has ended, and nothing before this moment is missing.
    Finish(UnixNanos),
    /// Somebody tells something: a mute, feedback.
    Told(Told),
    /// Whether there is memory for new series.
    Growth(bool),
}

/// What a detector begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Started {
    /// Whose, and of what name.
    pub(in super::super) environment: String,
    pub(in super::super) detector: String,
    pub(in super::super) now: UnixNanos,
    /// Its configuration as JSON.
    pub(in super::super) config: String,
    pub(in super::super) shards: u32,
    /// Nothing that began before this moment is reported.
    pub(in super::super) live_from: UnixNanos,
    /// Whether history is being learnt.
    pub(in super::super) in_history: bool,
}

/// What comes in.
#[derive(Clone, Debug)]
pub(in super::super) struct Fed {
    pub(in super::super) id: Option<BatchId>,
    pub(in super::super) mark: Option<Arc<Mark>>,
    /// Observations or metric points.
    pub(in super::super) payload: Payload,
}

/// What somebody told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Told {
    pub(in super::super) now: UnixNanos,
    pub(in super::super) subject: String,
    /// JSON.
    pub(in super::super) body: String,
}

/// Why bytes are no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum EntryError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// An unknown tag.
    #[error("its kind {0} is not known: a newer version may have written it")]
    Kind(u8),
    /// Its fields.
    #[error("it cannot be read: {0}")]
    Damaged(#[from] postcard::Error),
}

const STARTED: u8 = 1;
const OBSERVATIONS: u8 = 2;
const POINTS: u8 = 3;
const TICK: u8 = 4;
const LIVE: u8 = 5;
const FINISH: u8 = 6;
const TOLD: u8 = 7;
const GROWTH: u8 = 8;

/// What goes before a payload.
#[derive(Serialize, Deserialize)]
struct Head<M> {
    id: Option<BatchId>,
    mark: Option<M>,
}

impl Entry {
    /// Appends the entry to `to`.
    pub(in super::super) fn write(&self, to: &mut Vec<u8>) -> Result<(), postcard::Error> {
        match self {
            Self::Started(started) => put(STARTED, started, to),
            Self::Tick(now) => put(TICK, now, to),
            Self::Live => put(LIVE, &(), to),
            Self::Finish(until) => put(FINISH, until, to),
            Self::Told(told) => put(TOLD, told, to),
            Self::Growth(may_grow) => put(GROWTH, may_grow, to),
            Self::Feed(fed) => write_fed(fed.id, fed.mark.as_deref(), &fed.payload, to),
        }
    }

    /// Reads what [`Entry::write`] wrote, for the detector of `environment`.
    pub(in super::super) fn read(bytes: &[u8], environment: &Environment) -> Result<Self, EntryError> {
        let (&kind, rest) = bytes.split_first().ok_or(EntryError::Empty)?;
        Ok(match kind {
            STARTED => Self::Started(postcard::from_bytes(rest)?),
            TICK => Self::Tick(postcard::from_bytes(rest)?),
            LIVE => Self::Live,
            FINISH => Self::Finish(postcard::from_bytes(rest)?),
            TOLD => Self::Told(postcard::from_bytes(rest)?),
            GROWTH => Self::Growth(postcard::from_bytes(rest)?),
            OBSERVATIONS | POINTS => {
                let (head, rest): (Head<Mark>, _) = postcard::take_from_bytes(rest)?;
                let payload = if kind == OBSERVATIONS {
                    Payload::Observations(Arc::new(observations::read(rest, environment)?))
                } else {
                    let (source, points): (SourceId, Points) = postcard::from_bytes(rest)?;
                    let (environment, batch) = (environment.clone(), Batch::Metrics(points));
                    Payload::Telemetry(Arc::new(Telemetry { environment, source, batch }))
                };
                Self::Feed(Box::new(Fed { id: head.id, mark: head.mark.map(Arc::new), payload }))
            }
            other => return Err(EntryError::Kind(other)),
        })
    }
}

fn put(kind: u8, value: &impl Serialize, to: &mut Vec<u8>) -> Result<(), postcard::Error> {
    to.push(kind);
    append(value, to)
}

/// As [`Entry::write`] of what comes in, without taking it. What is of no kind that a detector measures is written as
/// nothing at all: the detector counts it, and nothing depends on it.
pub(in super::super) fn write_fed(
    id: Option<BatchId>,
    mark: Option<&Mark>,
    payload: &Payload,
    to: &mut Vec<u8>,
) -> Result<(), postcard::Error> {
    let head = Head { id, mark };
    match payload {
        Payload::Observations(observations) => {
            put(OBSERVATIONS, &head, to)?;
            observations::write(observations, to)
        }
        Payload::Telemetry(telemetry) => match &telemetry.batch {
            Batch::Metrics(points) => {
                put(POINTS, &head, to)?;
                append(&(&telemetry.source, points), to)
            }
            Batch::Traces(_) | Batch::Logs(_) => Ok(()),
        },
        Payload::Anomalies(_) => Ok(()),
    }
}

/// Whether a detector measures a payload of this kind, so that it belongs into the journal.
pub(in super::super) fn is_measured(payload: &Payload, environment: &Environment) -> bool {
    match payload {
        Payload::Observations(o) => o.environment == *environment,
        Payload::Telemetry(t) => t.environment == *environment && t.signal() == Signal::Metrics,
        Payload::Anomalies(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::detector::journal::observations::tests::some_observations;

    fn environment() -> Environment {
        Environment::new("production")
    }

    fn through(entry: &Entry) -> (Vec<u8>, Entry) {
        let mut bytes = Vec::new();
        entry.write(&mut bytes).unwrap();
        let back = Entry::read(&bytes, &environment()).unwrap();
        (bytes, back)
    }

    #[test]
    fn every_entry_reads_back_as_it_was_written() {
        let mark = Mark { source: SourceId::from("es"), signal: Signal::Logs, generation: 7, bytes: vec![1, 2, 3] };
        let mut points = Points::default();
        let name = points.symbols.intern("queue.length");
        points.bins.push((1.5, 2.0));
        assert_eq!(points.symbols.get(name), "queue.length");
        let telemetry = Telemetry { environment: environment(), source: SourceId::from("otlp"), batch: Batch::Metrics(points) };
        let fed =
            |payload| Entry::Feed(Box::new(Fed { id: Some(BatchId([9; 16])), mark: Some(Arc::new(mark.clone())), payload }));
        let entries = [
            Entry::Started(Started {
                environment: "production".to_owned(),
                detector: "detector".to_owned(),
                now: UnixNanos(1),
                config: "{}".to_owned(),
                shards: 2,
                live_from: UnixNanos(5),
                in_history: true,
            }),
            fed(Payload::Observations(Arc::new(some_observations(40, &environment())))),
            fed(Payload::Telemetry(Arc::new(telemetry))),
            Entry::Tick(UnixNanos(u64::MAX)),
            Entry::Live,
            Entry::Finish(UnixNanos(3)),
            Entry::Growth(false),
            Entry::Told(Told { now: UnixNanos(1), subject: "mute".to_owned(), body: "{}".to_owned() }),
        ];
        for entry in entries {
            let (bytes, back) = through(&entry);
            let (again, _) = through(&back);
            assert_eq!(bytes, again, "{entry:?}");
            for end in 0..bytes.len() {
                // Cut anywhere, it is an error or another entry, never a panic.
                let _ = Entry::read(&bytes[..end], &environment());
            }
        }
    }

    #[test]
    fn what_is_no_entry_says_why() {
        let why = |bytes: &[u8]| Entry::read(bytes, &environment()).unwrap_err().to_string();
        insta::assert_snapshot!([why(&[]), why(&[200, 1]), why(&[TICK])].join("\n"), @"
        it is empty
        its kind 200 is not known: a newer version may have written it
        it cannot be read: Hit the end of buffer, expected more data
        ");
    }
}
