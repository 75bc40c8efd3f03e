//! What people are told about: anomalies of one environment that belong together.

use serde::{Deserialize, Serialize};

use super::{Anomaly, DetectorRef, Environment, Severity, UnixNanos, number};

/// What has happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IncidentEvent {
    /// It has begun.
    Opened,
    /// It has become clearly worse: a higher band of the score, or a further service.
    Escalated,
    /// It is over.
    Ended,
}

impl IncidentEvent {
    /// Lower case name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Escalated => "escalated",
            Self::Ended => "ended",
        }
    }
}

/// The incident that an anomaly belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentRef {
    /// Of the incident.
    pub id: String,
    /// Whether this anomaly was what the incident is about when it was found.
    pub lead: bool,
}

/// The finding that an incident is about: what stands closest to its cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lead {
    /// Id of the anomaly.
    pub anomaly: String,
    /// Its service.
    pub service: String,
    /// Its series in words: `checkout POST /pay (server): span p99`.
    pub series: String,
    /// Why, in one sentence.
    pub reason: String,
    /// The value.
    #[serde(deserialize_with = "number::or_nan")]
    pub observed: f64,
    /// What was expected.
    #[serde(deserialize_with = "number::or_nan")]
    pub expected: f64,
    /// UCUM unit of the two.
    pub unit: String,
}

/// One event of an incident, with all that is known of it by then: an alert, and a document.
///
/// As an [`Anomaly`] it is a function of the input alone: a replay gives the same events with the same ids.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Base32 of a hash of environment, detector and the anomaly that opened it: the same for all its events.
    pub id: String,
    /// Whose.
    pub environment: Environment,
    /// Found by.
    pub detector: DetectorRef,
    /// What has happened.
    pub event: IncidentEvent,
    /// Number of the event, from 1 on. Id and number together tell an event from all others.
    pub sequence: u32,
    /// Start of the first bucket that was not normal.
    pub start: UnixNanos,
    /// End of the last bucket that was not normal so far.
    pub updated: UnixNanos,
    /// The same once it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<UnixNanos>,
    /// The highest score of its anomalies, 0 to 100.
    #[serde(deserialize_with = "number::or_nan")]
    pub score: f64,
    /// Band of the score.
    pub severity: Severity,
    /// How unusual a value must be to be an anomaly, -log10 of the probability: the threshold in force at this event.
    #[serde(deserialize_with = "number::or_nan")]
    pub threshold: f64,
    /// One sentence for a person on call: `checkout POST /pay is slow: p99 412 ms instead of 95 ms`.
    pub title: String,
    /// What it is about.
    pub lead: Lead,
    /// How many anomalies.
    pub anomalies: u64,
    /// How many series had one.
    pub series_count: u64,
    /// Its services; the first 100, the lead's first, then in the order in which they joined.
    pub services: Vec<String>,
    /// Its entities, as people read them; the first 50 in the order in which they joined.
    pub entities: Vec<String>,
    /// Its series in words; the first 50 in the order in which they joined.
    pub series: Vec<String>,
}

impl Incident {
    /// What tells this event from all others: writing it twice is harmless.
    #[must_use]
    pub fn event_id(&self) -> String {
        format!("{}-{}", self.id, self.sequence)
    }

    /// From the first to the last bucket that was not normal, in nanoseconds.
    #[must_use]
    pub const fn duration(&self) -> u64 {
        self.updated.0.saturating_sub(self.start.0)
    }
}

/// What a detector hands on at once: anomalies, and the events of the incidents that they make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// In the order of their windows and series.
    #[serde(default)]
    pub anomalies: Vec<Anomaly>,
    /// At most one event per incident, but for one that opens and ends at once.
    #[serde(default)]
    pub incidents: Vec<Incident>,
}

impl Findings {
    /// How many anomalies and events: each is one record, one line, one document.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.anomalies.len() + self.incidents.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One after the other, in the order in which they are handed on: anomalies first.
    pub fn iter(&self) -> impl Iterator<Item = Finding<'_>> {
        self.anomalies.iter().map(Finding::Anomaly).chain(self.incidents.iter().map(Finding::Incident))
    }

    /// The one at `place`, counted as [`Findings::iter`] does.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<Finding<'_>> {
        match self.anomalies.get(place) {
            Some(anomaly) => Some(Finding::Anomaly(anomaly)),
            None => self.incidents.get(place - self.anomalies.len()).map(Finding::Incident),
        }
    }
}

/// An anomaly, or an event of an incident. As JSON it is the one or the other: only an event has a `sequence`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Finding<'a> {
    /// An anomaly.
    Anomaly(&'a Anomaly),
    /// An event of an incident.
    Incident(&'a Incident),
}

impl Finding<'_> {
    /// What tells it from all others: writing it twice is harmless.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Anomaly(anomaly) => anomaly.id.clone(),
            Self::Incident(incident) => incident.event_id(),
        }
    }
}

impl From<Vec<Anomaly>> for Findings {
    fn from(anomalies: Vec<Anomaly>) -> Self {
        Self { anomalies, incidents: Vec::new() }
    }
}

#[cfg(test)]
impl Incident {
    /// The event `sequence` of an incident of one service, for tests.
    pub(crate) fn example(id: &str, sequence: u32) -> Self {
        Self {
            id: id.to_owned(),
            environment: Environment::new("production"),
            detector: DetectorRef { name: "detector".to_owned(), kind: "ensemble".to_owned(), version: "1".to_owned() },
            event: IncidentEvent::Opened,
            sequence,
            start: UnixNanos::from_secs(60),
            updated: UnixNanos::from_secs(120),
            end: None,
            score: 80.0,
            severity: Severity::Critical,
            threshold: 1.55,
            title: "checkout writes more error records than usual".to_owned(),
            lead: Lead::default(),
            anomalies: 1,
            series_count: 1,
            services: vec!["checkout".to_owned()],
            entities: Vec::new(),
            series: Vec::new(),
        }
    }
}
