//! How many alerts people want, in place of a threshold.
//!
//! What would have been alerted at each of a ladder of thresholds is grouped into incidents just as what is alerted. The
//! threshold in force is the lowest at which, in any time as long as the budget's, there were at most as many incidents as
//! it allows. What is long ago counts less, so that one bad week is not remembered for ever.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::judged::Unusual;
use super::graph::Graph;
use super::groups::{Groups, Rule};
use crate::model::{Anomaly, UnixNanos};

/// Steps of the ladder.
const LEVELS: usize = 32;
/// Each is this much above the one before.
const STEP: f64 = 1.08;
/// The lowest threshold, as a part of the default one: what is less unusual than this is never alerted.
const FLOOR: f64 = 0.65;
/// How much an incident of so long ago counts: half, in nanoseconds. At least twice the budget's time.
const HALF_LIFE: u64 = 28 * DAY;
/// What is older than this many half-lives is forgotten.
const MEMORY: u64 = 4;
/// Incidents of one level that are remembered, the latest.
const MAX_ONSETS: usize = 4096;
const HOUR: u64 = 3600 * UnixNanos::SECOND;
const DAY: u64 = 24 * HOUR;

/// How many alerts are wanted: the threshold is then derived from how unusual this environment's values have been so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertsConfig {
    /// So many incidents, at most: 1 to 1000.
    #[schemars(range(min = 1, max = 1000))]
    pub at_most: u32,
    /// In this time.
    pub per: Per,
}

/// A time in which alerts are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// 60 minutes.
    Hour,
    /// 24 hours.
    Day,
    /// 7 days.
    Week,
    /// 30 days.
    Month,
}

impl Per {
    const fn nanos(self) -> u64 {
        match self {
            Self::Hour => HOUR,
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month => 30 * DAY,
        }
    }
}

/// The lowest threshold that a budget may choose, given the default one.
pub(in super::super) fn floor(default_threshold: f64) -> f64 {
    default_threshold * FLOOR
}

/// What the threshold was and is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Change {
    pub(in super::super) from: f64,
    pub(in super::super) to: f64,
}

/// What would have been alerted, and the threshold that follows from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Budget {
    levels: Vec<Level>,
    /// Event time at the begin.
    first: Option<u64>,
    /// The last step of event time at which the threshold was derived.
    step: u64,
    threshold: f64,
}

/// What would have been alerted at one threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Level {
    threshold: f64,
    groups: Groups,
    /// When its incidents began, ascending but for late ones.
    onsets: VecDeque<u64>,
}

impl Budget {
    /// Before anything is known the default threshold is in force.
    pub(super) fn new(default_threshold: f64) -> Self {
        let level = |i: usize| Level {
            threshold: floor(default_threshold) * STEP.powi(i32::try_from(i).unwrap_or(0)),
            groups: Groups::default(),
            onsets: VecDeque::new(),
        };
        Self { levels: (0..LEVELS).map(level).collect(), first: None, step: 0, threshold: default_threshold }
    }

    /// Whether the two have the same ladder.
    pub(super) fn has_levels_of(&self, other: &Self) -> bool {
        self.levels.iter().map(|l| l.threshold.to_bits()).eq(other.levels.iter().map(|l| l.threshold.to_bits()))
    }

    /// The threshold in force.
    pub(super) const fn threshold(&self) -> f64 {
        self.threshold
    }

    /// Takes in the candidates of one bucket with their surprises.
    pub(super) fn record(&mut self, candidates: &[(&Anomaly, f64)], graph: &Graph, rule: Rule) {
        for level in &mut self.levels {
            let above: Vec<&Anomaly> = candidates.iter().filter(|(_, s)| *s >= level.threshold).map(|(a, _)| *a).collect();
            let Some(first) = above.first() else { break };
            let before = level.groups.opened();
            level.groups.assign(&above, graph, rule);
            for _ in before..level.groups.opened() {
                level.onsets.push_back(first.window.start.0);
            }
            while level.onsets.len() > MAX_ONSETS {
                level.onsets.pop_front();
            }
        }
    }

    /// Takes in a value out of its bounds.
    pub(super) fn touch(&mut self, unusual: &Unusual, rule: Rule) {
        for level in &mut self.levels {
            level.groups.touch(&unusual.fingerprint, unusual.start, rule);
        }
    }

    /// Event time has come to `until`. At fixed steps of it the threshold is derived anew; what has changed.
    pub(super) fn advance(
        &mut self,
        until: UnixNanos,
        config: AlertsConfig,
        default_threshold: f64,
        rule: Rule,
    ) -> Option<Change> {
        for level in &mut self.levels {
            level.groups.expire(until, rule);
        }
        let first = *self.first.get_or_insert(until.0);
        let step = until.0 / config.per.nanos().min(DAY);
        if step <= self.step {
            return None;
        }
        self.step = step;
        let (from, to) = (self.threshold, self.derive(first, until.0, config).unwrap_or(default_threshold));
        self.threshold = to;
        #[expect(clippy::float_cmp, reason = "a level of the ladder is the same number every time")]
        (from != to).then_some(Change { from, to })
    }

    /// The lowest threshold that keeps the budget; none before enough is known.
    fn derive(&mut self, first: u64, now: u64, config: AlertsConfig) -> Option<f64> {
        let period = config.per.nanos();
        let half_life = HALF_LIFE.max(2 * period);
        let known = now.saturating_sub(first);
        if known < period.clamp(DAY, 7 * DAY) {
            return None;
        }
        // Of a month that has hardly begun only a part of the budget can have been used.
        let allowed = f64::from(config.at_most) * (known as f64 / period as f64).min(1.0);
        for level in &mut self.levels {
            level.onsets.retain(|onset| now.saturating_sub(*onset) <= MEMORY * half_life);
        }
        let kept = self.levels.iter().find(|level| level.most(now, period, half_life) <= allowed);
        kept.or(self.levels.last()).map(|level| level.threshold)
    }
}

impl Level {
    /// The most incidents that began within any `period`; a period of long ago counts less.
    fn most(&self, now: u64, period: u64, half_life: u64) -> f64 {
        let mut onsets: Vec<u64> = self.onsets.iter().copied().collect();
        onsets.sort_unstable();
        let mut most = 0.0_f64;
        let mut from = 0;
        for (i, &end) in onsets.iter().enumerate() {
            while onsets.get(from).is_some_and(|begin| begin.saturating_add(period) <= end) {
                from += 1;
            }
            let age = now.saturating_sub(end) as f64 / half_life as f64;
            most = most.max((i + 1 - from) as f64 * 0.5_f64.powf(age));
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::config::Config;
    use super::super::Incidents;
    use super::super::tests::{anomaly, found};
    use super::*;
    use crate::model::{Environment, IncidentEvent, Severity};

    const AT_MOST: AlertsConfig = AlertsConfig { at_most: 5, per: Per::Week };

    fn config() -> Config {
        Config { alerts: Some(AT_MOST), ..Config::default() }
    }

    fn incidents() -> Incidents {
        Incidents::new(&Environment::new("production"), config().incidents())
    }

    /// An anomaly as the shards find it, of this surprise.
    fn surprising(service: &str, minute: u64, surprise: f64) -> Anomaly {
        let ratio = surprise / floor(config().threshold);
        let score = 100.0 * ratio * ratio / (ratio * ratio + 3.0);
        Anomaly { score, severity: Severity::of(score), ..anomaly(service, minute, score) }
    }

    struct Week {
        opened: usize,
        threshold: f64,
    }

    /// Weeks of noise: about `per_day` times a day a value is more unusual than the floor, each tenfold rarer as its
    /// surprise is one more.
    fn weeks(incidents: &mut Incidents, count: u64, per_day: f64, seed: u64) -> Vec<Week> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut weeks = Vec::new();
        for week in 0..count {
            let mut opened = 0;
            for minute in week * 7 * 1440..(week + 1) * 7 * 1440 {
                let mut all = Vec::new();
                if random.f64() < per_day / 1440.0 {
                    let surprise = floor(config().threshold) - random.f64().max(1e-9).log10();
                    all.push(surprising(["a", "b", "c"][random.usize(..3)], minute, surprise));
                }
                let told = incidents.take(found(all, minute + 1));
                opened += told.findings.incidents.iter().filter(|i| i.event == IncidentEvent::Opened).count();
                assert!(told.findings.anomalies.iter().all(|a| a.score >= 24.999), "scores relate to the threshold in force");
            }
            weeks.push(Week { opened, threshold: incidents.threshold() });
        }
        weeks
    }

    #[test]
    fn a_noisy_environment_settles_at_or_under_its_budget() {
        for seed in 0..4 {
            let weeks = weeks(&mut incidents(), 20, 20.0, seed);
            let opened: Vec<usize> = weeks.iter().map(|w| w.opened).collect();
            assert!(opened[0] > 5, "the default threshold is too low here, or this shows nothing: {opened:?}");
            let settled = &opened[3..];
            let mean = settled.iter().sum::<usize>() as f64 / settled.len() as f64;
            assert!((1.0..=5.0).contains(&mean), "{opened:?}");
            let over = settled.iter().filter(|n| **n > 5).count();
            assert!(over <= 2, "{opened:?}");
            assert!(weeks.iter().skip(2).all(|w| w.threshold > config().threshold), "{opened:?}");
        }
    }

    #[test]
    fn a_quiet_environment_becomes_more_sensitive_down_to_the_floor() {
        let mut quiet = incidents();
        let weeks = weeks(&mut quiet, 6, 0.2, 7);
        let thresholds: Vec<f64> = weeks.iter().map(|w| w.threshold).collect();
        assert_eq!(thresholds.last(), Some(&floor(config().threshold)), "{thresholds:?}");
        assert!(weeks.iter().all(|w| w.opened <= 5));
    }

    #[test]
    fn before_enough_is_known_the_default_threshold_holds_and_what_is_below_is_counted() {
        let mut incidents = incidents();
        let default = config().threshold;
        let told = incidents.take(found(vec![surprising("a", 0, default * 0.9), surprising("b", 0, default * 1.1)], 1));
        assert_eq!((incidents.threshold(), told.below_budget), (default, 1));
        assert_eq!(told.findings.anomalies.len(), 1);
        assert_eq!(told.findings.incidents[0].threshold, default);
        assert_eq!(told.findings.incidents[0].services, ["b"], "what is not told does not show in what is");
        for day in 1..7 {
            assert_eq!(incidents.take(found(vec![], day * 1440)).threshold, None);
            assert_eq!(incidents.threshold(), default);
        }
    }

    #[test]
    fn the_threshold_survives_a_restart_and_a_change_of_the_ladder_begins_anew() {
        let mut before = incidents();
        weeks(&mut before, 3, 20.0, 1);
        let mut after = incidents();
        after.restore(&before.save().unwrap()).unwrap();
        assert_eq!(after.threshold().to_bits(), before.threshold().to_bits());
        assert!(after.threshold() > config().threshold);
        let other = Config { threshold: 2.0, ..config() };
        let mut anew = Incidents::new(&Environment::new("production"), other.incidents());
        anew.restore(&before.save().unwrap()).unwrap();
        assert_eq!(anew.threshold(), 2.0);
        let given = Config { threshold: 1.5, ..Config::default() };
        let mut without = Incidents::new(&Environment::new("production"), given.incidents());
        without.restore(&before.save().unwrap()).unwrap();
        assert_eq!(without.threshold(), 1.5, "a threshold that is given is the threshold");
    }

    #[test]
    fn one_bad_week_is_not_remembered_for_ever() {
        let mut level = Level { threshold: 2.0, groups: Groups::default(), onsets: VecDeque::new() };
        level.onsets.extend((0..20).map(|i| i * HOUR));
        let most = |now: u64| level.most(now, 7 * DAY, HALF_LIFE);
        assert!((most(19 * HOUR) - 20.0).abs() < 1e-9);
        assert!((most(19 * HOUR + 28 * DAY) - 10.0).abs() < 1e-9);
        assert!(most(19 * HOUR + 60 * DAY) < 5.0);
    }
}
