//! When clients that were refused may come again.
//!
//! The longer a trouble has lasted, the longer they are asked to wait: at most as long again, and at most
//! [`LONGEST`]. Half of the wait is random, so that those that were refused together do not come back together.
//! Clients with a retry of their own wait for the longer of both.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::Environment;

/// Nobody is asked to wait for less.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);
/// Nobody is asked to wait for more: an SDK gives a batch up after about 10 s, a Collector after 5 minutes.
const LONGEST: Duration = Duration::from_secs(10);

/// The troubles of a listener: of each environment, and of all that it receives together.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<BTreeMap<Option<Environment>, Instant>>);

impl Patience {
    /// A request is refused because of a trouble of `environment` (none: of the whole listener). How long its client
    /// shall wait.
    pub(super) fn wait(&self, environment: Option<&Environment>) -> Duration {
        let now = Instant::now();
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = *troubles.entry(environment.cloned()).or_insert(now);
        drop(troubles);
        let most = now.duration_since(begun).clamp(SHORTEST * 2, LONGEST);
        let wait = most.mul_f64(0.5 + fastrand::f64() / 2.0);
        Duration::from_millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }

    /// `environment` (none: the listener) takes requests in again.
    pub(super) fn over(&self, environment: Option<&Environment>) {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !troubles.is_empty() {
            troubles.remove(&environment.cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shortest and the longest of many waits, in milliseconds.
    fn waits(patience: &Patience, environment: Option<&Environment>) -> (u128, u128) {
        let waits: Vec<u128> = (0..1000).map(|_| patience.wait(environment).as_millis()).collect();
        (waits.iter().copied().min().unwrap(), waits.iter().copied().max().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_with_the_trouble_and_differ_so_that_clients_do_not_come_back_together() {
        let patience = Patience::default();
        for (at, least, most) in [(0, 1000, 2000), (2, 1000, 2000), (6, 3000, 6000), (60, 5000, 10_000)] {
            let begun = *patience.0.lock().unwrap().entry(None).or_insert_with(Instant::now);
            tokio::time::sleep_until(begun + Duration::from_secs(at)).await;
            let (shortest, longest) = waits(&patience, None);
            assert!(least <= shortest && shortest < least + least / 10, "{shortest} ms after {at} s");
            assert!(longest <= most && most - most / 10 < longest, "{longest} ms after {at} s");
        }
        patience.over(None);
        assert!(waits(&patience, None).1 <= 2000, "a new trouble begins with short waits");
    }

    #[tokio::test(start_paused = true)]
    async fn the_trouble_of_one_environment_does_not_make_the_clients_of_others_wait() {
        let patience = Patience::default();
        let [one, other] = ["one", "other"].map(Environment::new);
        patience.wait(Some(&one));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(waits(&patience, Some(&other)).1 <= 2000);
        patience.over(Some(&other));
        patience.over(None);
        assert!(waits(&patience, Some(&one)).0 >= 5000, "what others take in does not end its trouble");
    }
}
