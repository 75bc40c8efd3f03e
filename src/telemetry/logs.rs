//! The daemon's own log on stderr, as text for people or JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use super::otlp::OwnTelemetry;
use crate::config::{LogFormat, Telemetry};

/// Starts the log, and the export of the daemon's own traces and metrics where `telemetry.otlp` says where to.
/// `RUST_LOG` goes before `logs.level`. Must be called inside the async runtime, once.
///
/// # Errors
/// A sentence that says which setting cannot be used.
pub fn start(settings: &Telemetry, registry: &crate::pipeline::Registry) -> Result<OwnTelemetry, String> {
    let logs = &settings.logs;
    let directives = std::env::var("RUST_LOG").ok().filter(|d| !d.is_empty()).unwrap_or_else(|| logs.level.as_str().to_owned());
    let filter =
        EnvFilter::try_new(&directives).map_err(|e| format!("log level `{directives}`: {e}; expected `info`, `debug`..."))?;
    let own = OwnTelemetry::start(settings.otlp.as_ref(), registry)?;
    let stderr = fmt::layer().with_writer(std::io::stderr);
    let stderr = match logs.format {
        LogFormat::Json => stderr.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            stderr.with_target(false).with_ansi(colours).boxed()
        }
    };
    let started = Registry::default().with(stderr.with_filter(filter)).with(own.layer()).try_init();
    started.map_err(|e| format!("the log is started already: {e}"))?;
    Ok(own)
}
