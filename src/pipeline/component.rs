//! What a component is to the engine: one trait per class, and a factory.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{Clock, ComponentId, Counters, Health, Input, OutboxSettings, Output, Outputs, Registry, SystemClock};
use crate::model::{Environment, Payload, PayloadKind};
use crate::storage::{Files, LogOptions, MemoryStorage, Storage, folder_name};

/// The four classes of components, in the Collector's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Takes telemetry in.
    Receiver,
    /// Changes or measures it.
    Processor,
    /// Ends one pipeline and begins another.
    Connector,
    /// Gives something out.
    Exporter,
}

impl Class {
    /// Lower case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Processor => "processor",
            Self::Connector => "connector",
            Self::Exporter => "exporter",
        }
    }

    /// The key of the block in a pipeline file: `receivers`.
    #[must_use]
    pub const fn block(self) -> &'static str {
        match self {
            Self::Receiver => "receivers",
            Self::Processor => "processors",
            Self::Connector => "connectors",
            Self::Exporter => "exporters",
        }
    }
}

/// What every component may use.
#[derive(Clone)]
pub struct Services {
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Small values that survive a restart: cursors, states.
    pub storage: Arc<dyn Storage>,
    /// The only folder that is written to.
    pub data_dir: PathBuf,
    /// The files in it that hold a state; `None` where nothing is kept over a restart.
    pub files: Option<Arc<dyn Files>>,
    /// How large the input log of a detector may become; `None` where what came in is kept in memory only.
    pub input_log: Option<LogOptions>,
    /// How often a detector writes down all that it has learnt.
    pub checkpoint_interval: Duration,
    /// How findings wait for exporters.
    pub outbox: OutboxSettings,
    /// All components.
    pub registry: Registry,
    /// How many payloads wait in front of a component before its senders wait.
    pub queue_capacity: usize,
}

impl Services {
    /// Of a daemon that keeps nothing.
    #[must_use]
    pub fn in_memory() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            storage: Arc::new(MemoryStorage::default()),
            data_dir: PathBuf::new(),
            files: None,
            input_log: None,
            checkpoint_interval: Duration::from_secs(300),
            outbox: OutboxSettings::default(),
            registry: Registry::default(),
            queue_capacity: 64,
        }
    }
}

/// What one component is given.
#[derive(Clone)]
pub struct Context {
    /// Whose pipelines it works in.
    pub environment: Environment,
    /// Its id.
    pub id: ComponentId,
    /// What it counts.
    pub counters: Arc<Counters>,
    /// Where it tells how it is.
    pub health: Health,
    /// Cancelled when the receivers of its environment are to stop.
    pub shutdown: CancellationToken,
    /// What every component may use.
    pub services: Services,
}

#[cfg(test)]
impl Context {
    /// What a component is given in a test.
    pub(crate) fn of_test(environment: &str, id: &str, services: Services) -> Self {
        Self {
            environment: Environment::new(environment),
            id: ComponentId::parse(id).expect("an id"),
            counters: Arc::default(),
            health: Health::default(),
            shutdown: CancellationToken::new(),
            services,
        }
    }
}

impl Context {
    /// The component's own folder: `<data_dir>/<environment>/<id>`.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        let environment = self.services.data_dir.join(folder_name(self.environment.as_str()));
        environment.join(folder_name(&self.id.to_string()))
    }
}

/// One component to be made.
#[derive(Clone)]
pub struct Instance {
    /// Its checked configuration, all variables resolved.
    pub config: serde_json::Value,
    /// What it is given.
    pub context: Context,
}

/// One receiver to be made.
#[derive(Clone)]
pub struct ReceiverInstance {
    /// As for every component.
    pub instance: Instance,
    /// Whether its environment takes what says no environment (listeners that several environments share).
    pub default_environment: bool,
    /// Where it sends.
    pub outputs: Outputs,
}

/// A component that could not be made or that ended. Says what happened, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ComponentError(pub String);

impl ComponentError {
    /// From whatever has a sentence.
    pub fn new(message: impl std::fmt::Display) -> Self {
        Self(message.to_string())
    }
}

/// Why a component of an environment could not start.
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

impl StartError {
    /// Of the component `id`.
    #[must_use]
    pub fn new(environment: &Environment, class: Class, id: &ComponentId, error: ComponentError) -> Self {
        Self { environment: environment.to_string(), component: format!("{} `{id}`", class.as_str()), error }
    }
}

/// The configuration that passed its checks still cannot be used on this machine.
pub type BuildError = ComponentError;

/// Takes telemetry in.
#[async_trait]
pub trait Receiver: Send {
    /// Takes the outside resources. Called for all receivers of an environment before any of them runs.
    ///
    /// # Errors
    /// What could not be had, and what to do.
    async fn start(&mut self) -> Result<(), ComponentError>;

    /// Runs until its context's `shutdown` is cancelled, then ends what it has begun, and returns.
    ///
    /// # Errors
    /// What made it impossible to go on.
    async fn run(self: Box<Self>) -> Result<(), ComponentError>;
}

/// The receivers of one type, of all environments: they share what is outside, such as ports. Environments come, go and
/// change while the others are served on without noticing.
#[async_trait]
pub trait Listeners: Send {
    /// Takes what serving `instances` needs beyond what is there (binds ports), in place of what was prepared before.
    /// Nobody notices. The outputs of the instances do not matter yet.
    ///
    /// # Errors
    /// What could not be had, and what to do. What was prepared is given back.
    async fn prepare(&mut self, instances: &[ReceiverInstance]) -> Result<(), StartError>;

    /// Lets go of the outputs of these environments: whoever sends to them is told to send again, until they are
    /// served anew.
    fn pause(&mut self, environments: &BTreeSet<Environment>);

    /// Serves `instances`, in place of those before. Requests in progress end with what they began with.
    ///
    /// # Errors
    /// What could not be had, and what to do; it serves those before on.
    async fn serve(&mut self, instances: Vec<ReceiverInstance>) -> Result<(), StartError>;

    /// Takes in nothing more, and returns when the requests in progress have ended.
    async fn stop(&mut self);
}

/// What a processor made of one payload.
#[derive(Debug, Default)]
pub struct Processed {
    /// What goes on; may be nothing.
    pub output: Option<Payload>,
    /// Input records that were given up, with the reason.
    pub dropped: Vec<(&'static str, u64)>,
}

impl Processed {
    /// All of it goes on as `payload`.
    #[must_use]
    pub const fn all(payload: Payload) -> Self {
        Self { output: Some(payload), dropped: Vec::new() }
    }
}

/// Changes or measures what travels. A pure function of its configuration and what came before: no clock, no I/O.
pub trait Processor: Send {
    /// Handles one payload.
    fn process(&mut self, payload: Payload) -> Processed;
}

/// Ends some pipelines and begins others.
#[async_trait]
pub trait Connector: Send {
    /// Takes up what was kept before the last end. Called for all connectors before any receiver starts; what a
    /// receiver has to know of it is in the registry then.
    ///
    /// # Errors
    /// What makes it impossible to begin.
    async fn start(&mut self) -> Result<(), ComponentError> {
        Ok(())
    }

    /// Runs until `input` ends, then hands on what it still has, and returns.
    ///
    /// # Errors
    /// What made it impossible to go on.
    async fn run(self: Box<Self>, input: Input, output: Output) -> Result<(), ComponentError>;
}

/// Gives something out, in the order in which it comes.
///
/// What cannot be taken now is either tried again before anything that comes later, or given back to its sender
/// ([`Flight::refused`](super::Flight::refused)), which at that moment withdraws all that is behind it: so each delivery is asked
/// whether it is withdrawn before it is handled.
#[async_trait]
pub trait Exporter: Send {
    /// Runs until `input` ends, then flushes, and returns.
    ///
    /// # Errors
    /// What made it impossible to go on.
    async fn run(self: Box<Self>, input: Input) -> Result<(), ComponentError>;
}

/// Something wrong with a component's configuration that its schema cannot say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as keys from the component's own block: `["protocols", "grpc", "endpoint"]`.
    pub path: Vec<String>,
    /// What is wrong, and what was expected.
    pub message: String,
    /// What to do, if there is more to say.
    pub hint: Option<String>,
    /// Whether it keeps the daemon from starting; else it is only worth saying.
    pub fatal: bool,
}

/// How to make a component; one shape per class.
#[derive(Clone, Copy)]
pub enum Make {
    /// One receiver.
    Receiver(fn(ReceiverInstance) -> Result<Box<dyn Receiver>, BuildError>),
    /// What serves the receivers of all environments, none yet.
    Listeners(fn() -> Box<dyn Listeners>),
    /// One processor.
    Processor(fn(Instance) -> Result<Box<dyn Processor>, BuildError>),
    /// One connector.
    Connector(fn(Instance) -> Result<Box<dyn Connector>, BuildError>),
    /// One exporter.
    Exporter(fn(Instance) -> Result<Box<dyn Exporter>, BuildError>),
}

/// A type of component.
#[derive(Clone, Copy)]
pub struct Factory {
    /// The type in `type/name`.
    pub kind: &'static str,
    /// One sentence: what it is for.
    pub about: &'static str,
    /// One sentence: what it means when it says that it has accepted something. Printed by `validate`.
    pub acknowledgement: &'static str,
    /// JSON Schema of its configuration, from its structs. Every property has a description.
    pub schema: fn(&mut schemars::SchemaGenerator) -> schemars::Schema,
    /// Whether it can be used without being declared, with its defaults.
    pub implicit: bool,
    /// What it makes of a payload kind it takes; `None` for kinds that it does not take.
    /// Receivers are asked with the kind of the pipeline and answer with the same kind if they give it;
    /// exporters answer with what they took.
    pub gives: fn(PayloadKind) -> Option<PayloadKind>,
    /// Keys of its configuration that are a [`TextFile`](super::TextFile), such as `tls.ca_file`; `*` is every item of a
    /// list. What stands in those files counts as configuration.
    pub files: &'static [&'static str],
    /// Checks that go beyond the schema.
    pub check: fn(&serde_json::Value) -> Vec<Problem>,
    /// How to make it.
    pub make: Make,
}

impl Factory {
    /// The class it belongs to.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self.make {
            Make::Receiver(_) | Make::Listeners(_) => Class::Receiver,
            Make::Processor(_) => Class::Processor,
            Make::Connector(_) => Class::Connector,
            Make::Exporter(_) => Class::Exporter,
        }
    }
}
