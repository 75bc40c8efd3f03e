//! The thread of the journal: what waits is written to the input log with one write and one sync, and only then given
//! to the shards and confirmed to its senders (group commit). While one commit is on its way to the disk, the next one
//! gathers, so that a busy detector syncs no more often than a quiet one.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::super::checkpoint::Outcome;
use super::super::rules::{self, Request};
use super::super::shard::Report;
use super::recovery::begin_checkpoint;
use super::schedule::{Schedule, Volume};
use super::{Entry, Fed, Feeder, ShardEnded, Started, Told, is_measured, write_fed};
use crate::model::UnixNanos;
use crate::pipeline::{BatchId, Context, Delivery, Flight, Origin, Question, Receipt, Refusal, Status};
use crate::storage::{AppendError, Log};

/// A commit is written when it has so many bytes, even if more waits.
const COMMIT_BYTES: usize = 4 << 20;
/// Or so many entries.
const COMMIT_ENTRIES: usize = 512;

/// What is to happen.
#[derive(Debug)]
pub(in super::super) enum Work {
    /// Something came in.
    Delivery(Delivery),
    /// The clock shows this.
    Tick(UnixNanos),
    /// History is learnt.
    Live,
    /// Whether there is memory for new series.
    Growth(bool),
    /// A replay has ended.
    Finish(UnixNanos),
    /// Somebody asks or tells something.
    Question(Question),
}

/// Writes entries and lets them happen.
pub(in super::super) struct Writer {
    context: Context,
    feeder: Feeder,
    /// None where nothing is to survive the process.
    log: Option<Log>,
    /// What is said anew after a time in which nothing could be written.
    started: Started,
    checkpoints: Option<Checkpointing>,
    /// Whether there is memory for further series.
    growth: bool,
    /// What cannot be told anew, and could not be written yet.
    owed: Vec<Entry>,
    /// What keeps the log from being written.
    trouble: Option<String>,
    bytes: Vec<u8>,
}

/// What checkpoints need.
pub(in super::super) struct Checkpointing {
    pub(in super::super) schedule: Schedule,
    pub(in super::super) reports: mpsc::Sender<Report>,
    /// The newest one that is on disk: the log goes back to it when there is a newer one.
    pub(in super::super) newest: Option<u64>,
    /// Whether it was written by this process, and so is as it should be.
    pub(in super::super) own: bool,
}

/// An entry that waits for its commit.
enum Pending {
    Entry(Entry),
    Fed(Box<Fed>, Flight, Receipt),
    /// A request, and who asked. Only what changes something is an entry.
    Question(Question, Arc<Request>, Option<Told>),
    /// It was taken in before; its sender has not heard it.
    Repeated(Flight, Receipt),
}

impl Writer {
    pub(in super::super) fn new(
        context: Context,
        feeder: Feeder,
        log: Option<Log>,
        started: Started,
        checkpoints: Option<Checkpointing>,
    ) -> Self {
        Self { context, feeder, log, started, checkpoints, growth: true, owed: Vec::new(), trouble: None, bytes: Vec::new() }
    }

    /// Works until `work` ends, and then begins the last checkpoint. Blocks: for a thread of its own.
    pub(in super::super) fn run(mut self, mut work: mpsc::Receiver<Work>) -> Result<(), ShardEnded> {
        let started = Entry::Started(Started { now: self.context.services.clock.now(), ..self.started.clone() });
        self.commit(vec![Pending::Entry(started)])?;
        while let Some(first) = work.blocking_recv() {
            let mut batch = Vec::new();
            let mut ids = HashSet::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(one) = next {
                bytes += self.take(one, &mut batch, &mut ids);
                if bytes >= COMMIT_BYTES || batch.len() >= COMMIT_ENTRIES {
                    break;
                }
                next = work.try_recv().ok();
            }
            self.commit(batch)?;
            self.checkpoint()?;
        }
        match &self.checkpoints {
            // One that is being written of this very moment is as good; a second one would only take its place.
            Some(checkpoints) if !checkpoints.schedule.is_writing(self.feeder.next) => {
                begin_checkpoint(&self.feeder, &checkpoints.reports, &self.started)
            }
            _ => Ok(()),
        }
    }

    /// Begins a checkpoint if one is due; when one is on disk, gives back the room that the log does not need any more.
    fn checkpoint(&mut self) -> Result<(), ShardEnded> {
        let Some(Checkpointing { schedule, reports, newest, own }) = &mut self.checkpoints else { return Ok(()) };
        let before = match schedule.outcome() {
            Some(Outcome::Written { index, .. }) => {
                *own = true;
                newest.replace(index)
            }
            _ => None,
        };
        // A log that is full of what the newest holds: were it kept for the one before, nothing could ever come in.
        let all = newest.filter(|newest| *own && schedule.is_full() && *newest == self.feeder.next);
        if let (Some(log), Some(keep_from)) = (&mut self.log, before.or(all)) {
            if let Err(error) = log.trim(keep_from) {
                let Context { environment, id, .. } = &self.context;
                tracing::warn!(%environment, component = %id, %error, "the input log keeps what it does not need any more");
            }
            schedule.trimmed();
        }
        // Also while nothing can be written: a log that is full has room again after it.
        if schedule.is_due() {
            begin_checkpoint(&self.feeder, reports, &self.started)?;
            schedule.begun(self.feeder.next);
        }
        if let Some(log) = &self.log {
            self.context.counters.gauge("input_log_bytes", log.size() as f64);
        }
        Ok(())
    }

    /// Puts what is to happen into the batch, unless there is nothing to do for it. About how many bytes it has.
    fn take(&mut self, work: Work, batch: &mut Vec<Pending>, ids: &mut HashSet<BatchId>) -> usize {
        match work {
            Work::Tick(now) => batch.push(Pending::Entry(Entry::Tick(now))),
            Work::Live => batch.push(Pending::Entry(Entry::Live)),
            Work::Growth(growth) => {
                self.growth = growth;
                batch.push(Pending::Entry(Entry::Growth(growth)));
            }
            Work::Finish(until) => batch.push(Pending::Entry(Entry::Finish(until))),
            Work::Question(question) => self.question(question, batch),
            Work::Delivery(Delivery { payload, mut flight, origin: Origin { id, mark } }) => {
                let receipt = flight.receipt();
                if receipt.is_withdrawn() {
                    // Its sender has been told to send it again.
                    flight.refused();
                    return 0;
                }
                if let Some(id) = id
                    && (self.feeder.known.has(id) || !ids.insert(id))
                {
                    self.context.counters.event("requests_repeated", 1);
                    batch.push(Pending::Repeated(flight, receipt));
                    return 0;
                }
                if !is_measured(&payload, &self.context.environment) {
                    flight.dropped_rest("not_measured");
                    receipt.kept();
                    return 0;
                }
                let bytes = payload.len() * 64;
                batch.push(Pending::Fed(Box::new(Fed { id, mark, payload }), flight, receipt));
                return bytes;
            }
        }
        16
    }

    fn question(&self, question: Question, batch: &mut Vec<Pending>) {
        let now = self.context.services.clock.now();
        match Request::read(&question.subject, question.body.clone(), now) {
            Ok(request) => {
                let told =
                    request.changes().then(|| Told { now, subject: question.subject.clone(), body: question.body.to_string() });
                batch.push(Pending::Question(question, Arc::new(request), told));
            }
            Err(refusal) => question.answer(Err(refusal)),
        }
    }

    /// Writes the batch, and lets it happen if that worked.
    fn commit(&mut self, mut batch: Vec<Pending>) -> Result<(), ShardEnded> {
        if batch.is_empty() {
            return Ok(());
        }
        if self.trouble.is_some() {
            // What lies between was not watched.
            let started = Started { now: self.context.services.clock.now(), ..self.started.clone() };
            let first = [Entry::Started(started), Entry::Growth(self.growth)].into_iter().chain(self.owed.drain(..));
            let first: Vec<Pending> = first.map(Pending::Entry).collect();
            batch.splice(..0, first);
        }
        if let Err(why) = self.write(&batch) {
            self.refuse(batch, &why);
            return Ok(());
        }
        if self.trouble.take().is_some() {
            let Context { environment, id, health, .. } = &self.context;
            tracing::info!(%environment, component = %id, "the input log can be written again");
            health.set(Status::Ok);
        }
        for pending in batch {
            match pending {
                Pending::Entry(entry) => {
                    if let Entry::Live = entry {
                        self.started.in_history = false;
                    }
                    self.feeder.apply(entry, None)?;
                }
                Pending::Fed(fed, flight, receipt) => {
                    receipt.kept();
                    self.feeder.apply(Entry::Feed(fed), Some(flight))?;
                }
                Pending::Repeated(flight, receipt) => {
                    flight.dropped_rest("repeated");
                    receipt.kept();
                }
                Pending::Question(question, request, told) => {
                    let mut parts = self.feeder.ask(&request)?;
                    if told.is_some() {
                        self.feeder.next += 1;
                    }
                    tokio::runtime::Handle::current().spawn(async move {
                        let mut all = Vec::new();
                        while let Some(part) = parts.recv().await {
                            all.push(part);
                        }
                        question.answer(rules::gather(&request, all));
                    });
                }
            }
        }
        Ok(())
    }

    /// Writes the entries of the batch to the log, if there is one. The sentence says what is wrong.
    fn write(&mut self, batch: &[Pending]) -> Result<(), String> {
        let Some(log) = &mut self.log else { return Ok(()) };
        self.bytes.clear();
        let mut ends = Vec::with_capacity(batch.len());
        let mut observations = 0;
        for pending in batch {
            let written = match pending {
                Pending::Entry(entry) => entry.write(&mut self.bytes),
                Pending::Fed(fed, ..) => {
                    observations += fed.payload.len() as u64;
                    write_fed(fed.id, fed.mark.as_deref(), &fed.payload, &mut self.bytes)
                }
                Pending::Question(.., Some(told)) => Entry::Told(told.clone()).write(&mut self.bytes),
                Pending::Question(.., None) | Pending::Repeated(..) => continue,
            };
            written.map_err(|e| format!("an entry of the input log cannot be encoded: {e}"))?;
            ends.push(self.bytes.len());
        }
        let mut start = 0;
        let records: Vec<&[u8]> =
            ends.into_iter().map(|end| self.bytes.get(std::mem::replace(&mut start, end)..end).unwrap_or_default()).collect();
        if records.is_empty() {
            // What is repeated may have been written by a process that was killed before it was safe.
            return log.sync().map_err(|e| e.to_string());
        }
        let first = match log.append(&records) {
            Ok(first) => first,
            Err(error) => {
                if let (AppendError::Full { .. }, Some(checkpoints)) = (&error, &mut self.checkpoints) {
                    checkpoints.schedule.full();
                }
                return Err(error.to_string());
            }
        };
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.schedule.wrote(Volume { bytes: self.bytes.len() as u64, observations });
        }
        debug_assert_eq!(first, self.feeder.next, "the log numbers entries as the feeder does");
        Ok(())
    }

    /// Nothing of the batch happens; whoever waits is told why.
    fn refuse(&mut self, batch: Vec<Pending>, why: &str) {
        let Context { environment, id, health, counters, .. } = &self.context;
        counters.event("log_write_errors", 1);
        if self.trouble.as_deref() != Some(why) {
            tracing::error!(%environment, component = %id, "nothing is taken in: {why}; senders keep what they have and try again");
            health.set(Status::RecoverableError(format!("nothing is taken in: {why}; it is tried again: make room there")));
            self.trouble = Some(why.to_owned());
        }
        for pending in batch {
            match pending {
                Pending::Entry(entry @ (Entry::Live | Entry::Finish(_))) => self.owed.push(entry),
                Pending::Entry(_) => {}
                Pending::Fed(_, flight, receipt) | Pending::Repeated(flight, receipt) => {
                    flight.refused();
                    receipt.refuse(why);
                }
                Pending::Question(question, ..) => question.answer(Err(Refusal::unavailable(format!("not done: {why}")))),
            }
        }
    }
}
