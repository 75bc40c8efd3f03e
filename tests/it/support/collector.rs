//! A real OpenTelemetry Collector and telemetrygen: `OTELCOL` and `TELEMETRYGEN`, else what
//! `tests/support/collector.sh` builds.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::{Absent, eventually, project};

/// The two programs.
#[derive(Clone, Debug)]
pub(crate) struct Collector {
    otelcol: PathBuf,
    telemetrygen: PathBuf,
}

/// The Collector and telemetrygen, built if they are not there yet.
pub(crate) fn collector() -> Result<Collector, Absent> {
    static PROGRAMS: OnceLock<Result<Collector, Absent>> = OnceLock::new();
    let programs = PROGRAMS.get_or_init(|| match (std::env::var_os("OTELCOL"), std::env::var_os("TELEMETRYGEN")) {
        (Some(otelcol), Some(telemetrygen)) => Ok(Collector { otelcol: otelcol.into(), telemetrygen: telemetrygen.into() }),
        (None, None) => built(),
        _ => Err(Absent("OTELCOL and TELEMETRYGEN are used only when both are set".to_owned())),
    });
    programs.clone()
}

fn built() -> Result<Collector, Absent> {
    let output = Command::new("bash")
        .arg(project("tests/support/collector.sh"))
        .arg("fetch")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| Absent(format!("cannot run bash: {e}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Absent(said.lines().last().unwrap_or("collector.sh said nothing").to_owned()));
    }
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(Collector { otelcol: folder.join("otelcol"), telemetrygen: folder.join("telemetrygen") })
}

/// A Collector that runs; killed when it is let go.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Collector {
    /// Starts a Collector with this configuration, which listens on `ports` when this returns.
    pub(crate) async fn run(&self, config: &str, ports: &[u16]) -> Running {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("collector.yaml");
        std::fs::write(&path, config).expect("the Collector's configuration");
        let log = folder.path().join("collector.log");
        let child = Command::new(&self.otelcol)
            .arg("--config")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("the Collector's log"))
            .spawn()
            .expect("the Collector starts");
        let mut running = Running { child, log, _folder: folder };
        for port in ports {
            eventually("the Collector to listen", Duration::from_secs(30), async || {
                if let Ok(Some(status)) = running.child.try_wait() {
                    panic!("the Collector ended: {status}\n{}", running.log());
                }
                tokio::net::TcpStream::connect(("127.0.0.1", *port))
                    .await
                    .map(drop)
                    .map_err(|e| format!("{e}\n{}", running.log()))
            })
            .await;
        }
        running
    }

    /// Runs telemetrygen for one signal (`traces`, `metrics`, `logs`) to its end.
    pub(crate) async fn generate(&self, signal: &str, arguments: &[&str]) {
        let output = tokio::process::Command::new(&self.telemetrygen)
            .arg(signal)
            .args(["--otlp-insecure", "--rate", "0"])
            .args(arguments)
            .output()
            .await
            .expect("telemetrygen runs");
        assert!(output.status.success(), "telemetrygen {signal}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Running {
    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end and waits until it has: it sends what it still holds first.
    pub(crate) async fn stop(&mut self) {
        super::daemon::signal(self.child.id(), "TERM");
        eventually("the Collector to end", Duration::from_secs(30), async || match self.child.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
