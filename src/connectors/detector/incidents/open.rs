//! One incident: what is known of it, and when there is something to tell.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::graph::Graph;
use super::groups::Group;
use super::title;
use crate::model::{Anomaly, DetectorRef, Environment, Incident, IncidentEvent, Lead, Severity, UnixNanos};

/// Services, and findings that may be what the incident is about, that are remembered.
const MAX_SERVICES: usize = 100;
/// Entities and series that are listed.
const MAX_LISTED: usize = 50;

/// A finding that may be what the incident is about: of a service, the strongest of the earliest ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Candidate {
    start: u64,
    score: f64,
    sentence: String,
    lead: Lead,
}

/// What is told of an incident, and when.
pub(super) struct Teller<'a> {
    pub(super) environment: &'a Environment,
    pub(super) graph: &'a Graph,
    /// Width of a bucket, in nanoseconds.
    pub(super) bucket: u64,
    /// The threshold in force.
    pub(super) threshold: f64,
}

/// An incident that is not over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) id: String,
    detector: DetectorRef,
    start: u64,
    score: f64,
    anomalies: u64,
    /// In the order in which they joined.
    services: Vec<String>,
    entities: Vec<String>,
    series: Vec<String>,
    /// By service.
    candidates: BTreeMap<String, Candidate>,
    /// The service of the lead.
    lead: String,
    /// Number of the last event, its severity and how many services there were.
    told: u32,
    told_severity: Severity,
    told_services: usize,
}

impl Open {
    /// An incident of these anomalies, of one bucket. `None` if there are none.
    pub(super) fn new(anomalies: &[&Anomaly], teller: &Teller<'_>) -> Option<Self> {
        let first = anomalies.first()?;
        let mut open = Self {
            id: String::new(),
            detector: first.detector.clone(),
            start: first.window.start.0,
            score: 0.0,
            anomalies: 0,
            services: Vec::new(),
            entities: Vec::new(),
            series: Vec::new(),
            candidates: BTreeMap::new(),
            lead: String::new(),
            told: 0,
            told_severity: Severity::Warning,
            told_services: 0,
        };
        open.add(anomalies, teller);
        let lead = open.candidates.get(&open.lead)?;
        open.id = id(teller.environment, &open.detector.name, &lead.lead.anomaly);
        Some(open)
    }

    /// Takes further anomalies in, of one bucket.
    pub(super) fn add(&mut self, anomalies: &[&Anomaly], teller: &Teller<'_>) {
        for anomaly in anomalies {
            self.anomalies += 1;
            self.score = self.score.max(anomaly.score);
            self.start = self.start.min(anomaly.window.start.0);
            list(&mut self.services, MAX_SERVICES, || anomaly.entity.service.clone());
            list(&mut self.entities, MAX_LISTED, || anomaly.entity.key());
            list(&mut self.series, MAX_LISTED, || anomaly.series());
            self.consider(anomaly);
        }
        self.choose(teller);
    }

    fn consider(&mut self, anomaly: &Anomaly) {
        let (start, score) = (anomaly.window.start.0, anomaly.score);
        let service = &anomaly.entity.service;
        let better = match self.candidates.get(service) {
            // What people were told is not put in other words, unless it has begun earlier or elsewhere.
            Some(known) if self.told > 0 => start < known.start,
            Some(known) => {
                (start, -score).partial_cmp(&(known.start, -known.score)).is_some_and(std::cmp::Ordering::is_lt)
                    || ((start, score) == (known.start, known.score) && anomaly.id < known.lead.anomaly)
            }
            None => self.candidates.len() < MAX_SERVICES,
        };
        if better {
            let lead = Lead {
                anomaly: anomaly.id.clone(),
                service: service.clone(),
                series: anomaly.series(),
                reason: anomaly.reasons.first().map_or_else(String::new, |r| r.text.clone()),
                observed: anomaly.observed,
                expected: anomaly.expected,
                unit: anomaly.unit.clone(),
            };
            let candidate = Candidate { start, score, sentence: title::sentence(anomaly), lead };
            self.candidates.insert(service.clone(), candidate);
        }
    }

    /// Of what set in first, or in the bucket after: what stands at the root of the calls, the earliest, the strongest.
    fn choose(&mut self, teller: &Teller<'_>) {
        let onset = self.start.saturating_add(teller.bucket);
        let early: Vec<(&String, &Candidate)> = self.candidates.iter().filter(|(_, c)| c.start <= onset).collect();
        let roots = teller.graph.roots(&early.iter().map(|(service, _)| service.as_str()).collect::<BTreeSet<&str>>());
        let lead = early.into_iter().filter(|(service, _)| roots.contains(service.as_str())).min_by(|(_, a), (_, b)| {
            a.start.cmp(&b.start).then(b.score.total_cmp(&a.score)).then(a.lead.anomaly.cmp(&b.lead.anomaly))
        });
        if let Some((service, _)) = lead {
            self.lead = service.clone();
        }
    }

    /// Whether `anomaly` is what it is about.
    pub(super) fn is_about(&self, anomaly: &Anomaly) -> bool {
        self.candidates.get(&self.lead).is_some_and(|c| c.lead.anomaly == anomaly.id)
    }

    /// What there is to tell after it has grown, if something is: that it has begun, or is clearly worse.
    pub(super) fn news(&mut self, group: &Group, teller: &Teller<'_>) -> Option<Incident> {
        let event = match self.told {
            0 => IncidentEvent::Opened,
            _ if Severity::of(self.score) > self.told_severity || self.services.len() > self.told_services => {
                IncidentEvent::Escalated
            }
            _ => return None,
        };
        Some(self.tell(event, group, teller))
    }

    /// That it is over.
    pub(super) fn over(mut self, group: &Group, teller: &Teller<'_>) -> Incident {
        self.tell(IncidentEvent::Ended, group, teller)
    }

    fn tell(&mut self, event: IncidentEvent, group: &Group, teller: &Teller<'_>) -> Incident {
        self.told = self.told.saturating_add(1);
        self.told_severity = self.told_severity.max(Severity::of(self.score));
        self.told_services = self.services.len();
        let updated = UnixNanos(group.last);
        let lead = self.candidates.get(&self.lead);
        let others: Vec<&str> = self.services.iter().filter(|s| **s != self.lead).map(String::as_str).collect();
        Incident {
            id: self.id.clone(),
            environment: teller.environment.clone(),
            detector: self.detector.clone(),
            event,
            sequence: self.told,
            start: UnixNanos(self.start),
            updated,
            end: (event == IncidentEvent::Ended).then_some(updated),
            score: self.score,
            severity: Severity::of(self.score),
            threshold: teller.threshold,
            title: title::title(lead.map_or("", |c| &c.sentence), &others),
            lead: lead.map_or_else(Lead::default, |c| c.lead.clone()),
            anomalies: self.anomalies,
            series_count: group.series.len() as u64,
            services: std::iter::once(self.lead.clone()).chain(others.iter().map(ToString::to_string)).collect(),
            entities: self.entities.clone(),
            series: self.series.clone(),
        }
    }
}

/// Adds what is not in the list yet, while there is room.
fn list(list: &mut Vec<String>, most: usize, item: impl FnOnce() -> String) {
    if list.len() < most {
        let item = item();
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

/// Base32 of a hash of what tells an incident from all others.
fn id(environment: &Environment, detector: &str, lead: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [environment.as_str(), detector, "incident", lead] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let hash = hasher.finalize();
    data_encoding::BASE32_NOPAD.encode(hash.as_bytes().get(..20).unwrap_or(&[])).to_ascii_lowercase()
}
