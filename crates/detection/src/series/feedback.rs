//! "This is normal": what a person says about a finding, and what resembles it.
//!
//! A lesson holds for
//! - a spike or dip: the same time of day, half an hour more or less, to the same side, and not clearly further away
//!   than the value that was called normal (a quarter of its distance from what was expected is granted);
//! - an unusual course of values within their usual range: the same course at any time, within the distance at which
//!   courses of this series usually repeat.
//!
//! What goes on without a break after it was recognised stays known: a job that takes two hours needs one lesson.

use serde::{Deserialize, Serialize};

use crate::verdict::Direction;

/// Values of the course that is remembered.
pub(crate) const WIDTH: usize = 12;
/// Lessons of one series; a further one takes the place of the oldest.
pub const MAX_LESSONS: usize = 8;
/// Findings of one series that feedback can still be about.
pub const MAX_RECENT: usize = 3;
/// Seconds by which the time of day may differ, and that may pass between two values of one event.
const NEAR: f64 = 1800.0;
/// Seconds that an event which was recognised may go on.
const LONGEST: f64 = 6.0 * 3600.0;
/// Share of its distance by which a value may be further away than the one that was called normal.
const GRANTED: f64 = 0.25;
const DAY: f64 = 86_400.0;
/// Findings of at least this page score are told again: critical ones, at the default threshold. What was less far off has
/// to be unusual by itself each time.
const GRAVE: f32 = 4.2;
/// Part of its distance from which on a value is the same finding again.
const AGAIN: f64 = 0.7;
/// Findings that are told again, until there was none for so many seconds.
const MOST_AGAIN: u8 = 3;
const FORGIVEN: f64 = 7.0 * DAY;

/// A finding as it is remembered, in case somebody says that it is normal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lesson {
    /// Unix seconds.
    pub(crate) time: f64,
    pub(crate) direction: Direction,
    /// The value, on the learnt scale.
    pub(crate) value: f32,
    /// Its distance from what was expected, on the learnt scale.
    pub(crate) reach: f32,
    /// Its page score; 0 if it was a finding of before once more.
    pub(crate) page: f32,
    /// The last values up to this one, less their mean.
    pub(crate) course: Option<[f32; WIDTH]>,
}

/// What a value is like that may be known.
pub(crate) struct Candidate {
    pub(crate) time: f64,
    pub(crate) direction: Direction,
    /// On the learnt scale.
    pub(crate) value: f64,
    pub(crate) course: Option<[f32; WIDTH]>,
    /// The distance at which courses of this series usually repeat.
    pub(crate) usual_distance: Option<f64>,
}

/// What was found lately, and what was called normal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Feedback {
    recent: Vec<Lesson>,
    lessons: Vec<Lesson>,
    /// The event that goes on: when it was recognised first and last, and by the lesson of which time.
    current: Option<(f64, f64, f64)>,
    /// How often findings were told again, and when last.
    again: (u8, f64),
}

impl Lesson {
    /// A finding of `value`, `reach` away from what was expected, at the end of the values `recent`.
    #[expect(clippy::cast_possible_truncation, reason = "seven digits are enough to compare shapes")]
    pub(crate) fn new(time: f64, direction: Direction, value: f64, reach: f64, page: f64, recent: &[f64]) -> Self {
        Self { time, direction, value: value as f32, reach: reach as f32, page: page as f32, course: course(recent) }
    }

    /// From how far away on, to its side, a value is this finding again.
    fn again_from(&self, time: f64) -> Option<f64> {
        let told = matches!(self.direction, Direction::Spike | Direction::Dip) && self.page >= GRAVE;
        (told && !same_time_of_day(self.time, time)).then(|| AGAIN * f64::from(self.reach))
    }

    /// The page score of a value that lies `reach` away from what was expected at `time`, if it is this finding again.
    fn again(&self, time: f64, reach: f64) -> Option<f64> {
        let ratio = reach / self.again_from(time)?;
        (ratio >= 1.0).then(|| f64::from(self.page) * (AGAIN * ratio).min(1.0))
    }

    /// The last values up to this one, on the learnt scale.
    pub(crate) fn values(&self) -> Option<[f64; WIDTH]> {
        let course = self.course?;
        let newest = course.last().copied().unwrap_or(0.0);
        Some(course.map(|value| f64::from(self.value) + f64::from(value - newest)))
    }

    /// Start of the bucket of the finding, in Unix seconds.
    #[must_use]
    pub fn time(&self) -> f64 {
        self.time
    }

    fn no_further(&self, candidate: &Candidate) -> bool {
        let (value, granted) = (f64::from(self.value), GRANTED * f64::from(self.reach.abs()));
        match self.direction {
            Direction::Spike => candidate.value <= value + granted,
            Direction::Dip => candidate.value >= value - granted,
            Direction::Shape => true,
        }
    }

    /// Whether `candidate` may be the same event, later: what is unusual about its course is part of it.
    fn may_go_on_as(&self, candidate: &Candidate) -> bool {
        (candidate.direction == self.direction || candidate.direction == Direction::Shape) && self.no_further(candidate)
    }

    fn same_course(&self, candidate: &Candidate) -> bool {
        let (Some(known), Some(course), Some(usual)) = (&self.course, &candidate.course, candidate.usual_distance) else {
            return false;
        };
        let square: f64 = known.iter().zip(course).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        square.sqrt() <= usual
    }

    fn resembles(&self, candidate: &Candidate) -> bool {
        match self.direction {
            other if other != candidate.direction => false,
            Direction::Shape => self.same_course(candidate),
            Direction::Spike | Direction::Dip => self.no_further(candidate) && same_time_of_day(self.time, candidate.time),
        }
    }
}

impl Feedback {
    /// The page score of a value `reach` away from what was expected, if it is a finding of before once more.
    ///
    /// The models have seen that and find it less unusual: what has been wrong once is no novelty. To people it is the
    /// same trouble again. What comes again and again, or at the same time of day, is left to the models.
    pub(crate) fn again(&self, time: f64, reach: f64) -> Option<f64> {
        if self.is_tired(time) {
            return None;
        }
        self.recent.iter().filter_map(|finding| finding.again(time, reach)).max_by(f64::total_cmp)
    }

    /// How far below and above what was expected a value is a finding of before once more.
    pub(crate) fn reach(&self, time: f64) -> (Option<f64>, Option<f64>) {
        let nearest = |sign: f64| {
            let all = self.recent.iter().filter_map(|finding| finding.again_from(time)).map(|reach| reach * sign);
            all.filter(|reach| *reach > 0.0 && !self.is_tired(time)).min_by(f64::total_cmp)
        };
        (nearest(-1.0), nearest(1.0))
    }

    fn is_tired(&self, time: f64) -> bool {
        let (times, last) = self.again;
        times >= MOST_AGAIN && time - last < FORGIVEN
    }

    /// A finding was told again.
    pub(crate) fn told_again(&mut self, time: f64) {
        let (times, last) = self.again;
        self.again = (if time - last < FORGIVEN { times.saturating_add(1) } else { 1 }, time);
    }

    /// Remembers a finding.
    pub(crate) fn remember(&mut self, lesson: Lesson) {
        if self.recent.len() >= MAX_RECENT {
            self.recent.remove(0);
        }
        self.recent.reserve_exact(MAX_RECENT.saturating_sub(self.recent.len()));
        self.recent.push(lesson);
    }

    /// What was found lately, and what was called normal.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Lesson> {
        self.recent.iter().chain(&self.lessons)
    }

    /// What was called normal.
    pub(crate) fn lessons(&self) -> &[Lesson] {
        &self.lessons
    }

    /// The finding of `time` is normal; the lesson that this gives.
    pub(crate) fn teach(&mut self, time: f64) -> Option<&Lesson> {
        if let Some(known) = self.lessons.iter().position(|l| l.time == time) {
            return self.lessons.get(known);
        }
        let place = self.recent.iter().position(|l| l.time == time)?;
        let lesson = self.recent.remove(place);
        if self.lessons.len() >= MAX_LESSONS {
            self.lessons.remove(0);
        }
        self.lessons.push(lesson);
        self.lessons.last()
    }

    /// The finding of `time` is not normal after all; whether that was a lesson.
    pub(crate) fn forget(&mut self, time: f64) -> bool {
        let Some(place) = self.lessons.iter().position(|l| l.time == time) else { return false };
        let lesson = self.lessons.remove(place);
        self.current = None;
        self.remember(lesson);
        true
    }

    /// Whether something like this was called normal.
    pub(crate) fn knows(&mut self, candidate: &Candidate) -> bool {
        if let Some(lesson) = self.lessons.iter().find(|l| l.resembles(candidate)) {
            let begin = self.current.filter(|(_, last, _)| candidate.time - last <= NEAR).map_or(candidate.time, |c| c.0);
            self.current = Some((begin, candidate.time, lesson.time));
            return true;
        }
        let Some((begin, last, by)) = self.current else { return false };
        let goes_on = candidate.time - last <= NEAR
            && candidate.time - begin <= LONGEST
            && self.lessons.iter().any(|l| l.time == by && l.may_go_on_as(candidate));
        self.current = goes_on.then_some((begin, candidate.time, by));
        goes_on
    }

    /// Bytes on the heap.
    pub(crate) fn heap(&self) -> usize {
        (self.recent.capacity() + self.lessons.capacity()) * size_of::<Lesson>()
    }
}

/// The newest values of those that are remembered, less their mean.
pub(crate) fn course(recent: &[f64]) -> Option<[f32; WIDTH]> {
    let newest: &[f64; WIDTH] = recent.last_chunk()?;
    let mean = newest.iter().sum::<f64>() / WIDTH as f64;
    #[expect(clippy::cast_possible_truncation, reason = "rounds; differences need no more")]
    Some(newest.map(|value| (value - mean) as f32))
}

fn same_time_of_day(one: f64, other: f64) -> bool {
    let apart = (one - other).rem_euclid(DAY);
    apart.min(DAY - apart) <= NEAR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Parameters, Quantity, Series, Suppressed, Verdict};

    const MINUTE: f64 = 60.0;
    /// A Monday, midnight.
    const BEGIN: f64 = 1_767_571_200.0;

    fn lesson(direction: Direction, time: f64, value: f64, reach: f64) -> Lesson {
        Lesson::new(time, direction, value, reach, 3.0, &[])
    }

    fn candidate(direction: Direction, time: f64, value: f64) -> Candidate {
        Candidate { time, direction, value, course: None, usual_distance: None }
    }

    /// 100 ms with a daily rhythm and noise, four times as much for ten minutes from each of `faults` on; the minutes of
    /// findings.
    fn outages_found(faults: &[u32], days: u32) -> Vec<u32> {
        let mut series = Series::new(Quantity::Duration, MINUTE);
        let mut found = Vec::new();
        for minute in 0..days * 1440 {
            let rhythm = 1.0 + 0.3 * (f64::from(minute) / 1440.0 * std::f64::consts::TAU).sin();
            let noise = 1.0 + 0.2 * (f64::from(minute.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 - 0.5);
            let fault = faults.iter().any(|from| (*from..*from + 10).contains(&minute));
            let value = 0.1 * rhythm * noise * if fault { 4.0 } else { 1.0 };
            let time = BEGIN + f64::from(minute) * MINUTE;
            if series.observe(time, value, 100.0, &Parameters::default()).finding.is_some() {
                found.push(minute);
            }
        }
        found
    }

    #[test]
    fn the_same_outage_is_told_again_and_what_comes_at_its_time_or_all_the_time_is_not() {
        let day = |day: u32, hour: u32| day * 1440 + hour * 60;
        let outages = [day(5, 10), day(5, 12), day(5, 20), day(6, 15)];
        let told = outages_found(&outages, 7);
        let of = |outage: u32| told.iter().any(|minute| (outage..outage + 10).contains(minute));
        assert_eq!(outages.map(of), [true; 4], "{told:?}");
        let nightly: Vec<u32> = (4..9).map(|night| day(night, 3)).collect();
        assert!(outages_found(&nightly, 9).len() <= 2, "a nightly job");
        let often: Vec<u32> = (0..20).map(|time| day(5, 0) + 97 * time).collect();
        assert!(outages_found(&often, 7).len() <= 8, "{:?}", outages_found(&often, 7));
    }

    #[test]
    fn a_lesson_holds_at_its_time_of_day_on_its_side_and_up_to_its_size() {
        let mut feedback = Feedback::default();
        feedback.remember(lesson(Direction::Spike, 3.0 * 3600.0, 30.0, 20.0));
        assert!(!feedback.knows(&candidate(Direction::Spike, 3.0 * 3600.0, 30.0)), "nobody said it is normal");
        assert!(feedback.teach(3.0 * 3600.0).is_some());
        let next_night = DAY + 3.0 * 3600.0;
        for (known, time, direction, value) in [
            (true, next_night, Direction::Spike, 30.0),
            (true, next_night + 1800.0, Direction::Spike, 34.0),
            (false, next_night, Direction::Spike, 36.0),
            (false, next_night, Direction::Dip, 0.0),
        ] {
            assert_eq!(feedback.knows(&candidate(direction, time, value)), known, "{time} {value}");
        }
        assert!(!feedback.knows(&candidate(Direction::Spike, next_night + 9.0 * 3600.0, 30.0)), "noon is not night");
        assert!(feedback.forget(3.0 * 3600.0) && !feedback.forget(3.0 * 3600.0));
        assert!(!feedback.knows(&candidate(Direction::Spike, 2.0 * DAY + 3.0 * 3600.0, 30.0)));
        assert!(feedback.teach(3.0 * 3600.0).is_some(), "it can be taught again");
    }

    #[test]
    fn what_goes_on_stays_known_for_hours_and_not_for_ever() {
        let mut feedback = Feedback::default();
        feedback.remember(lesson(Direction::Spike, 0.0, 30.0, 20.0));
        feedback.teach(0.0);
        let known = (0..=600).filter(|m| feedback.knows(&candidate(Direction::Spike, DAY + f64::from(*m) * MINUTE, 30.0)));
        assert_eq!(known.count(), 361, "six hours, first and last minute");
    }

    #[test]
    fn a_course_is_known_at_any_time_within_its_usual_distance() {
        let course = |last: f32| {
            let mut course = [0.0; WIDTH];
            course[WIDTH - 1] = last;
            Some(course)
        };
        let mut feedback = Feedback::default();
        feedback.remember(Lesson { course: course(5.0), ..lesson(Direction::Shape, 0.0, 5.0, 0.0) });
        feedback.teach(0.0);
        let like =
            |time, last| Candidate { course: course(last), usual_distance: Some(1.0), ..candidate(Direction::Shape, time, 5.0) };
        assert!(feedback.knows(&like(40_000.0, 5.9)));
        assert!(!feedback.knows(&like(70_000.0, 6.1)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut feedback = Feedback::default();
        for i in 0..100 {
            feedback.remember(lesson(Direction::Spike, f64::from(i), 1.0, 1.0));
            feedback.teach(f64::from(i));
            feedback.remember(lesson(Direction::Spike, f64::from(1000 + i), 1.0, 1.0));
        }
        assert_eq!((feedback.lessons().len(), feedback.all().count()), (MAX_LESSONS, MAX_LESSONS + MAX_RECENT));
        assert!(feedback.lessons().iter().all(|l| l.time >= 92.0));
    }

    /// Noise around 200 calls a minute, and what a nightly job adds from 03:00 to 03:20 from the third night on.
    fn calls(minute: u32, job: f64) -> f64 {
        let noise = f64::from(minute.wrapping_mul(2_654_435_761) >> 16) / 65_536.0 * 24.0;
        let (night, of_day) = (minute / 1440, minute % 1440);
        200.0 + noise + if night >= 3 && (180..200).contains(&of_day) { job } else { 0.0 }
    }

    fn run(series: &mut Series, minutes: std::ops::Range<u32>, job: f64) -> Vec<(u32, Verdict)> {
        let parameters = Parameters::default();
        let mut observe = |minute| series.observe(BEGIN + f64::from(minute) * MINUTE, calls(minute, job), f64::NAN, &parameters);
        let all: Vec<(u32, Verdict)> = minutes.map(|minute| (minute, observe(minute))).collect();
        all.into_iter().filter(|(_, v)| v.finding.is_some() || v.suppressed.is_some()).collect()
    }

    fn found(all: &[(u32, Verdict)]) -> Vec<u32> {
        all.iter().filter(|(_, v)| v.finding.is_some()).map(|(minute, _)| *minute).collect()
    }

    #[test]
    fn a_nightly_job_that_was_called_normal_is_quiet_and_everything_else_is_not() {
        let mut series = Series::new(Quantity::Count, MINUTE);
        let job = 3 * 1440 + 180;
        let first = run(&mut series, 0..job + 60, 600.0);
        assert_eq!(found(&first), [job], "the job is found when it first runs");
        let mut untaught = series.clone();
        let at = series.recent().map(Lesson::time).next().unwrap();
        assert!(series.teach(at) && !series.teach(at + MINUTE));
        // Saved and loaded in the middle.
        let saved = serde_json::to_string(&series).unwrap();
        let mut series: Series = serde_json::from_str(&saved).unwrap();

        let before = job + 60..job + 1440;
        assert!(found(&run(&mut series, before.clone(), 600.0)).is_empty());
        run(&mut untaught, before, 600.0);
        let night = job + 1440..job + 1500;
        let mut three_times = series.clone();
        let quiet = run(&mut series.clone(), night.clone(), 600.0);
        assert!(found(&quiet).is_empty(), "{quiet:?}");
        assert!(!found(&run(&mut untaught, night.clone(), 600.0)).is_empty(), "without the lesson it is found again");
        assert!(quiet.iter().any(|(_, v)| v.suppressed == Some(Suppressed::Feedback)), "and counted: {quiet:?}");
        let larger = found(&run(&mut three_times, night.clone(), 1800.0));
        assert!((job + 1440..job + 1445).contains(&larger[0]), "three times as large: {larger:?}");
        // The same at noon.
        run(&mut series, night.start..job + 1440 + 500, 0.0);
        let noon = job + 1440 + 500;
        let shifted: Vec<u32> = (noon..noon + 30)
            .filter(|m| {
                let value = calls(*m, 0.0) + if *m < noon + 20 { 600.0 } else { 0.0 };
                series.observe(BEGIN + f64::from(*m) * MINUTE, value, f64::NAN, &Parameters::default()).finding.is_some()
            })
            .collect();
        assert!((noon..noon + 5).contains(&shifted[0]), "{shifted:?}");
    }
}
