//! Findings that an exporter will not get: all of the finding, and why, in files that people and programs can read.
//!
//! One file per environment and exporter, `<data_dir>/dead_letter/<environment>-<exporter>.ndjson`, one line per finding:
//! `{"time", "environment", "exporter", "reason", "finding"}`. A file is put aside at 64 MiB (`.1` is the newest of
//! those); the fourth of them is overwritten, which is told and counted.

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Clock, Context, Counters};
use crate::model::{Environment, Finding, Findings, UnixNanos};
use crate::storage::{LineFile, Rotation, StorageError};

/// When a file is put aside, and how many are kept.
const ROTATION: Rotation = Rotation { max_size: 64 << 20, backups: 3 };
/// The ending of a file whose findings are being sent again.
const APART: &str = ".resend";

/// One at a time: an exporter and an outbox may write to the same file. Dead letters are rare.
static WRITING: Mutex<()> = Mutex::new(());

fn writing() -> MutexGuard<'static, ()> {
    WRITING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the findings of one environment go that one exporter cannot deliver. Cheap to clone.
#[derive(Clone)]
pub struct DeadLetters {
    file: LineFile,
    environment: Environment,
    exporter: Arc<str>,
    clock: Arc<dyn Clock>,
    counters: Arc<Counters>,
    /// Whether there is a data directory.
    kept: bool,
}

impl DeadLetters {
    /// Those of the exporter that `context` belongs to.
    #[must_use]
    pub fn of(context: &Context) -> Self {
        Self::for_exporter(context, &context.id.to_string())
    }

    /// Those of `exporter`, in the environment of `context`, whose counters count.
    #[must_use]
    pub(super) fn for_exporter(context: &Context, exporter: &str) -> Self {
        let name = format!("{}-{exporter}", context.environment);
        let name: String = name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        Self {
            file: LineFile::new(folder(&context.services.data_dir).join(format!("{name}.ndjson")), Some(ROTATION)),
            environment: context.environment.clone(),
            exporter: Arc::from(exporter),
            clock: Arc::clone(&context.services.clock),
            counters: Arc::clone(&context.counters),
            kept: !context.services.data_dir.as_os_str().is_empty(),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Keeps findings with the reasons why they cannot be delivered. On success they are on disk; else none of them is
    /// in the file. Blocks for the length of a disk write.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep<'a>(&self, letters: impl IntoIterator<Item = (&'a str, Finding<'a>)>) -> Result<(), StorageError> {
        #[derive(Serialize)]
        struct Line<'a> {
            time: String,
            environment: &'a str,
            exporter: &'a str,
            reason: &'a str,
            finding: Finding<'a>,
        }
        let (time, environment, exporter) = (self.clock.now().rfc3339(), self.environment.as_str(), &*self.exporter);
        let mut lines = Vec::new();
        for (reason, finding) in letters {
            let line = Line { time: time.clone(), environment, exporter, reason, finding };
            serde_json::to_writer(&mut lines, &line).map_err(|e| StorageError(format!("a finding is no JSON: {e}")))?;
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        if !self.kept {
            return Err(StorageError("there is no data directory for dead letters".to_owned()));
        }
        let _one = writing();
        self.tell_what_is_overwritten(lines.len() as u64);
        self.file.append(&lines)
    }

    fn tell_what_is_overwritten(&self, more: u64) {
        let oldest = with_ending(self.path(), &format!(".{}", ROTATION.backups));
        let size = std::fs::metadata(self.path()).map_or(0, |data| data.len());
        if size > 0 && size.saturating_add(more) > ROTATION.max_size && oldest.exists() {
            self.counters.event("dead_letter_files_overwritten", 1);
            tracing::error!(
                environment = %self.environment,
                exporter = &*self.exporter,
                file = %oldest.display(),
                "there are too many dead letters: the oldest of them are overwritten; `anomalyd dead-letters` lists them"
            );
        }
    }
}

/// A finding that was not delivered, as it stands in a file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct DeadLetter {
    /// When it was put there, RFC 3339.
    pub time: String,
    /// Whose.
    pub environment: String,
    /// Id of the exporter.
    pub exporter: String,
    /// Why.
    pub reason: String,
    /// The anomaly, or the event of an incident.
    finding: Value,
}

impl DeadLetter {
    /// What was not delivered: one anomaly, or one event.
    ///
    /// # Errors
    /// What is not as it should be.
    pub fn findings(&self) -> Result<Findings, serde_json::Error> {
        let mut findings = Findings::default();
        if self.finding.get("sequence").is_some() {
            findings.incidents.push(Deserialize::deserialize(&self.finding)?);
        } else {
            findings.anomalies.push(Deserialize::deserialize(&self.finding)?);
        }
        Ok(findings)
    }

    /// Its reason without what is different in every finding: its id.
    #[must_use]
    pub fn kind_of_reason(&self) -> String {
        let id = self.finding.get("id").and_then(Value::as_str).unwrap_or_default();
        if id.len() < 6 { self.reason.clone() } else { self.reason.replace(id, "...") }
    }

    /// When what it is about ended, or was last abnormal.
    #[must_use]
    pub fn about(&self) -> Option<UnixNanos> {
        let end = self.finding.pointer("/window/end").or_else(|| self.finding.get("updated"))?;
        end.as_u64().map(UnixNanos)
    }
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("dead_letter")
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(ending);
    name.into()
}

/// The files with dead letters in `data_dir`, for each exporter the oldest first.
///
/// # Errors
/// When the folder is there and cannot be listed.
pub fn dead_letter_files(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder(data_dir)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let Some((stem, ending)) = name.rsplit_once(".ndjson") else { continue };
        let age = match ending {
            "" => 0,
            APART => u32::MAX,
            number => match number.strip_prefix('.').and_then(|n| n.parse().ok()) {
                Some(number) => number,
                None => continue,
            },
        };
        files.push((stem.to_owned(), std::cmp::Reverse(age), path));
    }
    files.sort();
    Ok(files.into_iter().map(|(.., path)| path).collect())
}

/// The lines of a file, each as it stands there and as it reads; what is no dead letter is an error.
///
/// # Errors
/// When the file cannot be opened; an item is an error when it cannot be read on.
pub fn read_dead_letters(path: &Path) -> io::Result<impl Iterator<Item = io::Result<(Vec<u8>, Option<DeadLetter>)>>> {
    let lines = BufReader::new(std::fs::File::open(path)?).split(b'\n');
    Ok(lines.filter(|line| !line.as_ref().is_ok_and(Vec::is_empty)).map(|line| {
        let line = line?;
        let letter = serde_json::from_slice(&line).ok();
        Ok((line, letter))
    }))
}

/// Gives a file another name, so that what comes meanwhile goes to a new one. The name of one that was not finished
/// stays. `None` when another of this exporter has that name.
pub(super) fn set_apart(path: &Path) -> io::Result<Option<PathBuf>> {
    let text = path.to_string_lossy();
    if text.ends_with(APART) {
        return Ok(Some(path.to_owned()));
    }
    let Some((stem, _)) = text.rsplit_once(".ndjson") else { return Ok(None) };
    let apart = PathBuf::from(format!("{stem}.ndjson{APART}"));
    let _one = writing();
    if apart.exists() {
        return Ok(None);
    }
    std::fs::rename(path, &apart)?;
    Ok(Some(apart))
}

#[cfg(test)]
#[path = "dead_letters_tests.rs"]
mod tests;
