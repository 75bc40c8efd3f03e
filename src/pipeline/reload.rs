//! A changed configuration, applied by difference while the daemon runs.
//!
//! The unit of change is the environment. One whose plan is the same is not touched: same tasks, queues, connections and
//! counters. All or nothing: what cannot be had is found before anything is stopped where that is possible; where it is
//! not, what was stopped is started again as it was.
//!
//! A reload may be given up at any point (the daemon is told to stop): what runs then is drained as always.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::live::Live;
use super::run::{listening, start_all};
use super::tasks::Drained;
use super::{Difference, Plan, Running, StartError};
use crate::model::Environment;

/// What a reload did with one environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: its plan is the same.
    Unchanged,
    /// It was not there before.
    Started,
    /// It was drained and started with its new plan.
    Restarted(Difference, Drained),
    /// It is not there any more.
    Ended(Drained),
}

/// Why a reload was not applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadError {
    /// What could not be had.
    pub why: StartError,
    /// Environments that had been stopped already, and run again as before.
    pub restarted: Vec<Environment>,
    /// What kept those that had been stopped from being started again: they do not run.
    pub not_restarted: Vec<StartError>,
}

impl fmt::Display for ReloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.why)?;
        if let Some((first, more)) = self.restarted.split_first() {
            write!(f, "; stopped and started again as before: {first}")?;
            more.iter().try_for_each(|environment| write!(f, ", {environment}"))?;
        }
        self.not_restarted.iter().try_for_each(|error| write!(f, "; it could not be started again as before: {error}"))
    }
}

impl std::error::Error for ReloadError {}

impl From<StartError> for ReloadError {
    fn from(why: StartError) -> Self {
        Self { why, restarted: Vec::new(), not_restarted: Vec::new() }
    }
}

/// What a set of plans asks for.
struct Steps {
    changes: Vec<(Environment, Change)>,
    /// Environments that are not there yet.
    fresh: Vec<Plan>,
    /// Those that are there, with another plan.
    changed: Vec<Plan>,
    /// Those that must be drained: changed, or not there any more.
    leaving: BTreeSet<Environment>,
}

impl Running {
    /// Runs `plans` in place of those before. What has to stop for it may drain for `deadline`.
    ///
    /// # Errors
    /// What could not be had. Everything is as it was then, unless the error says otherwise.
    pub async fn reload(&mut self, plans: &[Plan], deadline: Duration) -> Result<Vec<(Environment, Change)>, ReloadError> {
        let Steps { mut changes, fresh, changed, leaving } = self.steps(plans);
        if fresh.is_empty() && leaving.is_empty() {
            return Ok(changes);
        }
        let mut started = self.begin(plans, &fresh).await?;
        let drained = self.drain(&leaving, deadline).await;
        let before = self.take_out(&leaving);
        if let Err(why) = self.take_in(&changed, &mut started).await {
            return Err(self.restore(why, started, &before).await);
        }
        self.run(started);
        let place = |live: &Live| plans.iter().position(|plan| plan.spec.environment == live.plan.spec.environment);
        self.environments.sort_by_key(place);
        for (environment, how) in drained {
            if let Some((_, Change::Restarted(_, drained) | Change::Ended(drained))) =
                changes.iter_mut().find(|(name, _)| *name == environment)
            {
                *drained = how;
            }
        }
        Ok(changes)
    }

    fn steps(&self, plans: &[Plan]) -> Steps {
        let mut steps = Steps { changes: Vec::new(), fresh: Vec::new(), changed: Vec::new(), leaving: BTreeSet::new() };
        let name = |plan: &Plan| plan.spec.environment.clone();
        for plan in plans {
            let before = self.environments.iter().find(|live| live.plan.spec.environment == plan.spec.environment);
            let change = match before.map(|live| Difference::of(&live.plan, plan)) {
                None => {
                    steps.fresh.push(plan.clone());
                    Change::Started
                }
                Some(difference) if difference.is_empty() => Change::Unchanged,
                Some(difference) => {
                    steps.changed.push(plan.clone());
                    steps.leaving.insert(name(plan));
                    Change::Restarted(difference, Drained::default())
                }
            };
            steps.changes.push((name(plan), change));
        }
        for gone in self.environments.iter().map(|live| name(&live.plan)) {
            if !plans.iter().any(|plan| plan.spec.environment == gone) {
                steps.leaving.insert(gone.clone());
                steps.changes.push((gone, Change::Ended(Drained::default())));
            }
        }
        steps
    }

    /// Takes the ports, and starts what is not there yet: all that can be had before anything is stopped.
    async fn begin(&mut self, plans: &[Plan], fresh: &[Plan]) -> Result<Vec<Live>, StartError> {
        self.prepare(plans).await?;
        // What a start that failed has left behind.
        self.forget(fresh);
        let why = match start_all(fresh, &self.services).await {
            Ok(started) => return Ok(started),
            Err(why) => why,
        };
        self.forget(fresh);
        // Gives the ports back.
        let before: Vec<Plan> = self.environments.iter().map(|live| live.plan.clone()).collect();
        self.prepare(&before).await.unwrap_or_else(|error| tracing::error!(%error, "ports"));
        Err(why)
    }

    /// Forgets environments that were drained; their plans.
    fn take_out(&mut self, leaving: &BTreeSet<Environment>) -> Vec<Plan> {
        let all = std::mem::take(&mut self.environments);
        let (gone, stay): (Vec<Live>, Vec<Live>) =
            all.into_iter().partition(|live| leaving.contains(&live.plan.spec.environment));
        self.environments = stay;
        let gone: Vec<Plan> = gone.into_iter().map(|live| live.plan).collect();
        self.forget(&gone);
        gone
    }

    fn forget(&self, plans: &[Plan]) {
        plans.iter().for_each(|plan| self.services.registry.forget(&plan.spec.environment));
    }

    /// Starts the changed environments, and listens for them and those of `started`.
    async fn take_in(&mut self, changed: &[Plan], started: &mut Vec<Live>) -> Result<(), StartError> {
        started.extend(start_all(changed, &self.services).await?);
        self.serve(listening(started)).await
    }

    /// Lets the receivers of `started` run.
    fn run(&mut self, started: Vec<Live>) {
        for mut live in started {
            live.run();
            self.environments.push(live);
        }
    }

    /// Lets go of what was started, and starts what was stopped as it was.
    async fn restore(&mut self, why: StartError, started: Vec<Live>, before: &[Plan]) -> ReloadError {
        for mut live in started {
            live.discard().await;
            self.services.registry.forget(&live.plan.spec.environment);
        }
        self.forget(before);
        let mut error = ReloadError::from(why);
        let mut again = Vec::new();
        for plan in before {
            match start_all(std::slice::from_ref(plan), &self.services).await {
                Ok(started) => again.extend(started),
                Err(failed) => error.not_restarted.push(failed),
            }
        }
        if let Err(failed) = self.serve(listening(&again)).await {
            error.not_restarted.push(failed);
        }
        error.restarted = again.iter().map(|live| live.plan.spec.environment.clone()).collect();
        self.run(again);
        error
    }
}

#[cfg(test)]
#[path = "reload_tests.rs"]
mod tests;
