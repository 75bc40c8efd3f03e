//! What is found jointly becomes anomalies: their ids, their numbers, their sentences.

use detection::{Direction as Way, PeerModel, Quantity};

use super::super::anomaly::{Finder, VERSION, shown_per, unit};
use super::Settings;
use super::siblings::Found;
use crate::model::{Anomaly, DetectorRef, Direction, Entity, Reason, Severity, UnixNanos, Window};
use crate::text::alike;

/// Tells these anomalies from those of the same series alone.
const PEERS: &str = "peers";

/// An instance that behaves unlike its siblings: an anomaly of its series.
pub(super) fn of_peer(finder: &Finder<'_>, found: &Found, settings: &Settings) -> Anomaly {
    let Found { key, bucket, taken, finding } = found;
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
    let label = if function.as_str() == "error_share" { "error share" } else { function.as_str() };
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
        incident: None,
        past: None,
    }
}

fn window(bucket: u64, width: u64) -> Window {
    let start = UnixNanos(bucket.saturating_mul(width));
    Window { start, end: start.plus(width) }
}
