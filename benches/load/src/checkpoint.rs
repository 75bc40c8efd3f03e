//! What checkpoints cost a daemon that is at work: processor time, and how long they keep a shard from its work.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Error;
use crate::daemon::{Daemon, Recipe, cpu_seconds};
use crate::learnt::Series;
use crate::metrics;
use crate::options::Options;
use crate::report::grouped;
use crate::run::{self, Clock, Plan};

/// Records a second where none are asked for.
const RATE: f64 = 10_000.0;
/// The interval of checkpoints where none is configured, seconds.
const DEFAULT_INTERVAL: f64 = 300.0;
/// The most that checkpoints add to the processor time at that interval.
const MOST: f64 = 0.1;
/// The longest that a checkpoint may keep a shard from its work at once, milliseconds.
const LONGEST: u64 = 50;
/// How long it may take to come back.
const LIMIT: Duration = Duration::from_secs(600);

/// A daemon at work.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Processor time, seconds.
    cpu: f64,
    /// Checkpoints that were written.
    checkpoints: u64,
    lost: u64,
    /// The longest that one kept a shard from its work, milliseconds.
    pause: u64,
    records: u64,
}

/// What was measured.
#[derive(Debug)]
pub struct Cost {
    series: u64,
    interval: String,
    /// Of each run.
    seconds: f64,
    with: Run,
    without: Run,
}

/// Runs a daemon with checkpoints every `interval`, and one without.
///
/// # Errors
/// When one of them does not run.
pub async fn checkpoint(options: &Options, recipe: &Recipe, interval: &str) -> Result<Cost, Error> {
    let series = Series::of(options)?;
    let without = work(options, &series, recipe, "1h").await?;
    let with = work(options, &series, recipe, interval).await?;
    Ok(Cost { series: series.count, interval: interval.to_owned(), seconds: options.seconds, with, without })
}

/// Teaches the series up to now; another daemon goes on with them in real time, so that what is counted is of that alone.
async fn work(options: &Options, series: &Series, recipe: &Recipe, interval: &str) -> Result<Run, Error> {
    let start = run::now().saturating_sub(series.taught());
    let folder = series.teach(&series.recipe(recipe, "1h")?, start).await?;
    let mut daemon = Daemon::spawn(&series.recipe(recipe, interval)?, folder)?;
    series.answers(&mut daemon, LIMIT).await?;
    let before = metrics::scrape(&daemon.admin).await?;
    let pid = daemon.pid().ok_or("the daemon has ended")?;
    let cpu_before = cpu_seconds(pid).ok_or("processor time is not known on this system")?;
    let first = series.lessons();
    let plan = Plan {
        numbers: first..u64::MAX,
        clock: Clock::Now,
        rate: Some(options.rate.unwrap_or(RATE)),
        duration: Duration::try_from_secs_f64(options.seconds)?,
        ..series.plan(&daemon)
    };
    let after = series.send(&daemon, plan).await?;
    let cpu = cpu_seconds(pid).ok_or("the daemon has ended")? - cpu_before;
    drop(daemon.kill().await?);
    let since = after.since(&before);
    Ok(Run {
        cpu,
        checkpoints: since.events_of("checkpoints_written"),
        lost: since.events_of("checkpoints_lost"),
        pause: after.gauges.get("checkpoint_pause_ms").copied().unwrap_or(0),
        records: since.received_by("connector"),
    })
}

impl Cost {
    /// Processor time of one checkpoint, seconds.
    #[must_use]
    pub fn each(&self) -> f64 {
        (self.with.cpu - self.without.cpu) / self.with.checkpoints.max(1) as f64
    }

    /// What checkpoints add to the processor time at the default interval, as a share of it.
    #[must_use]
    pub fn share(&self) -> f64 {
        let rest = self.without.cpu / self.seconds.max(1e-9) * DEFAULT_INTERVAL;
        self.each() / rest.max(1e-9)
    }

    /// What is not as it should be.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Self { with, without, interval, .. } = self;
        if with.checkpoints == 0 || with.lost > 0 {
            problems.push(format!("{} checkpoints were written with `{interval}`, {} were lost", with.checkpoints, with.lost));
        }
        if without.checkpoints > 0 {
            problems.push(format!("{} checkpoints were written where none should be", without.checkpoints));
        }
        if self.share() > MOST {
            problems.push(format!("checkpoints cost {:.1} % of the processor time", self.share() * 100.0));
        }
        if with.pause > LONGEST {
            problems.push(format!("a checkpoint kept a shard from its work for {} ms", with.pause));
        }
        problems
    }

    /// Whether all is as it should be.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.problems().is_empty()
    }

    /// A table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut row = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<22}{value}");
        };
        row("series", grouped(self.series));
        for (name, run) in [("without checkpoints", &self.without), ("with", &self.with)] {
            let share = run.cpu / self.seconds.max(1e-9) * 100.0;
            let observations = grouped(run.records);
            row(name, format!("{:.1} CPU-seconds in {:.0} s ({share:.1} %), {observations} observations", run.cpu, self.seconds));
        }
        row("checkpoints", format!("{} with `checkpoint_interval: {}`", self.with.checkpoints, self.interval));
        row("each", format!("{:.2} CPU-seconds: {:.1} % more of them at the default of 5m", self.each(), self.share() * 100.0));
        row("longest pause", format!("{} ms of a shard", self.with.pause));
        for problem in self.problems() {
            let _ = writeln!(out, "FAILED: {problem}");
        }
        if self.passed() {
            out.push_str("passed: checkpoints cost less than 10 % and keep no shard from its work for more than 50 ms\n");
        }
        out
    }

    /// The same as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let run = |run: &Run| json!({ "cpu_seconds": run.cpu, "checkpoints": run.checkpoints, "lost": run.lost, "observations": run.records });
        json!({
            "series": self.series,
            "seconds": self.seconds,
            "interval": self.interval,
            "without": run(&self.without),
            "with": run(&self.with),
            "cpu_seconds_each": self.each(),
            "share_at_5m": self.share(),
            "longest_pause_ms": self.with.pause,
            "problems": self.problems(),
            "passed": self.passed(),
        })
    }
}
