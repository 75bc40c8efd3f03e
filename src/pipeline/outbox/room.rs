//! Room in the log: what is done when there is none.

use super::{AppendError, Arc, Header, Log, NotPut, Reader, Shared, lock, record};
use crate::model::{Finding, Findings};

/// Bytes and records that are buried at a time.
const SPADEFUL: (u64, usize) = (4 << 20, 1024);

/// Why they are dead letters.
const REASON: &str = "outbox full: there was no more room to wait for the exporter";

/// What is done when the log is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The oldest that waits goes to the dead letters. In memory there are none: then it is refused.
    Bury,
    /// It is refused.
    Refuse,
}

impl Shared {
    /// Appends a record. Blocks.
    pub(super) fn put(&self, header: &Header, record: &[u8], full: Full) -> Result<(), NotPut> {
        let mut log = lock(&self.log);
        loop {
            let error = match log.append_unsynced(&[record]) {
                Ok(index) => {
                    lock(&self.state).appended(index, header, record.len() as u64);
                    return Ok(());
                }
                Err(error) => error,
            };
            match error {
                AppendError::Full { .. } if self.trimmed(&mut log)? => {}
                AppendError::Full { .. } if full == Full::Refuse || !self.durable => return Err(NotPut::Full),
                AppendError::Full { .. } if self.bury_oldest(&log)? => {}
                // It does not fit even into an empty log.
                AppendError::Full { .. } | AppendError::TooLarge(_) => return self.bury_at_once(header, record),
                AppendError::Io(error) => return Err(NotPut::Disk(error.to_string())),
            }
        }
    }

    /// Removes what is delivered; whether that was anything.
    fn trimmed(&self, log: &mut Log) -> Result<bool, NotPut> {
        let before = log.size();
        self.save().map_err(|e| NotPut::Disk(format!("cannot write {}: {e}", self.folder.display())))?;
        self.trim(log).map_err(|e| NotPut::Disk(e.to_string()))?;
        Ok(log.size() < before)
    }

    /// Some of what the slowest target has not taken goes to its dead letters; whether there was anything.
    fn bury_oldest(&self, log: &Log) -> Result<bool, NotPut> {
        let Some((name, from)) = lock(&self.state).slowest().filter(|(_, next)| *next < log.next()) else { return Ok(false) };
        self.bury(log, &name, from, REASON)?;
        Ok(true)
    }

    /// The next records of the target `name` from `from` on go to its dead letters. The index behind them.
    pub(super) fn bury(&self, log: &Log, name: &Arc<str>, from: u64, reason: &str) -> Result<u64, NotPut> {
        let disk = |error: crate::storage::StorageError| NotPut::Disk(error.to_string());
        let reader = Reader::open(Arc::clone(&self.files), self.log_folder(), from).map_err(disk)?;
        let mut reader = reader.without(log.void());
        reader.stop_before(log.next());
        let (mut records, mut bytes) = (Vec::new(), 0);
        let mut until = log.next();
        while let Some(read) = reader.read() {
            // Damage was told when the log was opened.
            let Some(record) = read.ok().and_then(|(index, record)| record::decode(index, record)) else { continue };
            bytes += record.bytes;
            records.push(record);
            if bytes >= SPADEFUL.0 || records.len() == SPADEFUL.1 {
                until = reader.next_index();
                break;
            }
        }
        let mut wanted = Vec::new();
        if let Some(target) = lock(&self.state).targets.get(name) {
            records.retain(|record| record.index >= target.cursor.next);
            wanted.extend(records.iter().filter(|record| target.wants(name, record.index, &record.header)));
        }
        let findings = || wanted.iter().flat_map(|record| record.findings.iter());
        // First there, then no longer here: a crash in between leaves it in both, not in none.
        let letters: Vec<(&str, Finding<'_>)> = findings().map(|finding| (reason, finding)).collect();
        self.dead_letters(name).keep(letters.iter().copied()).map_err(disk)?;
        let mut state = lock(&self.state);
        if let Some(target) = state.targets.get_mut(name) {
            for record in &wanted {
                target.less(&record.header, record.bytes);
            }
            for record in &records {
                target.pass(record.index, &record.header);
            }
            target.cursor.next = target.cursor.next.max(until);
            target.dead_letters += letters.len() as u64;
            target.oldest = None;
            target.wake.notify_one();
        }
        drop(state);
        self.tell_buried(name, letters.len(), reason);
        Ok(until)
    }

    /// A record that never fits goes to the dead letters of all targets.
    fn bury_at_once(&self, header: &Header, record: &[u8]) -> Result<(), NotPut> {
        let findings = record::decode(0, record).map(|record| record.findings).unwrap_or_default();
        let names: Vec<Arc<str>> = lock(&self.state).targets.keys().cloned().collect();
        for name in names.iter().filter(|name| header.only.as_ref().is_none_or(|only| only == *name)) {
            let letters = Findings::iter(&findings).map(|finding| (REASON, finding));
            self.dead_letters(name).keep(letters).map_err(|e| NotPut::Disk(e.to_string()))?;
            if let Some(target) = lock(&self.state).targets.get_mut(name) {
                target.dead_letters += header.findings;
            }
            self.tell_buried(name, findings.len(), REASON);
        }
        let mut state = lock(&self.state);
        state.last = state.last.max(header.position);
        Ok(())
    }

    fn tell_buried(&self, target: &str, findings: usize, reason: &str) {
        if findings == 0 {
            return;
        }
        self.context.counters.event("outbox_dead_letters", findings as u64);
        tracing::error!(
            environment = %self.context.environment,
            component = %self.context.id,
            exporter = target,
            findings,
            file = %self.dead_letters(target).path().display(),
            "findings went to the dead-letter file: {reason}"
        );
    }
}
