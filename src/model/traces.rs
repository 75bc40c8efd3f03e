//! Spans in columns.

use serde::{Deserialize, Serialize};

use super::{AttributeRange, Attributes, Symbol, Symbols, UnixNanos};

/// A span's role, numbered as in OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpanKind {
    /// Not said.
    #[default]
    Unspecified,
    /// Inside one service.
    Internal,
    /// Handles a request.
    Server,
    /// Makes a request.
    Client,
    /// Puts a message on a queue.
    Producer,
    /// Takes a message from a queue.
    Consumer,
}

impl SpanKind {
    /// From OTLP's number; numbers not known are `Unspecified`.
    #[must_use]
    pub const fn from_otlp(number: i64) -> Self {
        match number {
            1 => Self::Internal,
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Unspecified,
        }
    }

    /// Lower case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// How a span ended, numbered as in OTLP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StatusCode {
    /// Not said.
    #[default]
    Unset,
    /// Good.
    Ok,
    /// Failed.
    Error,
}

impl StatusCode {
    /// From OTLP's number; numbers not known are `Unset`.
    #[must_use]
    pub const fn from_otlp(number: i64) -> Self {
        match number {
            1 => Self::Ok,
            2 => Self::Error,
            _ => Self::Unset,
        }
    }
}

/// One span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The resource's attributes.
    pub resource: AttributeRange,
    /// Operation.
    pub name: Symbol,
    /// Role.
    pub kind: SpanKind,
    /// How it ended.
    pub status: StatusCode,
    /// Start.
    pub start: UnixNanos,
    /// End less start, nanoseconds; 0 where the end is before the start or not known.
    pub duration: u64,
    /// How many calls this span stands for (sampling), usually 1; finite and above 0.
    pub weight: f64,
    /// Trace, zeros where not known.
    pub trace_id: [u8; 16],
    /// Span, zeros where not known.
    pub span_id: [u8; 8],
    /// Parent span, zeros for a root.
    pub parent_span_id: [u8; 8],
    /// The span's attributes.
    pub attributes: AttributeRange,
}

impl Span {
    /// When it ended.
    #[must_use]
    pub const fn end(&self) -> UnixNanos {
        self.start.plus(self.duration)
    }
}

/// A batch of spans. Rows hold only fixed-size values: texts are in `symbols`, attributes in `attributes`.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// The batch's texts.
    pub symbols: Symbols,
    /// The batch's attributes.
    pub attributes: Attributes,
    /// The spans.
    pub rows: Vec<Span>,
}

/// How many spans one stands for, from the sampling threshold in its trace state (`ot=th:...`), if there is one.
///
/// Source: OpenTelemetry "TraceState: Probability Sampling": a threshold T of 56 bits, written as up to 14 hex digits
/// without trailing zeros, keeps the share 1 - T / 2^56.
#[must_use]
pub fn adjusted_count(trace_state: &str) -> Option<f64> {
    let ot = trace_state.split(',').find_map(|member| member.trim().strip_prefix("ot="))?;
    let digits = ot.split(';').find_map(|part| part.strip_prefix("th:"))?;
    if digits.is_empty() || digits.len() > 14 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let threshold = u64::from_str_radix(digits, 16).ok()? << (4 * (14 - digits.len()));
    let whole = 1u64 << 56;
    Some(whole as f64 / (whole - threshold) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sampling_threshold_says_how_many_spans_one_stands_for() {
        assert_eq!(adjusted_count("ot=th:8"), Some(2.0));
        assert_eq!(adjusted_count("vendor=x, ot=rv:1;th:c"), Some(4.0));
        assert_eq!(adjusted_count("ot=th:0"), Some(1.0));
        for none in ["", "ot=p:2", "other=th:8", "ot=th:", "ot=th:xyz", "ot=th:123456789012345", "ot=th:+8"] {
            assert_eq!(adjusted_count(none), None, "{none}");
        }
        assert!(adjusted_count("ot=th:ffffffffffffff").unwrap().is_finite());
    }
}
