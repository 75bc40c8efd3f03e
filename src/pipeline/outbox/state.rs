//! What an outbox knows about its log and its targets, in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::cursors::{Cursor, Cursors};
use super::record::{Header, Position};
use crate::model::UnixNanos;

/// One target.
#[derive(Debug, Default)]
pub(super) struct Target {
    pub(super) cursor: Cursor,
    /// Findings and bytes at or behind the cursor that are for it.
    pub(super) waiting: u64,
    pub(super) bytes: u64,
    /// When the first of them was put here, as far as its pump has read.
    pub(super) oldest: Option<UnixNanos>,
    pub(super) delivered: u64,
    pub(super) dead_letters: u64,
    /// Wakes its pump.
    pub(super) wake: Arc<Notify>,
    /// It has a pump. Else it is from an earlier run.
    pub(super) attached: bool,
}

impl Target {
    /// Whether the record is for the target called `name`, and it does not have it.
    pub(super) fn wants(&self, name: &str, index: u64, header: &Header) -> bool {
        let meant = header.only.as_deref().is_none_or(|only| only == name);
        // None is less than every position.
        meant && index >= self.cursor.next && (header.position.is_none() || header.position > self.cursor.position)
    }

    /// It has the record, or will never have it.
    pub(super) fn pass(&mut self, index: u64, header: &Header) {
        self.cursor.next = self.cursor.next.max(index + 1);
        self.cursor.position = self.cursor.position.max(header.position);
    }

    /// A record that it wanted waits no longer.
    pub(super) const fn less(&mut self, header: &Header, bytes: u64) {
        self.waiting = self.waiting.saturating_sub(header.findings);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[derive(Debug)]
pub(super) struct State {
    /// The index that the next record gets.
    pub(super) next: u64,
    /// The last position in the log, or delivered to all.
    pub(super) last: Option<Position>,
    pub(super) targets: BTreeMap<Arc<str>, Target>,
    /// Targets that are new begin here.
    pub(super) begin: Cursor,
    /// Nothing is known of earlier targets: new ones begin with all that is here.
    pub(super) unknown: bool,
    /// The targets are those of this run.
    pub(super) attached: bool,
    /// Nobody runs it any more.
    pub(super) abandoned: bool,
}

impl State {
    pub(super) fn new(first: u64, next: u64, last: Option<Position>, cursors: Option<&Cursors>) -> Self {
        let mut targets = BTreeMap::new();
        for (name, cursor) in cursors.iter().flat_map(|cursors| &cursors.targets) {
            // The log may have lost its end: what comes in its place is told by position.
            let cursor = Cursor { next: cursor.next.min(next), ..*cursor };
            targets.insert(Arc::clone(name), Target { cursor, ..Target::default() });
        }
        let delivered_to_all = targets.values().map(|target| target.cursor.position).min().flatten();
        let begin = Cursor { next: first, position: None };
        Self {
            next,
            last: last.max(delivered_to_all),
            targets,
            begin,
            unknown: cursors.is_none(),
            attached: false,
            abandoned: false,
        }
    }

    pub(super) fn highest(&self) -> Option<Position> {
        self.targets.values().map(|target| target.cursor.position).max().flatten().max(self.last)
    }

    /// How far all targets have come, together: while this stays the same no room is made.
    pub(super) fn delivered(&self) -> u64 {
        self.targets.values().map(|target| target.cursor.next).sum()
    }

    /// Where a target begins that was not there before: with what is found from now on.
    pub(super) const fn beginning(&self) -> Cursor {
        if self.unknown { self.begin } else { Cursor { next: self.next, position: self.last } }
    }

    pub(super) fn cursors(&self) -> Cursors {
        Cursors { targets: self.targets.iter().map(|(name, target)| (Arc::clone(name), target.cursor)).collect() }
    }

    /// A record was appended.
    pub(super) fn appended(&mut self, index: u64, header: &Header, bytes: u64) {
        self.next = index + 1;
        self.last = self.last.max(header.position);
        for (name, target) in &mut self.targets {
            if !target.attached {
                continue;
            }
            if target.wants(name, index, header) {
                target.waiting += header.findings;
                target.bytes += bytes;
            } else if target.cursor.next == index {
                target.pass(index, header);
            }
            target.wake.notify_one();
        }
    }

    pub(super) fn wake_all(&self) {
        for target in self.targets.values() {
            target.wake.notify_one();
        }
    }

    /// The lowest cursor, and whose it is.
    pub(super) fn slowest(&self) -> Option<(Arc<str>, u64)> {
        let slowest = self.targets.iter().min_by_key(|(_, target)| target.cursor.next)?;
        Some((Arc::clone(slowest.0), slowest.1.cursor.next))
    }
}
