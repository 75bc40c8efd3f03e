//! One environment that runs: its tasks, and how it starts, drains and is cut off, whatever the others do.

use std::time::Duration;

use super::build::{Built, Made, build};
use super::tasks::{Drained, Tasks, supervise};
use super::{
    Class, ComponentError, Context, Factory, Health, Instance, Make, Outputs, Plan, Receiver, ReceiverInstance, Registry,
    Services, StartError, Status,
};
use crate::model::Environment;

/// How long an environment may take to end that has taken nothing in.
const DISCARD: Duration = Duration::from_secs(10);

/// How long the threads of a connector that was cut off may take to end.
const ENDING: Duration = Duration::from_secs(30);

/// An environment and its tasks. Letting it go cuts off all of them.
pub(super) struct Live {
    pub(super) plan: Plan,
    tasks: Tasks,
    /// Its receivers that listen together with those of others.
    shared: Vec<(Factory, ReceiverInstance)>,
    /// Those of them that were told to stop.
    stopping: Vec<Health>,
    /// Its other receivers, while they wait to be run.
    ready: Vec<(Context, Box<dyn Receiver>)>,
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
        let tasks = Tasks::new(plan.spec.environment.clone(), services);
        Self { plan, tasks, shared: Vec::new(), stopping: Vec::new(), ready: Vec::new() }
    }

    async fn begin(&mut self) -> Result<(), StartError> {
        alone(&self.tasks.services.registry, &self.plan.spec.environment).await?;
        let Built { connectors, receivers } = build(&self.plan, &mut self.tasks)?;
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
            self.tasks.inner.spawn(supervise(context, connector.run(input, output)));
        }
        Ok(())
    }

    /// The receivers of `plan` that would listen together with those of others; their outputs are not there yet.
    pub(super) fn candidates(plan: &Plan, services: &Services) -> Vec<(Factory, ReceiverInstance)> {
        let live = Self::new(plan.clone(), services.clone());
        let used = plan.used.iter().filter(|used| matches!(used.factory.make, Make::Listeners(_)));
        used.map(|used| {
            let instance = Instance { config: used.config.clone(), context: live.tasks.context(&used.id) };
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
            self.tasks.receivers.spawn(supervise(context, receiver.run()));
        }
        for (_, instance) in &self.shared {
            let health = &instance.instance.context.health;
            // It may have something else to tell already.
            if health.get() == Status::Starting {
                health.set(Status::Ok);
            }
        }
        self.tasks.services.registry.history(&self.plan.spec.environment).seal();
    }

    /// Tells its receivers to stop. Those that listen together with others are told by whoever runs them.
    pub(super) fn stop(&mut self) {
        for component in self.tasks.services.registry.of(&self.plan.spec.environment) {
            component.health.set(Status::Stopping);
        }
        self.tasks.shutdown.cancel();
        // They hold the beginnings of the pipelines.
        self.ready.clear();
        self.stopping.extend(self.shared.drain(..).map(|(_, instance)| instance.instance.context.health));
    }

    /// Waits until all of its tasks have ended. May be given up at any time, and waited for again.
    ///
    /// When the receivers are gone their queues end, so the pipelines behind them do, and so on.
    pub(super) async fn ended(&mut self) {
        while self.tasks.receivers.join_next().await.is_some() {}
        for health in self.stopping.drain(..).filter(|health| health.get() == Status::Stopping) {
            health.set(Status::Stopped);
        }
        while self.tasks.inner.join_next().await.is_some() {}
        while self.tasks.exporters.join_next().await.is_some() {}
    }

    /// Ends it before it was ever run.
    pub(super) async fn discard(&mut self) {
        self.stop();
        if tokio::time::timeout(DISCARD, self.ended()).await.is_err() {
            self.cut_off().await;
        }
    }

    /// Ends what is left of it.
    pub(super) async fn cut_off(&mut self) -> Drained {
        self.ready.clear();
        self.shared.clear();
        self.tasks.cut_off().await
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
