//! What keeps findings from being told: rules of the configuration, maintenance windows, deployments and mutes.
//!
//! Rules are compiled once and matched once per series. Everything is decided by event time, so a replay decides
//! alike.

mod amount;
mod calendar;
mod config;
mod deployments;
mod matching;
mod mutes;
mod requests;
mod schedule;
mod standing;

use std::sync::Arc;

use detection::{Hold, Parameters, Quantity, Side};
use serde::{Deserialize, Serialize};

pub use self::amount::Amount;
pub(super) use self::config::check;
pub use self::config::{Deployments, Direction, Maintenance, Rule};
use self::deployments::Deployments as Versions;
pub use self::matching::Match;
use self::mutes::Mutes;
pub(super) use self::requests::{Part, Request, SUBJECTS, answer, gather};
use self::schedule::{Schedule, Windows};
pub(super) use self::standing::{Standing, count};
use super::Config;
use super::bucket::Function;
use super::key::{Key, unit};
use crate::model::{Anomaly, Entity, Reason, ServiceVersion, UnixNanos};
use crate::text::quantity;

/// Nanoseconds after a deployment in which anomalies of the service name it.
const AFTER: u64 = 3600 * UnixNanos::SECOND;

/// The compiled configuration.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    rules: Vec<(Rule, Option<UnixNanos>)>,
    maintenance: Vec<(Maintenance, Vec<Schedule>)>,
    grace: u64,
}

/// Rules at work in one shard: all shards are told the same, so all hold the same.
#[derive(Clone, Debug)]
pub(super) struct Quieting {
    rules: Arc<Rules>,
    /// One per maintenance entry.
    windows: Vec<Windows>,
    saved: Saved,
}

/// What survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Saved {
    mutes: Mutes,
    deployments: Versions,
}

/// What applies to one series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Applied {
    /// Of the mutes that were looked at.
    generation: u64,
    parameters: Parameters,
    /// The rule that mutes it.
    muted: Option<u32>,
    /// A bit per maintenance entry.
    windows: u64,
    mutes: Vec<u64>,
}

/// Why findings are held back in a bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Quiet {
    pub(super) because: Because,
    /// `None` for good.
    pub(super) until: Option<UnixNanos>,
}

/// By what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Because {
    /// A rule of the configuration.
    Rule(u32),
    /// A mute.
    Mute(u64),
    /// A maintenance entry.
    Maintenance(u32),
    /// A deployment.
    Deployment,
}

impl Because {
    /// As the state of a series.
    pub(super) const fn state(self) -> &'static str {
        match self {
            Self::Rule(_) | Self::Mute(_) => "muted",
            Self::Maintenance(_) => "maintenance",
            Self::Deployment => "deployment",
        }
    }

    /// Of the event that counts it.
    pub(super) const fn event(self) -> &'static str {
        match self {
            Self::Rule(_) | Self::Mute(_) => "suppressed_muted",
            Self::Maintenance(_) => "suppressed_maintenance",
            Self::Deployment => "suppressed_deployment",
        }
    }
}

impl Rules {
    /// Compiles what [`check`] has let pass; what cannot be used after all is left out and logged.
    pub(super) fn new(config: &Config) -> Self {
        let left_out = |what: &str, error: String| tracing::error!(error, "a {what} of the detector is left out");
        let rule = |rule: &Rule| {
            let until = rule.until.as_deref().map(config::moment).transpose();
            until.map(|until| (rule.clone(), until)).map_err(|error| left_out("rule", error)).ok()
        };
        let window = |entry: &Maintenance| {
            let schedules = match (&entry.schedule, &entry.calendar) {
                (Some(text), _) => {
                    schedule::parse(text).map(|set| vec![Schedule::new(set, entry.duration.unwrap_or_default().nanos())])
                }
                (None, Some(path)) => calendar::read(path),
                (None, None) => Ok(Vec::new()),
            };
            schedules.map(|schedules| (entry.clone(), schedules)).map_err(|error| left_out("maintenance entry", error)).ok()
        };
        Self {
            rules: config.rules.iter().filter_map(rule).collect(),
            maintenance: config.maintenance.iter().filter_map(window).collect(),
            grace: config.deployments.grace.nanos(),
        }
    }

    /// What applies to a series whatever people mute; later rules go before earlier ones.
    fn apply(&self, key: &Key, function: Function, bucket_seconds: f64, base: &Parameters) -> Applied {
        let mut parameters = *base;
        let quantity = key.kind.quantity(function, &key.unit);
        for (rule, _) in self.rules.iter().filter(|(rule, _)| rule.r#match.matches(key, function)) {
            match rule.direction {
                Some(Direction::Above) => parameters.side = Side::Above,
                Some(Direction::Below) => parameters.side = Side::Below,
                Some(Direction::Both) => parameters.side = Side::Both,
                None => {}
            }
            parameters.page_threshold = rule.threshold.unwrap_or(parameters.page_threshold);
            parameters.min_relative_deviation = rule.min_relative_deviation.unwrap_or(parameters.min_relative_deviation);
            parameters.min_samples = rule.min_samples.unwrap_or(parameters.min_samples);
            let unit = unit(key.kind, function, &key.unit);
            if let Some(amount) = rule.min_absolute_deviation.as_ref().and_then(|amount| amount.read().ok()?.within(&unit)) {
                match quantity {
                    Quantity::Ratio => parameters.min_ratio_deviation = amount,
                    // Counts are judged as counts, and shown per second.
                    Quantity::Count => parameters.min_absolute_deviation = amount * bucket_seconds,
                    _ => parameters.min_absolute_deviation = amount,
                }
            }
        }
        Applied { parameters, ..self.holding(&key.entity, &key.metric, function.as_str()) }
    }

    /// What may hold findings back.
    fn holding(&self, entity: &Entity, metric: &str, function: &str) -> Applied {
        let (mut muted, mut windows) = (None, 0);
        for (number, (rule, _)) in self.rules.iter().enumerate().filter(|(_, (rule, _))| rule.mute.is_some()) {
            if rule.r#match.means(entity, metric, function) {
                muted = u32::try_from(number).ok().filter(|_| rule.mute == Some(true));
            }
        }
        for (number, (entry, _)) in self.maintenance.iter().enumerate().take(64) {
            windows |= u64::from(entry.r#match.means(entity, metric, function)) << number;
        }
        Applied { generation: 0, parameters: Parameters::default(), muted, windows, mutes: Vec::new() }
    }

    fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.maintenance.is_empty()
    }
}

impl Quieting {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        let windows = rules.maintenance.iter().map(|(_, schedules)| Windows::new(schedules.clone())).collect();
        Self { rules, windows, saved: Saved::default() }
    }

    /// What survives a restart.
    pub(super) const fn saved(&self) -> &Saved {
        &self.saved
    }

    pub(super) fn restore(&mut self, saved: Saved) {
        self.saved = saved;
    }

    /// Takes note of versions that were seen.
    pub(super) fn note(&mut self, versions: &[ServiceVersion]) {
        self.saved.deployments.note(versions);
    }

    /// Brings what applies to a series up to date; `None` where nothing is different from `base`.
    pub(super) fn applied<'a>(
        &self,
        slot: &'a mut Option<Box<Applied>>,
        key: &Key,
        function: Function,
        bucket_seconds: f64,
        base: &Parameters,
    ) -> Option<&'a Applied> {
        let mutes = &self.saved.mutes;
        if self.rules.is_empty() && mutes.all().is_empty() {
            *slot = None;
            return None;
        }
        if !slot.as_deref().is_some_and(|applied| self.is_current(applied)) {
            let generation = self.generation();
            let applied = match slot.take() {
                Some(applied) => *applied,
                None => self.rules.apply(key, function, bucket_seconds, base),
            };
            *slot =
                Some(Box::new(Applied { generation, mutes: mutes.of(&key.entity, &key.metric, function.as_str()), ..applied }));
        }
        slot.as_deref()
    }

    /// A series that was not looked at yet is of no generation.
    fn generation(&self) -> u64 {
        self.saved.mutes.generation() + 1
    }

    /// Whether nothing was muted or unmuted since.
    pub(super) fn is_current(&self, applied: &Applied) -> bool {
        applied.generation == self.generation()
    }

    /// Why findings of a series are held back from `from` to `to`, if they are. Of several reasons the one that ends
    /// last.
    pub(super) fn quiet(&self, applied: Option<&Applied>, service: &str, from: UnixNanos, to: UnixNanos) -> Option<Quiet> {
        let mut quiet: Option<Quiet> = None;
        let mut add = |because, until: Option<UnixNanos>| {
            let end = |until: Option<UnixNanos>| until.map_or(u64::MAX, |u| u.0);
            if quiet.is_none_or(|known| end(known.until) < end(until)) {
                quiet = Some(Quiet { because, until });
            }
        };
        if let Some(applied) = applied {
            if let Some((number, (_, until))) = applied.muted.and_then(|n| Some((n, self.rules.rules.get(n as usize)?)))
                && until.is_none_or(|until| from < until)
            {
                add(Because::Rule(number), *until);
            }
            if let Some(mute) = self.saved.mutes.covering(&applied.mutes, from, to) {
                add(Because::Mute(mute.id), Some(mute.until));
            }
            for (number, windows) in self.windows.iter().enumerate().filter(|(n, _)| applied.windows >> n & 1 == 1) {
                if let (Some(until), Ok(number)) = (windows.covering(from, to), u32::try_from(number)) {
                    add(Because::Maintenance(number), Some(until));
                }
            }
        }
        if self.rules.grace > 0
            && let Some(version) = self.saved.deployments.latest(service, to)
        {
            let until = version.first.plus(self.rules.grace);
            if from < until {
                add(Because::Deployment, Some(until));
            }
        }
        quiet
    }

    /// Why an anomaly that was not found in a series alone is not told, if so.
    pub(super) fn quiet_about(&self, anomaly: &Anomaly) -> Option<Quiet> {
        let Anomaly { entity, metric, function, window, .. } = anomaly;
        let mutes = self.saved.mutes.of(entity, metric, function);
        let applied = Applied { mutes, ..self.rules.holding(entity, metric, function) };
        self.quiet(Some(&applied), &entity.service, window.start, window.end)
    }

    /// How findings are held back.
    pub(super) fn hold(&self, quiet: &Quiet) -> Hold {
        match quiet.because {
            Because::Maintenance(n) if !self.rules.maintenance.get(n as usize).is_some_and(|(entry, _)| entry.learn) => {
                Hold::Unlearnt
            }
            _ => Hold::Quiet,
        }
    }

    /// What the series is judged with.
    pub(super) fn parameters(&self, applied: Option<&Applied>, quiet: Option<&Quiet>, base: &Parameters) -> Parameters {
        let parameters = applied.map_or(*base, |applied| applied.parameters);
        Parameters { hold: quiet.map_or(Hold::No, |quiet| self.hold(quiet)), ..parameters }
    }

    /// Why a series is held back, in a sentence.
    pub(super) fn words(&self, quiet: &Quiet, service: &str) -> String {
        let until = quiet.until.map_or_else(|| "for good".to_owned(), |until| format!("until {}", until.rfc3339()));
        let because = |reason: &Option<String>| reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        match quiet.because {
            Because::Rule(n) => {
                let reason = self.rules.rules.get(n as usize).map_or_else(String::new, |(rule, _)| because(&rule.reason));
                format!("muted by rule {} of the configuration, {until}{reason}", n + 1)
            }
            Because::Mute(id) => {
                let mute = self.saved.mutes.all().iter().find(|mute| mute.id == id);
                format!("muted by mute {id}, {until}{}", mute.map_or_else(String::new, |mute| because(&mute.reason)))
            }
            Because::Maintenance(n) => {
                let name = self.rules.maintenance.get(n as usize).and_then(|(entry, _)| entry.name.clone());
                let name = name.map_or_else(|| format!("maintenance {}", n + 1), |name| format!("maintenance `{name}`"));
                format!("{name}, {until}")
            }
            Because::Deployment => {
                let version = quiet.until.and_then(|until| self.saved.deployments.latest(service, until));
                let version = version.map_or("a new version", |version| version.name.as_str());
                format!("{service} {version} was deployed, {until}")
            }
        }
    }

    /// Says what was deployed shortly before an anomaly.
    pub(super) fn annotate(&self, anomaly: &mut Anomaly) {
        let service = &anomaly.entity.service;
        let Some(version) = self.saved.deployments.latest(service, anomaly.window.end) else { return };
        let after = anomaly.window.end.0.saturating_sub(version.first.0);
        if after > AFTER {
            return;
        }
        let text =
            format!("{} after {service} {} was first seen", quantity((after / UnixNanos::SECOND) as f64, "s"), version.name);
        anomaly.reasons.push(Reason { component: "deployment".to_owned(), surprise: 0.0, share: 0.0, text });
    }
}
