//! Where a series stands, and why there is nothing to tell about it.

use std::collections::BTreeMap;

use detection::{State, Verdict};
use serde::Serialize;

use super::super::bucket::{Function, Taken};
use super::super::core::Core;
use super::super::group::Group;
use super::super::key::{Key, unit};
use super::{Quiet, matching};
use crate::model::UnixNanos;
use crate::text::{alike, quantity};

/// How fast the share of buckets with a value follows: about the last hour of minutes.
const FILLED_RATE: f32 = 1.0 / 32.0;
/// A series with a value in fewer of its buckets is sparse.
const SPARSE: f32 = 0.5;

/// What a series showed last. Not saved: after a restart it is known with the next value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Standing {
    /// The last bucket with a value; 0 before the first.
    bucket: u64,
    value: f64,
    samples: f64,
    expected: f64,
    lower: f64,
    upper: f64,
    pressure: f32,
    /// Share of the latest buckets that had a value.
    filled: f32,
    /// The bucket in which the incident began; 0 for none.
    since: u64,
}

impl Default for Standing {
    fn default() -> Self {
        let none = f64::NAN;
        Self {
            bucket: 0,
            value: none,
            samples: none,
            expected: none,
            lower: none,
            upper: none,
            pressure: 0.0,
            filled: 0.0,
            since: 0,
        }
    }
}

impl Standing {
    /// Takes note of a value and what was said about it.
    pub(in super::super) fn follow(&mut self, at: u64, taken: &Taken, verdict: &Verdict, in_incident: bool) {
        let filled =
            if self.bucket == 0 { 1.0 } else { self.filled_at(at.saturating_sub(1)) * (1.0 - FILLED_RATE) + FILLED_RATE };
        let bound = |bound: Option<f64>| bound.unwrap_or(f64::NAN);
        #[expect(clippy::cast_possible_truncation, reason = "shown with three digits")]
        let pressure = verdict.pressure as f32;
        *self = Self {
            bucket: at,
            value: taken.value,
            samples: taken.samples,
            expected: bound(verdict.expected),
            lower: bound(verdict.lower),
            upper: bound(verdict.upper),
            pressure,
            filled,
            since: if !in_incident {
                0
            } else if self.since > 0 {
                self.since
            } else {
                at
            },
        };
    }

    /// The share of filled buckets as of `at`: those after the last value were empty.
    fn filled_at(&self, at: u64) -> f32 {
        let empty = i32::try_from(at.saturating_sub(self.bucket)).unwrap_or(i32::MAX);
        self.filled * (1.0 - FILLED_RATE).powi(empty)
    }
}

/// One series as it is told to whoever asks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in super::super) struct Row {
    /// As anomalies name it.
    pub(super) series: String,
    pub(super) service: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<String>,
    metric: String,
    function: &'static str,
    unit: String,
    pub(super) state: &'static str,
    /// A sentence: why there is nothing, or since when there is something.
    reason: String,
    /// Values seen, and needed before there can be findings.
    seen: u32,
    needed: u32,
    /// How many findings were called normal.
    #[serde(skip_serializing_if = "is_none")]
    lessons: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Last>,
    /// Where a page of rows ends.
    #[serde(skip)]
    pub(super) cursor: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_none(count: &usize) -> bool {
    *count == 0
}

/// The last value, in the unit of the series.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Last {
    time: String,
    value: f64,
    samples: f64,
    expected: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    /// How unusual, in units of -log10(probability), and from where on it is a finding.
    score: f64,
    threshold: f64,
}

/// How many series are in each state.
pub(in super::super) type States = BTreeMap<&'static str, u64>;

/// All states: a series is in the first that holds.
pub(super) const STATES: [&str; 9] =
    ["muted", "maintenance", "deployment", "silent", "incident", "warming", "training", "sparse", "normal"];

/// Everything that decides about one series.
pub(super) struct View<'a> {
    core: &'a Core,
    key: &'a Key,
    group: &'a Group,
    place: usize,
    function: Function,
    /// The bucket that is open.
    open: u64,
}

/// All series of a core, in no particular order.
pub(super) fn views(core: &Core) -> impl Iterator<Item = View<'_>> {
    let bucket = core.settings.timing.bucket;
    core.groups.iter().flat_map(move |(key, group)| {
        let open = core.sources.horizon(group.sources(), &core.settings.timing).unwrap_or(core.now.0 / bucket);
        let functions = key.kind.functions().iter().enumerate();
        functions.map(move |(place, function)| View { core, key, group, place, function: *function, open })
    })
}

impl View<'_> {
    pub(super) fn series(&self) -> String {
        matching::series(self.key, self.function)
    }

    pub(super) fn service(&self) -> &str {
        &self.key.entity.service
    }

    fn standing(&self) -> Option<&Standing> {
        self.group.standings().get(self.place).filter(|standing| standing.bucket > 0)
    }

    fn seconds(&self) -> f64 {
        self.core.settings.timing.bucket as f64 / UnixNanos::SECOND as f64
    }

    fn quiet(&self) -> (Option<Quiet>, f64) {
        let settings = &self.core.settings;
        let quieting = &self.core.quieting;
        let mut slot = None;
        let applied = match self.group.applied_at(self.place).filter(|applied| quieting.is_current(applied)) {
            Some(applied) => Some(applied),
            None => quieting.applied(&mut slot, self.key, self.function, self.seconds(), &settings.parameters),
        };
        let from = UnixNanos(self.open.saturating_mul(settings.timing.bucket));
        let quiet = quieting.quiet(applied, self.service(), from, from.plus(settings.timing.bucket));
        (quiet, quieting.parameters(applied, None, &settings.parameters).page_threshold)
    }

    /// The state, without its sentence.
    pub(super) fn state(&self) -> &'static str {
        let (quiet, _) = self.quiet();
        self.state_with(quiet.as_ref())
    }

    fn state_with(&self, quiet: Option<&Quiet>) -> &'static str {
        if let Some(quiet) = quiet {
            return quiet.because.state();
        }
        let near = self.core.settings.timing.near() / self.core.settings.timing.bucket;
        let last = self.standing().map_or(0, |standing| standing.bucket).max(self.group.last_data());
        let judged = self.group.series_at(self.place);
        if last.saturating_add(near) < self.open {
            return "silent";
        }
        match judged {
            None if self.group.closed() => "sparse",
            None => "warming",
            Some(series) if series.in_incident() => "incident",
            Some(series) if matches!(series.state(), State::Warming { .. }) => "warming",
            Some(series) if matches!(series.state(), State::Training { .. }) => "training",
            Some(_) if self.standing().is_some_and(|standing| standing.filled_at(self.open.saturating_sub(1)) < SPARSE) => {
                "sparse"
            }
            Some(_) => "normal",
        }
    }

    /// Everything that is told about it.
    pub(super) fn row(&self) -> Row {
        let (quiet, threshold) = self.quiet();
        let state = self.state_with(quiet.as_ref());
        let judged = self.group.series_at(self.place);
        let (seen, needed) = match judged.map(|series| (series.seen(), series.state())) {
            Some((_, State::Warming { seen, needed, .. })) => (seen, needed),
            Some((seen, _)) => (seen, self.core.settings.parameters.warmup),
            None => (0, self.core.settings.parameters.warmup),
        };
        let unit = unit(self.key.kind, self.function, &self.key.unit);
        let last = self.last(threshold);
        let reason = match (&quiet, state) {
            (Some(quiet), _) => self.core.quieting.words(quiet, self.service()),
            (None, "silent") => format!("no data since {}", self.moment(self.group.last_data() + 1)),
            (None, "incident") => match self.standing().filter(|standing| standing.since > 0) {
                Some(standing) => {
                    format!("in an incident since {}: what is not clearly worse is not told again", self.moment(standing.since))
                }
                None => "in an incident: what is not clearly worse is not told again".to_owned(),
            },
            (None, "warming") => self.warming(seen, needed),
            (None, "training") => "enough values seen: its first model is being trained".to_owned(),
            (None, "sparse") => self.sparse(),
            _ => last.as_ref().map_or_else(|| "no value since the daemon started".to_owned(), |last| last.words(&unit)),
        };
        let entity = &self.key.entity;
        Row {
            series: self.series(),
            service: entity.service.clone(),
            operation: entity.operation.clone(),
            metric: self.key.metric.to_string(),
            function: self.function.as_str(),
            state,
            reason,
            seen,
            needed,
            lessons: judged.map_or(0, |series| series.lessons().len()),
            last,
            cursor: self.cursor(),
            unit,
        }
    }

    /// Sorts rows as people read them, and tells apart what reads the same.
    pub(super) fn cursor(&self) -> String {
        format!("{}|{}|{}|{}", self.series(), self.key.signal.as_str(), self.key.unit, self.key.kind as u8)
    }

    fn last(&self, threshold: f64) -> Option<Last> {
        let standing = self.standing()?;
        // Counts were judged as counts, and are shown per second.
        let count = self.key.kind.quantity(self.function, &self.key.unit) == detection::Quantity::Count;
        let scale = if count { 1.0 / self.seconds() } else { 1.0 };
        let finite = |value: f64| (value * scale).is_finite().then_some(value * scale);
        Some(Last {
            time: self.moment(standing.bucket),
            value: standing.value * scale,
            samples: standing.samples,
            expected: finite(standing.expected),
            lower: finite(standing.lower),
            upper: finite(standing.upper),
            score: (f64::from(standing.pressure) * 100.0).round() / 100.0,
            threshold,
        })
    }

    fn warming(&self, seen: u32, needed: u32) -> String {
        let left = f64::from(needed.saturating_sub(seen));
        let filled = self.standing().map_or(1.0, |standing| f64::from(standing.filled_at(self.open.saturating_sub(1))));
        if filled < 0.02 {
            return format!("{seen} of {needed} values seen, and hardly any come now");
        }
        let ready = quantity((left / filled * self.seconds()).round(), "s");
        format!("{seen} of {needed} values seen: ready in about {ready}")
    }

    fn sparse(&self) -> String {
        let needed = match self.function {
            Function::P50 => Some(self.core.settings.min_samples),
            Function::P95 | Function::P99 => Some(4.0 * self.core.settings.min_samples),
            _ => None,
        };
        let needed =
            needed.map_or_else(String::new, |needed| format!("; {} needs {needed} samples in a bucket", self.function.as_str()));
        match self.standing() {
            Some(standing) => {
                let filled = standing.filled_at(self.open.saturating_sub(1)) * 100.0;
                format!("{filled:.0} % of the latest buckets had a value{needed}")
            }
            None => format!("no bucket had a value yet{needed}"),
        }
    }

    fn moment(&self, bucket: u64) -> String {
        UnixNanos(bucket.saturating_mul(self.core.settings.timing.bucket)).rfc3339()
    }
}

impl Last {
    fn words(&self, unit: &str) -> String {
        let known = [Some(self.value), self.expected, self.upper].map(|v| v.unwrap_or(f64::NAN));
        let write = alike(unit, &known);
        let value = write(self.value);
        let expected = self.expected.map_or_else(String::new, |expected| format!(", expected {}", write(expected)));
        let score = format!("score {} of {} needed", self.score, self.threshold);
        match (self.lower, self.upper) {
            (Some(low), Some(high)) if low <= self.value && self.value <= high => {
                format!("{value}{expected} (usual {} to {}); {score}", write(low), write(high))
            }
            (Some(low), Some(high)) => {
                format!(
                    "{value}{expected}, outside of the usual {} to {}, but not unusual enough: {score}",
                    write(low),
                    write(high)
                )
            }
            _ => format!("{value}{expected}; {score}"),
        }
    }
}

/// How many series of a core are in each state.
pub(in super::super) fn count(core: &Core) -> States {
    let mut states = States::new();
    for view in views(core) {
        *states.entry(view.state()).or_default() += 1;
    }
    states
}
