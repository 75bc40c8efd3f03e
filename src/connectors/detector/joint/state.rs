//! What is learnt jointly, as it is saved.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::group::Key;
use super::super::state::SavedKey;
use super::Stage;
use super::collector::Collector;
use super::siblings::{Group, Learnt, Shown, Siblings};
use crate::model::Entity;

/// What one group of siblings or one entity has learnt.
#[derive(Serialize, Deserialize)]
pub(in super::super) enum Saved {
    /// Of siblings.
    Siblings(SavedSiblings),
}

/// The siblings of one metric.
#[derive(Serialize, Deserialize)]
pub(in super::super) struct SavedSiblings {
    /// Without instance.
    key: SavedKey,
    next: u64,
    pending: Vec<(u64, Vec<SavedShown>)>,
    learnt: Learnt,
}

#[derive(Serialize, Deserialize, PartialEq, PartialOrd)]
struct SavedShown {
    instance: Option<String>,
    function: u8,
    value: f64,
    samples: f64,
    found: bool,
}

impl Stage {
    /// All that is learnt, in an order of its own.
    pub(in super::super) fn saved(&self) -> Vec<Saved> {
        let mut siblings: Vec<(Key, &Group)> =
            self.siblings.0.iter().map(|(siblings, group)| (nameless(siblings), group)).collect();
        siblings.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        siblings.into_iter().map(|(key, group)| Saved::Siblings(SavedSiblings::new(&key, group))).collect()
    }

    /// Puts back what was saved.
    pub(in super::super) fn restore(&mut self, saved: Saved) {
        match saved {
            Saved::Siblings(saved) => {
                let (siblings, group) = saved.into_group();
                self.siblings.0.insert(siblings, group);
            }
        }
    }
}

impl Saved {
    /// Whose it is.
    pub(in super::super) fn entity(&self) -> Entity {
        match self {
            Self::Siblings(saved) => saved.key.entity(),
        }
    }
}

/// The key of siblings, the same whichever of them was the first.
fn nameless(siblings: &Siblings) -> Key {
    let Key { entity, .. } = &siblings.0;
    siblings.member(Arc::new(Entity { instance: None, ..Entity::clone(entity) }))
}

impl SavedSiblings {
    fn new(key: &Key, group: &Group) -> Self {
        let pending = group.collector.pending.iter().map(|(bucket, shown)| {
            let mut all: Vec<SavedShown> = shown
                .iter()
                .map(|s| SavedShown {
                    instance: s.entity.instance.clone(),
                    function: s.function,
                    value: s.value,
                    samples: s.samples,
                    found: s.found,
                })
                .collect();
            all.sort_by(|a, b| a.function.cmp(&b.function).then_with(|| a.instance.cmp(&b.instance)));
            (*bucket, all)
        });
        Self { key: SavedKey::new(key), next: group.collector.next, pending: pending.collect(), learnt: group.learnt.clone() }
    }

    fn into_group(self) -> (Siblings, Group) {
        let key = self.key.into_key();
        let shown = |s: SavedShown| Shown {
            entity: Arc::new(Entity { instance: s.instance, ..Entity::clone(&key.entity) }),
            function: s.function,
            value: s.value,
            samples: s.samples,
            found: s.found,
        };
        let pending = self.pending.into_iter().map(|(bucket, all)| (bucket, all.into_iter().map(shown).collect()));
        let collector = Collector::new(self.next, pending.collect());
        (Siblings(key), Group { collector, learnt: self.learnt })
    }
}
