//! One document becomes one record (or the points of one metric document) of its signal.

use std::collections::HashSet;

use super::columns::Columns;
use super::fields::Fields;
use super::shape::{Reason, Shape, detect, likely_signal};
use super::{ecs, metrics, otel, time};
use crate::model::{Signal, UnixNanos};

/// Where the shapes keep the environment's name.
const ENVIRONMENT: [&str; 3] =
    ["resource.attributes.deployment.environment.name", "resource.attributes.deployment.environment", "service.environment"];

/// A document that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejected {
    /// The signal that it most likely belongs to.
    pub(super) signal: Signal,
    /// Why.
    pub(super) reason: Reason,
    /// What is wrong with it, if it is malformed.
    pub(super) detail: String,
}

/// Reads documents, one after the other, in the same memory.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    fields: Fields,
    /// Only these environments; empty for all.
    only: Vec<String>,
    /// The metrics that are mapped as counters.
    pub(super) counters: HashSet<String>,
}

impl Decoder {
    pub(super) fn new(only: Vec<String>) -> Self {
        Self { only, ..Self::default() }
    }

    /// Adds the document to `columns`, and says to which signal. `time` is its time as Elasticsearch understood it.
    ///
    /// # Errors
    /// Why it was not taken; then nothing was added.
    pub(super) fn decode(
        &mut self,
        index: &str,
        time: UnixNanos,
        source: &str,
        columns: &mut Columns,
    ) -> Result<Signal, Rejected> {
        let malformed = |signal, detail| Rejected { signal, reason: Reason::Malformed, detail };
        if let Err(error) = self.fields.read(source) {
            self.fields = Fields::default();
            return Err(malformed(likely_signal(&self.fields, index), error.to_string()));
        }
        let fields = &self.fields;
        let rejected = |reason| Rejected { signal: likely_signal(fields, index), reason, detail: String::new() };
        let shape = detect(fields).map_err(rejected)?;
        if !self.only.is_empty() && fields.text(&ENVIRONMENT).is_some_and(|e| !self.only.iter().any(|o| o == e)) {
            return Err(rejected(Reason::OtherEnvironment));
        }
        let time = exact(fields, time);
        let result = match shape {
            Shape::OtelSpan => otel::span(fields, time, columns),
            Shape::ApmTransaction => ecs::transaction(fields, time, columns),
            Shape::ApmSpan => ecs::span(fields, time, columns),
            Shape::OtelMetrics => metrics::points(fields, time, &self.counters, columns),
            Shape::OtelLog => {
                otel::log(fields, time, columns);
                Ok(())
            }
            Shape::ApmError => {
                ecs::error(fields, time, columns);
                Ok(())
            }
            Shape::EcsLog => {
                ecs::log(fields, time, columns);
                Ok(())
            }
        };
        let signal = match shape {
            Shape::OtelSpan | Shape::ApmTransaction | Shape::ApmSpan => Signal::Traces,
            Shape::OtelMetrics => Signal::Metrics,
            Shape::OtelLog | Shape::ApmError | Shape::EcsLog => Signal::Logs,
        };
        result.map(|()| signal).map_err(|detail| malformed(signal, detail))
    }
}

/// A field of type `date` has only milliseconds; the document may say it more exactly.
fn exact(fields: &Fields, time: UnixNanos) -> UnixNanos {
    let written = fields.text(&["@timestamp"]).and_then(time::parse);
    written.filter(|t| time::millisecond(*t) == time::millisecond(time)).unwrap_or(time)
}
