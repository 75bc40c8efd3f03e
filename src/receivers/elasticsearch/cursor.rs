//! How far an environment's indices have been read: in memory, and as it survives a restart.
//!
//! In the store a cursor is a small head (JSON), and the keys of the documents of the overlap in segments of bounded
//! size. New keys are appended to the last segment only, so what is written for a page does not depend on how much
//! is remembered; head and segment change in one transaction.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::seen::Seen;
use super::time::millisecond;
use crate::model::UnixNanos;
use crate::pipeline::Mark;
use crate::storage::{Storage, StorageError};

const VERSION: u32 = 1;
/// Keys per segment.
const SEGMENT: usize = 8192;
/// Bytes per key: time and hash.
const ENTRY: usize = 24;

/// The head as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    high: UnixNanos,
    floor: UnixNanos,
    segments: Vec<Segment>,
    /// Of the last batch that is in it.
    #[serde(default)]
    generation: u64,
}

/// What every format has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Segment {
    slot: u32,
    newest: UnixNanos,
    /// The first bytes of BLAKE3 over its keys.
    check: String,
}

/// Why a stored cursor cannot be used, and what that means.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoadError {
    /// The store cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It was written by a newer version.
    #[error(
        "the cursor `{key}` has format {found}, this version knows {VERSION}: start the version that wrote it, or use an empty data directory"
    )]
    Newer {
        /// Its key in the store.
        key: String,
        /// Its format.
        found: u32,
    },
}

/// See the module.
pub(super) struct Cursor {
    storage: Arc<dyn Storage>,
    key: String,
    /// Everything that was searchable before this moment when it was read has been handed over.
    high: UnixNanos,
    /// From this moment on, `seen` holds everything that was handed over.
    floor: UnixNanos,
    seen: Seen,
    segments: Vec<Segment>,
    /// The keys of the last segment.
    open: Vec<u8>,
    /// Keys that are not stored yet.
    pending: Vec<(UnixNanos, u128)>,
    /// Counts the batches that were handed over; see [`Cursor::catch_up`].
    generation: u64,
    /// Whether the store lacks something of this.
    dirty: bool,
}

impl Cursor {
    /// The stored cursor `key`; one that begins at `start` where there is none. The sentence says what is damaged.
    ///
    /// # Errors
    /// When the store cannot be read, or a newer version wrote the cursor.
    pub(super) fn load(storage: Arc<dyn Storage>, key: String, start: UnixNanos) -> Result<(Self, Option<String>), LoadError> {
        let start = millisecond(start);
        let mut cursor = Self { dirty: false, ..Self::anew(storage, key, start) };
        let Some(bytes) = cursor.storage.get(&cursor.key)? else { return Ok((cursor, None)) };
        if let Ok(Version { version: found }) = serde_json::from_slice(&bytes)
            && found > VERSION
        {
            return Err(LoadError::Newer { key: cursor.key, found });
        }
        let damaged = match serde_json::from_slice::<Head>(&bytes) {
            Ok(head) => cursor.take(head)?,
            Err(error) => Some(format!(
                "the cursor `{}` is damaged ({error}): reading begins again at {start}; documents since then may be read twice, \
                 and older ones that were not read yet are left out",
                cursor.key
            )),
        };
        Ok((cursor, damaged))
    }

    /// One that begins at `start`, whatever is stored; what is stored is replaced by the first commit.
    pub(super) fn anew(storage: Arc<dyn Storage>, key: String, start: UnixNanos) -> Self {
        let start = millisecond(start);
        Self {
            storage,
            key,
            high: start,
            floor: start,
            seen: Seen::default(),
            segments: Vec::new(),
            open: Vec::new(),
            pending: Vec::new(),
            generation: 0,
            dirty: true,
        }
    }

    fn take(&mut self, head: Head) -> Result<Option<String>, StorageError> {
        (self.high, self.floor, self.generation) = (head.high, head.floor, head.generation);
        for segment in &head.segments {
            let bytes = self.storage.get(&self.slot(segment.slot))?.unwrap_or_default();
            if check(&bytes) != segment.check {
                let (high, slot) = (millisecond(self.high), segment.slot);
                self.seen = Seen::default();
                self.floor = high;
                return Ok(Some(format!(
                    "part {slot} of the cursor `{}` is damaged: reading goes on at {high}; documents of that very moment may be read \
                     twice, and late ones before it are left out",
                    self.key
                )));
            }
            for (time, key) in entries(&bytes) {
                self.seen.insert(time, key);
            }
            self.open = bytes;
        }
        self.segments = head.segments;
        self.seen.forget_before(self.floor);
        Ok(None)
    }

    fn slot(&self, slot: u32) -> String {
        format!("{}/seen/{slot}", self.key)
    }

    /// Where what has not been read yet begins.
    pub(super) const fn high(&self) -> UnixNanos {
        self.high
    }

    /// Where the next window begins, so that late documents of the last `overlap` nanoseconds are found.
    pub(super) fn low(&self, overlap: u64) -> UnixNanos {
        millisecond(self.high.minus(overlap)).max(self.floor).min(millisecond(self.high))
    }

    /// Whether a document was handed over.
    pub(super) fn contains(&self, time: UnixNanos, key: u128) -> bool {
        self.seen.contains(time, key)
    }

    /// Remembers that a document was handed over, or given up for good.
    pub(super) fn insert(&mut self, time: UnixNanos, key: u128) {
        if self.seen.insert(time, key) {
            self.pending.push((time, key));
            self.dirty = true;
        }
    }

    /// Everything before `high` has been read.
    pub(super) fn advance(&mut self, high: UnixNanos) {
        self.dirty |= high > self.high;
        self.high = self.high.max(high);
    }

    /// The number of the next batch that is handed over.
    pub(super) const fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// What a batch of these documents carries with it; see [`Cursor::catch_up`].
    pub(super) fn mark(documents: &[(UnixNanos, u128)]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(documents.len() * ENTRY);
        documents.iter().for_each(|document| write(&mut bytes, document));
        bytes
    }

    /// Takes up batches that were taken in before the cursor could be stored, by the marks that were kept with them.
    /// How many documents these are.
    pub(super) fn catch_up(&mut self, marks: &[Mark]) -> usize {
        let before = self.generation;
        let mut documents = 0;
        for mark in marks.iter().filter(|mark| mark.generation > before) {
            self.generation = self.generation.max(mark.generation);
            for (time, key) in entries(&mark.bytes) {
                self.insert(time, key);
                documents += 1;
            }
            self.dirty = true;
        }
        documents
    }

    /// Whether the store lacks something of this.
    pub(super) const fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Forgets what no window will show again. At most `most` documents are remembered; if that makes the overlap
    /// shorter, the answer is where it begins now.
    pub(super) fn prune(&mut self, overlap: u64, most: usize) -> Option<UnixNanos> {
        self.floor = self.low(overlap);
        self.seen.forget_before(self.floor);
        let shrunk = self.seen.shrink(most, millisecond(self.high))?;
        self.floor = self.floor.max(shrunk.min(millisecond(self.high)));
        Some(self.floor)
    }

    /// How many documents are remembered.
    pub(super) const fn remembered(&self) -> usize {
        self.seen.len()
    }

    /// Stores everything that changed. On an error nothing was stored, and the next call stores it too.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub(super) async fn commit(&mut self) -> Result<(), StorageError> {
        let mut changes: Vec<(String, Vec<u8>)> = Vec::new();
        let (mut segments, mut open) = (self.segments.clone(), self.open.clone());
        // What lies before the floor is not needed; the last segment stays, because it is the one that grows.
        let last = segments.len().saturating_sub(1);
        let mut index = 0;
        segments.retain(|segment| {
            index += 1;
            let needed = segment.newest >= self.floor || index > last;
            if !needed {
                changes.push((self.slot(segment.slot), Vec::new()));
            }
            needed
        });
        for chunk in self.chunks(open.len() / ENTRY) {
            let full = open.len() >= SEGMENT * ENTRY;
            if full || segments.is_empty() {
                open.clear();
                let free = (0..).find(|slot| segments.iter().all(|s| s.slot != *slot)).unwrap_or_default();
                segments.push(Segment { slot: free, newest: UnixNanos::default(), check: String::new() });
            }
            chunk.iter().for_each(|document| write(&mut open, document));
            if let Some(segment) = segments.last_mut() {
                segment.newest = chunk.iter().map(|(time, _)| *time).fold(segment.newest, UnixNanos::max);
                segment.check = check(&open);
                let slot = self.slot(segment.slot);
                changes.retain(|(key, _)| *key != slot);
                changes.push((slot, open.clone()));
            }
        }
        let (high, floor, generation) = (self.high, self.floor, self.generation);
        let head = Head { version: VERSION, high, floor, segments: segments.clone(), generation };
        let head = serde_json::to_vec(&head).map_err(|e| StorageError(format!("cannot write the cursor `{}`: {e}", self.key)))?;
        changes.push((self.key.clone(), head));
        let storage = Arc::clone(&self.storage);
        let write = move || {
            let entries: Vec<(&str, &[u8])> = changes.iter().map(|(k, v)| (k.as_str(), v.as_slice())).collect();
            storage.put(&entries)
        };
        // A disk write must not hold up the other tasks of this thread.
        let written = tokio::task::spawn_blocking(write).await;
        written.map_err(|e| StorageError(format!("cannot write the cursor `{}`: {e}", self.key)))??;
        (self.segments, self.open) = (segments, open);
        self.pending.clear();
        self.dirty = false;
        Ok(())
    }

    /// The pending keys, cut where segments end.
    fn chunks(&self, in_last: usize) -> impl Iterator<Item = &[(UnixNanos, u128)]> {
        let room = SEGMENT.saturating_sub(in_last);
        let first = if room == 0 { SEGMENT } else { room };
        let (head, rest) = self.pending.split_at(first.min(self.pending.len()));
        std::iter::once(head).chain(rest.chunks(SEGMENT)).filter(|chunk| !chunk.is_empty())
    }
}

fn check(bytes: &[u8]) -> String {
    let hash = blake3::hash(bytes);
    data_encoding::HEXLOWER.encode(hash.as_bytes().get(..8).unwrap_or_default())
}

/// A time and a key as they are stored.
fn write(bytes: &mut Vec<u8>, (time, key): &(UnixNanos, u128)) {
    bytes.extend_from_slice(&time.0.to_le_bytes());
    bytes.extend_from_slice(&key.to_le_bytes());
}

/// The times and keys in `bytes`.
fn entries(bytes: &[u8]) -> impl Iterator<Item = (UnixNanos, u128)> {
    bytes.chunks_exact(ENTRY).map(|entry| {
        let (time, key) = entry.split_at(8);
        let time = UnixNanos(u64::from_le_bytes(time.try_into().unwrap_or_default()));
        (time, u128::from_le_bytes(key.try_into().unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{FullStorage, MemoryStorage};
    use proptest::prelude::*;

    const KEY: &str = "cursor/test/elasticsearch";
    const SECOND: u64 = UnixNanos::SECOND;

    fn load(storage: &Arc<MemoryStorage>) -> (Cursor, Option<String>) {
        Cursor::load(Arc::clone(storage) as Arc<dyn Storage>, KEY.to_owned(), UnixNanos::from_secs(1000)).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn a_loaded_cursor_is_the_stored_one(pages in prop::collection::vec((1u64..20_000, 0u64..90, any::<bool>()), 1..8)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let storage = Arc::new(MemoryStorage::default());
            let (mut cursor, _) = load(&storage);
            let (mut next, mut all) = (0u128, Vec::new());
            for (documents, seconds, restart) in pages {
                let to = cursor.high().plus(seconds * SECOND);
                for n in 0..documents {
                    let time = UnixNanos(cursor.high().0 + (to.0 - cursor.high().0) * n / documents);
                    next += 1;
                    cursor.insert(time, next << 64 | next);
                    all.push((time, next << 64 | next));
                }
                cursor.advance(to);
                cursor.prune(60 * SECOND, usize::MAX);
                runtime.block_on(cursor.commit()).unwrap();
                if restart {
                    let (high, floor, remembered) = (cursor.high, cursor.floor, cursor.remembered());
                    let (loaded, damage) = load(&storage);
                    prop_assert_eq!(damage, None);
                    cursor = loaded;
                    prop_assert_eq!((cursor.high, cursor.floor, cursor.remembered()), (high, floor, remembered));
                }
                let low = cursor.low(60 * SECOND);
                prop_assert!(all.iter().filter(|(t, _)| *t >= low).all(|(t, k)| cursor.contains(*t, *k)));
            }
        }
    }

    #[tokio::test]
    async fn what_is_written_for_a_page_does_not_grow_with_what_is_remembered() {
        #[derive(Default)]
        struct Measured(MemoryStorage, std::sync::Mutex<usize>);
        impl Storage for Measured {
            fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
                self.0.get(key)
            }
            fn put(&self, entries: &[(&str, &[u8])]) -> Result<(), StorageError> {
                *self.1.lock().unwrap() = entries.iter().map(|(_, v)| v.len()).sum();
                self.0.put(entries)
            }
        }
        let storage = Arc::new(Measured::default());
        let (mut cursor, _) =
            Cursor::load(Arc::clone(&storage) as Arc<dyn Storage>, KEY.to_owned(), UnixNanos::from_secs(1000)).unwrap();
        for page in 0..100u128 {
            for n in 0..1000u128 {
                cursor.insert(UnixNanos::from_secs(2000), page << 64 | n);
            }
            cursor.commit().await.unwrap();
            assert!(*storage.1.lock().unwrap() <= 2 * SEGMENT * ENTRY + 4000, "page {page}");
        }
        assert_eq!(cursor.remembered(), 100_000);
    }

    #[tokio::test]
    async fn a_damaged_cursor_is_reported_and_reading_goes_on() {
        let storage = Arc::new(MemoryStorage::default());
        let (mut cursor, _) = load(&storage);
        cursor.insert(UnixNanos::from_secs(1500), 1);
        cursor.advance(UnixNanos::from_secs(1600));
        cursor.commit().await.unwrap();
        storage.put(&[("cursor/test/elasticsearch/seen/0", b"rubbish")]).unwrap();
        let (cursor, part) = load(&storage);
        assert_eq!((cursor.high(), cursor.low(600 * SECOND)), (UnixNanos::from_secs(1600), UnixNanos::from_secs(1600)));
        storage.put(&[(KEY, b"{\"version\":1,")]).unwrap();
        let (cursor, whole) = load(&storage);
        assert_eq!(cursor.high(), UnixNanos::from_secs(1000));
        storage.put(&[(KEY, br#"{"version":2,"high":0,"floor":0,"segments":[]}"#)]).unwrap();
        let newer = Cursor::load(storage, KEY.to_owned(), UnixNanos::from_secs(1000)).err().unwrap();
        insta::assert_snapshot!([part.unwrap(), whole.unwrap(), newer.to_string()].join("\n"));
    }

    #[tokio::test]
    async fn a_history_that_is_read_anew_replaces_what_was_read_before() {
        let storage = Arc::new(MemoryStorage::default());
        let (mut cursor, _) = load(&storage);
        cursor.insert(UnixNanos::from_secs(5000), 1);
        cursor.advance(UnixNanos::from_secs(6000));
        cursor.commit().await.unwrap();
        let start = UnixNanos::from_secs(100);
        let mut anew = Cursor::anew(Arc::clone(&storage) as Arc<dyn Storage>, KEY.to_owned(), start);
        assert!(anew.is_dirty() && !anew.contains(UnixNanos::from_secs(5000), 1));
        anew.commit().await.unwrap();
        let (loaded, damage) = load(&storage);
        assert_eq!((loaded.high(), loaded.remembered(), damage), (start, 0, None));
    }

    #[tokio::test]
    async fn what_could_not_be_stored_is_stored_by_the_next_commit() {
        let storage = Arc::new(FullStorage::default());
        storage.full.store(true, std::sync::atomic::Ordering::SeqCst);
        let (mut cursor, _) =
            Cursor::load(Arc::clone(&storage) as Arc<dyn Storage>, KEY.to_owned(), UnixNanos::from_secs(1000)).unwrap();
        cursor.insert(UnixNanos::from_secs(1500), 1);
        cursor.commit().await.unwrap_err();
        cursor.insert(UnixNanos::from_secs(1501), 2);
        cursor.commit().await.unwrap();
        let (loaded, _) = Cursor::load(storage, KEY.to_owned(), UnixNanos::from_secs(1000)).unwrap();
        assert!(loaded.contains(UnixNanos::from_secs(1500), 1) && loaded.contains(UnixNanos::from_secs(1501), 2));
    }
}
