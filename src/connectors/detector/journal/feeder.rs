//! Gives entries to the shards, one after the other: the same whether they happen now or are read from a log.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::super::intake::Intake;
use super::super::rules::{Part, Request};
use super::super::shard::{Command, Step};
use super::{Entry, Fed, Known};
use crate::model::UnixNanos;
use crate::pipeline::{Flight, Refusal};

/// Items that wait in front of the shards of a detector together, some hundred bytes each: their queues are bounded by
/// steps, and one step may be a request of many megabytes.
const WAITING: u32 = 1 << 18;

/// The shards of a detector, and what is known in front of them.
#[derive(Debug)]
pub(in super::super) struct Feeder {
    shards: Vec<mpsc::Sender<Step>>,
    room: Arc<Semaphore>,
    intake: Intake,
    /// What was taken in lately.
    pub(in super::super) known: Known,
    /// What the clock showed last.
    pub(in super::super) now: UnixNanos,
    /// The index of the next entry.
    pub(in super::super) next: u64,
}

/// A shard has ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a thread of the detector ended early")]
pub(in super::super) struct ShardEnded;

impl Feeder {
    /// In front of `shards` that have seen all entries before `next`.
    pub(in super::super) fn new(
        shards: Vec<mpsc::Sender<Step>>,
        intake: Intake,
        known: Known,
        now: UnixNanos,
        next: u64,
    ) -> Self {
        Self { shards, room: Arc::new(Semaphore::new(WAITING as usize)), intake, known, now, next }
    }

    /// An entry happens. `flight` is the account of what comes in with it.
    pub(in super::super) fn apply(&mut self, entry: Entry, flight: Option<Flight>) -> Result<(), ShardEnded> {
        match entry {
            Entry::Started(started) => {
                self.known.resume(started.now.0.saturating_sub(self.now.0));
                self.now = started.now;
                self.all(|| Command::Resume(started.now, started.in_history))?;
            }
            Entry::Feed(fed) => self.feed(*fed, flight)?,
            Entry::Tick(now) => {
                self.now = now;
                self.all(|| Command::Tick(now))?;
            }
            Entry::Growth(may_grow) => self.all(|| Command::Growth(may_grow))?,
            Entry::Live => self.all(|| Command::Live)?,
            Entry::Finish(until) => self.all(|| Command::Finish(until))?,
            Entry::Told(told) => {
                let body = serde_json::from_str(&told.body).unwrap_or_default();
                // It was understood when it was written; a version that does not understand it cannot do it either.
                if let Ok(request) = Request::read(&told.subject, body, told.now) {
                    drop(self.ask(&Arc::new(request))?);
                }
            }
        }
        self.next += 1;
        Ok(())
    }

    fn feed(&mut self, fed: Fed, flight: Option<Flight>) -> Result<(), ShardEnded> {
        let Fed { id, mark, payload } = fed;
        self.known.take(id, mark.as_ref(), self.now);
        let divided = self.intake.divide(payload, self.now);
        // What is read from a log was accounted for when it came in.
        let mut flight = flight.unwrap_or_else(Flight::none);
        for (reason, records) in divided.dropped {
            flight.dropped(records, reason);
        }
        let items = divided.feeds.iter().map(|feed| feed.items.len()).sum::<usize>();
        let items = u32::try_from(items).unwrap_or(WAITING).min(WAITING);
        let room = Handle::current().block_on(Arc::clone(&self.room).acquire_many_owned(items)).map_err(|_| ShardEnded)?;
        let room = Arc::new(room);
        for (shard, feed) in self.shards.iter().zip(divided.feeds) {
            let part = flight.split(feed.records());
            let step = Step { at: self.next, command: Command::Feed(feed, part), room: Some(Arc::clone(&room)) };
            shard.blocking_send(step).map_err(|_| ShardEnded)?;
        }
        Ok(())
    }

    /// Gives a request to all shards, between two entries; their answers.
    pub(in super::super) fn ask(&self, request: &Arc<Request>) -> Result<mpsc::Receiver<Part>, ShardEnded> {
        let (answer, parts) = mpsc::channel::<Part>(self.shards.len().max(1));
        self.all(|| Command::Ask(Arc::clone(request), answer.clone()))?;
        Ok(parts)
    }

    /// Tells all shards the same.
    pub(in super::super) fn all(&self, command: impl Fn() -> Command) -> Result<(), ShardEnded> {
        for shard in &self.shards {
            shard.blocking_send(Step { at: self.next, command: command(), room: None }).map_err(|_| ShardEnded)?;
        }
        Ok(())
    }
}

impl From<ShardEnded> for Refusal {
    fn from(ended: ShardEnded) -> Self {
        Self::unavailable(ended.to_string())
    }
}
