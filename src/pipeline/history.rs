//! An environment's history while it is read: who wants how much of it, who reads it, and how far they are.
//!
//! A detector that has learnt nothing asks for a span; the receivers that can read the past begin there, and tell
//! how far they have come. Neither knows the other: both know the environment's [`History`] in the registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::UnixNanos;

/// What is to be read of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first moment.
    pub from: UnixNanos,
    /// The first moment after it.
    pub until: UnixNanos,
    /// Whether it is read from its beginning, whatever a receiver has read before.
    pub anew: bool,
    /// Whether receivers end there; else they go on with the present.
    pub ends: bool,
}

/// How far the readers of a history have come.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is read.
    pub span: Span,
    /// The event time that all readers have come to.
    pub reached: UnixNanos,
    /// The earliest event time that was found; `None` while nothing was.
    pub first: Option<UnixNanos>,
    /// Documents or rows that were read.
    pub records: u64,
    /// Since the first reader began.
    pub elapsed: Duration,
    /// Whether all readers are through.
    pub done: bool,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    span: Option<Span>,
    /// How far, in nanoseconds of event time, a reader may be ahead of the slowest one.
    pace: Option<u64>,
    readers: BTreeMap<String, Reader>,
    /// Everybody who reads has joined.
    sealed: bool,
    first: Option<UnixNanos>,
    records: u64,
    begun: Option<Instant>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Reader {
    reached: UnixNanos,
    done: bool,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for `span`; where several ask, for all that any of them wants.
    pub fn want(&self, span: Span) {
        let mut state = self.lock();
        state.span = Some(match state.span {
            None => span,
            Some(other) => Span {
                from: other.from.min(span.from),
                until: other.until.max(span.until),
                anew: other.anew || span.anew,
                ends: other.ends && span.ends,
            },
        });
    }

    /// What is to be read, if somebody asked.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.lock().span
    }

    /// Lets no reader be further than `nanos` of event time ahead of the slowest one.
    pub fn pace(&self, nanos: u64) {
        let mut state = self.lock();
        state.pace = Some(state.pace.map_or(nanos, |pace| pace.min(nanos)));
    }

    /// `reader` reads this history, and has come to `reached`.
    pub fn join(&self, reader: &str, reached: UnixNanos) {
        let mut state = self.lock();
        state.begun.get_or_insert_with(Instant::now);
        state.readers.insert(reader.to_owned(), Reader { reached, done: false });
    }

    /// `reader` has handed over everything before `at`: `records` more, the earliest of `first`.
    pub fn reached(&self, reader: &str, at: UnixNanos, first: Option<UnixNanos>, records: u64) {
        let mut state = self.lock();
        state.records += records;
        state.first = match (state.first, first) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
        if let Some(reader) = state.readers.get_mut(reader) {
            reader.reached = reader.reached.max(at);
        }
    }

    /// `reader` is through.
    pub fn done(&self, reader: &str) {
        if let Some(reader) = self.lock().readers.get_mut(reader) {
            reader.done = true;
        }
    }

    /// Whether `reader` has to wait for slower ones.
    #[must_use]
    pub fn is_ahead(&self, reader: &str) -> bool {
        let state = self.lock();
        let (Some(pace), Some(own)) = (state.pace, state.readers.get(reader)) else { return false };
        let slowest = state.readers.values().filter(|r| !r.done).map(|r| r.reached).min();
        !own.done && slowest.is_some_and(|slowest| own.reached > slowest.plus(pace))
    }

    /// Everybody who reads has joined.
    pub fn seal(&self) {
        self.lock().sealed = true;
    }

    /// Whether there is nobody who reads what was asked for.
    #[must_use]
    pub fn is_without_readers(&self) -> bool {
        let state = self.lock();
        state.span.is_some() && state.sealed && state.readers.is_empty()
    }

    /// Tells the person who waits something that is no error: no index matches.
    pub fn note(&self, note: String) {
        let mut state = self.lock();
        if !state.notes.contains(&note) && state.notes.len() < 16 {
            state.notes.push(note);
        }
    }

    /// What there was to tell.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.lock().notes.clone()
    }

    /// How far it is; `None` where nobody asked for any.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let state = self.lock();
        let span = state.span?;
        Some(Progress {
            span,
            reached: state.readers.values().map(|r| r.reached).min().unwrap_or(span.from),
            first: state.first,
            records: state.records,
            elapsed: state.begun.map(|b| b.elapsed()).unwrap_or_default(),
            done: state.sealed && state.readers.values().all(|r| r.done),
        })
    }
}

impl Progress {
    /// Where what there is begins: history may hold less than was asked for.
    #[must_use]
    pub fn begin(&self) -> UnixNanos {
        self.first.unwrap_or(self.span.from).clamp(self.span.from, self.span.until.max(self.span.from))
    }

    /// 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        let begin = self.begin();
        let whole = self.span.until.0.saturating_sub(begin.0) as f64;
        let read = self.reached.0.saturating_sub(begin.0) as f64;
        if self.done || whole <= 0.0 { 1.0 } else { (read / whole).clamp(0.0, 1.0) }
    }

    /// Records a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64().max(1e-3)
    }

    /// How much longer it takes at the same speed; `None` while that cannot be said.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let share = self.share();
        (share > 0.005).then(|| self.elapsed.mul_f64(((1.0 - share) / share).min(1e6)))
    }

    /// `9 of 14 days, 38,000 docs/s, ready in 2 min`.
    #[must_use]
    pub fn sentence(&self) -> String {
        const DAY: f64 = 86_400.0;
        let days = |from: UnixNanos, to: UnixNanos| to.0.saturating_sub(from.0) as f64 / UnixNanos::SECOND as f64 / DAY;
        let whole = days(self.begin(), self.span.until);
        let read = days(self.begin(), self.reached.min(self.span.until));
        // Hours where there are not two days of it.
        let (scale, unit) = if whole < 2.0 { (24.0, "hours") } else { (1.0, "days") };
        let mut text = format!("{:.0} of {:.0} {unit}", (read * scale).floor(), whole * scale);
        text.push_str(&format!(", {} docs/s", crate::text::quantity(self.rate().round(), "")));
        if let Some(left) = self.left() {
            let seconds = left.as_secs();
            let left = match seconds {
                0..=90 => format!("{seconds} s"),
                91..=5_400 => format!("{} min", seconds.div_ceil(60)),
                _ => format!("{} h", seconds.div_ceil(3_600)),
            };
            text.push_str(&format!(", ready in {left}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400 * UnixNanos::SECOND;

    fn span(from: u64, until: u64) -> Span {
        Span { from: UnixNanos(from * DAY), until: UnixNanos(until * DAY), anew: false, ends: false }
    }

    #[test]
    fn it_is_done_when_everybody_who_joined_is() {
        let history = History::default();
        history.want(span(10, 24));
        history.want(Span { anew: true, ..span(17, 24) });
        assert_eq!(history.span(), Some(Span { anew: true, ..span(10, 24) }));
        history.join("one", UnixNanos(10 * DAY));
        history.join("two", UnixNanos(10 * DAY));
        history.reached("one", UnixNanos(24 * DAY), Some(UnixNanos(11 * DAY)), 5);
        history.done("one");
        assert!(!history.progress().unwrap().done);
        history.done("two");
        assert!(!history.progress().unwrap().done, "somebody may still join");
        history.seal();
        assert!(history.progress().unwrap().done);
    }

    #[test]
    fn a_reader_waits_for_slower_ones_and_not_for_those_that_are_through() {
        let history = History::default();
        history.want(span(0, 14));
        history.pace(DAY);
        history.join("quick", UnixNanos(0));
        history.join("slow", UnixNanos(0));
        history.reached("quick", UnixNanos(DAY), None, 1);
        assert!(!history.is_ahead("quick"));
        history.reached("quick", UnixNanos(DAY + 1), None, 1);
        assert!(history.is_ahead("quick") && !history.is_ahead("slow"));
        history.done("slow");
        assert!(!history.is_ahead("quick"));
    }

    #[test]
    fn progress_counts_from_where_data_begins() {
        let history = History::default();
        history.want(span(10, 24));
        history.join("one", UnixNanos(10 * DAY));
        assert_eq!(history.progress().unwrap().share(), 0.0);
        history.reached("one", UnixNanos(22 * DAY + DAY / 2), Some(UnixNanos(21 * DAY)), 38_000);
        let progress = Progress { elapsed: Duration::from_secs(1), ..history.progress().unwrap() };
        assert_eq!(progress.share(), 0.5);
        assert_eq!(progress.sentence(), "1 of 3 days, 38,000 docs/s, ready in 1 s");
        assert!(history.progress().unwrap().begin() == UnixNanos(21 * DAY));
    }
}
