//! A daemon is killed, and comes back: how long that takes, of what, and how fast its log can be replayed beside it.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::Error;
use crate::daemon::{Daemon, Recipe, Watch, cpu_seconds, size_below};
use crate::learnt::{SECOND, Series};
use crate::metrics;
use crate::options::Options;
use crate::report::{grouped, mib};
use crate::run::{self, Clock, Plan};

/// Observations a second in real time.
const REAL_TIME: u64 = 10_000;
/// How much faster than that a replay is at least.
const FASTER: f64 = 50.0;
/// The most seconds from the start to the first answer.
const BACK: f64 = 20.0;
/// How long it is waited for.
const LIMIT: Duration = Duration::from_secs(1200);
/// Requests from which is learnt how large the log of one is.
const SAMPLE: u64 = 50;

/// What one program did.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    seconds: f64,
    cpu: f64,
    peak: u64,
}

/// What was measured.
#[derive(Debug)]
pub struct Recovery {
    series: u64,
    /// Bytes of the log, and of the checkpoint before it.
    log: u64,
    checkpoint: u64,
    /// In the log, behind the checkpoint.
    observations: u64,
    entries: u64,
    replay: Work,
    recovery: Work,
    /// Of the recovery, in seconds from its start: everything was loaded, everything was replayed.
    loaded: Option<f64>,
    replayed: Option<f64>,
    /// What came back.
    restored: u64,
    again: u64,
}

/// Teaches, lets the log grow, kills, replays, starts again.
///
/// # Errors
/// When one of them does not work.
pub async fn recovery(options: &Options, recipe: &Recipe) -> Result<Recovery, Error> {
    let series = Series::of(options)?;
    let recipe = series.recipe(recipe, "1h")?;
    let start = run::now() - 3 * 86_400 * SECOND;
    let folder = series.teach(&recipe, start).await?;

    // From here on event time goes by as it would in real time.
    let mut daemon = Daemon::spawn(&recipe, folder)?;
    series.answers(&mut daemon, LIMIT).await?;
    let (log_before, checkpoint) = (daemon.data_size_of("log"), daemon.data_size_of("checkpoint"));
    let step = series.shape.records as u64 * SECOND / REAL_TIME;
    let first = series.lessons();
    let clock = Clock::Past { start: start + series.taught() - first * step, step };
    let plan = |numbers| Plan { numbers, clock, ..series.plan(&daemon) };
    let sample = first + SAMPLE;
    series.send(&daemon, plan(first..sample)).await?;
    let wanted = options.log_mib << 20;
    let each = ((daemon.data_size_of("log") - log_before) / SAMPLE).max(1);
    let all = wanted.div_ceil(each).max(SAMPLE);
    let counted = match first + all {
        end if end > sample => series.send(&daemon, plan(sample..end)).await?,
        _ => metrics::scrape(&daemon.admin).await?,
    };
    let log = daemon.data_size_of("log") - log_before;
    let observations = counted.received_by("connector");
    if counted.events_of("checkpoints_written") > 0 {
        return Err("a checkpoint was written meanwhile, so that there is little to recover from the log".into());
    }
    let folder = daemon.kill().await?;

    let replay = replay(&recipe, &folder).await?;
    let mut recovery = Recovery {
        series: series.count,
        log,
        checkpoint,
        observations,
        entries: all,
        replay,
        recovery: Work::default(),
        loaded: None,
        replayed: None,
        restored: 0,
        again: 0,
    };
    back(&series, &recipe, folder, &mut recovery).await?;
    Ok(recovery)
}

async fn replay(recipe: &Recipe, folder: &TempDir) -> Result<Work, Error> {
    let began = Instant::now();
    let mut child = Command::new(&recipe.program)
        .args(["replay", "--data-dir"])
        .arg(folder.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let watch = child.id().map(Watch::begin);
    let status = tokio::time::timeout(LIMIT, child.wait()).await.map_err(|_| "`anomalyd replay` does not end")??;
    if !status.success() {
        return Err(format!("`anomalyd replay` ended with {status}").into());
    }
    let (cpu, peak) = watch.map_or((0.0, 0), |watch| (watch.cpu(), watch.peak()));
    Ok(Work { seconds: began.elapsed().as_secs_f64(), cpu, peak })
}

async fn back(series: &Series, recipe: &Recipe, folder: TempDir, recovery: &mut Recovery) -> Result<(), Error> {
    let (began, at) = (Instant::now(), run::now());
    let mut daemon = Daemon::spawn(recipe, folder)?;
    let watch = daemon.pid().map(Watch::begin);
    series.answers(&mut daemon, LIMIT).await?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = daemon.pid().and_then(cpu_seconds).unwrap_or(0.0);
    recovery.recovery = Work { seconds, cpu, peak: watch.map_or(0, |watch| watch.peak()) };
    let counted = metrics::scrape(&daemon.admin).await?;
    recovery.restored = counted.events_of("series_restored");
    recovery.again = counted.events_of("entries_replayed");
    let log = daemon.log();
    let since = |what: &str| log.lines().rev().find_map(|line| said(line, what)).map(|said| said.saturating_sub(at) as f64 / 1e9);
    recovery.loaded = since("goes on with what was learnt before");
    recovery.replayed = since("what came in since the last checkpoint is learnt again");
    drop(daemon.kill().await?);
    Ok(())
}

/// When a line of the daemon's log says this, nanoseconds since the epoch.
fn said(line: &str, what: &str) -> Option<u64> {
    let line: Value = serde_json::from_str(line).ok()?;
    let matches = line.get("message")?.as_str()?.contains(what);
    let time = line.get("timestamp")?.as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok()?;
    matches.then(|| time.timestamp_nanos_opt().and_then(|n| u64::try_from(n).ok()))?
}

impl Recovery {
    /// Observations that are replayed in a second, once the checkpoint is loaded: what that takes was measured when the
    /// daemon came back.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.observations as f64 / (self.replay.seconds - self.loaded.unwrap_or(0.0)).max(1e-3)
    }

    /// How much faster than real time that is.
    #[must_use]
    pub fn factor(&self) -> f64 {
        self.rate() / REAL_TIME as f64
    }

    /// What is not as it should be.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let Self { series, restored, entries, again, .. } = self;
        if restored < series {
            problems.push(format!("{restored} of {series} series came back"));
        }
        if again < entries {
            problems.push(format!("{again} of {entries} entries happened again"));
        }
        if self.recovery.seconds > BACK {
            problems.push(format!("it took {:.1} s to come back, more than {BACK} s", self.recovery.seconds));
        }
        if self.factor() < FASTER {
            problems.push(format!("the replay was {:.0} times as fast as real time, less than {FASTER} times", self.factor()));
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
        row("series", format!("{} (in a checkpoint of {})", grouped(self.series), mib(self.checkpoint)));
        let entries = format!("{} observations in {} entries", grouped(self.observations), grouped(self.entries));
        row("log behind it", format!("{}: {entries}", mib(self.log)));
        let used = |work: &Work| format!("{:.1} CPU-seconds, {} at most", work.cpu, mib(work.peak));
        row("replay", format!("{:.1} s; {}", self.replay.seconds, used(&self.replay)));
        let times = format!("{:.0} times as fast as real time at {}/s", self.factor(), grouped(REAL_TIME));
        row("", format!("{} observations/s once the checkpoint is loaded, {times}", grouped(self.rate() as u64)));
        row("back after SIGKILL", format!("{:.1} s; {}", self.recovery.seconds, used(&self.recovery)));
        let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "?".to_owned(), |s| format!("{s:.1} s"));
        row("", format!("checkpoint loaded after {}, log replayed after {}", seconds(self.loaded), seconds(self.replayed)));
        for problem in self.problems() {
            let _ = writeln!(out, "FAILED: {problem}");
        }
        if self.passed() {
            let _ =
                writeln!(out, "passed: everything is back within {BACK} s, and the replay {FASTER} times as fast as real time");
        }
        out
    }

    /// The same as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let work = |w: &Work| json!({ "seconds": w.seconds, "cpu_seconds": w.cpu, "peak_memory_bytes": w.peak });
        json!({
            "series": self.series,
            "checkpoint_bytes": self.checkpoint,
            "log_bytes": self.log,
            "entries": self.entries,
            "observations": self.observations,
            "replay": work(&self.replay),
            "observations_per_second": self.rate(),
            "times_real_time": self.factor(),
            "recovery": work(&self.recovery),
            "loaded_after_seconds": self.loaded,
            "replayed_after_seconds": self.replayed,
            "series_restored": self.restored,
            "entries_replayed": self.again,
            "problems": self.problems(),
            "passed": self.passed(),
        })
    }
}

impl Daemon {
    /// Bytes in its data folder of what has a name that begins so.
    fn data_size_of(&self, what: &str) -> u64 {
        size_below(&self.data(), what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_says_when_something_was_done() {
        let line = r#"{"timestamp":"2026-01-02T03:04:05.000006Z","level":"INFO","message":"goes on","series":3}"#;
        assert_eq!(said(line, "goes on").map(|n| n % SECOND), Some(6_000));
        assert_eq!(said(line, "learnt again"), None);
        assert_eq!(said("goes on", "goes on"), None);
    }
}
