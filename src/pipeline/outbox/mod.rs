//! Findings wait here until the other side has them: on disk, for each target in order, until it says that it has them.
//!
//! A detector appends what each entry of its journal has brought; a pump per target reads from its cursor, sends, and
//! moves the cursor when the receipt comes back. So a target that is slow or dead holds up no other, nor the detector.
//! What is not kept is sent again, for as long as there is room. When there is none, the oldest findings that a target
//! has not taken go to its dead-letter file.
//!
//! **Why an append is not synced.** The entry that a finding comes from is on disk in the journal before the finding is
//! made, and [`Outbox::sync`] is called before a checkpoint lets the journal go. So what a power cut takes off the end
//! of the outbox is found again by replay, as the same findings of the same entries, and appended again. A cursor on
//! disk may then be ahead of the log: what comes again at or below its *position* (entry and part) is not sent again.
//! What replay finds again although it was not lost is at or below the last position in the log, and not appended. When
//! the log is trimmed empty, the last position is the lowest of the cursors, because only what all targets have is
//! trimmed, and only when the cursors that say so are on disk.
//!
//! **What may come twice.** Cursors are written every [`SAVE`]. What a target has kept since is sent to it again after a
//! crash, with the same ids; so is what was on its way when a target failed. Elasticsearch answers 409 to those, the
//! `file` exporter knows them by the end of its file.

mod cursors;
mod pump;
mod record;
mod resend;
mod room;
mod run;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::cursors::Cursors;
use self::record::Header;
use self::state::State;
use super::{Backoff, Context, DeadLetters, Status};
use crate::model::{Environment, Findings, UnixNanos};
use crate::storage::{AppendError, Files, Log, LogOptions, MemoryFiles, Reader, StorageError};

/// How often cursors are written.
const SAVE: Duration = Duration::from_millis(200);
/// The largest segment of the log.
const MOST_SEGMENT: u64 = 8 << 20;
/// How large an outbox in memory may be.
const MOST_IN_MEMORY: u64 = 64 << 20;
/// Waits between tries of what failed, here or at a target.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// How findings wait for exporters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxSettings {
    /// Bytes that an outbox may have on disk.
    pub max_size: u64,
    /// How long a stopping daemon goes on while no exporter takes anything; what is left waits for the next start.
    pub patience: Duration,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self { max_size: 1 << 30, patience: Duration::from_secs(10) }
    }
}

/// What waits for one target, and what became of the rest since the start.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxLevels {
    /// Whose.
    pub environment: Environment,
    /// Id of the detector.
    pub detector: String,
    /// Id of the exporter; the name of the pipeline where processors come first.
    pub target: String,
    /// Findings that wait.
    pub waiting: u64,
    /// Their bytes.
    pub bytes: u64,
    /// For how many seconds the oldest has been waiting.
    pub oldest: f64,
    /// Findings that it has kept.
    pub delivered: u64,
    /// Findings that went to its dead-letter file because there was no room.
    pub dead_letters: u64,
}

/// The outbox of one detector. Clones are the same outbox.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

/// Shows what is in an outbox for as long as there is one.
#[derive(Clone)]
pub(super) struct OutboxView(Weak<Shared>);

struct Shared {
    context: Context,
    files: Arc<dyn Files>,
    folder: PathBuf,
    max_size: u64,
    /// Whether it survives; else whoever appends waits for room.
    durable: bool,
    log: Mutex<Log>,
    state: Mutex<State>,
    /// The cursors that are on disk. Never locked before `log`.
    saved: Mutex<Cursors>,
    /// Something was delivered, so there may be room; or nobody waits any more.
    room: Condvar,
    /// Nothing more is appended.
    closing: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a record was not appended.
enum NotPut {
    /// There is no room, and none can be made.
    Full,
    /// The disk says no.
    Disk(String),
}

impl Outbox {
    /// Opens the outbox of the component that `context` belongs to, and brings it in order. Blocks: reads all of it.
    ///
    /// # Errors
    /// When its folder cannot be made or read. Damage in it is told, and is no error.
    pub fn open(context: &Context) -> Result<Self, StorageError> {
        let services = &context.services;
        let durable = services.files.is_some();
        let files = services.files.clone().unwrap_or_else(|| Arc::new(MemoryFiles::default()));
        let max_size = if durable { services.outbox.max_size } else { services.outbox.max_size.min(MOST_IN_MEMORY) };
        let folder = context.folder().join("outbox");
        let options = LogOptions { segment_size: (max_size / 64).clamp(1 << 10, MOST_SEGMENT), max_size };
        let (log, opened) = Log::open(Arc::clone(&files), folder.join("log"), options)?;
        let (environment, component) = (&context.environment, &context.id);
        for damage in &opened.damages {
            context.counters.event("outbox_damages", 1);
            tracing::error!(%environment, %component, "outbox: {damage}");
        }
        for file in &opened.set_aside {
            tracing::warn!(%environment, %component, "outbox: {file}");
        }
        let cursors = cursors::load(&*files, &folder).unwrap_or_else(|error| {
            tracing::error!(%environment, %component, %error, "outbox: it cannot be read how far the exporters had come; all that is there is sent again");
            None
        });
        let mut last = None;
        let mut records = Reader::open(Arc::clone(&files), folder.join("log"), log.first())?.without(log.void());
        while let Some(record) = records.read() {
            // Damage is told already.
            last = record.ok().and_then(|(_, bytes)| record::header(bytes)).and_then(|header| header.position).max(last);
        }
        let state = State::new(log.first(), log.next(), last, cursors.as_ref());
        let shared = Shared {
            context: context.clone(),
            files,
            folder,
            max_size,
            durable,
            log: Mutex::new(log),
            state: Mutex::new(state),
            saved: Mutex::new(cursors.unwrap_or_default()),
            room: Condvar::new(),
            closing: CancellationToken::new(),
        };
        let outbox = Self(Arc::new(shared));
        context.services.registry.add_outbox(OutboxView(Arc::downgrade(&outbox.0)));
        Ok(outbox)
    }

    /// The last entry whose findings are here or were delivered; findings of this entry and of those before it are
    /// repeats. None when nothing was found yet.
    #[must_use]
    pub fn last_entry(&self) -> Option<u64> {
        lock(&self.0.state).last.map(|position| position.entry)
    }

    /// The highest entry that a target has ever had findings of, or that is here. A journal must number its next entry
    /// higher, else targets take what it brings for what they have.
    #[must_use]
    pub fn highest_entry(&self) -> Option<u64> {
        lock(&self.0.state).highest().map(|position| position.entry)
    }

    /// Appends what entry `entry` has brought; what is here already is left as it is. Entries come in order. Survives the
    /// end of the process from then on, and a power cut after the next [`Outbox::sync`].
    ///
    /// Blocks, also while the disk fails, and in memory while there is no room.
    ///
    /// # Errors
    /// When it had to give up, because nobody runs this outbox any more. Then no checkpoint may say that it is here.
    pub fn append(&self, entry: u64, findings: &Findings) -> Result<(), StorageError> {
        if findings.is_empty() {
            return Ok(());
        }
        let parts = match record::parts(entry, self.0.now(), findings) {
            Ok(parts) => parts,
            Err(error) => {
                tracing::error!(%error, "findings cannot be written as JSON");
                self.0.context.counters.event("findings_not_json", findings.len() as u64);
                return Ok(());
            }
        };
        for (header, record) in parts {
            let known = lock(&self.0.state).last >= header.position;
            if !known {
                self.0.put_at_last(&header, &record)?;
            }
        }
        Ok(())
    }

    /// Brings on disk what was appended. To be called before a checkpoint that lets go of the entries. Blocks.
    ///
    /// # Errors
    /// When the disk fails; then no such checkpoint may be published.
    pub fn sync(&self) -> Result<(), StorageError> {
        lock(&self.0.log).sync()
    }

    /// Nobody runs it, or ever will: whoever appends gives up what cannot be put here at once.
    pub fn abandon(&self) {
        self.0.abandon();
    }

    /// Nothing more is appended: [`Outbox::run`] ends when all is delivered, or its patience is over.
    pub fn close(&self) {
        self.0.closing.cancel();
        lock(&self.0.state).wake_all();
    }
}

impl Shared {
    fn abandon(&self) {
        lock(&self.state).abandoned = true;
        self.room.notify_all();
    }

    /// Puts a record into the log, however long it takes.
    fn put_at_last(&self, header: &Header, record: &[u8]) -> Result<(), StorageError> {
        let mut backoff = Backoff::new(WAITS.0, WAITS.1);
        let (mut trouble, mut told) = (None, String::new());
        loop {
            // Asked before it is tried: room that is made meanwhile is not missed.
            let before = lock(&self.state).delivered();
            let (error, wait) = match self.put(header, record, room::Full::Bury) {
                Ok(()) => break,
                // In memory: as a full queue makes its senders wait.
                Err(NotPut::Full) => (None, WAITS.1),
                Err(NotPut::Disk(error)) => (Some(error), backoff.next(None)),
            };
            if let Some(error) = error
                && trouble.as_ref() != Some(&error)
            {
                let message = format!("findings cannot be put into the outbox: {error}; it is tried again");
                tracing::error!(environment = %self.context.environment, component = %self.context.id, "{message}");
                self.context.health.set(Status::RecoverableError(message.clone()));
                (trouble, told) = (Some(error), message);
            }
            let state = lock(&self.state);
            if state.abandoned {
                return Err(StorageError("findings could not be put into the outbox before the end".to_owned()));
            }
            drop(self.room.wait_timeout_while(state, wait, |state| state.delivered() == before && !state.abandoned));
        }
        // Somebody else may have something to say.
        if self.context.health.get().message() == Some(&told) {
            self.context.health.set(Status::Ok);
        }
        Ok(())
    }

    fn now(&self) -> UnixNanos {
        self.context.services.clock.now()
    }

    fn log_folder(&self) -> PathBuf {
        self.folder.join("log")
    }

    fn dead_letters(&self, target: &str) -> DeadLetters {
        DeadLetters::for_exporter(&self.context, target)
    }

    /// Brings the cursors on disk, if they have moved. Whether they had.
    fn save(&self) -> io::Result<bool> {
        let mut saved = lock(&self.saved);
        let cursors = lock(&self.state).cursors();
        if cursors == *saved {
            return Ok(false);
        }
        if self.durable {
            cursors::save(&*self.files, &self.folder, &cursors)?;
        }
        *saved = cursors;
        Ok(true)
    }

    /// Removes what all targets have, as far as the cursors on disk say so.
    fn trim(&self, log: &mut Log) -> Result<(), StorageError> {
        let saved = lock(&self.saved).targets.values().map(|cursor| cursor.next).min();
        let state = lock(&self.state);
        // Before the targets are known, everybody may be waiting for anything.
        let lowest = state.targets.values().map(|target| target.cursor.next).chain(saved).min();
        let keep_from = lowest.unwrap_or(if state.attached { log.next() } else { 0 });
        drop(state);
        log.trim(keep_from)
    }
}

impl std::fmt::Debug for OutboxView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("OutboxView").field(&self.levels()).finish()
    }
}

impl OutboxView {
    /// What waits for each target; nothing when the outbox is gone.
    pub(super) fn levels(&self) -> Vec<OutboxLevels> {
        let Some(shared) = self.0.upgrade() else { return Vec::new() };
        let now = shared.now();
        let state = lock(&shared.state);
        let levels = state.targets.iter().filter(|(_, target)| target.attached).map(|(name, target)| OutboxLevels {
            environment: shared.context.environment.clone(),
            detector: shared.context.id.to_string(),
            target: name.to_string(),
            waiting: target.waiting,
            bytes: target.bytes,
            oldest: target.oldest.map_or(0.0, |at| UnixNanos(now.0.saturating_sub(at.0)).secs_f64()),
            delivered: target.delivered,
            dead_letters: target.dead_letters,
        });
        levels.collect()
    }

    /// Whether there is no such outbox any more.
    pub(super) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}
