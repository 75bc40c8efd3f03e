//! Log records in columns.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{AttributeRange, Attributes, Symbol, Symbols, UnixNanos};

/// One of the six bands of OpenTelemetry's severity numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SeverityBand {
    /// Severity numbers 1 to 4.
    Trace,
    /// 5 to 8.
    Debug,
    /// 9 to 12, and records that do not say.
    Info,
    /// 13 to 16.
    Warn,
    /// 17 to 20.
    Error,
    /// 21 to 24.
    Fatal,
}

impl SeverityBand {
    /// The band of a severity number; 0 (not said) counts as `Info`.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1..=4 => Self::Trace,
            5..=8 => Self::Debug,
            13..=16 => Self::Warn,
            17..=20 => Self::Error,
            21..=24 => Self::Fatal,
            _ => Self::Info,
        }
    }

    /// The lowest severity number that a level's usual name stands for
    /// (`warning`, `ERR`, `crit`, ...; syslog's and log4j's names included), or `None`.
    #[must_use]
    pub fn number_of(level: &str) -> Option<u8> {
        const NAMES: [(&str, u8); 20] = [
            ("trace", 1),
            ("verbose", 1),
            ("finest", 1),
            ("debug", 5),
            ("fine", 5),
            ("info", 9),
            ("information", 9),
            ("informational", 9),
            ("notice", 10),
            ("warn", 13),
            ("warning", 13),
            ("error", 17),
            ("err", 17),
            ("severe", 17),
            ("critical", 21),
            ("crit", 21),
            ("fatal", 21),
            ("alert", 21),
            ("emerg", 21),
            ("panic", 21),
        ];
        NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(level.trim())).map(|&(_, number)| number)
    }

    /// Lower case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

/// One log record.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogRecord {
    /// The resource's attributes.
    pub resource: AttributeRange,
    /// When it happened, or was observed where that is not known.
    pub time: UnixNanos,
    /// OpenTelemetry severity number 1-24, 0 where neither a number nor a known level name was given.
    pub severity_number: u8,
    /// The text; a structured body as JSON text.
    pub body: Symbol,
    /// Event name, empty for a plain record.
    pub event_name: Symbol,
    /// Trace, zeros where not known.
    pub trace_id: [u8; 16],
    /// Span, zeros where not known.
    pub span_id: [u8; 8],
    /// The record's attributes.
    pub attributes: AttributeRange,
}

/// A batch of log records. Rows hold only fixed-size values.
#[derive(Clone, Debug, Default)]
pub struct LogRecords {
    /// The batch's texts.
    pub symbols: Symbols,
    /// The batch's attributes.
    pub attributes: Attributes,
    /// The records.
    pub rows: Vec<LogRecord>,
}
