//! Where a detector keeps what it has learnt, and the keys under which it does.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::bucket::Kind;
use super::key::{Key, shard_of};
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
pub(super) struct SavedKey<'a> {
    service: Cow<'a, str>,
    instance: Option<Cow<'a, str>>,
    operation: Option<Cow<'a, str>>,
    span_kind: Option<SpanKind>,
    attributes: Cow<'a, [(String, String)]>,
    metric: Cow<'a, str>,
    unit: Cow<'a, str>,
    kind: Kind,
    signal: Signal,
}

impl<'a> SavedKey<'a> {
    pub(super) fn new(key: &'a Key) -> Self {
        let Entity { service, instance, operation, kind, attributes } = &*key.entity;
        Self {
            service: service.into(),
            instance: instance.as_ref().map(Cow::from),
            operation: operation.as_ref().map(Cow::from),
            span_kind: *kind,
            attributes: attributes.into(),
            metric: Cow::Borrowed(&key.metric),
            unit: Cow::Borrowed(&key.unit),
            kind: key.kind,
            signal: key.signal,
        }
    }

    /// The shard that it belongs to.
    pub(super) fn shard(&self, shards: usize) -> usize {
        shard_of(&self.service, self.operation.as_deref(), self.span_kind, shards)
    }

    pub(super) fn into_key(self) -> Key {
        let Self { service, instance, operation, span_kind: kind, attributes, metric, unit, .. } = self;
        let (instance, operation) = (instance.map(Cow::into_owned), operation.map(Cow::into_owned));
        let entity = Entity { service: service.into_owned(), instance, operation, kind, attributes: attributes.into_owned() };
        Key { entity: entity.into(), metric: metric.into(), kind: self.kind, unit: unit.into(), signal: self.signal }
    }
}
