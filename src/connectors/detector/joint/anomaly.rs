//! What is found jointly becomes anomalies: their ids, their numbers, their sentences.

use detection::{Carrier, Direction as Way, PeerModel, Quantity};

use super::super::anomaly::Finder;
use super::super::bucket::{Function, Kind};
use super::super::key::{Key, VERSION, shown_per, unit};
use super::entities::{self, FAR, Shown};
use super::{Settings, siblings};
use crate::model::{Anomaly, DetectorRef, Direction, Entity, Reason, Severity, Signal, UnixNanos, Window};
use crate::text::alike;

/// Tells these anomalies from those of the same series alone.
const PEERS: &str = "peers";

/// The metric, and the function, of what is found about all series of an entity together.
const ENTITY: &str = Anomaly::ENTITY;
const JOINT: &str = "joint";
/// Carriers that are named, and the least share of one.
const NAMED: usize = 5;
const LEAST_SHARE: f64 = 0.05;

/// An instance that behaves unlike its siblings: an anomaly of its series.
pub(super) fn of_peer(finder: &Finder<'_>, found: &siblings::Found, settings: &Settings) -> Anomaly {
    let siblings::Found { key, bucket, taken, finding } = found;
    let function = taken.function;
    let scale = shown_per(key.kind.quantity(function, &key.unit), finder.bucket);
    let [observed, expected, lower, upper, median] =
        [finding.value, finding.expected, finding.lower, finding.upper, finding.median].map(|v| v * scale);
    let unit = unit(key.kind, function, &key.unit);
    let window = window(*bucket, finder.bucket);
    let model = match settings.peers.map(|p| p.model).unwrap_or_default() {
        PeerModel::Dbscan => "dbscan",
        PeerModel::Kmeans => "kmeans",
    };
    let write = alike(&unit, &[observed, expected, median]);
    let label = label(function);
    let siblings = finding.members.saturating_sub(1);
    let said = match finding.direction {
        Way::Shape => format!(
            "{label} {} jumps up and down as that of its {siblings} siblings does not (their median {}, expected {})",
            write(observed),
            write(median),
            write(expected)
        ),
        Way::Spike | Way::Dip => format!(
            "{label} {} is unlike that of its {siblings} siblings: their median is {}, and {} (usual {} to {})",
            write(observed),
            write(median),
            if finding.newcomer {
                format!("{} is expected of an instance as new as this one", write(expected))
            } else {
                format!("{} is its usual relation to them", write(expected))
            },
            write(lower),
            write(upper)
        ),
    };
    Anomaly {
        id: finder.id(PEERS, key, function.as_str(), Some(window)),
        fingerprint: finder.id(PEERS, key, function.as_str(), None),
        environment: finder.environment.clone(),
        detector: DetectorRef { name: finder.name.to_owned(), kind: model.to_owned(), version: VERSION.to_owned() },
        signal: key.signal,
        entity: Entity::clone(&key.entity),
        metric: key.metric.to_string(),
        unit,
        function: function.as_str().to_owned(),
        window,
        observed,
        expected,
        lower,
        upper,
        samples: taken.samples,
        score: finding.score,
        probability: finding.probability,
        severity: Severity::of(finding.score),
        direction: match finding.direction {
            Way::Spike => Direction::Spike,
            Way::Dip if observed == 0.0 && key.kind.quantity(function, &key.unit) != Quantity::Level => Direction::Missing,
            Way::Dip => Direction::Dip,
            Way::Shape => Direction::Shape,
        },
        reasons: vec![Reason { component: PEERS.to_owned(), surprise: finding.surprise, share: 1.0, text: said }],
        past: None,
        incident: None,
    }
}

/// All series of an entity together: an anomaly of its own, whose values are the joint surprise.
pub(super) fn of_entity(finder: &Finder<'_>, found: &entities::Found, settings: &Settings) -> Anomaly {
    let entities::Found { entity, bucket, finding, carriers } = found;
    let window = window(*bucket, finder.bucket);
    let surprise = -finding.probability.max(f64::MIN_POSITIVE).log10();
    // Neither a unit nor a signal of its own: the id must not depend on who carries it.
    let key = Key { entity: entity.clone(), metric: ENTITY.into(), kind: Kind::Gauge, unit: "".into(), signal: Signal::Metrics };
    let samples = carriers.first().map_or(0.0, |(_, shown)| shown.taken.samples);
    Anomaly {
        id: finder.id(ENTITY, &key, JOINT, Some(window)),
        fingerprint: finder.id(ENTITY, &key, JOINT, None),
        environment: finder.environment.clone(),
        detector: DetectorRef { name: finder.name.to_owned(), kind: ENTITY.to_owned(), version: VERSION.to_owned() },
        signal: carriers.first().map_or(Signal::Metrics, |(_, shown)| shown.key.signal),
        entity: Entity::clone(entity),
        metric: ENTITY.to_owned(),
        unit: String::new(),
        function: JOINT.to_owned(),
        window,
        observed: surprise,
        expected: 0.0,
        lower: 0.0,
        upper: settings.parameters.page_threshold,
        samples,
        score: finding.score,
        probability: finding.probability,
        severity: Severity::of(finding.score),
        direction: way(carriers),
        reasons: reasons(finder, carriers),
        past: None,
        incident: None,
    }
}

/// Where three quarters of it go; [`Direction::Shape`] where the series disagree.
fn way(carriers: &[(Carrier, Shown)]) -> Direction {
    let (mut above, mut below) = (0.0, 0.0);
    for (carrier, shown) in carriers {
        match shown.verdict.expected.map(|expected| shown.taken.value.total_cmp(&expected)) {
            Some(std::cmp::Ordering::Greater) => above += carrier.share,
            Some(std::cmp::Ordering::Less) => below += carrier.share,
            Some(std::cmp::Ordering::Equal) | None => {}
        }
    }
    if above >= 0.75 {
        Direction::Spike
    } else if below >= 0.75 {
        Direction::Dip
    } else {
        Direction::Shape
    }
}

/// The series that carry it; the first tells them all.
fn reasons(finder: &Finder<'_>, carriers: &[(Carrier, Shown)]) -> Vec<Reason> {
    let count = carriers.iter().take(NAMED).take_while(|(carrier, _)| carrier.share >= LEAST_SHARE).count().max(1);
    let named = carriers.get(..count.min(carriers.len())).unwrap_or_default();
    let all: f64 = named.iter().map(|(carrier, _)| carrier.share).sum();
    let list: Vec<String> =
        named.iter().map(|(carrier, shown)| format!("{} ({:.0} %)", name(shown), carrier.share * 100.0)).collect();
    let reason = |(place, (carrier, shown)): (usize, &(Carrier, Shown))| {
        let said = says(finder, carrier, shown);
        let text = if place == 0 { format!("carried by {}: {said}", list.join(", ")) } else { said };
        let share = if all > 0.0 { carrier.share / all } else { 1.0 };
        Reason { component: name(shown), surprise: carrier.surprise, share, text }
    };
    named.iter().enumerate().map(reason).collect()
}

/// `span p99`, `process.memory mean {pool=old}`.
fn name(shown: &Shown) -> String {
    let attributes: Vec<String> = shown.key.entity.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let which = if attributes.is_empty() { String::new() } else { format!(" {{{}}}", attributes.join(",")) };
    format!("{} {}{which}", shown.key.metric, shown.taken.function.as_str())
}

/// `span p99 412 ms, expected 95 ms, 5.2 standard deviations above its mean of days`.
fn says(finder: &Finder<'_>, carrier: &Carrier, shown: &Shown) -> String {
    let (key, function) = (&shown.key, shown.taken.function);
    let scale = shown_per(key.kind.quantity(function, &key.unit), finder.bucket);
    let observed = shown.taken.value * scale;
    let expected = shown.verdict.expected.map(|expected| expected * scale).filter(|expected| expected.is_finite());
    let write = alike(&unit(key.kind, function, &key.unit), &[observed, expected.unwrap_or(observed)]);
    let mut said = format!("{} {}", name(shown), write(observed));
    if let Some(expected) = expected {
        said += &format!(", expected {}", write(expected));
    }
    if carrier.deviation.abs() >= FAR {
        let way = if carrier.deviation > 0.0 { "above" } else { "below" };
        said += &format!(", {:.1} standard deviations {way} its mean of days", carrier.deviation.abs());
    }
    said
}

const fn label(function: Function) -> &'static str {
    match function {
        Function::ErrorShare => "error share",
        other => other.as_str(),
    }
}

fn window(bucket: u64, width: u64) -> Window {
    let start = UnixNanos(bucket.saturating_mul(width));
    Window { start, end: start.plus(width) }
}
