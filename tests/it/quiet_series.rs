//! No anomalies: is it broken? One command tells, and another that an anomaly is normal.

use std::process::{Command, Output};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::daemon::Setup;
use crate::support::otlp::{Call, send_grpc, traces};
use crate::support::{eventually, free_port, pipelines};

const SOON: Duration = Duration::from_secs(60);
const MINUTE: u64 = 60_000_000_000;

/// Runs a command against the daemon at `port`.
fn anomalyd(port: u16, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_anomalyd"))
        .args(arguments)
        .args(["--endpoint", &format!("127.0.0.1:{port}")])
        .output()
        .expect("the command runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The calls of minute `minute`: 30 fast ones, or slow ones that fail.
fn calls(begin: u64, minute: u64, healthy: bool) -> Vec<Call> {
    (0..30)
        .map(|i| {
            let number = minute * 100 + i;
            let jitter = number.wrapping_mul(2_654_435_761) % 1_000_000;
            Call {
                start: begin + minute * MINUTE + i * (MINUTE / 30),
                duration: if healthy { 5_000_000 + jitter } else { 900_000_000 + jitter },
                failed: !healthy,
                ..Call::now(number)
            }
        })
        .collect()
}

#[tokio::test]
async fn a_quiet_daemon_says_why_and_learns_from_feedback() {
    let (grpc, http) = (free_port(), free_port());
    let pipeline = pipelines::otlp_to_console(grpc, http).replace(
        "detector: { bucket: 1m, lateness: 10s }",
        "detector: { bucket: 1m, lateness: 10s, warmup: 60, threshold: 1.5 }",
    );
    let mut setup = Setup::new();
    setup.environment("production", &pipeline);
    let mut daemon = setup.start().await;
    let nothing = anomalyd(setup.admin(), &["series"]);
    assert!(nothing.status.success() && said(&nothing).contains("no series"), "{}", said(&nothing));

    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let begin = (now - 8 * 3600) / 60 * 60 * 1_000_000_000;
    let send = async |minutes: std::ops::Range<u64>, healthy: bool| {
        let calls: Vec<Call> = minutes.flat_map(|minute| calls(begin, minute, healthy)).collect();
        send_grpc(grpc, traces(&calls, None)).await.expect("it is taken");
    };
    send(0..40, true).await;
    eventually("series that learn", SOON, async || {
        let warming = anomalyd(setup.admin(), &["series", "--state", "warming", "--contains", "p99"]);
        let said = said(&warming);
        let told = said.contains("checkout POST /pay (server): span p99") && said.contains("of 60 values seen: ready in about");
        if told { Ok(()) } else { Err(said) }
    })
    .await;

    for from in (40..400).step_by(40) {
        send(from..from + 40, true).await;
    }
    send(400..404, false).await;
    let id = eventually("an anomaly", SOON, async || {
        let printed = daemon.printed();
        let lines = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found = lines.filter(|a| a["function"] == "p99").find_map(|a| a["id"].as_str().map(str::to_owned));
        found.ok_or_else(|| daemon.said())
    })
    .await;
    let incident = anomalyd(setup.admin(), &["series", "--state", "incident"]);
    assert!(said(&incident).contains("in an incident since"), "{}", said(&incident));

    let unknown = anomalyd(setup.admin(), &["feedback", "nonsense", "--normal"]);
    assert!(!unknown.status.success() && said(&unknown).contains("is not known"), "{}", said(&unknown));
    let taught = anomalyd(setup.admin(), &["feedback", &id, "--normal"]);
    assert!(taught.status.success() && said(&taught).contains("span p99: what resembles this is normal"), "{}", said(&taught));
    let muted = anomalyd(setup.admin(), &["mute", "--service", "checkout", "--for", "1h", "--reason", "load test"]);
    assert!(muted.status.success(), "{}", said(&muted));

    // Both outlive a restart.
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    let _daemon = setup.start().await;
    let json = anomalyd(setup.admin(), &["series", "--contains", "p99", "--format", "json"]);
    let answer: Value = serde_json::from_slice(&json.stdout).unwrap_or_else(|e| panic!("{e}: {}", said(&json)));
    assert_eq!(answer["series"][0]["lessons"], 1, "{answer:#}");
    let mutes = said(&anomalyd(setup.admin(), &["mutes"]));
    assert!(mutes.starts_with("1 production: service checkout, until ") && mutes.ends_with(": load test\n"), "{mutes}");
    let ended = anomalyd(setup.admin(), &["unmute", "1"]);
    assert!(ended.status.success(), "{}", said(&ended));
    assert_eq!(said(&anomalyd(setup.admin(), &["mutes"])), "nothing is muted by hand\n");
}
