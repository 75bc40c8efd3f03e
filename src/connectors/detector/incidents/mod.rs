//! Anomalies become incidents: the stage behind the merge, a function of what was found and of nothing else.

mod budget;
mod config;
mod graph;
mod groups;
mod open;
#[cfg(test)]
pub(in crate::connectors::detector) mod tests;
mod title;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(super) use self::budget::floor;
pub use self::budget::{AlertsConfig, Per};
use self::budget::{Budget, Change};
pub use self::config::IncidentsConfig;
use self::graph::Graph;
use self::groups::{Groups, Rule};
use self::open::{Open, Teller};
use super::judged::Unusual;
use super::merge::Found;
use crate::model::{Anomaly, Environment, Findings, Incident, IncidentRef, Severity, UnixNanos};

/// What is configured of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Width of a bucket in nanoseconds.
    pub(super) bucket: u64,
    /// What lies further apart, in nanoseconds, is another incident.
    pub(super) window: u64,
    pub(super) alerts: Option<AlertsConfig>,
    /// The threshold of the shards, to which scores relate.
    pub(super) shards_threshold: f64,
    /// The threshold where there is no budget or too little is known for it.
    pub(super) default_threshold: f64,
}

/// What is handed on for one command.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) findings: Findings,
    /// Anomalies that are less unusual than the budget for alerts allows.
    pub(super) below_budget: u64,
    /// The threshold that follows from the budget is another one now.
    pub(super) threshold: Option<Change>,
}

/// Groups the anomalies of one environment.
#[derive(Debug)]
pub(super) struct Incidents {
    environment: Environment,
    rule: Rule,
    alerts: Option<AlertsConfig>,
    /// The threshold of the shards, to which scores relate.
    shards_threshold: f64,
    /// The threshold where there is no budget or too little is known for it.
    default_threshold: f64,
    state: State,
}

/// What survives a restart.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    groups: Groups,
    open: BTreeMap<u64, Open>,
    graph: Graph,
    /// The hour of event time in which old calls were forgotten last.
    forgot: u64,
    budget: Option<Budget>,
}

impl Incidents {
    pub(super) fn new(environment: &Environment, settings: Settings) -> Self {
        let Settings { bucket, window, alerts, shards_threshold, default_threshold } = settings;
        let rule = Rule { window: window.max(bucket), bucket };
        let budget = alerts.map(|_| Budget::new(default_threshold));
        Self {
            environment: environment.clone(),
            rule,
            alerts,
            shards_threshold,
            default_threshold,
            state: State { budget, ..State::default() },
        }
    }

    /// Goes on with what was saved. A budget that was not wanted then, or with another ladder, begins anew.
    pub(super) fn restore(&mut self, bytes: &[u8]) -> Result<(), postcard::Error> {
        let state: State = postcard::from_bytes(bytes)?;
        let new = std::mem::replace(&mut self.state, state);
        self.state.budget = match (new.budget, self.state.budget.take()) {
            (Some(new), Some(saved)) if new.has_levels_of(&saved) => Some(saved),
            (new, _) => new,
        };
        Ok(())
    }

    /// What survives a restart.
    pub(super) fn save(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&self.state)
    }

    /// How unusual a value must be, by now, to be an anomaly: -log10 of the probability.
    pub(super) fn threshold(&self) -> f64 {
        self.state.budget.as_ref().map_or(self.default_threshold, Budget::threshold)
    }

    /// Incidents that are not over.
    pub(super) fn open(&self) -> usize {
        self.state.open.len()
    }

    /// Takes in what was found for one command.
    pub(super) fn take(&mut self, found: Found) -> Told {
        let Found { mut anomalies, unusual, calls, until, .. } = found;
        let seen = anomalies.last().map(|a| a.window.end).max(until).unwrap_or_default();
        for call in &calls {
            self.state.graph.learn(call, seen);
        }
        let mut told = Told::default();
        let mut unusual = unusual.into_iter().peekable();
        // Bucket by bucket, as if each had come alone.
        let mut numbers: Vec<(Anomaly, u64)> = Vec::with_capacity(anomalies.len());
        let mut rest = anomalies.drain(..).peekable();
        while let Some(start) = rest.peek().map(|a| a.window.start) {
            let mut bucket = Vec::new();
            while let Some(anomaly) = rest.next_if(|a| a.window.start == start) {
                bucket.push(anomaly);
            }
            while let Some(value) = unusual.next_if(|u| u.start < start) {
                self.touch(&value);
            }
            let before = bucket.len();
            let bucket = self.within_budget(bucket);
            told.below_budget += (before - bucket.len()) as u64;
            let places = self.group(&bucket);
            numbers.extend(bucket.into_iter().zip(places));
        }
        unusual.for_each(|value| self.touch(&value));
        self.tell(numbers, &mut told.findings);
        if let Some(until) = until {
            self.advance(until, &mut told);
        }
        told
    }

    fn touch(&mut self, unusual: &Unusual) {
        self.state.groups.touch(&unusual.fingerprint, unusual.start, self.rule);
        if let Some(budget) = &mut self.state.budget {
            budget.touch(unusual, self.rule);
        }
    }

    /// The anomalies of one bucket that are unusual enough for the threshold in force, with scores that relate to it.
    fn within_budget(&mut self, mut bucket: Vec<Anomaly>) -> Vec<Anomaly> {
        let Some(budget) = &mut self.state.budget else { return bucket };
        let surprise = |a: &Anomaly| self.shards_threshold * ratio(a.score);
        let candidates: Vec<(&Anomaly, f64)> = bucket.iter().map(|a| (a, surprise(a))).collect();
        budget.record(&candidates, &self.state.graph, self.rule);
        let threshold = budget.threshold();
        bucket.retain_mut(|anomaly| {
            let ratio = surprise(anomaly) / threshold;
            anomaly.score = score(ratio);
            anomaly.severity = Severity::of(anomaly.score);
            ratio >= 1.0
        });
        bucket
    }

    /// The incidents of the anomalies of one bucket.
    fn group(&mut self, bucket: &[Anomaly]) -> Vec<u64> {
        let all: Vec<&Anomaly> = bucket.iter().collect();
        let places = self.state.groups.assign(&all, &self.state.graph, self.rule);
        let mut parts: BTreeMap<u64, Vec<&Anomaly>> = BTreeMap::new();
        for (anomaly, number) in all.into_iter().zip(&places) {
            parts.entry(*number).or_default().push(anomaly);
        }
        let teller = teller(&self.environment, &self.state.graph, self.rule, 0.0);
        for (number, part) in parts {
            if let Some(open) = self.state.open.get_mut(&number) {
                open.add(&part, &teller);
            } else if let Some(open) = Open::new(&part, &teller) {
                self.state.open.insert(number, open);
            }
        }
        places
    }

    /// Names each anomaly's incident, and tells what is new of the incidents.
    fn tell(&mut self, numbers: Vec<(Anomaly, u64)>, findings: &mut Findings) {
        let mut touched: Vec<u64> = numbers.iter().map(|(_, number)| *number).collect();
        touched.sort_unstable();
        touched.dedup();
        for (mut anomaly, number) in numbers {
            anomaly.incident =
                self.state.open.get(&number).map(|open| IncidentRef { id: open.id.clone(), lead: open.is_about(&anomaly) });
            findings.anomalies.push(anomaly);
        }
        let teller = teller(&self.environment, &self.state.graph, self.rule, self.threshold());
        for number in touched {
            let (Some(open), Some(group)) = (self.state.open.get_mut(&number), self.state.groups.get(number)) else { continue };
            findings.incidents.extend(open.news(group, &teller));
        }
    }

    /// Event time has come to `until`: ends what is over, and derives the threshold anew where it is time for that.
    fn advance(&mut self, until: UnixNanos, told: &mut Told) {
        let threshold = self.threshold();
        let over = self.state.groups.expire(until, self.rule);
        let teller = teller(&self.environment, &self.state.graph, self.rule, threshold);
        let ended = over.iter().filter_map(|group| Some(self.state.open.remove(&group.number)?.over(group, &teller)));
        told.findings.incidents.extend(ended.collect::<Vec<Incident>>());
        let hour = until.secs() / 3600;
        if hour > self.state.forgot {
            self.state.forgot = hour;
            self.state.graph.forget(until);
        }
        if let (Some(budget), Some(alerts)) = (&mut self.state.budget, self.alerts) {
            told.threshold = budget.advance(until, alerts, self.default_threshold, self.rule);
        }
    }
}

fn teller<'a>(environment: &'a Environment, graph: &'a Graph, rule: Rule, threshold: f64) -> Teller<'a> {
    Teller { environment, graph, bucket: rule.bucket, threshold }
}

/// How many times the threshold it relates to a score stands for: 1 at 25, 3 at 75. See `detection`: the score is
/// 100 r² / (r² + 3).
fn ratio(score: f64) -> f64 {
    (3.0 * score / (100.0 - score).max(1e-9)).max(0.0).sqrt()
}

/// The score of a value that is `ratio` times as unusual as the threshold.
fn score(ratio: f64) -> f64 {
    100.0 * ratio * ratio / (ratio * ratio + 3.0)
}
