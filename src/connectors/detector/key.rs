//! What tells a series from all others, and where it lives.

use std::sync::Arc;

use detection::Quantity;

use super::bucket::{Function, Kind};
use crate::model::{Entity, Signal, UnixNanos};

/// Version of the mathematics and of what is made of it; part of every anomaly's id.
pub(super) const VERSION: &str = "2";

/// Which group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) entity: Arc<Entity>,
    pub(super) metric: Arc<str>,
    pub(super) kind: Kind,
    pub(super) unit: Arc<str>,
    pub(super) signal: Signal,
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
pub(super) fn shard_of(entity: &Entity, shards: usize) -> usize {
    // Asked for every observation. Nothing that is kept depends on it, so a checksum will do.
    let text = |sum, text: &str| crc32c::crc32c_append(crc32c::crc32c_append(sum, text.as_bytes()), &[0xff]);
    let operation = entity.operation.as_deref().unwrap_or("");
    let sum = text(text(text(0, &entity.service), operation), entity.kind.map_or("", |k| k.as_str()));
    // Texts that differ little have sums that differ in few bits; multiplied, all of them count.
    let mixed = u64::from(sum).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
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
