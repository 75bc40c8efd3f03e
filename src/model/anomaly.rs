//! One abnormal finding about one series.

use serde::{Deserialize, Serialize};

use super::{Entity, Environment, IncidentRef, Signal, SpanKind, UnixNanos, number};

/// Bands of the score, as users of Elastic's anomaly detection know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Below 25.
    Warning,
    /// 25 to 50.
    Minor,
    /// 50 to 75.
    Major,
    /// 75 and above.
    Critical,
}

impl Severity {
    /// The band of a score of 0 to 100.
    #[must_use]
    pub fn of(score: f64) -> Self {
        match score {
            s if s >= 75.0 => Self::Critical,
            s if s >= 50.0 => Self::Major,
            s if s >= 25.0 => Self::Minor,
            _ => Self::Warning,
        }
    }

    /// Lower case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Minor => "minor",
            Self::Major => "major",
            Self::Critical => "critical",
        }
    }
}

/// Which way the value went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Above what was expected.
    Spike,
    /// Below what was expected.
    Dip,
    /// Within the bounds, but in an order not seen before.
    Shape,
    /// Something that was not there before.
    New,
    /// Something that used to be there.
    Missing,
}

impl Direction {
    /// Lower case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spike => "spike",
            Self::Dip => "dip",
            Self::Shape => "shape",
            Self::New => "new",
            Self::Missing => "missing",
        }
    }
}

/// The detector that found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DetectorRef {
    /// Component id: `detector`, `detector/slow`.
    pub name: String,
    /// Model: `ensemble`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Version of the model's mathematics; part of the anomaly's id.
    pub version: String,
}

/// The bucket the value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Start.
    pub start: UnixNanos,
    /// End, exclusive.
    pub end: UnixNanos,
}

/// One reason for an anomaly, in numbers and in words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// Component of the model: `ar4`, `time_of_day`.
    pub component: String,
    /// -log10 of the probability of something at least this unusual, under the series' own past.
    #[serde(deserialize_with = "number::or_nan")]
    pub surprise: f64,
    /// Its share in the score, 0 to 1; the shares of an anomaly add up to 1.
    #[serde(deserialize_with = "number::or_nan")]
    pub share: f64,
    /// A sentence: `412 ms is far from the 95 ms usual at this time of day`.
    pub text: String,
}

/// What the series' own past has to say about an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// Seconds since the series last had something at least as unusual, or since it is watched.
    #[serde(deserialize_with = "number::or_nan")]
    pub rarest_in: f64,
    /// Never as unusual since it is watched.
    pub unprecedented: bool,
    /// The earlier moment which comes nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub similar: Option<Similar>,
}

/// An earlier moment of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Similar {
    /// Start of the bucket at its end.
    pub time: UnixNanos,
    /// 1 where it is the same, 0 where it is as far from it as from what was expected.
    #[serde(deserialize_with = "number::or_nan")]
    pub likeness: f64,
}

impl Similar {
    /// Moments less alike than this are no precedent.
    pub const ALIKE: f64 = 0.5;
}

impl Past {
    /// `the rarest in 12 days; 82 % like 2026-01-12 03:10Z`, `never seen in the 3 days it is watched; unlike anything
    /// remembered`.
    #[must_use]
    pub fn text(&self) -> String {
        let span = span(self.rarest_in);
        let rarity = if self.unprecedented {
            format!("never as unusual in the {span} it is watched")
        } else {
            format!("the most unusual in {span}")
        };
        match self.similar {
            Some(similar) if similar.likeness >= Similar::ALIKE => {
                let time = similar.time.rfc3339().replacen('T', " ", 1);
                let time = time.get(..16).unwrap_or(&time);
                format!("{rarity}; {:.0} % like {time}Z", similar.likeness * 100.0)
            }
            Some(_) => format!("{rarity}; unlike anything remembered"),
            None => rarity,
        }
    }
}

/// `40 minutes`, `6 hours`, `12 days`: at least two of a unit.
fn span(seconds: f64) -> String {
    match seconds {
        s if s < 7_200.0 => format!("{:.0} minutes", (s / 60.0).floor()),
        s if s < 172_800.0 => format!("{:.0} hours", (s / 3_600.0).floor()),
        s => format!("{:.0} days", (s / 86_400.0).floor()),
    }
}

/// One abnormal finding about one series in one bucket.
///
/// It is a function of the input alone: no wall clock, no random number, so a replay gives the same one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Base32 of a hash of environment, detector, entity, series and bucket: writing it twice is harmless.
    pub id: String,
    /// Base32 of a hash of the series alone: the same for every anomaly of it.
    pub fingerprint: String,
    /// Whose.
    pub environment: Environment,
    /// Found by.
    pub detector: DetectorRef,
    /// Which signal the series was made of.
    pub signal: Signal,
    /// Who behaves.
    pub entity: Entity,
    /// What was measured: `span`, `log.records`, or the metric's name.
    pub metric: String,
    /// UCUM unit of the values, may be empty: `s`, `1/s`, `1`.
    pub unit: String,
    /// What of it: `rate`, `error_share`, `p50`, `p95`, `p99`, `mean`, `count`.
    pub function: String,
    /// The bucket.
    pub window: Window,
    /// The value.
    #[serde(deserialize_with = "number::or_nan")]
    pub observed: f64,
    /// What was expected.
    #[serde(deserialize_with = "number::or_nan")]
    pub expected: f64,
    /// Lower bound of what is usual.
    #[serde(deserialize_with = "number::or_lowest")]
    pub lower: f64,
    /// Upper bound of what is usual.
    #[serde(deserialize_with = "number::or_highest")]
    pub upper: f64,
    /// How many samples (calls, records, points) are behind the value.
    #[serde(deserialize_with = "number::or_nan")]
    pub samples: f64,
    /// 0 to 100.
    #[serde(deserialize_with = "number::or_nan")]
    pub score: f64,
    /// Probability of something at least this unusual, under the series' own past.
    #[serde(deserialize_with = "number::or_nan")]
    pub probability: f64,
    /// Band of the score.
    pub severity: Severity,
    /// Which way.
    pub direction: Direction,
    /// Why, strongest first.
    pub reasons: Vec<Reason>,
    /// What the series' own past has to say about it; none where it is not about one series.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub past: Option<Past>,
    /// The incident that it belongs to; none before anomalies are grouped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentRef>,
}

impl Anomaly {
    /// The `metric` of an anomaly of an entity as a whole: several of its series, judged together.
    pub const ENTITY: &str = "entity";

    /// What is said of an entity as a whole: `several series are unusual together, carried by span p99 (62 %), ...`;
    /// `None` for an anomaly of one series.
    #[must_use]
    pub fn joint(&self) -> Option<String> {
        let carried = self.reasons.first().map_or("", |reason| reason.text.as_str());
        (self.metric == Self::ENTITY).then(|| format!("several series are unusual together, {carried}"))
    }

    /// Who: the entity in words, without what the metric says already. A server's spans and a record's severity need no
    /// further words.
    #[must_use]
    pub fn subject(&self) -> String {
        let mut who = self.entity.clone();
        if self.metric == "span" && who.kind == Some(SpanKind::Server) {
            who.kind = None;
        }
        if self.metric == "log.records" {
            who.attributes.retain(|(key, _)| !is_severity(key));
        }
        who.key()
    }

    /// The severity of the log records that it is about; `None` if it is not about one.
    #[must_use]
    pub fn log_severity(&self) -> Option<&str> {
        self.entity.attributes.iter().find(|(key, _)| is_severity(key)).map(|(_, severity)| severity.as_str())
    }

    /// The series in words: `checkout POST /pay (server): span p99`.
    #[must_use]
    pub fn series(&self) -> String {
        format!("{}: {} {}", self.entity.key(), self.metric, self.function)
    }
}

fn is_severity(key: &str) -> bool {
    matches!(key, "severity" | "severity_text" | "log.severity")
}

#[cfg(test)]
impl Anomaly {
    /// Too many log records of one service, for tests.
    pub(crate) fn example(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            fingerprint: "series".to_owned(),
            environment: Environment::new("production"),
            detector: DetectorRef { name: "detector".to_owned(), kind: "ensemble".to_owned(), version: "1".to_owned() },
            signal: Signal::Logs,
            entity: Entity::service("checkout"),
            metric: "log.records".to_owned(),
            unit: "1/s".to_owned(),
            function: "rate".to_owned(),
            window: Window { start: UnixNanos::from_secs(60), end: UnixNanos::from_secs(120) },
            observed: 9.5,
            expected: 1.0,
            lower: 0.5,
            upper: 2.0,
            samples: 570.0,
            score: 80.0,
            probability: 0.001,
            severity: Severity::Critical,
            direction: Direction::Spike,
            reasons: Vec::new(),
            past: None,
            incident: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_told_in_spans_and_moments() {
        let similar = |likeness| Some(Similar { time: UnixNanos::from_secs(1_768_187_400), likeness });
        let all = [(86_400.0 * 12.5, false, similar(0.82)), (5_400.0, true, similar(0.3)), (90_000.0, true, None)];
        let told: Vec<String> = all
            .into_iter()
            .map(|(rarest_in, unprecedented, similar)| Past { rarest_in, unprecedented, similar }.text())
            .collect();
        assert_eq!(
            told,
            [
                "the most unusual in 12 days; 82 % like 2026-01-12 03:10Z",
                "never as unusual in the 90 minutes it is watched; unlike anything remembered",
                "never as unusual in the 25 hours it is watched",
            ]
        );
    }
}
