//! `anomalyd demo`, as the README tells to run it.

use std::time::Duration;

#[tokio::test]
async fn the_demo_finds_its_faults_and_stays_quiet_about_what_is_well() {
    let run = tokio::process::Command::new(env!("CARGO_BIN_EXE_anomalyd")).arg("demo").kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(600), run).await.expect("the demo ends by itself").expect("it runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("passed: 4 of 4 faults found"), "{printed}");
}
