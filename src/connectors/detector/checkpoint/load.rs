//! A checkpoint becomes shards again, however many there are now.
//!
//! One thread reads and checks, as many as there are processors decode, and the caller puts each entry where it
//! belongs.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::super::core::{Core, Settings};
use super::super::group::{self, Group};
use super::super::joint::{SavedEntity, SavedSiblings};
use super::super::key::{Key, VERSION};
use super::super::state::SavedKey;
use super::{FORMAT, Head, Kind, Shared};
use crate::model::UnixNanos;
use crate::storage::{Checkpoints, StorageError};

/// Chunks on their way to one of those who decode, and decoded ones on their way from all of them.
const WAITING: usize = 4;
/// More do not help: the caller is one.
const MOST_DECODERS: usize = 8;

/// Why a state cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum LoadError {
    /// It cannot be read, or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Another version wrote it, or another bucket was configured.
    #[error("{0}")]
    Unfit(String),
    /// Its chunks are not what they should be.
    #[error("what was learnt cannot be decoded: {0}")]
    Damaged(String),
}

/// What a checkpoint held.
#[derive(Debug)]
pub(in super::super) struct Loaded {
    /// One per entry of the settings.
    pub(in super::super) cores: Vec<Core>,
    /// What only their owners understand.
    pub(in super::super) named: BTreeMap<String, Vec<u8>>,
}

/// The newest checkpoint of `checkpoints` that can be used, with its index; `None` if there is none at all. `unusable`
/// is told of every one that is passed over because it cannot be read.
pub(in super::super) fn newest(
    checkpoints: &Checkpoints,
    settings: &[Arc<Settings>],
    mut unusable: impl FnMut(&LoadError),
) -> Result<Option<(u64, Loaded)>, LoadError> {
    let mut last = None;
    for index in checkpoints.list()? {
        let loaded = checkpoints.open(index).map_err(LoadError::from).and_then(|reader| load(reader, settings));
        match loaded {
            Ok(loaded) => return Ok(Some((index, loaded))),
            // What is older fits no better.
            Err(error @ LoadError::Unfit(_)) => return Err(error),
            Err(error) => {
                unusable(&error);
                last = Some(error);
            }
        }
    }
    last.map_or(Ok(None), Err)
}

/// Whether something that was learnt in buckets of this width can be gone on with.
pub(in super::super) fn learnt(checkpoints: &Checkpoints, bucket: u64) -> bool {
    let all = checkpoints.list().unwrap_or_default();
    let heads = all.into_iter().filter_map(|index| head(checkpoints.open(index).ok()?.next()).ok());
    heads.take(1).any(|head| fits(&head, bucket).is_ok())
}

/// Whether all of the checkpoint at `index` can be read, and this version knows what it says.
pub(in super::super) fn is_usable(checkpoints: &Checkpoints, index: u64) -> bool {
    let Ok(mut reader) = checkpoints.open(index) else { return false };
    let Ok(head) = head(reader.next()) else { return false };
    head.format == FORMAT && head.model == VERSION && reader.all(|chunk| chunk.is_ok())
}

/// What only its owner understands, by its name; nothing where it is not there.
pub(in super::super) fn named(
    chunks: impl Iterator<Item = Result<(u8, Vec<u8>), StorageError>>,
    name: &str,
) -> Result<Option<Vec<u8>>, LoadError> {
    for chunk in chunks {
        let (kind, bytes) = chunk?;
        if kind == Kind::Named.number() {
            let (found, bytes): (String, Vec<u8>) = decoded(&bytes)?;
            if found == name {
                return Ok(Some(bytes));
            }
        }
    }
    Ok(None)
}

fn head(first: Option<Result<(u8, Vec<u8>), StorageError>>) -> Result<Head, LoadError> {
    match first.transpose()? {
        Some((kind, bytes)) if kind == Kind::Head.number() => decoded(&bytes),
        _ => Err(LoadError::Damaged("it has no head".to_owned())),
    }
}

fn fits(head: &Head, bucket: u64) -> Result<(), LoadError> {
    if head.format != FORMAT || head.model != VERSION {
        return Err(LoadError::Unfit(format!("it was learnt by another version (model {})", head.model)));
    }
    if head.bucket != bucket {
        let seconds = |nanos: u64| nanos / UnixNanos::SECOND;
        return Err(LoadError::Unfit(format!(
            "it was learnt in buckets of {} s, and `bucket` is now {} s",
            seconds(head.bucket),
            seconds(bucket)
        )));
    }
    Ok(())
}

/// What `chunks` hold, in a core per entry of `settings`.
pub(in super::super) fn load(
    mut chunks: impl Iterator<Item = Result<(u8, Vec<u8>), StorageError>> + Send,
    settings: &[Arc<Settings>],
) -> Result<Loaded, LoadError> {
    let bucket = settings.first().map_or(0, |s| s.timing.bucket);
    fits(&head(chunks.next())?, bucket)?;
    let mut cores: Vec<Core> = settings.iter().map(|s| Core::new(Arc::clone(s), UnixNanos(0))).collect();
    let (mut named, mut shared, mut texts) = (BTreeMap::new(), false, HashSet::new());
    let decoders = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST_DECODERS);
    std::thread::scope(|scope| {
        let (done, decoded) = sync_channel(WAITING * decoders);
        let mut desks = Vec::with_capacity(decoders);
        for _ in 0..decoders {
            let (desk, undecoded) = sync_channel(WAITING);
            let done = done.clone();
            scope.spawn(move || decode(&undecoded, &done));
            desks.push(desk);
        }
        scope.spawn(move || read(chunks, &desks, &done));
        // Where this ends early, nobody takes anything any more, and all of them end too.
        for contents in decoded {
            match contents? {
                Contents::Shared(all) => {
                    cores.iter_mut().for_each(|core| core.restore_shared((*all).clone()));
                    shared = true;
                }
                Contents::Groups(groups) => {
                    for (mut key, group) in groups {
                        key.metric = shared_text(&mut texts, key.metric);
                        key.unit = shared_text(&mut texts, key.unit);
                        if let Some(core) = cores.get_mut(key.entity.shard(settings.len())) {
                            core.restore(key, group);
                        }
                    }
                }
                Contents::Siblings(all) => {
                    for saved in all {
                        if let Some(core) = cores.get_mut(saved.shard(settings.len())) {
                            core.joint.restore_siblings(saved);
                        }
                    }
                }
                Contents::Entities(all) => {
                    for saved in all {
                        if let Some(core) = cores.get_mut(saved.shard(settings.len())) {
                            core.joint.restore_entity(saved);
                        }
                    }
                }
                Contents::Named(name, bytes) => drop(named.insert(name, bytes)),
            }
        }
        Ok::<_, LoadError>(())
    })?;
    if !shared {
        return Err(LoadError::Damaged("it has no sources".to_owned()));
    }
    Ok(Loaded { cores, named })
}

/// One for all texts that are equal: they are compared by address first.
fn shared_text(texts: &mut HashSet<Arc<str>>, text: Arc<str>) -> Arc<str> {
    if let Some(known) = texts.get(&text) {
        return Arc::clone(known);
    }
    texts.insert(Arc::clone(&text));
    text
}

/// What a chunk held.
enum Contents {
    Shared(Box<Shared>),
    Groups(Vec<(Key, Group)>),
    Siblings(Vec<SavedSiblings<'static>>),
    Entities(Vec<SavedEntity<'static>>),
    Named(String, Vec<u8>),
}

type Decoded = Result<Contents, LoadError>;

/// Gives the chunks to those who decode, one after the other.
fn read(
    chunks: impl Iterator<Item = Result<(u8, Vec<u8>), StorageError>>,
    desks: &[SyncSender<(Kind, Vec<u8>)>],
    done: &SyncSender<Decoded>,
) {
    for (chunk, desk) in chunks.zip(desks.iter().cycle()) {
        let chunk = chunk.map_err(LoadError::from).and_then(|(kind, bytes)| {
            let unknown = || LoadError::Damaged(format!("a chunk is of the unknown kind {kind}"));
            Ok((Kind::of(kind).ok_or_else(unknown)?, bytes))
        });
        match chunk {
            Ok(chunk) => {
                if desk.send(chunk).is_err() {
                    return;
                }
            }
            Err(error) => {
                // If nobody listens any more, there was an error before.
                drop(done.send(Err(error)));
                return;
            }
        }
    }
}

fn decode(chunks: &Receiver<(Kind, Vec<u8>)>, done: &SyncSender<Decoded>) {
    for (kind, bytes) in chunks {
        if done.send(contents(kind, &bytes)).is_err() {
            return;
        }
    }
}

fn contents(kind: Kind, bytes: &[u8]) -> Decoded {
    Ok(match kind {
        Kind::Head => return Err(LoadError::Damaged("it has two heads".to_owned())),
        Kind::Shared => Contents::Shared(decoded(bytes)?),
        Kind::Groups => {
            let groups: Vec<(SavedKey<'_>, group::Waiting, group::Learnt)> = all(bytes)?;
            let group = |(key, waiting, learnt): (SavedKey<'_>, _, _)| (key.into_key(), Group::restored(waiting, learnt));
            Contents::Groups(groups.into_iter().map(group).collect())
        }
        Kind::Siblings => Contents::Siblings(all(bytes)?),
        Kind::Entities => Contents::Entities(all(bytes)?),
        Kind::Named => {
            let (name, bytes) = decoded(bytes)?;
            Contents::Named(name, bytes)
        }
    })
}

/// The values that follow each other in `bytes`.
fn all<T: serde::de::DeserializeOwned>(mut bytes: &[u8]) -> Result<Vec<T>, LoadError> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (value, rest) = postcard::take_from_bytes(bytes).map_err(|e| damaged(&e))?;
        all.push(value);
        bytes = rest;
    }
    Ok(all)
}

fn decoded<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, LoadError> {
    match postcard::take_from_bytes(bytes).map_err(|e| damaged(&e))? {
        (value, []) => Ok(value),
        _ => Err(LoadError::Damaged("there is something behind its end".to_owned())),
    }
}

fn damaged(error: &postcard::Error) -> LoadError {
    LoadError::Damaged(error.to_string())
}
