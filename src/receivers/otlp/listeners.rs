//! The ports of all environments, held while environments come, go and change.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::accept::{Current, Shared};
use super::body::Admission;
use super::patience::Patience;
use super::route::{Door, Tenants};
use super::share::{Group, Protocol, failed, groups};
use super::socket::{self, NotBound};
use super::{grpc, http, pressure};
use crate::config::Endpoint;
use crate::model::Environment;
use crate::pipeline::{ComponentError, Context, Health, Listeners, ReceiverInstance, StartError, Status};

/// How long a socket of ours may take to close that another one waits for.
const CLOSING: Duration = Duration::from_secs(5);

/// How long requests that are on their way may take at a stop: longer than they wait by default. One whose body does not
/// arrive must not use up the time that the pipelines have for what was taken in.
const ANSWERING: Duration = Duration::from_secs(5);

/// All listeners of all environments.
#[derive(Default)]
pub(super) struct Otlp {
    pub(super) listeners: Vec<Listener>,
    /// Ports that are taken already for what is served next.
    prepared: Vec<(Key, TcpListener)>,
    /// Of the instances that are served.
    doors: Vec<(Context, Arc<Door>)>,
    /// Where they tell how they are.
    healths: watch::Sender<Vec<Health>>,
    /// Whether somebody tells there that there is no memory.
    telling: bool,
    servers: JoinSet<()>,
}

/// What tells listeners apart.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    endpoint: Endpoint,
    protocol: Protocol,
}

/// A port that is served.
pub(super) struct Listener {
    key: Key,
    pub(super) address: SocketAddr,
    current: Arc<Current>,
    stop: CancellationToken,
    /// Cancelled when the socket is closed; connections may go on for a while.
    closed: CancellationToken,
}

#[cfg(test)]
impl Listener {
    pub(super) const fn protocol(&self) -> Protocol {
        self.key.protocol
    }
}

impl Group {
    fn key(&self) -> Key {
        Key { endpoint: self.endpoint.clone(), protocol: self.protocol() }
    }

    /// What requests share; `before` is what they shared until now.
    fn shared(self, before: Option<&Shared>) -> Option<Shared> {
        let Self { settings, contexts, tenants, .. } = self;
        let admission = before.map(|b| b.admission.clone()).filter(|a| a.total() == settings.max_in_flight_size);
        Some(Shared {
            tenants: Tenants::new(tenants),
            clock: Arc::clone(&contexts.first()?.services.clock),
            // Requests in progress count on.
            admission: admission.unwrap_or_else(|| Admission::new(settings.max_in_flight_size)),
            memory: contexts.first()?.services.registry.memory(),
            max_body: settings.max_request_body_size,
            max_future: settings.max_future.get(),
            max_attribute_value_size: settings.max_attribute_value_size,
            wait: settings.wait.get(),
            paths: settings.paths,
            patience: Patience::default(),
        })
    }
}

#[async_trait]
impl Listeners for Otlp {
    async fn prepare(&mut self, instances: &[ReceiverInstance]) -> Result<(), StartError> {
        let mut before = std::mem::take(&mut self.prepared);
        let groups = groups(instances, |_| Arc::default())?;
        let mut prepared = Vec::new();
        for group in &groups {
            let key = group.key();
            if self.listeners.iter().any(|listener| listener.key == key) {
                continue;
            }
            if let Some(place) = before.iter().position(|(other, _)| *other == key) {
                prepared.push(before.swap_remove(place));
                continue;
            }
            match socket::bind(&key.endpoint, key.protocol).await {
                Ok(socket) => prepared.push((key, socket)),
                // It is had when that listener has gone.
                Err(NotBound { taken: true, .. }) if self.in_the_way(&key, &groups).next().is_some() => {}
                Err(NotBound { error, .. }) => return Err(blame(group, error)),
            }
        }
        self.prepared = prepared;
        Ok(())
    }

    fn pause(&mut self, environments: &BTreeSet<Environment>) {
        self.doors.iter().filter(|(context, _)| environments.contains(&context.environment)).for_each(|(_, door)| door.close());
    }

    async fn serve(&mut self, instances: Vec<ReceiverInstance>) -> Result<(), StartError> {
        let mut doors = Vec::with_capacity(instances.len());
        for instance in &instances {
            let context = &instance.instance.context;
            // An instance that is served already goes on behind its door.
            let known = self.doors.iter().find(|(other, _)| Arc::ptr_eq(&other.counters, &context.counters));
            let door = known.map_or_else(|| Arc::new(Door::new(instance.outputs.clone())), |(_, door)| Arc::clone(door));
            doors.push((context.clone(), door));
        }
        let door = |instance: &ReceiverInstance| {
            let own = doors.iter().find(|(context, _)| Arc::ptr_eq(&context.counters, &instance.instance.context.counters));
            own.map(|(_, door)| Arc::clone(door)).unwrap_or_default()
        };
        let groups = groups(&instances, door)?;
        let mut sockets = self.sockets(&groups).await?;
        // From here on nothing can fail.
        let mut left = std::mem::take(&mut self.listeners);
        for group in groups {
            let key = group.key();
            let contexts = group.contexts.clone();
            if let Some(place) = left.iter().position(|listener| listener.key == key) {
                let listener = left.remove(place);
                if let Some(shared) = group.shared(Some(&listener.current.get())) {
                    listener.current.set(shared);
                }
                self.listeners.push(listener);
            } else if let Some(place) = sockets.iter().position(|(other, _)| *other == key)
                && let Some(shared) = group.shared(None)
            {
                let (_, socket) = sockets.swap_remove(place);
                let current = Arc::new(Current::new(shared));
                self.listen(key, socket, current, contexts);
            }
        }
        for listener in left {
            let (protocol, address) = (listener.key.protocol.as_str(), listener.address);
            tracing::info!(protocol, %address, "otlp receiver listens no longer");
            listener.stop.cancel();
        }
        self.healths.send_replace(doors.iter().map(|(context, _)| context.health.clone()).collect());
        self.doors = doors;
        self.tell_pressure();
        // Servers that have ended.
        while self.servers.try_join_next().is_some() {}
        Ok(())
    }

    async fn stop(&mut self) {
        for listener in self.listeners.drain(..) {
            listener.stop.cancel();
        }
        self.prepared.clear();
        self.healths.send_replace(Vec::new());
        let answering = async { while self.servers.join_next().await.is_some() {} };
        let answered = tokio::time::timeout(ANSWERING, answering).await.is_ok();
        // Whoever comes late now holds no pipeline open.
        self.doors.drain(..).for_each(|(_, door)| door.close());
        if !answered {
            tracing::warn!(
                "clients that have not sent all of their requests within {ANSWERING:?} are cut off; they send them again"
            );
            self.servers.shutdown().await;
        }
    }
}

/// An error of an endpoint, told of the first who wants it.
fn blame(group: &Group, error: ComponentError) -> StartError {
    match group.contexts.first() {
        Some(context) => failed(context, error),
        None => StartError { environment: String::new(), component: "receiver `otlp`".to_owned(), error },
    }
}

impl Otlp {
    /// Listeners that none of `groups` needs, and that may keep `key` from being bound.
    fn in_the_way(&self, key: &Key, groups: &[Group]) -> impl Iterator<Item = &Listener> {
        let port = key.endpoint.port();
        let own = self.listeners.iter().filter(move |l| port != 0 && l.key.endpoint.port() == port);
        own.filter(|listener| !groups.iter().any(|group| group.key() == listener.key))
    }

    /// The sockets of those of `groups` that nobody listens for yet.
    async fn sockets(&mut self, groups: &[Group]) -> Result<Vec<(Key, TcpListener)>, StartError> {
        let mut sockets = std::mem::take(&mut self.prepared);
        for group in groups {
            let key = group.key();
            if self.listeners.iter().any(|l| l.key == key) || sockets.iter().any(|(other, _)| *other == key) {
                continue;
            }
            let mut gone = Vec::new();
            for listener in self.in_the_way(&key, groups) {
                listener.stop.cancel();
                let _ = tokio::time::timeout(CLOSING, listener.closed.cancelled()).await;
                gone.push(listener.key.clone());
            }
            match socket::bind(&key.endpoint, key.protocol).await {
                Ok(socket) => sockets.push((key, socket)),
                Err(NotBound { error, .. }) => {
                    for key in gone {
                        self.listen_again(&key).await;
                    }
                    return Err(blame(group, error));
                }
            }
        }
        Ok(sockets)
    }

    /// Takes the port of a listener back that has made way in vain.
    async fn listen_again(&mut self, key: &Key) {
        let Some(place) = self.listeners.iter().position(|listener| listener.key == *key) else { return };
        let listener = self.listeners.remove(place);
        let contexts = self.doors.iter().map(|(context, _)| context.clone()).collect();
        match socket::bind(&key.endpoint, key.protocol).await {
            Ok(socket) => self.listen(key.clone(), socket, listener.current, contexts),
            Err(NotBound { error, .. }) => tracing::error!(%error, "otlp receiver"),
        }
    }

    /// Has it told where receivers tell how they are that there is no memory; ends with the last listener.
    fn tell_pressure(&mut self) {
        let Some((context, _)) = self.doors.first().filter(|_| !self.telling) else { return };
        self.telling = true;
        tokio::spawn(pressure::tell(context.services.registry.memory(), self.healths.subscribe()));
    }

    /// Serves a socket.
    fn listen(&mut self, key: Key, socket: TcpListener, current: Arc<Current>, contexts: Vec<Context>) {
        let Ok(address) = socket.local_addr() else { return };
        let (stop, closed) = (CancellationToken::new(), CancellationToken::new());
        let incoming = socket::connections(socket, stop.clone(), closed.clone().drop_guard());
        let protocol = key.protocol;
        tracing::info!(protocol = protocol.as_str(), %address, "otlp receiver listens");
        let (served, until) = (Arc::clone(&current), stop.clone());
        self.servers.spawn(async move {
            let ended = match protocol {
                Protocol::Grpc => grpc::serve(served, incoming, until.cancelled_owned()).await,
                Protocol::Http => {
                    http::serve(served, incoming).await;
                    Ok(())
                }
            };
            // One that fails says so at once, while the others go on.
            if let Err(error) = ended {
                tracing::error!(%error, "otlp receiver");
                contexts.iter().for_each(|context| context.health.set(Status::PermanentError(error.to_string())));
            }
        });
        self.listeners.push(Listener { key, address, current, stop, closed });
    }
}
