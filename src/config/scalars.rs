//! The values that configuration files are written in beside text, numbers and switches.
//!
//! Each has one parser, which serde uses when a value is read and which the check of a file uses for its
//! message. The JSON Schema of each carries the parser's name as its `format`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The `format`s of these values in our JSON Schemas; `format` has those of other strings.
pub(super) const DURATION: &str = "human-duration";
pub(super) const BYTE_SIZE: &str = "byte-size";
pub(super) const ENDPOINT: &str = "host-port";
pub(super) const MEMORY_LIMIT: &str = "memory-limit";

/// What is printed in place of a secret.
pub(crate) const REDACTED: &str = "[redacted]";

/// A span of time: `500ms`, `30s`, `1m`, `1h 30m`. Up to 100 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration(std::time::Duration);

impl Duration {
    /// `seconds` long.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// `milliseconds` long.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(std::time::Duration::from_millis(milliseconds))
    }

    /// As the standard library's type.
    #[must_use]
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// In nanoseconds, in which event time is counted; at most the end of the range.
    #[must_use]
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected a number and a unit, such as `500ms`, `30s`, `1m` or `1h 30m`";
        let text = text.trim();
        if text.starts_with('-') {
            return Err("a duration cannot be negative".to_owned());
        }
        if text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '.') {
            return Err(format!("`{text}` has no unit: write `{text}s` for seconds, `{text}m` for minutes"));
        }
        // humantime reads `M` as months, which nobody means by `5M`.
        if text.ends_with('M') {
            return Err(format!("`{text}` is not a duration: write `m` for minutes"));
        }
        let duration = humantime::parse_duration(text).map_err(|_| format!("`{text}` is not a duration: {EXPECTED}"))?;
        if duration > std::time::Duration::from_secs(100 * 366 * 86_400) {
            return Err(format!("`{text}` is too long: expected at most 100 years"));
        }
        Ok(Self(duration))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not in months and years, which are no exact spans.
        let units = [("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)];
        let finer = [("ms", 1_000_000), ("us", 1_000), ("ns", 1)];
        let mut left = self.0.as_nanos();
        let mut separator = "";
        for (unit, nanos) in units.into_iter().chain(finer) {
            if left >= nanos {
                write!(f, "{separator}{}{unit}", left / nanos)?;
                left %= nanos;
                separator = " ";
            }
        }
        if separator.is_empty() { f.write_str("0s") } else { Ok(()) }
    }
}

/// An amount of bytes: `512B`, `100kB`, `512MB` (powers of 1000), `64MiB`, `1.5GiB` (powers of 1024).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

/// Units by falling size, binary before decimal where both fit.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// `bytes` bytes.
    #[must_use]
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// `mebibytes` times 1024 times 1024 bytes.
    #[must_use]
    pub const fn mib(mebibytes: u64) -> Self {
        Self(mebibytes << 20)
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// In bytes, for lengths in memory; the largest `usize` where it is more than that.
    #[must_use]
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a size: expected a number and a unit, such as `512MB` or `64MiB`");
        let text = text.trim();
        if text.starts_with('-') {
            return Err("a size cannot be negative".to_owned());
        }
        let number_ends = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(number_ends);
        let unit = unit.trim_start();
        if unit.is_empty() && !number.is_empty() {
            let written = number.parse().map(|bytes| Self(bytes).to_string()).unwrap_or_default();
            return Err(match written.strip_suffix("iB").or_else(|| written.strip_suffix("MB")) {
                Some(_) => format!("`{text}` has no unit: write `{written}`, or `{text}B` for bytes"),
                None => format!("`{text}` has no unit: write `{text}B` for bytes, `{text}MiB` for mebibytes"),
            });
        }
        let (_, factor) = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).ok_or_else(wrong)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if fraction.is_empty() || fraction.len() > 6 {
            return Err(wrong());
        }
        let too_large = || format!("`{text}` is too large");
        let whole: u64 = whole.parse().map_err(|_| if whole.len() > 19 { too_large() } else { wrong() })?;
        let scale = 10_u64.pow(u32::try_from(fraction.len()).unwrap_or(6));
        let fraction: u64 = fraction.parse().map_err(|_| wrong())?;
        let part = u128::from(fraction) * u128::from(*factor) / u128::from(scale);
        let total = u128::from(whole) * u128::from(*factor) + part;
        u64::try_from(total).map(Self).map_err(|_| too_large())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = UNITS.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        let (unit, factor) = exact.copied().unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// How much memory: a share of what there is, such as `80%`, or a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Percent of the memory of the cgroup, else of the machine: 1 to 100.
    Share(u8),
    /// So many bytes.
    Size(ByteSize),
}

impl MemoryLimit {
    /// In bytes, where there are `room` bytes; `None` for a share of what is not known.
    #[must_use]
    pub fn bytes(self, room: Option<u64>) -> Option<u64> {
        match self {
            Self::Share(percent) => room.map(|room| room / 100 * u64::from(percent)),
            Self::Size(size) => Some(size.bytes()),
        }
    }
}

impl FromStr for MemoryLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const LEAST: ByteSize = ByteSize::mib(64);
        let Some(share) = text.trim().strip_suffix('%') else {
            let size: ByteSize = text.parse().map_err(|why| format!("{why}; or a share of what there is, such as `80%`"))?;
            return if size < LEAST {
                Err(format!("`{text}` is too little: expected at least {LEAST}"))
            } else {
                Ok(Self::Size(size))
            };
        };
        let share = share.trim().parse().ok().filter(|share| (1..=100).contains(share));
        share.map(Self::Share).ok_or_else(|| format!("`{text}` is not a share: expected a whole number from 1% to 100%"))
    }
}

impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(percent) => write!(f, "{percent}%"),
            Self::Size(size) => size.fmt(f),
        }
    }
}

/// A host and a port: `127.0.0.1:4317`, `[::]:4317`, `collector.internal:4317`. Port 0 lets the system choose.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    host: String,
    port: u16,
}

impl Endpoint {
    /// `host` is a name or an address; an IPv6 address without brackets.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port }
    }

    /// The name or address; an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected `host:port`, such as `0.0.0.0:4317`";
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = rest.trim_end_matches('/');
            return Err(format!("an endpoint has no scheme: write `{rest}` without `{scheme}://`"));
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err(match text.parse::<u16>() {
                Ok(port) => format!(
                    "`{text}` has no host: write `0.0.0.0:{port}` for all interfaces, `127.0.0.1:{port}` for this machine"
                ),
                Err(_) => format!("`{text}` has no port: {EXPECTED}"),
            });
        };
        if host.is_empty() {
            return Err(format!(
                "`{text}` has no host: write `0.0.0.0:{port}` for all interfaces, `127.0.0.1:{port}` for this machine"
            ));
        }
        let port: u16 = port.parse().map_err(|_| format!("`{port}` is not a port: expected a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let address = inner.strip_suffix(']').and_then(|a| a.parse::<std::net::Ipv6Addr>().ok());
                address.ok_or_else(|| format!("`{host}` is not an IPv6 address: expected one such as `[::1]`"))?.to_string()
            }
            None if host.contains(':') => return Err(format!("an IPv6 address needs brackets: write `[{host}]:{port}`")),
            None if host.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)) => host.to_owned(),
            None => return Err(format!("`{host}` is not a host name: {EXPECTED}")),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Text that is never printed: keys, passwords, addresses that carry a token.
///
/// `Debug`, `Display` and `Serialize` give `[redacted]`; only [`Secret::expose`] gives the text.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

/// Text on both sides: serde and schema of a scalar that has `FromStr` and `Display`.
macro_rules! textual {
    ($type:ident, $format:expr, $about:literal, $pattern:literal, $examples:expr) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Cow::<str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "description": $about,
                    "format": $format,
                    "pattern": $pattern,
                    "examples": $examples,
                })
            }
        }
    };
}

// The patterns are for editors; the check of a file uses the parser, which explains itself.
textual!(Duration, DURATION, "A span of time.", r"^\s*(\d+\s*[A-Za-zµ]+\s*)+$", ["500ms", "30s", "1h 30m"]);
textual!(ByteSize, BYTE_SIZE, "An amount of bytes.", r"^\s*\d+(\.\d{1,6})?\s*([KkMmGgTt][Ii]?)?[Bb]\s*$", ["512MB", "64MiB"]);
textual!(
    MemoryLimit,
    MEMORY_LIMIT,
    "A share of the memory that there is, or an amount of bytes.",
    r"^\s*(\d{1,3}\s*%|\d+(\.\d{1,6})?\s*([KkMmGgTt][Ii]?)?[Bb])\s*$",
    ["80%", "2GiB"]
);
textual!(Endpoint, ENDPOINT, "A host and a port.", r"^(\[[0-9A-Fa-f:.]+\]|[^:/\[\]\s]+):\d{1,5}$", ["0.0.0.0:4317"]);

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Text that is never printed.",
            "minLength": 1,
            "writeOnly": true,
            "x-secret": true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is said about each of `texts`, which are all wrong.
    fn refusals<T: FromStr<Err = String>>(texts: &[&str]) -> String {
        let refusal = |text: &&str| text.parse::<T>().err().unwrap_or_else(|| panic!("`{text}` was taken"));
        texts.iter().map(refusal).collect::<Vec<_>>().join(
            "
",
        )
    }

    #[test]
    fn durations_need_a_unit_and_say_so() {
        assert_eq!("1h 30m".parse::<Duration>().unwrap(), Duration::from_secs(5400));
        assert_eq!("500ms".parse::<Duration>().unwrap().get().as_millis(), 500);
        assert_eq!("0s".parse::<Duration>().unwrap(), Duration::default());
        insta::assert_snapshot!(refusals::<Duration>(&["30", "-5s", "soon", "", "5M", "5000 years"]));
    }

    #[test]
    fn sizes_tell_powers_of_1000_from_powers_of_1024() {
        assert_eq!("512MB".parse::<ByteSize>().unwrap().bytes(), 512_000_000);
        assert_eq!("64MiB".parse::<ByteSize>().unwrap(), ByteSize::mib(64));
        assert_eq!("1.5 gib".parse::<ByteSize>().unwrap().bytes(), 3 << 29);
        insta::assert_snapshot!(refusals::<ByteSize>(&["512", "67108864", "-1MB", "512M", "99999999999TB", "1.MB"]));
    }

    #[test]
    fn a_memory_limit_is_a_share_or_a_size() {
        assert_eq!("80%".parse::<MemoryLimit>().unwrap(), MemoryLimit::Share(80));
        assert_eq!("2GiB".parse::<MemoryLimit>().unwrap().to_string(), "2GiB");
        insta::assert_snapshot!(refusals::<MemoryLimit>(&["80", "0%", "101%", "half", "1MB", "-5%", ""]));
    }

    #[test]
    fn endpoints_are_a_host_and_a_port() {
        let v6: Endpoint = "[::1]:4317".parse().unwrap();
        assert_eq!((v6.host(), v6.port(), v6.to_string().as_str()), ("::1", 4317, "[::1]:4317"));
        assert_eq!("collector.internal:0".parse::<Endpoint>().unwrap(), Endpoint::new("collector.internal", 0));
        insta::assert_snapshot!(refusals::<Endpoint>(&[
            "4317",
            "localhost",
            ":4317",
            "http://localhost:4317/",
            "localhost:99999",
            "::1:4317",
            "[zz]:1",
            "a b:1"
        ]));
    }

    #[test]
    fn a_secret_is_printed_by_nothing() {
        let secret = Secret::new("hunter2");
        let json = serde_json::to_string(&secret).unwrap();
        assert_eq!((format!("{secret} {secret:?}").as_str(), json.as_str()), ("[redacted] [redacted]", "\"[redacted]\""));
        assert_eq!(serde_json::from_str::<Secret>("\"hunter2\"").unwrap().expose(), "hunter2");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(millis in 0u64..3_000_000_000_000, bytes: u64, port: u16) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
            let size = ByteSize::new(bytes);
            prop_assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
            let endpoint = Endpoint::new("::1", port);
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }

        #[test]
        fn no_text_is_too_strange_to_refuse(text: String) {
            let _ = (text.parse::<Duration>(), text.parse::<ByteSize>(), text.parse::<Endpoint>());
        }
    }
}
