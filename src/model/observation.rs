//! What was measured, before it is put into buckets.

use std::sync::Arc;

use detection::Sketch;
use serde::{Deserialize, Serialize};

use super::{Entity, Environment, ServiceVersion, Signal, SourceId, UnixNanos};

/// A batch of observations of one environment.
#[derive(Clone, Debug)]
pub struct Observations {
    /// Whose.
    pub environment: Environment,
    /// Where the telemetry came in: event time is followed per source.
    pub source: SourceId,
    /// Which signal they were made of.
    pub signal: Signal,
    /// The observations.
    pub items: Vec<Observation>,
    /// The latest event time of the telemetry behind them; 0 where there is none.
    pub newest: UnixNanos,
    /// Versions of services that were seen; bounded per batch.
    pub versions: Vec<ServiceVersion>,
    /// Which services were seen calling which: each pair at most once.
    pub calls: Vec<Call>,
}

/// One service calls another: an edge of the call graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Call {
    /// The service that calls.
    pub caller: Arc<str>,
    /// The service that is called; or a host, database or queue by the name that the caller has for it.
    pub callee: Arc<str>,
}

/// Something measured about one entity at one moment, in a form that adds up.
///
/// The detector adds the measures of a bucket together; the series' values (rate, quantiles, means)
/// are taken when the bucket closes, so it does not matter in which order or pieces they came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Who. Shared between the observations of a batch.
    pub entity: Arc<Entity>,
    /// What: `span`, `log.records`, or the metric's name.
    pub metric: Arc<str>,
    /// UCUM unit, may be empty.
    pub unit: Arc<str>,
    /// When (for spans: the start of the 10 s step they started in).
    pub time: UnixNanos,
    /// How much.
    pub measure: Measure,
}

/// A measure that adds up with others of its kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Measure {
    /// Calls of an operation: rate, error share and latency quantiles come of it.
    Calls {
        /// How many (weighted by sampling).
        count: f64,
        /// How many of them failed.
        errors: f64,
        /// Durations in seconds.
        latency: Sketch,
    },
    /// Events that were counted (log records): absence means zero.
    Count(f64),
    /// A sampled value: the mean over the bucket comes of it.
    Gauge {
        /// Sum of the samples.
        sum: f64,
        /// How many samples.
        count: f64,
    },
    /// A change of a counter: the rate comes of it. Absence means zero.
    Delta(f64),
    /// A distribution of values: rate, mean and quantiles come of it.
    Values(Sketch),
    /// A running total that must be turned into a change first; see [`Reading`].
    Cumulative(Reading),
}

/// A reading of a cumulative counter or histogram. Who holds the one before turns it into a change;
/// a smaller total or a later start is a reset (OTLP metrics data model, "resets and gaps").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// When the total was 0; 0 where not known.
    pub start: UnixNanos,
    /// The total of a counter, or the count of a histogram.
    pub total: f64,
    /// A counter may also fall (an up-down counter): its value is then a level, not a rate.
    pub monotonic: bool,
    /// Bins of a histogram (representative value, cumulative count), empty for a counter.
    pub bins: Vec<(f64, f64)>,
}
