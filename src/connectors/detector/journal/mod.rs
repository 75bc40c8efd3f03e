//! The journal of a detector: everything that its state depends on goes through it, in one order.
//!
//! [`entry`] is what happens, [`writer`] the thread that puts entries into the input log on disk and then gives them
//! to the shards, [`recovery`] what does the same with the entries of a log that is there already.

mod entry;
mod known;
mod observations;

pub(super) use entry::{Entry, EntryError, Fed, Started, Told, is_measured, write_fed};
pub(super) use known::Known;

/// Appends `value` to `to`.
fn append(value: &impl serde::Serialize, to: &mut Vec<u8>) -> Result<(), postcard::Error> {
    *to = postcard::to_extend(value, std::mem::take(to))?;
    Ok(())
}
