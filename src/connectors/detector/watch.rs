//! Somebody looks on while values are judged: a report of what has been. In the daemon nobody does.

use super::anomaly::Finder;
use super::bucket::{Function, Taken};
use super::key::{Key, shown_per, unit};
use crate::model::UnixNanos;
use crate::pipeline::{Judgement, Observer, Track, Watched};

use detection::{State, Verdict};

/// Who looks on, and the names under which series are known.
pub(super) struct Watch<'a> {
    pub(super) observer: &'a dyn Observer,
    pub(super) finder: &'a Finder<'a>,
}

/// The tracks of a group's series. No part of its state: not saved, not compared.
#[derive(Debug, Default)]
pub(super) struct Tracks(Vec<(Function, Box<dyn Track>)>);

impl Clone for Tracks {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Tracks {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Watch<'_> {
    /// Tells the track of the series what was judged.
    pub(super) fn judged(
        &self,
        tracks: &mut Tracks,
        key: &Key,
        at: u64,
        taken: &Taken,
        (verdict, state, threshold): (&Verdict, State, f64),
    ) {
        let scale = shown_per(key.kind.quantity(taken.function, &key.unit), self.finder.bucket);
        let judgement = Judgement {
            at: UnixNanos(at.saturating_mul(self.finder.bucket)),
            observed: taken.value * scale,
            expected: verdict.expected.map(|v| v * scale),
            lower: verdict.lower.map(|v| v * scale),
            upper: verdict.upper.map(|v| v * scale),
            page: verdict.page,
            threshold,
            ready: matches!(state, State::Ready { .. }),
            finding: verdict.finding.is_some(),
        };
        if let Some((_, track)) = tracks.0.iter_mut().find(|(function, _)| *function == taken.function) {
            track.judged(&judgement);
            return;
        }
        let mut track = self.observer.series(Watched {
            environment: self.finder.environment,
            fingerprint: &self.finder.id("", key, taken.function.as_str(), None),
            signal: key.signal,
            entity: &key.entity,
            metric: &key.metric,
            function: taken.function.as_str(),
            unit: &unit(key.kind, taken.function, &key.unit),
            bucket: self.finder.bucket,
        });
        track.judged(&judgement);
        tracks.0.push((taken.function, track));
    }
}
