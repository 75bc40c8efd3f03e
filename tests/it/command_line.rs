//! The command line as a person meets it.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::daemon::Setup;
use crate::support::project;

/// Runs the binary in `folder`, with nothing of this machine's environment that could change what it prints.
fn anomalyd(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anomalyd"));
    for (name, _) in std::env::vars() {
        if name.starts_with("RUST_") || name.ends_with("COLOR") || name == "COLUMNS" {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").output().expect("the binary runs")
}

/// Exit code, stdout and stderr in one text.
fn told(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().map_or("none".to_owned(), |c| c.to_string());
    format!("exit code {code}\n---- stdout\n{}---- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_command_explains_itself() {
    for command in ["run", "validate", "schema", "demo", "score"] {
        let output = anomalyd(&project("."), &[command, "--help"]);
        assert!(output.status.success(), "{}", told(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("anomalyd {command}")), "{}", told(&output));
    }
}

#[test]
fn a_slip_in_a_command_is_answered_with_what_was_meant() {
    let output = anomalyd(&project("."), &["vlaidate"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("'validate'"), "{}", told(&output));
}

#[test]
fn a_broken_configuration_keeps_the_daemon_from_starting_and_every_mistake_is_told() {
    let mut setup = Setup::new();
    setup.environment(
        "production",
        "receivers:
  otlp: { protocols: { grcp: { endpoint: 127.0.0.1:4317 } } }
  elasticsearch: { indices: [\"traces-*\"], api_key: \"${env:ANOMALYD_TEST_NOT_SET}\" }
service:
  pipelines:
    traces: { receivers: [otlp, elasticsearch], processors: [red_metrics], exporters: [detektor] }
    anomalies: { receivers: [detector], exporters: [console] }
",
    );
    setup.config();
    for command in ["run", "validate"] {
        let output = anomalyd(&setup.path("."), &[command, "--config", "daemon.yml"]);
        assert_eq!(output.status.code(), Some(78), "{command}: {}", told(&output));
        let said = told(&output);
        for part in ["production.yml:3:", "grcp", "grpc", "endpoints", "ANOMALYD_TEST_NOT_SET", "detektor", "detector"] {
            assert!(said.contains(part), "{command} does not say `{part}`:\n{said}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = anomalyd(folder.path(), &["run", "--config", "nowhere.yml"]);
    assert_eq!(output.status.code(), Some(78), "{}", told(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere.yml"), "{}", told(&output));
}

#[test]
fn the_examples_validate_as_they_are_shipped() {
    for deployment in ["development", "staging", "production"] {
        let file = format!("config/{deployment}.yml");
        let examples = std::fs::read_to_string(project(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_anomalyd"));
        // Secrets come from variables in the examples; here they have a value.
        let value = |name: &str| if name.contains("WEBHOOK") { "https://a-value.example" } else { "a-value" };
        for name in variables(&examples).into_iter().chain(pipelines().iter().flat_map(|text| variables(text))) {
            command.env(&name, value(&name));
        }
        let output = command.args(["validate", "--config", &file]).current_dir(project(".")).output().expect("the binary runs");
        assert!(output.status.success(), "{file}: {}", told(&output));
        assert!(!told(&output).contains("a-value"), "no secret is printed: {}", told(&output));
    }
}

fn pipelines() -> Vec<String> {
    let folder = std::fs::read_dir(project("pipelines")).expect("pipelines/");
    folder.map(|entry| std::fs::read_to_string(entry.expect("an entry").path()).expect("a pipeline file")).collect()
}

/// The names in `${env:NAME}` that have no default.
fn variables(text: &str) -> Vec<String> {
    let inside = text.split("${env:").skip(1).filter_map(|rest| rest.split('}').next());
    inside.filter(|name| !name.contains(":-")).map(str::to_owned).collect()
}

#[test]
fn the_schemas_are_json_documents_for_editors() {
    for (kind, key) in [("daemon", "environments"), ("pipeline", "receivers")] {
        let output = anomalyd(&project("."), &["schema", kind]);
        assert!(output.status.success(), "{}", told(&output));
        let schema: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert!(schema["properties"][key]["description"].is_string(), "{kind}: {schema:#}");
    }
}

#[test]
fn values_in_a_file_are_scored_row_by_row_and_the_file_is_left_alone() {
    use std::fmt::Write as _;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("cpu.csv");
    let mut rows = "TimeStamp,CPU,label\n".to_owned();
    for row in 0..600 {
        let value = if row == 550 { 95.0 } else { 20.0 + f64::from(row * 7 % 5) };
        writeln!(rows, "{},{value},0", 1_767_225_600 + row * 300).expect("a row");
    }
    std::fs::write(&file, &rows).expect("the file");
    let score = |out: &Path| {
        let command = Command::new(env!("CARGO_BIN_EXE_anomalyd")).arg("score").arg(&file).arg("--out").arg(out).output();
        command.expect("the binary runs")
    };
    let out = folder.path().join("scores");
    let output = score(&out);
    assert!(output.status.success(), "{}", told(&output));
    let scores = std::fs::read_to_string(out.join("cpu.csv")).expect("the scores");
    let lines: Vec<&str> = scores.lines().collect();
    assert_eq!((lines.len(), lines[0]), (601, "timestamp,value,point_score,alert_score,page_score"));
    assert!(lines[1].starts_with("1767225600,20,"), "{}", lines[1]);
    let point = |line: &str| line.split(',').nth(2).and_then(|score| score.parse::<f64>().ok()).expect("a score");
    assert!(point(lines[551]) > 3.0, "the odd value: {}", lines[551]);

    let refused = score(folder.path());
    assert!(!refused.status.success() && told(&refused).contains("would be overwritten"), "{}", told(&refused));
    assert_eq!(std::fs::read_to_string(&file).expect("the file"), rows);
}

/// Rows five minutes apart, from row `first` on; both columns jump at row 1,200, and `memory` misses a value in each 50.
fn two_columns(first: usize, last: usize) -> String {
    use std::fmt::Write as _;
    let mut rows = "Time,CPU,memory,Label,host\n".to_owned();
    for row in first..last {
        let noise = |salt: usize| ((row + salt) * 7_919 % 1_009) as f64 / 1_009.0;
        let (cpu, memory) = if row == 1_200 { (90.0, 900.0) } else { (20.0 + noise(0), 300.0 + noise(5)) };
        let memory = if row % 50 == 7 { String::new() } else { memory.to_string() };
        writeln!(rows, "{},{cpu},{memory},1,web-1", 1_767_225_600 + row * 300).expect("a row");
    }
    rows
}

#[test]
fn several_columns_are_scored_as_one_entity_and_a_history_is_learnt_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).expect("a file");
    write("all.csv", two_columns(0, 1_300));
    write("before.csv", two_columns(0, 1_000));
    write("web.csv", two_columns(1_000, 1_300));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("the scores");

    let output = anomalyd(folder.path(), &["score", "all.csv", "--out", "all"]);
    assert!(output.status.success(), "{}", told(&output));
    insta::assert_snapshot!("score_of_an_entity_tells", told(&output));
    let all = read("all/all.csv");
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!((lines.len(), lines[0]), (1_301, "timestamp,CPU,memory,point_score,alert_score,page_score"));
    let score = |line: &str, column: usize| line.split(',').nth(column).and_then(|s| s.parse::<f64>().ok()).expect("a score");
    assert!(score(lines[1_201], 5) > 1.4, "the odd row: {}", lines[1_201]);
    assert_eq!(lines[8].split(',').nth(2), Some(""), "what is missing stays missing: {}", lines[8]);

    let output = anomalyd(folder.path(), &["score", "web.csv", "--history", "before.csv", "--out", "later"]);
    assert!(output.status.success(), "{}", told(&output));
    assert_eq!(read("later/web.csv").lines().skip(1).collect::<Vec<_>>(), lines[1_001..], "as if it were one file");

    let output = anomalyd(folder.path(), &["score", "before.csv", "--history", "web.csv", "--out", "wrong"]);
    assert!(!output.status.success() && told(&output).contains("before.csv: `1767225600` is not after"), "{}", told(&output));
}

#[test]
fn a_file_without_names_of_columns_is_told_what_to_add() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("server.csv"), "0.5,0.25,3\n0.5,0.26,4\n").expect("a file");
    let output = anomalyd(folder.path(), &["score", "server.csv", "--out", "scores"]);
    insta::assert_snapshot!("score_without_names_of_columns", told(&output));
}
