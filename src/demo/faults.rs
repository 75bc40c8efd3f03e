//! What goes wrong in the demo, when, and by which series it should be noticed.

use serde::Serialize;

use crate::model::{Anomaly, Direction, UnixNanos};

/// Nanoseconds in a minute.
pub(super) const MINUTE: u64 = 60 * UnixNanos::SECOND;

/// How long after its end what a fault has done may still show: a value that has come back to normal differs from the
/// minutes before it just as much.
pub(super) const AFTERMATH: u64 = 10 * MINUTE;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The calls of one operation take `factor` times as long.
    Latency {
        /// Span name.
        operation: &'static str,
        /// How many times as long.
        factor: f64,
    },
    /// A share of the calls of all operations fails.
    Errors {
        /// 0 to 1.
        share: f64,
    },
    /// Only a part of the calls of all operations comes in.
    Traffic {
        /// 0 to 1: what is left.
        left: f64,
    },
    /// Error records come `factor` times as often, while the calls are as always.
    Logs {
        /// How many times as often.
        factor: f64,
    },
}

/// One fault of one service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fault {
    /// Where.
    pub environment: &'static str,
    /// Whose.
    pub service: &'static str,
    /// What.
    pub effect: Effect,
    /// From.
    pub start: UnixNanos,
    /// To, exclusive.
    pub end: UnixNanos,
}

/// How an anomaly and a fault belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is what should be found: the right series, the right direction, while the fault lasts.
    Finding,
    /// The same service shows it at the same time, or shortly after, in another series or direction.
    Consequence,
}

impl Fault {
    /// Whether it is there at `time`.
    #[must_use]
    pub(super) const fn active(&self, time: UnixNanos) -> bool {
        time.0 >= self.start.0 && time.0 < self.end.0
    }

    /// In words: `POST /checkout takes 4 times as long`.
    #[must_use]
    pub fn words(&self) -> String {
        match self.effect {
            Effect::Latency { operation, factor } => format!("{} {operation} takes {factor} times as long", self.service),
            Effect::Errors { share } => format!("{} fails {:.0} % of its calls", self.service, share * 100.0),
            Effect::Traffic { left } => format!("{} gets {:.0} % fewer calls", self.service, (1.0 - left) * 100.0),
            Effect::Logs { factor } => format!("{} writes {factor} times as many error records", self.service),
        }
    }

    /// How `anomaly` belongs to it, if it does.
    #[must_use]
    pub fn relation(&self, anomaly: &Anomaly) -> Option<Relation> {
        let here = anomaly.environment.as_str() == self.environment && anomaly.entity.service == self.service;
        let meanwhile = anomaly.window.end > self.start && anomaly.window.start < self.end;
        let soon = anomaly.window.end > self.start && anomaly.window.start < self.end.plus(AFTERMATH);
        if !here || !soon {
            return None;
        }
        let (metric, function) = (anomaly.metric.as_str(), anomaly.function.as_str());
        let higher = anomaly.direction == Direction::Spike;
        let expected = match self.effect {
            Effect::Latency { operation, .. } => {
                let latency = metric == "span" && !matches!(function, "rate" | "error_share");
                latency && higher && anomaly.entity.operation.as_deref() == Some(operation)
            }
            Effect::Errors { .. } => metric == "span" && function == "error_share" && higher,
            Effect::Traffic { .. } => {
                metric == "span" && function == "rate" && matches!(anomaly.direction, Direction::Dip | Direction::Missing)
            }
            Effect::Logs { .. } => {
                let errors = anomaly.entity.attributes.iter().any(|(_, value)| value == "error");
                metric == "log.records" && errors && higher
            }
        };
        Some(if expected && meanwhile { Relation::Finding } else { Relation::Consequence })
    }
}

/// How long the demo watches after it has learnt: the last hours, in which the faults are.
pub(super) const WATCH: u64 = 240 * MINUTE;

/// The faults of the hours that end at `end`: four in production, each of another kind, with quiet time between them.
#[must_use]
pub(super) fn schedule(end: UnixNanos) -> Vec<Fault> {
    let watch = end.minus(WATCH);
    let fault = |service, effect, begins: u64, lasts: u64| Fault {
        environment: "production",
        service,
        effect,
        start: watch.plus(begins * MINUTE),
        end: watch.plus((begins + lasts) * MINUTE),
    };
    vec![
        fault("checkout", Effect::Latency { operation: "POST /checkout", factor: 4.0 }, 40, 12),
        fault("payments", Effect::Errors { share: 0.3 }, 95, 12),
        fault("catalog", Effect::Traffic { left: 0.1 }, 150, 15),
        fault("checkout", Effect::Logs { factor: 20.0 }, 205, 10),
    ]
}
