//! What a core owes to a checkpoint.

use std::time::Duration;

use super::super::core::Core;
use super::super::group::Group;
use super::super::key::Key;
use super::{Buffer, Kind, Owing, Record, Shared};

impl Core {
    /// What all shards hold alike.
    pub(in super::super) fn shared(&self) -> Shared {
        Shared {
            sources: self.sources.clone(),
            quieting: self.quieting.saved().clone(),
            now: self.now,
            swept: self.swept.clone(),
            in_history: self.in_history,
            growth: self.growth(),
        }
    }

    /// Puts back what all shards held alike.
    pub(in super::super) fn restore_shared(&mut self, shared: Shared) {
        let Shared { sources, quieting, now, swept, in_history, growth } = shared;
        self.sources = sources;
        self.quieting.restore(quieting);
        self.now = now;
        self.swept = swept;
        self.in_history = in_history;
        self.set_growth(growth);
    }

    /// All that is learnt.
    fn owing(&mut self) -> [(Kind, &mut dyn Owing); 3] {
        let [siblings, entities] = self.joint.owing();
        [(Kind::Groups, &mut self.groups), siblings, entities]
    }

    /// From now on all of it is owed as it is now.
    pub(super) fn begin_checkpoint(&mut self) {
        self.owing().into_iter().for_each(|(_, owing)| owing.begin());
    }

    /// Writes about `bytes` of what is owed.
    pub(super) fn pay_checkpoint(&mut self, bytes: usize) {
        if let Some((_, owing)) = self.owing().into_iter().find(|(_, owing)| owing.owes()) {
            owing.pay(bytes);
        }
    }

    /// Whether something is owed.
    pub(in super::super) fn owes_checkpoint(&mut self) -> bool {
        self.owing().into_iter().any(|(_, owing)| owing.owes())
    }

    /// Bytes that are written and not taken yet.
    pub(super) fn checkpoint_held(&mut self) -> usize {
        self.owing().into_iter().map(|(_, owing)| owing.held()).sum()
    }

    /// Time that was spent on writing since this was last asked.
    pub(super) fn checkpoint_time(&mut self) -> Duration {
        self.owing().into_iter().map(|(_, owing)| owing.spent()).sum()
    }

    /// Whether something could not be written.
    pub(super) fn checkpoint_failed(&mut self) -> bool {
        self.owing().into_iter().any(|(_, owing)| owing.failed())
    }

    /// The next chunk that is full, or the last of its kind.
    pub(super) fn take_checkpoint_chunk(&mut self) -> Option<(Kind, Vec<u8>)> {
        self.owing().into_iter().find_map(|(kind, owing)| Some((kind, owing.take_chunk()?)))
    }

    /// Nothing is owed any more.
    pub(super) fn give_up_checkpoint(&mut self) {
        self.owing().into_iter().for_each(|(_, owing)| owing.give_up());
    }

    /// The name and a hash of everything that is learnt: two states that have learnt the same have the same.
    /// For a state that is at its end: it has its sources in another order afterwards.
    pub(in super::super) fn digest(&mut self) -> Vec<(String, String)> {
        self.sort_sources();
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().chars().take(32).collect::<String>();
        let group = |(key, group): (&Key, &Group)| {
            let mut buffer = Buffer::default();
            let _ = group.write_front(key, &mut buffer).and_then(|()| group.write_rest(key, &mut buffer));
            let name = format!("{} {} ({})", key.entity.key(), key.metric, key.signal.as_str());
            (name, hash(&buffer.into_bytes()))
        };
        let mut all: Vec<(String, String)> = self.groups.iter().map(group).collect();
        for (what, owing) in self.joint.owing() {
            let name = if what == Kind::Siblings { "siblings" } else { "entity" };
            all.extend(owing.records().iter().map(|bytes| (name.to_owned(), hash(bytes))));
        }
        all
    }

    /// All that is learnt as it would be written, in an order that depends on nothing else.
    #[cfg(test)]
    pub(in super::super) fn records(&mut self) -> Vec<Vec<u8>> {
        self.owing().into_iter().flat_map(|(_, owing)| owing.records()).collect()
    }
}
