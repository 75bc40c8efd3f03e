//! When a checkpoint is begun.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::super::checkpoint::Outcome;

/// How long the right moment is waited for: longer than a bucket usually is.
const PATIENCE: Duration = Duration::from_secs(90);
/// After one that was lost, the next one is tried so soon.
const AGAIN: Duration = Duration::from_secs(30);

/// Of one detector. It looks at the machine's clock, because nothing that is learnt or found depends on when a
/// checkpoint is written.
#[derive(Debug)]
pub(in super::super) struct Schedule {
    interval: Duration,
    /// Bytes of the log since the last one, from which on there is one.
    bytes: u64,
    /// The next one is due.
    due: Instant,
    /// After one that was lost, none is tried before this.
    again: Instant,
    /// Bytes of the log since the last one.
    since: u64,
    /// The log has no room: the next one does not wait for anything.
    full: bool,
    /// Whether it is due, since when, and how many sweeps there were then.
    waiting: Option<(Instant, u64)>,
    /// The one that is being written.
    begun: Option<u64>,
    sweeps: Arc<AtomicU64>,
    written: watch::Receiver<Option<Outcome>>,
}

impl Schedule {
    /// For a log that begins with `since` bytes.
    pub(in super::super) fn new(
        interval: Duration,
        bytes: u64,
        since: u64,
        sweeps: Arc<AtomicU64>,
        written: watch::Receiver<Option<Outcome>>,
    ) -> Self {
        let now = Instant::now();
        Self { interval, bytes, due: now + interval, again: now, since, full: false, waiting: None, begun: None, sweeps, written }
    }

    /// So many bytes were written to the log.
    pub(super) const fn wrote(&mut self, bytes: u64) {
        self.since += bytes;
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

    /// Whether one is to be begun now: right after the shards have closed buckets, because little changes then for a
    /// while.
    pub(super) fn is_due(&mut self) -> bool {
        if self.begun.is_some() || Instant::now() < self.again {
            return false;
        }
        if self.full {
            return true;
        }
        if Instant::now() < self.due && self.since < self.bytes {
            return false;
        }
        let sweeps = self.sweeps.load(Relaxed);
        let (since, then) = *self.waiting.get_or_insert((Instant::now(), sweeps));
        sweeps > then || since.elapsed() > PATIENCE || self.since > 2 * self.bytes
    }

    /// The one at `index` was begun.
    pub(super) fn begun(&mut self, index: u64) {
        (self.begun, self.waiting, self.since) = (Some(index), None, 0);
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
        if let Outcome::Lost { .. } = outcome {
            self.again = Instant::now() + AGAIN.min(self.interval);
            self.due = self.again;
        }
        Some(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_begun_when_it_is_due_and_the_shards_have_just_closed_their_buckets() {
        let (sweeps, (outcome, written)) = (Arc::new(AtomicU64::new(7)), watch::channel(None));
        let mut schedule = Schedule::new(Duration::from_secs(3600), 100, 0, Arc::clone(&sweeps), written);
        sweeps.fetch_add(1, Relaxed);
        assert!(!schedule.is_due());
        schedule.wrote(120);
        assert!(!schedule.is_due(), "the buckets are about to be closed");
        sweeps.fetch_add(1, Relaxed);
        assert!(schedule.is_due());
        schedule.begun(40);
        schedule.wrote(120);
        sweeps.fetch_add(1, Relaxed);
        assert!(!schedule.is_due() && schedule.outcome().is_none(), "one at a time");
        outcome.send_replace(Some(Outcome::Written { index: 40, bytes: 9 }));
        assert_eq!(schedule.outcome(), Some(Outcome::Written { index: 40, bytes: 9 }));
        assert_eq!(schedule.outcome(), None);
        assert!(!schedule.is_due());
        schedule.wrote(120);
        assert!(schedule.is_due(), "the log grows too fast to wait for a better moment");
        schedule.begun(80);
        outcome.send_replace(Some(Outcome::Written { index: 80, bytes: 9 }));
        assert!(schedule.outcome().is_some() && !schedule.is_due());
        schedule.full();
        assert!(schedule.is_due(), "nothing can come in before");
    }
}
