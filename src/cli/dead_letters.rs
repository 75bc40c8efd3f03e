//! `anomalyd dead-letters`: findings that exporters could not deliver, and sending them again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Format;
use super::client::Daemon;
use crate::pipeline::{dead_letter_files, read_dead_letters};

#[derive(Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Option<Sub>,
    /// The daemon's `storage.data_dir`.
    #[arg(long, value_name = "FOLDER", default_value = "./data")]
    data_dir: PathBuf,
    /// Only of this environment.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only of this exporter.
    #[arg(long, value_name = "ID")]
    exporter: Option<String>,
    /// How they are written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Subcommand)]
enum Sub {
    /// Has a running daemon send them again: they go back into its outbox, and leave the file when they are there.
    Resend(ResendArgs),
}

#[derive(Args)]
struct ResendArgs {
    /// Only of this environment.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only of this exporter.
    #[arg(long, value_name = "ID")]
    exporter: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd dead-letters --data-dir /var/lib/anomalyd          what was not delivered, and why
  anomalyd dead-letters resend --exporter elasticsearch       once that is repaired

A finding becomes a dead letter when its exporter can never take it (a document that does not fit the mapping), or when
it waited until there was no more room. What is refused again comes back, with the new reason.";

/// Reasons that are told apart for one exporter.
const REASONS: usize = 50;

pub(super) fn run(arguments: &DeadLettersArgs) -> ExitCode {
    let said = match &arguments.command {
        Some(Sub::Resend(resend)) => self::resend(resend),
        None => list(arguments),
    };
    match said {
        Ok(text) => super::print(&text),
        Err(error) => {
            super::tell(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// The dead letters of one exporter.
#[derive(Debug, Default)]
struct Pile {
    findings: u64,
    oldest: String,
    newest: String,
    reasons: BTreeMap<String, u64>,
}

/// All dead letters.
#[derive(Debug, Default)]
struct Piles {
    /// By environment and exporter.
    all: BTreeMap<(String, String), Pile>,
    /// Lines that are no dead letters, by file.
    unreadable: BTreeMap<PathBuf, u64>,
}

impl Piles {
    fn read(data_dir: &Path) -> Result<Self, String> {
        if !data_dir.is_dir() {
            return Err(format!(
                "there is no folder {}: say where the daemon's `storage.data_dir` is (--data-dir)",
                data_dir.display()
            ));
        }
        let mut piles = Self::default();
        for path in dead_letter_files(data_dir).map_err(|e| format!("{}: {e}", data_dir.display()))? {
            let failed = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
            let lines = match read_dead_letters(&path) {
                // Sent again since the folder was listed.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                lines => lines.map_err(failed)?,
            };
            for line in lines {
                let (_, Some(letter)) = line.map_err(failed)? else {
                    *piles.unreadable.entry(path.clone()).or_default() += 1;
                    continue;
                };
                let mut reason = letter.kind_of_reason();
                let pile = piles.all.entry((letter.environment, letter.exporter)).or_default();
                pile.findings += 1;
                if pile.oldest.is_empty() || letter.time < pile.oldest {
                    pile.oldest.clone_from(&letter.time);
                }
                pile.newest = letter.time.max(std::mem::take(&mut pile.newest));
                if pile.reasons.len() >= REASONS && !pile.reasons.contains_key(&reason) {
                    "other reasons".clone_into(&mut reason);
                }
                *pile.reasons.entry(reason).or_default() += 1;
            }
        }
        Ok(piles)
    }

    fn json(&self) -> Value {
        let piles = self.all.iter().map(|((environment, exporter), pile)| {
            json!({
                "environment": environment,
                "exporter": exporter,
                "findings": pile.findings,
                "oldest": pile.oldest,
                "newest": pile.newest,
                "reasons": pile.reasons.iter().map(|(reason, findings)| json!({ "reason": reason, "findings": findings })).collect::<Vec<_>>(),
            })
        });
        let unreadable = self.unreadable.iter().map(|(file, lines)| json!({ "file": file, "lines": lines }));
        json!({ "dead_letters": piles.collect::<Vec<_>>(), "unreadable": unreadable.collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for ((environment, exporter), pile) in &self.all {
            let _ = writeln!(text, "{environment} {exporter}: {} findings, {} to {}", pile.findings, pile.oldest, pile.newest);
            let mut reasons: Vec<(&String, &u64)> = pile.reasons.iter().collect();
            reasons.sort_by_key(|(reason, findings)| (std::cmp::Reverse(**findings), *reason));
            for (reason, findings) in reasons {
                let _ = writeln!(text, "  {:>8}  {}", findings, reason.replace(['\n', '\r'], " "));
            }
        }
        for (file, lines) in &self.unreadable {
            let _ = writeln!(text, "{} lines of {} are no dead letters", lines, file.display());
        }
        if text.is_empty() { "there are no dead letters\n".to_owned() } else { text }
    }
}

fn list(arguments: &DeadLettersArgs) -> Result<String, String> {
    let mut piles = Piles::read(&arguments.data_dir)?;
    let meant = |wanted: &Option<String>, name: &String| wanted.as_ref().is_none_or(|wanted| wanted == name);
    piles
        .all
        .retain(|(environment, exporter), _| meant(&arguments.environment, environment) && meant(&arguments.exporter, exporter));
    Ok(match arguments.format {
        Format::Json => format!("{:#}\n", piles.json()),
        Format::Text => piles.text(),
    })
}

fn resend(arguments: &ResendArgs) -> Result<String, String> {
    let body = json!({ "environment": arguments.environment, "exporter": arguments.exporter });
    let mut total = Resent::default();
    // The daemon takes one file at a time.
    loop {
        let answer = arguments.daemon.ask("/dead-letters/resend", Some(&body))?;
        if !total.add(&answer) {
            return Ok(total.text());
        }
    }
}

/// What a daemon has done, by environment and exporter or reason.
#[derive(Debug, Default)]
struct Resent {
    resent: BTreeMap<(String, String), u64>,
    stay: BTreeMap<(String, String), u64>,
}

impl Resent {
    /// Adds an answer; whether there is more to be done.
    fn add(&mut self, answer: &Value) -> bool {
        let mut more = false;
        // What stayed before is looked at again.
        self.stay.clear();
        for outbox in answer.get("outboxes").and_then(Value::as_array).into_iter().flatten() {
            let environment = outbox.get("environment").and_then(Value::as_str).unwrap_or_default();
            more |= outbox.get("more") == Some(&Value::Bool(true));
            for (key, counts) in [("resent", &mut self.resent), ("stay", &mut self.stay)] {
                for (name, count) in outbox.get(key).and_then(Value::as_object).into_iter().flatten() {
                    *counts.entry((environment.to_owned(), name.clone())).or_default() += count.as_u64().unwrap_or(0);
                }
            }
        }
        more
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for ((environment, exporter), count) in &self.resent {
            let _ = writeln!(text, "{environment} {exporter}: {count} findings are sent again");
        }
        for ((environment, why), count) in &self.stay {
            let _ = writeln!(text, "{environment}: {count} stay where they are: {why}");
        }
        if text.is_empty() { "there is nothing to send again\n".to_owned() } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_are_listed_by_exporter_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("dead_letter")).unwrap();
        let letter = |hour: u32, reason: &str, id: &str| {
            format!(
                "{}\n",
                json!({
                    "time": format!("2026-01-15T{hour:02}:00:00.000Z"), "environment": "production", "exporter": "elasticsearch/anomalies",
                    "reason": reason, "finding": { "id": id, "sequence": 1 },
                })
            )
        };
        let first: String =
            (1..4).map(|n| letter(n, &format!("failed to parse document {n}abcdef"), &format!("{n}abcdef"))).collect();
        let path = folder.path().join("dead_letter/production-elasticsearch_anomalies.ndjson");
        std::fs::write(&path, format!("{first}{}not one\n", letter(9, "outbox full", "x"))).unwrap();
        let piles = Piles::read(folder.path()).unwrap();
        let text = piles.text().replace(&*path.to_string_lossy(), "FILE");
        insta::assert_snapshot!(text, @r"
        production elasticsearch/anomalies: 4 findings, 2026-01-15T01:00:00.000Z to 2026-01-15T09:00:00.000Z
                 3  failed to parse document ...
                 1  outbox full
        1 lines of FILE are no dead letters
        ");
        assert_eq!(
            piles.json()["dead_letters"],
            json!([{
                "environment": "production", "exporter": "elasticsearch/anomalies", "findings": 4,
                "oldest": "2026-01-15T01:00:00.000Z", "newest": "2026-01-15T09:00:00.000Z",
                "reasons": [{ "reason": "failed to parse document ...", "findings": 3 }, { "reason": "outbox full", "findings": 1 }],
            }])
        );
        assert_eq!(Piles::default().text(), "there are no dead letters\n");
        assert!(Piles::read(&folder.path().join("missing")).unwrap_err().contains("--data-dir"));
    }

    #[test]
    fn what_was_sent_again_is_told_by_exporter() {
        let mut resent = Resent::default();
        let outbox = |more: bool| {
            json!({ "outboxes": [
                { "environment": "production", "resent": { "file": 2000 }, "stay": { "it is no dead letter that can be read": 1 }, "more": more },
                { "environment": "staging", "resent": {}, "stay": {}, "more": false },
            ]})
        };
        assert!(resent.add(&outbox(true)));
        assert!(!resent.add(&outbox(false)));
        insta::assert_snapshot!(resent.text(), @r"
        production file: 4000 findings are sent again
        production: 1 stay where they are: it is no dead letter that can be read
        ");
        assert_eq!(Resent::default().text(), "there is nothing to send again\n");
    }
}
