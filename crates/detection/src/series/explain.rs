//! What people ask about a finding: when was it last like this, and how rare is it?

use serde::{Deserialize, Serialize};

use crate::series::feedback::{Lesson, WIDTH};
use crate::verdict::{Rarity, Similar};

/// Scores that are remembered.
const RECORDS: usize = 4;
/// Long gaps that are remembered.
const GAPS: usize = 4;

/// The last time of every high score: a staircase of ever lower scores, so that "when was it last as high" has an
/// answer in a few bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Records {
    /// Unix seconds of the first observation.
    watched_since: Option<f64>,
    /// Scores and their times, the highest (and so the oldest) first, then zeros. Times are whole seconds since
    /// `watched_since`.
    steps: [(f32, u32); RECORDS],
}

impl Records {
    /// How rare `score` is at `time`, before it is remembered.
    pub(crate) fn rarity(&self, score: f64, time: f64) -> Rarity {
        let since = self.watched_since.unwrap_or(time);
        let last = self.steps.iter().rev().find(|(record, _)| *record > 0.0 && f64::from(*record) >= score);
        match last {
            Some((_, after)) => Rarity { seconds: (time - since - f64::from(*after)).max(0.0), unprecedented: false },
            None => Rarity { seconds: (time - since).max(0.0), unprecedented: true },
        }
    }

    /// Remembers the score of an observation; 0 is never remembered.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturating is what is wanted")]
    pub(crate) fn learn(&mut self, score: f64, time: f64) {
        let since = *self.watched_since.get_or_insert(time);
        if score <= 0.0 {
            return;
        }
        let score = score as f32;
        // Lower and older says nothing more. Where all are higher, the lowest is worth least.
        let place = self.steps.iter().position(|(record, _)| *record <= score).unwrap_or(RECORDS - 1);
        for (index, step) in self.steps.iter_mut().enumerate().skip(place) {
            *step = if index == place { (score, (time - since) as u32) } else { (0.0, 0) };
        }
    }
}

/// Where in time the earlier values of a series are: values are kept in order, without their times.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    /// Steps so far, bridged ones included.
    steps: u32,
    /// The last long gaps: the step after which each lies, and how many steps it left out; 0 where there was none yet.
    gaps: [(u32, u32); GAPS],
}

impl Timeline {
    /// `count` more steps, one after the other.
    pub(crate) fn step(&mut self, count: u32) {
        self.steps = self.steps.saturating_add(count);
    }

    /// A gap of `missing` steps that the order of values does not show.
    pub(crate) fn gap(&mut self, missing: u32) {
        self.gaps.rotate_left(1);
        if let Some(newest) = self.gaps.last_mut() {
            *newest = (self.steps, missing);
        }
    }

    /// How many buckets before the newest step the one is that lies `back` steps before it.
    pub(crate) fn buckets_back(&self, back: u32) -> u32 {
        let step = self.steps.saturating_sub(back);
        let gone: u32 =
            self.gaps.iter().filter(|(before, _)| *before >= step).map(|(_, missing)| *missing).fold(0, u32::saturating_add);
        back.saturating_add(gone)
    }
}

/// The earlier moment which comes nearest to the newest one.
///
/// `values` is the history, oldest first, with the newest moment at its end; `time_of` gives the time of the value
/// that lies some steps back; `findings` are remembered for longer than all values. Moments are compared by their largest difference, because a mean over a moment would
/// find every spike alike to quiet; likeness is 1 less that difference per `deviation`.
pub(crate) fn similar<'a>(
    values: &[f64],
    findings: impl Iterator<Item = &'a Lesson>,
    deviation: f64,
    time_of: impl Fn(u32) -> f64,
) -> Option<Similar> {
    let newest = values.last_chunk::<WIDTH>()?;
    let (low, high) = newest.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    let deviation = deviation.abs().max((high - low) / 2.0);
    let difference = |earlier: &mut dyn Iterator<Item = f64>| {
        newest.iter().zip(earlier).map(|(new, old)| (new - old).abs()).fold(0.0, f64::max)
    };
    let earlier = values.len().checked_sub(WIDTH).and_then(|end| values.get(..end)).unwrap_or_default();
    let in_history = earlier.windows(WIDTH).enumerate().map(|(start, window)| {
        let back = u32::try_from(values.len() - WIDTH - start).unwrap_or(u32::MAX);
        (difference(&mut window.iter().copied()), back)
    });
    // Of equally near ones the latest.
    let nearest = in_history.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))).map(|(d, back)| (d, time_of(back)));
    let remembered = findings.filter_map(|finding| Some((difference(&mut finding.values()?.into_iter()), finding.time())));
    let (distance, time) = nearest.into_iter().chain(remembered).min_by(|a, b| a.0.total_cmp(&b.0))?;
    let likeness = if deviation > 0.0 { (1.0 - distance / deviation).clamp(0.0, 1.0) } else { 1.0 };
    Some(Similar { time, likeness })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Direction;

    #[test]
    fn a_spike_is_alike_to_an_earlier_spike_and_not_to_quiet() {
        let quiet = |n: usize| (0..n).map(|i| 10.0 + (i % 3) as f64 / 10.0).collect::<Vec<f64>>();
        let minutes = |back: u32| 60.0 * (200.0 - f64::from(back));
        let mut once = quiet(100);
        once.push(50.0);
        let alone = similar(&once, [].iter(), 40.0, minutes).unwrap();
        assert!(alone.likeness < 0.02, "{alone:?}");
        let mut twice = once.clone();
        twice.extend(quiet(60));
        twice.push(52.0);
        let found = similar(&twice, [].iter(), 42.0, minutes).unwrap();
        assert!(found.likeness > 0.9, "{found:?}");
        assert_eq!(found.time, 60.0 * (200.0 - 61.0));
        // What the history has forgotten, the moment of a finding still tells.
        let finding = Lesson::new(-5000.0, Direction::Spike, 50.0, 40.0, 3.0, &once);
        let remembered = similar(&once, [finding].iter(), 40.0, minutes).unwrap();
        assert_eq!((remembered.time, remembered.likeness > 0.99), (-5000.0, true));
        assert!(similar(&[1.0; 11], [].iter(), 1.0, minutes).is_none());
    }

    #[test]
    fn the_last_time_of_a_score_at_least_as_high_is_remembered() {
        let mut records = Records::default();
        for (time, score) in [(0.0, 0.0), (100.0, 5.0), (200.0, 2.0), (300.0, 3.0), (400.0, 0.5)] {
            records.learn(score, time);
        }
        let rarity = |score| records.rarity(score, 1000.0);
        assert_eq!(rarity(0.4), Rarity { seconds: 600.0, unprecedented: false });
        assert_eq!(rarity(2.0), Rarity { seconds: 700.0, unprecedented: false });
        assert_eq!(rarity(4.0), Rarity { seconds: 900.0, unprecedented: false });
        assert_eq!(rarity(6.0), Rarity { seconds: 1000.0, unprecedented: true });
    }

    #[test]
    fn memory_is_bounded_and_the_highest_scores_stay() {
        let mut records = Records::default();
        for step in 0..1000u32 {
            records.learn(1000.0 - f64::from(step), f64::from(step));
        }
        assert_eq!(records.rarity(999.5, 1000.0).seconds, 1000.0);
    }

    #[test]
    fn gaps_lie_between_a_value_and_those_before_it() {
        let mut timeline = Timeline::default();
        timeline.step(10);
        timeline.gap(60);
        timeline.step(5);
        assert_eq!((timeline.buckets_back(4), timeline.buckets_back(5), timeline.buckets_back(7)), (4, 65, 67));
    }
}
