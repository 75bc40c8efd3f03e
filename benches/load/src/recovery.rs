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
    /// Bytes that went into the log, those of it that are left, and those of the checkpoint before it.
    sent: u64,
    log: u64,
    checkpoint: u64,
    /// What was sent.
    observations: u64,
    entries: u64,
    /// Observations in an entry.
    each: u64,
    /// Checkpoints that were written meanwhile, and the longest that one kept a shard from its work, milliseconds.
    checkpoints: u64,
    pause: u64,
    replay: Work,
    /// Entries that it replayed.
    replayed_entries: u64,
    recovery: Work,
    /// Of the recovery, in seconds from its start: everything was loaded, everything was replayed.
    loaded: Option<f64>,
    replayed: Option<f64>,
    /// What came back.
    restored: u64,
    again: u64,
}

/// Teaches, sends what makes a log so large, kills, replays what the log holds, starts again from the newest checkpoint.
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
    let log = daemon.data_size_of("log");
    let observations = counted.received_by("connector");
    let folder = daemon.kill().await?;

    let (replay, replayed_entries) = replay(&recipe, &folder).await?;
    let mut recovery = Recovery {
        series: series.count,
        sent: each * all,
        log,
        checkpoint,
        observations,
        entries: all,
        each: observations / all,
        checkpoints: counted.events_of("checkpoints_written"),
        pause: counted.gauges.get("checkpoint_pause_ms").copied().unwrap_or(0),
        replay,
        replayed_entries,
        recovery: Work::default(),
        loaded: None,
        replayed: None,
        restored: 0,
        again: 0,
    };
    back(&series, &recipe, folder, &mut recovery).await?;
    Ok(recovery)
}

/// What a replay took, and how many entries it was of.
async fn replay(recipe: &Recipe, folder: &TempDir) -> Result<(Work, u64), Error> {
    let began = Instant::now();
    let child = Command::new(&recipe.program)
        .args(["replay", "--data-dir"])
        .arg(folder.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let watch = child.id().map(Watch::begin);
    let ended = tokio::time::timeout(LIMIT, child.wait_with_output()).await.map_err(|_| "`anomalyd replay` does not end")??;
    let status = ended.status;
    if !status.success() {
        return Err(format!("`anomalyd replay` ended with {status}").into());
    }
    let (cpu, peak) = watch.map_or((0.0, 0), |watch| (watch.cpu(), watch.peak()));
    let work = Work { seconds: began.elapsed().as_secs_f64(), cpu, peak };
    let said = String::from_utf8_lossy(&ended.stderr);
    let entries = said.lines().find_map(replayed).ok_or_else(|| format!("`anomalyd replay` does not say how much: {said}"))?;
    Ok((work, entries))
}

/// How many entries were replayed, from a line such as `load detector: 79044 entries from 7553 on`.
fn replayed(line: &str) -> Option<u64> {
    line.split_once(" entries from ")?.0.split_whitespace().last()?.parse().ok()
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
        (self.replayed_entries * self.each) as f64 / (self.replay.seconds - self.loaded.unwrap_or(0.0)).max(1e-3)
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
        let Self { series, restored, .. } = self;
        if restored < series {
            problems.push(format!("{restored} of {series} series came back"));
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
        row("sent into the log", format!("{}: {entries}", mib(self.sent)));
        let pause = format!("longest pause {} ms of a shard", self.pause);
        row("left of it", format!("{} after {} checkpoints; {pause}", mib(self.log), self.checkpoints));
        let used = |work: &Work| format!("{:.1} CPU-seconds, {} at most", work.cpu, mib(work.peak));
        let all = grouped(self.replayed_entries);
        row("replay", format!("{:.1} s for {all} entries; {}", self.replay.seconds, used(&self.replay)));
        let times = format!("{:.0} times as fast as real time at {}/s", self.factor(), grouped(REAL_TIME));
        row("", format!("{} observations/s once the checkpoint is loaded, {times}", grouped(self.rate() as u64)));
        let again = grouped(self.again);
        row("back after SIGKILL", format!("{:.1} s, {again} entries again; {}", self.recovery.seconds, used(&self.recovery)));
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
            "sent_bytes": self.sent,
            "log_bytes": self.log,
            "checkpoints": self.checkpoints,
            "longest_pause_ms": self.pause,
            "entries_in_replay": self.replayed_entries,
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
    fn a_replay_says_how_much_it_was() {
        assert_eq!(replayed("load detector: 79044 entries from 7553 on"), Some(79_044));
        assert_eq!(replayed("nothing of it"), None);
    }

    #[test]
    fn the_log_says_when_something_was_done() {
        let line = r#"{"timestamp":"2026-01-02T03:04:05.000006Z","level":"INFO","message":"goes on","series":3}"#;
        assert_eq!(said(line, "goes on").map(|n| n % SECOND), Some(6_000));
        assert_eq!(said(line, "learnt again"), None);
        assert_eq!(said("goes on", "goes on"), None);
    }
}
