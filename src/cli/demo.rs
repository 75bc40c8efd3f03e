//! `anomalyd demo`: the daemon at work on simulated services.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::Format;
use crate::demo::{self, Event, Fault, Options, Report};
use crate::exporters::console;
use crate::model::UnixNanos;
use crate::pipeline::{Clock as _, SystemClock};

/// Show the daemon at work: three simulated environments send real OTLP to it, one of them breaks.
///
/// Needs nothing but the loopback. Replays some days of history as fast as it goes, then some hours in which production
/// has four faults, prints what is found with reasons, and ends with what was found, missed and falsely reported.
/// The exit code is 0 only if all faults were found, with no more false alarms than the summary says may be.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Demo {
    /// Days of history to learn from.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=60))]
    days: u64,
    /// Of the simulation: the same seed sends the same telemetry.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How the summary is written. With `json` it is all that is written to stdout.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print also what was reported while learning.
    #[arg(long)]
    all: bool,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd demo
  anomalyd demo --days 3 --seed 7
  anomalyd demo --format json | jq .passed";

/// Runs it.
pub(crate) fn run(args: &Demo) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            super::tell(&format!("error: cannot start the worker threads: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    let mut show =
        Show { text: args.format == Format::Text, all: args.all, bar: None, apart: false, began: Instant::now(), told: 0 };
    let options = Options { days: args.days, seed: args.seed };
    let end = demo::end_before(SystemClock.now());
    let report = runtime.block_on(async {
        let mut tell = |event: Event<'_>| show.event(event);
        tokio::select! {
            report = demo::run(options, end, &mut tell) => Some(report),
            _ = tokio::signal::ctrl_c() => None,
        }
    });
    show.clear();
    // Ends what is left of an interrupted run without waiting for it.
    runtime.shutdown_background();
    match report {
        Some(Ok(report)) => summary(&report, args.format, show.began.elapsed()),
        Some(Err(error)) => {
            super::tell(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
        None => {
            super::tell("interrupted\n");
            ExitCode::from(130)
        }
    }
}

fn summary(report: &Report, format: Format, took: Duration) -> ExitCode {
    match format {
        Format::Text => {
            super::print(&format!("\n{}", report.text()));
            super::tell(&format!("{} records in {:.0} s\n", grouped(report.records), took.as_secs_f64()));
        }
        Format::Json => match serde_json::to_string_pretty(report) {
            Ok(json) => drop(super::print(&format!("{json}\n"))),
            Err(error) => super::tell(&format!("error: the summary cannot be written as JSON: {error}\n")),
        },
    }
    if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Shows what happens: progress on stderr, findings on stdout.
struct Show {
    text: bool,
    all: bool,
    bar: Option<ProgressBar>,
    /// Something stands above.
    apart: bool,
    began: Instant,
    /// Percent of the replay that were told, where there is no progress bar.
    told: u64,
}

impl Show {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Started { from, to } => self.started(from, to),
            Event::Learning { done, total } => {
                let percent = done * 100 / total.max(1);
                if let Some(bar) = &self.bar {
                    bar.set_length(total);
                    bar.set_position(done);
                } else if percent >= self.told + 20 {
                    self.told = percent - percent % 20;
                    super::tell(&format!("  {} % after {:.0} s\n", self.told, self.began.elapsed().as_secs_f64()));
                }
            }
            Event::Watching { records, anomalies, incidents, to } => {
                self.clear();
                let seconds = self.began.elapsed().as_secs_f64();
                super::tell(&format!(
                    "learnt from {} spans and log records in {seconds:.0} s ({} per second); {anomalies} anomalies in {incidents} incidents in it{}\n\
                     watching until {}: dev and staging stay healthy, production breaks four times\n",
                    grouped(records),
                    grouped((records as f64 / seconds).round() as u64),
                    if self.all || anomalies == 0 { "" } else { " (`--all` prints them)" },
                    minute(to)
                ));
            }
            Event::Broken(fault) => self.marker(fault.start, "broken  ", fault, AnsiColor::Magenta),
            Event::Repaired(fault) => self.marker(fault.end, "repaired", fault, AnsiColor::Green),
            Event::Found { findings, learning } => {
                if self.text && (self.all || !learning) {
                    for block in console::blocks(findings) {
                        let apart = std::mem::replace(&mut self.apart, true);
                        self.print(&format!("{}{block}", if apart { "\n" } else { "" }));
                    }
                }
            }
        }
    }

    fn started(&mut self, from: UnixNanos, to: UnixNanos) {
        super::tell(&format!(
            "the daemon runs in this process: pipelines for dev, staging and production behind one OTLP port\n\
             replaying their history from {} to {} over the loopback\n",
            minute(from),
            minute(to)
        ));
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(1);
            let style = ProgressStyle::with_template("learning {bar:40} {percent:>3} %  {elapsed} gone, {eta} left");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
    }

    fn marker(&mut self, at: UnixNanos, what: &str, fault: &Fault, colour: AnsiColor) {
        if self.text {
            let style = Style::new().fg_color(Some(colour.into()));
            let (at, words) = (minute(at), fault.words());
            self.print(&format!("\n{style}{at}:00Z  {what}      {}  {words}{style:#}\n", fault.environment));
            self.apart = false;
        }
    }

    /// Writes `text` to stdout, beside the progress bar if there is one.
    fn print(&self, text: &str) {
        let _ = match &self.bar {
            Some(bar) => bar.suspend(|| super::print(text)),
            None => super::print(text),
        };
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// `2026-01-15 10:30`.
fn minute(time: UnixNanos) -> String {
    time.rfc3339().chars().take(16).collect::<String>().replace('T', " ")
}

/// `5,612,345`.
fn grouped(count: u64) -> String {
    crate::text::quantity(count as f64, "{record}")
}
