//! Which anomalies belong together.
//!
//! An anomaly joins a group that is not over, if its service is in it, calls one in it, or is called by one in it.
//! What sets in at the same time (the same or the next bucket) also belongs together
//!
//! - if the two services call, or are called by, the same third one: that may be what is wrong, and not be watched;
//! - if nothing is known of the calls of one of them.
//!
//! Within one bucket so do a call and its other end: client and server spans of the same name.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::graph::Graph;
use crate::model::{Anomaly, SpanKind, UnixNanos};

/// Groups that are not over. While there are as many, further anomalies go to the newest of them.
const MAX_OPEN: usize = 200;
/// Services by which a group is found.
const MAX_SERVICES: usize = 256;
/// Series that are followed until they are back to normal.
const MAX_SERIES: usize = 1000;
/// A series whose values are usual for more buckets than this is back to normal.
const GAP: u64 = 2;

/// The times that grouping depends on, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(in crate::connectors::detector) struct Rule {
    /// What is further apart does not belong together.
    pub(in crate::connectors::detector) window: u64,
    /// Width of a bucket.
    pub(in crate::connectors::detector) bucket: u64,
}

/// Anomalies that belong together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::connectors::detector) struct Group {
    pub(super) number: u64,
    /// Start of the first bucket that was not normal.
    pub(super) start: u64,
    /// End of the last.
    pub(super) last: u64,
    pub(super) services: BTreeSet<String>,
    /// By fingerprint, until when each series was not normal without a pause.
    pub(super) series: BTreeMap<String, u64>,
}

/// All groups of an environment that are not over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(in crate::connectors::detector) struct Groups {
    /// In the order in which they were opened.
    open: Vec<Group>,
    next: u64,
}

impl Groups {
    /// How many groups there have been.
    pub(in crate::connectors::detector) const fn opened(&self) -> u64 {
        self.next
    }

    pub(super) fn get(&self, number: u64) -> Option<&Group> {
        self.open.iter().find(|g| g.number == number)
    }

    /// The group of each of `anomalies`, which are of one bucket. Their order does not matter.
    pub(in crate::connectors::detector) fn assign(&mut self, anomalies: &[&Anomaly], graph: &Graph, rule: Rule) -> Vec<u64> {
        let Some(window) = anomalies.first().map(|a| a.window) else { return Vec::new() };
        let (start, end) = (window.start.0, window.end.0);
        let mut left: BTreeSet<&str> = anomalies.iter().map(|a| a.entity.service.as_str()).collect();
        let mut places: BTreeMap<&str, u64> = BTreeMap::new();
        // Who joins brings its neighbours.
        loop {
            let near = left.iter().filter_map(|s| Some((*s, self.near(s, start, end, graph, rule)?)));
            let joining: Vec<(&str, u64)> = near.collect();
            if joining.is_empty() {
                break;
            }
            for (service, number) in joining {
                left.remove(service);
                places.insert(service, number);
                if let Some(group) = self.get_mut(number) {
                    group.add(service);
                }
            }
        }
        for services in components(&left, anomalies, graph) {
            let number = self.open(start, end);
            for service in services {
                places.insert(service, number);
                if let Some(group) = self.get_mut(number) {
                    group.add(service);
                }
            }
        }
        anomalies
            .iter()
            .map(|anomaly| {
                let number = places.get(anomaly.entity.service.as_str()).copied().unwrap_or_default();
                if let Some(group) = self.get_mut(number) {
                    group.start = group.start.min(start);
                    group.last = group.last.max(end);
                    group.follow(&anomaly.fingerprint, end);
                }
                number
            })
            .collect()
    }

    /// The values of a series are out of their bounds: what it belongs to is not over. Only without a pause since its
    /// anomaly, because a value out of its bounds is nothing special in itself.
    pub(in crate::connectors::detector) fn touch(&mut self, fingerprint: &str, start: UnixNanos, rule: Rule) {
        let end = start.0.saturating_add(rule.bucket);
        for group in &mut self.open {
            if let Some(until) = group.series.get_mut(fingerprint)
                && start.0 <= until.saturating_add(GAP * rule.bucket)
            {
                *until = end.max(*until);
                group.last = group.last.max(end);
            }
        }
    }

    /// Takes out the groups in which nothing was unusual for the window before `until`.
    pub(in crate::connectors::detector) fn expire(&mut self, until: UnixNanos, rule: Rule) -> Vec<Group> {
        self.open.extract_if(.., |g| g.last.saturating_add(rule.window) <= until.0).collect()
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Group> {
        self.open.iter_mut().find(|g| g.number == number)
    }

    /// A new group, or where there are too many the newest.
    fn open(&mut self, start: u64, last: u64) -> u64 {
        if self.open.len() >= MAX_OPEN
            && let Some(newest) = self.open.last()
        {
            return newest.number;
        }
        let number = self.next;
        self.next += 1;
        self.open.push(Group { number, start, last, services: BTreeSet::new(), series: BTreeMap::new() });
        number
    }

    /// The oldest group that an anomaly of `service` belongs to.
    fn near(&self, service: &str, start: u64, end: u64, graph: &Graph, rule: Rule) -> Option<u64> {
        let in_time = |g: &&Group| start <= g.last.saturating_add(rule.window) && g.start <= end.saturating_add(rule.window);
        let related = |g: &&Group| g.is_near(service, graph) || (g.sets_in_with(start, rule) && g.may_share(service, graph));
        self.open.iter().filter(in_time).filter(related).min_by_key(|g| (g.start, g.number)).map(|g| g.number)
    }
}

impl Group {
    fn add(&mut self, service: &str) {
        if self.services.len() < MAX_SERVICES {
            self.services.insert(service.to_owned());
        }
    }

    fn follow(&mut self, fingerprint: &str, end: u64) {
        if let Some(until) = self.series.get_mut(fingerprint) {
            *until = end.max(*until);
        } else if self.series.len() < MAX_SERIES {
            self.series.insert(fingerprint.to_owned(), end);
        }
    }

    /// It holds the service, or one that calls it or is called by it.
    fn is_near(&self, service: &str, graph: &Graph) -> bool {
        self.services.contains(service) || graph.neighbours(service).any(|n| self.services.contains(n))
    }

    fn sets_in_with(&self, start: u64, rule: Rule) -> bool {
        start.abs_diff(self.start) <= rule.bucket
    }

    /// There may be something behind both that nobody watches.
    fn may_share(&self, service: &str, graph: &Graph) -> bool {
        !graph.knows(service)
            || self.services.iter().all(|s| !graph.knows(s))
            || graph.neighbours(service).any(|n| graph.neighbours(n).any(|other| self.services.contains(other)))
    }
}

/// The `services` of one bucket that belong together, in the order of their names.
fn components<'a>(services: &BTreeSet<&'a str>, anomalies: &[&'a Anomaly], graph: &Graph) -> Vec<Vec<&'a str>> {
    let names: Vec<&str> = services.iter().copied().collect();
    let place = |service: &str| names.binary_search(&service).ok();
    let mut sets = Sets::new(names.len());
    // Who calls each other, and who shares a neighbour.
    let mut by_neighbour: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, service) in names.iter().enumerate() {
        for neighbour in graph.neighbours(service) {
            if let Some(j) = place(neighbour) {
                sets.join(i, j);
            }
            sets.join(i, *by_neighbour.entry(neighbour).or_insert(i));
        }
    }
    // The two ends of a call.
    let mut ends: BTreeMap<&str, (BTreeSet<usize>, BTreeSet<usize>)> = BTreeMap::new();
    for anomaly in anomalies {
        let (Some(operation), Some(i)) = (&anomaly.entity.operation, place(&anomaly.entity.service)) else { continue };
        // A method alone is what everybody calls.
        if !operation.contains(['/', '.']) {
            continue;
        }
        let (calling, called) = ends.entry(operation).or_default();
        match anomaly.entity.kind {
            Some(SpanKind::Client | SpanKind::Producer) => calling.insert(i),
            Some(SpanKind::Server | SpanKind::Consumer) => called.insert(i),
            _ => false,
        };
    }
    for (calling, called) in ends.values().filter(|(calling, called)| !calling.is_empty() && !called.is_empty()) {
        if let Some(first) = calling.first() {
            calling.iter().chain(called).for_each(|i| sets.join(*first, *i));
        }
    }
    // Of whom nothing is known belongs to the rest: to the largest part of it.
    let unknown = |i: usize| names.get(i).is_some_and(|s| !graph.knows(s));
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for anomaly in anomalies {
        if let Some(i) = place(&anomaly.entity.service)
            && !unknown(i)
        {
            *sizes.entry(sets.root(i)).or_default() += 1;
        }
    }
    let largest = sizes.into_iter().max_by_key(|(root, size)| (*size, std::cmp::Reverse(*root))).map(|(root, _)| root);
    let mut rest = largest;
    for i in (0..names.len()).filter(|i| unknown(*i)) {
        sets.join(i, *rest.get_or_insert(i));
    }
    let mut parts: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
    for (i, service) in names.iter().enumerate() {
        parts.entry(sets.root(i)).or_default().push(service);
    }
    parts.into_values().collect()
}

/// Disjoint sets of numbers; the root of each is its smallest.
struct Sets(Vec<usize>);

impl Sets {
    fn new(len: usize) -> Self {
        Self((0..len).collect())
    }

    fn root(&self, mut i: usize) -> usize {
        while let Some(&up) = self.0.get(i)
            && up != i
        {
            i = up;
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if let Some(up) = self.0.get_mut(a.max(b)) {
            *up = a.min(b);
        }
    }
}
