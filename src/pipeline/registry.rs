//! All running components, with their states and counters: what `/health` and `/metrics` show.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use tokio::sync::mpsc;

use super::outbox::{OutboxLevels, OutboxView};
use super::{Class, ComponentId, Counters, Desk, History, Mark, Memory, Observer, Question};
use crate::model::Environment;

/// The state of a component, in the Collector's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Not ready yet.
    #[default]
    Starting,
    /// Working.
    Ok,
    /// Not working, but it tries again; says what is wrong.
    RecoverableError(String),
    /// Not working, and will not without a person; says what is wrong.
    PermanentError(String),
    /// Draining.
    Stopping,
    /// Ended.
    Stopped,
}

impl Status {
    /// The Collector's name of the state.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::RecoverableError(_) => "recoverable_error",
            Self::PermanentError(_) => "permanent_error",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// What is wrong, if something is.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::RecoverableError(m) | Self::PermanentError(m) => Some(m),
            _ => None,
        }
    }
}

/// Where a component tells its state. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Status>>);

impl Health {
    /// Tells the state.
    pub fn set(&self, status: Status) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// The state as of now.
    #[must_use]
    pub fn get(&self) -> Status {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One running component.
#[derive(Clone, Debug)]
pub struct ComponentInfo {
    /// Whose.
    pub environment: Environment,
    /// Receiver, processor...
    pub class: Class,
    /// Its id.
    pub id: ComponentId,
    /// The pipeline it works in; only processors belong to one.
    pub pipeline: Option<String>,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// How it is.
    pub health: Health,
}

/// All components, the histories that they read, and where some of them can be asked. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    components: RwLock<Vec<ComponentInfo>>,
    histories: Mutex<BTreeMap<Environment, History>>,
    observer: OnceLock<Arc<dyn Observer>>,
    memory: OnceLock<Memory>,
    desks: RwLock<Vec<Desk>>,
    marks: Mutex<BTreeMap<Environment, Vec<Mark>>>,
    outboxes: Mutex<Vec<OutboxView>>,
    /// What connectors that are forgotten have counted with: as long as one of their threads runs.
    ending: Mutex<Vec<(Environment, Weak<Counters>)>>,
}

impl Registry {
    /// Adds a component.
    pub fn add(&self, info: ComponentInfo) {
        self.0.components.write().unwrap_or_else(PoisonError::into_inner).push(info);
    }

    /// All components as of now, in the order in which they were added.
    #[must_use]
    pub fn all(&self) -> Vec<ComponentInfo> {
        self.0.components.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The components of `environment`.
    #[must_use]
    pub fn of(&self, environment: &Environment) -> Vec<ComponentInfo> {
        self.all().into_iter().filter(|component| component.environment == *environment).collect()
    }

    /// Forgets everything of `environment`: it has ended, or is about to start anew.
    pub fn forget(&self, environment: &Environment) {
        let mut components = self.0.components.write().unwrap_or_else(PoisonError::into_inner);
        let gone = components.extract_if(.., |component| component.environment == *environment);
        let connectors = gone.filter(|component| component.class == Class::Connector);
        let ending = connectors.map(|component| (environment.clone(), Arc::downgrade(&component.counters)));
        self.0.ending.lock().unwrap_or_else(PoisonError::into_inner).extend(ending);
        self.0.desks.write().unwrap_or_else(PoisonError::into_inner).retain(|desk| desk.environment != *environment);
        self.0.histories.lock().unwrap_or_else(PoisonError::into_inner).remove(environment);
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner).remove(environment);
    }

    /// Whether a connector of `environment` that is forgotten still has something that runs, and may write its files.
    pub(super) fn is_ending(&self, environment: &Environment) -> bool {
        let mut ending = self.0.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.retain(|(_, counters)| counters.strong_count() > 0);
        ending.iter().any(|(other, _)| other == environment)
    }

    /// From now on the component can be asked about `subjects`; what comes to it.
    pub fn open_desk(
        &self,
        environment: &Environment,
        class: Class,
        id: &ComponentId,
        subjects: &'static [&'static str],
    ) -> mpsc::Receiver<Question> {
        let (desk, questions) = Desk::open(environment, class, id, subjects);
        self.0.desks.write().unwrap_or_else(PoisonError::into_inner).push(desk);
        questions
    }

    /// Where one can ask about `subject`, by environment and component.
    #[must_use]
    pub fn desks(&self, subject: &str) -> Vec<Desk> {
        let desks = self.0.desks.read().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<Desk> = desks.iter().filter(|d| d.subjects.contains(&subject) && !d.is_closed()).cloned().collect();
        open.sort_by_key(|d| (d.environment.to_string(), d.id.to_string()));
        open
    }

    /// The component `id` of `environment`.
    #[must_use]
    pub fn find(&self, environment: &str, class: Class, id: &str) -> Option<ComponentInfo> {
        self.all().into_iter().find(|c| c.environment.as_str() == environment && c.class == class && c.id.to_string() == id)
    }

    /// The history of `environment`.
    #[must_use]
    pub fn history(&self, environment: &Environment) -> History {
        let mut histories = self.0.histories.lock().unwrap_or_else(PoisonError::into_inner);
        histories.entry(environment.clone()).or_default().clone()
    }

    /// The histories of all environments that have one.
    #[must_use]
    pub fn histories(&self) -> Vec<(Environment, History)> {
        let histories = self.0.histories.lock().unwrap_or_else(PoisonError::into_inner);
        histories.iter().map(|(environment, history)| (environment.clone(), history.clone())).collect()
    }

    /// Tells how far receivers have read, by what a detector has in its log. Before any receiver starts.
    pub fn post_marks(&self, environment: &Environment, marks: impl IntoIterator<Item = Mark>) {
        let mut all = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(environment.clone()).or_default().extend(marks);
    }

    /// How far the receiver `source` of `environment` has read, oldest first; nothing where no detector knows.
    #[must_use]
    pub fn marks(&self, environment: &Environment, source: &str) -> Vec<Mark> {
        let all = self.0.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let mut marks: Vec<Mark> = all.get(environment).into_iter().flatten().filter(|m| &*m.source == source).cloned().collect();
        marks.sort_by_key(|m| m.generation);
        marks
    }

    /// Shows an outbox for as long as there is one.
    pub(super) fn add_outbox(&self, view: OutboxView) {
        let mut all = self.0.outboxes.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|view| !view.is_gone());
        all.push(view);
    }

    /// What waits in outboxes, by detector and target.
    #[must_use]
    pub fn outboxes(&self) -> Vec<OutboxLevels> {
        let all = self.0.outboxes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.iter().flat_map(OutboxView::levels).collect()
    }

    /// The memory that all components share; only the first one counts.
    pub fn share_memory(&self, memory: Memory) {
        let _ = self.0.memory.set(memory);
    }

    /// The memory that all components share; without a limit where nobody has set one.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.0.memory.get_or_init(Memory::default).clone()
    }

    /// Lets `observer` look on; only the first one does.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        let _ = self.0.observer.set(observer);
    }

    /// Who looks on, if somebody does.
    #[must_use]
    pub fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.0.observer.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::UnixNanos;
    use crate::pipeline::Span;

    #[test]
    fn an_environment_that_ended_is_forgotten_and_known_as_long_as_something_of_it_runs() {
        let registry = Registry::default();
        let id = ComponentId::parse("detector").unwrap();
        let [staging, production] = ["staging", "production"].map(Environment::new);
        let span = Span { from: UnixNanos(1), until: UnixNanos(2), anew: false, ends: false };
        let mut running = Vec::new();
        for environment in [&staging, &production] {
            let (counters, health) = (Arc::<Counters>::default(), Health::default());
            running.push(Arc::clone(&counters));
            let (environment, id) = (environment.clone(), id.clone());
            registry.history(&environment).want(span);
            drop(registry.open_desk(&environment, Class::Connector, &id, &["series"]));
            registry.add(ComponentInfo { environment, class: Class::Connector, id, pipeline: None, counters, health });
        }
        assert!(!registry.is_ending(&staging));
        registry.forget(&staging);
        assert!(registry.of(&staging).is_empty() && registry.history(&staging).span().is_none());
        let desks = registry.0.desks.read().unwrap();
        assert_eq!(desks.iter().map(|desk| &desk.environment).collect::<Vec<_>>(), [&production]);
        assert_eq!((registry.of(&production).len(), registry.history(&production).span()), (1, Some(span)));
        assert!(registry.is_ending(&staging) && !registry.is_ending(&production));
        running.clear();
        assert!(!registry.is_ending(&staging));
    }
}
