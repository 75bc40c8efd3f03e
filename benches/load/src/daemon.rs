//! A daemon of one's own for a run: its ports, its data folder, its configuration; and what it costs.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::Error;
use crate::metrics;

/// The daemon file where none is given. What `${env:...}` names is set for the daemon.
pub const DAEMON: &str = "\
environments: [load.yml]
storage: { data_dir: \"${env:LOAD_DATA_DIR}\" }
server: { endpoint: \"${env:LOAD_ADMIN}\" }
telemetry: { logs: { level: warn } }
";

/// The pipeline file where none is given.
pub const PIPELINE: &str = "\
environment: load
receivers:
  otlp:
    protocols:
      grpc: { endpoint: \"${env:LOAD_GRPC}\" }
      http: { endpoint: \"${env:LOAD_HTTP}\" }
exporters:
  file: { path: \"${env:LOAD_ANOMALIES}\" }
service:
  pipelines:
    traces: { receivers: [otlp], processors: [red_metrics], exporters: [detector] }
    metrics: { receivers: [otlp], exporters: [detector] }
    logs: { receivers: [otlp], processors: [log_patterns], exporters: [detector] }
    anomalies: { receivers: [detector], exporters: [file] }
";

/// What is run.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The daemon's program.
    pub program: PathBuf,
    /// The text of the daemon file.
    pub daemon: String,
    /// The text of the pipeline file `load.yml`.
    pub pipeline: String,
    /// Below which its folder is made; the system's temporary one if not given. A log is as fast as its disk.
    pub below: Option<PathBuf>,
}

impl Recipe {
    /// A new folder for a daemon.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self) -> Result<TempDir, Error> {
        Ok(match &self.below {
            Some(below) => TempDir::with_prefix_in("load-", below)?,
            None => TempDir::with_prefix("load-")?,
        })
    }
}

/// A running daemon; killed when it is let go.
pub struct Daemon {
    child: Child,
    /// `host:port` of OTLP/gRPC.
    pub grpc: String,
    /// `host:port` of OTLP/HTTP.
    pub http: String,
    /// `host:port` of `/metrics`.
    pub admin: String,
    folder: TempDir,
}

fn free_ports() -> std::io::Result<[String; 3]> {
    let sockets = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let mut ports = sockets.iter().map(|s| s.local_addr().map(|a| a.to_string()));
    let mut next = || ports.next().unwrap_or_else(|| Err(std::io::ErrorKind::NotFound.into()));
    Ok([next()?, next()?, next()?])
}

impl Daemon {
    /// Starts it, and returns when it is healthy.
    ///
    /// # Errors
    /// When it does not start; with the end of what it said.
    pub async fn start(recipe: &Recipe) -> Result<Self, Error> {
        let mut daemon = Self::spawn(recipe, recipe.folder()?)?;
        let began = Instant::now();
        while !matches!(metrics::get(&daemon.admin, "/health").await, Ok((200, _))) {
            daemon.runs()?;
            if began.elapsed() > Duration::from_secs(60) {
                return Err(format!("the daemon is not healthy after a minute\n{}", daemon.said()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(daemon)
    }

    /// Starts it on a folder that another one may have left, and does not wait.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn spawn(recipe: &Recipe, folder: TempDir) -> Result<Self, Error> {
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("daemon.yml"), &recipe.daemon)?;
        std::fs::write(path("load.yml"), &recipe.pipeline)?;
        let [grpc, http, admin] = free_ports()?;
        let child = Command::new(&recipe.program)
            .args(["run", "--config"])
            .arg(path("daemon.yml"))
            .env("LOAD_DATA_DIR", path("data"))
            .env("LOAD_ANOMALIES", path("anomalies.ndjson"))
            .envs([("LOAD_GRPC", &grpc), ("LOAD_HTTP", &http), ("LOAD_ADMIN", &admin)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(path("log"))?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("{}: {e}", recipe.program.display()))?;
        Ok(Self { child, grpc, http, admin, folder })
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// When it has ended; with the end of what it said.
    pub fn runs(&mut self) -> Result<(), Error> {
        match self.child.try_wait()? {
            Some(status) => Err(format!("the daemon ended: {status}\n{}", self.said()).into()),
            None => Ok(()),
        }
    }

    /// The end of its log.
    #[must_use]
    pub fn said(&self) -> String {
        let all = self.log();
        let lines: Vec<&str> = all.lines().collect();
        lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n")
    }

    /// All of its log.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// SIGKILL. Its folder as it left it.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(mut self) -> Result<TempDir, Error> {
        self.child.kill().await?;
        Ok(self.folder)
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Bytes below its data folder.
    #[must_use]
    pub fn data_size(&self) -> u64 {
        size_below(&self.data(), "")
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// SIGTERM; waits until it has drained and ended. Its folder as it left it.
    ///
    /// # Errors
    /// When it does not end within two minutes, or with an error.
    pub async fn stop(mut self) -> Result<TempDir, Error> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM)?;
        }
        let ended = tokio::time::timeout(Duration::from_secs(120), self.child.wait()).await;
        match ended {
            Ok(Ok(status)) if status.success() => Ok(self.folder),
            Ok(Ok(status)) => Err(format!("the daemon ended with {status}\n{}", self.said()).into()),
            Ok(Err(e)) => Err(e.into()),
            Err(_) => Err(format!("the daemon did not end within two minutes of SIGTERM\n{}", self.said()).into()),
        }
    }
}

/// Bytes of the files below `folder` in whose path from there a name begins with `what`.
pub(crate) fn size_below(folder: &Path, what: &str) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| {
            let named = entry.file_name().to_string_lossy().starts_with(what);
            match entry.metadata() {
                Ok(data) if data.is_dir() => size_below(&entry.path(), if named { "" } else { what }),
                Ok(data) if named => data.len(),
                _ => 0,
            }
        })
        .sum()
}

/// Processor time that a process has used, in seconds; known on Linux only.
#[must_use]
pub fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory of a process that is in use, bytes; known on Linux only.
#[must_use]
pub fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Watches memory and processor time of a process until it is let go.
pub struct Watch {
    peak: Arc<AtomicU64>,
    /// Milliseconds.
    cpu: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Watch {
    /// Looks ten times a second, on a thread of its own: a busy machine must not keep it from looking.
    #[must_use]
    pub fn begin(pid: u32) -> Self {
        let watch = Self { peak: Arc::default(), cpu: Arc::default(), stop: Arc::default() };
        let (peak, cpu, stop) = (Arc::clone(&watch.peak), Arc::clone(&watch.cpu), Arc::clone(&watch.stop));
        std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                peak.fetch_max(resident(pid).unwrap_or(0), Relaxed);
                cpu.fetch_max((cpu_seconds(pid).unwrap_or(0.0) * 1000.0) as u64, Relaxed);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        watch
    }

    /// The most that was seen, bytes.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Processor time when it was last looked at, seconds: also of a process that has ended.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        self.cpu.load(Relaxed) as f64 / 1000.0
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}
