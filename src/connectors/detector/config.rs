//! The block of a pipeline file.

use detection::Parameters;
use schemars::JsonSchema;
use serde::Deserialize;

use super::incidents::{self, AlertsConfig, IncidentsConfig};
use super::joint::{Entities, Peers};
use super::limits;
use super::model::ModelConfig;
use super::rules;
use super::warmup::Warmup;
use crate::config::Duration;
use crate::pipeline::Problem;

/// Learns what is normal for every series of this environment, and tells what is not.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The time step in which a series has one value: 10s to 1h, in steps of 10s. A change of it makes the
    /// detector learn anew.
    #[serde(default = "bucket")]
    pub bucket: Duration,
    /// How long after its end a bucket still waits for data, measured by event time: at most 1h. What comes
    /// later is dropped (`late`).
    #[serde(default = "lateness")]
    pub lateness: Duration,
    /// A source that has sent nothing for this long is taken to be silent: from then on the clock closes its
    /// buckets, and counts become 0. Set it longer than the longest interval in which a source is polled.
    #[serde(default = "idle_timeout")]
    pub idle_timeout: Duration,
    /// How many threads learn, each with its own share of the series: 0 (as many as the machine has cores) to 64.
    #[serde(default)]
    #[schemars(range(min = 0, max = 64))]
    pub shards: usize,
    /// How many series are learnt at most, divided evenly between the shards. Where there are as many, a new one takes
    /// the place of one that has not learnt yet and no longer reports, else of one that has been silent for a day; where
    /// there is none, what belongs to the new one is dropped (`series_limit`).
    #[serde(default = "max_series")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_series: usize,
    /// How many of them one metric of one service may have, whatever its instances, operations and attributes, so that an
    /// attribute with ever new values cannot take all places; never more than half of those of a shard. As
    /// `max_series`; what finds no place is dropped (`metric_series_limit`).
    #[serde(default = "max_series_per_metric")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_series_per_metric: usize,
    /// A series that has had no data for this long is forgotten: 1h to 1 year.
    #[serde(default = "forget_after")]
    pub forget_after: Duration,
    /// How many calls or values a bucket needs before its median counts; p95 and p99 need four times as many.
    /// In a bucket with fewer, these series have a gap.
    #[serde(default = "min_samples")]
    #[schemars(range(min = 1.0, max = 1_000_000.0))]
    pub min_samples: f64,
    /// How learning begins: how many buckets a series must have seen before anything of it can be an anomaly, as a
    /// number; or `{ buckets: 240, history: 14d }`, to read that much of the past first.
    #[serde(default)]
    pub warmup: Warmup,
    /// How unusual a value must be to be an anomaly, as -log10 of the probability under the series' own past:
    /// 1 more means ten times rarer. 0.5 to 20. Give either this or `alerts`.
    #[serde(default = "threshold")]
    #[schemars(range(min = 0.5, max = 20.0))]
    pub threshold: f64,
    /// How far a value must be from what was expected, as a share of it: 0.3 is 30 %. 0 to 100.
    #[serde(default = "min_deviation")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub min_deviation: f64,
    /// How far an error share must be from what was expected: 0.02 is two percentage points. 0 to 1.
    #[serde(default = "min_error_share_deviation")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_error_share_deviation: f64,
    /// How many alerts you want, in place of `threshold`: `{ at_most: 5, per: week }`. The threshold is then derived from
    /// the incidents that this environment would have had so far, once a day of event time; until enough is known
    /// (`per`, but at least a day and at most a week) the default threshold holds.
    #[serde(default)]
    pub alerts: Option<AlertsConfig>,
    /// How anomalies that belong together become one incident, which is what people are alerted on.
    #[serde(default)]
    pub incidents: IncidentsConfig,
    /// What is different for some series. Of several rules that match a series, later ones go before earlier ones,
    /// key by key.
    #[serde(default)]
    pub rules: Vec<rules::Rule>,
    /// Windows of time in which findings of some series are held back.
    #[serde(default)]
    pub maintenance: Vec<rules::Maintenance>,
    /// What happens around a new `service.version`.
    #[serde(default)]
    pub deployments: rules::Deployments,
    /// Series of one entity, judged together.
    #[serde(default)]
    pub entities: Entities,
    /// Instances of one metric, compared with each other.
    #[serde(default)]
    pub peers: Peers,
    /// What judges the series, and how it is trained.
    #[serde(default)]
    pub model: ModelConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bucket: bucket(),
            lateness: lateness(),
            idle_timeout: idle_timeout(),
            shards: 0,
            max_series: max_series(),
            max_series_per_metric: max_series_per_metric(),
            forget_after: forget_after(),
            min_samples: min_samples(),
            warmup: Warmup::default(),
            threshold: threshold(),
            min_deviation: min_deviation(),
            min_error_share_deviation: min_error_share_deviation(),
            alerts: None,
            incidents: IncidentsConfig::default(),
            rules: Vec::new(),
            maintenance: Vec::new(),
            deployments: rules::Deployments::default(),
            entities: Entities::default(),
            peers: Peers::default(),
            model: ModelConfig::default(),
        }
    }
}

const fn bucket() -> Duration {
    Duration::from_secs(60)
}
const fn lateness() -> Duration {
    Duration::from_secs(30)
}
const fn idle_timeout() -> Duration {
    Duration::from_secs(120)
}
const fn max_series() -> usize {
    100_000
}
const fn max_series_per_metric() -> usize {
    20_000
}
const fn forget_after() -> Duration {
    Duration::from_secs(14 * 86_400)
}
const fn min_samples() -> f64 {
    5.0
}
fn threshold() -> f64 {
    Parameters::default().page_threshold
}
fn min_deviation() -> f64 {
    Parameters::default().min_relative_deviation
}
fn min_error_share_deviation() -> f64 {
    Parameters::default().min_ratio_deviation
}

impl Config {
    /// From the checked block; an empty block is the defaults.
    pub(super) fn read(config: &serde_json::Value) -> Result<Self, serde_json::Error> {
        if config.is_null() { Ok(Self::default()) } else { Self::deserialize(config) }
    }

    /// How incidents are made.
    pub(super) fn incidents(&self) -> incidents::Settings {
        incidents::Settings {
            bucket: self.bucket.nanos(),
            window: self.incidents.window.nanos(),
            alerts: self.alerts,
            shards_threshold: self.parameters().page_threshold,
            default_threshold: self.threshold,
        }
    }

    /// How many series a shard may hold.
    pub(super) fn limits(&self) -> limits::Settings {
        limits::Settings::new(self.max_series, self.max_series_per_metric, self.shards, self.bucket.nanos())
    }

    /// What the mathematics is asked with.
    pub(super) fn parameters(&self) -> Parameters {
        Parameters {
            // What may come to be within the budget is let through; the rest is decided behind the shards.
            page_threshold: self.alerts.map_or(self.threshold, |_| incidents::floor(self.threshold)),
            min_relative_deviation: self.min_deviation,
            min_ratio_deviation: self.min_error_share_deviation,
            warmup: self.warmup.buckets(),
            model: self.model.options(),
            ..Parameters::default()
        }
    }
}

/// What the schema cannot say.
pub(super) fn check(config: &serde_json::Value) -> Vec<Problem> {
    // What the schema forbids is reported from there.
    let given = |key: &str| config.get(key).is_some_and(|value| !value.is_null());
    let both = given("threshold") && given("alerts");
    let Ok(config) = Config::read(config) else { return Vec::new() };
    let mut problems = Vec::new();
    let mut problem = |key: &str, message: String, hint: Option<String>| {
        problems.push(Problem { path: key.split('.').map(str::to_owned).collect(), message, hint, fatal: true });
    };
    let range = |value: f64, low: f64, high: f64| {
        (!(low..=high).contains(&value)).then(|| format!("{value} is out of range: expected {low} to {high}"))
    };
    let bucket = config.bucket.get();
    let step = std::time::Duration::from_secs(10);
    if bucket < step || bucket > std::time::Duration::from_secs(3600) {
        problem("bucket", format!("a bucket of {} is out of range: expected 10s to 1h", config.bucket), None);
    } else if bucket.subsec_nanos() != 0 || !bucket.as_secs().is_multiple_of(10) {
        let near = Duration::from_secs((bucket.as_secs() + 5) / 10 * 10);
        problem("bucket", format!("a bucket of {} is not a multiple of 10s", config.bucket), Some(format!("write `{near}`")));
    }
    if config.lateness.get() > std::time::Duration::from_secs(3600) {
        problem("lateness", format!("{} is too long: expected at most 1h", config.lateness), None);
    }
    if config.idle_timeout.get() < std::time::Duration::from_secs(1) {
        problem("idle_timeout", format!("{} is too short: expected at least 1s", config.idle_timeout), None);
    }
    if config.shards > 64 {
        problem("shards", format!("{} is out of range: expected 0 to 64", config.shards), None);
    }
    for (key, series) in [("max_series", config.max_series), ("max_series_per_metric", config.max_series_per_metric)] {
        if !(1..=10_000_000).contains(&series) {
            problem(key, format!("{series} is out of range: expected 1 to 10000000"), None);
        }
    }
    let (hour, year) = (std::time::Duration::from_secs(3600), std::time::Duration::from_secs(366 * 86_400));
    if config.forget_after.get() < hour || config.forget_after.get() > year {
        problem("forget_after", format!("{} is out of range: expected 1h to 1year", config.forget_after), None);
    }
    if let Some(message) = range(config.min_samples, 1.0, 1e6) {
        problem("min_samples", message, None);
    }
    if let Some(message) = range(f64::from(config.warmup.buckets()), 10.0, 1e5) {
        problem("warmup", message, None);
    }
    if let Some(history) = config.warmup.history()
        && (history.get() < hour || history.get() > year)
    {
        let message = format!("a history of {history} is out of range: expected 1h to 1year");
        problem("warmup", message, Some("two weeks (`14d`) show a weekly rhythm twice".to_owned()));
    }
    if let Some(message) = range(config.threshold, 0.5, 20.0) {
        problem("threshold", message, Some("a higher threshold gives fewer anomalies".to_owned()));
    }
    if both {
        problem(
            "alerts",
            "a budget for alerts and a `threshold` are both given: expected one of them".to_owned(),
            Some("leave `threshold` out: it is derived from the budget".to_owned()),
        );
    }
    if let Some(alerts) = config.alerts
        && !(1..=1000).contains(&alerts.at_most)
    {
        problem("alerts.at_most", format!("{} is out of range: expected 1 to 1000", alerts.at_most), None);
    }
    if let Some(message) = config.incidents.problem() {
        problem("incidents.window", message, None);
    }
    if let Some(message) = range(config.min_deviation, 0.0, 100.0) {
        problem("min_deviation", message, None);
    }
    if let Some(message) = range(config.min_error_share_deviation, 0.0, 1.0) {
        problem("min_error_share_deviation", message, None);
    }
    problems.extend(rules::check(&config));
    for (key, message) in config.peers.problems() {
        problems.push(Problem { path: vec!["peers".to_owned(), key.to_owned()], message, hint: None, fatal: true });
    }
    problems.extend(config.model.check(bucket.as_secs_f64(), config.max_series));
    problems
}
