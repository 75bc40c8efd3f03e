//! What the tests stand on: real servers, the daemon as a process, clients, and waiting for a condition.

pub(crate) mod cluster;
pub(crate) mod collector;
pub(crate) mod daemon;
pub(crate) mod documents;
pub(crate) mod elasticsearch;
pub(crate) mod engine;
pub(crate) mod history;
pub(crate) mod index;
pub(crate) mod judge;
pub(crate) mod metrics;
pub(crate) mod otlp;
pub(crate) mod own_telemetry;
pub(crate) mod pipelines;
pub(crate) mod relay;
pub(crate) mod traffic;
pub(crate) mod wire;
pub(crate) mod world;

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Why a server that a test needs cannot be had here.
#[derive(Clone, Debug)]
pub(crate) struct Absent(pub(crate) String);

/// What the expression gives, or the end of the test: it counts as skipped.
macro_rules! needs {
    ($server:expr) => {
        match $server {
            Ok(server) => server,
            Err(absent) => return $crate::support::skipped(&absent),
        }
    };
}
pub(crate) use needs;

/// Says that the test that runs on this thread is skipped. With `CI=true` that is a failure.
///
/// `scripts/test` names a file in `ANOMALYD_TEST_SKIPS` and prints it at its end.
pub(crate) fn skipped(absent: &Absent) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} must not be skipped in CI: {}", absent.0);
    eprintln!("skipped {test}: {}", absent.0);
    if let Some(path) = std::env::var_os("ANOMALYD_TEST_SKIPS") {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("the list of skipped tests");
        writeln!(file, "{test}: {}", absent.0).expect("the list of skipped tests");
    }
}

/// A file of the project.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A word that no other test, and no other run, uses: for data streams and services.
pub(crate) fn unique(word: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{word}{:x}x{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A port of this machine that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}

/// Asks `question` again and again until it answers `Ok`; fails with its last `Err` after `limit`.
pub(crate) async fn eventually<T>(what: &str, limit: Duration, mut question: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match question().await {
            Ok(answer) => return answer,
            Err(last) if begin.elapsed() > limit => panic!("waited {limit:?} for {what}; last seen:\n{last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
