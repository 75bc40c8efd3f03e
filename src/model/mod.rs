//! The three payloads that travel, and their keys. Plain data: nothing here does I/O or reads a clock.

mod anomaly;
mod attributes;
mod entity;
mod environment;
mod incident;
mod logs;
mod metrics;
mod number;
mod observation;
mod symbols;
mod telemetry;
mod time;
mod traces;
mod version;

pub use anomaly::{Anomaly, DetectorRef, Direction, Past, Reason, Severity, Similar, Window};
pub use attributes::{Attribute, AttributeRange, Attributes, Value};
pub use entity::Entity;
pub use environment::Environment;
pub use incident::{Finding, Findings, Incident, IncidentEvent, IncidentRef, Lead};
pub use logs::{LogRecord, LogRecords, SeverityBand};
pub use metrics::{Distribution, Instrument, Metric, MetricKind, Point, PointValue, Points, Temporality};
pub use observation::{Call, Measure, Observation, Observations, Reading};
pub use symbols::{Symbol, Symbols};
pub use telemetry::{Batch, Payload, PayloadKind, Signal, SourceId, Telemetry};
pub use time::UnixNanos;
pub use traces::{Span, SpanKind, Spans, StatusCode, adjusted_count};
pub use version::{ServiceVersion, VersionsSeen};
