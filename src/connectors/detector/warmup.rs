//! How a detector begins: how many buckets a series must have seen, and how much history is learnt first.
//!
//! A detector that has learnt nothing asks for history, once. What it asked for is kept in the store, so that a
//! restart in the middle goes on where it was; one that lost what it had learnt begins again.

use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Duration;
use crate::model::{Environment, UnixNanos};
use crate::pipeline::{Context, History, Progress, Span};
use crate::storage::{Storage, StorageError};

/// Buckets that are enough for a first judgement.
const BUCKETS: u32 = 240;

/// How often it is told how far the learning is.
const TELL_EVERY: std::time::Duration = std::time::Duration::from_secs(30);

/// A history that does not move for so long is given up: what comes live must not wait for a cluster that is down.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15 * 60);

/// Open buckets are bounded; readers of one history stay closer together than that.
const PACE: u64 = 256;

/// How a series, and a new environment, warm up: a number of buckets, or `{ buckets: 240, history: 14d }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Warmup {
    /// How many buckets a series must have seen before anything of it can be an anomaly: 10 to 100000.
    Buckets(#[schemars(range(min = 10, max = 100_000))] u32),
    /// With history.
    Full(FullWarmup),
}

/// How many buckets are needed, and how much history is read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FullWarmup {
    /// How many buckets a series must have seen before anything of it can be an anomaly: 10 to 100000.
    #[serde(default = "buckets")]
    #[schemars(range(min = 10, max = 100_000))]
    pub buckets: u32,
    /// How much of the past is read, and learnt at full speed, when this environment has learnt nothing yet: at most
    /// 1 year, such as `14d`. Receivers that can read the past (`elasticsearch`) begin that far back. What lies
    /// before the start is learnt and not reported (counted as `in_history`); then the environment goes on live
    /// without a gap. Without it, learning begins with what comes in.
    #[serde(default)]
    pub history: Option<Duration>,
}

const fn buckets() -> u32 {
    BUCKETS
}

impl Default for Warmup {
    fn default() -> Self {
        Self::Buckets(BUCKETS)
    }
}

impl From<u32> for Warmup {
    fn from(buckets: u32) -> Self {
        Self::Buckets(buckets)
    }
}

impl Warmup {
    /// How many buckets a series must have seen.
    pub(super) const fn buckets(self) -> u32 {
        match self {
            Self::Buckets(buckets) | Self::Full(FullWarmup { buckets, .. }) => buckets,
        }
    }

    /// How much history is read first.
    pub(super) const fn history(self) -> Option<Duration> {
        match self {
            Self::Buckets(_) => None,
            Self::Full(FullWarmup { history, .. }) => history,
        }
    }
}

/// What was asked for, as it is kept in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    from: UnixNanos,
    /// The moment of going live: when the detector first started.
    live: UnixNanos,
    done: bool,
}

/// A detector's part in the history of its environment.
#[derive(Debug)]
pub(super) struct Learning {
    history: History,
    environment: Environment,
    component: String,
    key: String,
    asked: Option<Asked>,
    told: Option<Instant>,
    /// Records that were read, and when one came last.
    moved: (u64, Instant),
}

impl Learning {
    /// Asks for history if `warmup` wants it and nothing was `learnt`.
    pub(super) fn begin(context: &Context, warmup: Warmup, learnt: bool, bucket: u64) -> Result<Self, StorageError> {
        let history = context.services.registry.history(&context.environment);
        history.pace(PACE.saturating_mul(bucket));
        let component = context.id.to_string();
        let key = format!("warmup/{}/{component}", context.environment);
        let mut learning = Self {
            history,
            environment: context.environment.clone(),
            component,
            key,
            asked: None,
            told: None,
            moved: (0, Instant::now()),
        };
        let (Some(wanted), false) = (warmup.history(), learning.is_replay()) else { return Ok(learning) };
        let storage = &*context.services.storage;
        let before = storage.get(&learning.key)?.and_then(|bytes| serde_json::from_slice::<Asked>(&bytes).ok());
        let asked = match before {
            Some(asked) if learnt => asked,
            // What was learnt before has no need of a history now.
            None if learnt => return Ok(learning),
            _ => {
                let now = context.services.clock.now();
                Asked { from: now.minus(wanted.nanos()), live: now, done: false }
            }
        };
        learning.asked = Some(asked);
        if !asked.done {
            learning.keep(storage)?;
            learning.history.want(Span { from: asked.from, until: asked.live, anew: !learnt, ends: false });
            tracing::info!(
                environment = %learning.environment, component = learning.component,
                from = %asked.from, until = %asked.live, goes_on = learnt,
                "learning from history; what lies in it is learnt and not reported"
            );
        }
        Ok(learning)
    }

    /// Whether all there is to do is to replay the past: nothing of it is held back.
    fn is_replay(&self) -> bool {
        self.history.span().is_some_and(|span| span.ends)
    }

    /// Whether history is being learnt, and live data of the same series waits for it.
    pub(super) fn is_on(&self) -> bool {
        self.asked.is_some_and(|asked| !asked.done)
    }

    /// Nothing that began before this moment is reported.
    pub(super) fn live_from(&self) -> UnixNanos {
        self.asked.map_or(UnixNanos(0), |asked| asked.live)
    }

    /// Where a replay has come to when its input has ended; `None` where this is none.
    pub(super) fn end_of_replay(&self) -> Option<UnixNanos> {
        let progress = self.history.progress().filter(|p| p.span.ends)?;
        Some(progress.reached)
    }

    /// Tells now and then how far it is; true once, when all of the history has been handed over.
    pub(super) fn ends_now(&mut self) -> bool {
        if !self.is_on() {
            return false;
        }
        let Some(progress) = self.history.progress() else { return false };
        if !progress.done {
            if progress.records > self.moved.0 {
                self.moved = (progress.records, Instant::now());
            } else if self.moved.1.elapsed() > PATIENCE {
                let (environment, component) = (&self.environment, &self.component);
                tracing::warn!(
                    %environment, component, reached = %progress.reached,
                    "no history has come for 15 minutes: going live with what was learnt; what comes of it later is used where it is not too late"
                );
                return self.end();
            }
            let due = self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
            if due && progress.records > 0 {
                self.told = Some(Instant::now());
                let (environment, component) = (&self.environment, &self.component);
                tracing::info!(%environment, component, "learning {environment}: {}", progress.sentence());
            }
            return false;
        }
        self.tell_end(&progress);
        self.end()
    }

    fn end(&mut self) -> bool {
        if let Some(asked) = &mut self.asked {
            asked.done = true;
        }
        true
    }

    fn tell_end(&self, progress: &Progress) {
        let (environment, component) = (&self.environment, &self.component);
        if self.history.is_without_readers() {
            tracing::warn!(
                %environment, component,
                "`warmup.history` has no effect: no receiver of this environment can read the past (an `elasticsearch` receiver can)"
            );
            return;
        }
        let days = |nanos: u64| nanos as f64 / UnixNanos::SECOND as f64 / 86_400.0;
        let wanted = days(progress.span.until.0.saturating_sub(progress.span.from.0));
        let there = days(progress.span.until.0.saturating_sub(progress.begin().0));
        let documents = progress.records;
        match progress.first {
            None => tracing::warn!(
                %environment, component,
                "there is no history: nothing was found in the {wanted:.1} days asked for; learning begins with what comes in"
            ),
            // An hour of quiet at the beginning is no hole.
            Some(first) if wanted - there > (wanted * 0.02).max(1.0 / 24.0) => tracing::warn!(
                %environment, component, documents, %first,
                "the history is shorter than asked for: it begins {there:.1} days ago, not {wanted:.1}; a weekly rhythm needs two weeks"
            ),
            Some(_) => {}
        }
        tracing::info!(%environment, component, documents, days = format!("{there:.1}"), "history is learnt; live from here on");
    }

    /// Keeps in the store how far it is.
    pub(super) fn keep(&self, storage: &dyn Storage) -> Result<(), StorageError> {
        let Some(asked) = self.asked else { return Ok(()) };
        let bytes = serde_json::to_vec(&asked).map_err(|e| StorageError(format!("cannot write `{}`: {e}", self.key)))?;
        storage.put(&[(&self.key, &bytes)])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_and_a_block_are_both_read() {
        let read = |value| serde_json::from_value::<Warmup>(value).unwrap();
        assert_eq!((read(json!(100)).buckets(), read(json!(100)).history()), (100, None));
        let full = read(json!({ "history": "14d" }));
        assert_eq!((full.buckets(), full.history().map(|h| h.get().as_secs())), (240, Some(14 * 86_400)));
        assert!(serde_json::from_value::<Warmup>(json!({ "histori": "14d" })).is_err());
    }
}
