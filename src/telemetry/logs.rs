//! The daemon's own log on stderr, as text for people or JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt};

use super::otlp::{OtlpSettings, OwnTelemetry};

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is logged, and how.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// A level, or directives such as `info,anomalyd::receivers=debug`.
    pub level: String,
    /// How.
    pub format: LogFormat,
}

/// Starts the log, and the export of the daemon's own traces and metrics where `otlp` says to where.
/// `RUST_LOG` goes before `logs.level`. Must be called inside the async runtime, once.
///
/// # Errors
/// A sentence that says which setting cannot be used.
pub fn start(
    logs: &LogSettings,
    otlp: Option<&OtlpSettings>,
    registry: &crate::pipeline::Registry,
) -> Result<OwnTelemetry, String> {
    let directives = std::env::var("RUST_LOG").ok().filter(|d| !d.is_empty()).unwrap_or_else(|| logs.level.clone());
    let filter =
        EnvFilter::try_new(&directives).map_err(|e| format!("log level `{directives}`: {e}; expected `info`, `debug`..."))?;
    let own = OwnTelemetry::start(otlp, registry)?;
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
