//! Builds the graph of one environment, consumers first.

use std::collections::HashMap;
use std::sync::Arc;

use super::graph::Used;
use super::spec::PipelineKind;
use super::stages::{self, Stage};
use super::tasks::{Tasks, supervise};
use super::{
    Class, ComponentError, ComponentId, ComponentInfo, Connector, Context, Edge, Factory, Input, Instance, Make, Output, Outputs,
    Plan, ReceiverInstance, StartError, Status,
};
use crate::model::Signal;

/// A connector that was made, and where it stands in the graph.
pub(super) struct Made {
    pub(super) context: Context,
    pub(super) connector: Box<dyn Connector>,
    pub(super) input: Input,
    pub(super) output: Output,
}

/// What of an environment is made and waits to be started.
#[derive(Default)]
pub(super) struct Built {
    pub(super) connectors: Vec<Made>,
    pub(super) receivers: Vec<(Factory, ReceiverInstance)>,
}

/// Makes all components of `plan`; exporters and processors run at once, among `tasks`.
pub(super) fn build(plan: &Plan, tasks: &mut Tasks) -> Result<Built, StartError> {
    let (edges, entries) = (HashMap::new(), HashMap::new());
    let mut build = Build { plan, tasks, connectors: Vec::new(), edges, entries };
    build.exporters()?;
    build.connectors()?;
    build.pipelines()?;
    Ok(Built { receivers: build.receivers(), connectors: build.connectors })
}

struct Build<'a> {
    plan: &'a Plan,
    tasks: &'a mut Tasks,
    connectors: Vec<Made>,
    /// The queues in front of exporters and connectors.
    edges: HashMap<(Class, ComponentId), Edge>,
    /// The queues at the beginning of the pipelines that run.
    entries: HashMap<String, Vec<Edge>>,
}

impl Build<'_> {
    /// A component could not be made.
    fn failed(context: &Context, class: Class, error: ComponentError) -> StartError {
        context.health.set(Status::PermanentError(error.to_string()));
        StartError::new(&context.environment, class, &context.id, error)
    }

    fn context(&self, class: Class, id: &ComponentId, pipeline: Option<&str>) -> Context {
        let context = self.tasks.context(id);
        self.tasks.services.registry.add(ComponentInfo {
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
            let (edge, input) = Input::queue(self.tasks.services.queue_capacity, Arc::clone(&context.counters));
            let made = make(Instance { config: used.config.clone(), context: context.clone() });
            let exporter = made.map_err(|e| Self::failed(&context, Class::Exporter, e))?;
            context.health.set(Status::Ok);
            self.tasks.exporters.spawn(supervise(context, exporter.run(input)));
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
            let (edge, input) = Input::queue(self.tasks.services.queue_capacity, Arc::clone(&context.counters));
            let mut targets = Vec::new();
            for pipeline in self.begun_by(&used.id) {
                targets.extend(self.entry(&pipeline)?);
            }
            let made = make(Instance { config: used.config.clone(), context: context.clone() });
            let connector = made.map_err(|e| Self::failed(&context, Class::Connector, e))?;
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
            let counters = Arc::clone(&context.counters);
            let made = make(Instance { config: used.config.clone(), context: context.clone() });
            let processor = made.map_err(|e| Self::failed(&context, Class::Processor, e))?;
            context.health.set(Status::Ok);
            stages.push(Stage { processor, counters });
        }
        let Some(first) = stages.first() else {
            self.entries.insert(pipeline.to_owned(), targets.clone());
            return Ok(targets);
        };
        let (edge, input) = Input::queue(self.tasks.services.queue_capacity, Arc::clone(&first.counters));
        let edge = edge.named(pipeline);
        self.tasks.inner.spawn(stages::run(pipeline.to_owned(), input, stages, Output::new(targets)));
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

    fn receivers(&self) -> Vec<(Factory, ReceiverInstance)> {
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
