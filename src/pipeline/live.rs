//! One environment that runs: its tasks, and how it starts, drains and is cut off, whatever the others do.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::build::{Built, Made, build};
use super::{
    Class, ComponentError, ComponentId, Context, Factory, Health, Instance, Make, Outputs, Plan, Receiver, ReceiverInstance,
    Registry, Services, StartError, Status,
};
use crate::model::Environment;

/// How long an environment may take to end that has taken nothing in.
const DISCARD: Duration = Duration::from_secs(10);

/// How long the threads of a connector that was cut off may take to end.
const ENDING: Duration = Duration::from_secs(30);

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

/// An environment and its tasks. Letting it go cuts off all of them.
pub(super) struct Live {
    pub(super) plan: Plan,
    pub(super) services: Services,
    shutdown: CancellationToken,
    /// Cancels it: what still starts when it is let go must not go on.
    _let_go: DropGuard,
    /// Its receivers that listen together with those of others.
    shared: Vec<(Factory, ReceiverInstance)>,
    /// Those of them that were told to stop.
    stopping: Vec<Health>,
    /// Its other receivers, while they wait to be run.
    ready: Vec<(Context, Box<dyn Receiver>)>,
    receivers: JoinSet<()>,
    /// Processors and connectors.
    pub(super) inner: JoinSet<()>,
    pub(super) exporters: JoinSet<()>,
}

impl Live {
    /// Makes and starts everything of `plan` but the receivers, which wait for [`Live::run`].
    ///
    /// # Errors
    /// The first component that could not be made or could not take its outside resources. Nothing is left running.
    pub(super) async fn start(plan: Plan, services: Services) -> Result<Self, StartError> {
        let mut live = Self::new(plan, services);
        match live.begin().await {
            Ok(()) => Ok(live),
            Err(error) => {
                live.cut_off().await;
                Err(error)
            }
        }
    }

    fn new(plan: Plan, services: Services) -> Self {
        let shutdown = CancellationToken::new();
        Self {
            plan,
            services,
            _let_go: shutdown.clone().drop_guard(),
            shutdown,
            shared: Vec::new(),
            stopping: Vec::new(),
            ready: Vec::new(),
            receivers: JoinSet::new(),
            inner: JoinSet::new(),
            exporters: JoinSet::new(),
        }
    }

    async fn begin(&mut self) -> Result<(), StartError> {
        alone(&self.services.registry, &self.plan.spec.environment).await?;
        let plan = self.plan.clone();
        let Built { connectors, receivers } = build(&plan, self)?;
        self.start_connectors(connectors).await?;
        for (factory, instance) in receivers {
            let context = instance.instance.context.clone();
            let failed = |error: ComponentError| {
                context.health.set(Status::PermanentError(error.to_string()));
                StartError::new(&context.environment, Class::Receiver, &context.id, error)
            };
            match factory.make {
                Make::Receiver(make) => {
                    let mut receiver = make(instance).map_err(failed)?;
                    receiver.start().await.map_err(failed)?;
                    self.ready.push((context, receiver));
                }
                _ => self.shared.push((factory, instance)),
            }
        }
        Ok(())
    }

    /// Lets all connectors take up what they kept, and then run.
    async fn start_connectors(&mut self, connectors: Vec<Made>) -> Result<(), StartError> {
        let starting = connectors.into_iter().map(|mut made| async move {
            let started = made.connector.start().await;
            (made, started)
        });
        for (Made { context, connector, input, output }, started) in futures::future::join_all(starting).await {
            if let Err(error) = started {
                context.health.set(Status::PermanentError(error.to_string()));
                return Err(StartError::new(&context.environment, Class::Connector, &context.id, error));
            }
            context.health.set(Status::Ok);
            self.inner.spawn(supervise(context, connector.run(input, output)));
        }
        Ok(())
    }

    /// What the component `id` is given. It is not in the registry yet.
    pub(super) fn context(&self, id: &ComponentId) -> Context {
        Context {
            environment: self.plan.spec.environment.clone(),
            id: id.clone(),
            counters: Arc::default(),
            health: Health::default(),
            shutdown: self.shutdown.clone(),
            services: self.services.clone(),
        }
    }

    /// The receivers of `plan` that would listen together with those of others; their outputs are not there yet.
    pub(super) fn candidates(plan: &Plan, services: &Services) -> Vec<(Factory, ReceiverInstance)> {
        let live = Self::new(plan.clone(), services.clone());
        let used = plan.used.iter().filter(|used| matches!(used.factory.make, Make::Listeners(_)));
        used.map(|used| {
            let instance = Instance { config: used.config.clone(), context: live.context(&used.id) };
            let default_environment = plan.spec.default;
            (used.factory, ReceiverInstance { instance, default_environment, outputs: Outputs::default() })
        })
        .collect()
    }

    /// The receivers that listen together with those of others.
    pub(super) fn shared(&self) -> &[(Factory, ReceiverInstance)] {
        &self.shared
    }

    /// Lets the receivers run.
    pub(super) fn run(&mut self) {
        for (context, receiver) in self.ready.drain(..) {
            context.health.set(Status::Ok);
            self.receivers.spawn(supervise(context, receiver.run()));
        }
        for (_, instance) in &self.shared {
            let health = &instance.instance.context.health;
            // It may have something else to tell already.
            if health.get() == Status::Starting {
                health.set(Status::Ok);
            }
        }
        self.services.registry.history(&self.plan.spec.environment).seal();
    }

    /// Tells its receivers to stop. Those that listen together with others are told by whoever runs them.
    pub(super) fn stop(&mut self) {
        for component in self.services.registry.of(&self.plan.spec.environment) {
            component.health.set(Status::Stopping);
        }
        self.shutdown.cancel();
        // They hold the beginnings of the pipelines.
        self.ready.clear();
        self.stopping.extend(self.shared.drain(..).map(|(_, instance)| instance.instance.context.health));
    }

    /// Waits until all of its tasks have ended. May be given up at any time, and waited for again.
    ///
    /// When the receivers are gone their queues end, so the pipelines behind them do, and so on.
    pub(super) async fn ended(&mut self) {
        while self.receivers.join_next().await.is_some() {}
        for health in self.stopping.drain(..).filter(|health| health.get() == Status::Stopping) {
            health.set(Status::Stopped);
        }
        while self.inner.join_next().await.is_some() {}
        while self.exporters.join_next().await.is_some() {}
    }

    /// Ends it before it was ever run.
    pub(super) async fn discard(&mut self) {
        self.stop();
        if tokio::time::timeout(DISCARD, self.ended()).await.is_err() {
            self.cut_off().await;
        }
    }

    /// Ends what is left of it.
    ///
    /// What an exporter could not deliver is lost here, unless somebody keeps it: who does so (an outbox on disk)
    /// lets the exporter end its flights as refused, and then it does not count as lost.
    pub(super) async fn cut_off(&mut self) -> Drained {
        self.ready.clear();
        self.shared.clear();
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
        let counts = self.services.registry.of(&self.plan.spec.environment);
        let all = counts.iter().flat_map(|component| component.counters.snapshot());
        all.map(|(_, counts)| counts.dropped.get("aborted").copied().unwrap_or_default()).sum()
    }
}

/// Waits until nothing runs any more of what the environment was before: a thread of a connector that was cut off
/// may have something to write, and two must never write the same files.
async fn alone(registry: &Registry, environment: &Environment) -> Result<(), StartError> {
    let begin = tokio::time::Instant::now();
    while registry.is_ending(environment) {
        if begin.elapsed() > ENDING {
            let message = format!("what it was before has not ended within {ENDING:?}: is the disk slow? reload again later");
            let component = "connectors".to_owned();
            return Err(StartError { environment: environment.to_string(), component, error: ComponentError(message) });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
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
