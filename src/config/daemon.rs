//! The daemon file: `config/<deployment>.yml`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::blocks::{AiService, Alerts, Audit, DataCollection, Redis, Security, WITHOUT_EFFECT};
use super::scalars::{ByteSize, Duration, Endpoint, MemoryLimit};
use crate::pipeline::changed_keys;
use crate::storage::LogOptions;

/// One anomalyd daemon: which environments it watches, and what it needs for itself.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// The pipeline files, one per environment; paths start from the folder of this file.
    #[schemars(length(min = 1))]
    pub environments: Vec<PathBuf>,
    /// Where the daemon keeps what must survive a restart.
    #[serde(default)]
    pub storage: Storage,
    /// The port for health checks and Prometheus.
    #[serde(default)]
    pub server: Server,
    /// What the daemon tells about itself.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// How pipelines are run.
    #[serde(default)]
    pub pipeline: Pipeline,
    /// How much memory the daemon may use.
    #[serde(default)]
    pub memory: Memory,
    /// A Redis that several daemons share. Without it, state is kept in `storage.data_dir`.
    #[serde(default)]
    pub redis: Option<Redis>,
    /// How detectors learn.
    #[serde(default)]
    pub ai_service: Option<AiService>,
    /// Whom to tell about incidents.
    #[serde(default)]
    pub alerts: Option<Alerts>,
    /// How data is taken in.
    #[serde(default)]
    pub data_collection: Option<DataCollection>,
    /// Who may use the daemon's interfaces.
    #[serde(default)]
    pub security: Option<Security>,
    /// What is recorded of who used them.
    #[serde(default)]
    pub audit: Option<Audit>,
}

impl Daemon {
    /// The keys in which `other` differs and that a running daemon does not take up. What pipelines take over from
    /// here (`ai_service`) is in their plans; what has no effect needs no restart either.
    #[must_use]
    pub fn after_restart(&self, other: &Self) -> Vec<String> {
        const ELSEWHERE: [&str; 3] = ["environments", "ai_service", "memory"];
        let json = |daemon: &Self| serde_json::to_value(daemon).unwrap_or_default();
        let mut keys = changed_keys("", &json(self), &json(other));
        let begins =
            |key: &str, block: &str| key.strip_prefix(block).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let without_effect = WITHOUT_EFFECT.iter().map(|(block, _)| *block);
        let other_blocks: Vec<&str> = ELSEWHERE.into_iter().chain(without_effect).collect();
        keys.retain(|key| !other_blocks.iter().any(|block| begins(key, block)));
        // It may be said in two places.
        if self.memory_limit() != other.memory_limit() {
            keys.push("memory.limit".to_owned());
        }
        keys
    }

    /// How much memory the daemon may use.
    #[must_use]
    pub fn memory_limit(&self) -> MemoryLimit {
        let older = self.data_collection.and_then(|block| block.max_memory).map(MemoryLimit::Size);
        self.memory.limit.or(older).unwrap_or(MemoryLimit::Share(80))
    }
}

/// How much memory the daemon may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Memory {
    /// What the process may hold: a share of the limit of its cgroup (a container, a service), else of the machine's memory;
    /// or a size of at least 64MiB. Left out: 80%. Near it, from 85 % on, no new series are learnt and pollers slow down; when
    /// it is reached requests are refused with codes that make clients send again. Leave room for what is read from
    /// files, which the kernel counts too.
    pub limit: Option<MemoryLimit>,
}

/// Where the daemon keeps what must survive a restart.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Storage {
    /// The only folder that is written to. A relative path starts from the folder the daemon is started in.
    #[schemars(length(min = 1))]
    pub data_dir: PathBuf,
    /// What was accepted and is not in a checkpoint yet.
    pub input_log: InputLog,
    /// How often everything that was learnt is written to disk, beside the work: at least. Also after 5 million observations
    /// (more where there are more than 100,000 series) and when a quarter of the input log is filled. After a crash, what came
    /// in since is learnt again from the input log, which is a matter of seconds therefore.
    #[schemars(extend("x-minimum" = "1s", "x-maximum" = "1h"))]
    pub checkpoint_interval: Duration,
    /// What was found and waits for exporters: one for each detector.
    pub outbox: Outbox,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            input_log: InputLog::default(),
            checkpoint_interval: Duration::from_secs(300),
            outbox: Outbox::default(),
        }
    }
}

/// What was found and waits for exporters: one for each detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Outbox {
    /// How large it may become. When it is full, the oldest findings that an exporter has not taken go to its
    /// dead-letter file.
    #[schemars(extend("x-minimum" = "16MiB"))]
    pub max_size: ByteSize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self { max_size: ByteSize::mib(1024) }
    }
}

/// The log, on disk, of everything that detectors take in: one for each environment. A client hears success when what
/// it sent is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InputLog {
    /// Without it success means that the data is in memory: faster where the disk is slow, and what came in since the
    /// last checkpoint is lost when the process is killed.
    pub enabled: bool,
    /// How large it may become for one environment. A checkpoint gives its room back, and is made before it is full;
    /// when that fails, clients are told to keep what they have.
    #[schemars(extend("x-minimum" = "16MiB"))]
    pub max_size: ByteSize,
    /// It is kept in files of about this size; they are removed as a whole.
    #[schemars(extend("x-minimum" = "1MiB", "x-maximum" = "4GiB"))]
    pub segment_size: ByteSize,
}

impl InputLog {
    /// As the storage takes it; `None` where it is off.
    #[must_use]
    pub fn options(&self) -> Option<LogOptions> {
        self.enabled.then(|| LogOptions { segment_size: self.segment_size.bytes(), max_size: self.max_size.bytes() })
    }
}

impl Default for InputLog {
    fn default() -> Self {
        Self { enabled: true, max_size: ByteSize::mib(2048), segment_size: ByteSize::mib(64) }
    }
}

/// The port for health checks, Prometheus, and what people ask and tell the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Where `/health`, `/metrics` and `/series` are served, and `/mute`, `/unmute`, `/feedback`, `/reload` and
    /// `/dead-letters/resend` are taken.
    pub endpoint: Endpoint,
    /// Whether other machines may mute series, give feedback and have the daemon reload its files. There is no
    /// authentication yet: whoever reaches the port may do it then.
    pub remote_commands: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self { endpoint: Endpoint::new("127.0.0.1", 13133), remote_commands: false }
    }
}

/// What the daemon tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Its log, on stderr.
    pub logs: Logs,
    /// Sends its own traces and metrics over OTLP. Without it, they are not sent.
    pub otlp: Option<Otlp>,
}

/// The daemon's log, on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// The least severe messages that are written.
    pub level: LogLevel,
    /// How they are written.
    pub format: LogFormat,
}

/// The least severe messages that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say all, and described variants would not be one enum in the schema")]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// Lower case name, as log filters take it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say all, and described variants would not be one enum in the schema")]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Sends the daemon's own traces and metrics over OTLP/gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// Where to: the URL of an OTLP/gRPC receiver.
    #[schemars(extend("format" = "uri", "examples" = ["http://collector:4317"]))]
    pub endpoint: String,
    /// How often metrics are sent.
    #[serde(default = "a_minute")]
    #[schemars(extend("x-minimum" = "1s"))]
    pub interval: Duration,
    /// The `service.name` under which the daemon reports.
    #[serde(default = "anomalyd")]
    #[schemars(length(min = 1))]
    pub service_name: String,
}

const fn a_minute() -> Duration {
    Duration::from_secs(60)
}

fn anomalyd() -> String {
    "anomalyd".to_owned()
}

/// How pipelines are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pipeline {
    /// How many batches wait in front of a component before its senders wait.
    #[schemars(range(min = 1, max = 65536))]
    pub queue_size: usize,
    /// How long a stopping daemon, or an environment that a reload changes, may take to hand on what it has accepted;
    /// what is left then is dropped and counted.
    pub shutdown_deadline: Duration,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self { queue_size: 64, shutdown_deadline: Duration::from_secs(30) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(text: &str) -> Daemon {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_needs_a_restart_is_named_and_the_rest_is_not() {
        let before = daemon(r#"{ "environments": ["a.yml"], "server": { "endpoint": "127.0.0.1:1" } }"#);
        let after = daemon(
            r#"{ "environments": ["a.yml", "b.yml"], "server": { "endpoint": "127.0.0.1:2", "remote_commands": true },
                 "storage": { "data_dir": "elsewhere" }, "pipeline": { "queue_size": 7, "shutdown_deadline": "5s" },
                 "telemetry": { "otlp": { "endpoint": "http://collector:4317" } }, "ai_service": { "training_samples": 500 },
                 "audit": { "log_all_requests": true }, "data_collection": { "batch_size": 7, "max_memory": "512MB" } }"#,
        );
        let keys = before.after_restart(&after);
        let expected = [
            "pipeline.queue_size",
            "pipeline.shutdown_deadline",
            "server.endpoint",
            "server.remote_commands",
            "storage.data_dir",
            "telemetry.otlp",
            "memory.limit",
        ];
        assert_eq!(keys, expected);
        assert!(after.after_restart(&after).is_empty());
    }
}
