//! Files become checked configuration.
//!
//! [`load`] reads a daemon file and the pipeline files that it names: YAML to a tree that knows its places
//! (`yaml`, `tree`), variables (`variables`), comparison with the JSON Schema of the structs (`schema`, `check`,
//! `variants`), the components' own checks and the graph's (`load`). Everything that is wrong is told at once
//! (`diagnostics`), and no secret is told with it (`mask`).

mod blocks;
mod check;
mod daemon;
mod diagnostics;
mod environment;
mod format;
mod inherit;
mod load;
mod mask;
pub mod reference;
mod resolved;
mod scalars;
pub mod schema;
mod source;
mod tree;
mod variables;
mod variants;
mod yaml;

pub use blocks::{
    AiService, Alerts, Audit, Channel, Contamination, DataCollection, Encryption, ModelType, RateLimiting, Redis, RedisCluster,
    RedisServer, Security, True,
};
pub use daemon::{Daemon, LogFormat, LogLevel, Logs, Memory, Otlp, Pipeline, Server, Storage, Telemetry};
pub use diagnostics::{Diagnostics, Note, Position};
pub use load::{Loaded, load, load_from};
pub use scalars::{ByteSize, Duration, Endpoint, MemoryLimit, Secret};
pub use source::{Disk, Files, Texts};

#[cfg(test)]
mod tests;
