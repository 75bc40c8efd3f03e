//! Requests that stand in line for the pipelines of an environment.
//!
//! When more comes than the pipelines take, a line only makes everybody late: it is as long as clients have patience, and
//! those at its end give up, and send again what is taken in after all. How long a newcomer will wait is told by the one at
//! the head, because nobody overtakes: when that one has been waiting for a good part of the most that a request may wait,
//! newcomers are refused at once, before they are read. What comes in a burst is not refused for it, since nobody has been
//! waiting for long then.
//!
//! Source: that a queue is judged by the time in it, not by its length, is Nichols and Jacobson, "Controlling Queue
//! Delay", ACM Queue 2012.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The part of the longest wait after which newcomers are refused.
const SHARE: u32 = 4;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Line(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    /// Since when, and a number that tells those of one moment apart.
    places: BTreeSet<(Instant, u64)>,
    joined: u64,
}

/// A request's place; given up when it is let go.
#[derive(Debug)]
pub(super) struct Place<'l> {
    line: &'l Line,
    place: (Instant, u64),
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that is there `since` then joins it.
    pub(super) fn join(&self, since: Instant) -> Place<'_> {
        let mut waiting = self.lock();
        waiting.joined += 1;
        let place = (since, waiting.joined);
        waiting.places.insert(place);
        drop(waiting);
        Place { line: self, place }
    }

    /// How long the one at the head has been waiting.
    fn age(&self) -> Duration {
        let head = self.lock().places.first().map(|(since, _)| *since);
        head.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// How long somebody has been waiting, if that is too long for newcomers, who may wait for `wait` at most.
    pub(super) fn is_long(&self, wait: Duration) -> Option<Duration> {
        Some(self.age()).filter(|age| *age > wait / SHARE)
    }

    /// Whether it moves so fast that there is no trouble any more.
    pub(super) fn is_short(&self, wait: Duration) -> bool {
        self.age() < wait / (2 * SHARE)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.line.lock().places.remove(&self.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const WAIT: Duration = Duration::from_secs(4);
    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn newcomers_are_refused_while_somebody_has_been_waiting_for_long_and_not_for_how_many_do() {
        let line = Line::default();
        assert_eq!((line.is_long(WAIT), line.is_short(WAIT)), (None, true));
        let burst: Vec<Place<'_>> = (0..1000).map(|_| line.join(Instant::now())).collect();
        sleep(1000 * MS).await;
        let late = line.join(Instant::now());
        assert_eq!((line.is_long(WAIT), line.is_short(WAIT)), (None, false), "a burst is no trouble yet");
        sleep(MS).await;
        assert_eq!(line.is_long(WAIT), Some(1001 * MS));
        drop(burst);
        assert_eq!((line.is_long(WAIT), line.is_short(WAIT)), (None, true), "the head is the one that came late");
        sleep(600 * MS).await;
        assert_eq!((line.is_long(WAIT), line.is_short(WAIT)), (None, false));
        drop(late);
        assert_eq!((line.is_long(WAIT), line.is_short(WAIT)), (None, true));
    }

    #[tokio::test(start_paused = true)]
    async fn the_head_is_who_was_there_first_whoever_joined_first() {
        let line = Line::default();
        let began = Instant::now();
        sleep(800 * MS).await;
        let _quick = line.join(Instant::now());
        let _slow = line.join(began);
        sleep(300 * MS).await;
        assert_eq!(line.is_long(WAIT), Some(1100 * MS));
    }
}
