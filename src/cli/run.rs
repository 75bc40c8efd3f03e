//! `anomalyd run`: the daemon.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};

use super::Format;
use crate::config::{self, Diagnostics, Loaded};
use crate::daemon::{Control, Load};
use crate::pipeline::{Class, Machine, Registry};
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
`pipeline.shutdown_deadline`. A second signal ends it at once. SIGHUP has it read its files again and take up what
has changed, as `anomalyd reload` does.";

/// How long threads may take to end when everything else has. One that waits for a disk which does not answer must not keep
/// the process: what is on disk is whole at any moment.
const BLOCKED: Duration = Duration::from_secs(1);

pub(super) fn run(arguments: &RunArgs) -> ExitCode {
    let (path, format) = (arguments.config.clone(), arguments.format);
    let load = move || {
        let mut loaded = config::load(&path, &super::process_environment, components::FACTORIES)?;
        if let Some(format) = format {
            write_as(format, &mut loaded);
        }
        Ok(loaded)
    };
    let loaded = match load() {
        Ok(loaded) => loaded,
        Err(diagnostics) => {
            let diagnostics: Diagnostics = diagnostics;
            super::tell(&diagnostics.render(true));
            return ExitCode::from(super::CONFIGURATION_ERROR);
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the worker threads: {error}")),
    };
    let ended = runtime.block_on(serve(loaded, Arc::new(load)));
    runtime.shutdown_timeout(BLOCKED);
    ended
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

async fn serve(loaded: Loaded, load: Load) -> ExitCode {
    let registry = Registry::default();
    let own = match telemetry::start(&loaded.daemon.telemetry, &registry) {
        Ok(own) => own,
        Err(error) => return fail(&error),
    };
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
    let room = Machine::default().room();
    tracing::info!("memory: {}", super::memory::line(&loaded.daemon, room));
    for note in super::memory::notes(&loaded, room) {
        tracing::warn!("{note}");
    }
    let control = Control::default();
    if let Err(error) = on_signal(control.clone()) {
        return fail(&format!("cannot wait for signals: {error}"));
    }
    let bars = std::io::stderr().is_terminal().then(|| tokio::spawn(show_learning(registry.clone())));
    let ended = daemon::run(loaded, load, registry, control).await;
    if let Some(bars) = bars {
        bars.abort();
    }
    // The exporters of the SDK block their thread while they send the rest.
    let _ = tokio::task::spawn_blocking(|| own.shutdown()).await;
    match ended {
        Ok(drained) if drained.is_whole() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

/// Shows on a terminal how far environments are that learn from history; elsewhere the log tells it.
async fn show_learning(registry: Registry) {
    let all = MultiProgress::new();
    let mut bars: BTreeMap<String, ProgressBar> = BTreeMap::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    loop {
        ticks.tick().await;
        let histories = registry.histories();
        // A reload may have ended its environment.
        bars.retain(|name, bar| {
            let there = histories.iter().any(|(environment, _)| environment.as_str() == name);
            if !there {
                bar.finish_and_clear();
            }
            there
        });
        for (environment, history) in histories {
            let Some(progress) = history.progress() else { continue };
            let name = environment.to_string();
            if progress.done {
                if let Some(bar) = bars.remove(&name) {
                    bar.finish_and_clear();
                }
                continue;
            }
            let bar = bars.entry(name).or_insert_with(|| {
                let bar = all.add(ProgressBar::new(1000));
                let style = ProgressStyle::with_template(&format!("learning {environment} {{bar:30}} {{msg}}"));
                if let Ok(style) = style {
                    bar.set_style(style);
                }
                bar
            });
            bar.set_position((progress.share() * 1000.0) as u64);
            bar.set_message(progress.sentence());
        }
    }
}

/// The signal of a write beyond the limit of the size of a file (`ulimit -f`, `LimitFSIZE=`); the same number on Linux,
/// the BSDs and macOS.
const SIGXFSZ: i32 = 25;

/// The first SIGTERM or SIGINT stops, the second aborts; SIGHUP reloads.
fn on_signal(control: Control) -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    // Handled once, it ends the process no more: the write fails instead, as on a full disk.
    drop(signal(SignalKind::from_raw(SIGXFSZ))?);
    let Control { stop, abort, reload } = control;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reload.notify_one();
        }
    });
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
