//! What several groups show in one bucket, until all of them have closed it.

use std::cell::Cell;
use std::collections::BTreeMap;

/// Buckets that wait for a source that is behind. Of more, the oldest is judged with what it has.
const MOST_PENDING: usize = 60;

/// The values of buckets that are not judged yet.
///
/// Groups close a bucket when their own sources have passed it. Those that judge together wait for the slowest of
/// them, but not for one that comes later, nor for sources that have ended.
#[derive(Clone, Debug)]
pub(super) struct Collector<T> {
    /// Buckets before this one are judged.
    pub(super) next: u64,
    pub(super) pending: BTreeMap<u64, Vec<T>>,
    /// The smallest horizon that was told since the last sweep: no part of what is learnt.
    horizon: Cell<Option<u64>>,
}

impl<T> Collector<T> {
    pub(super) const fn new(next: u64, pending: BTreeMap<u64, Vec<T>>) -> Self {
        Self { next, pending, horizon: Cell::new(None) }
    }

    /// A group that takes part has closed all buckets before `horizon`, and no others.
    pub(super) fn hold(&self, horizon: u64) {
        self.horizon.set(Some(self.horizon.get().map_or(horizon, |least| least.min(horizon))));
    }

    /// What a group shows in a bucket; nothing where that is judged already.
    pub(super) fn add(&mut self, bucket: u64, shown: T) {
        if bucket >= self.next {
            self.pending.entry(bucket).or_default().push(shown);
        }
    }

    /// The oldest bucket that all have closed; `None` ends the sweep.
    pub(super) fn due(&mut self) -> Option<(u64, Vec<T>)> {
        if !self.is_due() {
            return None;
        }
        let oldest = self.pending.pop_first()?;
        self.next = oldest.0 + 1;
        Some(oldest)
    }

    /// Whether there is such a bucket.
    pub(super) fn is_due(&self) -> bool {
        let closed = |bucket| self.horizon.get().is_some_and(|horizon| bucket < horizon);
        let oldest = self.pending.first_key_value();
        oldest.is_some_and(|(bucket, _)| closed(*bucket) || self.pending.len() > MOST_PENDING)
    }

    /// The sweep is over.
    pub(super) fn rest(&self) {
        self.horizon.set(None);
    }
}

impl<T> Default for Collector<T> {
    fn default() -> Self {
        Self::new(0, BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(collector: &mut Collector<char>) -> Vec<(u64, Vec<char>)> {
        let all = std::iter::from_fn(|| collector.due()).collect();
        collector.rest();
        all
    }

    #[test]
    fn a_bucket_waits_for_the_slowest_and_for_nobody_who_comes_later() {
        let mut collector = Collector::default();
        collector.add(5, 'a');
        collector.add(6, 'a');
        collector.hold(7);
        collector.hold(5);
        assert_eq!(due(&mut collector), []);
        collector.add(5, 'b');
        collector.hold(7);
        collector.hold(6);
        assert_eq!(due(&mut collector), [(5, vec!['a', 'b'])]);
        collector.add(5, 'c');
        collector.hold(7);
        assert_eq!(due(&mut collector), [(6, vec!['a'])], "who shows nothing has closed it as well; the late one is left out");
        assert_eq!(due(&mut collector), []);
    }

    #[test]
    fn a_source_far_behind_does_not_hold_back_for_ever() {
        let mut collector = Collector::default();
        for bucket in 0..=MOST_PENDING as u64 {
            collector.add(bucket, 'a');
        }
        collector.hold(0);
        assert_eq!(due(&mut collector), [(0, vec!['a'])]);
    }
}
