//! Takes telemetry from OpenTelemetry Collectors and SDKs, over gRPC and HTTP. See `README.md` beside this file.
//!
//! Way of a request: `grpc` or `http` gather the body ([`body`]), `accept` has it unpacked and read by [`protobuf`]
//! or [`json`] into columns ([`build`], [`points`]), [`divide`]d among environments ([`route`]), and handed over.
//!
//! [`listeners`] holds the ports ([`socket`]) that environments [`share`], while these come, go and change.

mod accept;
mod answer;
mod any_value;
mod body;
mod build;
mod config;
mod divide;
mod grpc;
mod http;
mod json;
mod line;
mod listeners;
mod paths;
mod patience;
mod points;
mod pressure;
mod protobuf;
mod route;
mod share;
mod socket;
#[cfg(test)]
mod tests;
mod wire;

use bytes::Bytes;

pub use self::answer::Format;
pub use self::build::{DecodeError, Limits};
pub use self::config::{Config, Grpc, Http, Protocols, Routing};
use self::listeners::Otlp;
use crate::config::ByteSize;
use crate::model::{Batch, LogRecords, PayloadKind, Points, Signal, Spans};
use crate::pipeline::{Factory, Make};

/// The `otlp` receiver.
pub const FACTORY: Factory = Factory {
    kind: "otlp",
    about: "Takes telemetry from OpenTelemetry Collectors and SDKs, over gRPC and HTTP.",
    acknowledgement: "Success means that the records are in the input log on disk (or with whatever else ends their \
                      pipelines); when that is not so within `wait`, the client is told to send again, and what it sends \
                      again is not counted twice.",
    schema: |generator| generator.subschema_for::<Config>(),
    implicit: false,
    files: &[],
    gives: |kind| matches!(kind, PayloadKind::Telemetry(_)).then_some(kind),
    check: config::check,
    make: Make::Listeners(|| Box::new(Otlp::default())),
};

/// Reads one export request of `signal` into columns; also says how many of its records were rejected.
///
/// The same code as behind the listeners, for benchmarks and fuzzing.
///
/// # Errors
/// What is wrong with the request as a whole.
pub fn decode(signal: Signal, format: Format, body: &[u8], limits: Limits) -> Result<(Batch, u64), DecodeError> {
    fn all<C: protobuf::Records + json::Records>(
        format: Format,
        body: &[u8],
        limits: Limits,
    ) -> Result<(Batch, u64), DecodeError> {
        let decoded = accept::decode::<C>(body, format, limits)?;
        let rejected = decoded.groups.iter().flat_map(|g| &g.rejected).map(|r| r.count).sum();
        Ok((decoded.columns.into_batch(), rejected))
    }
    match signal {
        Signal::Traces => all::<Spans>(format, body, limits),
        Signal::Metrics => all::<Points>(format, body, limits),
        Signal::Logs => all::<LogRecords>(format, body, limits),
    }
}

/// The listeners of a receiver, and how many bytes the requests that each is receiving may hold.
pub fn most_memory(config: &serde_json::Value) -> Vec<(String, u64)> {
    let Ok(config) = config::read(config) else { return Vec::new() };
    let Protocols { grpc, http } = &config.protocols;
    let endpoints = [grpc.as_ref().map(|grpc| &grpc.endpoint), http.as_ref().map(|http| &http.endpoint)];
    let size = config.max_in_flight_size.bytes();
    endpoints.into_iter().flatten().map(|endpoint| (share::normalised(endpoint).to_string(), size)).collect()
}

/// Takes the message out of the body of a gRPC call and unpacks it. `encoding` is the call's `grpc-encoding`; the
/// message may have up to `limit` bytes.
///
/// The same code as behind the listener, for fuzzing.
///
/// # Errors
/// What is wrong with the body, as the client is told.
pub fn unframe(framed: &Bytes, encoding: Option<&str>, limit: ByteSize) -> Result<Bytes, String> {
    let reservation = body::Admission::new(ByteSize::new(u64::MAX)).enter();
    let unpacked = body::Compression::of(encoding)
        .and_then(|compression| grpc::unframe(framed, compression, limit, reservation))
        .and_then(body::Raw::unpack);
    unpacked.map(|(bytes, _)| bytes).map_err(|refusal| refusal.message)
}
