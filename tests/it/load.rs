//! The load generator for a few seconds against the real binary: what it acknowledges under load is there, once.

use clap::Parser as _;
use load::compare::compare;
use load::daemon::{PIPELINE, Recipe};
use load::options::Options;
use load::report::Report;

/// The options of a short run against the daemon of these tests, with `more`.
fn options(more: &[&str]) -> (Options, Recipe) {
    let fixed = ["load", "--daemon", env!("CARGO_BIN_EXE_anomalyd"), "--records", "100", "--backoff-ms", "50"];
    let options = Options::try_parse_from(fixed.iter().chain(more)).unwrap_or_else(|e| panic!("{e}"));
    let recipe = options.recipe().expect("the built-in configuration").expect("a daemon");
    (options, recipe)
}

async fn run(more: &[&str]) -> Report {
    let (options, recipe) = options(more);
    load::measure(&options, Some(&recipe)).await.unwrap_or_else(|e| panic!("{e}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_under_load_is_taken_in_once() {
    for more in [
        ["--signal", "logs", "--protocol", "grpc", "--seconds", "1", "--in-flight", "10", "--gzip"].as_slice(),
        &["--signal", "traces", "--protocol", "http", "--seconds", "1", "--in-flight", "4"],
        &["--signal", "metrics", "--protocol", "grpc", "--seconds", "1", "--rate", "5000"],
    ] {
        let report = run(more).await;
        assert!(report.passed(), "{more:?}\n{}", report.text());
        assert!(report.tally.acknowledged >= 100, "{more:?}\n{}", report.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_under_load_is_sent_again_and_then_there_once() {
    let (options, mut recipe) = options(&["--seconds", "1", "--connections", "4", "--in-flight", "16", "--patience", "120"]);
    // So small that some of 64 requests at once find no room.
    recipe.pipeline = PIPELINE.replacen("    protocols:", "    max_in_flight_size: 256KiB\n    protocols:", 1);
    // One of them fits.
    recipe.pipeline = recipe
        .pipeline
        .replace("endpoint: \"${env:LOAD_GRPC}\" }", "endpoint: \"${env:LOAD_GRPC}\", max_request_body_size: 64KiB }");
    recipe.pipeline = recipe
        .pipeline
        .replace("endpoint: \"${env:LOAD_HTTP}\" }", "endpoint: \"${env:LOAD_HTTP}\", max_request_body_size: 64KiB }");
    let report = load::measure(&options, Some(&recipe)).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(report.passed(), "{}", report.text());
    assert!(!report.tally.refused.is_empty() && report.tally.refused_for_good.is_empty(), "{}", report.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_configurations_are_compared_in_turns() {
    let (options, recipe) = options(&["--seconds", "0.3", "--in-flight", "4"]);
    let folder = tempfile::tempdir().expect("a folder");
    let [with, without] = ["true", "false"].map(|enabled| {
        let path = folder.path().join(format!("log-{enabled}.yml"));
        let text = recipe.daemon.replacen("storage: {", &format!("storage: {{ input_log: {{ enabled: {enabled} }},"), 1);
        assert_ne!(text, recipe.daemon);
        std::fs::write(&path, text).expect("a daemon file");
        path
    });
    let comparison = compare(&options, &recipe, [with.as_path(), without.as_path()], 1).await.unwrap_or_else(|e| panic!("{e}"));
    assert!(comparison.passed(), "{}", comparison.text());
    assert!(comparison.text().contains("items per CPU-second"), "{}", comparison.text());
}
