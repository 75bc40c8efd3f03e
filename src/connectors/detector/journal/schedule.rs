//! When a checkpoint is begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::checkpoint::Outcome;

/// How long one that is due waits at most for the end of a sweep, which it would have to be brought to at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// After one that was lost, the next one is tried so soon.
const AGAIN: Duration = Duration::from_secs(30);
/// After so many observations there is one: that many are learnt again in about ten seconds.
const MOST: u64 = 5_000_000;
/// Where states are large, one is worth its writing only after as many observations as it has bytes, divided by this.
const BYTES: u64 = 80;

/// How much is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Volume {
    pub(in super::super) bytes: u64,
    pub(in super::super) observations: u64,
}

/// Of one detector. It looks at the machine's clock, because nothing that is learnt or found depends on when a
/// checkpoint is written.
#[derive(Debug)]
pub(in super::super) struct Schedule {
    interval: Duration,
    /// From so much on that came since the last one there is one.
    most: Volume,
    /// The next one is due.
    due: Instant,
    /// After one that was lost, none is tried before this.
    again: Instant,
    /// What came since the last one.
    since: Volume,
    /// The log has no room: the next one does not wait for anything.
    full: bool,
    /// It is due since then.
    waiting: Option<Instant>,
    /// The one that is being written.
    begun: Option<u64>,
    /// How many shards are in a sweep.
    sweeping: Arc<AtomicUsize>,
    written: watch::Receiver<Option<Outcome>>,
}

impl Schedule {
    /// One every `interval`, and whenever `bytes` are in the log since the last one. There are `since` at the beginning.
    pub(in super::super) fn new(
        interval: Duration,
        bytes: u64,
        since: Volume,
        sweeping: Arc<AtomicUsize>,
        written: watch::Receiver<Option<Outcome>>,
    ) -> Self {
        let now = Instant::now();
        let most = Volume { bytes, observations: MOST };
        let (due, again) = (now + interval, now);
        Self { interval, most, due, again, since, full: false, waiting: None, begun: None, sweeping, written }
    }

    /// So much was written to the log.
    pub(super) const fn wrote(&mut self, more: Volume) {
        self.since.bytes += more.bytes;
        self.since.observations += more.observations;
    }

    /// The log has no room, which a checkpoint gives back.
    pub(super) const fn full(&mut self) {
        self.full = true;
    }

    /// Whether it had none when it was last written to.
    pub(super) const fn is_full(&self) -> bool {
        self.full
    }

    /// The log was given room.
    pub(super) const fn trimmed(&mut self) {
        self.full = false;
    }

    /// Whether one is to be begun now: not within a sweep, if that can be.
    pub(super) fn is_due(&mut self) -> bool {
        if self.begun.is_some() || Instant::now() < self.again {
            return false;
        }
        if self.full {
            return true;
        }
        let Volume { bytes, observations } = self.since;
        if Instant::now() < self.due && bytes < self.most.bytes && observations < self.most.observations {
            return false;
        }
        let since = *self.waiting.get_or_insert_with(Instant::now);
        self.sweeping.load(Relaxed) == 0 || since.elapsed() > PATIENCE || bytes > 2 * self.most.bytes
    }

    /// The one at `index` was begun.
    pub(super) fn begun(&mut self, index: u64) {
        (self.begun, self.waiting, self.since) = (Some(index), None, Volume::default());
        self.full = false;
        self.due = Instant::now() + self.interval;
    }

    /// Whether the one at `index` is being written.
    pub(super) fn is_writing(&self, index: u64) -> bool {
        self.begun == Some(index) && self.written.borrow().as_ref().is_none_or(|outcome| outcome.index() < index)
    }

    /// What became of the one that was begun, told once.
    pub(super) fn outcome(&mut self) -> Option<Outcome> {
        let begun = self.begun?;
        let outcome = self.written.borrow().clone()?;
        if outcome.index() < begun {
            return None;
        }
        self.begun = None;
        match outcome {
            Outcome::Written { bytes, .. } => self.most.observations = MOST.max(bytes / BYTES),
            Outcome::Lost { .. } => {
                self.again = Instant::now() + AGAIN.min(self.interval);
                self.due = self.again;
            }
        }
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(bytes: u64) -> Volume {
        Volume { bytes, observations: 0 }
    }

    #[test]
    fn a_checkpoint_is_begun_when_it_is_due_and_no_shard_is_in_a_sweep() {
        let (sweeping, (outcome, written)) = (Arc::new(AtomicUsize::new(0)), watch::channel(None));
        let mut schedule = Schedule::new(Duration::from_secs(3600), 100, Volume::default(), Arc::clone(&sweeping), written);
        assert!(!schedule.is_due());
        sweeping.fetch_add(1, Relaxed);
        schedule.wrote(bytes(120));
        assert!(!schedule.is_due(), "the sweep is soon over");
        sweeping.fetch_sub(1, Relaxed);
        assert!(schedule.is_due());
        schedule.begun(40);
        schedule.wrote(bytes(120));
        assert!(!schedule.is_due() && schedule.outcome().is_none(), "one at a time");
        outcome.send_replace(Some(Outcome::Written { index: 40, bytes: 9 }));
        assert_eq!(schedule.outcome(), Some(Outcome::Written { index: 40, bytes: 9 }));
        assert_eq!(schedule.outcome(), None);
        sweeping.fetch_add(1, Relaxed);
        assert!(!schedule.is_due());
        schedule.wrote(bytes(120));
        assert!(schedule.is_due(), "the log grows too fast to wait for a better moment");
        schedule.begun(80);
        outcome.send_replace(Some(Outcome::Written { index: 80, bytes: 9 }));
        assert!(schedule.outcome().is_some() && !schedule.is_due());
        schedule.full();
        assert!(schedule.is_due(), "nothing can come in before");
    }

    #[test]
    fn no_more_is_learnt_again_after_a_crash_than_takes_some_seconds() {
        let (sweeping, (outcome, written)) = (Arc::default(), watch::channel(None));
        let mut schedule = Schedule::new(Duration::from_secs(3600), u64::MAX / 4, Volume::default(), sweeping, written);
        let million = Volume { bytes: 1, observations: 1_000_000 };
        let until_due = |schedule: &mut Schedule| {
            let millions = (1..100).find(|_| {
                schedule.wrote(million);
                schedule.is_due()
            });
            schedule.begun(1);
            millions
        };
        assert_eq!(until_due(&mut schedule), Some(5));
        outcome.send_replace(Some(Outcome::Written { index: 1, bytes: 1 << 30 }));
        assert!(schedule.outcome().is_some());
        assert_eq!(until_due(&mut schedule), Some(14), "a large state is not written all the time");
    }
}
