//! The keys of a `file` exporter.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::ByteSize;

/// Writes anomalies to a file, one JSON object per line.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file. It and its folders are made; where it is there already, it is appended to.
    pub path: PathBuf,
    /// When the file is put aside for a new one. Without it, the file grows, or something else moves it away.
    #[serde(default)]
    pub rotation: Option<Rotation>,
}

/// When a file is put aside, and how many are kept.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rotation {
    /// The file is put aside before it would grow beyond this size.
    #[schemars(extend("x-minimum" = "1KiB"))]
    pub max_size: ByteSize,
    /// How many files that were put aside are kept: `<path>.1` is the newest.
    #[schemars(range(max = 10_000))]
    pub backups: u32,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_size: ByteSize::mib(100), backups: 5 }
    }
}
