//! Health and metrics over HTTP, on one port. Reads the registry; never reaches into a component.

mod health;
mod prometheus;

use std::future::IntoFuture as _;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::pipeline::Registry;

/// A bound port that does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Takes the port.
    ///
    /// # Errors
    /// A sentence that says which address cannot be had, and why.
    pub async fn bind(endpoint: &str) -> Result<Self, String> {
        let fail = |e| format!("server.endpoint `{endpoint}`: {e}; stop what uses it, or choose another port");
        let listener = TcpListener::bind(endpoint).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address })
    }

    /// Where it listens: tells the port where `endpoint` said 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` is cancelled.
    ///
    /// # Errors
    /// When the listening socket breaks.
    pub async fn serve(self, registry: Registry, shutdown: CancellationToken) -> std::io::Result<()> {
        let app = Router::new().route("/health", get(health)).route("/metrics", get(metrics)).with_state(registry);
        axum::serve(self.listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).into_future().await
    }
}

async fn health(State(registry): State<Registry>) -> Response {
    let report = health::report(&registry);
    let code = if report.serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string_pretty(&report) {
        Ok(body) => (code, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn metrics(State(registry): State<Registry>) -> Response {
    match prometheus::text(&registry) {
        Ok(body) => ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests;
