//! Entities that outlive a batch: one `Arc` for all observations of the same service, operation and kind.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::{Entity, SpanKind};
use crate::text::Cache;

/// The operation of spans whose name is one too many.
pub(super) const OTHER: &str = "other";

/// Services whose span names are told apart; those of any further service count as `other`.
const MAX_SERVICES: usize = 10_000;

/// Bytes of all names of services and operations together that are told apart; what comes later is `other`.
const MAX_NAMES: usize = 16 << 20;
/// What a name costs beside itself.
const NAME: usize = 32;

/// Bytes of entities that are kept for the next batch.
const MAX_ENTITIES: usize = 16 << 20;

/// The known entities, and which span names of a service are operations of their own.
#[derive(Debug)]
pub(super) struct Entities {
    max_operations: usize,
    operations: HashMap<Box<str>, HashSet<Box<str>>>,
    /// Bytes of them.
    names: usize,
    known: Cache<Arc<Entity>>,
    key: String,
}

impl Entities {
    pub(super) fn new(max_operations: usize) -> Self {
        Self { max_operations, operations: HashMap::new(), names: 0, known: Cache::new(MAX_ENTITIES), key: String::new() }
    }

    /// Whether spans of `service` called `name` are an operation of their own. The first names that are seen
    /// are; so the same input gives the same operations.
    pub(super) fn is_operation(&mut self, service: &str, name: &str) -> bool {
        if !self.operations.contains_key(service) {
            if self.operations.len() >= MAX_SERVICES || self.names >= MAX_NAMES {
                return false;
            }
            self.names += NAME + service.len();
            self.operations.insert(service.into(), HashSet::new());
        }
        let Some(names) = self.operations.get_mut(service) else { return false };
        if names.contains(name) {
            return true;
        }
        let room = names.len() < self.max_operations && self.names < MAX_NAMES;
        if room {
            self.names += NAME + name.len();
            names.insert(name.into());
        }
        room
    }

    /// The entity; `attributes` are sorted by key.
    pub(super) fn get(&mut self, service: &str, operation: &str, kind: SpanKind, attributes: &[(&str, String)]) -> Arc<Entity> {
        self.key.clear();
        for part in [service, operation, kind.as_str()] {
            self.key.push_str(part);
            self.key.push('\0');
        }
        for (name, value) in attributes {
            self.key.push_str(name);
            self.key.push('\0');
            self.key.push_str(value);
            self.key.push('\0');
        }
        if let Some(entity) = self.known.get(self.key.as_str()) {
            return Arc::clone(entity);
        }
        let entity = Arc::new(Entity {
            service: service.to_owned(),
            instance: None,
            operation: Some(operation.to_owned()),
            kind: Some(kind),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
        });
        self.known.insert(&self.key, Arc::clone(&entity), size_of::<Entity>() + entity.heap());
        entity
    }
}
