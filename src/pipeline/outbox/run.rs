//! An outbox that runs: a pump per target, and somebody who keeps cursors, room and health in order.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::pump::Pump;
use super::state::Target;
use super::{NotPut, Outbox, Reader, SAVE, Shared, Status, lock, resend};
use crate::pipeline::{Class, ComponentError, Output, Question};
use crate::storage::StorageError;

/// Why what waits for an exporter that is gone is not sent to it.
const GONE: &str = "exporter gone: the configuration has it no longer";

impl Outbox {
    /// Brings findings to the targets of `output` until [`Outbox::close`]; then until all is delivered, or the patience
    /// is over.
    ///
    /// # Errors
    /// When the disk can no longer be read.
    pub async fn run(&self, output: &Output) -> Result<(), ComponentError> {
        // However this ends, nobody waits for room any more.
        let _abandon = Abandon(&self.0);
        let targets = output.targets();
        let shared = Arc::clone(&self.0);
        let names: Vec<Arc<str>> = targets.keys().cloned().collect();
        let attaching = tokio::task::spawn_blocking(move || shared.attach(&names));
        let readers = attaching.await.map_err(ComponentError::new)?.map_err(ComponentError::new)?;
        let end = CancellationToken::new();
        let pumps = readers.into_iter().filter_map(|(name, reader)| {
            let output = targets.get(&name)?.clone();
            Some(Pump::new(&self.0, &name, reader).run(output, end.clone()))
        });
        let done = CancellationToken::new();
        let pumping = async {
            join_all(pumps).await;
            self.0.closing.cancelled().await;
            done.cancel();
        };
        let context = &self.0.context;
        let questions =
            context.services.registry.open_desk(&context.environment, Class::Connector, &context.id, resend::SUBJECTS);
        tokio::join!(pumping, self.0.give_up(&end), self.0.keep(&done, questions));
        Ok(())
    }
}

struct Abandon<'a>(&'a Shared);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Shared {
    /// Makes the targets those called `names`; where to read for each. What waits for others goes to their dead letters.
    fn attach(&self, names: &[Arc<str>]) -> Result<BTreeMap<Arc<str>, Reader>, StorageError> {
        let mut log = lock(&self.log);
        let mut state = lock(&self.state);
        let beginning = state.beginning();
        for name in names {
            let new = || Target { cursor: beginning, ..Target::default() };
            state.targets.entry(Arc::clone(name)).or_insert_with(new).attached = true;
        }
        state.unknown = false;
        let gone: Vec<Arc<str>> = state.targets.keys().filter(|name| !names.contains(name)).cloned().collect();
        drop(state);
        for name in gone {
            if let Err(NotPut::Disk(error)) = self.bury_all(&log, &name) {
                tracing::error!(environment = %self.context.environment, exporter = &*name, error, "what waits for an exporter that is gone cannot be put into its dead-letter file; it is kept in the outbox");
            }
        }
        let mut readers = BTreeMap::new();
        for name in names {
            let from = lock(&self.state).targets.get(name).map_or(0, |target| target.cursor.next);
            self.count(name, from, &log)?;
            let reader = Reader::open(Arc::clone(&self.files), self.log_folder(), from)?.without(log.void());
            readers.insert(Arc::clone(name), reader);
        }
        lock(&self.state).attached = true;
        if let Err(error) = self.save() {
            tracing::error!(environment = %self.context.environment, %error, "cannot write {}; it is tried again", self.folder.display());
        }
        // It takes room, and nothing else; `tidy` tries again.
        if let Err(error) = self.trim(&mut log) {
            tracing::warn!(environment = %self.context.environment, %error, "the outbox keeps what it does not need any more");
        }
        Ok(readers)
    }

    fn bury_all(&self, log: &crate::storage::Log, name: &Arc<str>) -> Result<(), NotPut> {
        let mut from = lock(&self.state).targets.get(name).map_or(0, |target| target.cursor.next);
        while from < log.next() {
            from = self.bury(log, name, from, GONE)?;
        }
        lock(&self.state).targets.remove(name);
        Ok(())
    }

    /// Counts what waits for the target.
    fn count(&self, name: &Arc<str>, from: u64, log: &crate::storage::Log) -> Result<(), StorageError> {
        let mut reader = Reader::open(Arc::clone(&self.files), self.log_folder(), from)?.without(log.void());
        reader.stop_before(log.next());
        let mut state = lock(&self.state);
        let Some(target) = state.targets.get_mut(name) else { return Ok(()) };
        (target.waiting, target.bytes) = (0, 0);
        while let Some(read) = reader.read() {
            let Ok((index, record)) = read else { continue };
            let Some(header) = super::record::header(record) else { continue };
            if target.wants(name, index, &header) {
                target.waiting += header.findings;
                target.bytes += record.len() as u64;
            }
        }
        if target.waiting > 0 {
            tracing::info!(
                environment = %self.context.environment,
                "{} findings wait in the outbox for exporter `{name}` since the last run",
                target.waiting
            );
        }
        Ok(())
    }

    /// Once nothing more is appended: ends the pumps when nothing was delivered for as long as the patience lasts. What
    /// is only in memory is not given up.
    async fn give_up(&self, end: &CancellationToken) {
        self.closing.cancelled().await;
        if !self.durable {
            return;
        }
        let all = || lock(&self.state).targets.values().map(|target| (target.attached, target.waiting)).collect::<Vec<_>>();
        let patience = self.context.services.outbox.patience;
        let (mut last, mut since) = (all(), Instant::now());
        while last.iter().any(|(attached, waiting)| *attached && *waiting > 0) {
            tokio::time::sleep(patience.min(Duration::from_millis(50))).await;
            let now = all();
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() >= patience {
                break;
            }
        }
        end.cancel();
    }

    /// Keeps cursors on disk, delivered findings off it, and the health true; answers questions. Until `done`.
    async fn keep(self: &Arc<Self>, done: &CancellationToken, mut questions: mpsc::Receiver<Question>) {
        let mut ticks = tokio::time::interval(SAVE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = None;
        loop {
            let question = tokio::select! {
                biased;
                () = done.cancelled() => break,
                _ = ticks.tick() => None,
                question = next_question(&mut questions) => Some(question),
            };
            let shared = Arc::clone(self);
            let work = tokio::task::spawn_blocking(move || match question {
                Some(question) => {
                    let answer = shared.resend(&question.body);
                    question.answer(answer);
                    None
                }
                None => Some(shared.tidy()),
            });
            if let Ok(Some(tidied)) = work.await {
                self.tell(tidied, &mut trouble);
            }
        }
        let shared = Arc::clone(self);
        let ending = tokio::task::spawn_blocking(move || {
            shared.tidy()?;
            lock(&shared.log).sync().map_err(|e| e.to_string())
        });
        if let Ok(Err(error)) = ending.await {
            tracing::error!(environment = %self.context.environment, error, "the outbox could not be written at the end: some findings may be sent again");
        }
        self.tell_what_waits();
    }

    /// Cursors to disk, delivered records off it.
    pub(super) fn tidy(&self) -> Result<(), String> {
        if self.save().map_err(|e| format!("cannot write the outbox's cursors: {e}"))? {
            self.trim(&mut lock(&self.log)).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    /// Tells what is wrong, once.
    fn tell(&self, tidied: Result<(), String>, told: &mut Option<String>) {
        let trouble = match tidied {
            Err(error) => Some(error),
            Ok(()) => self.half_full(told.is_some()),
        };
        let health = &self.context.health;
        match (&trouble, &*told) {
            (Some(message), None) => {
                tracing::warn!(environment = %self.context.environment, component = %self.context.id, "{message}");
                health.set(Status::RecoverableError(message.clone()));
            }
            (Some(message), Some(_)) => health.set(Status::RecoverableError(message.clone())),
            (None, Some(before)) if health.get().message() == Some(before) => health.set(Status::Ok),
            (None, _) => {}
        }
        *told = trouble;
    }

    /// A sentence when the outbox is more than half full; once told, until it is less than 40 % full.
    fn half_full(&self, told: bool) -> Option<String> {
        // Whoever appends may be making room right now.
        let size = self.log.try_lock().ok()?.size();
        let percent = size.saturating_mul(100) / self.max_size.max(1);
        if percent < if told { 40 } else { 50 } {
            return None;
        }
        let state = lock(&self.state);
        let (name, target) = state.targets.iter().max_by_key(|(_, target)| target.bytes)?;
        let then = if self.durable { "the oldest findings go to its dead-letter file" } else { "the detector waits" };
        Some(format!(
            "the outbox is {percent} % full: {} findings wait for exporter `{name}`; when it is full, {then}",
            target.waiting
        ))
    }

    fn tell_what_waits(&self) {
        for (name, target) in lock(&self.state).targets.iter().filter(|(_, target)| target.attached && target.waiting > 0) {
            let waiting = target.waiting;
            if self.durable {
                tracing::warn!(
                    environment = %self.context.environment,
                    component = %self.context.id,
                    "{waiting} findings wait in the outbox for exporter `{name}`: they are sent after the next start"
                );
            } else {
                self.context.counters.event("findings_undelivered", waiting);
            }
        }
    }
}

async fn next_question(questions: &mut mpsc::Receiver<Question>) -> Question {
    match questions.recv().await {
        Some(question) => question,
        None => pending().await,
    }
}
