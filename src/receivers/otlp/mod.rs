//! Takes telemetry from OpenTelemetry Collectors and SDKs, over gRPC and HTTP. See `README.md` beside this file.
//!
//! Way of a request: `grpc` or `http` gather the body ([`body`]), `accept` has it unpacked and read by [`protobuf`]
//! or [`json`] into columns ([`build`], [`points`]), [`divide`]d among environments ([`route`]), and handed over.

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
mod patience;
mod points;
mod protobuf;
mod route;
#[cfg(test)]
mod tests;
mod wire;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::answer::Format;
pub use self::build::{DecodeError, Limits};
pub use self::config::{Config, Grpc, Http, Protocols, Routing};
use self::patience::Patience;
use crate::config::{ByteSize, Duration, Endpoint};
use crate::model::{Batch, LogRecords, PayloadKind, Points, Signal, Spans};
use crate::pipeline::{
    BuildError, ComponentError, Context, Factory, Health, Make, Memory, Pressure, Receiver, ReceiverInstance, Status,
};

/// The `otlp` receiver.
pub const FACTORY: Factory = Factory {
    kind: "otlp",
    about: "Takes telemetry from OpenTelemetry Collectors and SDKs, over gRPC and HTTP.",
    acknowledgement: "Success means that the records are in the input log on disk (or with whatever else ends their \
                      pipelines); when that is not so within `wait`, the client is told to send again, and what it sends \
                      again is not counted twice.",
    schema: |generator| generator.subschema_for::<Config>(),
    implicit: false,
    gives: |kind| matches!(kind, PayloadKind::Telemetry(_)).then_some(kind),
    check: config::check,
    make: Make::Receivers(make),
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
    endpoints.into_iter().flatten().map(|endpoint| (normalised(endpoint).to_string(), size)).collect()
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

/// What all environments that share a listener must agree on.
#[derive(Clone, Debug, PartialEq)]
struct Settings {
    max_request_body_size: ByteSize,
    max_future: Duration,
    max_attribute_value_size: ByteSize,
    wait: Duration,
    max_in_flight_size: ByteSize,
    /// `None` for gRPC.
    paths: Option<http::Paths>,
}

impl Settings {
    /// The first key in which two differ.
    fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            ("max_request_body_size", self.max_request_body_size != other.max_request_body_size),
            ("max_future", self.max_future != other.max_future),
            ("max_attribute_value_size", self.max_attribute_value_size != other.max_attribute_value_size),
            ("wait", self.wait != other.wait),
            ("max_in_flight_size", self.max_in_flight_size != other.max_in_flight_size),
            ("*_url_path", self.paths != other.paths),
        ]
        .into_iter()
        .find(|(_, differs)| *differs)
        .map(|(key, _)| key)
    }
}

/// One socket, and who shares it.
struct Group {
    endpoint: Endpoint,
    settings: Settings,
    contexts: Vec<Context>,
    tenants: Vec<route::Tenant>,
}

impl Group {
    const fn protocol(&self) -> &'static str {
        if self.settings.paths.is_some() { "http" } else { "grpc" }
    }
}

/// All listeners of all environments.
struct Otlp {
    listeners: Vec<Listener>,
    memory: Memory,
    /// Of all receivers, where they tell that there is no memory.
    healths: Vec<Health>,
    shutdown: Option<CancellationToken>,
}

struct Listener {
    endpoint: Endpoint,
    protocol: &'static str,
    paths: Option<http::Paths>,
    shared: Arc<accept::Shared>,
    socket: Option<TcpListener>,
}

fn make(instances: Vec<ReceiverInstance>) -> Result<Vec<Box<dyn Receiver>>, BuildError> {
    Ok(vec![Box::new(Otlp::new(instances)?)])
}

fn who(context: &Context) -> String {
    format!("`{}` of environment `{}`", context.id, context.environment)
}

/// One name for one address, so that `localhost` and `127.0.0.1` share a listener.
fn normalised(endpoint: &Endpoint) -> Endpoint {
    if endpoint.host().eq_ignore_ascii_case("localhost") { Endpoint::new("127.0.0.1", endpoint.port()) } else { endpoint.clone() }
}

impl Otlp {
    fn new(instances: Vec<ReceiverInstance>) -> Result<Self, BuildError> {
        let mut groups: Vec<Group> = Vec::new();
        let shutdown = instances.first().map(|i| i.instance.context.shutdown.clone());
        let memory = instances.first().map(|i| i.instance.context.services.registry.memory()).unwrap_or_default();
        let healths = instances.iter().map(|i| i.instance.context.health.clone()).collect();
        for instance in instances {
            let context = &instance.instance.context;
            let config = config::read(&instance.instance.config)
                .map_err(|e| BuildError::new(format_args!("receiver {}: {e}", who(context))))?;
            let settings = |max_request_body_size, paths| Settings {
                max_request_body_size,
                max_future: config.max_future,
                max_attribute_value_size: config.max_attribute_value_size,
                wait: config.wait,
                max_in_flight_size: config.max_in_flight_size,
                paths,
            };
            if let Some(grpc) = &config.protocols.grpc {
                join(&mut groups, &instance, &config, &grpc.endpoint, settings(grpc.max_request_body_size, None))?;
            }
            if let Some(http) = &config.protocols.http {
                let paths = http::Paths {
                    traces: http.traces_url_path.clone(),
                    metrics: http.metrics_url_path.clone(),
                    logs: http.logs_url_path.clone(),
                };
                join(&mut groups, &instance, &config, &http.endpoint, settings(http.max_request_body_size, Some(paths)))?;
            }
        }
        let listeners = groups.into_iter().filter_map(Listener::new).collect();
        Ok(Self { listeners, memory, healths, shutdown })
    }
}

/// Adds `instance` to the listener at `endpoint`.
fn join(
    groups: &mut Vec<Group>,
    instance: &ReceiverInstance,
    config: &Config,
    endpoint: &Endpoint,
    settings: Settings,
) -> Result<(), BuildError> {
    let context = &instance.instance.context;
    let endpoint = normalised(endpoint);
    let protocol = if settings.paths.is_some() { "http" } else { "grpc" };
    let header = config.routing.header.as_deref().map(::http::HeaderName::from_str).transpose();
    let header = header.map_err(|e| BuildError::new(format_args!("receiver {}: routing.header: {e}", who(context))))?;
    let tenant = route::Tenant {
        environment: context.environment.clone(),
        source: Arc::from(context.id.to_string()),
        outputs: instance.outputs.clone(),
        counters: Arc::clone(&context.counters),
        default: instance.default_environment,
        header,
        tokens: config.routing.tokens.clone(),
    };
    // Port 0 is a free port: grpc and http each get one.
    let same = groups.iter_mut().find(|g| g.endpoint == endpoint && (endpoint.port() != 0 || g.protocol() == protocol));
    let Some(group) = same else {
        groups.push(Group { endpoint, settings, contexts: vec![context.clone()], tenants: vec![tenant] });
        return Ok(());
    };
    let Some(other) = group.contexts.first() else { return Ok(()) };
    let shared = format!("{} and {} share {protocol} endpoint {endpoint}", who(other), who(context));
    if group.protocol() != protocol {
        let message = format!(
            "{} listens on {endpoint} with {}, {} with {protocol}: use another port",
            who(other),
            group.protocol(),
            who(context)
        );
        return Err(BuildError::new(message));
    }
    if let Some(key) = group.settings.difference(&settings) {
        return Err(BuildError::new(format_args!("{shared}, but differ in `{key}`: give both the same value, or another port")));
    }
    if group.contexts.iter().any(|c| c.environment == context.environment) {
        return Err(BuildError::new(format_args!("{shared}: one environment needs one receiver there, or another port")));
    }
    if group.tenants.iter().flat_map(|t| &t.tokens).any(|t| tenant.tokens.contains(t)) {
        return Err(BuildError::new(format_args!(
            "{shared}, and a token of `routing.tokens`: a token must belong to one of them"
        )));
    }
    group.contexts.push(context.clone());
    group.tenants.push(tenant);
    Ok(())
}

impl Listener {
    fn new(group: Group) -> Option<Self> {
        let protocol = group.protocol();
        let Group { endpoint, settings, contexts, tenants } = group;
        let shared = accept::Shared {
            tenants: route::Tenants::new(tenants),
            clock: Arc::clone(&contexts.first()?.services.clock),
            admission: body::Admission::new(settings.max_in_flight_size),
            memory: contexts.first()?.services.registry.memory(),
            max_body: settings.max_request_body_size,
            max_future: settings.max_future.get(),
            max_attribute_value_size: settings.max_attribute_value_size,
            wait: settings.wait.get(),
            patience: Patience::default(),
        };
        Some(Self { endpoint, protocol, paths: settings.paths, shared: Arc::new(shared), socket: None })
    }

    async fn bind(&mut self) -> Result<SocketAddr, ComponentError> {
        let (endpoint, protocol) = (&self.endpoint, self.protocol);
        let failed = |e: std::io::Error| {
            let hint = match e.kind() {
                std::io::ErrorKind::AddrInUse => {
                    ": another process (perhaps a Collector) listens there; stop it or use another port"
                }
                std::io::ErrorKind::PermissionDenied => ": ports below 1024 need a privilege; use a higher one",
                std::io::ErrorKind::AddrNotAvailable => ": no interface of this machine has that address",
                _ => "",
            };
            ComponentError::new(format_args!("cannot listen on {protocol} endpoint {endpoint}: {e}{hint}"))
        };
        let socket = TcpListener::bind((endpoint.host(), endpoint.port())).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        self.socket = Some(socket);
        Ok(address)
    }

    async fn run(self, stop: CancellationToken) -> Result<(), ComponentError> {
        let Some(socket) = self.socket else { return Err(ComponentError::new("the receiver was not started")) };
        match self.paths {
            None => grpc::serve(self.shared, socket, stop.cancelled_owned()).await,
            Some(paths) => {
                http::serve(self.shared, paths, socket, stop.cancelled_owned()).await;
                Ok(())
            }
        }
    }
}

/// Shows that requests are refused as long as there is no memory for them.
async fn tell_pressure(memory: &Memory, healths: &[Health]) -> Infallible {
    let mut pressure = memory.watch();
    loop {
        // The sender lives as long as `memory` does.
        let _ = pressure.wait_for(|p| *p == Pressure::Full).await;
        let why = memory.refusal().unwrap_or_default();
        let status = Status::RecoverableError(format!("requests are refused until there is room: {why}"));
        healths.iter().for_each(|health| health.set(status.clone()));
        let _ = pressure.wait_for(|p| *p != Pressure::Full).await;
        healths.iter().filter(|health| health.get() == status).for_each(|health| health.set(Status::Ok));
    }
}

#[async_trait]
impl Receiver for Otlp {
    async fn start(&mut self) -> Result<(), ComponentError> {
        for listener in &mut self.listeners {
            let address = listener.bind().await?;
            tracing::info!(protocol = listener.protocol, %address, "otlp receiver listens");
        }
        Ok(())
    }

    async fn run(self: Box<Self>) -> Result<(), ComponentError> {
        let stop = self.shutdown.unwrap_or_default();
        let mut servers = JoinSet::new();
        for listener in self.listeners {
            servers.spawn(listener.run(stop.clone()));
        }
        let mut result = Ok(());
        let mut telling = std::pin::pin!(tell_pressure(&self.memory, &self.healths));
        loop {
            let ended = tokio::select! {
                never = &mut telling => match never {},
                ended = servers.join_next() => ended,
            };
            let Some(ended) = ended else { break };
            // One that fails says so at once, while the others go on.
            let ended = ended.unwrap_or_else(|e| Err(ComponentError::new(format_args!("an OTLP server ended: {e}"))));
            if let Err(e) = &ended {
                tracing::error!(error = %e, "otlp receiver");
                result = ended;
            }
        }
        result
    }
}
