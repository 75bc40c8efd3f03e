//! Builds the graph of an environment, starts it (consumers first) and drains it (receivers first); each environment on
//! its own, so that one can be changed while the others run.
//!
//! A component knows its own folder, `crate::model` and what is exported here. It never imports another
//! component: what two of them share travels as a [`crate::model::Payload`] over an [`Edge`](edge::Edge).

mod ask;
mod backoff;
mod build;
mod clock;
mod component;
mod counters;
mod dead_letters;
mod difference;
mod edge;
mod graph;
mod history;
mod id;
mod live;
mod memory;
mod observer;
mod origin;
mod outbox;
mod receipt;
mod registry;
mod reload;
mod run;
mod spec;
mod stages;
mod tasks;
#[cfg(test)]
mod test_components;
mod text_file;

pub use ask::{Desk, Question, Refusal, RefusalKind};
pub use backoff::Backoff;
pub use clock::{Clock, ManualClock, SystemClock};
pub use component::{
    BuildError, Class, ComponentError, Connector, Context, Exporter, Factory, Instance, Listeners, Make, Problem, Processed,
    Processor, Receiver, ReceiverInstance, Services, StartError,
};
pub use counters::{Counters, Counts, Flight};
pub use dead_letters::{DeadLetter, DeadLetters, dead_letter_files, read_dead_letters};
pub use difference::{Difference, changed_keys};
pub use edge::{Delivery, Edge, Input, Output, Outputs, Refused, Room};
pub use graph::{GraphProblem, Plan, Used, plan};
pub use history::{History, Progress, Span};
pub use id::ComponentId;
pub use memory::{Available, Machine, Memory, Pressure, resident};
pub use observer::{Judgement, Observer, Track, Watched};
pub use origin::{BatchId, Mark, Origin};
pub use outbox::{Outbox, OutboxLevels, OutboxSettings};
pub use receipt::{Lost, Receipt, Row, Waiting};
pub use registry::{ComponentInfo, Health, Registry, Status};
pub use reload::{Change, ReloadError};
pub use run::{Running, start};
pub use spec::{EnvironmentSpec, PipelineKind, PipelineSpec};
pub use tasks::Drained;
pub use text_file::TextFile;
