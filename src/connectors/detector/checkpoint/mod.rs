//! What a detector has learnt, written out while it goes on.
//!
//! A checkpoint is the state of all shards as of one command. From that command on a shard owes it: it writes its
//! entries in small slices between the commands that follow, and whatever is about to change before its turn is written
//! first ([`kept`]). A sweep, which changes everything, goes on in slices as well (`sweep`). So no shard ever stops to write,
//! and what is written is as if it had.
//!
//! | file | what |
//! |---|---|
//! | `encode` | entries become chunks of bytes |
//! | `kept` | a map that can be written out while it changes |
//! | `core` | what a core owes |
//! | `saver` | the pace at which a shard pays what it owes |
//! | `writer` | the pieces of all shards become one file |
//! | `load` | a file becomes shards again |

mod core;
mod encode;
mod kept;
mod load;
mod saver;
#[cfg(test)]
pub(super) mod tests;
mod writer;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(super) use self::encode::Buffer;
pub(super) use self::kept::{Kept, Owing, Record};
pub(super) use self::load::{LoadError, Loaded, is_usable, learnt, load, named, newest};
pub(super) use self::saver::Saver;
pub(super) use self::writer::{Outcome, Pieces, Writer};
use super::rules;
use super::watermark::Sources;
use crate::model::UnixNanos;

/// Of the encoding; 1 and 2 were kept in another place.
pub(super) const FORMAT: u32 = 3;

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A [`Head`]: the first chunk.
    Head,
    /// A [`Shared`].
    Shared,
    /// Groups of series, one after the other.
    Groups,
    /// Siblings, one after the other.
    Siblings,
    /// Entities, one after the other.
    Entities,
    /// A name and bytes that only their owner understands.
    Named,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Head, Self::Shared, Self::Groups, Self::Siblings, Self::Entities, Self::Named];

    /// As it is written.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::Shared => 2,
            Self::Groups => 3,
            Self::Siblings => 4,
            Self::Entities => 5,
            Self::Named => 6,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// What must fit before anything else of a checkpoint can be used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    format: u32,
    /// The version of the mathematics.
    model: String,
    /// Nanoseconds.
    bucket: u64,
}

/// What all shards hold alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Shared {
    pub(super) sources: Sources,
    pub(super) quieting: rules::Saved,
    /// The clock.
    pub(super) now: UnixNanos,
    /// The horizons at the last sweep.
    pub(super) swept: Vec<Option<u64>>,
    /// Whether history is being learnt.
    pub(super) in_history: bool,
    /// Whether series may be added.
    pub(super) growth: bool,
}

/// A piece of the checkpoint at an index.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) index: u64,
    pub(super) part: Part,
}

/// As [`Piece`].
#[derive(Debug)]
pub(super) enum Part {
    /// What this shard holds as all others do.
    Shared(Box<Shared>),
    /// Entries.
    Chunk(Kind, Vec<u8>),
    /// Bytes that only their owner understands.
    Named(String, Vec<u8>),
    /// One of those who take part has given all of its pieces, which kept it from its work for so long at once.
    Ended(Duration),
    /// It will not give them, for this reason.
    GivenUp(&'static str),
}

impl Part {
    const fn bytes(&self) -> usize {
        match self {
            Self::Chunk(_, bytes) | Self::Named(_, bytes) => bytes.len(),
            Self::Shared(_) | Self::Ended(_) | Self::GivenUp(_) => 0,
        }
    }
}
