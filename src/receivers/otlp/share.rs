//! Which environments share which endpoint, and what they must agree on there.

use std::str::FromStr as _;
use std::sync::Arc;

use super::config;
use super::paths::Paths;
use super::route::{Door, Tenant};
use crate::config::{ByteSize, Duration, Endpoint};
use crate::pipeline::{Class, ComponentError, Context, ReceiverInstance, StartError};

/// What an endpoint speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

impl Protocol {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// What all environments that share a listener must agree on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) max_request_body_size: ByteSize,
    pub(super) max_future: Duration,
    pub(super) max_attribute_value_size: ByteSize,
    pub(super) wait: Duration,
    pub(super) max_in_flight_size: ByteSize,
    /// `None` for gRPC.
    pub(super) paths: Option<Paths>,
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
pub(super) struct Group {
    pub(super) endpoint: Endpoint,
    pub(super) settings: Settings,
    pub(super) contexts: Vec<Context>,
    pub(super) tenants: Vec<Tenant>,
}

impl Group {
    pub(super) const fn protocol(&self) -> Protocol {
        if self.settings.paths.is_some() { Protocol::Http } else { Protocol::Grpc }
    }
}

/// Who shares what. `door` gives the way into the pipelines of each.
///
/// # Errors
/// Two that cannot share an endpoint, and why.
pub(super) fn groups(
    instances: &[ReceiverInstance],
    door: impl Fn(&ReceiverInstance) -> Arc<Door>,
) -> Result<Vec<Group>, StartError> {
    let mut groups: Vec<Group> = Vec::new();
    for instance in instances {
        let context = &instance.instance.context;
        let failed = |error| failed(context, error);
        let config = config::read(&instance.instance.config).map_err(|e| failed(ComponentError::new(e)))?;
        let door = door(instance);
        let settings = |max_request_body_size, paths| Settings {
            max_request_body_size,
            max_future: config.max_future,
            max_attribute_value_size: config.max_attribute_value_size,
            wait: config.wait,
            max_in_flight_size: config.max_in_flight_size,
            paths,
        };
        if let Some(grpc) = &config.protocols.grpc {
            let settings = settings(grpc.max_request_body_size, None);
            join(&mut groups, instance, &config, &grpc.endpoint, settings, &door).map_err(failed)?;
        }
        if let Some(http) = &config.protocols.http {
            let paths = Paths {
                traces: http.traces_url_path.clone(),
                metrics: http.metrics_url_path.clone(),
                logs: http.logs_url_path.clone(),
            };
            let settings = settings(http.max_request_body_size, Some(paths));
            join(&mut groups, instance, &config, &http.endpoint, settings, &door).map_err(failed)?;
        }
    }
    Ok(groups)
}

/// What keeps the receiver of `context` from listening.
pub(super) fn failed(context: &Context, error: ComponentError) -> StartError {
    StartError::new(&context.environment, Class::Receiver, &context.id, error)
}

fn who(context: &Context) -> String {
    format!("`{}` of environment `{}`", context.id, context.environment)
}

/// One name for one address, so that `localhost` and `127.0.0.1` share a listener.
pub(super) fn normalised(endpoint: &Endpoint) -> Endpoint {
    if endpoint.host().eq_ignore_ascii_case("localhost") { Endpoint::new("127.0.0.1", endpoint.port()) } else { endpoint.clone() }
}

/// Adds `instance` to the listener at `endpoint`.
fn join(
    groups: &mut Vec<Group>,
    instance: &ReceiverInstance,
    config: &config::Config,
    endpoint: &Endpoint,
    settings: Settings,
    door: &Arc<Door>,
) -> Result<(), ComponentError> {
    let context = &instance.instance.context;
    let endpoint = normalised(endpoint);
    let protocol = if settings.paths.is_some() { Protocol::Http } else { Protocol::Grpc };
    let header = config.routing.header.as_deref().map(::http::HeaderName::from_str).transpose();
    let header = header.map_err(|e| ComponentError::new(format_args!("routing.header: {e}")))?;
    let tenant = Tenant {
        environment: context.environment.clone(),
        source: Arc::from(context.id.to_string()),
        door: Arc::clone(door),
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
    let shared = format!("{} and {} share {} endpoint {endpoint}", who(other), who(context), protocol.as_str());
    if group.protocol() != protocol {
        let message = format!(
            "{} listens on {endpoint} with {}, {} with {}: use another port",
            who(other),
            group.protocol().as_str(),
            who(context),
            protocol.as_str()
        );
        return Err(ComponentError::new(message));
    }
    if let Some(key) = group.settings.difference(&settings) {
        return Err(ComponentError::new(format_args!(
            "{shared}, but differ in `{key}`: give both the same value, or another port"
        )));
    }
    if group.contexts.iter().any(|c| c.environment == context.environment) {
        return Err(ComponentError::new(format_args!("{shared}: one environment needs one receiver there, or another port")));
    }
    if group.tenants.iter().flat_map(|t| &t.tokens).any(|t| tenant.tokens.contains(t)) {
        return Err(ComponentError::new(format_args!(
            "{shared}, and a token of `routing.tokens`: a token must belong to one of them"
        )));
    }
    group.contexts.push(context.clone());
    group.tenants.push(tenant);
    Ok(())
}
