//! What a backtest has to say, in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::collect::{Collected, Sample, THRESHOLDS};
use super::graph::Job;
use crate::components::headline;
use crate::model::{Anomaly, Severity, UnixNanos};
use crate::pipeline::{Class, Registry};

/// Anomalies of one service that lie within so many nanoseconds of a stronger one are told together with it.
const TOGETHER: u64 = 30 * 60 * UnixNanos::SECOND;
const DAY: u64 = 86_400 * UnixNanos::SECOND;
/// Findings that are told in full.
const TOP: usize = 20;
/// Services that are listed.
const SERVICES: usize = 30;

/// What a backtest found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this form.
    pub format: u32,
    /// Whose history.
    pub environment: String,
    /// What was read.
    pub sources: Vec<String>,
    /// The first moment that the report is about.
    pub from: UnixNanos,
    /// The first moment after it.
    pub to: UnixNanos,
    /// Whether everything that was asked for has been read.
    pub complete: bool,
    /// The step in which series have values.
    pub bucket_seconds: u64,
    /// The threshold in force.
    pub threshold: f64,
    /// Documents or rows that were read.
    pub records: u64,
    /// Values that were judged.
    pub values: u64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Series that were seen.
    pub series: SeriesCount,
    /// Anomalies, all of them.
    pub anomalies: u64,
    /// Anomalies a day.
    pub per_day: f64,
    /// Incidents that they belong to; 0 where anomalies are not grouped.
    pub incidents: u64,
    /// Anomalies by their severity, the worst first.
    pub severities: Vec<(&'static str, u64)>,
    /// Anomalies of each day (UTC).
    pub days: Vec<Day>,
    /// Anomalies of each service, most first.
    pub services: Vec<Service>,
    /// What other thresholds would have made of it.
    pub thresholds: Vec<Threshold>,
    /// The most unusual findings, the most unusual first.
    pub top: Vec<Finding>,
    /// Records that were not used, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// What is worth knowing, in sentences.
    pub notes: Vec<String>,
}

/// Series by their state at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SeriesCount {
    /// All of them.
    pub seen: u64,
    /// Judged.
    pub ready: u64,
    /// With too few values to be judged.
    pub warming: u64,
}

/// A day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Day {
    /// `2026-01-15`.
    pub date: String,
    /// Anomalies.
    pub anomalies: u64,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name.
    pub service: String,
    /// Anomalies.
    pub anomalies: u64,
}

/// A threshold and what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Threshold {
    /// -log10 of a probability.
    pub threshold: f64,
    /// Anomalies a day; of thresholds that were not in force, about.
    pub per_day: f64,
    /// Whether it was in force.
    pub in_force: bool,
}

/// An anomaly, and the weaker ones of the same service around it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// In one line.
    pub headline: String,
    /// The anomaly.
    pub anomaly: Anomaly,
    /// The others, in one line each, the most unusual first.
    pub also: Vec<String>,
    /// The series around it.
    #[serde(skip)]
    pub(super) chart: Vec<Sample>,
}

impl Report {
    pub(super) fn new(
        job: &Job,
        registry: &Registry,
        collected: Collected,
        reached: UnixNanos,
        told: Vec<String>,
        took: Duration,
    ) -> Self {
        let Collected {
            mut anomalies,
            more,
            mut charts,
            ready,
            warming,
            values,
            events,
            threshold,
            bucket,
            judged,
            incidents,
            ..
        } = collected;
        let (from, to) = covered(job, judged, bucket, reached);
        // What begins at the end or later belongs to what was not asked for.
        anomalies.retain(|a| a.window.start >= from && a.window.start < to);
        let counted = |class: Class| registry.all().into_iter().filter(move |c| c.class == class);
        let records = counted(Class::Receiver).flat_map(|c| c.counters.snapshot()).map(|(_, counts)| counts.received).sum();
        let mut dropped: BTreeMap<String, u64> = BTreeMap::new();
        for (_, counts) in registry.all().iter().flat_map(|c| c.counters.snapshot()) {
            for (reason, count) in counts.dropped {
                *dropped.entry(reason.to_owned()).or_default() += count;
            }
        }
        let days = to.0.saturating_sub(from.0) as f64 / DAY as f64;
        let total = anomalies.len() as u64 + more;
        let per_day = |count: u64| if days > 0.0 { count as f64 / days } else { 0.0 };
        let mut notes = job.left_out.clone();
        notes.extend(job.notes.iter().cloned());
        notes.extend(told);
        if more > 0 {
            notes.push(format!("{more} anomalies are counted in the total only: there were too many to keep"));
        }
        let severities = [Severity::Critical, Severity::Major, Severity::Minor, Severity::Warning];
        Self {
            format: 1,
            environment: job.plan.spec.environment.to_string(),
            sources: job.sources.clone(),
            from,
            to,
            complete: true,
            bucket_seconds: bucket / UnixNanos::SECOND,
            threshold,
            records,
            values,
            seconds: took.as_secs_f64(),
            series: SeriesCount { seen: ready + warming, ready, warming },
            anomalies: total,
            per_day: per_day(total),
            incidents,
            severities: severities.map(|s| (s.as_str(), anomalies.iter().filter(|a| a.severity == s).count() as u64)).to_vec(),
            days: by_day(&anomalies, from, to),
            services: by_service(&anomalies),
            thresholds: thresholds(&events, threshold, total, &per_day),
            top: findings(anomalies, &mut charts),
            dropped,
            notes,
        }
    }

    /// How many times faster than real time it was.
    #[must_use]
    pub fn times_real_time(&self) -> f64 {
        self.to.0.saturating_sub(self.from.0) as f64 / UnixNanos::SECOND as f64 / self.seconds.max(1e-3)
    }

    /// Days that the report is about.
    #[must_use]
    pub fn length_in_days(&self) -> f64 {
        self.to.0.saturating_sub(self.from.0) as f64 / DAY as f64
    }
}

/// The time that the report is about: what was asked for, less what is not there.
fn covered(job: &Job, judged: Option<(UnixNanos, UnixNanos)>, bucket: u64, reached: UnixNanos) -> (UnixNanos, UnixNanos) {
    let Some((first, last)) = judged else { return (job.span.from, job.span.from) };
    // Files end with their last value; of an environment it is known that nothing came after it.
    let known = if job.span.until.0 == u64::MAX { last } else { reached.min(job.span.until) };
    let end = last.plus(bucket).max(known);
    (first.max(job.span.from.floor(bucket)), end.min(job.span.until))
}

fn date(at: UnixNanos) -> String {
    at.rfc3339().chars().take(10).collect()
}

fn by_day(anomalies: &[Anomaly], from: UnixNanos, to: UnixNanos) -> Vec<Day> {
    let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
    for anomaly in anomalies {
        *counts.entry(anomaly.window.start.0 / DAY).or_default() += 1;
    }
    let days = from.0 / DAY..to.0.div_ceil(DAY);
    // Files may span decades; then only the days that have something.
    if days.clone().count() > 1100 {
        return counts.into_iter().map(|(day, anomalies)| Day { date: date(UnixNanos(day * DAY)), anomalies }).collect();
    }
    days.map(|day| Day { date: date(UnixNanos(day * DAY)), anomalies: counts.get(&day).copied().unwrap_or(0) }).collect()
}

fn by_service(anomalies: &[Anomaly]) -> Vec<Service> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for anomaly in anomalies {
        *counts.entry(&anomaly.entity.service).or_default() += 1;
    }
    let mut all: Vec<Service> =
        counts.into_iter().map(|(service, anomalies)| Service { service: service.to_owned(), anomalies }).collect();
    all.sort_by(|a, b| b.anomalies.cmp(&a.anomalies).then_with(|| a.service.cmp(&b.service)));
    all.truncate(SERVICES);
    all
}

fn thresholds(events: &[u64], in_force: f64, found: u64, per_day: &impl Fn(u64) -> f64) -> Vec<Threshold> {
    let same = |a: f64, b: f64| (a - b).abs() < 1e-9;
    let others = THRESHOLDS.iter().zip(events).filter(|(threshold, _)| !same(**threshold, in_force));
    let mut all: Vec<Threshold> =
        others.map(|(&threshold, &count)| Threshold { threshold, per_day: per_day(count), in_force: false }).collect();
    if in_force > 0.0 {
        all.push(Threshold { threshold: in_force, per_day: per_day(found), in_force: true });
    }
    all.sort_by(|a, b| a.threshold.total_cmp(&b.threshold));
    all
}

fn findings(mut anomalies: Vec<Anomaly>, charts: &mut BTreeMap<(String, UnixNanos), Vec<Sample>>) -> Vec<Finding> {
    anomalies
        .sort_by(|a, b| a.probability.total_cmp(&b.probability).then(b.score.total_cmp(&a.score)).then_with(|| a.id.cmp(&b.id)));
    let mut top: Vec<Finding> = Vec::new();
    for anomaly in anomalies {
        let near = |finding: &&mut Finding| {
            let lead = &finding.anomaly;
            if let (Some(one), Some(other)) = (&lead.incident, &anomaly.incident)
                && one.id == other.id
            {
                return true;
            }
            lead.entity.service == anomaly.entity.service && lead.window.start.0.abs_diff(anomaly.window.start.0) <= TOGETHER
        };
        if let Some(finding) = top.iter_mut().find(near) {
            finding.also.push(headline(&anomaly));
        } else if top.len() < TOP {
            let chart = charts.remove(&(anomaly.fingerprint.clone(), anomaly.window.start)).unwrap_or_default();
            top.push(Finding { headline: headline(&anomaly), anomaly, also: Vec::new(), chart });
        }
    }
    top
}
