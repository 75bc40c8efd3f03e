//! How much memory the daemon may use, and how much it does.
//!
//! What is looked at is what the process really holds (its resident set), whatever holds it. Whoever would make it hold
//! more looks here first:
//!
//! | pressure | from | until | what follows |
//! |---|---|---|---|
//! | `Normal` | | | |
//! | `Tight` | 85 % of the limit | below 80 % | detectors begin no series; pollers read more slowly |
//! | `Full` | the limit | below 95 % | receivers refuse before they read a request; pollers wait |

mod machine;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use self::machine::{Available, Machine, resident};
use crate::text::quantity;

/// How often it is looked at.
const EVERY: Duration = Duration::from_millis(50);
/// While the limit lasts, it is said again after this long.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a poller that reads slowly waits before it reads on.
const SLOWLY: Duration = Duration::from_secs(2);

/// What the allocator takes for large, and gets a place of its own. Nothing is written to it.
const LARGE: usize = 8 << 20;

/// Shares of the limit, in percent.
const TIGHT: u64 = 85;
const RELAXED: u64 = 80;
const FULL: u64 = 100;
const NO_LONGER_FULL: u64 = 95;

/// How near the limit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Not near.
    #[default]
    Normal,
    /// Nothing is begun that lasts.
    Tight,
    /// Nothing is taken in.
    Full,
}

impl Pressure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Normal, Self::Tight, Self::Full];

    /// Lower case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Tight => "tight",
            Self::Full => "full",
        }
    }

    /// What follows on it when `used` of `limit` bytes are in use.
    const fn next(self, used: u64, limit: u64) -> Self {
        // In percent, rounded down; the limit is never 0.
        let share = used.saturating_mul(100) / limit;
        match self {
            _ if share >= FULL => Self::Full,
            Self::Full if share >= NO_LONGER_FULL => Self::Full,
            Self::Normal if share < TIGHT => Self::Normal,
            _ if share < RELAXED => Self::Normal,
            _ => Self::Tight,
        }
    }
}

/// The daemon's memory. Cheap to clone; all clones are the same. Without a limit the pressure is always normal.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: Option<u64>,
    used: AtomicU64,
    pressure: watch::Sender<Pressure>,
}

impl Default for Memory {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Memory {
    /// With a limit in bytes, if there is one.
    #[must_use]
    pub fn new(limit: Option<u64>) -> Self {
        let limit = limit.map(|bytes| bytes.max(1));
        Self(Arc::new(Inner { limit, used: AtomicU64::new(0), pressure: watch::Sender::new(Pressure::Normal) }))
    }

    /// In bytes.
    #[must_use]
    pub fn limit(&self) -> Option<u64> {
        self.0.limit
    }

    /// In bytes, when it was last looked at.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Relaxed)
    }

    /// How near the limit is.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        *self.0.pressure.borrow()
    }

    /// Hears when the pressure changes.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Pressure> {
        self.0.pressure.subscribe()
    }

    /// Why nothing can be taken in, while that is so.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let limit = self.0.limit.filter(|_| self.pressure() == Pressure::Full)?;
        let bytes = |bytes: u64| quantity(bytes as f64, "By");
        Some(format!("the daemon uses {} of memory, and may use {}", bytes(self.used()), bytes(limit)))
    }

    /// Waits before more is read: while memory is tight for a moment, while it is full until it is not. Whether it did.
    pub async fn room(&self) -> bool {
        let mut pressure = self.watch();
        // It ends with the last clone, which this is not.
        match self.pressure() {
            Pressure::Normal => return false,
            Pressure::Tight => {
                let _ = tokio::time::timeout(SLOWLY, pressure.wait_for(|p| *p == Pressure::Normal)).await;
            }
            Pressure::Full => {}
        }
        let _ = pressure.wait_for(|p| *p != Pressure::Full).await;
        true
    }

    /// So much is in use now, in bytes.
    pub fn note(&self, used: u64) {
        self.0.used.store(used, Relaxed);
        let Some(limit) = self.0.limit else { return };
        self.0.pressure.send_if_modified(|pressure| {
            let next = pressure.next(used, limit);
            std::mem::replace(pressure, next) != next
        });
    }

    /// Looks at what is in use until `stop`, and says when the limit is reached. Where that cannot be known there is no
    /// limit, and that is said once.
    pub async fn follow(self, stop: CancellationToken) {
        let Some(limit) = self.0.limit else { return };
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<Instant> = None;
        let mut was = Pressure::Normal;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let Some(used) = resident() else {
                tracing::warn!("what the process holds in memory cannot be known on this system, so it is not limited");
                return;
            };
            self.note(used);
            let now = self.pressure();
            if now != Pressure::Normal {
                give_back();
            }
            let bytes = |bytes: u64| quantity(bytes as f64, "By");
            if now == Pressure::Full && told.is_none_or(|at| at.elapsed() >= AGAIN) {
                told = Some(Instant::now());
                tracing::warn!(
                    used = bytes(used),
                    limit = bytes(limit),
                    "the memory limit is reached: requests are refused, and clients keep what they have and send it again. If \
                     this lasts, give the daemon more memory (`memory.limit`), or let detectors learn fewer series (`max_series`)"
                );
            } else if now == Pressure::Tight && was == Pressure::Normal {
                tracing::info!(used = bytes(used), limit = bytes(limit), "memory is tight: no series are begun");
            }
            was = now;
        }
    }
}

/// Has the allocator give back to the system what was freed. By itself it does so when something large is freed a while
/// later, which may never be while everything is refused.
fn give_back() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_pressure_rises_at_once_and_falls_when_there_is_room_again() {
        let memory = Memory::new(Some(1000));
        let mut seen = Vec::new();
        for used in [849, 850, 820, 800, 799, 820, 999, 1000, 960, 950, 949, 800, 799, 2000, 0] {
            memory.note(used);
            seen.push(format!("{used} {}", memory.pressure().as_str()));
        }
        insta::assert_snapshot!(seen.join(", "), @"849 normal, 850 tight, 820 tight, 800 tight, 799 normal, 820 normal, 999 tight, 1000 full, 960 full, 950 full, 949 tight, 800 tight, 799 normal, 2000 full, 0 normal");
    }

    #[test]
    fn the_refusal_has_the_numbers_and_lasts_as_long_as_the_limit_is_reached() {
        let memory = Memory::new(Some(512 << 20));
        assert_eq!(memory.refusal(), None);
        memory.note(600 << 20);
        insta::assert_snapshot!(memory.refusal().unwrap(), @"the daemon uses 600 MiB of memory, and may use 512 MiB");
        memory.note(100 << 20);
        assert_eq!(memory.refusal(), None);
    }

    #[test]
    fn without_a_limit_there_is_no_pressure() {
        let memory = Memory::default();
        memory.note(u64::MAX);
        assert_eq!((memory.pressure(), memory.refusal(), memory.used()), (Pressure::Normal, None, u64::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_waits_a_moment_while_memory_is_tight_and_until_it_is_not_while_it_is_full() {
        let memory = Memory::new(Some(100));
        assert!(!memory.room().await);
        memory.note(90);
        let begun = Instant::now();
        assert!(memory.room().await);
        assert_eq!(begun.elapsed(), SLOWLY);
        memory.note(100);
        let waiting = tokio::spawn({
            let memory = memory.clone();
            async move { memory.room().await }
        });
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!waiting.is_finished());
        memory.note(90);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn what_the_process_holds_is_followed() {
        let held = resident();
        assert_eq!(held.is_some(), cfg!(target_os = "linux"));
        let Some(held) = held else { return };
        assert!(held > 1 << 20, "{held} bytes");
        let memory = Memory::new(Some(1 << 20));
        let stop = CancellationToken::new();
        let following = tokio::spawn(memory.clone().follow(stop.clone()));
        memory.watch().wait_for(|p| *p == Pressure::Full).await.unwrap();
        stop.cancel();
        following.await.unwrap();
        assert!(memory.used() > 1 << 20);
    }

    proptest! {
        #[test]
        fn full_is_exactly_from_the_limit_until_there_is_room(all in prop::collection::vec(0u64..2000, 1..60)) {
            let memory = Memory::new(Some(1000));
            let mut full = false;
            for used in all {
                memory.note(used);
                full = used >= 1000 || (full && used >= 950);
                prop_assert_eq!(memory.refusal().is_some(), full);
            }
        }
    }
}
