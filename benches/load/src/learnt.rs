//! A daemon that has learnt many series: half an hour of them, in event time that goes by as fast as it is taken.

use std::time::Duration;

use tempfile::TempDir;

use crate::Error;
use crate::client::{Answer, Connection, Target};
use crate::daemon::{Daemon, PIPELINE, Recipe};
use crate::metrics::{self, Accounts};
use crate::options::Options;
use crate::request::{Shape, Signal};
use crate::run::{self, Clock, Plan};

/// Buckets that every series has values in.
const BUCKETS: u64 = 30;
/// Seconds of event time in each.
const BUCKET: u64 = 60;
/// Spans of each operation in a bucket: enough for its quantiles.
const SPANS: u64 = 24;
/// Operations of a service.
const OPERATIONS: u64 = 100;
/// Series that an operation has in spans: rate, error share and three quantiles.
const SERIES_OF_SPANS: u64 = 5;
/// How long the daemon may take to hand on what it has taken in; a busy machine is slow.
const SETTLED: Duration = Duration::from_secs(600);
/// Nanoseconds.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// The series of a scenario, and the requests that are made of them.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    options: Options,
    pub(crate) shape: Shape,
    /// How many there are.
    pub(crate) count: u64,
    /// Requests in which all of them have had values in one bucket.
    round: u64,
}

impl Series {
    /// As `options` ask for.
    pub(crate) fn of(options: &Options) -> Result<Self, Error> {
        let per_operation = match options.signal {
            Signal::Metrics => 1,
            Signal::Traces => SERIES_OF_SPANS,
            Signal::Logs => return Err("log records make few series: use `--signal metrics` or `--signal traces`".into()),
        };
        let services = options.series.div_ceil(per_operation * OPERATIONS);
        let operations = services * OPERATIONS;
        let mut options = Options { services: u32::try_from(services)?, operations: OPERATIONS as u32, ..options.clone() };
        let round = match options.signal {
            // So that a request has every operation of its services once.
            Signal::Metrics => {
                options.records = OPERATIONS as u32 * u32::try_from(services.min(4))?;
                operations / u64::from(options.records)
            }
            _ => (operations * SPANS).div_ceil(u64::from(options.records)),
        };
        let shape = options.plan(String::new()).shape;
        Ok(Self { options, shape, count: operations * per_operation, round: round.max(1) })
    }

    /// A daemon with room for them, which says when what happens, and makes checkpoints so often.
    pub(crate) fn recipe(&self, recipe: &Recipe, interval: &str) -> Result<Recipe, Error> {
        let mut recipe = recipe.clone();
        if self.options.config.is_none() {
            recipe.daemon = DAEMON.replace("INTERVAL", interval);
        }
        if self.options.pipeline.is_none() {
            // Shards do not get quite the same number.
            let room = self.count * 2;
            let detector = format!("connectors:\n  detector: {{ max_series: {room}, max_series_per_metric: {room} }}\n");
            recipe.pipeline = format!("{PIPELINE}{detector}");
        }
        Ok(recipe)
    }

    /// How many requests teach them.
    pub(crate) const fn lessons(&self) -> u64 {
        self.round * BUCKETS
    }

    /// The pace of event time while they are taught, where request 0 happened at `start`.
    const fn lesson(&self, start: u64) -> Clock {
        Clock::Past { start, step: BUCKET * SECOND / self.round }
    }

    /// The event time that lessons take, in nanoseconds.
    pub(crate) const fn taught(&self) -> u64 {
        BUCKETS * BUCKET * SECOND
    }

    /// The folder of a daemon that has learnt the series, and was stopped. The first lesson was at `start`.
    pub(crate) async fn teach(&self, recipe: &Recipe, start: u64) -> Result<TempDir, Error> {
        let daemon = Daemon::start(recipe).await?;
        let plan = Plan { numbers: 0..self.lessons(), clock: self.lesson(start), ..self.plan(&daemon) };
        let counted = self.send(&daemon, plan).await?;
        let added = counted.events_of("series_added");
        if added < self.count {
            return Err(format!("{added} series were begun in place of {}\n{}", self.count, daemon.said()).into());
        }
        daemon.stop().await
    }

    /// A run against `daemon`.
    pub(crate) fn plan(&self, daemon: &Daemon) -> Plan {
        Plan { shape: self.shape, duration: Duration::from_secs(3600), ..self.options.plan(daemon.grpc.clone()) }
    }

    /// Sends as `plan` says, until everything was acknowledged and handed on. What the daemon counted by then.
    pub(crate) async fn send(&self, daemon: &Daemon, plan: Plan) -> Result<Accounts, Error> {
        let (tally, _) = run::run(plan).await?;
        if tally.lost() > 0 || tally.acknowledged == 0 {
            return Err(format!("{} records were not acknowledged: {:?}\n{}", tally.lost(), tally.said, daemon.said()).into());
        }
        metrics::settled(&daemon.admin, SETTLED).await
    }

    /// Waits until the daemon answers OTLP: an empty request. `limit` is for how long.
    pub(crate) async fn answers(&self, daemon: &mut Daemon, limit: Duration) -> Result<(), Error> {
        let began = std::time::Instant::now();
        let timeout = Duration::from_secs(5);
        loop {
            let target = Target { timeout, ..self.options.plan(daemon.grpc.clone()).target };
            let connection = Connection::new(target);
            if let Answer::Taken { .. } = connection.send(bytes::Bytes::new()).await {
                return Ok(());
            }
            daemon.runs()?;
            if began.elapsed() > limit {
                return Err(format!("the daemon does not answer OTLP after {} s\n{}", limit.as_secs(), daemon.said()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

const DAEMON: &str = "\
environments: [load.yml]
storage:
  data_dir: \"${env:LOAD_DATA_DIR}\"
  checkpoint_interval: INTERVAL
  input_log: { max_size: 32GiB }
server: { endpoint: \"${env:LOAD_ADMIN}\" }
telemetry: { logs: { level: info, format: json } }
";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn as_many_series_are_taught_as_were_asked_for() {
        let series = |arguments: &[&str]| {
            let all = ["load", "--daemon", "x"].iter().chain(arguments);
            Series::of(&Options::parse_from(all)).unwrap()
        };
        let metrics = series(&["--signal", "metrics"]);
        assert_eq!((metrics.count, metrics.shape.records, metrics.round), (100_000, 400, 250));
        let traces = series(&["--signal", "traces", "--series", "5000"]);
        assert_eq!((traces.count, traces.shape.services, traces.shape.operations), (5000, 10, 100));
        assert_eq!(traces.round, (1000 * SPANS).div_ceil(512));
        assert!(Series::of(&Options::parse_from(["load", "--daemon", "x"])).is_err());
    }
}
