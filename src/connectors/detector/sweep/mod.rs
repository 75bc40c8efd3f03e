//! Buckets that are complete are closed: a sweep through all groups.
//!
//! A sweep belongs to the command that completed the buckets, and takes some microseconds a group; more where a checkpoint
//! is owed, which every group is written to before it changes. So that no command waits for all of that, it is done in
//! slices between the commands that follow. They and the sweep see nothing of each other: a group that something comes in
//! for is closed before, the sweep sees sources and rules as they were, and whatever depends on all groups ends the sweep
//! first.

mod close;

use super::group::Found;
use super::key::Key;
use super::outcome::Outcome;
use super::rules::Quieting;
use super::watermark::Sources;

/// A sweep that is going on.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Which one it is.
    pub(super) number: u64,
    /// The groups before this place are done.
    pub(super) place: usize,
    /// A later command than that which it belongs to is under way.
    pub(super) earlier: bool,
    /// What it looks at, where that is not as it was any more.
    pub(super) seen: Option<(Sources, Quieting)>,
    pub(super) forgotten: Vec<Key>,
    pub(super) judged: Found,
    pub(super) outcome: Outcome,
}
