//! Listening sockets.

use std::io;
use std::time::Duration;

use futures::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::share::Protocol;
use crate::config::Endpoint;
use crate::pipeline::ComponentError;

/// A port that could not be had.
#[derive(Debug)]
pub(super) struct NotBound {
    /// Whether somebody has it.
    pub(super) taken: bool,
    pub(super) error: ComponentError,
}

/// Takes the port.
pub(super) async fn bind(endpoint: &Endpoint, protocol: Protocol) -> Result<TcpListener, NotBound> {
    let bound = TcpListener::bind((endpoint.host(), endpoint.port())).await;
    bound.map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => ": another process (perhaps a Collector) listens there; stop it or use another port",
            io::ErrorKind::PermissionDenied => ": ports below 1024 need a privilege; use a higher one",
            io::ErrorKind::AddrNotAvailable => ": no interface of this machine has that address",
            _ => "",
        };
        let protocol = protocol.as_str();
        let error = ComponentError::new(format_args!("cannot listen on {protocol} endpoint {endpoint}: {e}{hint}"));
        NotBound { taken: e.kind() == io::ErrorKind::AddrInUse, error }
    })
}

/// The connections that come to `socket`, until `stop`. When the socket is closed, `closed` is let go.
pub(super) fn connections(
    socket: TcpListener,
    stop: CancellationToken,
    closed: DropGuard,
) -> impl Stream<Item = io::Result<TcpStream>> + Send + 'static {
    futures::stream::unfold((socket, closed), move |(socket, closed)| {
        let stop = stop.clone();
        async move {
            loop {
                let accepted = tokio::select! {
                    biased;
                    () = stop.cancelled() => {
                        drop(socket);
                        drop(closed);
                        return None;
                    }
                    accepted = socket.accept() => accepted,
                };
                match accepted {
                    Ok((stream, _)) => {
                        // Without it an answer may wait for a delayed acknowledgement (40 ms).
                        let _ = stream.set_nodelay(true);
                        return Some((Ok(stream), (socket, closed)));
                    }
                    // Out of file descriptors, or a peer that is gone already: the next one may do better.
                    Err(error) => {
                        tracing::warn!(%error, "could not accept an OTLP connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        }
    })
}
