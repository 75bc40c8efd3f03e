//! The daemon as a process: the real binary, configuration files of its own, free ports.

use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::metrics::Metrics;
use super::{eventually, free_port, pipelines};

/// The configuration files and data of a daemon; outlives its restarts.
pub(crate) struct Setup {
    folder: tempfile::TempDir,
    admin: u16,
    environments: Vec<String>,
    data: PathBuf,
    storage: String,
    more: String,
}

impl Setup {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        Self { folder, admin: free_port(), environments: Vec::new(), data, storage: String::new(), more: String::new() }
    }

    /// Environments that take OTLP at the same ports and print what they find; the rest of their pipeline files, and the
    /// ports for gRPC and HTTP.
    pub(crate) fn otlp(environments: &[&str]) -> (Self, String, [u16; 2]) {
        let (grpc, http) = (free_port(), free_port());
        let (mut setup, pipeline) = (Self::new(), pipelines::otlp_to_console(grpc, http));
        for environment in environments {
            setup.environment(environment, &pipeline);
        }
        (setup, pipeline, [grpc, http])
    }

    /// Adds an environment: the rest of its pipeline file.
    pub(crate) fn environment(&mut self, name: &str, rest: &str) -> &mut Self {
        self.rewrite(name, rest);
        self.environments.push(name.to_owned());
        self
    }

    /// Changes the rest of an environment's pipeline file.
    pub(crate) fn rewrite(&self, name: &str, rest: &str) {
        let path = self.folder.path().join(format!("{name}.yml"));
        std::fs::write(path, format!("environment: {name}\n{rest}")).expect("the pipeline file");
    }

    /// Takes an environment out.
    pub(crate) fn without(&mut self, name: &str) -> &mut Self {
        self.environments.retain(|environment| environment != name);
        self
    }

    /// Adds lines to the daemon's own file.
    pub(crate) fn more(&mut self, lines: &str) -> &mut Self {
        self.more.push_str(lines);
        self
    }

    /// Adds keys to the block `storage`.
    pub(crate) fn storage(&mut self, keys: &str) -> &mut Self {
        self.storage.push_str(", ");
        self.storage.push_str(keys);
        self
    }

    /// Takes another data directory than `data` in the folder of this setup.
    pub(crate) fn data_at(&mut self, folder: &Path) -> &mut Self {
        folder.clone_into(&mut self.data);
        self
    }

    /// The data directory.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// Takes this port for `/health` and `/metrics`.
    pub(crate) const fn at(&mut self, admin: u16) -> &mut Self {
        self.admin = admin;
        self
    }

    /// The port of `/health` and `/metrics`.
    pub(crate) const fn admin(&self) -> u16 {
        self.admin
    }

    /// A path in the folder of this setup.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the daemon's own file; its path.
    pub(crate) fn config(&self) -> PathBuf {
        let files: Vec<String> = self.environments.iter().map(|e| format!("{e}.yml")).collect();
        let config = format!(
            "environments: [{}]\nstorage: {{ data_dir: \"{}\"{} }}\nserver: {{ endpoint: \"127.0.0.1:{}\" }}\n{}",
            files.join(", "),
            self.data.display(),
            self.storage,
            self.admin,
            self.more,
        );
        let path = self.folder.path().join("daemon.yml");
        std::fs::write(&path, config).expect("the daemon's file");
        path
    }

    /// Starts the daemon and waits until it is healthy.
    pub(crate) async fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        eventually("the daemon to be healthy", Duration::from_secs(60), async || {
            if let Some(status) = daemon.ended() {
                let said = daemon.said();
                // Between two starts, a connection of another test may have the port for a moment.
                assert!(said.contains("Address already in use"), "the daemon ended at its start: {status}\n{said}");
                daemon = self.spawn();
                return Err(said);
            }
            match get(self.admin, "/health").await {
                Ok((200, _)) => Ok(()),
                other => Err(format!("/health: {other:?}\n{}", daemon.said())),
            }
        })
        .await;
        daemon
    }

    /// Starts the daemon.
    pub(crate) fn spawn(&self) -> Daemon {
        Daemon::spawn(&self.config(), self.admin)
    }
}

/// A running daemon; killed when it is let go.
pub(crate) struct Daemon {
    child: Child,
    admin: u16,
    output: Arc<Mutex<String>>,
    errors: Arc<Mutex<String>>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Daemon {
    fn spawn(config: &Path, admin: u16) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_anomalyd"))
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon's binary starts");
        let mut readers = Vec::new();
        let output = follow(child.stdout.take(), &mut readers);
        let errors = follow(child.stderr.take(), &mut readers);
        Self { child, admin, output, errors, readers }
    }

    /// What it has printed: anomalies, where it has a console exporter.
    pub(crate) fn printed(&self) -> String {
        self.output.lock().expect("the output").clone()
    }

    /// What it has logged, the last 200 lines.
    pub(crate) fn said(&self) -> String {
        let all = self.errors.lock().expect("the log").clone();
        let lines: Vec<&str> = all.lines().collect();
        lines[lines.len().saturating_sub(200)..].join("\n")
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the daemon's state")
    }

    /// `/health`: the status and the body.
    pub(crate) async fn health(&self) -> (u16, String) {
        get(self.admin, "/health").await.unwrap_or_else(|e| panic!("/health: {e}\n{}", self.said()))
    }

    /// `/metrics`; every scrape must balance.
    pub(crate) async fn metrics(&self) -> Metrics {
        let (status, text) = get(self.admin, "/metrics").await.unwrap_or_else(|e| panic!("/metrics: {e}\n{}", self.said()));
        assert_eq!(status, 200, "/metrics: {text}");
        let metrics = Metrics::parse(&text);
        metrics.assert_balanced();
        metrics
    }

    /// Scrapes until `done`; the scrape that was.
    pub(crate) async fn metrics_when(&self, what: &str, limit: Duration, done: impl Fn(&Metrics) -> bool) -> Metrics {
        eventually(what, limit, async || {
            let metrics = self.metrics().await;
            if done(&metrics) { Ok(metrics) } else { Err(format!("{}\n{}", metrics.text(), self.said())) }
        })
        .await
    }

    /// SIGTERM, and how it ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        self.end(Duration::from_secs(60)).await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn end(&mut self, limit: Duration) -> ExitStatus {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                // Everything that it said has been read then.
                self.readers.drain(..).for_each(|reader| reader.join().expect("the text is read"));
                return status;
            }
            assert!(begin.elapsed() < limit, "the daemon runs on after {limit:?}:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("---- the daemon's log\n{}", self.said());
        }
    }
}

/// Sends SIGTERM.
pub(crate) fn terminate(pid: u32) {
    signal(pid, "TERM");
}

/// Sends a signal, by its name without `SIG`.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status().expect("kill");
    assert!(sent.success(), "kill: {sent}");
}

/// Keeps what a stream says, as it says it.
fn follow(stream: Option<impl Read + Send + 'static>, readers: &mut Vec<std::thread::JoinHandle<()>>) -> Arc<Mutex<String>> {
    let kept = Arc::new(Mutex::new(String::new()));
    if let Some(stream) = stream {
        let kept = Arc::clone(&kept);
        readers.push(std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut kept = kept.lock().expect("the text");
                kept.push_str(&line);
                kept.push('\n');
            }
        }));
    }
    kept
}

/// Gets a page of this machine: the status and the body.
pub(crate) async fn get(port: u16, path: &str) -> Result<(u16, String), String> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().map_err(|e| e.to_string())?;
    let answer = client.get(format!("http://127.0.0.1:{port}{path}")).send().await.map_err(|e| e.to_string())?;
    let status = answer.status().as_u16();
    Ok((status, answer.text().await.map_err(|e| e.to_string())?))
}
