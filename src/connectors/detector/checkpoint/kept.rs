//! A map that can be written out as it was at one moment while it goes on changing.
//!
//! After [`Kept::begin`] it owes every entry that it held then. [`Kept::pay`] writes some of them. There is no way to
//! change or remove an entry but through this type, which writes one that is owed before it lets go of it; what is
//! added later is not owed.
//!
//! Entries have places, the older ones the lower: who goes through all of them can stop anywhere and go on later.

use std::hash::Hash;
use std::ops::Deref;
use std::time::{Duration, Instant};

use hashbrown::DefaultHashBuilder;
use indexmap::IndexMap;
use indexmap::map::Entry as MapEntry;

use super::encode::{Buffer, Chunks};

/// Entries that are looked at in one slice: many of them may have been written already.
const AT_ONCE: usize = 1000;

/// An entry that can be written, in two parts that follow each other.
pub(crate) trait Record<K> {
    /// What changes often is small and apart from the rest: it alone is written when only it changes.
    type Front;

    fn front(&mut self) -> &mut Self::Front;

    /// Writes the key and the front.
    fn write_front(&self, key: &K, buffer: &mut Buffer) -> postcard::Result<()>;

    /// Writes all else.
    fn write_rest(&self, key: &K, buffer: &mut Buffer) -> postcard::Result<()>;
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    /// The last checkpoint that it was written to, or that it came after.
    written: u64,
    /// Its front as of a checkpoint, where it has changed since.
    front: Option<(u64, Box<[u8]>)>,
}

/// What is being written.
#[derive(Debug, Default)]
struct Writing {
    /// Number of the checkpoint.
    number: u64,
    /// Entries that are owed.
    left: usize,
    chunks: Chunks,
    /// Bytes of fronts that wait for the rest of their entry.
    fronts: usize,
    /// An entry could not be written.
    failed: bool,
    /// Time that was spent on writing, since it was last asked for.
    spent: Duration,
}

impl Writing {
    const fn owes<V>(&self, entry: &Entry<V>) -> bool {
        self.left > 0 && entry.written != self.number
    }

    fn front_of<V>(&self, entry: &mut Entry<V>) -> Option<Box<[u8]>> {
        entry.front.take().filter(|(number, _)| *number == self.number).map(|(_, bytes)| bytes)
    }

    /// Writes an entry if it is owed.
    fn write<K, V: Record<K>>(&mut self, key: &K, entry: &mut Entry<V>) {
        if !self.owes(entry) {
            return;
        }
        let began = Instant::now();
        let front = self.front_of(entry);
        self.fronts -= front.as_ref().map_or(0, |bytes| bytes.len());
        let value = &entry.value;
        let written = self.chunks.add(|buffer| {
            match front {
                Some(bytes) => buffer.append(&bytes),
                None => value.write_front(key, buffer)?,
            }
            value.write_rest(key, buffer)
        });
        self.failed |= written.is_err();
        entry.written = self.number;
        self.left -= 1;
        self.spent += began.elapsed();
    }

    /// Writes the front of an entry aside if it is owed.
    fn write_front<K, V: Record<K>>(&mut self, key: &K, entry: &mut Entry<V>) {
        if !self.owes(entry) || entry.front.as_ref().is_some_and(|(number, _)| *number == self.number) {
            return;
        }
        let began = Instant::now();
        let mut buffer = Buffer::default();
        self.failed |= entry.value.write_front(key, &mut buffer).is_err();
        let bytes = buffer.into_bytes().into_boxed_slice();
        self.fronts += bytes.len();
        entry.front = Some((self.number, bytes));
        self.spent += began.elapsed();
    }
}

/// What owes entries to a checkpoint, whatever they are.
pub(crate) trait Owing {
    /// From now on every entry is owed as it is now.
    fn begin(&mut self);

    /// Nothing is owed any more.
    fn give_up(&mut self);

    /// Writes some of the entries that are owed: about `bytes` of them.
    fn pay(&mut self, bytes: usize);

    /// Whether entries are owed.
    fn owes(&self) -> bool;

    /// Bytes that are written and not taken yet.
    fn held(&self) -> usize;

    /// Whether an entry could not be written.
    fn failed(&self) -> bool;

    /// Time that was spent on writing since this was last asked.
    fn spent(&mut self) -> Duration;

    /// The next chunk of what was written.
    fn take_chunk(&mut self) -> Option<Vec<u8>>;

    /// Every entry as it would be written, in an order that depends on nothing else.
    fn records(&self) -> Vec<Vec<u8>>;
}

/// An entry that is looked at, and may be changed.
pub(crate) struct Guarded<'a, K, V> {
    key: &'a K,
    entry: &'a mut Entry<V>,
    writing: &'a mut Writing,
}

impl<K, V> Deref for Guarded<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.entry.value
    }
}

impl<K, V: Record<K>> Guarded<'_, K, V> {
    /// The entry, to change what is not written.
    pub(crate) const fn unwritten(&mut self) -> &mut V {
        &mut self.entry.value
    }

    /// The entry, to be changed.
    pub(crate) fn change(&mut self) -> &mut V {
        self.writing.write(self.key, self.entry);
        &mut self.entry.value
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Kept<K, V> {
    map: IndexMap<K, Entry<V>, DefaultHashBuilder>,
    /// Nothing is owed before this place.
    paid: usize,
    writing: Writing,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self { map: IndexMap::default(), paid: 0, writing: Writing::default() }
    }
}

impl<K: Clone + Eq + Hash, V: Record<K>> Kept<K, V> {
    /// How many entries there are, and so the first place without one.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Where an entry is.
    pub(crate) fn place(&self, key: &K) -> Option<usize> {
        self.map.get_index_of(key)
    }

    /// The entry at a place. Places are the same until an entry is removed.
    pub(crate) fn at(&mut self, place: usize) -> Option<(&K, Guarded<'_, K, V>)> {
        let Self { map, writing, .. } = self;
        let (key, entry) = map.get_index_mut(place)?;
        Some((key, Guarded { key, entry, writing }))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.map.get(key).map(|entry| &entry.value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.map.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// The entry, to be changed.
    pub(crate) fn change(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.map.get_mut(key)?;
        self.writing.write(key, entry);
        Some(&mut entry.value)
    }

    /// The part of the entry at a place that changes often, to be changed.
    pub(crate) fn change_front(&mut self, place: usize) -> Option<&mut V::Front> {
        let (key, entry) = self.map.get_index_mut(place)?;
        self.writing.write_front(key, entry);
        Some(entry.value.front())
    }

    /// Adds an entry, in place of one that may be there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> &mut V {
        self.remove(&key);
        let entry = Entry { value, written: self.writing.number, front: None };
        &mut self.map.entry(key).insert_entry(entry).into_mut().value
    }

    /// The entry, to be changed; an empty one where there was none.
    pub(crate) fn change_or_add(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        match self.map.entry(key) {
            MapEntry::Occupied(mut there) => {
                // The map lends the key and the entry one after the other, never both.
                let key = there.key().clone();
                self.writing.write(&key, there.get_mut());
                &mut there.into_mut().value
            }
            MapEntry::Vacant(room) => {
                let entry = Entry { value: V::default(), written: self.writing.number, front: None };
                &mut room.insert(entry).value
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some((place, _, entry)) = self.map.get_full_mut(key) {
            self.writing.write(key, entry);
            self.map.swap_remove_index(place);
            // The last one has its place now.
            self.paid = self.paid.min(place);
        }
    }

    /// Looks at all entries, and removes those for which `keep` is false.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&K, &mut Guarded<'_, K, V>) -> bool) {
        let Self { map, writing, paid } = self;
        map.retain(|key, entry| {
            let mut guarded = Guarded { key, entry, writing: &mut *writing };
            let keep = keep(key, &mut guarded);
            if !keep {
                guarded.change();
                *paid = 0;
            }
            keep
        });
    }

    /// Changes all entries.
    pub(crate) fn change_all(&mut self, mut change: impl FnMut(&mut V)) {
        self.retain(|_, entry| {
            change(entry.change());
            true
        });
    }
}

impl<K: Clone + Eq + Hash, V: Record<K>> Owing for Kept<K, V> {
    fn begin(&mut self) {
        let number = self.writing.number + 1;
        self.writing = Writing { number, left: self.map.len(), ..Writing::default() };
        self.paid = 0;
    }

    fn give_up(&mut self) {
        self.writing = Writing { number: self.writing.number, ..Writing::default() };
    }

    fn pay(&mut self, bytes: usize) {
        let until = self.writing.chunks.bytes().saturating_add(bytes);
        for _ in 0..AT_ONCE {
            if self.writing.left == 0 || self.writing.chunks.bytes() >= until {
                break;
            }
            let Some((key, entry)) = self.map.get_index_mut(self.paid) else { break };
            self.writing.write(key, entry);
            self.paid += 1;
        }
    }

    fn owes(&self) -> bool {
        self.writing.left > 0
    }

    fn held(&self) -> usize {
        self.writing.chunks.bytes() + self.writing.fronts
    }

    fn failed(&self) -> bool {
        self.writing.failed
    }

    fn spent(&mut self) -> Duration {
        std::mem::take(&mut self.writing.spent)
    }

    fn take_chunk(&mut self) -> Option<Vec<u8>> {
        self.writing.chunks.take(self.writing.left == 0)
    }

    fn records(&self) -> Vec<Vec<u8>> {
        let record = |(key, value): (&K, &V)| {
            let mut buffer = Buffer::default();
            // Memory refuses nothing; what cannot be written shows in the bytes.
            let _ = value.write_front(key, &mut buffer).and_then(|()| value.write_rest(key, &mut buffer));
            buffer.into_bytes()
        };
        let mut all: Vec<Vec<u8>> = self.iter().map(record).collect();
        all.sort_unstable();
        all
    }
}
