//! What the shards found comes together, command by command.
//!
//! Every command that goes to all shards has a number. Shards work at their own pace, so what they tell comes in any
//! interleaving; here it waits until the slowest shard has told what it found for a command. So whatever comes after
//! this is a function of the commands alone, whatever the number of shards.

use std::collections::VecDeque;

use super::anomaly;
use super::judged::Unusual;
use super::limits::Crowd;
use crate::model::{Anomaly, Call, UnixNanos};

/// What was found for one command: by one shard, or by all of them.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The index of the journal's entry.
    pub(super) at: u64,
    /// In the order of their windows and series.
    pub(super) anomalies: Vec<Anomaly>,
    /// Values out of their bounds, of any series.
    pub(super) unusual: Vec<Unusual>,
    /// Which services were seen calling which.
    pub(super) calls: Vec<Call>,
    /// Everything before this is closed; none while all sources are silent replays.
    pub(super) until: Option<UnixNanos>,
    /// Where there are too many series.
    pub(super) crowds: Vec<Crowd>,
    /// How many series there are.
    pub(super) series: usize,
    /// The command was to begin this checkpoint.
    pub(super) checkpoint: Option<u64>,
}

impl Found {
    /// Whether there is nothing to tell but the time.
    pub(super) const fn is_empty(&self) -> bool {
        self.anomalies.is_empty() && self.unusual.is_empty() && self.calls.is_empty()
    }

    /// What all shards found together, in an order that depends on nothing but what was found.
    fn together(parts: impl Iterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.at = all.at.max(part.at);
            all.anomalies.extend(part.anomalies);
            all.unusual.extend(part.unusual);
            all.calls.extend(part.calls);
            all.crowds.extend(part.crowds);
            all.series += part.series;
            // All shards follow the same sources.
            all.until = all.until.max(part.until);
            all.checkpoint = all.checkpoint.max(part.checkpoint);
        }
        anomaly::sort(&mut all.anomalies);
        all.unusual.sort_unstable();
        all.calls.sort_unstable();
        all
    }
}

/// Brings together what the shards found for each command.
///
/// What waits is bounded by the shards' queues: a command is given out only when all shards have room for it, so the
/// fastest shard is at most a queue ahead of the slowest.
#[derive(Debug)]
pub(super) struct Merge {
    /// Of each shard, in the order of the commands.
    waiting: Vec<VecDeque<(u64, Found)>>,
}

impl Merge {
    pub(super) fn new(shards: usize) -> Self {
        Self { waiting: (0..shards).map(|_| VecDeque::new()).collect() }
    }

    /// Takes what `shard` found for `command`; what all shards found for the oldest command if it is complete now.
    /// Each shard tells every command, in their order, so one report completes at most one command.
    pub(super) fn take(&mut self, shard: usize, command: u64, found: Found) -> Option<Found> {
        self.waiting.get_mut(shard)?.push_back((command, found));
        let oldest = self.waiting.iter().map(|queue| queue.front().map(|(command, _)| *command));
        // `None`, the least, is a shard that is not that far yet.
        let (first, last) = (oldest.clone().min()??, oldest.max()??);
        debug_assert_eq!(first, last, "every shard tells every command");
        Some(Found::together(self.waiting.iter_mut().filter_map(VecDeque::pop_front).map(|(_, found)| found)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(shard: usize, command: u64) -> Found {
        let start = UnixNanos(command * 10 + shard as u64);
        let unusual = vec![Unusual { start, fingerprint: format!("{shard}") }];
        Found { unusual, until: Some(UnixNanos(command)), ..Found::default() }
    }

    proptest! {
        #[test]
        fn every_command_comes_once_complete_and_in_order_whatever_the_interleaving(
            shards in 1usize..6,
            picks in prop::collection::vec(0usize..6, 0..200),
        ) {
            let mut merge = Merge::new(shards);
            let mut told = vec![0u64; shards];
            let mut complete = 0u64;
            for shard in picks.into_iter().map(|p| p % shards) {
                let out = merge.take(shard, told[shard], found(shard, told[shard]));
                told[shard] += 1;
                let slowest = *told.iter().min().unwrap();
                prop_assert_eq!(out.is_some(), slowest > complete, "no later than the slowest shard, and no earlier");
                if let Some(out) = out {
                    prop_assert_eq!(out.until, Some(UnixNanos(complete)));
                    let starts: Vec<u64> = out.unusual.iter().map(|u| u.start.0).collect();
                    let wanted: Vec<u64> = (0..shards as u64).map(|s| complete * 10 + s).collect();
                    prop_assert_eq!(starts, wanted);
                    complete += 1;
                }
            }
        }
    }
}
