//! Reads documents from Elasticsearch indices, each once. See `README.md` in this folder.

mod columns;
mod config;
mod cursor;
mod decode;
mod ecs;
mod fields;
mod metrics;
mod otel;
mod reply;
mod search;
mod seen;
mod shape;
mod time;
mod window;

#[cfg(test)]
mod shape_tests;
#[cfg(test)]
mod window_tests;

use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema as _;
use tokio::time::Instant;

pub use config::Config;

use crate::elasticsearch::{Client, closed};
use crate::model::{Batch, PayloadKind, Signal, UnixNanos};
use crate::pipeline::{BuildError, ComponentError, Context, Factory, Make, Outputs, Receiver, ReceiverInstance, Span, Status};

use columns::Columns;
use cursor::Cursor;
use decode::Decoder;
use reply::Page;
use search::{Cluster, Search as _, SearchError};
use window::{Outcome, PollError, Poller, Settings};

/// How long it is believed which metrics are counters.
const COUNTERS_FOR: Duration = Duration::from_secs(600);

/// So often in a row a poll of a history that ends may fail before it is given up: nobody watches over it for days.
const FAILURES: u32 = 3;
/// The time between two of them.
const BETWEEN_FAILURES: Duration = Duration::from_secs(1);

/// The `elasticsearch` receiver.
pub const FACTORY: Factory = Factory {
    kind: "elasticsearch",
    about: "Reads spans, metric points and log records from Elasticsearch indices, each document once.",
    acknowledgement: "A document counts as read when it is in the input log on disk (or with whatever else ends its \
                      pipelines), together with a mark of how far was read; the cursor moves past it after that, and takes \
                      up the marks after a crash, so that each document is read once.",
    schema: |generator| closed(Config::json_schema(generator)),
    implicit: false,
    files: &["ca_file"],
    gives: |kind| matches!(kind, PayloadKind::Telemetry(_)).then_some(kind),
    check: config::problems,
    make: Make::Receiver(make),
};

/// Reads the answer to a search into the records of each signal; also says how many documents were not taken.
///
/// The same code as behind the poller, for benchmarks and fuzzing.
///
/// # Errors
/// Why it cannot be used.
pub fn decode(answer: &str) -> Result<(Vec<Batch>, u64), String> {
    let page = Page::read(answer)?;
    let (mut decoder, mut columns, mut rejected) = (Decoder::default(), Columns::default(), 0);
    for hit in page.hits() {
        let (Some(time), Some(source)) = (hit.time(), hit.source) else {
            return Err(format!("document `{}` of `{}` has no time as its sort value, or no source", hit.id, hit.index));
        };
        rejected += u64::from(decoder.decode(&hit.index, time, source.get(), &mut columns).is_err());
    }
    Ok((Signal::ALL.map(|signal| columns.take(signal)).into(), rejected))
}

fn make(ReceiverInstance { instance, outputs, .. }: ReceiverInstance) -> Result<Box<dyn Receiver>, BuildError> {
    let config: Config = serde_json::from_value(instance.config).map_err(BuildError::new)?;
    Ok(Box::new(Elasticsearch { config, context: instance.context, outputs, poller: None, delay: 0, failures: 0 }))
}

struct Elasticsearch {
    config: Config,
    context: Context,
    outputs: Outputs,
    poller: Option<Poller<Cluster>>,
    /// How far windows stay behind the present, nanoseconds.
    delay: u64,
    /// Polls that failed in a row.
    failures: u32,
}

#[async_trait]
impl Receiver for Elasticsearch {
    async fn start(&mut self) -> Result<(), ComponentError> {
        let (config, context) = (&self.config, &self.context);
        let name = format!("anomalyd/{}/{}", context.environment, context.id);
        let client = Client::new(&config.connection, &name).map_err(ComponentError::new)?;
        let start = match &config.start {
            Some(text) => time::parse(text).ok_or_else(|| ComponentError(format!("`start: {text}` is not a moment")))?,
            None => context.services.clock.now().minus(nanos(config.lookback.get())),
        };
        let key = format!("cursor/{}/{}", context.environment, context.id);
        let storage = std::sync::Arc::clone(&context.services.storage);
        let mut cursor = match self.history() {
            Some(span) if span.ends => Cursor::anew(storage, key, span.from),
            // What was read before fed nobody who still knows it.
            Some(span) if span.anew => Cursor::anew(storage, key, span.from.min(start)),
            asked => {
                let start = asked.map_or(start, |span| span.from.min(start));
                let (cursor, damage) = Cursor::load(storage, key, start).map_err(ComponentError::new)?;
                if let Some(damage) = damage {
                    context.counters.event("cursors_damaged", 1);
                    tracing::error!(environment = %context.environment, component = %context.id, "{damage}");
                }
                cursor
            }
        };
        let taken_in = cursor.catch_up(&context.services.registry.marks(&context.environment, &context.id.to_string()));
        if taken_in > 0 {
            context.counters.event("documents_caught_up", taken_in as u64);
        }
        tracing::info!(environment = %context.environment, component = %context.id, from = %cursor.high(), taken_in, "reading indices");
        let jitter = config.query_delay_jitter.unwrap_or(config.query_delay);
        self.delay = nanos(config.query_delay.get()).saturating_add(share(&name, nanos(jitter.get())));
        let settings = Settings {
            delay: self.delay,
            overlap: nanos(config.overlap.get()),
            page_size: config.page_size,
            max_documents: config.max_documents_per_poll.max(1),
            max_remembered: config.max_remembered_documents,
        };
        let search = Cluster::new(client, &config.indices, config.keep_alive.get(), config.filter.clone());
        let decoder = Decoder::new(config.only_environments.clone());
        let mut poller = Poller::new(search, cursor, settings, decoder, self.outputs.clone(), context.clone());
        if self.history().is_some() {
            poller.follow(context.services.registry.history(&context.environment));
        }
        self.poller = Some(poller);
        Ok(())
    }

    async fn run(mut self: Box<Self>) -> Result<(), ComponentError> {
        let Some(mut poller) = self.poller.take() else { return Ok(()) };
        let shutdown = self.context.shutdown.clone();
        let mut counters_at: Option<Instant> = None;
        while !shutdown.is_cancelled() {
            if !self.outputs.metrics.is_empty() && counters_at.is_none_or(|at| at.elapsed() > COUNTERS_FOR) {
                counters_at = Some(Instant::now());
                tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = learn_counters(&mut poller, &self.context) => {}
                }
            }
            let ends = self.history().filter(|span| span.ends);
            let now = self.context.services.clock.now();
            let result = poller.poll(ends.map_or(now, |span| now.min(span.until.plus(self.delay)))).await;
            if result == Err(PollError::Ended) && shutdown.is_cancelled() {
                break;
            }
            if matches!(result, Ok(Outcome::CaughtUp | Outcome::NoIndex)) {
                poller.history_ends();
                if ends.is_some() {
                    self.tell(result)?;
                    break;
                }
            }
            if let (Err(PollError::Search(error)), true) = (&result, ends.is_some()) {
                self.failures += 1;
                if self.failures >= FAILURES {
                    poller.history_ends();
                    return Err(ComponentError(error.clone()));
                }
                tokio::time::sleep(BETWEEN_FAILURES).await;
                continue;
            }
            self.failures = 0;
            match self.tell(result)? {
                Next::Now => tokio::task::yield_now().await,
                Next::Later => tokio::select! {
                    () = shutdown.cancelled() => break,
                    () = tokio::time::sleep(self.config.interval.get()) => {}
                },
            }
        }
        // Every poll stores what it has read, except when the store could not be written then.
        poller.finish().await.map_err(ComponentError::new)
    }
}

/// When the next poll is due.
enum Next {
    Now,
    Later,
}

impl Elasticsearch {
    /// What is to be read of the past, if somebody asked for it.
    fn history(&self) -> Option<Span> {
        self.context.services.registry.history(&self.context.environment).span()
    }

    /// Tells how a poll went where that has changed.
    fn tell(&self, result: Result<Outcome, PollError>) -> Result<Next, ComponentError> {
        let Context { environment, id, health, .. } = &self.context;
        let was = health.get();
        match result {
            Ok(outcome) => {
                if let Status::RecoverableError(_) = was {
                    tracing::info!(%environment, component = %id, "reading again");
                }
                if outcome != Outcome::Stopped {
                    health.set(Status::Ok);
                }
                if outcome == Outcome::NoIndex {
                    let history = self.context.services.registry.history(environment);
                    history.note(format!("{id}: no index matches `{}`", self.config.indices.join("`, `")));
                    tracing::debug!(%environment, component = %id, indices = ?self.config.indices, "no index matches yet");
                    self.context.counters.event("polls_without_index", 1);
                }
                Ok(if outcome == Outcome::More { Next::Now } else { Next::Later })
            }
            Err(PollError::Ended) => Err(ComponentError("the pipelines that this receiver sends to have ended".to_owned())),
            Err(error) => {
                self.context.counters.event("polls_failed", 1);
                let status = Status::RecoverableError(error.to_string());
                if was != status {
                    tracing::warn!(%environment, component = %id, %error, "cannot read; trying again every {}", self.config.interval);
                }
                health.set(status);
                Ok(Next::Later)
            }
        }
    }
}

/// Asks which metrics are counters. Where that is not answered, those known before stay.
async fn learn_counters(poller: &mut Poller<Cluster>, context: &Context) {
    match poller.search().counters().await {
        Ok(counters) => poller.decoder().counters = counters,
        Err(SearchError::Gone(error) | SearchError::TooLarge(error) | SearchError::Failed(error)) => {
            tracing::debug!(component = %context.id, error, "not known which metrics are counters; they are read as gauges");
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A share of `most` that follows from `name`, in whole milliseconds.
fn share(name: &str, most: u64) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    let number = hash.as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    UnixNanos(number % most.max(1)).floor(1_000_000).0
}
