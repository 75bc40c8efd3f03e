//! What became of a command.

use std::collections::BTreeMap;

use super::{joint, merge};

/// What became of a command.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What is told on.
    pub(super) found: merge::Found,
    /// Records that were not taken in, by reason.
    pub(super) dropped: BTreeMap<&'static str, u64>,
    /// Buckets with data that were closed.
    pub(super) closed: u64,
    /// Series that were added.
    pub(super) added: u64,
    /// Series that were forgotten.
    pub(super) forgotten: u64,
    /// What else happened, and how often.
    pub(super) events: joint::Events,
    /// Newly trained models that took over.
    pub(super) trained: u64,
}

impl Outcome {
    /// What came of the same command later.
    pub(super) fn join(&mut self, later: Self) {
        let Self { found, dropped, closed, added, forgotten, events, trained } = later;
        self.found.anomalies.extend(found.anomalies);
        self.found.unusual.extend(found.unusual);
        dropped.into_iter().for_each(|(reason, records)| *self.dropped.entry(reason).or_default() += records);
        events.into_iter().for_each(|(event, times)| *self.events.entry(event).or_default() += times);
        self.closed += closed;
        self.added += added;
        self.forgotten += forgotten;
        self.trained += trained;
    }
}
