//! Health, metrics, and what people ask and tell, over HTTP on one port. Reads the registry and asks at the desks in
//! it, and tells the daemon to reload; never reaches into a component.

mod ask;
mod health;
mod prometheus;
mod reload;

use std::future::IntoFuture as _;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::reload::{Applied, Changed, NotApplied, Outcome, Reloads, Request, reloads};
use crate::pipeline::Registry;

/// A bound port that does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    remote_commands: bool,
    reloads: Option<Reloads>,
}

/// What the routes share.
#[derive(Clone, Debug)]
struct App {
    registry: Registry,
    remote_commands: bool,
    reloads: Option<Reloads>,
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
        Ok(Self { listener, address, remote_commands: false, reloads: None })
    }

    /// Where it listens: tells the port where `endpoint` said 0.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether commands are taken from other machines too.
    #[must_use]
    pub const fn with_remote_commands(mut self, taken: bool) -> Self {
        self.remote_commands = taken;
        self
    }

    /// Where the daemon is told to reload.
    #[must_use]
    pub fn with_reloads(mut self, reloads: Reloads) -> Self {
        self.reloads = Some(reloads);
        self
    }

    /// Answers until `shutdown` is cancelled.
    ///
    /// # Errors
    /// When the listening socket breaks.
    pub async fn serve(self, registry: Registry, shutdown: CancellationToken) -> std::io::Result<()> {
        let app = Router::new()
            .route("/health", get(health))
            .route("/metrics", get(metrics))
            .route("/series", get(ask::series))
            .route("/mutes", get(ask::mutes))
            .route("/mute", post(ask::mute))
            .route("/unmute", post(ask::unmute))
            .route("/feedback", post(ask::feedback))
            .route("/reload", post(reload::reload))
            .route("/dead-letters/resend", post(ask::resend))
            .fallback(ask::unknown)
            .method_not_allowed_fallback(ask::other_method)
            .layer(DefaultBodyLimit::max(ask::MAX_BODY))
            .with_state(App { registry, remote_commands: self.remote_commands, reloads: self.reloads });
        axum::serve(self.listener, app.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .into_future()
            .await
    }
}

async fn health(State(app): State<App>) -> Response {
    let report = health::report(&app.registry, app.reloads.as_ref());
    let code = if report.serving() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    match serde_json::to_string_pretty(&report) {
        Ok(body) => (code, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn metrics(State(app): State<App>) -> Response {
    match prometheus::text(&app.registry) {
        Ok(body) => ([(header::CONTENT_TYPE, prometheus::CONTENT_TYPE)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests;
