//! More than the daemon can take, for a while: it must refuse so that it comes again, and stay small meanwhile.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::daemon::Recipe;
use crate::options::Options;
use crate::report::Report;
use crate::{Error, measure};

/// Seconds for which is measured what the daemon can take.
const CAPACITY_SECONDS: f64 = 5.0;

/// What came of it.
#[derive(Debug)]
pub struct Overload {
    /// What it can take, records a second.
    pub capacity: f64,
    /// What was sent, records a second.
    pub offered: f64,
    /// The most memory that it may use, bytes.
    pub limit: Option<u64>,
    /// The overload and what came after.
    pub report: Report,
}

/// Measures what the daemon can take, then sends `times` as much. Each with a daemon of its own.
///
/// # Errors
/// When the daemon does not run.
pub async fn overload(options: &Options, recipe: &Recipe, times: f64) -> Result<Overload, Error> {
    let most = CAPACITY_SECONDS.min(options.seconds);
    let enough = Options { rate: None, seconds: most, in_flight: options.in_flight.max(4), ..options.clone() };
    let recipe = limited(options, recipe);
    let before = measure(&enough, Some(&recipe)).await?;
    if !before.passed() {
        return Err(format!("without overload something is wrong already:\n{}", before.text()).into());
    }
    let capacity = before.rate();
    let offered = capacity * times;
    // So many calls that none that waits for its answer keeps another from being sent. What cannot be sent in time
    // because the calls do not come back is sent later, so the rest needs as long again, and some.
    let in_flight = options.in_flight.max(128);
    let patience = options.patience.max(options.seconds * times * 1.5 + 30.0);
    let hard = Options { rate: Some(offered), in_flight, patience, connections: options.connections.max(8), ..options.clone() };
    let mut report = measure(&hard, Some(&recipe)).await?;
    let limit = options.memory_limit.map(|mib| mib << 20);
    let p99 = report.refused_p99();
    let problems = &mut report.verdict.problems;
    if let (Some(limit), Some(peak)) = (limit, report.peak)
        && peak > limit
    {
        problems.push(format!("the daemon used {} MiB of memory, the limit is {} MiB", peak >> 20, limit >> 20));
    }
    let refused: u64 = report.tally.refused.values().sum();
    if refused == 0 && report.tally.failed == 0 {
        problems.push(format!("nothing was refused, so this was no overload ({offered:.0} items/s were offered)"));
    }
    // Who hears nothing in time sends again what may be taken in after all, and so makes the overload worse.
    if report.tally.failed > refused / 10 {
        let failed = report.tally.failed;
        problems.push(format!("{failed} records got no answer within {} s, {refused} were refused", options.timeout));
    }
    if p99 > options.timeout * 1000.0 / 2.0 {
        problems.push(format!("a refused call took {p99:.0} ms (p99), more than half of the client's timeout"));
    }
    Ok(Overload { capacity, offered, limit, report })
}

/// The daemon is told the limit too, unless it has a file of its own.
fn limited(options: &Options, recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    if let (Some(mib), None) = (options.memory_limit, &options.config) {
        let _ = writeln!(recipe.daemon, "memory: {{ limit: {mib}MiB }}");
    }
    recipe
}

impl Overload {
    /// Records a second in all calls, those that came again too; and how many times as much that is as was acknowledged.
    fn called(&self) -> (f64, f64) {
        let Report { tally, took, .. } = &self.report;
        let called = (tally.sent + tally.retried) as f64;
        (called / took.as_secs_f64().max(1e-9), called / (tally.acknowledged as f64).max(1.0))
    }

    /// A table.
    #[must_use]
    pub fn text(&self) -> String {
        let limit = self.limit.map(|l| format!(", with a limit of {} MiB", l >> 20)).unwrap_or_default();
        let Self { capacity, offered, .. } = self;
        let (called, times) = self.called();
        format!(
            "it can take {capacity:.0} items/s, and was offered {offered:.0}{limit}\n\
             with what came again {called:.0} items/s came, {times:.2} times what was taken in meanwhile\n\n{}",
            self.report.text()
        )
    }

    /// The same as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let Self { capacity, offered, limit, report } = self;
        let (called, times) = self.called();
        json!({ "capacity": capacity, "offered": offered, "called": called, "times": times, "memory_limit_bytes": limit, "run": report.json() })
    }
}
