//! Sends dead letters again: back into the outbox for the exporter that they are of, in their order.
//!
//! A file gets another name first, so that what is refused meanwhile goes to a new one. It is removed when its findings
//! are on disk in the outbox; a crash before that leaves both, and its findings are sent twice, with the same ids.
//! What cannot be sent stays.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::record::{Header, encode};
use super::room::Full;
use super::{Findings, NotPut, Shared, lock};
use crate::pipeline::dead_letters::{dead_letter_files, read_dead_letters, set_apart};
use crate::pipeline::{Refusal, RefusalKind};

/// What the outbox can be told.
pub(super) const SUBJECTS: &[&str] = &["resend"];

/// One at a time: an environment may have two outboxes with the same exporters.
static RESENDING: Mutex<()> = Mutex::new(());

/// Findings that are put into the outbox together.
const TOGETHER: usize = 64;

/// What became of the dead letters.
#[derive(Debug, Default)]
struct Resent {
    /// Findings that are in the outbox again, by exporter.
    resent: BTreeMap<String, u64>,
    /// Those that stay, by why.
    stay: BTreeMap<String, u64>,
    /// The outbox is full: nothing more is read.
    full: bool,
}

impl Shared {
    /// Answers `{"exporter"}`: only of this exporter, else of all. One file per question and exporter: `more` says that
    /// there are others.
    pub(super) fn resend(&self, body: &Value) -> Result<Value, Refusal> {
        let only = body.get("exporter").and_then(Value::as_str);
        let targets: Vec<Arc<str>> = lock(&self.state).targets.keys().cloned().collect();
        if let Some(only) = only
            && !targets.iter().any(|target| &**target == only)
        {
            let message = format!(
                "connector `{}` of {} has no exporter `{only}`: it has {}",
                self.context.id,
                self.context.environment,
                targets.join(", ")
            );
            return Err(Refusal::not_found(message));
        }
        let failed = |e: io::Error| Refusal { kind: RefusalKind::Unavailable, message: format!("dead letters: {e}") };
        let _one = lock(&RESENDING);
        let mut done = Resent::default();
        let mut more = false;
        for target in targets.iter().filter(|target| only.is_none_or(|only| &***target == only)) {
            let stem = self.dead_letters(target).path().with_extension("");
            let files = dead_letter_files(&self.context.services.data_dir).map_err(failed)?;
            // The oldest first; a name may be the beginning of another.
            let mine = |path: &Path| path.to_string_lossy().rsplit_once(".ndjson").is_some_and(|(s, _)| Path::new(s) == stem);
            let mut mine = files.iter().filter(|path| mine(path));
            let Some(file) = mine.next() else { continue };
            more |= mine.next().is_some();
            if let Some(apart) = set_apart(file).map_err(failed)? {
                self.resend_file(&apart, target, &mut done).map_err(failed)?;
            }
        }
        tracing::info!(environment = %self.context.environment, component = %self.context.id, ?done, "dead letters are sent again");
        Ok(json!({ "resent": done.resent, "stay": done.stay, "more": more && !done.full && !done.resent.is_empty() }))
    }

    /// Puts the findings of one file into the outbox, and removes them from the file once they are there.
    fn resend_file(&self, file: &Path, target: &Arc<str>, done: &mut Resent) -> io::Result<()> {
        let rest_path = file.with_extension("rest");
        let mut rest = Rest { file: io::BufWriter::new(std::fs::File::create(&rest_path)?), lines: 0 };
        let mut batch = Batch::default();
        for line in read_dead_letters(file)? {
            let (line, letter) = line?;
            let found = match letter.as_ref().map(|letter| (*letter.exporter == **target, letter.findings())) {
                Some((true, Ok(found))) => found,
                Some((false, _)) => {
                    rest.keep(&line, "it is of another exporter", done)?;
                    continue;
                }
                Some((true, Err(_))) | None => {
                    rest.keep(&line, "it is no dead letter that can be read", done)?;
                    continue;
                }
            };
            // An event stands behind the anomalies that it is about.
            let disorder = !found.anomalies.is_empty() && !batch.findings.incidents.is_empty();
            if disorder || batch.lines.len() >= TOGETHER {
                self.put_again(target, std::mem::take(&mut batch), &mut rest, done)?;
            }
            batch.findings.anomalies.extend(found.anomalies);
            batch.findings.incidents.extend(found.incidents);
            batch.lines.push(line);
        }
        self.put_again(target, batch, &mut rest, done)?;
        rest.file.flush()?;
        rest.file.get_ref().sync_all()?;
        lock(&self.log).sync().map_err(io::Error::other)?;
        if rest.lines == 0 {
            std::fs::remove_file(file)?;
            std::fs::remove_file(rest_path)
        } else {
            std::fs::rename(rest_path, file)
        }
    }

    /// Puts findings into the outbox for one target; where there is no room, they stay.
    fn put_again(&self, target: &Arc<str>, batch: Batch, rest: &mut Rest, done: &mut Resent) -> io::Result<()> {
        let Batch { findings, lines } = batch;
        let count = findings.len() as u64;
        if count > 0 && !done.full {
            let header = Header { position: None, only: Some(Arc::clone(target)), at: self.now(), findings: count };
            match self.put(&header, &encode(&header, &findings)?, Full::Refuse) {
                Ok(()) => {
                    *done.resent.entry(target.to_string()).or_default() += count;
                    return Ok(());
                }
                Err(NotPut::Full) => done.full = true,
                Err(NotPut::Disk(error)) => return Err(io::Error::other(error)),
            }
        }
        lines.iter().try_for_each(|line| rest.keep(line, "the outbox is full", done))
    }
}

/// Dead letters that are put into the outbox together, and their lines.
#[derive(Default)]
struct Batch {
    findings: Findings,
    lines: Vec<Vec<u8>>,
}

/// What stays of a file.
struct Rest {
    file: io::BufWriter<std::fs::File>,
    lines: u64,
}

impl Rest {
    fn keep(&mut self, line: &[u8], why: &str, done: &mut Resent) -> io::Result<()> {
        *done.stay.entry(why.to_owned()).or_default() += 1;
        self.lines += 1;
        self.file.write_all(line)?;
        self.file.write_all(b"\n")
    }
}
