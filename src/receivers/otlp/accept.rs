//! What gRPC and HTTP have in common: a body becomes telemetry, goes to its environments, and is accounted for.

use std::fmt::Write as _;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::answer::{Accepted, Format, Refusal};
use super::body::{Admission, Raw};
use super::build::{DecodeError, Decoded, Limits, NO_RECORDED_VALUE};
use super::divide::{Divide, Division, Share, divide};
use super::paths::Paths;
use super::patience::Patience;
use super::route::{Claim, Tenant, Tenants};
use super::{json, protobuf};
use crate::config::ByteSize;
use crate::model::{LogRecords, Payload, PayloadKind, Points, Signal, Spans, Telemetry};
use crate::pipeline::{BatchId, Clock, Flight, Memory, Origin, Receipt, Refused};

/// How many times its body's limit a request may need when decoded.
const DECODED_RATIO: usize = 8;

/// What all requests of one listener share, from one change of its environments to the next.
pub(super) struct Shared {
    pub(super) tenants: Tenants,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) admission: Admission,
    pub(super) memory: Memory,
    pub(super) max_body: ByteSize,
    pub(super) max_future: Duration,
    pub(super) max_attribute_value_size: ByteSize,
    pub(super) wait: Duration,
    pub(super) patience: Patience,
    /// Of the signals; none for gRPC.
    pub(super) paths: Option<Paths>,
}

/// What is shared as of now. A request looks once, and ends with what it has seen.
pub(super) struct Current(RwLock<Arc<Shared>>);

impl Current {
    pub(super) fn new(shared: Shared) -> Self {
        Self(RwLock::new(Arc::new(shared)))
    }

    pub(super) fn get(&self) -> Arc<Shared> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, shared: Shared) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shared);
    }
}

/// Reads a request into columns.
pub(super) fn decode<C: protobuf::Records + json::Records>(
    bytes: &[u8],
    format: Format,
    limits: Limits,
) -> Result<Decoded<C>, DecodeError> {
    match format {
        Format::Protobuf => protobuf::decode(bytes, limits),
        Format::Json => json::decode(bytes, limits),
    }
}

/// A flight that is given back, not dropped, when its request is cancelled: the client still has the records.
struct Undecided(Option<Flight>);

impl Undecided {
    fn decide(mut self, end: impl FnOnce(Flight)) {
        if let Some(flight) = self.0.take() {
            end(flight);
        }
    }
}

impl Drop for Undecided {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Flight::refused);
    }
}

impl Shared {
    /// Refuses early what nobody here takes.
    pub(super) fn check_served(&self, signal: Signal) -> Result<(), Refusal> {
        if self.tenants.serve(signal) {
            return Ok(());
        }
        let signal = signal.as_str();
        Err(Refusal::not_served(format!(
            "no {signal} pipeline reads from this receiver: add `otlp` to a {signal} pipeline, or do not send {signal}"
        )))
    }

    /// Refuses before anything is read while there is no memory for it, or while it would only wait in vain.
    pub(super) fn check_room(&self) -> Result<(), Refusal> {
        if let Some(why) = self.memory.refusal() {
            return Err(Refusal::overloaded(why));
        }
        let Some((tenant, age)) = self.tenants.long_line(self.wait) else { return Ok(()) };
        // Of the listener as a whole where it is that of several.
        Err(if self.tenants.len() == 1 {
            Self::long_line(tenant, age).of(&tenant.environment)
        } else {
            Self::long_line(tenant, age)
        })
    }

    fn long_line(tenant: &Tenant, age: Duration) -> Refusal {
        let age = Duration::from_millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Refusal::overloaded(format!(
            "environment `{}` gets more than it can take: others have been waiting for {age:?} already",
            tenant.environment
        ))
    }

    /// Takes a request in, or refuses it whole.
    #[tracing::instrument(name = "otlp.export", skip_all, fields(signal = signal.as_str(), ?format))]
    pub(super) async fn accept(
        self: &Arc<Self>,
        signal: Signal,
        format: Format,
        headers: &HeaderMap,
        raw: Raw,
    ) -> Result<Accepted, Refusal> {
        let claim = self.tenants.claim(headers);
        let since = Instant::now();
        let division = if raw.is_big() {
            let (shared, claim) = (Arc::clone(self), claim.clone());
            let task = tokio::task::spawn_blocking(move || shared.read(signal, format, &claim, raw));
            task.await.unwrap_or_else(|e| {
                tracing::error!(error = %e, signal = signal.as_str(), "a request ended its reader");
                Err(Refusal::internal("the request could not be read; this is a mistake in anomalyd"))
            })
        } else {
            self.read(signal, format, &claim, raw)
        };
        // The reservation is held until the records are where they are safe: it bounds all that waits behind it.
        let (Request { division, id }, _reservation) = division?;
        self.patience.over(None);
        let handed = self.hand_over(signal, division, id, since).await?;
        Ok(self.account(signal, &claim, &handed))
    }

    /// Counts a request that was refused, and says when it may come again.
    pub(super) fn refused(&self, headers: &HeaderMap, refusal: &mut Refusal) {
        let event = if refusal.retry.is_some() { "requests_refused" } else { "requests_invalid" };
        if let Some(delay) = &mut refusal.retry {
            *delay = self.patience.wait(refusal.environment.as_ref());
        }
        if let Some(tenant) = self.tenants.home(&self.tenants.claim(headers)) {
            tenant.counters.event(event, 1);
            tracing::debug!(environment = %tenant.environment, receiver = %tenant.source, reason = %refusal.message, "otlp request refused");
        }
    }

    fn read(
        &self,
        signal: Signal,
        format: Format,
        claim: &Claim,
        raw: Raw,
    ) -> Result<(Request, super::body::Reservation), Refusal> {
        let (bytes, mut reservation) = raw.unpack()?;
        let id = BatchId::of(&[signal.as_str().as_bytes(), &bytes]);
        let limits = Limits {
            now: self.clock.now(),
            max_future: u64::try_from(self.max_future.as_nanos()).unwrap_or(u64::MAX),
            max_attribute_value_size: self.max_attribute_value_size.as_usize(),
            max_decoded_size: self.max_body.as_usize().saturating_mul(DECODED_RATIO).max(1 << 20),
        };
        fn all<C: protobuf::Records + json::Records + Divide>(
            (shared, claim): (&Shared, &Claim),
            bytes: &[u8],
            format: Format,
            limits: Limits,
        ) -> Result<(Division, usize), Refusal> {
            let decoded = decode::<C>(bytes, format, limits)?;
            let size = decoded.size;
            Ok((divide(decoded, &shared.tenants, claim), size))
        }
        let (division, size) = match signal {
            Signal::Traces => all::<Spans>((self, claim), &bytes, format, limits),
            Signal::Metrics => all::<Points>((self, claim), &bytes, format, limits),
            Signal::Logs => all::<LogRecords>((self, claim), &bytes, format, limits),
        }?;
        reservation.cover(size)?;
        Ok((Request { division, id }, reservation))
    }

    /// Hands every share to its environment, and waits until all of them are safe there. No environment gets its share
    /// before all have room; where one cannot keep its share after all the whole request is refused, and the client
    /// sends it again: those that have kept theirs know it by its id. It has been here `since` then.
    async fn hand_over(&self, signal: Signal, division: Division, id: BatchId, since: Instant) -> Result<Handed, Refusal> {
        let deadline = since + self.wait;
        let kind = PayloadKind::Telemetry(signal);
        let mut handed = Handed { strangers: division.strangers, done: Vec::new() };
        let (mut ready, mut outputs, mut flights, mut places) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for Share { tenant: index, batch, records, rejected } in division.shares {
            let Some(tenant) = self.tenants.get(index) else { continue };
            let door = tenant.door.open();
            let unread = records > 0 && door.as_ref().is_some_and(|outputs| outputs.of(signal).is_empty());
            handed.done.push(Done {
                tenant: index,
                sent: if unread { 0 } else { records as u64 },
                unread: if unread { records as u64 } else { 0 },
                rejected,
            });
            if records > 0 && !unread {
                flights.push(Undecided(Some(tenant.counters.begin(kind, records))));
                outputs.push(door.ok_or_else(|| Self::paused(tenant))?);
                // The line may have grown since, and only now it is known whose request this is.
                if let Some(age) = tenant.door.line.is_long(self.wait) {
                    return Err(Self::long_line(tenant, age).of(&tenant.environment));
                }
                places.push(tenant.door.line.join(since));
                ready.push((tenant, batch));
            }
        }
        let mut rooms = Vec::with_capacity(ready.len());
        for ((tenant, batch), outputs) in ready.into_iter().zip(&outputs) {
            let room = outputs.of(signal).room_within(deadline.saturating_duration_since(Instant::now())).await;
            rooms.push((tenant, batch, room.map_err(|refused| self.no_room(tenant, refused))?));
        }
        let mut waiting = Vec::with_capacity(rooms.len());
        for (tenant, batch, room) in rooms {
            let telemetry = Telemetry { environment: tenant.environment.clone(), source: Arc::clone(&tenant.source), batch };
            let (receipt, heard) = Receipt::new();
            room.send(&Payload::Telemetry(Arc::new(telemetry)), &Origin { id: Some(id), mark: None }, receipt);
            waiting.push((tenant, heard));
        }
        // A pipeline that is to end does not wait for those who wait for it.
        drop(outputs);
        for (tenant, heard) in waiting {
            match tokio::time::timeout_at(deadline, heard.heard()).await {
                Ok(Ok(())) if tenant.door.line.is_short(self.wait) => self.patience.over(Some(&tenant.environment)),
                Ok(Ok(())) => {}
                Ok(Err(lost)) => {
                    let message = format!("environment `{}` did not take it in: {lost}", tenant.environment);
                    return Err(Refusal::overloaded(message).of(&tenant.environment));
                }
                Err(_) => return Err(self.no_room(tenant, Refused::Full)),
            }
        }
        flights.into_iter().for_each(|flight| flight.decide(Flight::sent));
        Ok(handed)
    }

    fn paused(tenant: &Tenant) -> Refusal {
        Refusal::overloaded(format!("environment `{}` is starting anew with a changed configuration", tenant.environment))
    }

    fn no_room(&self, tenant: &Tenant, refused: Refused) -> Refusal {
        Refusal::overloaded(match refused {
            Refused::Full => {
                format!("the pipelines of environment `{}` had no room within {:?}", tenant.environment, self.wait)
            }
            Refused::Closed => format!("environment `{}` is shutting down", tenant.environment),
        })
        .of(&tenant.environment)
    }

    /// Counts what was given up, and says so to the client. Only after the hand-over: a refused request comes again,
    /// and would be counted again.
    fn account(&self, signal: Signal, claim: &Claim, handed: &Handed) -> Accepted {
        let kind = PayloadKind::Telemetry(signal);
        let (mut rejected, mut total) = (0, 0);
        let mut reasons = String::new();
        let mut say = |count: u64, why: &str| {
            let _ = write!(reasons, "; {count}: {why}");
            rejected += count;
        };
        for done in &handed.done {
            let Some(tenant) = self.tenants.get(done.tenant) else { continue };
            total += done.sent;
            for r in &done.rejected {
                tenant.counters.rejected(kind, usize::try_from(r.count).unwrap_or(usize::MAX), r.reason);
                if r.reason != NO_RECORDED_VALUE {
                    total += r.count;
                    say(r.count, &format!("{} ({})", r.example, r.reason));
                }
            }
            if done.unread > 0 {
                total += done.unread;
                tenant.counters.rejected(kind, usize::try_from(done.unread).unwrap_or(usize::MAX), "no_pipeline");
                let (signal, name) = (signal.as_str(), &tenant.environment);
                say(done.unread, &format!("no {signal} pipeline of environment `{name}` reads from this receiver"));
            }
        }
        for (reason, count) in &handed.strangers {
            total += count;
            if let Some(home) = self.tenants.home(claim) {
                home.counters.rejected(kind, usize::try_from(*count).unwrap_or(usize::MAX), "unknown_environment");
            }
            say(*count, reason);
        }
        if rejected == 0 {
            return Accepted::default();
        }
        let records = match signal {
            Signal::Traces => "spans",
            Signal::Metrics => "data points",
            Signal::Logs => "log records",
        };
        let message = format!("rejected {rejected} of {total} {records}{}", reasons.replacen(';', ":", 1));
        tracing::debug!(signal = signal.as_str(), message, "otlp records rejected");
        Accepted { rejected, message }
    }
}

/// A request that was read.
struct Request {
    division: Division,
    id: BatchId,
}

/// What became of the shares of a request.
struct Handed {
    done: Vec<Done>,
    strangers: Vec<(String, u64)>,
}

struct Done {
    tenant: usize,
    sent: u64,
    /// Records of a signal that no pipeline of the environment reads.
    unread: u64,
    rejected: Vec<super::build::Rejected>,
}
