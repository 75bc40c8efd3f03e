//! Builds the graph of an environment, starts it (consumers first) and drains it (receivers first).
//!
//! A component knows its own folder, `crate::model` and what is exported here. It never imports another
//! component: what two of them share travels as a [`crate::model::Payload`] over an [`Edge`](edge::Edge).

mod ask;
mod backoff;
mod clock;
mod component;
mod counters;
mod dead_letters;
mod edge;
mod graph;
mod history;
mod id;
mod memory;
mod observer;
mod origin;
mod outbox;
mod receipt;
mod registry;
mod run;
mod spec;
#[cfg(test)]
mod test_components;

pub use ask::{Desk, Question, Refusal, RefusalKind};
pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock};
pub use component::{
    BuildError, Class, ComponentError, Connector, Context, Exporter, Factory, Instance, Make, MakeReceivers, Problem, Processed,
    Processor, Receiver, ReceiverInstance, Services,
};
pub use counters::{Counters, Counts, Flight};
pub use dead_letters::{DeadLetter, DeadLetters, dead_letter_files, read_dead_letters};
pub use edge::{Delivery, Edge, Input, Output, Outputs, Refused, Room};
pub use graph::{GraphProblem, Plan, Used, plan};
pub use history::{History, Progress, Span};
pub use id::ComponentId;
pub use memory::{Available, Machine, Memory, Pressure, resident};
pub use observer::{Judgement, Observer, Track, Watched};
pub use origin::{BatchId, Mark, Origin};
pub use outbox::{Outbox, OutboxLevels, OutboxSettings};
pub use receipt::{Lost, Receipt, Waiting};
pub use registry::{ComponentInfo, Health, Registry, Status};
pub use run::{Drained, Running, StartError, start};
pub use spec::{EnvironmentSpec, PipelineKind, PipelineSpec};
