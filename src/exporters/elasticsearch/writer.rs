//! Brings batches into Elasticsearch, however long it takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use serde_json::Value;

use super::bulk::{self, Item, Outcome};
use super::config::{Config, DataStream};
use super::document::Document;
use super::incident::IncidentDocument;
use super::template;
use crate::elasticsearch::{Backoff, Client, ClientError, Request, Retry, reason_of, segment};
use crate::model::{Finding, Findings};
use crate::pipeline::{Counters, DeadLetters, Flight, Health, Status};

/// However long the cluster asks to wait, it is tried again after this time.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Anomalies and events of incidents that travel together.
#[derive(Default)]
pub(super) struct Batch {
    items: VecDeque<Item>,
    deliveries: Vec<Delivered>,
    bytes: usize,
}

/// What one delivery brought.
struct Delivered {
    findings: Arc<Findings>,
    /// None when its sender has it again.
    flight: Option<Flight>,
}

impl Batch {
    /// Adds what one delivery brought.
    pub(super) fn add(&mut self, findings: Arc<Findings>, stream: &DataStream, mut flight: Flight) {
        for (place, finding) in findings.iter().enumerate() {
            let document = match finding {
                Finding::Anomaly(anomaly) => serde_json::to_string(&Document::new(anomaly, stream)),
                Finding::Incident(incident) => serde_json::to_string(&IncidentDocument::new(incident, stream)),
            };
            match document {
                Ok(document) => {
                    let item = Item { id: finding.id(), document, delivery: self.deliveries.len(), place, again: false };
                    self.bytes += item.size();
                    self.items.push_back(item);
                }
                Err(error) => {
                    tracing::error!(id = finding.id(), %error, "a finding cannot be written as JSON");
                    flight.dropped(1, "not_json");
                }
            }
        }
        self.deliveries.push(Delivered { findings, flight: Some(flight) });
    }

    /// Bytes of its documents in a request.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waits until all of its senders have withdrawn what they sent.
    pub(super) fn withdrawn(&self) -> impl Future<Output = ()> + Send + use<> {
        let all = self.deliveries.iter().filter_map(|delivered| delivered.flight.as_ref()).map(Flight::withdrawn);
        join_all(all.collect::<Vec<_>>()).map(drop)
    }

    /// Lets go of what its senders have withdrawn: they have it again.
    pub(super) fn let_go(&mut self) {
        for delivered in &mut self.deliveries {
            if let Some(flight) = delivered.flight.take_if(|flight| flight.left() > 0 && flight.is_withdrawn()) {
                flight.refused_because("it was withdrawn");
            }
        }
        let deliveries = &self.deliveries;
        self.items.retain(|item| deliveries.get(item.delivery).is_some_and(|delivered| delivered.flight.is_some()));
    }

    fn flight(&mut self, item: &Item) -> Option<&mut Flight> {
        self.deliveries.get_mut(item.delivery)?.flight.as_mut()
    }

    fn sent(&mut self, item: &Item) {
        if let Some(flight) = self.flight(item) {
            flight.sent_part(1);
        }
    }

    fn dropped(&mut self, item: &Item, reason: &'static str) {
        if let Some(flight) = self.flight(item) {
            flight.dropped(1, reason);
        }
    }

    /// The first items that fit into `limit` bytes, at least one: how many, and their bytes. Those that were refused for
    /// now go alone, so that nothing overtakes them.
    fn head(&self, limit: usize) -> (usize, usize) {
        let again = self.items.front().is_some_and(|item| item.again);
        let (mut count, mut bytes) = (0, 0);
        for item in self.items.iter().take_while(|item| item.again == again) {
            if count > 0 && bytes + item.size() > limit {
                break;
            }
            (count, bytes) = (count + 1, bytes + item.size());
        }
        (count, bytes)
    }
}

/// What keeps a batch from being delivered.
enum Obstacle {
    /// It may go away by itself.
    Passing(String, Option<Duration>),
    /// Somebody has to change something.
    Lasting(String),
}

/// The data stream of one environment.
pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) stream: DataStream,
    pub(super) dead_letters: DeadLetters,
    pub(super) counters: Arc<Counters>,
    pub(super) health: Health,
    /// Whether the templates still have to be installed.
    pub(super) setup: bool,
    retention: Duration,
    /// Largest request body.
    limit: usize,
    backoff: Backoff,
    /// How long is waited where somebody has to change something.
    long_wait: Duration,
    /// Whether the cluster knows `require_data_stream`.
    require_data_stream: bool,
    /// What is wrong at present, as far as told.
    trouble: Option<String>,
}

impl Writer {
    pub(super) fn new(config: &Config, client: Client, stream: DataStream, dead_letters: DeadLetters) -> Self {
        let retry = &config.connection.retry;
        Self {
            client,
            stream,
            dead_letters,
            counters: Arc::default(),
            health: Health::default(),
            setup: config.setup,
            retention: config.retention.get(),
            limit: config.max_batch_size.as_usize(),
            backoff: Backoff::new(retry.initial_interval.get(), retry.max_interval.get()),
            long_wait: retry.max_interval.get(),
            require_data_stream: true,
            trouble: None,
        }
    }

    /// Installs the templates if that is still to be done. How long to wait before the next try, if it did not work.
    pub(super) async fn prepare(&mut self) -> Option<Duration> {
        if !self.setup {
            return None;
        }
        match template::install(&self.client, &self.stream, self.retention).await {
            Ok(warnings) => {
                self.setup = false;
                for warning in warnings {
                    tracing::warn!(data_stream = self.stream.name, "{warning}");
                }
                self.recovered();
                None
            }
            Err(error) => Some(self.hindered(obstacle(&error))),
        }
    }

    /// Delivers all of `batch`. Returns only when every item is in Elasticsearch or in the dead-letter file, or its sender
    /// has withdrawn it.
    pub(super) async fn deliver(&mut self, batch: &mut Batch) {
        let mut limit = self.limit;
        loop {
            batch.let_go();
            if batch.items.is_empty() {
                return;
            }
            let wait = match self.prepare().await {
                Some(wait) => Some(wait),
                None => self.deliver_head(batch, &mut limit).await.map(|obstacle| self.hindered(obstacle)),
            };
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => self.recovered(),
            }
        }
    }

    /// One request with the first items that fit. What is not settled by it stays in the batch, in its order.
    async fn deliver_head(&mut self, batch: &mut Batch, limit: &mut usize) -> Option<Obstacle> {
        let (count, bytes) = batch.head(*limit);
        let result = self.request(batch, count).await;
        let error = match result {
            Ok(outcomes) => {
                *limit = self.limit;
                return self.settle(batch, outcomes).await;
            }
            Err(error) => error,
        };
        self.counters.event("requests_failed", 1);
        // Only Elasticsearch itself can judge the request; a 400 of a proxy says nothing about our documents.
        let refused = error.status() == Some(413) || (error.status() == Some(400) && error.error_type().is_some());
        if refused && error.status() == Some(400) && self.require_data_stream && error.to_string().contains("require_data_stream")
        {
            self.require_data_stream = false;
            return None;
        }
        if refused && count > 1 {
            tracing::info!(%error, documents = count, bytes, "splitting a bulk request");
            *limit = bytes / 2;
            return None;
        }
        if refused {
            *limit = self.limit;
            return match batch.items.pop_front() {
                Some(item) => self.bury(batch, item, &error.to_string()).await,
                None => None,
            };
        }
        if error.status() == Some(404) && error.error_type() == Some("index_not_found_exception") {
            self.setup = true;
        }
        Some(obstacle(&error))
    }

    #[tracing::instrument(name = "elasticsearch.bulk", skip_all, fields(documents = count))]
    async fn request(&self, batch: &Batch, count: usize) -> Result<Vec<Outcome>, ClientError> {
        let mut request = Request::post(format!("{}/_bulk", segment(&self.stream.name)))
            .query("filter_path", "errors,took,items.*.status,items.*.error,items.*.failure_store")
            .ndjson(bulk::body(batch.items.iter().take(count)))
            .retry(Retry::Never);
        if self.require_data_stream {
            request = request.query("require_data_stream", "true");
        }
        bulk::outcomes(&self.client.send(request).await?, count)
    }

    /// Takes the items off the batch that have an outcome, one for each of the first items.
    async fn settle(&mut self, batch: &mut Batch, outcomes: Vec<Outcome>) -> Option<Obstacle> {
        let settled: Vec<(Item, Outcome)> = batch.items.drain(..outcomes.len().min(batch.items.len())).zip(outcomes).collect();
        let mut again = Vec::new();
        let mut first = None;
        for (item, outcome) in settled {
            let obstacle = match outcome {
                Outcome::Written => {
                    batch.sent(&item);
                    continue;
                }
                Outcome::AlreadyWritten => {
                    self.counters.event("already_written", 1);
                    batch.sent(&item);
                    continue;
                }
                Outcome::InFailureStore => {
                    self.counters.event("in_failure_store", 1);
                    tracing::warn!(
                        data_stream = self.stream.name,
                        id = item.id,
                        "a document did not fit the mapping and went to the failure store"
                    );
                    batch.sent(&item);
                    continue;
                }
                Outcome::Refused(error) => {
                    if let Err(obstacle) = self.write_dead_letter(batch, &item, &refusal(&error)).await {
                        obstacle
                    } else {
                        batch.dropped(&item, "dead_letter");
                        continue;
                    }
                }
                Outcome::Later(said) => Obstacle::Passing(self.said(&said), None),
                Outcome::Forbidden(said) => Obstacle::Lasting(self.said(&said)),
                Outcome::NoDataStream(said) => {
                    self.setup = true;
                    Obstacle::Lasting(format!(
                        "{}; the data stream is not there: let this exporter make it (`setup: true`), or install its index template",
                        self.said(&said)
                    ))
                }
            };
            first.get_or_insert(obstacle);
            again.push(item);
        }
        self.counters.event("items_retried", again.len() as u64);
        for item in again.into_iter().rev() {
            batch.items.push_front(Item { again: true, ..item });
        }
        first
    }

    fn said(&self, said: &str) -> String {
        format!("data stream {}: {said}", self.stream.name)
    }

    /// Puts an item aside that will never be taken; if that fails it goes back to the front of the batch.
    async fn bury(&mut self, batch: &mut Batch, item: Item, reason: &str) -> Option<Obstacle> {
        match self.write_dead_letter(batch, &item, reason).await {
            Ok(()) => {
                batch.dropped(&item, "dead_letter");
                None
            }
            Err(obstacle) => {
                batch.items.push_front(item);
                Some(obstacle)
            }
        }
    }

    async fn write_dead_letter(&self, batch: &Batch, item: &Item, reason: &str) -> Result<(), Obstacle> {
        let Some(findings) = batch.deliveries.get(item.delivery).map(|delivered| Arc::clone(&delivered.findings)) else {
            return Ok(());
        };
        let (letters, place, why) = (self.dead_letters.clone(), item.place, reason.to_owned());
        let written =
            tokio::task::spawn_blocking(move || letters.keep(findings.get(place).map(|finding| (&*why, finding)))).await;
        match written.map_err(|e| e.to_string()).and_then(|w| w.map_err(|e| e.to_string())) {
            Ok(()) => {
                let file = self.dead_letters.path().display();
                tracing::error!(data_stream = self.stream.name, id = item.id, reason, %file, "Elasticsearch refused a document; its finding is in the dead-letter file");
                Ok(())
            }
            Err(why) => {
                self.counters.event("dead_letter_errors", 1);
                Err(Obstacle::Passing(
                    format!("Elasticsearch refused a document, and the dead-letter file cannot keep it: {why}"),
                    None,
                ))
            }
        }
    }

    /// Tells what is wrong, once, and how long to wait.
    fn hindered(&mut self, obstacle: Obstacle) -> Duration {
        let (message, wait, lasting) = match obstacle {
            Obstacle::Passing(message, at_least) => (message, self.backoff.next(at_least), false),
            Obstacle::Lasting(message) => (message, self.long_wait, true),
        };
        if self.trouble.as_ref() != Some(&message) {
            tracing::warn!(data_stream = self.stream.name, "anomalies cannot be delivered and wait: {message}");
            self.health.set(if lasting {
                Status::PermanentError(message.clone())
            } else {
                Status::RecoverableError(message.clone())
            });
            self.trouble = Some(message);
        }
        wait
    }

    /// Tells that nothing is wrong any more.
    fn recovered(&mut self) {
        self.backoff.reset();
        if self.trouble.take().is_some() {
            tracing::info!(data_stream = self.stream.name, "anomalies are delivered again");
            self.health.set(Status::Ok);
        }
    }
}

/// Why a document was refused: `document_parsing_exception: failed to parse field ...`.
fn refusal(error: &Value) -> String {
    match (error.get("type").and_then(Value::as_str), error) {
        (Some(kind), _) => format!("{kind}: {}", reason_of(error)),
        (None, Value::String(text)) => text.clone(),
        (None, other) => other.to_string(),
    }
}

/// What a failed request means for the batch.
fn obstacle(error: &ClientError) -> Obstacle {
    match error.status() {
        // A server error, or something between us that will get over it.
        None | Some(429 | 500..=599) => {
            Obstacle::Passing(error.to_string(), error.retry_after().map(|r| r.min(LONGEST_RETRY_AFTER)))
        }
        Some(_) => Obstacle::Lasting(error.to_string()),
    }
}
