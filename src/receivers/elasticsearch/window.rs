//! One poll: a window of time, read page by page from one point in time, each document handed over once.
//!
//! A window reaches from `high - overlap` to `now - query_delay`. Its first part has been read before, so there only
//! ids are asked for, and of those that are new, the documents. After every page that the pipelines took, the cursor
//! is stored with the time of its last document: whatever ends a poll, the next one goes on there. What this rests
//! on: a point in time does not change, pages come in the order of time, and the seen set holds every document that
//! was handed over and that any later window can show again.

use std::sync::Arc;

use super::columns::Columns;
use super::cursor::Cursor;
use super::decode::Decoder;
use super::reply::{Hit, Page};
use super::search::{PageRequest, Search, SearchError};
use super::seen::key;
use super::shape::Reason;
use super::time::millisecond;
use crate::model::{Payload, PayloadKind, Signal, SourceId, Telemetry, UnixNanos};
use crate::pipeline::{Context, Flight, History, Mark, Origin, Outputs, Receipt, Waiting};

/// How often in a row a point in time may be lost before a page comes.
const LOSSES: u32 = 3;
/// Pages are asked for in such sizes that an answer has about this many bytes.
const PAGE_BYTES: usize = 32 << 20;
/// A first page of unknown documents.
const FIRST_PAGE: usize = 1000;
/// How long a reader of history that is ahead of others waits before it looks again.
const WAIT_FOR_OTHERS: std::time::Duration = std::time::Duration::from_millis(20);
/// How many malformed documents are told about in one poll; all are counted.
const TOLD: u32 = 1;

/// The numbers of the configuration, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// How far a window stays behind the present.
    pub(super) delay: u64,
    /// How far it reaches back behind what has been read.
    pub(super) overlap: u64,
    /// Most documents per page.
    pub(super) page_size: usize,
    /// Most new documents per poll.
    pub(super) max_documents: u64,
    /// Most documents in the seen set.
    pub(super) max_remembered: usize,
}

/// How a poll ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The window is read.
    CaughtUp,
    /// There is more in it.
    More,
    /// No index matches the patterns.
    NoIndex,
    /// The daemon stops.
    Stopped,
}

/// Why a poll ended before its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PollError {
    /// The cluster; what was read before is handed over.
    #[error("{0}")]
    Search(String),
    /// The store.
    #[error("{0}")]
    Storage(#[from] crate::storage::StorageError),
    /// A consumer has ended.
    #[error("the pipelines have ended")]
    Ended,
    /// A consumer could not keep it.
    #[error("what was read could not be taken in, and will be read again: {0}")]
    NotKept(String),
}

/// What reading a page came to.
enum Step {
    Error(PollError),
    Gone(String),
    TooLarge(String),
    /// Servers before 8.16 say only here that the patterns match no index.
    NoIndex,
    Stopped,
}

impl From<PollError> for Step {
    fn from(error: PollError) -> Self {
        Self::Error(error)
    }
}

impl From<crate::storage::StorageError> for Step {
    fn from(error: crate::storage::StorageError) -> Self {
        Self::Error(error.into())
    }
}

/// A part of a window.
#[derive(Clone, Copy)]
struct Part {
    from: UnixNanos,
    to: UnixNanos,
    /// Whether it has been read before.
    again: bool,
}

/// Reads one environment's indices of one cluster.
pub(super) struct Poller<S> {
    search: S,
    cursor: Cursor,
    settings: Settings,
    decoder: Decoder,
    columns: Columns,
    outputs: Outputs,
    context: Context,
    source: SourceId,
    /// Documents per page, as their size allows.
    size: usize,
    /// New documents in this poll.
    new: u64,
    /// Malformed documents told about in this poll.
    told: u32,
    /// Whether it was told in this poll that the overlap is shorter.
    told_shortened: bool,
    pit: Option<String>,
    /// Told how far reading has come, while history is read.
    history: Option<History>,
}

impl<S: Search> Poller<S> {
    pub(super) fn new(
        search: S,
        cursor: Cursor,
        settings: Settings,
        decoder: Decoder,
        outputs: Outputs,
        context: Context,
    ) -> Self {
        Self {
            search,
            cursor,
            size: settings.page_size.min(FIRST_PAGE),
            settings,
            decoder,
            columns: Columns::default(),
            outputs,
            source: SourceId::from(context.id.to_string()),
            context,
            new: 0,
            told: 0,
            told_shortened: false,
            pit: None,
            history: None,
        }
    }

    /// Tells `history` how far reading has come, and waits for readers of the same history that are slower.
    pub(super) fn follow(&mut self, history: History) {
        history.join(&self.source, self.cursor.high());
        self.history = Some(history);
    }

    /// History is read.
    pub(super) fn history_ends(&mut self) {
        if let Some(history) = self.history.take() {
            history.reached(&self.source, self.cursor.high(), None, 0);
            history.done(&self.source);
        }
    }

    /// Until slower readers of the same history have come near.
    async fn wait_for_others(&self) {
        while self.history.as_ref().is_some_and(|h| h.is_ahead(&self.source)) && !self.context.shutdown.is_cancelled() {
            tokio::time::sleep(WAIT_FOR_OTHERS).await;
        }
    }

    /// The cluster.
    pub(super) const fn search(&self) -> &S {
        &self.search
    }

    /// What reads the documents.
    pub(super) const fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// Reads what there is at `now`.
    ///
    /// # Errors
    /// Why it could not go on. What was handed over until then is in the cursor.
    #[tracing::instrument(name = "elasticsearch.poll", skip_all, fields(environment = %self.context.environment, component = %self.context.id))]
    pub(super) async fn poll(&mut self, now: UnixNanos) -> Result<Outcome, PollError> {
        self.context.counters.event("polls", 1);
        (self.new, self.told, self.told_shortened) = (0, 0, false);
        // While the store cannot be written nothing is read, or a restart would repeat ever more.
        self.finish().await?;
        let result = self.window(millisecond(now.minus(self.settings.delay))).await;
        if let Some(pit) = self.pit.take() {
            self.search.close(pit).await;
        }
        result
    }

    /// Whether the store lacks something of what was read.
    #[cfg(test)]
    pub(super) const fn is_unfinished(&self) -> bool {
        self.cursor.is_dirty()
    }

    /// Stores what could not be stored before, if there is such.
    ///
    /// # Errors
    /// When it still cannot be.
    pub(super) async fn finish(&mut self) -> Result<(), PollError> {
        if self.cursor.is_dirty() {
            self.commit().await?;
        }
        Ok(())
    }

    async fn window(&mut self, hi: UnixNanos) -> Result<Outcome, PollError> {
        let read = millisecond(self.cursor.high());
        if hi <= read {
            return Ok(Outcome::CaughtUp);
        }
        if !self.open().await? {
            return Ok(if self.context.shutdown.is_cancelled() { Outcome::Stopped } else { Outcome::NoIndex });
        }
        let again = Part { from: self.cursor.low(self.settings.overlap), to: read, again: true };
        for part in [again, Part { from: read, to: hi, again: false }] {
            match self.part(part).await? {
                Outcome::CaughtUp => {}
                other => return Ok(other),
            }
        }
        self.cursor.advance(hi);
        self.commit().await?;
        Ok(Outcome::CaughtUp)
    }

    /// Opens a point in time; false if no index matches, or the daemon stops.
    async fn open(&mut self) -> Result<bool, PollError> {
        if let Some(pit) = self.pit.take() {
            self.search.close(pit).await;
        }
        let opened = tokio::select! {
            biased;
            () = self.context.shutdown.cancelled() => return Ok(false),
            opened = self.search.open() => opened,
        };
        self.pit = opened.map_err(|e| match e {
            SearchError::Gone(s) | SearchError::TooLarge(s) | SearchError::Failed(s) => PollError::Search(s),
        })?;
        Ok(self.pit.is_some())
    }

    async fn part(&mut self, part: Part) -> Result<Outcome, PollError> {
        if part.from >= part.to {
            return Ok(Outcome::CaughtUp);
        }
        let (mut from, mut after, mut losses) = (part.from, None::<String>, 0);
        loop {
            self.wait_for_others().await;
            self.wait_for_memory().await;
            if self.context.shutdown.is_cancelled() {
                return Ok(Outcome::Stopped);
            }
            let step = match part.again {
                true => self.look_again(Part { from, ..part }, after.as_deref()).await,
                false => self.read_on(Part { from, ..part }, after.as_deref(), None).await,
            };
            match step {
                Ok(None) => return Ok(Outcome::CaughtUp),
                Ok(Some((time, sort))) => {
                    // Where a new point in time would go on; its borders lie on milliseconds.
                    from = from.max(millisecond(time));
                    (after, losses) = (Some(sort), 0);
                    if self.new >= self.settings.max_documents {
                        return Ok(Outcome::More);
                    }
                }
                Err(Step::Gone(sentence)) => {
                    losses += 1;
                    if losses > LOSSES {
                        return Err(PollError::Search(sentence));
                    }
                    self.context.counters.event("points_in_time_lost", 1);
                    tracing::debug!(component = %self.context.id, reason = sentence, "opening a new point in time");
                    if !self.open().await? {
                        let stopped = self.context.shutdown.is_cancelled();
                        return Ok(if stopped { Outcome::Stopped } else { Outcome::NoIndex });
                    }
                    // Sort values belong to their point in time.
                    after = None;
                }
                Err(Step::TooLarge(sentence)) if self.size <= 1 => return Err(PollError::Search(sentence)),
                Err(Step::TooLarge(_)) => self.size /= 2,
                Err(Step::NoIndex) => return Ok(Outcome::NoIndex),
                Err(Step::Stopped) => return Ok(Outcome::Stopped),
                Err(Step::Error(error)) => return Err(error),
            }
        }
    }

    /// Reads on when there is room for a page.
    async fn wait_for_memory(&self) {
        let memory = self.context.services.registry.memory();
        let waited = tokio::select! {
            () = self.context.shutdown.cancelled() => false,
            waited = memory.room() => waited,
        };
        if waited {
            self.context.counters.event("waits_for_memory", 1);
        }
    }

    /// One page of what has been read before: only what is new in it is fetched. Where to go on, if there is more.
    async fn look_again(&mut self, part: Part, after: Option<&str>) -> Result<Option<(UnixNanos, String)>, Step> {
        // Ids are small, so a page of them is always as large as it may be.
        let size = self.settings.page_size.max(1);
        let body = self.ask(part, after, None, size, false).await?;
        let page = Page::read(&body).map_err(PollError::Search)?;
        self.renew(&page);
        if page.is_of_nothing() {
            return Err(Step::NoIndex);
        }
        let mut late: Vec<String> = Vec::new();
        let mut seen = 0;
        for hit in page.hits() {
            let time = hit.time().ok_or_else(unsorted)?;
            if self.cursor.contains(time, key(&hit.index, &hit.id)) {
                seen += 1;
            } else {
                late.push(hit.id.as_ref().to_owned());
            }
        }
        self.context.counters.event("documents_seen_before", seen);
        let next = more(&page, size)?;
        if !late.is_empty() {
            let mut after = None::<String>;
            // The documents are larger than their ids, so these may need more than one page.
            while let Some((_, sort)) = self.read_on(part, after.as_deref(), Some(&late)).await? {
                after = Some(sort);
            }
        }
        Ok(next)
    }

    /// One page of documents: reads those that are new, hands them over, and stores the cursor. Where to go on, if
    /// there is more.
    async fn read_on(
        &mut self,
        part: Part,
        after: Option<&str>,
        ids: Option<&[String]>,
    ) -> Result<Option<(UnixNanos, String)>, Step> {
        let size = self.size.clamp(1, self.settings.page_size.max(1));
        let body = self.ask(part, after, ids, size, true).await?;
        let page = Page::read(&body).map_err(PollError::Search)?;
        self.renew(&page);
        if page.is_of_nothing() {
            return Err(Step::NoIndex);
        }
        if let Some(each) = body.len().checked_div(page.hits().len()) {
            self.size = (PAGE_BYTES / each.max(1)).clamp(1, self.settings.page_size.max(1));
        }
        let next = more(&page, size)?;
        let documents = self.documents(&page)?;
        let before = self.new;
        self.hand_over(documents).await?;
        if part.again {
            self.context.counters.event("late_documents", self.new - before);
        } else if let Some(last) = page.hits().last().and_then(Hit::time) {
            self.cursor.advance(last);
        }
        if let Some(history) = &self.history {
            let first = page.hits().first().and_then(Hit::time);
            history.reached(&self.source, self.cursor.high(), first, self.new - before);
        }
        // The last page of a window is stored together with the window's end.
        if next.is_some() || part.again {
            self.commit().await?;
        }
        Ok(next)
    }

    /// The keys of the page's new documents by what became of them, the documents themselves in columns.
    fn documents(&mut self, page: &Page<'_>) -> Result<Documents, Step> {
        // A page that could not be used must leave nothing behind.
        self.columns = Columns::default();
        let mut documents = Documents::default();
        let mut seen = 0;
        for hit in page.hits() {
            let time = hit.time().ok_or_else(unsorted)?;
            let key = key(&hit.index, &hit.id);
            if self.cursor.contains(time, key) {
                seen += 1;
                continue;
            }
            let Some(source) = hit.source else {
                let sentence = format!(
                    "index `{}` does not keep documents as they were written (`_source` is disabled), so it cannot be read; \
                     take it out of `indices`",
                    hit.index
                );
                return Err(PollError::Search(sentence).into());
            };
            match self.decoder.decode(&hit.index, time, source.get(), &mut self.columns) {
                Ok(signal) => documents.of(signal).push((time, key)),
                Err(rejected) => {
                    if rejected.reason == Reason::Malformed {
                        self.tell(&hit.index, &hit.id, &rejected.detail);
                    }
                    documents.rejected.push((time, key, rejected.signal, rejected.reason));
                }
            }
        }
        self.context.counters.event("documents_seen_before", seen);
        Ok(documents)
    }

    fn tell(&mut self, index: &str, id: &str, detail: &str) {
        self.told = self.told.saturating_add(1);
        if self.told <= TOLD {
            tracing::warn!(
                environment = %self.context.environment, component = %self.context.id, index, id, detail,
                "a document cannot be read and is left out; more of them in this poll are only counted, as `malformed_document`"
            );
        }
    }

    /// Hands the records over, signal by signal, and remembers the documents of each that the pipelines took.
    async fn hand_over(&mut self, documents: Documents) -> Result<(), PollError> {
        let context = &self.context;
        let read = documents.len();
        for (time, key, signal, reason) in documents.rejected {
            context.counters.rejected(PayloadKind::Telemetry(signal), 1, reason.as_str());
            self.cursor.insert(time, key);
        }
        let generation = self.cursor.next_generation();
        let mut sent: Vec<Sent> = Vec::new();
        let mut result = Ok(());
        for (signal, keys) in
            [(Signal::Traces, documents.traces), (Signal::Metrics, documents.metrics), (Signal::Logs, documents.logs)]
        {
            let (kind, records) = (PayloadKind::Telemetry(signal), self.columns.len(signal));
            if records == 0 {
                continue;
            }
            let batch = self.columns.take(signal);
            let output = self.outputs.of(signal);
            if output.is_empty() {
                context.counters.rejected(kind, records, "no_pipeline");
                keys.into_iter().for_each(|(time, key)| self.cursor.insert(time, key));
                continue;
            }
            let telemetry = Telemetry { environment: context.environment.clone(), source: Arc::clone(&self.source), batch };
            let flight = context.counters.begin(kind, records);
            let mark = Mark { source: Arc::clone(&self.source), signal, generation, bytes: Cursor::mark(&keys) };
            let (receipt, waiting) = Receipt::new();
            // Waits as long as it takes: that is how a full pipeline slows the reading down.
            let origin = Origin { id: None, mark: Some(Arc::new(mark)) };
            match output.send_on(Payload::Telemetry(Arc::new(telemetry)), origin, receipt).await {
                Ok(()) => sent.push(Sent { keys, flight, waiting }),
                Err(_) => {
                    flight.refused();
                    result = Err(PollError::Ended);
                }
            }
        }
        for Sent { keys, flight, waiting } in sent {
            match waiting.heard().await {
                Ok(()) => {
                    flight.sent();
                    keys.into_iter().for_each(|(time, key)| self.cursor.insert(time, key));
                }
                Err(lost) => {
                    flight.refused();
                    result = result.and(Err(PollError::NotKept(lost.to_string())));
                }
            }
        }
        if let Err(error) = result {
            // What the other signals' pipelines took must not come again.
            self.commit().await?;
            return Err(error);
        }
        self.new += read;
        context.counters.event("pages", 1);
        context.counters.event("documents", read);
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), crate::storage::StorageError> {
        let most = self.settings.max_remembered;
        if let Some(floor) = self.cursor.prune(self.settings.overlap, most) {
            self.context.counters.event("overlap_shortened", 1);
            if std::mem::replace(&mut self.told_shortened, true) {
                return self.cursor.commit().await;
            }
            tracing::warn!(
                environment = %self.context.environment, component = %self.context.id, remembered = self.cursor.remembered(), from = %floor,
                "more documents than `max_remembered_documents` lie in the overlap, so it is shorter: late documents before `from` are left out"
            );
        }
        self.cursor.commit().await
    }

    async fn ask(
        &self,
        part: Part,
        after: Option<&str>,
        ids: Option<&[String]>,
        size: usize,
        source: bool,
    ) -> Result<String, Step> {
        let Some(pit) = self.pit.as_deref() else { return Err(Step::Gone("no point in time is open".to_owned())) };
        let request = PageRequest { pit, from: part.from, to: part.to, after, ids, size, source };
        let answer = tokio::select! {
            biased;
            () = self.context.shutdown.cancelled() => return Err(Step::Stopped),
            answer = self.search.page(request) => answer,
        };
        let body = answer.map_err(|e| match e {
            SearchError::Gone(s) => Step::Gone(s),
            SearchError::TooLarge(s) => Step::TooLarge(s),
            SearchError::Failed(s) => PollError::Search(s).into(),
        })?;
        Ok(String::from_utf8(body.into()).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
    }

    /// Goes on with the point in time that the answer names.
    fn renew(&mut self, page: &Page<'_>) {
        if let Some(id) = &page.pit_id
            && self.pit.as_deref() != Some(id)
        {
            self.pit = Some(id.as_ref().to_owned());
        }
    }
}

/// Where to go on after a full page; nothing after a short one.
fn more(page: &Page<'_>, size: usize) -> Result<Option<(UnixNanos, String)>, PollError> {
    let Some(last) = page.hits().last().filter(|_| page.hits().len() >= size) else { return Ok(None) };
    let (time, sort) = last.time().zip(last.sort).ok_or_else(unsorted)?;
    Ok(Some((time, sort.get().to_owned())))
}

fn unsorted() -> PollError {
    PollError::Search("a document in the answer has no time as its sort value".to_owned())
}

/// Documents of one signal that are on their way.
struct Sent {
    keys: Vec<(UnixNanos, u128)>,
    flight: Flight,
    waiting: Waiting,
}

/// The keys of documents.
#[derive(Default)]
struct Documents {
    traces: Vec<(UnixNanos, u128)>,
    metrics: Vec<(UnixNanos, u128)>,
    logs: Vec<(UnixNanos, u128)>,
    rejected: Vec<(UnixNanos, u128, Signal, Reason)>,
}

impl Documents {
    const fn of(&mut self, signal: Signal) -> &mut Vec<(UnixNanos, u128)> {
        match signal {
            Signal::Traces => &mut self.traces,
            Signal::Metrics => &mut self.metrics,
            Signal::Logs => &mut self.logs,
        }
    }

    const fn len(&self) -> u64 {
        (self.traces.len() + self.metrics.len() + self.logs.len() + self.rejected.len()) as u64
    }
}
