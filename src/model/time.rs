//! Event time.

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01T00:00:00Z, as OTLP counts them. 0 means "not known" on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixNanos(pub u64);

impl UnixNanos {
    /// Nanoseconds in a second.
    pub const SECOND: u64 = 1_000_000_000;

    /// The moment `seconds` after the epoch.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(Self::SECOND))
    }

    /// The moment `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Whole seconds since the epoch.
    #[must_use]
    pub const fn secs(self) -> u64 {
        self.0 / Self::SECOND
    }

    /// Seconds since the epoch with their fraction (53 bits: about 0.2 us in this century).
    #[must_use]
    pub fn secs_f64(self) -> f64 {
        self.0 as f64 / Self::SECOND as f64
    }

    /// The start of the step of `width` nanoseconds that holds this moment. A `width` of 0 changes nothing.
    #[must_use]
    pub const fn floor(self, width: u64) -> Self {
        if width == 0 { self } else { Self(self.0 - self.0 % width) }
    }

    /// This moment and `nanos` later, at most the end of the range.
    #[must_use]
    pub const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// This moment and `nanos` earlier, at least the epoch.
    #[must_use]
    pub const fn minus(self, nanos: u64) -> Self {
        Self(self.0.saturating_sub(nanos))
    }

    /// RFC 3339 in UTC with milliseconds: `2026-01-15T10:30:00.000Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let seconds = i64::try_from(self.secs()).unwrap_or(i64::MAX);
        let nanos = u32::try_from(self.0 % Self::SECOND).unwrap_or(0);
        chrono::DateTime::from_timestamp(seconds, nanos)
            .map(|t| t.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
            .unwrap_or_else(|| format!("{}ns", self.0))
    }
}

impl std::fmt::Display for UnixNanos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.rfc3339())
    }
}
