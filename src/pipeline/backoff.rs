//! Waits between tries: exponential, with full jitter.

use std::time::Duration;

/// The waits of one request. Each is random between zero and a bound that doubles with every try, so that many
/// clients of one overloaded cluster do not come back together ("full jitter", Brooker, AWS Architecture Blog 2015).
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    bound: Duration,
    initial: Duration,
    max: Duration,
}

impl Backoff {
    /// Bounds from `initial` to `max`.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { bound: initial, initial, max }
    }

    /// Begins again with the shortest wait.
    pub const fn reset(&mut self) {
        self.bound = self.initial;
    }

    /// How long to wait now; at least `at_least` (a `Retry-After`).
    pub fn next(&mut self, at_least: Option<Duration>) -> Duration {
        let bound = self.bound.min(self.max);
        self.bound = bound.saturating_mul(2).min(self.max);
        bound.mul_f64(fastrand::f64()).max(at_least.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_is_within_its_doubling_bound_and_never_below_what_was_asked(tries in 1usize..12, asked in 0u64..200) {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
            for n in 0..tries {
                let bound = Duration::from_millis((100u64 << n).min(2000));
                let asked = Duration::from_millis(asked);
                let wait = backoff.next(Some(asked));
                prop_assert!(wait >= asked && wait <= bound.max(asked), "{wait:?} of {bound:?}");
            }
            backoff.reset();
            prop_assert!(backoff.next(None) <= Duration::from_millis(100));
        }
    }
}
