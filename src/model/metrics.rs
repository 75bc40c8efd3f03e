//! Metric points in columns.

use serde::{Deserialize, Serialize};

use super::{AttributeRange, Attributes, Symbol, Symbols, UnixNanos};

/// Whether a sum or histogram says the change since the last point, or the total since a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Temporality {
    /// Change since the point before.
    Delta,
    /// Total since `start`.
    Cumulative,
}

/// What kind of instrument a metric comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricKind {
    /// A sampled value.
    Gauge,
    /// A sum; a monotonic one is a counter.
    Sum {
        /// Delta or cumulative.
        temporality: Temporality,
        /// Whether it only grows.
        monotonic: bool,
    },
    /// A histogram: explicit bounds, or exponential.
    Histogram {
        /// Delta or cumulative.
        temporality: Temporality,
    },
    /// Quantiles that the client computed.
    Summary,
}

/// Name, unit and kind of a metric; an index into [`Points::metrics`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// Name: `http.server.request.duration`.
    pub name: Symbol,
    /// UCUM unit, may be empty: `s`, `By`, `{request}`.
    pub unit: Symbol,
    /// Kind.
    pub kind: MetricKind,
}

/// See [`Metric`].
pub type Instrument = u32;

/// A distribution as a list of (representative value, how many) in the batch's pool.
///
/// Explicit and exponential histograms and summaries all become this: what is learnt from them is a sketch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// How many values.
    pub count: f64,
    /// Their sum; NaN where it is not known.
    pub sum: f64,
    /// Range in [`Points::bins`]; for a summary: (value, quantile 0..=1) pairs.
    pub bins: (u32, u32),
}

/// What a point says.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum PointValue {
    /// Gauge or sum.
    Number(f64),
    /// Histogram or summary.
    Distribution(Distribution),
}

/// One point of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// The resource's attributes.
    pub resource: AttributeRange,
    /// Which metric: index in [`Points::metrics`].
    pub metric: Instrument,
    /// When it was measured.
    pub time: UnixNanos,
    /// Start of a sum or histogram, 0 where not known.
    pub start: UnixNanos,
    /// Its value.
    pub value: PointValue,
    /// The point's attributes.
    pub attributes: AttributeRange,
}

/// A batch of metric points. Rows hold only fixed-size values.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Points {
    /// The batch's texts.
    pub symbols: Symbols,
    /// The batch's attributes.
    pub attributes: Attributes,
    /// The metrics that the rows refer to.
    pub metrics: Vec<Metric>,
    /// Bins of all distributions: (representative value, count), finite, counts at least 0, ascending values.
    pub bins: Vec<(f64, f64)>,
    /// The points.
    pub rows: Vec<Point>,
}

impl Points {
    /// The bins of one distribution.
    #[must_use]
    pub fn bins_of(&self, distribution: &Distribution) -> &[(f64, f64)] {
        self.bins.get(distribution.bins.0 as usize..distribution.bins.1 as usize).unwrap_or(&[])
    }
}
