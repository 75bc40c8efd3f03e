//! What a forest looks at: the newest value among those before it, and the values to learn that from.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Values of a series that are looked at together, the newest one included.
const SHINGLE: usize = 1;
/// Of the newest value: itself and those before it, the step to it, its distance from the time of day.
pub(super) const WIDTH: usize = SHINGLE + 2;
/// Values dropped at once when there are too many.
const SLACK: usize = 64;

/// One point as a forest sees it.
pub(super) type Features = [f32; WIDTH];

/// What belongs together in explanations: name, and places in [`Features`].
pub(super) const COMPONENTS: [(&str, std::ops::Range<usize>); 4] =
    [("level", 0..1), ("course", 1..SHINGLE), ("change", SHINGLE..SHINGLE + 1), ("time_of_day", SHINGLE + 1..WIDTH)];

/// One value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    /// On the learnt scale, relative to the first value of the series.
    pub(super) value: f32,
    /// Distance from what is usual at that time of day.
    pub(super) residual: f32,
    /// Whether it comes after a long gap.
    pub(super) first: bool,
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

    /// As a forest sees `point`, which comes next.
    pub(super) fn features(&self, point: &Point) -> Features {
        features(point, self.0.iter().rev())
    }

    /// What may be learnt of the last `count` values before the last `after`, oldest first; values enough for their
    /// shingles go before them.
    pub(super) fn rows(&self, count: usize, after: usize) -> Vec<f32> {
        let end = self.0.len().saturating_sub(after);
        let begin = end.saturating_sub(count);
        let usable = (begin..end).filter(|place| self.0.get(*place).is_some_and(|point| point.usable));
        let rows = usable.filter_map(|place| Some(features(self.0.get(place)?, self.0.range(..place).rev())));
        rows.flatten().collect()
    }

    /// How many of the last `count` values may be learnt.
    pub(super) fn usable(&self, count: usize) -> u32 {
        let usable = self.0.iter().rev().take(count).filter(|point| point.usable).count();
        u32::try_from(usable).unwrap_or(u32::MAX)
    }

    /// A number that differs from series to series and is the same for the same values.
    pub(super) fn fingerprint(&self) -> u64 {
        let last = self.0.iter().rev().take(8);
        last.fold(0, |sum: u64, point| sum.rotate_left(9) ^ u64::from(point.value.to_bits()))
    }

    /// Heap memory in bytes.
    pub(super) fn heap(&self) -> usize {
        self.0.capacity() * size_of::<Point>()
    }
}

/// Of a point and those `before` it, newest first. Where a long gap is between them, the first value after it stands
/// for those before.
fn features<'a>(point: &Point, before: impl Iterator<Item = &'a Point>) -> Features {
    let mut features = [point.value; WIDTH];
    let (mut last, mut broken) = (point.value, point.first);
    let mut before = before;
    for feature in features.iter_mut().take(SHINGLE).skip(1) {
        if let Some(earlier) = (!broken).then(|| before.next()).flatten() {
            last = earlier.value;
            broken = earlier.first;
        }
        *feature = last;
    }
    let step = before.next().filter(|_| !point.first).map_or(0.0, |b| point.value - b.value);
    if let [.., change, residual] = &mut features {
        *change = step;
        *residual = point.residual;
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(value: f32) -> Point {
        Point { value, residual: value / 10.0, first: false, usable: true }
    }

    fn past(values: impl IntoIterator<Item = Point>) -> Past {
        let mut past = Past::default();
        values.into_iter().for_each(|point| past.push(point, 1000));
        past
    }

    #[test]
    fn a_point_is_seen_with_those_before_it() {
        let past = past([1.0, 2.0, 4.0].map(point));
        assert_eq!(past.features(&point(8.0)), [8.0, 4.0, 2.0, 1.0, 4.0, 0.8]);
    }

    #[test]
    fn a_long_gap_is_no_step() {
        let past = past([point(1.0), Point { first: true, ..point(20.0) }]);
        assert_eq!(past.features(&point(21.0))[..5], [21.0, 20.0, 20.0, 20.0, 1.0]);
        assert_eq!(past.features(&Point { first: true, ..point(90.0) })[..5], [90.0, 90.0, 90.0, 90.0, 0.0]);
    }

    #[test]
    fn what_came_after_the_request_and_what_belongs_to_an_incident_is_not_learnt() {
        let mut points: Vec<Point> = (0..10u8).map(|value| point(f32::from(value))).collect();
        points[6].usable = false;
        let rows = past(points).rows(4, 2);
        let newest: Vec<f32> = rows.chunks_exact(WIDTH).map(|row| row[0]).collect();
        assert_eq!(newest, [4.0, 5.0, 7.0]);
        assert_eq!(rows[..3], [4.0, 3.0, 2.0]);
    }
}
