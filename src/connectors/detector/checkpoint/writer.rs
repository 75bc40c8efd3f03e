//! The pieces of all shards become one file.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::super::key::VERSION;
use super::{FORMAT, Head, Kind, Part, Piece, Shared};
use crate::pipeline::Context;
use crate::storage::{CheckpointWriter, Checkpoints, StorageError};

/// Pieces that wait to be written. Together with what shards keep for a while that is all the memory it takes.
const QUEUE: usize = 16;

/// What became of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Outcome {
    /// It is on disk, and so long.
    Written { index: u64, bytes: u64 },
    /// It is not, for this reason; those before it are in force.
    Lost { index: u64, why: String },
}

impl Outcome {
    /// Of which one.
    pub(in super::super) const fn index(&self) -> u64 {
        match self {
            Self::Written { index, .. } | Self::Lost { index, .. } => *index,
        }
    }
}

/// Where pieces are handed in.
#[derive(Clone, Debug)]
pub(in super::super) struct Pieces(mpsc::Sender<Piece>);

impl Pieces {
    /// For a shard.
    pub(in super::super) fn sender(&self) -> mpsc::Sender<Piece> {
        self.0.clone()
    }

    /// What is kept behind the shards, as of the same command: `parts` by name. To be told once for every checkpoint.
    /// Blocks while the disk is slow.
    pub(in super::super) fn behind(&self, index: u64, parts: Vec<(String, Vec<u8>)>) {
        let parts = parts.into_iter().map(|(name, bytes)| Part::Named(name, bytes));
        for part in parts.chain([Part::Ended(Duration::ZERO)]) {
            self.send(index, part);
        }
    }

    /// In place of [`Pieces::behind`]: it cannot be told.
    pub(in super::super) fn give_up(&self, index: u64, why: &'static str) {
        self.send(index, Part::GivenUp(why));
        self.send(index, Part::Ended(Duration::ZERO));
    }

    fn send(&self, index: u64, part: Part) {
        // That nobody writes any more shows in the outcome.
        drop(self.0.blocking_send(Piece { index, part }));
    }
}

/// Writes checkpoints, one at a time.
pub(in super::super) struct Writer {
    pieces: mpsc::Receiver<Piece>,
    /// `None` where nothing is kept.
    checkpoints: Option<Checkpoints>,
    head: Head,
    /// How many must have ended: the shards, and what is behind them.
    parts: usize,
    outcome: watch::Sender<Option<Outcome>>,
    context: Context,
    current: Option<Current>,
    /// The longest time for which a checkpoint has kept a shard from its work at once.
    longest: Duration,
}

/// One that is being written.
#[derive(Debug)]
struct Current {
    index: u64,
    ended: usize,
    shared: Option<Arc<Shared>>,
    /// The file; `None` when it could not be written, or was given up.
    file: Option<CheckpointWriter>,
}

impl Writer {
    /// A writer for a detector of `shards` shards, which learns in buckets of `bucket` nanoseconds; where pieces are
    /// handed in; and what became of the last checkpoint.
    pub(in super::super) fn new(
        context: &Context,
        checkpoints: Option<Checkpoints>,
        shards: usize,
        bucket: u64,
    ) -> (Self, Pieces, watch::Receiver<Option<Outcome>>) {
        let (sender, pieces) = mpsc::channel(QUEUE);
        let (outcome, heard) = watch::channel(None);
        let head = Head { format: FORMAT, model: VERSION.to_owned(), bucket };
        let (context, parts, longest) = (context.clone(), shards + 1, Duration::ZERO);
        let writer = Self { pieces, checkpoints, head, parts, outcome, context, current: None, longest };
        (writer, Pieces(sender), heard)
    }

    /// Writes until nobody can hand in anything any more. Blocks.
    pub(in super::super) fn run(mut self) {
        while let Some(piece) = self.pieces.blocking_recv() {
            self.take(piece);
        }
        if let Some(Current { index, file: Some(_), .. }) = self.current.take() {
            self.lose(index, "the detector ended before it was through".to_owned());
        }
    }

    fn take(&mut self, Piece { index, part }: Piece) {
        let current = match self.current.take() {
            Some(current) if current.index > index => {
                // Of one that was given up.
                self.current = Some(current);
                return;
            }
            Some(current) if current.index == index => current,
            before => {
                if let Some(Current { index, file: Some(_), .. }) = before {
                    self.lose(index, "the next one began before this one had ended".to_owned());
                }
                self.begin(index)
            }
        };
        self.current = self.advance(current, part);
    }

    fn begin(&self, index: u64) -> Current {
        let created = self.checkpoints.as_ref().map(|checkpoints| {
            let mut file = checkpoints.create(index)?;
            file.chunk(Kind::Head.number(), &encoded(&self.head)?)?;
            Ok::<_, StorageError>(file)
        });
        let file = match created.transpose() {
            Ok(file) => file,
            Err(error) => {
                self.lose(index, error.to_string());
                None
            }
        };
        Current { index, ended: 0, shared: None, file }
    }

    /// Takes one piece in; `None` when that was the last one.
    fn advance(&mut self, mut current: Current, part: Part) -> Option<Current> {
        let index = current.index;
        let written = match (part, &mut current.file) {
            (Part::Ended(pause), file) => {
                self.paused(pause);
                current.ended += 1;
                if current.ended < self.parts {
                    return Some(current);
                }
                if let Some(file) = file.take() {
                    match file.finish() {
                        Ok(bytes) => self.tell(Outcome::Written { index, bytes }),
                        Err(error) => self.lose(index, error.to_string()),
                    }
                }
                return None;
            }
            (_, None) => return Some(current),
            (Part::GivenUp(why), file) => {
                *file = None;
                self.context.counters.event("checkpoints_given_up", 1);
                self.lose(index, why.to_owned());
                return Some(current);
            }
            (Part::Shared(shared), Some(file)) => match &current.shared {
                Some(known) => {
                    debug_assert_eq!(**known, *shared, "all shards hold the same");
                    Ok(())
                }
                None => {
                    let bytes = encoded(&*shared);
                    current.shared = Some(shared.into());
                    bytes.and_then(|bytes| file.chunk(Kind::Shared.number(), &bytes))
                }
            },
            (Part::Chunk(kind, bytes), Some(file)) => file.chunk(kind.number(), &bytes),
            (Part::Named(name, bytes), Some(file)) => {
                encoded(&(name, bytes)).and_then(|bytes| file.chunk(Kind::Named.number(), &bytes))
            }
        };
        if let Err(error) = written {
            current.file = None;
            self.lose(index, error.to_string());
        }
        Some(current)
    }

    /// Shows the longest time for which a shard was kept from its work.
    fn paused(&mut self, pause: Duration) {
        self.longest = self.longest.max(pause);
        self.context.counters.gauge("checkpoint_pause_ms", self.longest.as_secs_f64() * 1000.0);
    }

    fn lose(&self, index: u64, why: String) {
        self.context.counters.event("checkpoints_lost", 1);
        let (environment, component) = (&self.context.environment, self.context.id.to_string());
        tracing::warn!(%environment, component, why, "a checkpoint is not kept; those before it stay in force");
        self.tell(Outcome::Lost { index, why });
    }

    fn tell(&self, outcome: Outcome) {
        if let Outcome::Written { .. } = outcome {
            self.context.counters.event("checkpoints_written", 1);
        }
        self.outcome.send_replace(Some(outcome));
    }
}

fn encoded(value: &impl serde::Serialize) -> Result<Vec<u8>, StorageError> {
    postcard::to_stdvec(value).map_err(|e| StorageError(format!("cannot encode what was learnt: {e}")))
}
