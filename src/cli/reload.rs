//! `anomalyd reload`: a running daemon takes up what has changed in its files.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::StatusCode;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::client::Daemon;
use crate::server::{Applied, NotApplied};

/// Environments may drain, and take up what they have learnt, one reload after the other.
const PATIENCE: Duration = Duration::from_secs(3600);

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    daemon: Daemon,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd validate --config config/production.yml && anomalyd reload
  kill -HUP $(pidof anomalyd)      the same; what it did is in the log and in /health

The daemon reads the files that it was started with. An environment whose configuration is the
same is not touched: its connections, queues and counters go on. One that has changed is drained
and starts anew with what it has learnt; whoever sends to it meanwhile is told to send again. New
ones start, missing ones end.

All or nothing: when a file has a mistake, or a port is taken, everything runs on as it was, and
it is said why. Keys of the daemon's own file that need a restart are named.

Exit codes: 0 applied, 1 could not be applied, 78 wrong configuration.";

pub(super) fn run(arguments: &ReloadArgs) -> ExitCode {
    match arguments.daemon.answer("/reload", Some(&json!({})), PATIENCE) {
        Ok((status, body)) => told(status, &body),
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    super::tell(&format!("error: {error}\n"));
    ExitCode::FAILURE
}

fn told(status: StatusCode, body: &Value) -> ExitCode {
    if status.is_success() {
        return match Applied::deserialize(body) {
            Ok(applied) => super::print(&text(&applied)),
            Err(error) => failed(&format!("the daemon's answer is not understood ({error}): is it of another version?")),
        };
    }
    match NotApplied::deserialize(body) {
        Ok(NotApplied { error, diagnostics: Some(diagnostics) }) => {
            super::tell(&mistakes(&error, &diagnostics));
            ExitCode::from(super::CONFIGURATION_ERROR)
        }
        Ok(NotApplied { error, .. }) => failed(&error),
        Err(_) => failed(&format!("the daemon answers {status} and does not say why")),
    }
}

fn text(applied: &Applied) -> String {
    let mut text = String::new();
    for environment in &applied.environments {
        let _ = writeln!(text, "{environment}");
    }
    for note in &applied.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// What is wrong with the files, as `validate` tells it.
fn mistakes(error: &str, diagnostics: &str) -> String {
    let errors = error.lines().count();
    let plural = if errors == 1 { "error" } else { "errors" };
    format!("{diagnostics}\n{errors} {plural}: the daemon runs on as it did\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::Changed;

    #[test]
    fn what_was_done_is_a_line_for_each_environment_and_the_notes() {
        let changed = |environment: &str, change: &str, details: &[&str]| Changed {
            environment: environment.to_owned(),
            change: change.to_owned(),
            details: details.iter().map(|d| (*d).to_owned()).collect(),
        };
        let applied = Applied {
            environments: vec![
                changed("production", "unchanged", &[]),
                changed("staging", "restarted", &["receivers.otlp, connectors.detector.threshold changed"]),
                changed("dev", "started", &[]),
            ],
            notes: vec!["`storage.data_dir` changed: that takes effect after a restart".to_owned()],
        };
        let answer = serde_json::to_value(&applied).unwrap();
        insta::assert_snapshot!(text(&Applied::deserialize(&answer).unwrap()), @"
        production: unchanged
        staging: restarted (receivers.otlp, connectors.detector.threshold changed)
        dev: started
        note: `storage.data_dir` changed: that takes effect after a restart
        ");
    }

    #[test]
    fn mistakes_are_counted() {
        assert_eq!(mistakes("a.yml:1:1: one", "error: one\n"), "error: one\n\n1 error: the daemon runs on as it did\n");
        assert!(mistakes("a.yml:1:1: one\nb.yml:1:1: two", "").ends_with("2 errors: the daemon runs on as it did\n"));
    }
}
