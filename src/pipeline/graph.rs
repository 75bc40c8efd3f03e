//! Checks the graph of one environment: everything that a pipeline names exists, fits and is reached.

use std::collections::{BTreeMap, BTreeSet};

use super::spec::{EnvironmentSpec, PipelineKind};
use super::{Class, ComponentId, Factory};
use crate::model::PayloadKind;

/// Something wrong with the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphProblem {
    /// Where in the pipeline file, as keys and list positions from its root.
    pub path: Vec<String>,
    /// What is wrong, and what was expected.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// The components that the pipelines use, each with its factory and configuration.
#[derive(Clone)]
pub struct Plan {
    /// What was asked for.
    pub spec: EnvironmentSpec,
    /// Used components by class and id, in the order in which the pipelines name them.
    pub used: Vec<Used>,
}

/// One component that a pipeline uses.
#[derive(Clone)]
pub struct Used {
    /// Its id.
    pub id: ComponentId,
    /// Its type.
    pub factory: Factory,
    /// Its configuration, with what stands in the files that it names.
    pub config: serde_json::Value,
}

impl Plan {
    /// The used component `id` of `class`.
    #[must_use]
    pub fn find(&self, class: Class, id: &ComponentId) -> Option<&Used> {
        self.used.iter().find(|u| u.factory.class() == class && u.id == *id)
    }
}

/// Resolves and checks `spec` against the component types that exist.
///
/// # Errors
/// All problems, not only the first.
pub fn plan(spec: &EnvironmentSpec, factories: &[Factory]) -> Result<Plan, Vec<GraphProblem>> {
    let mut check = Check { spec, factories, used: Vec::new(), problems: Vec::new() };
    let mut after: BTreeMap<&ComponentId, BTreeSet<&ComponentId>> = BTreeMap::new();
    for (name, pipeline) in &spec.pipelines {
        let at = |list: &str, i: usize| {
            ["service", "pipelines", name.as_str(), list, &i.to_string()].iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let Some(kind) = PipelineKind::of(name) else { continue };
        for (list, ids) in [("receivers", &pipeline.receivers), ("exporters", &pipeline.exporters)] {
            if ids.is_empty() {
                check.problem(
                    vec!["service".into(), "pipelines".into(), name.clone()],
                    format!("pipeline `{name}` has no {list}: expected at least one"),
                    None,
                );
            }
        }
        for (i, id) in pipeline.receivers.iter().enumerate() {
            let Some(factory) = check.resolve(id, &[Class::Receiver, Class::Connector], at("receivers", i)) else { continue };
            let gives = match factory.class() {
                Class::Receiver => (factory.gives)(kind.payload()).is_some(),
                _ => connector_gives(&factory, kind.payload()),
            };
            if !gives {
                check.problem(
                    at("receivers", i),
                    format!("{} `{id}` gives no {}", factory.class().as_str(), kind.payload()),
                    None,
                );
            }
        }
        let mut travelling = Some(kind.payload());
        for (i, id) in pipeline.processors.iter().enumerate() {
            let Some(factory) = check.resolve(id, &[Class::Processor], at("processors", i)) else {
                travelling = None;
                continue;
            };
            let Some(payload) = travelling else { continue };
            travelling = (factory.gives)(payload);
            if travelling.is_none() {
                check.problem(at("processors", i), format!("processor `{id}` does not take {payload}"), takes(&factory));
            }
        }
        for (i, id) in pipeline.exporters.iter().enumerate() {
            let Some(factory) = check.resolve(id, &[Class::Exporter, Class::Connector], at("exporters", i)) else { continue };
            if let Some(payload) = travelling
                && (factory.gives)(payload).is_none()
            {
                check.problem(
                    at("exporters", i),
                    format!("{} `{id}` does not take {payload}", factory.class().as_str()),
                    takes(&factory).map(|t| measured(payload, &t)),
                );
            }
            if factory.class() == Class::Connector {
                let begins = pipeline.receivers.iter().filter(|r| spec.connectors.contains_key(*r) || *r == id);
                for before in begins {
                    after.entry(before).or_default().insert(id);
                }
            }
        }
    }
    check.connectors_have_both_ends();
    check.unused();
    check.cycles(&after);
    if check.problems.is_empty() { Ok(Plan { spec: spec.clone(), used: check.used }) } else { Err(check.problems) }
}

fn takes(factory: &Factory) -> Option<String> {
    let kinds: Vec<String> = ALL_KINDS.iter().filter(|k| (factory.gives)(**k).is_some()).map(ToString::to_string).collect();
    (!kinds.is_empty()).then(|| format!("it takes {}", kinds.join(", ")))
}

/// The processor that turns a raw signal into what a detector takes.
fn measured(payload: PayloadKind, takes: &str) -> String {
    use crate::model::Signal;
    match payload {
        PayloadKind::Telemetry(Signal::Traces) => format!("{takes}; add `processors: [red_metrics]` to measure the spans first"),
        PayloadKind::Telemetry(Signal::Logs) => format!("{takes}; add `processors: [log_patterns]` to count the records first"),
        _ => takes.to_owned(),
    }
}

const ALL_KINDS: [PayloadKind; 5] = {
    use crate::model::Signal;
    [
        PayloadKind::Telemetry(Signal::Traces),
        PayloadKind::Telemetry(Signal::Metrics),
        PayloadKind::Telemetry(Signal::Logs),
        PayloadKind::Observations,
        PayloadKind::Anomalies,
    ]
};

fn connector_gives(factory: &Factory, wanted: PayloadKind) -> bool {
    ALL_KINDS.iter().any(|k| (factory.gives)(*k) == Some(wanted))
}

struct Check<'a> {
    spec: &'a EnvironmentSpec,
    factories: &'a [Factory],
    used: Vec<Used>,
    problems: Vec<GraphProblem>,
}

impl Check<'_> {
    fn problem(&mut self, path: Vec<String>, message: String, hint: Option<String>) {
        self.problems.push(GraphProblem { path, message, hint });
    }

    /// The factory of `id` among `classes`, noting its use; a problem where it is not declared.
    fn resolve(&mut self, id: &ComponentId, classes: &[Class], path: Vec<String>) -> Option<Factory> {
        for &class in classes {
            let factory = self.factories.iter().find(|f| f.class() == class && f.kind == id.kind());
            let declared = self.spec.declared(class).get(id);
            let (Some(factory), config) = (factory, declared) else { continue };
            let config = match config {
                Some(config) => config.clone(),
                None if factory.implicit => serde_json::Value::Object(serde_json::Map::new()),
                None => continue,
            };
            if !self.used.iter().any(|u| u.factory.class() == class && u.id == *id) {
                let mut config = config;
                super::text_file::take_in(&mut config, factory.files);
                self.used.push(Used { id: id.clone(), factory: *factory, config });
            }
            return Some(*factory);
        }
        // An id of a type that does not exist is reported where it is declared.
        if classes.iter().any(|&class| self.spec.declared(class).contains_key(id)) {
            return None;
        }
        let names: Vec<String> = classes
            .iter()
            .flat_map(|&class| self.spec.declared(class).keys().map(ToString::to_string))
            .chain(self.factories.iter().filter(|f| f.implicit && classes.contains(&f.class())).map(|f| f.kind.to_owned()))
            .collect();
        let wanted = id.to_string();
        let near = crate::text::closest(&wanted, names.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`?"));
        let kinds: Vec<&str> = classes.iter().map(|c| c.as_str()).collect();
        let blocks: Vec<String> = classes.iter().map(|c| format!("`{}`", c.block())).collect();
        self.problem(
            path,
            format!("{} `{id}` is not declared", kinds.join(" or ")),
            near.or_else(|| Some(format!("declare it under {}", blocks.join(" or ")))),
        );
        None
    }

    fn connectors_have_both_ends(&mut self) {
        let connectors: Vec<ComponentId> =
            self.used.iter().filter(|u| u.factory.class() == Class::Connector).map(|u| u.id.clone()).collect();
        for id in connectors {
            let ends = self.spec.pipelines.values().any(|p| p.exporters.contains(&id));
            let begins = self.spec.pipelines.values().any(|p| p.receivers.contains(&id));
            let (has, lacks, list) = match (ends, begins) {
                (true, false) => ("ends a pipeline", "begins none", "receivers"),
                (false, true) => ("begins a pipeline", "ends none", "exporters"),
                _ => continue,
            };
            let path = if self.spec.connectors.contains_key(&id) {
                vec!["connectors".to_owned(), id.to_string()]
            } else {
                vec!["service".to_owned(), "pipelines".to_owned()]
            };
            self.problem(
                path,
                format!("connector `{id}` {has} but {lacks}"),
                Some(format!("name it under `{list}` of a pipeline too")),
            );
        }
    }

    fn unused(&mut self) {
        for class in [Class::Receiver, Class::Processor, Class::Connector, Class::Exporter] {
            for id in self.spec.declared(class).keys() {
                let known = self.factories.iter().any(|f| f.class() == class && f.kind == id.kind());
                let used = self.used.iter().any(|u| u.factory.class() == class && u.id == *id);
                if known && !used {
                    self.problems.push(GraphProblem {
                        path: vec![class.block().to_owned(), id.to_string()],
                        message: format!("{} `{id}` is declared but no pipeline uses it", class.as_str()),
                        hint: Some("name it in a pipeline, or remove it".to_owned()),
                    });
                }
            }
        }
    }

    fn cycles(&mut self, after: &BTreeMap<&ComponentId, BTreeSet<&ComponentId>>) {
        for start in after.keys() {
            let (mut seen, mut todo) = (BTreeSet::new(), vec![*start]);
            while let Some(id) = todo.pop() {
                for next in after.get(id).into_iter().flatten() {
                    if next == start {
                        self.problems.push(GraphProblem {
                            path: vec!["service".into(), "pipelines".into()],
                            message: format!("connector `{start}` feeds itself: its pipelines form a cycle"),
                            hint: None,
                        });
                        return;
                    }
                    if seen.insert(*next) {
                        todo.push(next);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
