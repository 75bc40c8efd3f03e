//! Starts a set of plans, consumers first, and drains it, receivers first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::edge::payload_kind;
use super::graph::Used;
use super::spec::PipelineKind;
use super::{
    Class, ComponentError, ComponentId, ComponentInfo, Connector, Context, Counters, Delivery, Edge, Health, Input, Instance,
    Make, Output, Outputs, Plan, Processor, Receiver, ReceiverInstance, Services, Status,
};
use crate::model::{Environment, Signal};

/// Why the daemon could not start. Nothing is left running.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment `{environment}`, {component}: {error}")]
pub struct StartError {
    /// Where.
    pub environment: String,
    /// Class and id.
    pub component: String,
    /// What.
    pub error: ComponentError,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Components that had to be cut off at the deadline; what they had counts as dropped (`aborted`).
    pub aborted: usize,
}

/// A running set of pipelines.
pub struct Running {
    receivers: JoinSet<()>,
    consumers: JoinSet<()>,
    shutdown: CancellationToken,
    services: Services,
}

/// Starts all of `plans`.
///
/// # Errors
/// The first component that could not be made or could not take its outside resources.
pub async fn start(plans: &[Plan], services: Services) -> Result<Running, StartError> {
    let mut running = Running {
        receivers: JoinSet::new(),
        consumers: JoinSet::new(),
        shutdown: CancellationToken::new(),
        services: services.clone(),
    };
    let mut listeners: Vec<(&'static str, super::component::Factory, Vec<ReceiverInstance>)> = Vec::new();
    let mut connectors = Vec::new();
    for plan in plans {
        let (edges, entries) = (HashMap::new(), HashMap::new());
        let mut build = Build { plan, running: &mut running, connectors: &mut connectors, edges, entries };
        build.exporters()?;
        build.connectors()?;
        build.pipelines()?;
        for (factory, instance) in build.receivers() {
            match listeners.iter_mut().find(|(kind, ..)| *kind == factory.kind) {
                Some((.., instances)) => instances.push(instance),
                None => listeners.push((factory.kind, factory, vec![instance])),
            }
        }
    }
    running.start_connectors(connectors).await?;
    running.start_receivers(listeners).await?;
    for plan in plans {
        running.services.registry.history(&plan.spec.environment).seal();
    }
    Ok(running)
}

/// A connector that was made, and where it stands in the graph.
struct Made {
    context: Context,
    connector: Box<dyn Connector>,
    input: Input,
    output: Output,
}

struct Build<'a> {
    plan: &'a Plan,
    running: &'a mut Running,
    connectors: &'a mut Vec<Made>,
    /// The queues in front of exporters and connectors.
    edges: HashMap<(Class, ComponentId), Edge>,
    /// The queues at the beginning of the pipelines that run.
    entries: HashMap<String, Vec<Edge>>,
}

impl Build<'_> {
    fn error(&self, used: &Used, error: ComponentError) -> StartError {
        start_error(&self.plan.spec.environment, used.factory.class(), &used.id, error)
    }

    fn context(&self, class: Class, id: &ComponentId, pipeline: Option<&str>) -> Context {
        let context = Context {
            environment: self.plan.spec.environment.clone(),
            id: id.clone(),
            counters: Arc::default(),
            health: Health::default(),
            shutdown: self.running.shutdown.clone(),
            services: self.running.services.clone(),
        };
        self.running.services.registry.add(ComponentInfo {
            environment: context.environment.clone(),
            class,
            id: id.clone(),
            pipeline: pipeline.map(str::to_owned),
            counters: Arc::clone(&context.counters),
            health: context.health.clone(),
        });
        context
    }

    fn exporters(&mut self) -> Result<(), StartError> {
        for used in self.plan.used.iter().filter(|u| u.factory.class() == Class::Exporter) {
            let Make::Exporter(make) = used.factory.make else { continue };
            let context = self.context(Class::Exporter, &used.id, None);
            let (edge, input) = Input::queue(self.running.services.queue_capacity, Arc::clone(&context.counters));
            let health = context.health.clone();
            let exporter =
                make(Instance { config: used.config.clone(), context: context.clone() }).map_err(|e| self.error(used, e))?;
            health.set(Status::Ok);
            self.running.consumers.spawn(supervise(context, exporter.run(input)));
            self.edges.insert((Class::Exporter, used.id.clone()), edge.named(&used.id.to_string()));
        }
        Ok(())
    }

    /// Connectors are made after the exporters; one that feeds another is made after it.
    fn connectors(&mut self) -> Result<(), StartError> {
        let mut todo: Vec<&Used> = self.plan.used.iter().filter(|u| u.factory.class() == Class::Connector).collect();
        while !todo.is_empty() {
            let ready = todo.iter().position(|used| self.begun_by(&used.id).iter().all(|name| self.targets(name).is_some()));
            // The plan has no cycles, so one is always ready; the first is as good as any if not.
            let used = todo.remove(ready.unwrap_or(0));
            let Make::Connector(make) = used.factory.make else { continue };
            let context = self.context(Class::Connector, &used.id, None);
            let (edge, input) = Input::queue(self.running.services.queue_capacity, Arc::clone(&context.counters));
            let mut targets = Vec::new();
            for pipeline in self.begun_by(&used.id) {
                targets.extend(self.entry(&pipeline)?);
            }
            let connector =
                make(Instance { config: used.config.clone(), context: context.clone() }).map_err(|e| self.error(used, e))?;
            self.connectors.push(Made { context, connector, input, output: Output::new(targets) });
            self.edges.insert((Class::Connector, used.id.clone()), edge.named(&used.id.to_string()));
        }
        Ok(())
    }

    /// The pipelines that `id` begins.
    fn begun_by(&self, id: &ComponentId) -> Vec<String> {
        let begun = self.plan.spec.pipelines.iter().filter(|(_, p)| p.receivers.contains(id));
        begun.map(|(name, _)| name.clone()).collect()
    }

    /// The queues at the end of a pipeline, if all of them exist yet.
    fn targets(&self, pipeline: &str) -> Option<Vec<Edge>> {
        let spec = self.plan.spec.pipelines.get(pipeline)?;
        spec.exporters
            .iter()
            .map(|id| [Class::Exporter, Class::Connector].iter().find_map(|&c| self.edges.get(&(c, id.clone()))).cloned())
            .collect()
    }

    /// The queue or queues at the beginning of a pipeline; starts the task of its processors if it has any.
    fn entry(&mut self, pipeline: &str) -> Result<Vec<Edge>, StartError> {
        if let Some(entry) = self.entries.get(pipeline) {
            return Ok(entry.clone());
        }
        let targets = self.targets(pipeline).unwrap_or_default();
        let Some(spec) = self.plan.spec.pipelines.get(pipeline) else { return Ok(targets) };
        let mut stages = Vec::new();
        for id in &spec.processors {
            let Some(used) = self.plan.find(Class::Processor, id) else { continue };
            let Make::Processor(make) = used.factory.make else { continue };
            let context = self.context(Class::Processor, id, Some(pipeline));
            context.health.set(Status::Ok);
            let counters = Arc::clone(&context.counters);
            let processor = make(Instance { config: used.config.clone(), context }).map_err(|e| self.error(used, e))?;
            stages.push(Stage { processor, counters });
        }
        let Some(first) = stages.first() else {
            self.entries.insert(pipeline.to_owned(), targets.clone());
            return Ok(targets);
        };
        let (edge, input) = Input::queue(self.running.services.queue_capacity, Arc::clone(&first.counters));
        let edge = edge.named(pipeline);
        self.running.consumers.spawn(run_stages(pipeline.to_owned(), input, stages, Output::new(targets)));
        self.entries.insert(pipeline.to_owned(), vec![edge.clone()]);
        Ok(vec![edge])
    }

    /// Starts all pipelines that begin with receivers.
    fn pipelines(&mut self) -> Result<(), StartError> {
        let plan = self.plan;
        let begun_by_receivers = |p: &super::PipelineSpec| p.receivers.iter().any(|id| plan.find(Class::Receiver, id).is_some());
        for (name, _) in plan.spec.pipelines.iter().filter(|(_, p)| begun_by_receivers(p)) {
            self.entry(name)?;
        }
        Ok(())
    }

    fn receivers(&self) -> Vec<(super::Factory, ReceiverInstance)> {
        let used = self.plan.used.iter().filter(|u| u.factory.class() == Class::Receiver);
        used.map(|used| {
            let output = |signal: Signal| {
                let of_signal = self.plan.spec.pipelines.iter().filter(|(name, p)| {
                    PipelineKind::of(name) == Some(PipelineKind::Signal(signal)) && p.receivers.contains(&used.id)
                });
                Output::new(of_signal.filter_map(|(name, _)| self.entries.get(name)).flatten().cloned().collect())
            };
            let instance = ReceiverInstance {
                instance: Instance { config: used.config.clone(), context: self.context(Class::Receiver, &used.id, None) },
                default_environment: self.plan.spec.default,
                outputs: Outputs { traces: output(Signal::Traces), metrics: output(Signal::Metrics), logs: output(Signal::Logs) },
            };
            (used.factory, instance)
        })
        .collect()
    }
}

impl Running {
    /// Lets all connectors take up what they kept, and then run.
    async fn start_connectors(&mut self, connectors: Vec<Made>) -> Result<(), StartError> {
        let starting = connectors.into_iter().map(|mut made| async move {
            let started = made.connector.start().await;
            (made, started)
        });
        for (Made { context, connector, input, output }, started) in futures::future::join_all(starting).await {
            started.map_err(|e| start_error(&context.environment, Class::Connector, &context.id, e))?;
            context.health.set(Status::Ok);
            self.consumers.spawn(supervise(context, connector.run(input, output)));
        }
        Ok(())
    }

    async fn start_receivers(
        &mut self,
        listeners: Vec<(&'static str, super::component::Factory, Vec<ReceiverInstance>)>,
    ) -> Result<(), StartError> {
        let mut ready: Vec<(Vec<Context>, Box<dyn Receiver>)> = Vec::new();
        for (kind, factory, instances) in listeners {
            let Make::Receivers(make) = factory.make else { continue };
            let contexts: Vec<Context> = instances.iter().map(|i| i.instance.context.clone()).collect();
            let fail = |error| match contexts.first() {
                Some(c) => start_error(&c.environment, Class::Receiver, &c.id, error),
                None => StartError { environment: String::new(), component: kind.to_owned(), error },
            };
            for mut receiver in make(instances).map_err(&fail)? {
                receiver.start().await.map_err(&fail)?;
                ready.push((contexts.clone(), receiver));
            }
        }
        // Only when every port is bound does any of them begin.
        for (contexts, receiver) in ready {
            for context in &contexts {
                context.health.set(Status::Ok);
            }
            self.receivers.spawn(async move {
                let result = receiver.run().await;
                for context in &contexts {
                    finished(context, &result);
                }
            });
        }
        Ok(())
    }

    /// Waits until all receivers have ended by themselves, and everything that they took in has run through.
    pub async fn ended(&mut self) {
        while self.receivers.join_next().await.is_some() {}
        while self.consumers.join_next().await.is_some() {}
    }

    /// Stops the receivers, lets everything that was accepted run through, and ends within `deadline`, or at once
    /// when `abort` is cancelled.
    pub async fn shutdown(mut self, deadline: Duration, abort: &CancellationToken) -> Drained {
        for component in self.services.registry.all() {
            component.health.set(Status::Stopping);
        }
        self.shutdown.cancel();
        let drain = async {
            // When the receivers are gone their queues end, so the pipelines behind them do, and so on.
            while self.receivers.join_next().await.is_some() {}
            while self.consumers.join_next().await.is_some() {}
        };
        let drained = tokio::select! {
            () = drain => true,
            () = tokio::time::sleep(deadline) => false,
            () = abort.cancelled() => false,
        };
        if drained {
            return Drained { aborted: 0 };
        }
        let aborted = self.receivers.len() + self.consumers.len();
        tracing::error!(aborted, deadline = ?deadline, "not drained in time: what was still in the pipelines is dropped");
        self.receivers.shutdown().await;
        self.consumers.shutdown().await;
        Drained { aborted }
    }
}

fn start_error(environment: &Environment, class: Class, id: &ComponentId, error: ComponentError) -> StartError {
    StartError { environment: environment.to_string(), component: format!("{} `{id}`", class.as_str()), error }
}

/// Runs a consumer to its end and tells how it ended.
async fn supervise(context: Context, run: impl Future<Output = Result<(), ComponentError>>) {
    let result = run.await;
    finished(&context, &result);
}

fn finished(context: &Context, result: &Result<(), ComponentError>) {
    match result {
        Ok(()) => context.health.set(Status::Stopped),
        Err(error) => {
            tracing::error!(environment = %context.environment, component = %context.id, %error, "component ended");
            context.health.set(Status::PermanentError(error.to_string()));
        }
    }
}

struct Stage {
    processor: Box<dyn Processor>,
    counters: Arc<Counters>,
}

/// Runs the processors of `pipeline`, one after the other in one task.
async fn run_stages(pipeline: String, mut input: Input, mut stages: Vec<Stage>, output: Output) {
    while let Some(Delivery { payload, mut flight, mut origin }) = input.recv().await {
        // The payload is safe when what becomes of it is.
        let receipt = flight.receipt();
        origin.id = origin.id.map(|id| id.through(&pipeline));
        let mut payload = Some(payload);
        let mut flight = Some(flight);
        let mut flights = Vec::with_capacity(stages.len());
        for stage in &mut stages {
            let Some(incoming) = payload.take() else { break };
            // The first stage's account was opened when the payload entered the queue.
            let mut account = flight.take().unwrap_or_else(|| stage.counters.begin(payload_kind(&incoming), incoming.len()));
            let processed = stage.processor.process(incoming);
            for (reason, items) in processed.dropped {
                account.dropped(items, reason);
            }
            flights.push(account);
            payload = processed.output;
        }
        let handed_on = match payload {
            Some(payload) if !payload.is_empty() => output.send_on(payload, origin, receipt).await.is_ok(),
            _ => {
                receipt.kept();
                true
            }
        };
        for account in flights {
            if handed_on {
                account.sent();
            } else {
                account.dropped_rest("pipeline_ended");
            }
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
