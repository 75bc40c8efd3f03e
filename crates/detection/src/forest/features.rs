//! What a forest looks at: the newest value, the step to it, and its distance from the time of day.
//!
//! Longer shingles of values before it were tried (2, 4 and 8) and found less; see `docs/models.md`.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Values dropped at once when there are too many.
const SLACK: usize = 64;
pub(super) const WIDTH: usize = 3;

/// One point as a forest sees it, in the order of [`COMPONENTS`].
pub(super) type Features = [f32; WIDTH];

/// What each value of a point tells.
pub(super) const COMPONENTS: [&str; WIDTH] = ["level", "change", "time_of_day"];

/// One value of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    /// On the learnt scale, relative to the first value of the series; the distance from the one before, 0 after a long
    /// gap; the distance from what is usual at that time of day.
    pub(super) features: Features,
    /// Whether it may be learnt: not in an incident.
    pub(super) usable: bool,
}

/// The last values, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Past(VecDeque<Point>);

impl Past {
    /// Remembers a value, and of those before it at least `kept`.
    pub(super) fn push(&mut self, point: Point, kept: usize) {
        if self.0.len() >= kept + SLACK {
            self.0.drain(..self.0.len() - kept);
        }
        self.0.push_back(point);
    }

    /// Tells whether the last value may be learnt.
    pub(super) fn mark_last(&mut self, usable: bool) {
        if let Some(last) = self.0.back_mut() {
            last.usable = usable;
        }
    }

    /// Fills a short gap with the last value, which is not learnt.
    pub(super) fn bridge(&mut self, missing: u32, kept: usize) {
        let Some(last) = self.0.back() else { return };
        let [level, ..] = last.features;
        let point = Point { features: [level, 0.0, 0.0], usable: false };
        (0..missing).for_each(|_| self.push(point, kept));
    }

    /// The levels of the last `count` values, oldest first.
    pub(super) fn levels(&self, count: usize) -> impl Iterator<Item = f32> {
        self.0.range(self.0.len().saturating_sub(count)..).map(|point| point.features[0])
    }

    /// The level of the last value.
    pub(super) fn last(&self) -> Option<f32> {
        self.0.back().map(|point| point.features[0])
    }

    /// What may be learnt of the last `count` values before the last `after`, oldest first.
    pub(super) fn rows(&self, count: usize, after: usize) -> Vec<f32> {
        let end = self.0.len().saturating_sub(after);
        let window = self.0.range(end.saturating_sub(count)..end);
        window.filter(|point| point.usable).flat_map(|point| point.features).collect()
    }

    /// How many of the last `count` values may be learnt.
    pub(super) fn usable(&self, count: usize) -> u32 {
        let usable = self.0.iter().rev().take(count).filter(|point| point.usable).count();
        u32::try_from(usable).unwrap_or(u32::MAX)
    }

    /// A number that differs from series to series and is the same for the same values.
    pub(super) fn fingerprint(&self) -> u64 {
        let last = self.0.iter().rev().take(8);
        last.fold(0, |sum: u64, point| sum.rotate_left(9) ^ u64::from(point.features[0].to_bits()))
    }

    /// Heap memory in bytes.
    pub(super) fn heap(&self) -> usize {
        self.0.capacity() * size_of::<Point>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_after_the_request_and_what_belongs_to_an_incident_is_not_learnt() {
        let mut past = Past::default();
        for value in 0..10u8 {
            past.push(Point { features: [f32::from(value), 1.0, 0.0], usable: value != 6 }, 1000);
        }
        let levels: Vec<f32> = past.rows(4, 2).chunks_exact(WIDTH).map(|row| row[0]).collect();
        assert_eq!(levels, [4.0, 5.0, 7.0]);
        assert_eq!((past.usable(4), past.last()), (3, Some(9.0)));
    }

    #[test]
    fn a_past_does_not_grow() {
        let mut past = Past::default();
        for value in 0..5000u16 {
            past.push(Point { features: [f32::from(value), 0.0, 0.0], usable: true }, 100);
        }
        assert!(past.0.len() >= 100 && past.0.len() <= 100 + SLACK);
    }
}
