//! Starts the environments of a set of plans, and drains them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::live::Live;
use super::tasks::Drained;
use super::{Factory, Listeners, Make, Plan, ReceiverInstance, Services, StartError};
use crate::model::Environment;

/// A running set of environments.
pub struct Running {
    /// Each with its tasks.
    pub(super) environments: Vec<Live>,
    /// What listens for several of them, by type.
    listeners: Vec<(&'static str, Box<dyn Listeners>)>,
    pub(super) services: Services,
}

/// Starts all of `plans`.
///
/// # Errors
/// The first component that could not be made or could not take its outside resources.
pub async fn start(plans: &[Plan], services: Services) -> Result<Running, StartError> {
    let mut running = Running { environments: Vec::new(), listeners: Vec::new(), services };
    running.environments = start_all(plans, &running.services).await?;
    // Only when every port is bound does any receiver begin.
    running.prepare(plans).await?;
    running.serve(Vec::new()).await?;
    running.environments.iter_mut().for_each(Live::run);
    Ok(running)
}

/// Starts everything of `plans` but the receivers, each on its own; all of them, or none.
pub(super) async fn start_all(plans: &[Plan], services: &Services) -> Result<Vec<Live>, StartError> {
    let starting = plans.iter().map(|plan| Live::start(plan.clone(), services.clone()));
    let (mut started, mut failed) = (Vec::new(), None);
    for result in join_all(starting).await {
        match result {
            Ok(live) => started.push(live),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let Some(error) = failed else { return Ok(started) };
    join_all(started.iter_mut().map(Live::discard)).await;
    Err(error)
}

impl Running {
    /// Takes the ports that `plans` need beyond those that are there.
    pub(super) async fn prepare(&mut self, plans: &[Plan]) -> Result<(), StartError> {
        let all = plans.iter().flat_map(|plan| Live::candidates(plan, &self.services));
        for (listeners, instances) in by_kind(&mut self.listeners, &all.collect::<Vec<_>>()) {
            listeners.prepare(&instances).await?;
        }
        Ok(())
    }

    /// Listens for all that run and for `more`, and for nobody else.
    pub(super) async fn serve(&mut self, more: Vec<(Factory, ReceiverInstance)>) -> Result<(), StartError> {
        let all = [listening(&self.environments), more].concat();
        for (listeners, instances) in by_kind(&mut self.listeners, &all) {
            listeners.serve(instances).await?;
        }
        Ok(())
    }

    /// Has what is sent to these environments refused for now, and drains them. They stay where they are.
    pub(super) async fn drain(&mut self, leaving: &BTreeSet<Environment>, deadline: Duration) -> Vec<(Environment, Drained)> {
        for (_, listeners) in &mut self.listeners {
            listeners.pause(leaving);
        }
        let draining = self.environments.iter_mut().filter(|live| leaving.contains(&live.plan.spec.environment));
        let mut draining: Vec<&mut Live> = draining.collect();
        draining.iter_mut().for_each(|live| live.stop());
        let ended = join_all(draining.iter_mut().map(|live| live.ended()));
        if tokio::time::timeout(deadline, ended).await.is_err() {
            tracing::error!(?deadline, "not drained in time: what was still in the pipelines is dropped");
        }
        // Nothing is left to cut off of those that have ended.
        let cut_off = draining.iter_mut().map(|live| async { (live.plan.spec.environment.clone(), live.cut_off().await) });
        join_all(cut_off).await
    }

    /// Waits until all receivers have ended by themselves, and everything that they took in has run through.
    pub async fn ended(&mut self) {
        join_all(self.environments.iter_mut().map(Live::ended)).await;
    }

    /// Stops the receivers, lets everything that was accepted run through, and ends within `deadline`, or at once
    /// when `abort` is cancelled.
    pub async fn shutdown(self, deadline: Duration, abort: &CancellationToken) -> Drained {
        let Self { mut environments, mut listeners, .. } = self;
        environments.iter_mut().for_each(Live::stop);
        let drain = async {
            // In front of those of one environment alone: what waits for an answer is answered first.
            join_all(listeners.iter_mut().map(|(_, listeners)| listeners.stop())).await;
            listeners.clear();
            join_all(environments.iter_mut().map(Live::ended)).await;
        };
        let drained = tokio::select! {
            _ = drain => true,
            () = tokio::time::sleep(deadline) => false,
            () = abort.cancelled() => false,
        };
        if drained {
            return Drained::default();
        }
        drop(listeners);
        let cut_off = join_all(environments.iter_mut().map(Live::cut_off)).await;
        let all = cut_off.into_iter().fold(Drained::default(), Drained::and);
        tracing::error!(
            aborted = all.aborted,
            lost = all.lost,
            ?deadline,
            "not drained in time: what was still in the pipelines is dropped"
        );
        all
    }
}

/// What others listen for, for these environments.
pub(super) fn listening(environments: &[Live]) -> Vec<(Factory, ReceiverInstance)> {
    environments.iter().flat_map(|live| live.shared().iter().cloned()).collect()
}

/// All listeners with those of `instances` that are theirs; makes those that are not there yet.
fn by_kind<'a>(
    listeners: &'a mut Vec<(&'static str, Box<dyn Listeners>)>,
    instances: &[(Factory, ReceiverInstance)],
) -> Vec<(&'a mut Box<dyn Listeners>, Vec<ReceiverInstance>)> {
    for (factory, _) in instances {
        if let (Make::Listeners(make), false) = (factory.make, listeners.iter().any(|(kind, _)| *kind == factory.kind)) {
            listeners.push((factory.kind, make()));
        }
    }
    let of = |kind: &str| {
        let own = instances.iter().filter(|(factory, _)| factory.kind == kind);
        own.map(|(_, instance)| instance.clone()).collect()
    };
    listeners.iter_mut().map(|(kind, listeners)| (listeners, of(kind))).collect()
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
