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
    /// Share of the events that are found; NaN where there is none.
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

    /// What alerts of at least `threshold` give.
    pub(crate) fn at(&self, threshold: f64) -> Outcome {
        let reached = |scores: &[f64]| scores.partition_point(|score| *score >= threshold) as f64;
        let (hits, alerts, wrong) = (reached(&self.events), reached(&self.rows), reached(&self.elsewhere));
        Outcome {
            recall: hits / self.events.len() as f64,
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

#[cfg(test)]
mod tests {
    use super::*;

    type Ranges = &'static [(usize, usize)];

    /// Two series with events as first and last row: some end in the probation or at the last row.
    fn collection() -> Events {
        let mut events = Events::default();
        let specification: [(usize, f64, Ranges); 2] = [
            (200, 300.0, &[(5, 8), (28, 33), (100, 104), (150, 150), (195, 199)]),
            (6000, 60.0, &[(740, 749), (751, 760), (2000, 2100), (4000, 4003), (4010, 4012)]),
        ];
        for (salt, (rows, step, ranges)) in specification.into_iter().enumerate() {
            let times: Vec<f64> = (0..rows).map(|row| row as f64 * step).collect();
            let labels: Vec<bool> =
                (0..rows).map(|row| ranges.iter().any(|(first, last)| (*first..=*last).contains(&row))).collect();
            let scores: Vec<f64> = (0..rows).map(|row| score(salt, row)).collect();
            events.add(&times, &labels, &scores);
        }
        events
    }

    /// One row in ten has a score, 2.7 to 3.
    fn score(salt: usize, row: usize) -> f64 {
        let score = ((row * 7_919 + salt * 104_729) * 31 % 1_009) as f64 / 1_009.0;
        if score > 0.9 { score * 3.0 } else { 0.0 }
    }

    #[test]
    fn recall_false_alarms_and_precision_follow_the_rules_of_events() {
        // What an independent implementation of the rules gives for these series.
        let expected = [
            (2.7, "1.000 121.6935 0.043"),
            (2.8, "0.750 81.9954 0.039"),
            (2.9, "0.500 40.6433 0.044"),
            (2.97, "0.250 12.2875 0.055"),
            (2.99, "0.125 3.7808 0.059"),
        ];
        let events = collection();
        assert_eq!(events.events.len(), 8);
        for (threshold, expected) in expected {
            let Outcome { recall, false_alarms, precision } = events.at(threshold);
            assert_eq!(format!("{recall:.3} {false_alarms:.4} {precision:.3}"), expected, "at {threshold}");
        }
    }

    #[test]
    fn the_threshold_within_a_rate_is_the_lowest_that_keeps_it() {
        let events = collection();
        for rate in [0.0, 3.7, 3.9, 12.5, 81.9, 1e9] {
            let threshold = events.threshold_within(rate);
            assert!(events.at(threshold).false_alarms <= rate, "{rate}: {threshold}");
            let lower = events.rows.iter().copied().find(|score| *score < threshold && *score > 0.0);
            assert!(lower.is_none_or(|lower| events.at(lower).false_alarms > rate), "{rate}: {threshold}, {lower:?}");
        }
    }

    #[test]
    fn a_detector_that_says_nothing_has_no_alarms() {
        let mut events = Events::default();
        events.add(&[0.0, 86_400.0], &[false, true], &[0.0, 0.0]);
        let outcome = events.at(events.threshold_within(1.0));
        assert_eq!((outcome.recall, outcome.false_alarms), (0.0, 0.0));
    }
}
