//! `anomalyd backtest`: what the detector would have found in the past.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::Format;
use crate::backtest::{self, Job, Ran, Report};
use crate::components;
use crate::config::{self, Loaded};
use crate::model::UnixNanos;
use crate::pipeline::{Clock as _, Plan, Progress, Span, SystemClock};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BacktestArgs {
    /// The daemon file. Its `elasticsearch` receivers are read; nothing is written anywhere, and the daemon's own
    /// state is left alone. With --input only the detector of it is used.
    #[arg(long, short, value_name = "FILE", required_unless_present = "input")]
    config: Option<PathBuf>,
    /// Which environment of the daemon file; needed where there are several and none is the default.
    #[arg(long, value_name = "NAME", requires = "config")]
    environment: Option<String>,
    /// CSV or NDJSON files to read instead: a time and one or several values in each row.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    input: Vec<PathBuf>,
    /// The first moment: `2026-01-01`, `2026-01-01T10:30:00+01:00` (UTC without an offset), or how long ago, `14d`.
    #[arg(long, value_name = "MOMENT", required_unless_present = "input", allow_hyphen_values = true)]
    from: Option<String>,
    /// The first moment after it.
    #[arg(long, value_name = "MOMENT", default_value = "now", allow_hyphen_values = true)]
    to: String,
    /// Writes the report with charts into this file: one HTML page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How the report is printed.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd backtest --config config/production.yml --environment production --from 14d --report report.html
  anomalyd backtest --config config/production.yml --from 2026-01-01 --to 2026-01-15 --format json | jq .per_day
  anomalyd backtest --input cpu.csv orders.ndjson --report report.html

Files: CSV with a column `timestamp` and one or several columns of numbers, each of which is a series; NDJSON of such
rows, or of {\"@timestamp\": ..., \"service\": ..., \"metric\": ..., \"value\": ...}.

What the detector has to learn first is in the same history, so begin two weeks before what you want to see. Ctrl-C
ends it with a report of what was read until then.";

pub(super) fn run(arguments: &BacktestArgs) -> ExitCode {
    let loaded = match &arguments.config {
        None => None,
        Some(path) => match config::load(path, &super::process_environment, components::FACTORIES) {
            Ok(loaded) => Some(loaded),
            Err(diagnostics) => {
                super::tell(&diagnostics.render(true));
                return ExitCode::from(super::CONFIGURATION_ERROR);
            }
        },
    };
    let job = match job(arguments, loaded.as_ref()) {
        Ok(job) => job,
        Err(error) => return fail(&error),
    };
    // A report that cannot be written is told before the work, not after it.
    if let Some(path) = &arguments.report
        && let Err(error) = std::fs::OpenOptions::new().create(true).append(true).open(path)
    {
        return fail(&format!("{}: {error}", path.display()));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the worker threads: {error}")),
    };
    for note in &job.left_out {
        super::tell(&format!("{note}\n"));
    }
    let span = job.span;
    let places = job.sources.join(", ");
    let ran = runtime.block_on(async {
        let stop = CancellationToken::new();
        let on_signal = stop.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                on_signal.cancel();
            }
        });
        let mut show = Show::new(span);
        let ran = backtest::run(job, stop, |progress| show.progress(progress)).await;
        show.clear();
        ran
    });
    runtime.shutdown_background();
    match ran {
        Ok(ran) => finish(arguments, &ran, span, &places),
        Err(error) => fail(&error),
    }
}

/// What is to be run.
fn job(arguments: &BacktestArgs, loaded: Option<&Loaded>) -> Result<Job, String> {
    let now = SystemClock.now();
    let moment = |flag: &str, text: &str| backtest::parse(text, now).map_err(|e| format!("{flag}: {e}"));
    let from = arguments.from.as_deref().map(|text| moment("--from", text)).transpose()?;
    let to = moment("--to", &arguments.to)?;
    let plan = loaded.map(|loaded| choose(loaded, arguments)).transpose()?;
    let from = from.map_or(UnixNanos(0), |from| from.at);
    let of_files = !arguments.input.is_empty();
    // Files may hold times to come, so there `now` means their end.
    let until = if of_files && to.relative && arguments.to.trim() == "now" { UnixNanos(u64::MAX) } else { to.at };
    if from >= until {
        return Err(format!("there is no time between --from {from} and --to {until}: give an earlier --from"));
    }
    let span = Span { from, until, anew: true, ends: true };
    if of_files {
        return backtest::of_files(&arguments.input, plan, span);
    }
    let plan = plan.ok_or("give a daemon file with --config, or files with --input")?;
    if from >= now {
        return Err(format!("--from {from} is in the future: history ends now, at {now}"));
    }
    backtest::of_environment(plan, span, now)
}

/// The environment that is meant.
fn choose<'a>(loaded: &'a Loaded, arguments: &BacktestArgs) -> Result<&'a Plan, String> {
    let names = || loaded.plans.iter().map(|p| format!("`{}`", p.spec.environment)).collect::<Vec<_>>().join(", ");
    if let Some(wanted) = &arguments.environment {
        let found = loaded.plans.iter().find(|p| p.spec.environment.as_str() == wanted);
        return found.ok_or_else(|| {
            let near = crate::text::closest(wanted, loaded.plans.iter().map(|p| p.spec.environment.as_str()));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            format!("--environment: there is no environment `{wanted}`, only {}{near}", names())
        });
    }
    match loaded.plans.as_slice() {
        [only] => Ok(only),
        several => several
            .iter()
            .find(|p| p.spec.default)
            .ok_or_else(|| format!("there are several environments: say which one with --environment, one of {}", names())),
    }
}

fn finish(arguments: &BacktestArgs, ran: &Ran, span: Span, places: &str) -> ExitCode {
    let Ran { report, error, interrupted } = ran;
    if report.values == 0 {
        if let Some(error) = error {
            return fail(error);
        }
        if !interrupted {
            return fail(&nothing(report, span, places));
        }
    }
    match arguments.format {
        Format::Text => drop(super::print(&backtest::text(report))),
        Format::Json => match serde_json::to_string_pretty(report) {
            Ok(json) => drop(super::print(&format!("{json}\n"))),
            Err(error) => return fail(&format!("the report cannot be written as JSON: {error}")),
        },
    }
    if let Some(path) = &arguments.report {
        if let Err(error) = write(path, report) {
            return fail(&error);
        }
        super::tell(&format!("report: {}\n", path.display()));
    }
    match (error, interrupted) {
        (Some(error), _) => fail(&format!("could not read to the end: {error}")),
        (None, true) => ExitCode::from(130),
        (None, false) => ExitCode::SUCCESS,
    }
}

/// Why there is nothing to report.
fn nothing(report: &Report, span: Span, places: &str) -> String {
    let mut told = if report.records > 0 {
        format!("{} records were read from {places}, but no value could be judged", report.records)
    } else {
        let until = if span.until.0 == u64::MAX { "now".to_owned() } else { span.until.to_string() };
        format!("there is nothing from {} to {until} in {places}", span.from)
    };
    let dropped: Vec<String> = report.dropped.iter().map(|(reason, n)| format!("{n} were not used ({reason})")).collect();
    for more in dropped.iter().chain(&report.notes) {
        told.push_str("; ");
        told.push_str(more);
    }
    told + ". Give an earlier --from, or look at `indices` and `filter` of the receiver"
}

fn write(path: &Path, report: &Report) -> Result<(), String> {
    std::fs::write(path, backtest::html(report)).map_err(|e| format!("{}: {e}", path.display()))
}

fn fail(error: &str) -> ExitCode {
    super::tell(&format!("error: {error}\n"));
    ExitCode::FAILURE
}

/// Tells how far it is: a bar on a terminal, a line now and then elsewhere.
struct Show {
    bar: Option<ProgressBar>,
    span: Span,
    /// Percent that were told.
    told: u64,
}

impl Show {
    fn new(span: Span) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(1000);
            let known = "reading {bar:40} {percent:>3} %  {msg}";
            let unknown = "reading {spinner} {msg}";
            let template = if span.until.0 == u64::MAX { unknown } else { known };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, span, told: 0 }
    }

    fn progress(&mut self, progress: &Progress) {
        let known = self.span.until.0 != u64::MAX;
        let at = progress.reached.rfc3339();
        let at = at.get(..16).unwrap_or(&at).replace('T', " ");
        let rows = |n: u64| crate::text::quantity(n as f64, "{record}");
        if let Some(bar) = &self.bar {
            if progress.records == 0 {
                return;
            }
            let left = progress.left().filter(|_| known).map(|left| format!(", {} s left", left.as_secs()));
            bar.set_position((progress.share() * 1000.0) as u64);
            bar.set_message(format!(
                "{at}, {} records, {}/s{}",
                rows(progress.records),
                rows(progress.rate() as u64),
                left.unwrap_or_default()
            ));
        } else if known {
            let percent = (progress.share() * 100.0) as u64;
            if progress.records > 0 && percent >= self.told + 20 && percent < 100 {
                self.told = percent - percent % 20;
                super::tell(&format!("{} %: {at}, {} records\n", self.told, rows(progress.records)));
            }
        }
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
