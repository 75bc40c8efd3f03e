//! The tasks of one environment that runs, and what its components are given.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ComponentError, ComponentId, Context, Health, Services, Status};
use crate::model::Environment;

/// How a drain went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Components that had to be cut off at the deadline.
    pub aborted: usize,
    /// Those of them that may have learnt something which is not saved now: all but receivers and exporters.
    pub unsaved: usize,
    /// Records that were in a component that was cut off, and that nobody else has: they count as dropped (`aborted`).
    pub lost: u64,
}

impl Drained {
    /// Whether everything that was accepted went through, or is kept for the next start.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.unsaved == 0 && self.lost == 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self { aborted: self.aborted + other.aborted, unsaved: self.unsaved + other.unsaved, lost: self.lost + other.lost }
    }
}

/// The tasks of an environment. Letting them go cuts off all of them.
pub(super) struct Tasks {
    environment: Environment,
    pub(super) services: Services,
    /// Tells the receivers to stop.
    pub(super) shutdown: CancellationToken,
    /// Cancels it: what still starts when they are let go must not go on.
    _let_go: DropGuard,
    pub(super) receivers: JoinSet<()>,
    /// Processors and connectors.
    pub(super) inner: JoinSet<()>,
    pub(super) exporters: JoinSet<()>,
}

impl Tasks {
    /// None yet.
    pub(super) fn new(environment: Environment, services: Services) -> Self {
        let shutdown = CancellationToken::new();
        let _let_go = shutdown.clone().drop_guard();
        let (receivers, inner, exporters) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
        Self { environment, services, shutdown, _let_go, receivers, inner, exporters }
    }

    /// What the component `id` is given. It is not in the registry yet.
    pub(super) fn context(&self, id: &ComponentId) -> Context {
        Context {
            environment: self.environment.clone(),
            id: id.clone(),
            counters: Arc::default(),
            health: Health::default(),
            shutdown: self.shutdown.clone(),
            services: self.services.clone(),
        }
    }

    /// Ends what is left of them.
    ///
    /// What an exporter could not deliver is lost here, unless somebody keeps it: who does so (an outbox on disk)
    /// lets the exporter end its flights as refused, and then it does not count as lost.
    pub(super) async fn cut_off(&mut self) -> Drained {
        let before = self.dropped();
        let mut drained = Drained::default();
        for (tasks, learns) in [(&mut self.receivers, false), (&mut self.inner, true), (&mut self.exporters, false)] {
            while tasks.try_join_next().is_some() {}
            drained.aborted += tasks.len();
            drained.unsaved += if learns { tasks.len() } else { 0 };
            tasks.shutdown().await;
        }
        drained.lost = self.dropped().saturating_sub(before);
        drained
    }

    /// Records that were cut off so far.
    fn dropped(&self) -> u64 {
        let counts = self.services.registry.of(&self.environment);
        let all = counts.iter().flat_map(|component| component.counters.snapshot());
        all.map(|(_, counts)| counts.dropped.get("aborted").copied().unwrap_or_default()).sum()
    }
}

/// Runs a component to its end and tells how it ended.
pub(super) async fn supervise(context: Context, run: impl Future<Output = Result<(), ComponentError>>) {
    match run.await {
        Ok(()) => context.health.set(Status::Stopped),
        Err(error) => {
            tracing::error!(environment = %context.environment, component = %context.id, %error, "component ended");
            context.health.set(Status::PermanentError(error.to_string()));
        }
    }
}
