//! Which documents have been handed over already.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::model::UnixNanos;

/// 128 bits of BLAKE3 over index and id: with a billion documents the odds of any two being taken for one another are
/// below 1 in 10^20.
pub(super) fn key(index: &str, id: &str) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(index.len() as u64).to_le_bytes());
    hasher.update(index.as_bytes());
    hasher.update(id.as_bytes());
    let mut bytes = [0; 16];
    hasher.finalize_xof().fill(&mut bytes);
    u128::from_le_bytes(bytes)
}

/// The keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

type Keys = HashSet<u128, BuildHasherDefault<Identity>>;

/// The keys of all documents that were handed over, by the second of their time, so that old ones go cheaply.
#[derive(Debug, Default)]
pub(super) struct Seen {
    seconds: BTreeMap<u64, Keys>,
    len: usize,
}

impl Seen {
    /// How many documents.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Whether the document of `time` was handed over.
    pub(super) fn contains(&self, time: UnixNanos, key: u128) -> bool {
        self.seconds.get(&time.secs()).is_some_and(|keys| keys.contains(&key))
    }

    /// Remembers a document; false if it was there.
    pub(super) fn insert(&mut self, time: UnixNanos, key: u128) -> bool {
        let new = self.seconds.entry(time.secs()).or_default().insert(key);
        self.len += usize::from(new);
        new
    }

    /// Forgets what lies before the second of `floor`.
    pub(super) fn forget_before(&mut self, floor: UnixNanos) {
        while let Some(first) = self.seconds.first_entry().filter(|e| *e.key() < floor.secs()) {
            self.len -= first.remove().len();
        }
    }

    /// Forgets whole seconds, the oldest first, until at most `most` documents are left, but nothing of the second of
    /// `high` or later. The moment from which on everything is still known, if something was forgotten.
    pub(super) fn shrink(&mut self, most: usize, high: UnixNanos) -> Option<UnixNanos> {
        let mut floor = None;
        while self.len > most
            && let Some(first) = self.seconds.first_entry().filter(|e| *e.key() < high.secs())
        {
            floor = Some(UnixNanos::from_secs(first.key() + 1));
            self.len -= first.remove().len();
        }
        floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_id_cannot_be_mistaken_for_one_another() {
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_eq!(key("ab", "c"), key("ab", "c"));
    }

    #[test]
    fn a_full_set_forgets_the_oldest_seconds_and_says_from_where_on_it_is_complete() {
        let mut seen = Seen::default();
        for n in 0..10u64 {
            assert!(seen.insert(UnixNanos::from_secs(100 + n / 2), n.into()));
        }
        assert!(!seen.insert(UnixNanos::from_secs(100), 0));
        let high = UnixNanos::from_secs(104);
        assert_eq!(seen.shrink(10, high), None);
        assert_eq!(seen.shrink(5, high), Some(UnixNanos::from_secs(103)));
        assert_eq!(
            (seen.len(), seen.contains(UnixNanos::from_secs(102), 5), seen.contains(UnixNanos::from_secs(103), 6)),
            (4, false, true)
        );
        assert_eq!(seen.shrink(0, high), Some(high));
        assert_eq!(seen.len(), 2, "the newest second stays, or its documents would be read twice");
        seen.forget_before(UnixNanos::from_secs(105));
        assert_eq!(seen.len(), 0);
    }
}
