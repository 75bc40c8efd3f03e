//! What was taken in lately: ids of requests, and how far receivers have read.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Signal, SourceId, UnixNanos};
use crate::pipeline::{BatchId, Mark};

/// A request that is sent again comes within this time: longer than clients try again by default (Collector: 5
/// minutes).
const KEPT: u64 = 15 * 60 * UnixNanos::SECOND;
/// More ids than this are not remembered: 16 bytes each on disk.
const MOST: usize = 200_000;

/// A function of the entries, and a part of every checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Known {
    ids: HashSet<BatchId>,
    /// The same, oldest first, with the time of the clock.
    order: VecDeque<(UnixNanos, BatchId)>,
    marks: BTreeMap<(SourceId, Signal), Arc<Mark>>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    ids: Vec<(UnixNanos, BatchId)>,
    marks: Vec<Mark>,
}

impl Known {
    /// Whether a request was taken in already.
    pub(in super::super) fn has(&self, id: BatchId) -> bool {
        self.ids.contains(&id)
    }

    /// A batch is taken in; the clock shows `now`.
    pub(in super::super) fn take(&mut self, id: Option<BatchId>, mark: Option<&Arc<Mark>>, now: UnixNanos) {
        if let Some(id) = id
            && self.ids.insert(id)
        {
            self.order.push_back((now, id));
        }
        if let Some(mark) = mark {
            self.marks.insert((SourceId::clone(&mark.source), mark.signal), Arc::clone(mark));
        }
        while self.order.len() > MOST || self.order.front().is_some_and(|(at, _)| at.0.saturating_add(KEPT) < now.0) {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            self.ids.remove(&oldest);
        }
    }

    /// Nothing could be taken in for `pause` nanoseconds. Clients that have waited for an answer since before it come
    /// again only now, so no request has become older.
    pub(in super::super) fn resume(&mut self, pause: u64) {
        self.order.iter_mut().for_each(|(at, _)| at.0 = at.0.saturating_add(pause));
    }

    /// How far receivers have read.
    pub(in super::super) fn marks(&self) -> impl Iterator<Item = &Mark> {
        self.marks.values().map(Arc::as_ref)
    }

    /// What survives a restart.
    pub(in super::super) fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        let marks = self.marks().cloned().collect();
        postcard::to_stdvec(&Stored { ids: self.order.iter().copied().collect(), marks })
    }

    /// From what was saved.
    pub(in super::super) fn restore(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let Stored { ids, marks } = postcard::from_bytes(bytes)?;
        let marks = marks.into_iter().map(|mark| ((SourceId::clone(&mark.source), mark.signal), Arc::new(mark)));
        Ok(Self { ids: ids.iter().map(|(_, id)| *id).collect(), order: ids.into(), marks: marks.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> UnixNanos {
        UnixNanos::from_secs(1_700_000_000 + minutes * 60)
    }

    #[test]
    fn a_request_is_known_for_a_quarter_of_an_hour_also_after_a_restart() {
        let id = |n: u8| BatchId([n; 16]);
        let mut known = Known::default();
        known.take(Some(id(1)), None, at(0));
        known.take(Some(id(2)), None, at(14));
        assert!(known.has(id(1)) && known.has(id(2)) && !known.has(id(3)));
        let mut known = Known::restore(&known.save().unwrap()).unwrap();
        known.take(None, None, at(16));
        assert!(!known.has(id(1)) && known.has(id(2)));
    }

    #[test]
    fn a_request_does_not_become_older_while_nothing_can_be_taken_in() {
        let id = |n: u8| BatchId([n; 16]);
        let mut known = Known::default();
        known.take(Some(id(1)), None, at(0));
        known.take(Some(id(2)), None, at(10));
        known.resume(590 * 60 * UnixNanos::SECOND);
        known.take(Some(id(3)), None, at(601));
        assert!([1, 2, 3].into_iter().all(|n| known.has(id(n))), "who waits since before the pause comes now");
        known.take(None, None, at(606));
        assert!(!known.has(id(1)) && known.has(id(2)));
    }

    #[test]
    fn the_last_mark_of_each_signal_of_a_receiver_is_kept() {
        let mark = |source: &str, signal, generation| {
            Arc::new(Mark { source: SourceId::from(source), signal, generation, bytes: vec![generation as u8] })
        };
        let mut known = Known::default();
        for mark in
            [mark("a", Signal::Logs, 1), mark("a", Signal::Traces, 1), mark("b", Signal::Logs, 5), mark("a", Signal::Logs, 2)]
        {
            known.take(None, Some(&mark), at(0));
        }
        let known = Known::restore(&known.save().unwrap()).unwrap();
        let kept: Vec<(String, u64)> =
            known.marks().map(|m| (format!("{} {}", m.source, m.signal.as_str()), m.generation)).collect();
        assert_eq!(kept, [("a traces".to_owned(), 1), ("a logs".to_owned(), 2), ("b logs".to_owned(), 5)]);
    }
}
