//! Where a detector keeps what it has learnt, and the keys under which it does.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::bucket::Kind;
use super::key::Key;
use crate::model::{Entity, Signal, SpanKind};
use crate::pipeline::Context;
use crate::storage::{Checkpoints, folder_name};

/// The checkpoints of a detector; `None` in a daemon that keeps nothing.
pub(super) fn checkpoints(context: &Context) -> Option<Checkpoints> {
    let files = context.services.files.clone()?;
    let folder = context.services.data_dir.join(folder_name(context.environment.as_str()));
    Some(Checkpoints::new(files, folder.join(folder_name(&context.id.to_string()))))
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
