//! `anomalyd run`: the daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Format;
use crate::config::{self, Loaded};
use crate::pipeline::{Class, Registry};
use crate::{components, daemon, telemetry};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RunArgs {
    /// The daemon file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// How `console` exporters write, whatever the files say.
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd run --config config/development.yml
  anomalyd run --config config/development.yml --format json | jq .score

SIGTERM or SIGINT ends it: receivers stop, and what was accepted runs through to the exporters, for at most
`pipeline.shutdown_deadline`. A second signal ends it at once.";

pub(super) fn run(arguments: &RunArgs) -> ExitCode {
    let mut loaded = match config::load(&arguments.config, &super::process_environment, components::FACTORIES) {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            super::tell(&diagnostics.render(true));
            return ExitCode::from(super::CONFIGURATION_ERROR);
        }
    };
    if let Some(format) = arguments.format {
        write_as(format, &mut loaded);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the worker threads: {error}")),
    };
    runtime.block_on(serve(loaded))
}

/// Sets the format of all `console` exporters.
fn write_as(format: Format, loaded: &mut Loaded) {
    let used = loaded.plans.iter_mut().flat_map(|plan| &mut plan.used);
    for exporter in used.filter(|used| used.factory.class() == Class::Exporter && used.factory.kind == "console") {
        if let Some(config) = exporter.config.as_object_mut() {
            let name = if format == Format::Json { "json" } else { "text" };
            config.insert("format".to_owned(), name.into());
        }
    }
}

async fn serve(loaded: Loaded) -> ExitCode {
    let registry = Registry::default();
    let own = match telemetry::start(&loaded.daemon.telemetry, &registry) {
        Ok(own) => own,
        Err(error) => return fail(&error),
    };
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    if let Err(error) = on_signal(stop.clone(), abort.clone()) {
        return fail(&format!("cannot wait for signals: {error}"));
    }
    let ended = daemon::run(&loaded.daemon, &loaded.plans, registry, stop, abort).await;
    // The exporters of the SDK block their thread while they send the rest.
    let _ = tokio::task::spawn_blocking(|| own.shutdown()).await;
    match ended {
        Ok(drained) if drained.aborted == 0 => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

/// The first SIGTERM or SIGINT cancels `stop`, the second `abort`.
fn on_signal(stop: CancellationToken, abort: CancellationToken) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        for token in [stop, abort] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(())
}

fn fail(error: &str) -> ExitCode {
    super::tell(&format!("error: {error}\n"));
    ExitCode::FAILURE
}
