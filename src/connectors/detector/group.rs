//! The series of one metric of one entity.

use std::collections::BTreeMap;

use detection::{Parameters, Series, State, Suppressed};
use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, Covers, Function, Kind, Taken};
use super::checkpoint::{Buffer, Record};
use super::judged::Judged;
use super::key::Key;
use super::reading::Previous;
use super::rules::{Applied, Quieting, Standing};
use super::state::SavedKey;
use super::training::{Judge, Trainings};
use super::watch::{Tracks, Watch};
use super::watermark::{Sources, Timing};
use crate::model::UnixNanos;

/// Open buckets of one group. More can only come where one source is far behind another.
const MAX_OPEN: usize = 1024;

/// After this long without anything, nothing is known any more instead of that nothing happens.
const ZEROS: u64 = 86_400 * UnixNanos::SECOND;

/// Who reported in fewer buckets has not learnt, however many zeros followed.
const SEVERAL: u32 = 3;

/// Its open buckets and its learnt series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Group {
    waiting: Waiting,
    learnt: Learnt,
    tracks: Tracks,
    /// What each series showed last.
    standings: Vec<Standing>,
    /// The rules that apply to each series.
    applied: Vec<Option<Box<Applied>>>,
    /// The last sweep that came by, and whether it forgets the group.
    swept: (u64, bool),
}

/// What has come in and is not closed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// Places of the sources that feed it, ascending.
    sources: Vec<u32>,
    open: BTreeMap<u64, Bucket>,
    /// The first bucket that is not closed; `None` before the first close.
    next: Option<u64>,
    /// The last bucket that had data.
    last_data: u64,
}

/// What was closed. Changes when a bucket closes, or when somebody calls a finding normal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Learnt {
    /// The last closed bucket that had data.
    last_closed: u64,
    /// How many closed buckets had data.
    reported: u32,
    /// What the last delta covered.
    covers: Option<Covers>,
    previous: Option<Previous>,
    /// One per function of its kind, from its first value on.
    series: Vec<Option<Box<Series>>>,
}

/// Why a measure was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its bucket is closed.
    Late,
    /// There is no room in front of it: another source is far behind.
    TooFarAhead,
    /// More readings than a bucket holds.
    TooMany,
}

/// What decides how firmly a group holds its place among others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    /// One of its series is past its warmup.
    pub(super) learnt: bool,
    /// The last bucket that had data.
    pub(super) last_data: u64,
    /// How many closed buckets had data.
    pub(super) reported: u32,
}

/// What closing needs to know.
pub(super) struct Closing<'a> {
    pub(super) timing: &'a Timing,
    pub(super) sources: &'a Sources,
    pub(super) parameters: &'a Parameters,
    pub(super) min_samples: f64,
    pub(super) quieting: &'a Quieting,
    /// Whether all values are handed on, or those only that are a finding or out of their bounds.
    pub(super) all: bool,
    pub(super) trainings: &'a Trainings<'a>,
    pub(super) watch: Option<Watch<'a>>,
}

/// What came of closing.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) values: Vec<Judged>,
    /// Values that would have been findings, by the name of the event that counts why they are none.
    pub(super) suppressed: BTreeMap<&'static str, u64>,
}

impl Group {
    pub(super) fn new(kind: Kind) -> Self {
        let series = kind.functions().iter().map(|_| None).collect();
        let learnt = Learnt { last_closed: 0, reported: 0, covers: None, previous: None, series };
        Self::restored(Waiting::default(), learnt)
    }

    /// Of what was saved.
    pub(super) fn restored(waiting: Waiting, learnt: Learnt) -> Self {
        Self { waiting, learnt, tracks: Tracks::default(), standings: Vec::new(), applied: Vec::new(), swept: (0, false) }
    }

    pub(super) fn sources(&self) -> &[u32] {
        &self.waiting.sources
    }

    /// The sources have other places now.
    pub(super) fn replace_sources(&mut self, places: &[u32]) {
        for source in &mut self.waiting.sources {
            *source = places.get(*source as usize).copied().unwrap_or(0);
        }
        self.waiting.sources.sort_unstable();
    }

    /// The last bucket that had data.
    pub(super) const fn last_data(&self) -> u64 {
        self.waiting.last_data
    }

    /// How firmly it holds its place. As long as it lives, it can only become firmer.
    pub(super) fn hold(&self) -> Hold {
        let ready = |series: &Series| !matches!(series.state(), State::Warming { .. });
        let Learnt { reported, series, .. } = &self.learnt;
        let learnt = *reported >= SEVERAL && series.iter().flatten().any(|series| ready(series));
        Hold { learnt, last_data: self.waiting.last_data, reported: *reported }
    }

    /// Whether a bucket was closed.
    pub(super) const fn closed(&self) -> bool {
        self.waiting.next.is_some()
    }

    /// What its series showed last, in the order of the functions; shorter where nothing is known.
    pub(super) fn standings(&self) -> &[Standing] {
        &self.standings
    }

    /// The rules that applied to a series when it was judged last.
    pub(super) fn applied_at(&self, place: usize) -> Option<&Applied> {
        self.applied.get(place)?.as_deref()
    }

    pub(super) fn series_at(&self, place: usize) -> Option<&Series> {
        self.learnt.series.get(place)?.as_deref()
    }

    pub(super) fn series_mut(&mut self, place: usize) -> Option<&mut Series> {
        self.learnt.series.get_mut(place)?.as_deref_mut()
    }

    /// A sweep comes by: whether for the first time.
    pub(super) const fn passes(&mut self, sweep: u64) -> bool {
        let first = self.swept.0 != sweep;
        self.swept.0 = sweep;
        first
    }

    /// The sweep forgets it when it ends.
    pub(super) const fn leave(&mut self) {
        self.swept.1 = true;
    }

    /// Whether it does.
    pub(super) const fn leaves(&self) -> bool {
        self.swept.1
    }

    /// Whether [`Self::close`] has something to do.
    pub(super) fn is_due(&self, horizon: u64) -> bool {
        let Waiting { open, next, .. } = &self.waiting;
        next.is_some_and(|next| next < horizon) || open.first_key_value().is_some_and(|(&at, _)| at < horizon)
    }

    /// Closes all buckets before `horizon`, oldest first. The number of closed buckets.
    pub(super) fn close(&mut self, key: &Key, horizon: u64, closing: &Closing<'_>, found: &mut Found) -> u64 {
        let mut closed = 0;
        while let Some((&at, _)) = self.waiting.open.first_key_value()
            && at < horizon
        {
            self.fill(key, at, closing, found);
            let Some(bucket) = self.waiting.open.remove(&at) else { break };
            let covers = bucket.covers();
            // Totals are compared in any case; what a half full bucket counted is not shown to the series.
            let values = bucket.values(self.seconds(closing), closing.min_samples, &mut self.learnt.previous);
            if !key.kind.absence_is_zero() || closing.sources.watched(&self.waiting.sources, at, closing.timing) {
                for taken in values {
                    self.judge(key, at, taken, closing, found);
                }
            }
            self.learnt.covers = covers.or(self.learnt.covers);
            self.learnt.last_closed = at;
            self.learnt.reported = self.learnt.reported.saturating_add(1);
            self.waiting.next = Some(at + 1);
            closed += 1;
        }
        self.fill(key, horizon, closing, found);
        closed
    }

    /// Passes the buckets before `until` that had no data.
    fn fill(&mut self, key: &Key, until: u64, closing: &Closing<'_>, found: &mut Found) {
        let Some(next) = self.waiting.next else { return };
        if key.kind.absence_is_zero() {
            let end = until.min(self.learnt.last_closed.saturating_add(ZEROS / closing.timing.bucket).saturating_add(1));
            for at in next..end {
                let due = self.learnt.covers.is_none_or(|c| (at + 1).saturating_mul(closing.timing.bucket) >= c.good_until());
                if due && closing.sources.watched(&self.waiting.sources, at, closing.timing) {
                    let zero = Taken { function: Function::Rate, value: 0.0, samples: 0.0 };
                    self.judge(key, at, zero, closing, found);
                }
            }
        }
        self.waiting.next = Some(next.max(until));
    }

    fn seconds(&self, closing: &Closing<'_>) -> f64 {
        (closing.timing.bucket / UnixNanos::SECOND) as f64
    }

    fn judge(&mut self, key: &Key, at: u64, taken: Taken, closing: &Closing<'_>, found: &mut Found) {
        let seconds = self.seconds(closing);
        let Some(place) = key.kind.functions().iter().position(|f| *f == taken.function) else { return };
        let Some(slot) = self.learnt.series.get_mut(place) else { return };
        let series = slot.get_or_insert_with(|| Box::new(Series::new(key.kind.quantity(taken.function, &key.unit), seconds)));
        let start = UnixNanos(at.saturating_mul(closing.timing.bucket));
        let end = start.plus(closing.timing.bucket);
        self.applied.resize_with(key.kind.functions().len(), || None);
        let applied = self
            .applied
            .get_mut(place)
            .and_then(|slot| closing.quieting.applied(slot, key, taken.function, seconds, closing.parameters));
        let quiet = closing.quieting.quiet(applied, &key.entity.service, start, end);
        let parameters = closing.quieting.parameters(applied, quiet.as_ref(), closing.parameters);
        let observe = |series: &mut Series| series.observe(start.secs_f64(), taken.value, taken.samples, &parameters);
        let verdict = closing.trainings.watch(series, observe);
        if let Some(watch) = &closing.watch {
            let judged = (&verdict, series.state(), parameters.page_threshold);
            watch.judged(&mut self.tracks, key, at, &taken, judged);
        }
        self.standings.resize_with(key.kind.functions().len(), Standing::default);
        if let Some(standing) = self.standings.get_mut(place) {
            standing.follow(at, &taken, &verdict, series.in_incident());
        }
        if let Some(suppressed) = verdict.suppressed {
            let event = match suppressed {
                Suppressed::Direction => "suppressed_direction",
                Suppressed::TooSmall => "suppressed_too_small",
                Suppressed::TooFewSamples => "suppressed_too_few_samples",
                Suppressed::Feedback => "suppressed_feedback",
                Suppressed::Held => quiet.map_or("suppressed_held", |quiet| quiet.because.event()),
            };
            *found.suppressed.entry(event).or_default() += 1;
        }
        let judged = Judged { bucket: at, taken, verdict, judge: Judge::of(series) };
        if closing.all || judged.verdict.finding.is_some() || judged.is_out_of_bounds() {
            found.values.push(judged);
        }
    }
}

impl Waiting {
    /// Takes in what a source measured.
    pub(super) fn add(&mut self, source: u32, at: u64, bucket: Bucket, open_from: u64) -> Result<(), Refusal> {
        if at < self.next.unwrap_or(open_from) {
            return Err(Refusal::Late);
        }
        if let Some(open) = self.open.get_mut(&at) {
            if !open.add(bucket) {
                return Err(Refusal::TooMany);
            }
        } else if self.open.len() >= MAX_OPEN {
            return Err(Refusal::TooFarAhead);
        } else {
            self.open.insert(at, bucket);
        }
        if let Err(place) = self.sources.binary_search(&source) {
            self.sources.insert(place, source);
        }
        self.last_data = self.last_data.max(at);
        Ok(())
    }
}

impl Record<Key> for Group {
    type Front = Waiting;

    fn front(&mut self) -> &mut Waiting {
        &mut self.waiting
    }

    fn write_front(&self, key: &Key, buffer: &mut Buffer) -> postcard::Result<()> {
        buffer.write(&SavedKey::new(key))?;
        buffer.write(&self.waiting)
    }

    fn write_rest(&self, _: &Key, buffer: &mut Buffer) -> postcard::Result<()> {
        buffer.write(&self.learnt)
    }
}
