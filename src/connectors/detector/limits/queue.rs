//! Who makes room first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::checkpoint::Kept;
use super::super::group::{Group, Hold};
use super::super::key::Key;

/// When a group may give way: the place in the order, and the group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// It keeps its place in buckets up to this one.
    until: u64,
    /// How often it reported: of two, who has learnt less gives way.
    reported: u32,
    key: Key,
}

type Heap = BinaryHeap<Reverse<Place>>;

/// Groups in the order in which they give way: those that have not learnt yet first.
///
/// The order is exact, though a place in it is looked at again only when its turn comes: as time goes by a group can
/// only move back, so what stands first and still belongs there is the first. It is a function of the groups alone;
/// so one that was just made gives the same answers as one that has been kept.
#[derive(Debug)]
pub(super) struct Queue {
    young: Heap,
    learnt: Heap,
    /// Buckets for which a learnt group may be silent.
    silence: u64,
}

impl Queue {
    pub(super) fn new<'a>(groups: impl Iterator<Item = (&'a Key, &'a Group)>, silence: u64) -> Self {
        let mut queue = Self { young: Heap::new(), learnt: Heap::new(), silence };
        groups.for_each(|(key, group)| queue.push(key, group));
        queue
    }

    /// How many places it remembers; some may be outdated.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.learnt.len()
    }

    /// A group that is new, or stands elsewhere now.
    pub(super) fn push(&mut self, key: &Key, group: &Group) {
        let (learnt, place) = place(key, group, self.silence);
        if learnt { &mut self.learnt } else { &mut self.young }.push(Reverse(place));
    }

    /// Takes out the group that gives way to what comes in bucket `now`, if one does.
    pub(super) fn next(&mut self, now: u64, groups: &Kept<Key, Group>) -> Option<Key> {
        self.first(false, now, groups).or_else(|| self.first(true, now, groups))
    }

    fn first(&mut self, learnt: bool, now: u64, groups: &Kept<Key, Group>) -> Option<Key> {
        loop {
            let heap = if learnt { &mut self.learnt } else { &mut self.young };
            // It can only have moved back, so whoever stands behind it stays as well.
            heap.peek().filter(|Reverse(first)| first.until < now)?;
            let Reverse(noted) = heap.pop()?;
            let Some(group) = groups.get(&noted.key) else { continue };
            let (has_learnt, place) = place(&noted.key, group, self.silence);
            if has_learnt == learnt && place == noted {
                return Some(noted.key);
            }
            if has_learnt { &mut self.learnt } else { &mut self.young }.push(Reverse(place));
        }
    }
}

/// Whether the group has learnt, and its place among those that have, or have not.
fn place(key: &Key, group: &Group, silence: u64) -> (bool, Place) {
    let Hold { learnt, last_data, reported } = group.hold();
    // Who reports in every bucket is never taken for gone, as early in the next one as it may be asked.
    let patience = if learnt { silence } else { 1 };
    (learnt, Place { until: last_data.saturating_add(patience), reported, key: key.clone() })
}
