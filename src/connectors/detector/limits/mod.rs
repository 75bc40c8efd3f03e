//! How many series a shard holds, and who makes room when there are enough.
//!
//! Two limits: of all series of the shard, and of those of one metric of one service, so that one attribute with a
//! new value in every request cannot fill the environment. A shard asks nobody: what it holds is a function of what it
//! was fed.
//!
//! Where a limit is reached, what is new takes the place of what is least useful: first of a series that has not learnt
//! yet and has left out a whole bucket, then of one that has learnt and has been silent for [`SILENCE`]. A learnt series that
//! reports never gives way. Where nobody gives way, what is new is left out.

mod crowd;
mod queue;
#[cfg(test)]
mod tests;

use std::hash::{Hash, Hasher};

use hashbrown::HashMap;

pub(super) use self::crowd::{Crowd, Told};
use self::queue::Queue;
use super::checkpoint::Kept;
use super::group::Group;
use super::key::Key;
use crate::model::UnixNanos;

/// After this long without data a learnt series may give way: a day, in which what happens daily has happened.
const SILENCE: u64 = 86_400 * UnixNanos::SECOND;

/// Series of the largest group, which must find room in the smallest limit.
const LARGEST: usize = 5;

/// The limits of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// As configured, of all shards together.
    max_series: usize,
    max_series_per_metric: usize,
    shards: usize,
    /// Of the shard.
    series: usize,
    /// [`SILENCE`] in buckets.
    silence: u64,
    /// Nanoseconds.
    bucket: u64,
}

impl Settings {
    /// Of one of `shards` shards, which have `max_series` together, `max_series_per_metric` of them of one metric of one
    /// service; `bucket` is in nanoseconds.
    pub(super) fn new(max_series: usize, max_series_per_metric: usize, shards: usize, bucket: u64) -> Self {
        let shards = shards.max(1);
        Self {
            max_series,
            max_series_per_metric,
            shards,
            series: max_series.div_ceil(shards),
            silence: SILENCE / bucket.max(1),
            bucket: bucket.max(1),
        }
    }

    /// Of the metric and service of `key` in one shard. Operations are spread over all shards; what has none lives in one.
    fn of_metric(&self, key: &Key) -> usize {
        let asked = self.max_series_per_metric.div_ceil(self.parts(key));
        asked.min(self.half())
    }

    /// Between how many shards the metric of `key` is divided.
    fn parts(&self, key: &Key) -> usize {
        if key.entity.operation.is_some() || key.entity.kind.is_some() { self.shards } else { 1 }
    }

    /// However much one metric may have, something is left for others.
    fn half(&self) -> usize {
        (self.series / 2).max(LARGEST)
    }
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// Of the metric.
    Metric,
    /// Of the shard.
    Shard,
}

impl Full {
    /// Why a record was dropped.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Metric => "metric_series_limit",
            Self::Shard => "series_limit",
        }
    }
}

/// A key of which only service and metric count.
#[derive(Clone, Debug)]
struct Metric(Key);

impl Metric {
    fn parts(&self) -> (&str, &str) {
        (&self.0.entity.service, &self.0.metric)
    }
}

impl PartialEq for Metric {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Metric {}

impl Hash for Metric {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().hash(state);
    }
}

/// What the shard holds of one metric of one service.
#[derive(Debug, Default)]
struct Held {
    series: usize,
    groups: usize,
    /// Who makes room, from the first time on that room was needed.
    queue: Option<Queue>,
    /// Room was needed since that was last told.
    pressed: bool,
}

/// What a shard holds.
#[derive(Debug)]
pub(super) struct Limits {
    settings: Settings,
    series: usize,
    groups: usize,
    metrics: HashMap<Metric, Held>,
    queue: Option<Queue>,
    pressed: crowd::Pressed,
}

impl Limits {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, series: 0, groups: 0, metrics: HashMap::new(), queue: None, pressed: crowd::Pressed::default() }
    }

    /// How many series there are or may come to be.
    pub(super) const fn series(&self) -> usize {
        self.series
    }

    /// A group is there.
    pub(super) fn added(&mut self, key: &Key, group: &Group) {
        let series = key.kind.functions().len();
        self.series += series;
        self.groups += 1;
        let held = self.metrics.entry(Metric(key.clone())).or_default();
        held.series += series;
        held.groups += 1;
        for queue in [&mut self.queue, &mut held.queue].into_iter().flatten() {
            queue.push(key, group);
        }
    }

    /// A group is gone.
    pub(super) fn removed(&mut self, key: &Key) {
        let series = key.kind.functions().len();
        self.series = self.series.saturating_sub(series);
        self.groups = self.groups.saturating_sub(1);
        let metric = Metric(key.clone());
        let Some(held) = self.metrics.get_mut(&metric) else { return };
        held.series = held.series.saturating_sub(series);
        held.groups = held.groups.saturating_sub(1);
        if held.groups == 0 {
            self.metrics.remove(&metric);
        }
    }

    /// What stands against a new group; `None` where there is room.
    pub(super) fn full(&self, key: &Key) -> Option<Full> {
        let needed = key.kind.functions().len();
        let of_metric = self.metrics.get(&Metric(key.clone())).map_or(0, |held| held.series);
        if of_metric + needed > self.settings.of_metric(key) {
            return Some(Full::Metric);
        }
        (self.series + needed > self.settings.series).then_some(Full::Shard)
    }

    /// Who gives way to a new group of `key` whose first data is in bucket `now`.
    pub(super) fn victim(&mut self, full: Full, key: &Key, now: u64, groups: &Kept<Key, Group>) -> Option<Key> {
        let silence = self.settings.silence;
        let held = self.metrics.get_mut(&Metric(key.clone()));
        self.pressed.note(full, now);
        let (queue, size) = match (full, held) {
            (Full::Shard, _) => (&mut self.queue, self.groups),
            (Full::Metric, Some(held)) => {
                if !std::mem::replace(&mut held.pressed, true) {
                    self.pressed.metrics.push(Metric(key.clone()));
                }
                (&mut held.queue, held.groups)
            }
            // The group alone is larger than the limit.
            (Full::Metric, None) => return None,
        };
        let of_metric = |other: &Key| full == Full::Shard || Metric(other.clone()) == Metric(key.clone());
        let all = || Queue::new(groups.iter().filter(|(key, _)| of_metric(key)), silence);
        let queue = match queue {
            Some(queue) if queue.len() <= 2 * size + 64 => queue,
            // Mostly of groups that are gone by now.
            stale => stale.insert(all()),
        };
        queue.next(now, groups)
    }

    /// Whether there is something that may be worth a warning.
    pub(super) const fn is_pressed(&self) -> bool {
        self.pressed.is_due()
    }

    /// What is worth a warning now, if anything.
    pub(super) fn crowd(&mut self, groups: &Kept<Key, Group>) -> Option<Crowd> {
        let pressed = self.pressed.due()?;
        for metric in &pressed.metrics {
            if let Some(held) = self.metrics.get_mut(metric) {
                held.pressed = false;
            }
        }
        let subject = self.pressed.worst(&pressed, &self.metrics, &self.settings)?;
        Some(Crowd::of(&subject, groups.iter().map(|(key, _)| key), &self.settings))
    }
}
