//! Running totals become changes.
//!
//! Source: OpenTelemetry metrics data model, "Sums" and "Resets and gaps".

use detection::Sketch;
use serde::{Deserialize, Serialize};

use crate::model::{Reading, UnixNanos};

/// The last reading of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Previous {
    time: UnixNanos,
    reading: Reading,
}

/// What happened between readings.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Change {
    /// How much the total grew.
    pub(super) total: f64,
    /// In how many seconds; 0 where no two readings could be compared.
    pub(super) seconds: f64,
    /// The values that came to a histogram.
    pub(super) values: Sketch,
}

/// The change over `readings` of one bucket, in whatever order they came. The last one becomes `previous`.
pub(super) fn change(previous: &mut Option<Previous>, mut readings: Vec<(UnixNanos, Reading)>) -> Change {
    readings.sort_by(|(at, a), (bt, b)| {
        at.cmp(bt).then(a.start.cmp(&b.start)).then(a.total.total_cmp(&b.total)).then(a.bins.len().cmp(&b.bins.len()))
    });
    let mut change = Change::default();
    for (time, reading) in readings {
        if let Some(last) = previous.as_ref() {
            if time <= last.time {
                continue;
            }
            change.step(last, time, &reading);
        }
        *previous = Some(Previous { time, reading });
    }
    change
}

impl Change {
    fn step(&mut self, last: &Previous, time: UnixNanos, now: &Reading) {
        let before = &last.reading;
        let seconds = |from: UnixNanos| time.0.saturating_sub(from.0) as f64 / UnixNanos::SECOND as f64;
        // A later start than the one before says so; without starts a smaller total does.
        let restarted = now.start > before.start && before.start.0 > 0;
        if restarted || now.total < before.total {
            // All of the new total came since the restart; when that was is known, or it was after `last`.
            let from = if now.start > last.time { now.start } else { last.time };
            self.add(now.total, seconds(from), now.bins.iter().copied());
            return;
        }
        let Some(bins) = grown(&before.bins, &now.bins) else { return };
        self.add(now.total - before.total, seconds(last.time), bins.into_iter());
    }

    fn add(&mut self, total: f64, seconds: f64, bins: impl Iterator<Item = (f64, f64)>) {
        if !total.is_finite() || total < 0.0 {
            return;
        }
        self.total += total;
        self.seconds += seconds;
        for (value, count) in bins {
            self.values.add(value, count);
        }
    }
}

/// How much each bin grew; `None` where the bins are others than before (an exponential histogram that changed
/// its scale), so that nothing can be said about this step.
fn grown(before: &[(f64, f64)], now: &[(f64, f64)]) -> Option<Vec<(f64, f64)>> {
    let mut old = before.iter().copied().filter(|&(_, count)| count > 0.0).peekable();
    let mut bins = Vec::with_capacity(now.len());
    for &(value, count) in now {
        let was = old.next_if(|&(v, _)| v == value).map_or(0.0, |(_, count)| count);
        if count < was {
            return None;
        }
        bins.push((value, count - was));
    }
    old.peek().is_none().then_some(bins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(start: u64, total: f64) -> Reading {
        Reading { start: UnixNanos::from_secs(start), total, monotonic: true, bins: Vec::new() }
    }

    fn run(readings: &[(u64, Reading)]) -> (f64, f64) {
        let mut previous = None;
        let readings = readings.iter().map(|(t, r)| (UnixNanos::from_secs(*t), r.clone())).collect();
        let change = change(&mut previous, readings);
        (change.total, change.seconds)
    }

    #[test]
    fn the_first_reading_is_only_a_beginning() {
        assert_eq!(run(&[(100, counter(0, 1000.0))]), (0.0, 0.0));
    }

    #[test]
    fn order_and_repetition_do_not_matter() {
        let readings = [(10, counter(1, 5.0)), (20, counter(1, 9.0)), (30, counter(1, 10.0))];
        let mut shuffled = vec![readings[2].clone(), readings[0].clone(), readings[1].clone(), readings[1].clone()];
        assert_eq!(run(&readings), (5.0, 20.0));
        assert_eq!(run(&shuffled), (5.0, 20.0));
        shuffled.reverse();
        assert_eq!(run(&shuffled), (5.0, 20.0));
    }

    #[test]
    fn a_restart_counts_from_its_start_and_never_down() {
        let told = [(10, counter(1, 50.0)), (30, counter(20, 4.0))];
        assert_eq!(run(&told), (4.0, 10.0));
        let not_told = [(10, counter(0, 50.0)), (30, counter(0, 4.0))];
        assert_eq!(run(&not_told), (4.0, 20.0));
        let past_the_old_total = [(10, counter(1, 50.0)), (30, counter(20, 70.0))];
        assert_eq!(run(&past_the_old_total), (70.0, 10.0));
    }

    #[test]
    fn histograms_give_the_values_that_came_in_between() {
        let histogram = |bins: &[(f64, f64)]| Reading {
            start: UnixNanos::from_secs(1),
            total: bins.iter().map(|b| b.1).sum(),
            monotonic: true,
            bins: bins.to_vec(),
        };
        let mut previous = None;
        let readings = vec![
            (UnixNanos::from_secs(10), histogram(&[(0.1, 5.0), (0.2, 0.0)])),
            (UnixNanos::from_secs(20), histogram(&[(0.1, 6.0), (0.2, 3.0)])),
            // Other bins: nothing can be said about this step, but the next one counts again.
            (UnixNanos::from_secs(30), histogram(&[(0.15, 20.0)])),
            (UnixNanos::from_secs(40), histogram(&[(0.15, 22.0)])),
        ];
        let change = change(&mut previous, readings);
        assert_eq!((change.total, change.seconds), (4.0 + 2.0, 20.0));
        assert_eq!(change.values.count(), 6.0);
        assert_eq!(change.values.max(), Some(0.2));
    }
}
