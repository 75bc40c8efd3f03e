//! What tells a series from all others, and where it lives.

use std::cmp::Ordering;
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::ops::Deref;
use std::sync::{Arc, LazyLock};

use detection::Quantity;
use hashbrown::DefaultHashBuilder;

use super::bucket::{Function, Kind};
use crate::model::{Entity, Signal, SpanKind, UnixNanos};

/// Version of the mathematics and of what is made of it; part of every anomaly's id.
pub(super) const VERSION: &str = "2";

/// Which group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) entity: Who,
    pub(super) metric: Arc<str>,
    pub(super) kind: Kind,
    pub(super) unit: Arc<str>,
    pub(super) signal: Signal,
}

/// The same in all maps of this process, and in no other process.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// An entity with what is asked of it for every observation and every bucket, so that its texts, which lie all over the
/// memory, are read once.
#[derive(Clone, Debug)]
pub(super) struct Who {
    entity: Arc<Entity>,
    /// Hashes of it without its attributes, and without its instance: together they are the hash of all of it.
    bare: u64,
    anyone: u64,
    /// What its shard depends on.
    place: u32,
}

impl Who {
    #[cfg(test)]
    pub(super) const fn entity(&self) -> &Arc<Entity> {
        &self.entity
    }

    /// A hash of everything but the attributes.
    pub(super) const fn bare(&self) -> u64 {
        self.bare
    }

    /// A hash of everything but the instance.
    pub(super) const fn anyone(&self) -> u64 {
        self.anyone
    }

    /// As [`shard_of`].
    pub(super) fn shard(&self, shards: usize) -> usize {
        at_place(self.place, shards)
    }
}

impl From<Arc<Entity>> for Who {
    fn from(entity: Arc<Entity>) -> Self {
        let Entity { service, instance, operation, kind, attributes } = &*entity;
        let base = HASHER.hash_one((service, operation, kind));
        let (bare, anyone) = (HASHER.hash_one((base, instance)), HASHER.hash_one((base, attributes)));
        let place = place(service, operation.as_deref(), *kind);
        Self { entity, bare, anyone, place }
    }
}

impl From<Entity> for Who {
    fn from(entity: Entity) -> Self {
        Self::from(Arc::new(entity))
    }
}

impl Deref for Who {
    type Target = Entity;

    fn deref(&self) -> &Entity {
        &self.entity
    }
}

impl PartialEq for Who {
    fn eq(&self, other: &Self) -> bool {
        // Arcs of what can be compared are compared by address first.
        (self.bare, self.anyone) == (other.bare, other.anyone) && self.entity == other.entity
    }
}

impl Eq for Who {}

impl PartialOrd for Who {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Who {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.entity, &other.entity) { Ordering::Equal } else { self.entity.cmp(&other.entity) }
    }
}

impl Hash for Who {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.bare);
        state.write_u64(self.anyone);
    }
}

/// With its length, so that no two lists of texts look alike.
pub(super) fn hash_text(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&(text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}

/// Everything that tells an entity from others.
pub(super) fn hash_entity(hasher: &mut blake3::Hasher, entity: &Entity) {
    hash_text(hasher, &entity.service);
    for part in [&entity.instance, &entity.operation] {
        hasher.update(&[u8::from(part.is_some())]);
        hash_text(hasher, part.as_deref().unwrap_or(""));
    }
    hash_text(hasher, entity.kind.map_or("", |k| k.as_str()));
    for (name, value) in &entity.attributes {
        hash_text(hasher, name);
        hash_text(hasher, value);
    }
}

/// Which of `shards` shards an entity belongs to: always the same one, on every machine.
///
/// What is judged together lives together: all instances and attributes of one service, operation and span kind.
pub(super) fn shard_of(service: &str, operation: Option<&str>, kind: Option<SpanKind>, shards: usize) -> usize {
    at_place(place(service, operation, kind), shards)
}

/// What the shard depends on. Nothing that is kept does, so a checksum will do.
fn place(service: &str, operation: Option<&str>, kind: Option<SpanKind>) -> u32 {
    let text = |sum, text: &str| crc32c::crc32c_append(crc32c::crc32c_append(sum, text.as_bytes()), &[0xff]);
    text(text(text(0, service), operation.unwrap_or("")), kind.map_or("", |k| k.as_str()))
}

fn at_place(place: u32, shards: usize) -> usize {
    // Texts that differ little have sums that differ in few bits; multiplied, all of them count.
    let mixed = u64::from(place).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    usize::try_from(mixed % shards.max(1) as u64).unwrap_or(0)
}

/// What a value is multiplied with to be shown: counts were judged as counts, and are shown per second.
pub(super) fn shown_per(quantity: Quantity, bucket: u64) -> f64 {
    if quantity == Quantity::Count { UnixNanos::SECOND as f64 / bucket as f64 } else { 1.0 }
}

/// The unit of a series, made of the unit of its metric.
pub(super) fn unit(kind: Kind, function: Function, metric: &str) -> String {
    match (function, kind) {
        (Function::ErrorShare, _) => "1".to_owned(),
        (Function::P50 | Function::P95 | Function::P99 | Function::Mean, _) => metric.to_owned(),
        // Of calls and values it is their number that comes per second, whatever unit they themselves have.
        (Function::Rate, Kind::Calls | Kind::Values | Kind::Histogram) => "1/s".to_owned(),
        (Function::Rate, _) => format!("{}/s", if metric.is_empty() { "1" } else { metric }),
    }
}
