//! How far event time has come, per source and signal.
//!
//! The watermark of a source is its highest event time less `lateness`; event times ahead of the clock count as
//! the clock's. A source that falls silent while it follows real time is moved on by the clock, as far behind it
//! as it always was. A source that is silent and far in the past (a replay of history that has ended) is not:
//! it neither closes anything nor holds anything back.

use serde::{Deserialize, Serialize};

use crate::model::{Signal, SourceId, UnixNanos};

/// Runs of buckets with data that are remembered per source.
const MAX_RUNS: usize = 256;

/// The times that watermarks depend on, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) bucket: u64,
    pub(super) lateness: u64,
    pub(super) idle_timeout: u64,
}

impl Timing {
    /// Who is at most this far behind the clock follows real time; and a longer time without any data at all is
    /// a hole in the data rather than silence.
    pub(super) fn near(&self) -> u64 {
        (10 * self.bucket).max(15 * 60 * UnixNanos::SECOND)
    }
}

/// One source of one signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    id: SourceId,
    signal: Signal,
    /// Highest event time, never ahead of the clock.
    highest: u64,
    /// By the clock, when data came last.
    last_seen: u64,
    /// The watermark. Never goes back.
    mark: u64,
    /// Whether it has gone silent for longer than the timeout.
    idle: bool,
    /// Nothing has come since the daemon started.
    resumed: bool,
    /// Runs of buckets (first, last) that had data, ascending.
    seen: Vec<(u64, u64)>,
    /// The buckets (first, last) in which the daemon did not run.
    downtime: Option<(u64, u64)>,
}

/// All sources of an environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sources(Vec<Source>);

impl Sources {
    /// The place of a source; it is added if it is new.
    pub(super) fn place(&mut self, id: &SourceId, signal: Signal, now: UnixNanos) -> usize {
        if let Some(place) = self.0.iter().position(|s| s.signal == signal && s.id == *id) {
            return place;
        }
        self.0.push(Source {
            id: SourceId::clone(id),
            signal,
            highest: 0,
            last_seen: now.0,
            mark: 0,
            idle: false,
            resumed: false,
            seen: Vec::new(),
            downtime: None,
        });
        self.0.len() - 1
    }

    /// Data has come: it had event time up to `newest`, in `buckets`.
    pub(super) fn advance(&mut self, place: usize, newest: UnixNanos, buckets: &[u64], now: UnixNanos, timing: &Timing) {
        let Some(source) = self.0.get_mut(place) else { return };
        source.highest = source.highest.max(newest.0.min(now.0));
        source.last_seen = now.0;
        source.idle = false;
        source.resumed = false;
        source.mark = source.mark.max(source.highest.saturating_sub(timing.lateness));
        for &bucket in buckets {
            insert(&mut source.seen, bucket);
        }
    }

    /// The clock has moved on to `now`.
    pub(super) fn tick(&mut self, now: UnixNanos, timing: &Timing) {
        for source in &mut self.0 {
            let silent = now.0.saturating_sub(source.last_seen);
            source.idle = silent >= timing.idle_timeout;
            if source.idle && source.follows(timing) {
                let there = source.highest.saturating_add(silent).saturating_sub(timing.lateness);
                source.mark = source.mark.max(there);
            }
        }
    }

    /// The daemon runs again after a pause: what came in between was not watched.
    pub(super) fn resume(&mut self, now: UnixNanos, timing: &Timing) {
        for source in &mut self.0 {
            source.resumed = true;
            source.last_seen = now.0;
            source.downtime = Some((source.highest / timing.bucket, now.0 / timing.bucket));
        }
    }

    /// The first bucket that must not be closed yet for something that `places` feed; `None` while all of them
    /// are silent replays.
    pub(super) fn horizon(&self, places: &[u32], timing: &Timing) -> Option<u64> {
        let sources = places.iter().filter_map(|&p| self.0.get(p as usize));
        sources.filter(|s| !s.idle || s.follows(timing)).map(|s| s.mark / timing.bucket).min()
    }

    /// As [`Self::horizon`] while history is learnt: what comes live waits until the history of its series is
    /// there, and a history that is slow to come holds back even when it pauses.
    pub(super) fn horizon_in_history(&self, places: &[u32], timing: &Timing) -> Option<u64> {
        let sources = || places.iter().filter_map(|&p| self.0.get(p as usize));
        if sources().all(|s| s.follows(timing)) {
            return None;
        }
        sources().map(|s| s.mark / timing.bucket).min()
    }

    /// The horizons of all sources, to see whether anything can have changed.
    pub(super) fn horizons(&self, timing: &Timing, in_history: bool) -> Vec<Option<u64>> {
        let all = self.0.iter();
        all.map(|s| (in_history || !s.idle || s.follows(timing)).then_some(s.mark / timing.bucket)).collect()
    }

    /// Nothing that lies before `until` is missing from any source.
    pub(super) fn finish(&mut self, until: UnixNanos) {
        for source in &mut self.0 {
            source.mark = source.mark.max(until.0);
            source.idle = false;
        }
    }

    /// Whether all of `places` were watching in `bucket`: then what is not there did not happen.
    pub(super) fn watched(&self, places: &[u32], bucket: u64, timing: &Timing) -> bool {
        places.iter().filter_map(|&p| self.0.get(p as usize)).all(|s| s.watched(bucket, timing))
    }

    /// Puts the sources into an order that does not depend on which came first; the new place of each.
    pub(super) fn sort(&mut self) -> Vec<u32> {
        let before: Vec<(SourceId, Signal)> = self.0.iter().map(|s| (SourceId::clone(&s.id), s.signal)).collect();
        self.0.sort_by(|a, b| (&a.id, a.signal).cmp(&(&b.id, b.signal)));
        let place = |(id, signal): &(SourceId, Signal)| self.0.iter().position(|s| s.id == *id && s.signal == *signal);
        before.iter().map(|key| u32::try_from(place(key).unwrap_or(0)).unwrap_or(0)).collect()
    }
}

impl Source {
    /// Whether it was near the clock when data came last.
    fn follows(&self, timing: &Timing) -> bool {
        !self.resumed && self.last_seen.saturating_sub(self.highest) <= timing.near()
    }

    fn has(&self, bucket: u64) -> bool {
        self.seen.iter().any(|&(first, last)| (first..=last).contains(&bucket))
    }

    fn watched(&self, bucket: u64, timing: &Timing) -> bool {
        if let Some((first, last)) = self.downtime
            && (first..=last).contains(&bucket)
        {
            // Beside a hole a bucket is only half full.
            return self.has(bucket) && (bucket == first || self.has(bucket - 1)) && (bucket == last || self.has(bucket + 1));
        }
        if self.has(bucket) {
            return true;
        }
        let before = self.seen.iter().map(|r| r.1).filter(|&b| b < bucket).max();
        let after = self.seen.iter().map(|r| r.0).filter(|&b| b > bucket).min();
        match (before, after) {
            // The clock closes it: the source is silent.
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(before), Some(after)) => (after - before - 1).saturating_mul(timing.bucket) <= timing.near(),
        }
    }
}

/// Adds `bucket` to ascending runs, joining neighbours.
fn insert(runs: &mut Vec<(u64, u64)>, bucket: u64) {
    let at = runs.partition_point(|&(_, last)| last.saturating_add(1) < bucket);
    match runs.get_mut(at) {
        Some((first, last)) if (first.saturating_sub(1)..=last.saturating_add(1)).contains(&bucket) => {
            *first = (*first).min(bucket);
            *last = (*last).max(bucket);
            let joined = *last;
            if let Some(&(next, end)) = runs.get(at + 1)
                && next == joined + 1
            {
                runs.remove(at + 1);
                if let Some(run) = runs.get_mut(at) {
                    run.1 = end;
                }
            }
        }
        _ => runs.insert(at, (bucket, bucket)),
    }
    if runs.len() > MAX_RUNS {
        runs.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMING: Timing =
        Timing { bucket: 60 * UnixNanos::SECOND, lateness: 30 * UnixNanos::SECOND, idle_timeout: 120 * UnixNanos::SECOND };
    const HOUR: u64 = 3600;

    fn secs(seconds: u64) -> UnixNanos {
        UnixNanos::from_secs(seconds)
    }

    fn one(newest: u64, now: u64) -> Sources {
        let mut sources = Sources::default();
        let place = sources.place(&SourceId::from("otlp"), Signal::Traces, secs(now));
        sources.advance(place, secs(newest), &[newest / 60], secs(now), &TIMING);
        sources
    }

    #[test]
    fn the_watermark_is_the_highest_event_time_less_lateness_and_never_ahead_of_the_clock() {
        assert_eq!(one(HOUR + 29, HOUR + 40).horizon(&[0], &TIMING), Some(59));
        assert_eq!(one(HOUR + 30, HOUR + 40).horizon(&[0], &TIMING), Some(60));
        assert_eq!(one(100 * HOUR, HOUR + 40).horizon(&[0], &TIMING), Some(60));
    }

    #[test]
    fn a_silent_live_source_is_moved_on_by_the_clock_as_far_behind_as_it_was() {
        let mut sources = one(HOUR, HOUR + 100);
        sources.tick(secs(HOUR + 200), &TIMING);
        assert_eq!(sources.horizon(&[0], &TIMING), Some(59), "not idle yet");
        sources.tick(secs(HOUR + 100 + 600), &TIMING);
        assert_eq!(sources.horizon(&[0], &TIMING), Some(60 + 9));
    }

    #[test]
    fn a_finished_replay_is_not_moved_on_and_holds_nothing_back() {
        let mut sources = one(HOUR, 1000 * HOUR);
        assert_eq!(sources.horizon(&[0], &TIMING), Some(59));
        sources.tick(secs(1001 * HOUR), &TIMING);
        assert_eq!(sources.horizon(&[0], &TIMING), None);
        let live = sources.place(&SourceId::from("live"), Signal::Traces, secs(1001 * HOUR));
        sources.advance(live, secs(1001 * HOUR), &[1001 * 60], secs(1001 * HOUR), &TIMING);
        assert_eq!(sources.horizon(&[0, 1], &TIMING), Some(1001 * 60 - 1));
    }

    #[test]
    fn while_history_is_learnt_live_data_waits_for_it() {
        let mut sources = one(1000 * HOUR, 1000 * HOUR);
        assert_eq!(sources.horizon_in_history(&[0], &TIMING), None, "live data alone waits");
        let replay = sources.place(&SourceId::from("replay"), Signal::Traces, secs(1000 * HOUR));
        sources.advance(replay, secs(10 * HOUR), &[600], secs(1000 * HOUR), &TIMING);
        sources.tick(secs(1001 * HOUR), &TIMING);
        assert_eq!(sources.horizon_in_history(&[0, 1], &TIMING), Some(599), "a pause of the history closes nothing");
        assert_eq!(sources.horizon(&[0, 1], &TIMING), Some(1001 * 60 - 1));
        sources.finish(secs(11 * HOUR));
        assert_eq!(sources.horizon(&[1], &TIMING), Some(660));
    }

    #[test]
    fn a_short_pause_is_silence_and_a_long_one_is_a_hole() {
        let mut sources = one(10 * HOUR, 1000 * HOUR);
        sources.advance(0, secs(10 * HOUR + 600), &[610], secs(1000 * HOUR), &TIMING);
        assert!(sources.watched(&[0], 605, &TIMING));
        sources.advance(0, secs(12 * HOUR), &[720], secs(1000 * HOUR), &TIMING);
        assert!(!sources.watched(&[0], 650, &TIMING));
        assert!(sources.watched(&[0], 720, &TIMING));
    }

    #[test]
    fn what_fell_into_a_restart_was_not_watched_unless_it_was_sent_again_without_a_hole() {
        let mut sources = one(HOUR, HOUR);
        sources.resume(secs(HOUR + 300), &TIMING);
        sources.tick(secs(HOUR + 900), &TIMING);
        assert_eq!(sources.horizon(&[0], &TIMING), None, "the clock alone says nothing about what was missed");
        let mut caught_up = sources.clone();
        caught_up.advance(0, secs(HOUR + 900), &(60..=75).collect::<Vec<_>>(), secs(HOUR + 900), &TIMING);
        assert!((60..=75).all(|b| caught_up.watched(&[0], b, &TIMING)));
        sources.advance(0, secs(HOUR + 900), &[65, 66, 75], secs(HOUR + 900), &TIMING);
        assert!((60..=65).all(|b| !sources.watched(&[0], b, &TIMING)), "half full buckets beside the hole included");
        assert!(sources.watched(&[0], 66, &TIMING));
    }

    proptest! {
        #[test]
        fn runs_hold_what_was_inserted_whatever_the_order(buckets in prop::collection::vec(0u64..60, 0..80)) {
            let mut runs = Vec::new();
            for &b in &buckets {
                insert(&mut runs, b);
            }
            let held: Vec<u64> = runs.iter().flat_map(|&(first, last)| first..=last).collect();
            let mut wanted = buckets;
            wanted.sort_unstable();
            wanted.dedup();
            prop_assert_eq!(held, wanted);
            prop_assert!(runs.windows(2).all(|w| w[0].1 + 1 < w[1].0), "runs do not touch");
        }
    }
}
