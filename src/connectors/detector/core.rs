//! The detection core of one shard: a function of what it is fed and of the ticks of the clock, and of nothing
//! else. It reads no clock, does no I/O and knows no threads.

use std::sync::Arc;

use detection::Parameters;

use super::bucket::{Bucket, Kind};
use super::checkpoint::{Kept, Record as _};
use super::config::Config;
use super::group::{Group, Refusal};
use super::joint;
use super::key::{Key, Who};
use super::limits::{self, Limits};
use super::outcome::Outcome;
use super::rules::{Quieting, Rules};
use super::sweep::Sweep;
use super::training::Desk;
use super::watermark::{Sources, Timing};
use crate::model::{Call, Environment, Measure, ServiceVersion, Signal, SourceId, UnixNanos};
use crate::pipeline::Observer;

/// A feed of sparse data may reach over days: so many buckets of it are opened at once, which is far below how many
/// may be open.
const AT_ONCE: u64 = 256;

/// What does not change while a detector runs.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) environment: Environment,
    /// The detector's id.
    pub(super) name: String,
    pub(super) timing: Timing,
    pub(super) parameters: Parameters,
    pub(super) min_samples: f64,
    /// What keeps findings from being told.
    pub(super) rules: Arc<Rules>,
    /// In nanoseconds.
    pub(super) forget_after: u64,
    /// How many series a shard holds.
    pub(super) limits: limits::Settings,
    /// What is judged together.
    pub(super) joint: joint::Settings,
    /// Who looks on.
    pub(super) observer: Option<Arc<dyn Observer>>,
}

impl Settings {
    /// One for all shards of a detector.
    pub(super) fn new(environment: &Environment, name: &str, config: &Config) -> Self {
        let timing = Timing {
            bucket: config.bucket.nanos().max(UnixNanos::SECOND),
            lateness: config.lateness.nanos(),
            idle_timeout: config.idle_timeout.nanos(),
        };
        Self {
            environment: environment.clone(),
            name: name.to_owned(),
            timing,
            parameters: config.parameters(),
            min_samples: config.min_samples,
            rules: Arc::new(Rules::new(config)),
            forget_after: config.forget_after.nanos(),
            limits: config.limits(),
            joint: joint::Settings::new(config, timing.bucket),
            observer: None,
        }
    }
}

/// One measure on its way into its bucket.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) entity: Who,
    pub(super) metric: Arc<str>,
    pub(super) unit: Arc<str>,
    pub(super) kind: Kind,
    pub(super) time: UnixNanos,
    pub(super) measure: Measure,
    /// Seconds that a delta covers; 0 where not known.
    pub(super) covers: f64,
    /// How many of the records that are accounted for it stands for: 1, or 0 for a further item of a record.
    pub(super) records: u64,
}

/// A shard's share of what a source sent at once.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub(super) source: SourceId,
    pub(super) signal: Signal,
    /// Of all shards' shares together, as is `buckets`: all shards follow the same event time.
    pub(super) newest: UnixNanos,
    /// The buckets that had data, ascending.
    pub(super) buckets: Arc<[u64]>,
    /// Versions of services that were seen, by all shards alike.
    pub(super) versions: Arc<[ServiceVersion]>,
    pub(super) items: Vec<Item>,
    /// Which services were seen calling which; one shard passes it on.
    pub(super) calls: Vec<Call>,
}

/// Under which name what was refused is counted.
const fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Late => "late",
        Refusal::TooFarAhead => "ahead_of_other_sources",
        Refusal::TooMany => "too_many_readings",
    }
}

/// The series of one shard.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) settings: Arc<Settings>,
    pub(super) now: UnixNanos,
    pub(super) sources: Sources,
    pub(super) quieting: Quieting,
    pub(super) groups: Kept<Key, Group>,
    /// Series judged together.
    pub(super) joint: joint::Stage,
    /// Where models that are due are trained; without it, they are when they have to be.
    pub(super) desk: Desk,
    /// How many series the groups have or may come to have, and may.
    limits: Limits,
    /// Whether series may be added.
    growth: bool,
    /// The horizons at the last sweep: as long as none moves, nothing can be closed.
    pub(super) swept: Vec<Option<u64>>,
    /// History is being learnt: see [`Sources::horizon_in_history`].
    pub(super) in_history: bool,
    /// The sweep that is going on.
    pub(super) sweeping: Option<Sweep>,
    /// As [`Core::take_earlier`].
    pub(super) earlier: Option<Outcome>,
    /// How many sweeps there were.
    pub(super) sweeps: u64,
}

impl Core {
    /// A core that has seen nothing, at `now`.
    pub(super) fn new(settings: Arc<Settings>, now: UnixNanos) -> Self {
        Self {
            quieting: Quieting::new(Arc::clone(&settings.rules)),
            limits: Limits::new(settings.limits),
            growth: true,
            settings,
            now,
            sources: Sources::default(),
            groups: Kept::default(),
            joint: joint::Stage::default(),
            desk: Desk::default(),
            swept: Vec::new(),
            in_history: false,
            sweeping: None,
            earlier: None,
            sweeps: 0,
        }
    }

    /// Puts back what was saved.
    pub(super) fn restore(&mut self, key: Key, group: Group) {
        self.add(key, group);
    }

    /// Whether series may be added.
    pub(super) const fn growth(&self) -> bool {
        self.growth
    }

    /// Whether series may be added from here on. What belongs to further ones is dropped while they may not.
    pub(super) const fn set_growth(&mut self, growth: bool) {
        self.growth = growth;
    }

    /// The daemon runs again after a pause, at `now`.
    pub(super) fn resume(&mut self, now: UnixNanos) {
        self.now = now;
        self.sources.resume(now, &self.settings.timing);
        self.swept.clear();
        self.in_history = false;
    }

    /// History is being learnt from here on, or no longer.
    pub(super) fn learn_history(&mut self, learns: bool) -> Outcome {
        let mut outcome = Outcome::default();
        self.in_history = learns;
        self.swept.clear();
        self.begin_sweep(&mut outcome);
        self.whole(outcome)
    }

    /// A replay has ended, and nothing is missing before `until`: closes what is complete by that.
    pub(super) fn finish(&mut self, until: UnixNanos) -> Outcome {
        let mut outcome = Outcome::default();
        self.sources.finish(until);
        self.begin_sweep(&mut outcome);
        self.whole(outcome)
    }

    /// Puts the sources into an order that does not depend on which came first, for whoever compares states.
    pub(super) fn sort_sources(&mut self) {
        let places = self.sources.sort();
        self.groups.change_all(|group| group.replace_sources(&places));
        self.swept.clear();
    }

    /// Takes in what a source sent, then closes what that completes.
    #[cfg(test)]
    pub(super) fn observe(&mut self, feed: Feed) -> Outcome {
        let outcome = self.feed(feed);
        self.whole(outcome)
    }

    /// The clock shows `now`: closes what silent sources leave open.
    #[cfg(test)]
    pub(super) fn tick(&mut self, now: UnixNanos) -> Outcome {
        let outcome = self.clock(now);
        self.whole(outcome)
    }

    /// Takes in what a source sent. What that completes is closed by a sweep, which may be going on afterwards.
    pub(super) fn feed(&mut self, feed: Feed) -> Outcome {
        let mut outcome = Outcome::default();
        self.change_what_sweeps_see();
        outcome.found.calls = feed.calls;
        let timing = self.settings.timing;
        self.quieting.note(&feed.versions);
        let place = self.sources.place(&feed.source, feed.signal, self.now);
        let source = u32::try_from(place).unwrap_or(u32::MAX);
        let Feed { signal, newest, buckets, mut items, .. } = feed;
        let long = buckets.first().zip(buckets.last()).is_some_and(|(first, last)| last - first >= AT_ONCE);
        if long {
            items.sort_by_key(|item| item.time);
        }
        let mut items = items.into_iter().peekable();
        let mut rest: &[u64] = &buckets;
        while let Some(first) = rest.first() {
            // All shards are fed the same buckets, so all of them divide alike.
            let (part, after) = rest.split_at(rest.partition_point(|bucket| bucket - first < AT_ONCE));
            let end = part.last().map_or(0, |last| (last + 1).saturating_mul(timing.bucket));
            let open_from = self.sources.horizon(&[source], &timing).unwrap_or(0);
            while let Some(item) = items.next_if(|item| after.is_empty() || item.time.0 < end) {
                let records = item.records;
                if let Err(reason) = self.take(source, signal, item, open_from, &mut outcome) {
                    *outcome.dropped.entry(reason).or_default() += records;
                }
            }
            let newest = if after.is_empty() { newest } else { newest.min(UnixNanos(end - 1)) };
            self.end_own_sweep(&mut outcome);
            self.sources.advance(place, newest, part, self.now, &timing);
            self.begin_sweep(&mut outcome);
            rest = after;
        }
        if self.limits.is_pressed() {
            self.end_sweep(&mut outcome);
        }
        outcome.found.crowds.extend(self.limits.crowd(&self.groups));
        outcome
    }

    /// The clock shows `now`. What silent sources leave open is closed by a sweep, which may be going on afterwards.
    pub(super) fn clock(&mut self, now: UnixNanos) -> Outcome {
        let mut outcome = Outcome::default();
        self.change_what_sweeps_see();
        self.now = self.now.max(now);
        self.sources.tick(self.now, &self.settings.timing);
        self.begin_sweep(&mut outcome);
        outcome
    }

    fn take(
        &mut self,
        source: u32,
        signal: Signal,
        item: Item,
        open_from: u64,
        outcome: &mut Outcome,
    ) -> Result<(), &'static str> {
        let at = item.time.0 / self.settings.timing.bucket;
        let bucket = Bucket::new(item.time, item.measure, item.covers).ok_or("not_finite")?;
        let key = Key { entity: item.entity, metric: item.metric, kind: item.kind, unit: item.unit, signal };
        // Most are of a group that is there: it is looked for once.
        if let Some(place) = self.groups.place(&key)
            && self.close_first(place, outcome)
            && let Some(waiting) = self.groups.change_front(place)
        {
            return waiting.add(source, at, bucket, open_from).map_err(reason);
        }
        if at < open_from {
            return Err("late");
        }
        // Who gives way, and who is judged with whom, depends on all of them.
        self.end_sweep(outcome);
        self.make_room(&key, at, outcome)?;
        outcome.added += key.kind.functions().len() as u64;
        let mut group = Group::new(key.kind);
        let taken = group.front().add(source, at, bucket, open_from).map_err(reason);
        self.add(key, group);
        taken
    }

    /// Room for the series of `key`, whose first data is in bucket `at`; else why there is none.
    fn make_room(&mut self, key: &Key, at: u64, outcome: &mut Outcome) -> Result<(), &'static str> {
        if !self.growth {
            return Err("memory_limit");
        }
        // A wrong clock does not make everybody else look silent.
        let now = at.min(self.now.0 / self.settings.timing.bucket);
        while let Some(full) = self.limits.full(key) {
            let victim = self.limits.victim(full, key, now, &self.groups).ok_or(full.reason())?;
            *outcome.events.entry("series_evicted").or_default() += victim.kind.functions().len() as u64;
            self.remove(&victim);
        }
        Ok(())
    }

    /// The only way in for a group.
    fn add(&mut self, key: Key, group: Group) {
        self.limits.added(&key, &group);
        self.joint.join(&key, &self.settings.joint);
        self.groups.insert(key, group);
    }

    /// The only way out for a group that is there.
    pub(super) fn remove(&mut self, key: &Key) {
        self.groups.remove(key);
        self.limits.removed(key);
        self.joint.forget(key);
    }

    /// How many series there are or may come to be.
    pub(super) const fn series(&self) -> usize {
        self.limits.series()
    }
}
