//! Brings the findings to one target, in order, and moves its cursor when it has them.
//!
//! **The order is strict.** Several deliveries are on their way at once, in a [`Row`]: when the target does not keep one, all
//! behind it are withdrawn at that moment, and sent again behind it.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures::FutureExt as _;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::record::Record;
use super::{Backoff, Reader, Shared, Status, WAITS, lock, record};
use crate::model::Payload;
use crate::pipeline::{Lost, Origin, Output, Receipt, Refused, Row};

/// So many deliveries are on their way at most: what a target may get twice when it fails.
const WINDOW: usize = 16;
/// So much is read ahead: records and bytes.
const AHEAD: (usize, u64) = (64, 1 << 20);

/// Where one delivery is.
enum Way {
    /// Sent; this is told whether it was kept.
    Out(Pin<Box<dyn Future<Output = Result<(), Lost>> + Send>>),
    /// The target has it, but not yet all that came before.
    Kept,
    /// The target did not keep it, or one before it: it is sent again.
    Again,
}

struct Flying {
    record: Record,
    way: Way,
}

/// The pump of one target.
pub(super) struct Pump {
    shared: Arc<Shared>,
    name: Arc<str>,
    wake: Arc<Notify>,
    reader: Option<Reader>,
    /// Read, and not sent yet.
    ready: VecDeque<Record>,
    /// In the order of their indices.
    flying: VecDeque<Flying>,
    /// Of those that are on their way.
    row: Row,
    backoff: Backoff,
    /// Nothing is sent before.
    pause: Option<Instant>,
    /// Why the target does not take anything, as far as told.
    trouble: Option<Lost>,
}

/// What happens next.
enum Next {
    Heard(usize, Result<(), Lost>),
    Room,
    Closed,
    Woken,
}

impl Pump {
    pub(super) fn new(shared: &Arc<Shared>, name: &Arc<str>, reader: Reader) -> Self {
        let wake = lock(&shared.state).targets.get(name).map(|target| Arc::clone(&target.wake)).unwrap_or_default();
        Self {
            shared: Arc::clone(shared),
            name: Arc::clone(name),
            wake,
            reader: Some(reader),
            ready: VecDeque::new(),
            flying: VecDeque::new(),
            row: Row::default(),
            backoff: Backoff::new(WAITS.0, WAITS.1),
            pause: None,
            trouble: None,
        }
    }

    /// Runs until the outbox is closed and all is delivered, or until `end`. What is on its way then is withdrawn: the
    /// target has it no longer, and gets it again after the next start.
    pub(super) async fn run(mut self, output: Output, end: CancellationToken) {
        loop {
            // Asked before it reads on: what is appended until then is seen.
            let closed = self.shared.closing.is_cancelled();
            self.overtaken();
            if self.ready.is_empty() && self.flying.len() < WINDOW {
                self.read().await;
            }
            self.show();
            if self.ready.is_empty() && self.flying.is_empty() && closed {
                return;
            }
            let sendable = self.flying.iter().any(|flying| matches!(flying.way, Way::Again))
                || (self.flying.len() < WINDOW && !self.ready.is_empty());
            let pause = self.pause;
            let room = async {
                if !sendable {
                    return pending().await;
                }
                if let Some(pause) = pause {
                    tokio::time::sleep_until(pause).await;
                }
                output.room().await
            };
            let next = tokio::select! {
                biased;
                () = end.cancelled() => return,
                (place, heard) = heard(&mut self.flying) => Next::Heard(place, heard),
                () = self.wake.notified() => Next::Woken,
                room = room => match room {
                    Ok(room) => {
                        let (receipt, waiting) = Receipt::in_row(&self.row);
                        if let Some(flying) = next_to_send(&mut self.flying, &mut self.ready) {
                            flying.way = Way::Out(Box::pin(waiting.heard()));
                            room.send(&Payload::Anomalies(Arc::clone(&flying.record.findings)), &Origin::default(), receipt);
                        }
                        Next::Room
                    }
                    Err(Refused::Closed | Refused::Full) => Next::Closed,
                },
            };
            match next {
                Next::Heard(place, heard) => self.settle(place, heard),
                Next::Room => self.pause = None,
                Next::Closed => {
                    tracing::warn!(
                        environment = %self.shared.context.environment,
                        component = %self.shared.context.id,
                        exporter = &*self.name,
                        "the exporter has ended: what it has not taken waits for the next start"
                    );
                    self.flying.clear();
                    return end_or_close(&end, &self.shared.closing).await;
                }
                Next::Woken => {}
            }
        }
    }

    /// A delivery was kept, or not.
    fn settle(&mut self, place: usize, heard: Result<(), Lost>) {
        let Some(flying) = self.flying.get_mut(place) else { return };
        match heard {
            Ok(()) => {
                flying.way = Way::Kept;
                self.backoff.reset();
                if self.trouble.take().is_some() {
                    tracing::info!(
                        environment = %self.shared.context.environment,
                        exporter = &*self.name,
                        "findings are taken again"
                    );
                }
            }
            Err(lost) => {
                flying.way = Way::Again;
                let findings = flying.record.header.findings + self.withdraw();
                self.shared.context.counters.event("findings_sent_again", findings);
                if self.pause.is_none() {
                    self.pause = Some(Instant::now() + self.backoff.next(None));
                }
                if self.trouble.as_ref() != Some(&lost) {
                    tracing::warn!(
                        environment = %self.shared.context.environment,
                        exporter = &*self.name,
                        reason = %lost,
                        "findings were not taken, and are sent again"
                    );
                    self.trouble = Some(lost);
                }
            }
        }
        while let Some(Flying { record, .. }) = self.flying.pop_front_if(|front| matches!(front.way, Way::Kept)) {
            self.shared.delivered(&self.name, &record);
        }
    }

    /// Takes back all that is on its way, but for what was kept until now. How many findings these are.
    fn withdraw(&mut self) -> u64 {
        self.row = Row::default();
        let mut findings = 0;
        for flying in &mut self.flying {
            if let Way::Out(heard) = &mut flying.way {
                let kept = matches!(heard.now_or_never(), Some(Ok(())));
                findings += if kept { 0 } else { flying.record.header.findings };
                flying.way = if kept { Way::Kept } else { Way::Again };
            }
        }
        findings
    }

    /// Lets go of what went to the dead letters meanwhile.
    fn overtaken(&mut self) {
        let next = lock(&self.shared.state).targets.get(&self.name).map_or(0, |target| target.cursor.next);
        while self.flying.pop_front_if(|front| front.record.index < next).is_some() {}
        while self.ready.pop_front_if(|front| front.index < next).is_some() {}
    }

    /// Reads on.
    async fn read(&mut self) {
        let Some(mut reader) = self.reader.take() else { return };
        let (shared, name) = (Arc::clone(&self.shared), Arc::clone(&self.name));
        let reading = tokio::task::spawn_blocking(move || {
            let records = shared.read(&mut reader, &name);
            (reader, records)
        });
        if let Ok((reader, records)) = reading.await {
            let reached = reader.next_index();
            self.reader = Some(reader);
            self.ready = records;
            if self.ready.is_empty() && self.flying.is_empty() {
                self.shared.reached(&self.name, reached);
            }
        } else {
            let message = format!("the reader of the outbox ended early; what waits for exporter `{}` waits", self.name);
            self.shared.context.health.set(Status::PermanentError(message));
        }
    }

    /// Shows for how long the first has been waiting.
    fn show(&self) {
        let first = self.flying.front().map(|flying| &flying.record).or_else(|| self.ready.front());
        if let Some(target) = lock(&self.shared.state).targets.get_mut(&self.name) {
            target.oldest = first.map(|record| record.header.at);
        }
    }
}

/// Waits until one of those on their way is kept, or not; which one.
async fn heard(flying: &mut VecDeque<Flying>) -> (usize, Result<(), Lost>) {
    poll_fn(|context| {
        for (place, flying) in flying.iter_mut().enumerate() {
            if let Way::Out(heard) = &mut flying.way
                && let Poll::Ready(heard) = heard.as_mut().poll(context)
            {
                return Poll::Ready((place, heard));
            }
        }
        Poll::Pending
    })
    .await
}

/// The first that was not kept, else the first that was not sent.
fn next_to_send<'a>(flying: &'a mut VecDeque<Flying>, ready: &mut VecDeque<Record>) -> Option<&'a mut Flying> {
    if let Some(place) = flying.iter().position(|flying| matches!(flying.way, Way::Again)) {
        return flying.get_mut(place);
    }
    flying.push_back(Flying { record: ready.pop_front()?, way: Way::Again });
    flying.back_mut()
}

async fn end_or_close(end: &CancellationToken, close: &CancellationToken) {
    tokio::select! {
        () = end.cancelled() => {}
        () = close.cancelled() => {}
    }
}

impl Shared {
    /// The next records that `name` wants.
    fn read(&self, reader: &mut Reader, name: &str) -> VecDeque<Record> {
        let next = lock(&self.state).next;
        reader.stop_before(next);
        let (mut records, mut bytes) = (VecDeque::new(), 0);
        while records.len() < AHEAD.0 && bytes < AHEAD.1 {
            let record = match reader.read() {
                None => break,
                Some(Ok((index, record))) => {
                    record::decode(index, record).ok_or_else(|| format!("record {index} cannot be read"))
                }
                Some(Err(damage)) => Err(damage.to_string()),
            };
            match record {
                Ok(record) => {
                    let state = lock(&self.state);
                    if state.targets.get(name).is_some_and(|target| target.wants(name, record.index, &record.header)) {
                        bytes += record.bytes;
                        records.push_back(record);
                    }
                }
                Err(error) => {
                    self.context.counters.event("outbox_damages", 1);
                    tracing::error!(environment = %self.context.environment, exporter = name, "findings in the outbox are lost: {error}");
                }
            }
        }
        records
    }

    /// The target has the record, and all before it.
    fn delivered(&self, name: &str, record: &Record) {
        let mut state = lock(&self.state);
        if let Some(target) = state.targets.get_mut(name)
            && target.wants(name, record.index, &record.header)
        {
            target.pass(record.index, &record.header);
            target.less(&record.header, record.bytes);
            target.delivered += record.header.findings;
        }
        drop(state);
        self.room.notify_all();
    }

    /// There is nothing for the target before `next`.
    fn reached(&self, name: &str, next: u64) {
        if let Some(target) = lock(&self.state).targets.get_mut(name) {
            target.cursor.next = target.cursor.next.max(next);
        }
        self.room.notify_all();
    }
}
