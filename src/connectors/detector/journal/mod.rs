//! The journal of a detector: everything that its state depends on goes through it, in one order.
//!
//! | file | what |
//! |---|---|
//! | `entry`, `observations` | what happens, and how it is written |
//! | `writer` | the thread that puts entries into the input log on disk, and then lets them happen |
//! | `feeder` | lets an entry happen: gives it to the shards |
//! | `known` | what was taken in lately, so that nothing is taken in twice |
//! | `machine` | shards, and the threads behind them |
//! | `schedule` | when a checkpoint is begun |
//! | `stored` | what the journal adds to a checkpoint |
//! | `recovery` | a checkpoint and the entries since then, after a restart |
//! | `again` | the same for a look at a log, beside a running daemon |

mod again;
mod entry;
mod feeder;
mod known;
mod machine;
mod observations;
mod recovery;
mod schedule;
mod stored;
mod writer;

pub use again::{Replayed, replay};
pub(super) use entry::Started;
use entry::{Entry, Fed, Told, is_measured, write_fed};
use feeder::{Feeder, ShardEnded};
use known::Known;
pub(super) use machine::Machine;
pub(super) use recovery::{Recovered, Recovery, has_entries};
pub(super) use schedule::{Schedule, Volume};
pub(super) use writer::{Checkpointing, Work, Writer};

use crate::model::Environment;

/// Reads an entry of the journal of `environment`, and writes it again.
///
/// The same code as in front of the input log and behind it, for fuzzing.
///
/// # Errors
/// Why it is no entry.
pub fn rewrite(entry: &[u8], environment: &Environment) -> Result<Vec<u8>, String> {
    let mut written = Vec::new();
    let entry = Entry::read(entry, environment).map_err(|e| e.to_string())?;
    entry.write(&mut written).map_err(|e| e.to_string())?;
    Ok(written)
}

/// Appends `value` to `to`.
fn append(value: &impl serde::Serialize, to: &mut Vec<u8>) -> Result<(), postcard::Error> {
    *to = postcard::to_extend(value, std::mem::take(to))?;
    Ok(())
}
