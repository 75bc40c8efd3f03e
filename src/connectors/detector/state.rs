//! What is learnt, in the store: a header, and chunks of groups.
//!
//! Encoded with postcard. Two generations take turns, and the header is written last, so that an interrupted
//! save leaves the one before in force. Groups are dealt to the shards anew when they are loaded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bucket::Kind;
use super::core::{Core, Settings};
use super::group::Group;
use super::joint;
use super::key::{Key, VERSION, shard_of};
use super::rules::Saved;
use super::watermark::Sources;
use crate::model::{Entity, Signal, SpanKind, UnixNanos};
use crate::pipeline::{ComponentId, Context};
use crate::storage::{Storage, StorageError};

/// Of the encoding.
const FORMAT: u32 = 3;

/// Groups in one value of the store, and their memory: forests are large.
const CHUNK: usize = 1000;
const CHUNK_BYTES: usize = 16 << 20;

/// What all shards have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    format: u32,
    model: String,
    /// Nanoseconds.
    bucket: u64,
    sources: Sources,
    quieting: Saved,
    chunks: u32,
    generation: u8,
}

/// What all shards hold alike.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Shared {
    sources: Sources,
    quieting: Saved,
}

/// What one value of the store holds.
#[derive(Deserialize)]
enum Chunk {
    Groups(Vec<(SavedKey, Group)>),
    Joint(Vec<joint::Saved>),
}

/// As [`Chunk`].
#[derive(Serialize)]
enum ChunkRef<'a> {
    Groups(Vec<(SavedKey, &'a Group)>),
    Joint(&'a [joint::Saved]),
}

/// The key of a group.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedKey {
    service: String,
    instance: Option<String>,
    operation: Option<String>,
    span_kind: Option<SpanKind>,
    attributes: Vec<(String, String)>,
    metric: String,
    unit: String,
    kind: Kind,
    signal: Signal,
}

/// Why a state cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another version wrote it, or another bucket was configured.
    #[error("{0}")]
    Other(String),
    /// It is damaged.
    #[error("`{key}` cannot be read: {error}")]
    Damaged {
        /// Which value.
        key: String,
        /// What is wrong.
        error: postcard::Error,
    },
}

/// Where a detector keeps its state.
#[derive(Clone, Debug)]
pub(super) struct Place(String);

impl Place {
    pub(super) fn new(context: &Context) -> Self {
        Self::of(context.environment.as_str(), &context.id)
    }

    pub(super) fn of(environment: &str, id: &ComponentId) -> Self {
        Self(format!("detector/{environment}/{id}"))
    }

    fn header(&self) -> String {
        format!("{}/header", self.0)
    }

    fn chunk(&self, generation: u8, number: u32) -> String {
        format!("{}/{generation}/{number}", self.0)
    }

    /// What is kept beside the series.
    fn incidents(&self, generation: u8) -> String {
        format!("{}/{generation}/incidents", self.0)
    }
}

/// A core per entry of `settings`, with what was saved, if something was.
pub(super) fn load(
    storage: &dyn Storage,
    place: &Place,
    settings: &[Arc<Settings>],
    now: UnixNanos,
) -> Result<(Vec<Core>, Option<Header>), LoadError> {
    let mut cores: Vec<Core> = settings.iter().map(|s| Core::new(Arc::clone(s), now)).collect();
    let Some(header) = read_header(storage, place)? else { return Ok((cores, None)) };
    let bucket = settings.first().map_or(0, |s| s.timing.bucket);
    if header.format != FORMAT || header.model != VERSION {
        return Err(LoadError::Other(format!("it was learnt by another version (model {})", header.model)));
    }
    if header.bucket != bucket {
        let seconds = |nanos: u64| nanos / UnixNanos::SECOND;
        return Err(LoadError::Other(format!(
            "it was learnt in buckets of {} s, and `bucket` is now {} s",
            seconds(header.bucket),
            seconds(bucket)
        )));
    }
    for core in &mut cores {
        core.sources = header.sources.clone();
        core.quieting.restore(header.quieting.clone());
    }
    for number in 0..header.chunks {
        let key = place.chunk(header.generation, number);
        let bytes = storage.get(&key)?.unwrap_or_default();
        let chunk: Chunk = postcard::from_bytes(&bytes).map_err(|error| LoadError::Damaged { key: key.clone(), error })?;
        let shards = cores.len();
        match chunk {
            Chunk::Groups(groups) => {
                for (saved, group) in groups {
                    let key = saved.into_key();
                    if let Some(core) = cores.get_mut(shard_of(&key.entity, shards)) {
                        core.restore(key, group);
                    }
                }
            }
            Chunk::Joint(all) => {
                for saved in all {
                    if let Some(core) = cores.get_mut(shard_of(&saved.entity(), shards)) {
                        core.joint.restore(saved);
                    }
                }
            }
        }
    }
    Ok((cores, Some(header)))
}

/// What was saved of the incidents; nothing where an older version has saved.
pub(super) fn load_incidents(storage: &dyn Storage, place: &Place, header: &Header) -> Result<Option<Vec<u8>>, StorageError> {
    Ok(storage.get(&place.incidents(header.generation))?.filter(|bytes| !bytes.is_empty()))
}

/// Whether something that was learnt in buckets of this width can be gone on with.
pub(super) fn learnt(storage: &dyn Storage, place: &Place, bucket: u64) -> bool {
    let header = read_header(storage, place).ok().flatten();
    header.is_some_and(|h| h.format == FORMAT && h.model == VERSION && h.bucket == bucket)
}

fn read_header(storage: &dyn Storage, place: &Place) -> Result<Option<Header>, LoadError> {
    let key = place.header();
    match storage.get(&key)? {
        Some(bytes) => postcard::from_bytes(&bytes).map(Some).map_err(|error| LoadError::Damaged { key, error }),
        None => Ok(None),
    }
}

/// The groups of `core` in an order of their own, encoded in chunks; and the sources, which all shards share.
pub(super) fn encode<E>(core: &mut Core, mut emit: impl FnMut(Vec<u8>) -> Result<(), E>) -> Result<Shared, E> {
    core.sort_sources();
    let mut groups: Vec<(&Key, &Group)> = core.groups.iter().collect();
    groups.sort_unstable_by(|a, b| a.0.cmp(b.0));
    while !groups.is_empty() {
        let mut bytes = 0;
        let fitting = groups.iter().take(CHUNK).take_while(|(_, group)| {
            let first = bytes == 0;
            bytes += group.bytes().max(1);
            first || bytes <= CHUNK_BYTES
        });
        let chunk = groups.drain(..fitting.count()).collect::<Vec<_>>();
        let saved: Vec<(SavedKey, &Group)> = chunk.into_iter().map(|(key, group)| (SavedKey::new(key), group)).collect();
        // Nothing in a group refuses to be encoded, and memory is the only other limit.
        if let Ok(bytes) = postcard::to_stdvec(&ChunkRef::Groups(saved)) {
            emit(bytes)?;
        }
    }
    for chunk in core.joint.saved().chunks(CHUNK) {
        if let Ok(bytes) = postcard::to_stdvec(&ChunkRef::Joint(chunk)) {
            emit(bytes)?;
        }
    }
    Ok(Shared { sources: core.sources.clone(), quieting: core.quieting.saved().clone() })
}

/// Writes the chunks of all shards one by one, and the header last.
#[derive(Debug)]
pub(super) struct Save {
    place: Place,
    bucket: u64,
    generation: u8,
    chunks: u32,
    /// Generation and number of chunks of the save before.
    before: Option<(u8, u32)>,
}

impl Save {
    /// After the state of `before` was loaded.
    pub(super) fn new(place: Place, bucket: u64, before: Option<&Header>) -> Self {
        let before = before.map(|h| (h.generation, h.chunks));
        let generation = before.map_or(0, |(generation, _)| 1 - generation.min(1));
        Self { place, bucket, generation, chunks: 0, before }
    }

    pub(super) fn chunk(&mut self, storage: &dyn Storage, bytes: &[u8]) -> Result<(), StorageError> {
        storage.put(&[(&self.place.chunk(self.generation, self.chunks), bytes)])?;
        self.chunks += 1;
        Ok(())
    }

    /// Keeps the incidents that are not over, and what else belongs to them.
    pub(super) fn incidents(&mut self, storage: &dyn Storage, bytes: &[u8]) -> Result<(), StorageError> {
        storage.put(&[(&self.place.incidents(self.generation), bytes)])
    }

    /// From now on this save is in force; the room of the one before is given back.
    pub(super) fn finish(self, storage: &dyn Storage, shared: Shared) -> Result<(), StorageError> {
        let header = Header {
            format: FORMAT,
            model: VERSION.to_owned(),
            bucket: self.bucket,
            sources: shared.sources,
            quieting: shared.quieting,
            chunks: self.chunks,
            generation: self.generation,
        };
        let bytes = postcard::to_stdvec(&header).map_err(|e| StorageError(format!("cannot encode the learnt state: {e}")))?;
        storage.put(&[(&self.place.header(), &bytes)])?;
        let Some((generation, chunks)) = self.before else { return Ok(()) };
        let mut old: Vec<String> = (0..chunks).map(|number| self.place.chunk(generation, number)).collect();
        old.push(self.place.incidents(generation));
        let empty: Vec<(&str, &[u8])> = old.iter().map(|key| (key.as_str(), &[][..])).collect();
        storage.put(&empty)
    }
}

impl SavedKey {
    pub(super) fn new(key: &Key) -> Self {
        let Entity { service, instance, operation, kind, attributes } = Entity::clone(&key.entity);
        Self {
            service,
            instance,
            operation,
            span_kind: kind,
            attributes,
            metric: key.metric.to_string(),
            unit: key.unit.to_string(),
            kind: key.kind,
            signal: key.signal,
        }
    }

    /// Whose it is.
    pub(super) fn entity(&self) -> Entity {
        let Self { service, instance, operation, span_kind: kind, attributes, .. } = self;
        let (service, instance, operation) = (service.clone(), instance.clone(), operation.clone());
        Entity { service, instance, operation, kind: *kind, attributes: attributes.clone() }
    }

    pub(super) fn into_key(self) -> Key {
        let Self { service, instance, operation, span_kind, attributes, metric, unit, kind, signal } = self;
        let entity = Arc::new(Entity { service, instance, operation, kind: span_kind, attributes });
        Key { entity, metric: metric.into(), kind, unit: unit.into(), signal }
    }
}
