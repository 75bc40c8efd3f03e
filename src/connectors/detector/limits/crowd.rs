//! What is said when there are too many series: which metric has them, and which attribute makes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hashbrown::HashMap;

use super::super::key::Key;
use super::{Full, Held, Metric, Settings};
use crate::model::UnixNanos;
use crate::text::clip;

/// What was told is told again after this long, in nanoseconds of event time.
const AGAIN: u64 = 3600 * UnixNanos::SECOND;
/// Different things that are told in that time.
const MOST: usize = 16;
/// A metric with less than this part of all series is not what fills a shard.
const WORST: usize = 4;
/// Values are cut to this many bytes, and so many are shown.
const CLIPPED: usize = 64;
const EXAMPLES: usize = 2;

/// Of which service and metric; `None` is the environment as a whole.
type Subject = Option<(String, String)>;

/// Where room was needed since that was last looked at.
#[derive(Debug, Default)]
pub(super) struct Pressed {
    /// Metrics that are at their own limit.
    pub(super) metrics: Vec<Metric>,
    /// The shard is full.
    shard: bool,
    /// The latest bucket in which room was needed.
    at: u64,
    /// The bucket in which this was last looked at: once per bucket is enough.
    looked: u64,
    told: Told,
}

/// What was said, and when.
#[derive(Debug, Default)]
pub(in super::super) struct Told(Vec<(Subject, UnixNanos)>);

impl Told {
    /// Whether `crowd` is news.
    pub(in super::super) fn is_news(&mut self, crowd: &Crowd) -> bool {
        self.note(&crowd.subject, crowd.time)
    }

    fn knows(&mut self, subject: &Subject, now: UnixNanos) -> bool {
        self.0.retain(|(_, time)| now < time.plus(AGAIN));
        self.0.len() >= MOST || self.0.iter().any(|(told, _)| told == subject)
    }

    fn note(&mut self, subject: &Subject, now: UnixNanos) -> bool {
        let news = !self.knows(subject, now);
        if news {
            self.0.push((subject.clone(), now));
        }
        news
    }
}

/// What fills the shard.
pub(super) struct Worst {
    subject: Subject,
    full: Full,
    series: usize,
    limit: usize,
    /// Between how many shards the subject is divided.
    parts: usize,
    time: UnixNanos,
}

impl Pressed {
    pub(super) fn note(&mut self, full: Full, now: u64) {
        self.shard |= full == Full::Shard;
        self.at = self.at.max(now);
    }

    /// Whether something has come together.
    pub(super) const fn is_due(&self) -> bool {
        self.at > self.looked
    }

    /// What has come together, once per bucket.
    pub(super) fn due(&mut self) -> Option<Self> {
        if !self.is_due() {
            return None;
        }
        self.looked = self.at;
        let metrics = std::mem::take(&mut self.metrics);
        Some(Self { metrics, shard: std::mem::take(&mut self.shard), at: self.at, looked: self.at, told: Told::default() })
    }

    /// The largest of what room was needed for, if it was not told lately.
    pub(super) fn worst(&mut self, pressed: &Self, metrics: &HashMap<Metric, Held>, settings: &Settings) -> Option<Worst> {
        let time = UnixNanos(pressed.at.saturating_mul(settings.bucket));
        let subject = |metric: &Metric| Some((metric.parts().0.to_owned(), metric.parts().1.to_owned()));
        let of_metric = |metric: &Metric, full, limit| {
            let series = metrics.get(metric).map_or(0, |held| held.series);
            Worst { subject: subject(metric), full, series, limit, parts: settings.parts(&metric.0), time }
        };
        let mut all: Vec<Worst> =
            pressed.metrics.iter().map(|metric| of_metric(metric, Full::Metric, settings.of_metric(&metric.0))).collect();
        if pressed.shard {
            let largest = metrics.iter().max_by(|a, b| (a.1.series, b.0.parts()).cmp(&(b.1.series, a.0.parts())));
            let filled: usize = metrics.values().map(|held| held.series).sum();
            let one = largest.filter(|(_, held)| held.series * WORST >= settings.series);
            all.push(match one {
                Some((metric, _)) => of_metric(metric, Full::Shard, settings.series),
                None => Worst {
                    subject: None,
                    full: Full::Shard,
                    series: filled,
                    limit: settings.series,
                    parts: settings.shards,
                    time,
                },
            });
        }
        all.retain(|worst| !self.told.knows(&worst.subject, time));
        let worst = all.into_iter().max_by(|a, b| (a.series, &b.subject).cmp(&(b.series, &a.subject)))?;
        self.told.note(&worst.subject, time).then_some(worst)
    }
}

/// Too many series: of what, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Crowd {
    pub(super) subject: Subject,
    full: Full,
    /// Of the subject.
    series: usize,
    limit: usize,
    /// What tells them apart.
    spread: Option<Spread>,
    time: UnixNanos,
    parts: usize,
    settings: Settings,
}

/// What has the most different values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spread {
    /// ``attribute `request_id` ``.
    name: String,
    values: usize,
    examples: Vec<String>,
}

impl Crowd {
    pub(super) fn of<'a>(worst: &Worst, keys: impl Iterator<Item = &'a Key>, settings: &Settings) -> Self {
        let Worst { subject, full, series, limit, parts, time } = worst;
        let of_subject = |key: &&Key| {
            subject.as_ref().is_none_or(|(service, metric)| *service == key.entity.service && **metric == *key.metric)
        };
        Self {
            subject: subject.clone(),
            full: *full,
            series: *series,
            limit: *limit,
            spread: Spread::of(keys.filter(of_subject)),
            time: *time,
            parts: *parts,
            settings: *settings,
        }
    }
}

impl Spread {
    fn of<'a>(keys: impl Iterator<Item = &'a Key>) -> Option<Self> {
        let mut values: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        for key in keys {
            let entity = &key.entity;
            let named = [
                ("the service name", Some(entity.service.as_str())),
                ("the metric name", Some(&*key.metric)),
                ("the instance", entity.instance.as_deref()),
                ("the span name", entity.operation.as_deref()),
            ];
            let named = named.into_iter().filter_map(|(what, value)| Some(((what, ""), value?)));
            let attributes = entity.attributes.iter().map(|(name, value)| (("attribute", name.as_str()), value.as_str()));
            for (name, value) in named.chain(attributes) {
                values.entry(name).or_default().insert(value);
            }
        }
        let ((what, name), values) = values.into_iter().max_by(|a, b| (a.1.len(), b.0).cmp(&(b.1.len(), a.0)))?;
        let name = if name.is_empty() { what.to_owned() } else { format!("{what} `{}`", shown(name)) };
        let examples = values.iter().take(EXAMPLES).map(|value| shown(value)).collect();
        (values.len() > 1).then_some(Self { name, values: values.len(), examples })
    }
}

/// A text from outside, short and on one line.
fn shown(text: &str) -> String {
    let clipped = clip(text, CLIPPED);
    let mut shown: String = clipped.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clipped.len() < text.len() {
        shown.push('…');
    }
    shown
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, full, series, limit, parts, settings, .. } = self;
        let Settings { max_series, max_series_per_metric, shards, .. } = settings;
        let half = *full == Full::Metric && *limit == settings.half();
        let of_shard = max_series.div_ceil(*shards);
        let divided = |parts: usize| if parts > 1 { format!(" divided between {parts} shards") } else { String::new() };
        let places = format!(
            "there are {of_shard} series, as many as there may be (the `max_series` of {max_series}{})",
            divided(*shards)
        );
        match (subject, full) {
            (Some((service, metric)), Full::Metric) => {
                let which = if half {
                    format!("half of the `max_series` of {max_series}{}", divided(*shards))
                } else {
                    format!("the `max_series_per_metric` of {max_series_per_metric}{}", divided(*parts))
                };
                let (metric, service) = (shown(metric), shown(service));
                write!(f, "metric `{metric}` of service `{service}` has {series} series, and may have {limit} ({which})")?;
            }
            (Some((service, metric)), Full::Shard) => {
                let (metric, service) = (shown(metric), shown(service));
                write!(f, "{places}, {series} of them of metric `{metric}` of service `{service}`")?;
            }
            (None, _) => f.write_str(&places)?,
        }
        f.write_str("; new ones take the place of those that no longer report, or are left out")?;
        if let Some(Spread { name, values, examples }) = &self.spread {
            let examples = examples.iter().map(|e| format!("`{e}`")).collect::<Vec<_>>().join(" and ");
            write!(
                f,
                ". What tells them apart is mostly {name}, with {values} different values, such as {examples}: if that is not what you \
                want to tell apart, take it out where it is measured or in a Collector"
            )?;
        }
        let key = if *full == Full::Metric && !half { "max_series_per_metric" } else { "max_series" };
        write!(f, "{} raise `{key}`", if self.spread.is_some() { "; else" } else { ":" })
    }
}
