//! Reads a daemon file and the pipeline files that it names, and checks all of them at once.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value as Json;

use super::blocks::WITHOUT_EFFECT;
use super::check::{At, Check};
use super::daemon::Daemon;
use super::diagnostics::{Diagnostic, Diagnostics, Note, Severity, Sources};
use super::source::{Disk, Files, Span, read_text};
use super::tree::{Node, Value};
use super::variables::Lookup;
use super::{environment, inherit, schema, variables, yaml};
use crate::pipeline::{Class, Factory, GraphProblem, Plan, Problem, plan};

/// An older name of `memory.limit`, in `data_collection`.
const MAX_MEMORY: &str = "max_memory";

/// A configuration that can be run.
#[derive(Clone)]
pub struct Loaded {
    /// The daemon file.
    pub daemon: Daemon,
    /// One plan per environment, in the order of the daemon file.
    pub plans: Vec<Plan>,
    /// What is worth knowing: blocks that have no effect yet, and what components have to say.
    pub notes: Vec<Note>,
    /// Every file with its variables resolved and its secrets redacted, as YAML.
    pub resolved: Vec<(PathBuf, String)>,
}

/// Reads the daemon file at `path` and all pipeline files that it names.
///
/// # Errors
/// Everything that is wrong with any of the files.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>, factories: &[Factory]) -> Result<Loaded, Diagnostics> {
    load_from(&Disk, path, env, factories)
}

/// As [`load`], with the files that `files` gives.
///
/// # Errors
/// As [`load`].
pub fn load_from(
    files: &dyn Files,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
    factories: &[Factory],
) -> Result<Loaded, Diagnostics> {
    let mut load = Load { files, env, factories, sources: Sources::default(), problems: Vec::new(), resolved: Vec::new() };
    let daemon = load.daemon(path);
    let environments = daemon.as_ref().map(|d| load.environments(d, path)).unwrap_or_default();
    let Load { sources, mut problems, resolved, .. } = load;
    let read = daemon.as_ref().map(|d| serde_json::from_value::<Daemon>(d.to_json()));
    if let (Some(Err(error)), true) = (&read, problems.iter().all(|p| p.severity != Severity::Error)) {
        problems.push(Diagnostic::without_place(format!("{} cannot be used: {error}", path.display())));
    }
    let diagnostics = Diagnostics::new(sources, problems);
    match read {
        Some(Ok(daemon)) if diagnostics.errors() == 0 => {
            Ok(Loaded { daemon, plans: environments, notes: diagnostics.into_notes(), resolved })
        }
        _ => Err(diagnostics.errors_only()),
    }
}

struct Load<'a> {
    files: &'a dyn Files,
    env: &'a dyn Fn(&str) -> Option<String>,
    factories: &'a [Factory],
    sources: Sources,
    problems: Vec<Diagnostic>,
    resolved: Vec<(PathBuf, String)>,
}

impl Load<'_> {
    fn daemon(&mut self, path: &Path) -> Option<Node> {
        let node = self.file(path, None, &schema::daemon())?;
        for (block, instead) in WITHOUT_EFFECT {
            if let Some(entry) = node.entry(block)
                && !matches!(entry.value.value, Value::Null)
                && entry.value.entries().iter().any(|entry| entry.key != MAX_MEMORY)
            {
                let message = format!("`{block}` is checked but has no effect yet: {instead}");
                self.problems.push(Diagnostic::note(entry.key_span, message));
            }
        }
        let given = |block: &str, key: &str| {
            node.get(block).and_then(|block| block.entry(key)).filter(|entry| !matches!(entry.value.value, Value::Null))
        };
        if let (Some(limit), Some(older)) = (given("memory", "limit"), given("data_collection", MAX_MEMORY)) {
            let message = format!("`data_collection.{MAX_MEMORY}` and `memory.limit` are the same, and both are given");
            let problem = Diagnostic::error(older.key_span, message).related(limit.key_span, "also given here");
            self.problems.push(problem.help("keep `memory.limit`"));
        }
        Some(node)
    }

    fn environments(&mut self, daemon: &Node, path: &Path) -> Vec<Plan> {
        let schema = schema::pipeline(self.factories);
        let folder = path.parent().unwrap_or_else(|| Path::new(""));
        let mut named: HashMap<PathBuf, Span> = HashMap::new();
        let mut names: HashMap<String, Span> = HashMap::new();
        let mut default: Option<Span> = None;
        let mut plans = Vec::new();
        for item in daemon.get("environments").map(Node::items).unwrap_or_default() {
            let Some(file) = item.text() else { continue };
            let file = join(folder, file);
            if let Some(first) = named.insert(file.clone(), item.span) {
                let problem = Diagnostic::error(item.span, format!("`{}` is named twice", file.display()));
                self.problems.push(problem.related(first, "first named here"));
                continue;
            }
            let Some(node) = self.file(&file, Some(item.span), &schema) else { continue };
            if let Some(name) = node.get("environment")
                && let Some(first) = name.text().and_then(|text| names.insert(text.to_owned(), name.span))
            {
                let message = format!("another pipeline file has the environment `{}` too", name.text().unwrap_or_default());
                let problem = Diagnostic::error(name.span, message).related(first, "first named here");
                self.problems.push(problem.help("give each environment a name of its own"));
            }
            if let Some(second) = node.get("default").filter(|d| matches!(d.value, Value::Bool(true)))
                && let Some(first) = default.replace(second.span)
            {
                let problem = Diagnostic::error(second.span, "two environments are marked `default: true`");
                self.problems.push(problem.related(first, "the first one").help("keep it in one of them"));
            }
            plans.extend(self.plan(&node, &schema, daemon));
        }
        plans
    }

    /// The plan of one pipeline file, with what its components and the graph have against it.
    fn plan(&mut self, node: &Node, schema: &Json, daemon: &Node) -> Option<Plan> {
        let mut spec = environment::spec(node);
        let defaults = daemon.to_json();
        let component = |class: Class, kind: &str| schema.pointer(&format!("/$defs/{}.{kind}", class.as_str()));
        let fill = |class: Class, kind: &str, config: &mut Json| {
            component(class, kind).is_some_and(|component| inherit::fill(config, component, schema, &defaults))
        };
        // Where the value at a path of a component comes from that its own file does not write.
        let source = |factory: &Factory, path: &[String]| {
            let component = component(factory.class(), factory.kind)?;
            Some(daemon.locate(&inherit::source(path, component, schema)?))
        };
        for class in schema::CLASSES {
            for (id, config) in spec.declared_mut(class) {
                fill(class, id.kind(), config);
            }
        }
        let already: Vec<Span> = self.problems.iter().filter_map(|p| p.span).filter(|s| s.file == node.span.file).collect();
        for class in schema::CLASSES {
            for (id, config) in spec.declared(class) {
                let Some(factory) = self.factories.iter().find(|f| f.class() == class && f.kind == id.kind()) else { continue };
                let entry = node.get(class.block()).and_then(|block| block.entry(&id.to_string()));
                // A configuration with a mistake would be judged by what it is not.
                if entry.is_some_and(|e| {
                    already.iter().any(|s| s.start >= e.key_span.start && s.end <= e.value.span.end.max(e.key_span.end))
                }) {
                    continue;
                }
                for problem in (factory.check)(config) {
                    let own = entry.is_some_and(|e| problem.path.iter().try_fold(&e.value, |at, key| at.get(key)).is_some());
                    let inherited = if own { None } else { source(factory, &problem.path) };
                    let mut path = vec![class.block().to_owned(), id.to_string()];
                    path.extend(problem.path.iter().cloned());
                    self.problems.push(against(inherited.unwrap_or_else(|| node.locate(&path)), problem));
                }
            }
        }
        let mut plan = plan(&spec, self.factories).map_err(|problems| self.graph(node, &problems, &already)).ok()?;
        // Components that are used with their defaults have those of the daemon file.
        for used in plan.used.iter_mut().filter(|used| !spec.declared(used.factory.class()).contains_key(&used.id)) {
            if fill(used.factory.class(), used.factory.kind, &mut used.config) {
                for problem in (used.factory.check)(&used.config) {
                    self.problems.push(against(source(&used.factory, &problem.path).unwrap_or(daemon.span), problem));
                }
            }
        }
        Some(plan)
    }

    /// Tells what is wrong with the graph, except for what only follows from something that is told anyway.
    fn graph(&mut self, node: &Node, problems: &[GraphProblem], already: &[Span]) {
        let told = |problem: &&GraphProblem| {
            let span = node.locate(&problem.path);
            // The pipeline itself (`service`, `pipelines`, its id) is not judged while something in it is not understood.
            let misread = problem.path.len() == 3 && already.iter().any(|s| nested(node, &problem.path, *s));
            !misread && !already.contains(&span) && !Self::follows(node, problem, problems)
        };
        let mut kept: Vec<&GraphProblem> = problems.iter().filter(told).collect();
        if kept.is_empty() && already.is_empty() {
            kept = problems.iter().collect();
        }
        for problem in kept {
            let diagnostic = Diagnostic::error(node.locate(&problem.path), problem.message.clone());
            self.problems.push(diagnostic.maybe_help(problem.hint.clone()));
        }
    }

    /// Whether a component is unused only because the pipeline that names it, or means it, is broken.
    fn follows(node: &Node, problem: &GraphProblem, problems: &[GraphProblem]) -> bool {
        let [block, id] = problem.path.as_slice() else { return false };
        let named = node.get("service").is_some_and(|service| mentions(service, id));
        let quoted = format!("`{id}`");
        let meant = problems.iter().any(|p| p.hint.as_ref().is_some_and(|hint| hint.contains(&quoted)));
        block != "service" && (named || meant)
    }

    /// Reads one file, resolves its variables and compares it with its schema.
    fn file(&mut self, path: &Path, named: Option<Span>, schema: &Json) -> Option<Node> {
        let text = match read_text(self.files, path) {
            Ok(text) => text,
            Err(why) => {
                let message = format!("cannot read `{}`: {why}", path.display());
                self.problems.push(match named {
                    Some(span) => {
                        let help = why.contains("no such file").then(|| "paths start from the folder of this file".to_owned());
                        Diagnostic::error(span, message).maybe_help(help)
                    }
                    None => Diagnostic::without_place(message),
                });
                return None;
            }
        };
        // A byte order mark is no part of the text.
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        let file = self.sources.add(path, text.clone());
        let mut node = yaml::parse(file, &text, &mut self.problems)?;
        if let Some(problem) = other_kind(&node, named.is_some()) {
            self.problems.push(problem);
            return None;
        }
        let lookup = Lookup { env: self.env, files: self.files, folder: path.parent().unwrap_or_else(|| Path::new("")) };
        variables::expand(&mut node, &text, &lookup, &mut self.problems);
        let mut check = Check::new(schema);
        check.check(&mut node, schema, At { name: "", key: None });
        let Check { mut problems, secrets, .. } = check;
        // A variable that could not be resolved says so; what stands in its place is not judged.
        let unresolved: Vec<Span> = self.problems.iter().filter_map(|p| p.span).filter(|s| s.file == file).collect();
        problems.retain(|p| {
            !p.span.is_some_and(|s| unresolved.iter().any(|u| u.start >= s.start && u.end <= s.end && s.end > s.start))
        });
        self.problems.extend(problems);
        for (span, value) in &secrets {
            self.sources.hide(*span, value);
        }
        self.resolved.push((path.to_owned(), super::resolved::yaml(&node, &secrets)));
        Some(node)
    }
}

/// What a component has against its configuration.
fn against(at: Span, problem: Problem) -> Diagnostic {
    let make = if problem.fatal { Diagnostic::error } else { Diagnostic::note };
    make(at, problem.message).maybe_help(problem.hint)
}

/// A daemon file where a pipeline file is expected, or the other way round.
fn other_kind(node: &Node, pipeline_expected: bool) -> Option<Diagnostic> {
    let (other, sign, help) = if pipeline_expected {
        ("a daemon file", "environments", "name the pipeline file of an environment here")
    } else {
        ("a pipeline file", "service", "name it under `environments` of a daemon file and give that one")
    };
    let own = if pipeline_expected { "service" } else { "environments" };
    let entry = node.entry(sign).filter(|_| node.entry(own).is_none())?;
    let expected = if pipeline_expected { "a pipeline file" } else { "a daemon file" };
    Some(Diagnostic::error(entry.key_span, format!("this is {other}: expected {expected}")).help(help))
}

/// Whether `span` is inside the value at `path`.
fn nested(node: &Node, path: &[String], span: Span) -> bool {
    let value = path.iter().try_fold(node, |node, key| node.get(key));
    value.is_some_and(|v| v.span.start <= span.start && span.end <= v.span.end)
}

/// Whether some key or text below `node` is `id`.
fn mentions(node: &Node, id: &str) -> bool {
    node.text() == Some(id)
        || node.items().iter().any(|item| mentions(item, id))
        || node.entries().iter().any(|entry| mentions(&entry.value, id))
}

/// `folder` and `file` without `..` where that needs no look at the disk.
fn join(folder: &Path, file: &str) -> PathBuf {
    let mut joined = PathBuf::new();
    for part in folder.join(file).components() {
        match part {
            Component::ParentDir if matches!(joined.components().next_back(), Some(Component::Normal(_))) => {
                joined.pop();
            }
            Component::CurDir => {}
            other => joined.push(other),
        }
    }
    joined
}
