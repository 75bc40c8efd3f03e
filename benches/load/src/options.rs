//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::Error;
use crate::client::{Protocol, Target};
use crate::daemon::{DAEMON, PIPELINE, Recipe};
use crate::request::{Shape, Signal};
use crate::run::{Backoff, Clock, Plan};

const EXAMPLES: &str = "\
Examples:
  load --daemon target/release/anomalyd --signal logs --seconds 30
  load --daemon target/release/anomalyd --rate 50000 --connections 2 --in-flight 10
  load --daemon target/release/anomalyd --compare with-log.yml without-log.yml
  load --daemon target/release/anomalyd --overload --memory-limit 512
  load --daemon target/release/anomalyd --recovery --signal metrics
  load --daemon target/release/anomalyd --checkpoint --signal metrics --seconds 200
  load --endpoint collector:4317 --admin collector:13133
The exit code is 1 where anything is unaccounted for, and where nothing came through.";

/// Sends OTLP to a daemon for a bounded time, and asserts that nothing of it is unaccounted for.
#[derive(Clone, Debug, Parser)]
#[command(name = "load", after_help = EXAMPLES)]
pub struct Options {
    /// Starts this program on free ports, with a configuration and a data folder of its own.
    #[arg(long, value_name = "FILE", conflicts_with = "endpoint")]
    pub daemon: Option<PathBuf>,
    /// A daemon that runs, `host:port` of the protocol that is used. Nothing else may send to it.
    #[arg(long, value_name = "ADDRESS", required_unless_present = "daemon")]
    pub endpoint: Option<String>,
    /// `host:port` of its `/metrics`.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:13133")]
    pub admin: String,
    /// Its process, for what it costs.
    #[arg(long)]
    pub pid: Option<u32>,
    /// The daemon file for `--daemon`, in place of the built-in one. It may name `${env:LOAD_DATA_DIR}` and
    /// `${env:LOAD_ADMIN}`; the pipeline file is `load.yml`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The pipeline file for `--daemon`. It may name `${env:LOAD_GRPC}`, `${env:LOAD_HTTP}` and `${env:LOAD_ANOMALIES}`.
    #[arg(long, value_name = "FILE")]
    pub pipeline: Option<PathBuf>,
    /// The daemon's folder is made below this one; by default the system's temporary folder, which may be no disk.
    #[arg(long, value_name = "DIR")]
    pub below: Option<PathBuf>,
    /// What is sent.
    #[arg(long, value_enum, default_value_t = Signal::Logs)]
    pub signal: Signal,
    /// How.
    #[arg(long, value_enum, default_value_t = Protocol::Grpc)]
    pub protocol: Protocol,
    /// Records per request.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub records: u32,
    /// Services.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub services: u32,
    /// Operations of each service: as many series of each metric.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub operations: u32,
    /// Compresses the bodies.
    #[arg(long)]
    pub gzip: bool,
    /// Connections.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// Calls in flight on each of them.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub in_flight: u32,
    /// Records a second; without it as fast as they are taken.
    #[arg(long)]
    pub rate: Option<f64>,
    /// How long new requests are made.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// How long after that what was refused is sent again, seconds.
    #[arg(long, default_value_t = 60.0)]
    pub patience: f64,
    /// How long an answer may take, seconds. A Collector's default is 5.
    #[arg(long, default_value_t = 5.0)]
    pub timeout: f64,
    /// What the first wait before sending again is, milliseconds; a Collector's default is 5000. It grows to ten times
    /// as much.
    #[arg(long, default_value_t = 500)]
    pub backoff_ms: u64,
    /// Two programs, or two daemon files (`.yml`): runs them in turns, and tells the medians and their ratio.
    #[arg(long, num_args = 2, value_names = ["A", "B"], requires = "daemon", conflicts_with = "overload")]
    pub compare: Option<Vec<PathBuf>>,
    /// Runs of each with `--compare`.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Measures what the daemon can take, sends so many times as much for `--seconds`, and sees that its memory stays
    /// below `--memory-limit`, that every refusal may be sent again, and that in the end all is there once.
    #[arg(long, num_args = 0..=1, default_missing_value = "2", value_name = "TIMES", requires = "daemon")]
    pub overload: Option<f64>,
    /// Teaches a daemon `--series` series, sends what fills `--log-mib` of its input log, kills it, and measures `anomalyd
    /// replay` of what the log holds, and how long it takes to come back. In spans or metric points.
    #[arg(long, requires = "daemon", conflicts_with_all = ["compare", "overload"])]
    pub recovery: bool,
    /// Teaches a daemon `--series` series, then sends at `--rate` (10,000 unless given) for `--seconds`, with a checkpoint
    /// so often and without any, and tells what checkpoints cost.
    #[arg(
        long,
        num_args = 0..=1,
        default_missing_value = "30s",
        value_name = "INTERVAL",
        requires = "daemon",
        conflicts_with_all = ["compare", "overload", "recovery"]
    )]
    pub checkpoint: Option<String>,
    /// Series that are learnt for `--recovery` and `--checkpoint`.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(500..))]
    pub series: u64,
    /// How much goes into the log before `--recovery` kills the daemon, MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..))]
    pub log_mib: u64,
    /// The most memory that the daemon may use, MiB. It is told so (`memory.limit`), unless it has a file of its own.
    #[arg(long, value_name = "MIB")]
    pub memory_limit: Option<u64>,
    /// Makes runs that differ in nothing else send other bytes.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Prints one JSON value.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// What is run with `--daemon`.
    ///
    /// # Errors
    /// When a configuration file cannot be read.
    pub fn recipe(&self) -> Result<Option<Recipe>, Error> {
        let Some(program) = self.daemon.clone() else { return Ok(None) };
        let daemon = text(self.config.as_ref(), DAEMON)?;
        let pipeline = text(self.pipeline.as_ref(), PIPELINE)?;
        Ok(Some(Recipe { program, daemon, pipeline, below: self.below.clone() }))
    }

    /// The run against a daemon at `address`.
    #[must_use]
    pub fn plan(&self, address: String) -> Plan {
        let seconds = |s: f64| Duration::try_from_secs_f64(s.max(0.0)).unwrap_or(Duration::MAX);
        let shape = Shape {
            signal: self.signal,
            records: self.records as usize,
            services: self.services as usize,
            operations: self.operations as usize,
            gzip: self.gzip,
            seed: self.seed,
        };
        let (protocol, gzip, signal) = (self.protocol, self.gzip, self.signal);
        Plan {
            shape,
            target: Target { protocol, address, signal, gzip, timeout: seconds(self.timeout) },
            connections: self.connections as usize,
            in_flight: self.in_flight as usize,
            rate: self.rate,
            duration: seconds(self.seconds),
            patience: seconds(self.patience),
            backoff: Backoff {
                first: Duration::from_millis(self.backoff_ms),
                most: Duration::from_millis(self.backoff_ms.saturating_mul(10)),
            },
            numbers: 0..u64::MAX,
            clock: Clock::Now,
        }
    }
}

/// The content of a file, or what stands in for it.
pub(crate) fn text(path: Option<&PathBuf>, otherwise: &str) -> Result<String, Error> {
    match path {
        Some(path) => std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()).into()),
        None => Ok(otherwise.to_owned()),
    }
}
