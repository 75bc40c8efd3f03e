//! What a shard does in a sweep.

use std::sync::Arc;

use super::super::anomaly::Finder;
use super::super::core::Core;
use super::super::group::{Closing, Found};
use super::super::outcome::Outcome;
use super::super::training::Trainings;
use super::super::watch::Watch;
use super::Sweep;
use crate::model::UnixNanos;

impl Core {
    /// Whether a sweep is going on.
    pub(in super::super) const fn sweeps_on(&self) -> bool {
        self.sweeping.is_some()
    }

    /// What came of the sweep of an earlier command that a later one has ended.
    pub(in super::super) fn take_earlier(&mut self) -> Option<Outcome> {
        self.earlier.take()
    }

    /// The outcome of a command with all that its sweep finds.
    pub(in super::super) fn whole(&mut self, mut outcome: Outcome) -> Outcome {
        self.end_sweep(&mut outcome);
        outcome
    }

    /// Goes on with the sweep by about so many groups; all that came of it when that was the last.
    pub(in super::super) fn sweep_on(&mut self, groups: usize) -> Option<Outcome> {
        let mut sweep = self.sweeping.take()?;
        let end = sweep.place.saturating_add(groups).min(self.groups.len());
        self.close(&mut sweep, None, end);
        if sweep.place < self.groups.len() {
            self.sweeping = Some(sweep);
            return None;
        }
        Some(self.judge_together(sweep))
    }

    /// Begins to close all buckets that are complete for the command of this outcome.
    pub(in super::super) fn begin_sweep(&mut self, outcome: &mut Outcome) {
        let timing = &self.settings.timing;
        let horizons = self.sources.horizons(timing, self.in_history);
        let until = horizons.iter().flatten().min();
        outcome.found.until = until.map(|bucket| UnixNanos(bucket.saturating_mul(timing.bucket)));
        if horizons == self.swept {
            return;
        }
        self.end_sweep(outcome);
        self.swept = horizons;
        self.sweeps += 1;
        self.sweeping = Some(Sweep {
            number: self.sweeps,
            place: 0,
            earlier: false,
            seen: None,
            forgotten: Vec::new(),
            judged: Found::default(),
            outcome: Outcome::default(),
        });
    }

    /// Brings the sweep to its end. `outcome` is that of the command that is under way.
    pub(in super::super) fn end_sweep(&mut self, outcome: &mut Outcome) {
        let Some(mut sweep) = self.sweeping.take() else { return };
        let earlier = sweep.earlier;
        self.close(&mut sweep, None, self.groups.len());
        let all = self.judge_together(sweep);
        if earlier {
            self.earlier = Some(all);
        } else {
            outcome.join(all);
        }
    }

    /// Brings the sweep to its end if it belongs to the command that is under way, whose next part changes what it looks at.
    pub(in super::super) fn end_own_sweep(&mut self, outcome: &mut Outcome) {
        if self.sweeping.as_ref().is_some_and(|sweep| !sweep.earlier) {
            self.end_sweep(outcome);
        }
    }

    /// A later command begins, which will change what sweeps look at.
    pub(in super::super) fn change_what_sweeps_see(&mut self) {
        if let Some(sweep) = &mut self.sweeping {
            sweep.earlier = true;
            sweep.seen.get_or_insert_with(|| (self.sources.clone(), self.quieting.clone()));
        }
    }

    /// Something comes in for the group at a place: what the sweep has to close of it is closed before. False if the group
    /// is gone with that: it was forgotten, and begins anew.
    pub(in super::super) fn close_first(&mut self, place: usize, outcome: &mut Outcome) -> bool {
        let Some(mut sweep) = self.sweeping.take() else { return true };
        self.close(&mut sweep, Some(place), place + 1);
        self.sweeping = Some(sweep);
        let leaves = self.groups.at(place).is_some_and(|(_, group)| group.leaves());
        if leaves {
            self.end_sweep(outcome);
        }
        !leaves
    }

    /// Closes the groups from `from` on, by default those that the sweep comes to next, that are before `end`.
    fn close(&mut self, sweep: &mut Sweep, from: Option<usize>, end: usize) {
        let settings = Arc::clone(&self.settings);
        let (sources, quieting) = sweep.seen.as_ref().map_or((&self.sources, &self.quieting), |(s, q)| (s, q));
        let trainings = Trainings::new(&self.desk);
        let finder = Finder { environment: &settings.environment, name: &settings.name, bucket: settings.timing.bucket };
        let closing = Closing {
            timing: &settings.timing,
            sources,
            parameters: &settings.parameters,
            min_samples: settings.min_samples,
            quieting,
            all: settings.joint.enabled(),
            trainings: &trainings,
            watch: settings.observer.as_deref().map(|observer| Watch { observer, finder: &finder }),
        };
        let keep = settings.forget_after / settings.timing.bucket;
        let Sweep { number, forgotten, judged, outcome, .. } = sweep;
        // Groups do not depend on each other, so it does not matter in which order they are closed.
        for place in from.unwrap_or(sweep.place)..end {
            let Some((key, mut group)) = self.groups.at(place) else { break };
            if !group.unwritten().passes(*number) {
                continue;
            }
            let horizon = match self.in_history {
                true => sources.horizon_in_history(group.sources(), &settings.timing),
                false => sources.horizon(group.sources(), &settings.timing),
            };
            let Some(horizon) = horizon else { continue };
            if group.is_due(horizon) {
                outcome.closed += group.change().close(key, horizon, &closing, judged);
            }
            self.joint.take(key, horizon, &judged.values, &settings.joint);
            for judged in judged.values.drain(..) {
                let found = &mut outcome.found;
                if let Some(anomaly) = finder.anomaly(key, &judged) {
                    found.anomalies.push(anomaly);
                } else if judged.is_out_of_bounds() {
                    found.unusual.push(finder.unusual(key, &judged));
                }
            }
            if group.last_data().saturating_add(keep) < horizon {
                group.unwritten().leave();
                forgotten.push(key.clone());
            }
        }
        outcome.trained += trainings.installed();
        if from.is_none() {
            sweep.place = end;
        }
    }

    /// All groups are closed: what they show together.
    fn judge_together(&mut self, sweep: Sweep) -> Outcome {
        let Sweep { seen, forgotten, judged, mut outcome, .. } = sweep;
        let settings = Arc::clone(&self.settings);
        let finder = Finder { environment: &settings.environment, name: &settings.name, bucket: settings.timing.bucket };
        judged.suppressed.into_iter().for_each(|(event, times)| *outcome.events.entry(event).or_default() += times);
        for key in forgotten {
            outcome.forgotten += key.kind.functions().len() as u64;
            self.remove(&key);
        }
        let mut joint = self.joint.judge(&finder, &settings.joint, &mut outcome.events);
        let quieting = seen.as_ref().map_or(&self.quieting, |(_, quieting)| quieting);
        joint.retain(|anomaly| {
            let quiet = quieting.quiet_about(anomaly);
            quiet.iter().for_each(|quiet| *outcome.events.entry(quiet.because.event()).or_default() += 1);
            quiet.is_none()
        });
        outcome.found.anomalies.extend(joint);
        outcome.found.anomalies.iter_mut().for_each(|anomaly| quieting.annotate(anomaly));
        outcome
    }
}
