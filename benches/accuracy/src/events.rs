//! Events, false alarms and precision of alerts: what people notice of a detector with a threshold.
//!
//! An event is a run of labelled rows. It is found when an alert (a score of at least the threshold) lies within 3 rows
//! before it to 10 rows after it. An alert outside of all these ranges is a false alarm; so is every further one. The
//! first 15 % of a series, and at most 750 rows, are not looked at, nor are events that end in them.

use crate::series::probation;

/// Rows before an event in which an alert is for it.
const EARLY: usize = 3;
/// Rows after an event in which an alert is for it.
const LATE: usize = 10;

/// What is known of alerts at any threshold: scores of a collection of series.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    /// The highest score of each event, descending.
    events: Vec<f64>,
    /// The scores of all rows, descending.
    rows: Vec<f64>,
    /// The scores of the rows where an alert is false, descending.
    elsewhere: Vec<f64>,
    days: f64,
}

/// What a threshold gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Share of the events that are found.
    pub(crate) recall: f64,
    /// False alarms per series and day.
    pub(crate) false_alarms: f64,
    /// Share of the alerts that are for an event.
    pub(crate) precision: f64,
}

impl Events {
    /// Adds a series: times in Unix seconds, and for each whether it is labelled and its score.
    pub(crate) fn add(&mut self, times: &[f64], labels: &[bool], scores: &[f64]) {
        let rows = times.len().min(labels.len()).min(scores.len());
        let begin = probation(rows);
        let score = |row: usize| scores.get(row).copied().unwrap_or(0.0);
        let mut near = vec![false; rows];
        for (first, last) in runs(labels.iter().take(rows)) {
            if last < begin {
                continue;
            }
            let (from, to) = (first.saturating_sub(EARLY), (last + LATE).min(rows - 1));
            near.iter_mut().take(to + 1).skip(from).for_each(|near| *near = true);
            self.events.push((from.max(begin)..=to).map(score).fold(f64::NEG_INFINITY, f64::max));
        }
        self.rows.extend((begin..rows).map(score));
        self.elsewhere.extend(near.iter().enumerate().skip(begin).filter(|(_, near)| !**near).map(|(row, _)| score(row)));
        if let (Some(first), Some(last)) = (times.get(begin), times.get(rows.saturating_sub(1))) {
            self.days += (last - first) / 86_400.0;
        }
        for scores in [&mut self.events, &mut self.rows, &mut self.elsewhere] {
            scores.sort_by(|left, right| right.total_cmp(left));
        }
    }

    /// How many events there are.
    pub(crate) fn count(&self) -> usize {
        self.events.len()
    }

    /// What alerts of at least `threshold` give.
    pub(crate) fn at(&self, threshold: f64) -> Outcome {
        let reached = |scores: &[f64]| scores.partition_point(|score| *score >= threshold) as f64;
        let (hits, alerts, wrong) = (reached(&self.events), reached(&self.rows), reached(&self.elsewhere));
        Outcome {
            recall: hits / (self.events.len() as f64).max(1.0),
            false_alarms: wrong / self.days,
            precision: 1.0 - wrong / alerts.max(1.0),
        }
    }

    /// The lowest threshold among the scores with no more than so many false alarms per series and day.
    pub(crate) fn threshold_within(&self, false_alarms: f64) -> f64 {
        let allowed = (0..=self.elsewhere.len()).take_while(|wrong| *wrong as f64 / self.days <= false_alarms).count();
        // `allowed` counts from 0, so it is one more than there may be.
        let too_low = allowed.checked_sub(1).and_then(|most| self.elsewhere.get(most)).copied().unwrap_or(0.0).max(0.0);
        let above = self.rows.partition_point(|score| *score > too_low);
        above.checked_sub(1).and_then(|lowest| self.rows.get(lowest)).copied().unwrap_or(f64::INFINITY)
    }
}

/// First and last place of every run of `true`.
fn runs<'a>(labels: impl Iterator<Item = &'a bool>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (row, _) in labels.enumerate().filter(|(_, label)| **label) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == row => *last = row,
            _ => runs.push((row, row)),
        }
    }
    runs
}
