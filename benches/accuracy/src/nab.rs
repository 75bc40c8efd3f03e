//! The metric of the Numenta Anomaly Benchmark, version 1.1.
//!
//! Source: Lavin and Ahmad, "Evaluating real-time anomaly detection algorithms: the Numenta Anomaly Benchmark", ICMLA
//! 2015. Every window earns the value of its earliest detection, which falls from 1 at its start to about 0 at its
//! end; a missed window costs; every row that is detected outside of windows costs, the more the further it is behind
//! the window before it. The sum over all files is 0 for a detector that says nothing, and 100 for a perfect one.

use std::collections::BTreeSet;

use crate::series::probation;

/// What hits, misses and false detections weigh.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    pub(crate) hit: f64,
    pub(crate) miss: f64,
    pub(crate) false_detection: f64,
}

/// The three profiles of the benchmark.
pub(crate) const PROFILES: [Profile; 3] = [
    Profile { name: "standard", hit: 1.0, miss: 1.0, false_detection: 0.11 },
    Profile { name: "low-FP", hit: 1.0, miss: 1.0, false_detection: 0.22 },
    Profile { name: "low-FN", hit: 1.0, miss: 2.0, false_detection: 0.11 },
];

/// No threshold is higher: nothing is detected.
const NO_DETECTION: f64 = f64::INFINITY;

/// The rows of one file that count: those after the probation.
#[derive(Clone, Debug)]
pub(crate) struct File {
    rows: Vec<Row>,
    windows: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    score: f64,
    /// The window it is in.
    window: Option<usize>,
    /// What its detection is worth before weights, -1 to 1.
    value: f64,
}

/// What a file, or all of them, is worth when rows of at least `threshold` are detected.
#[derive(Clone, Copy, Debug)]
struct Point {
    threshold: f64,
    total: f64,
}

/// 1 far before the end of a window, 0 at it, -1 far behind it.
fn worth(position: f64) -> f64 {
    if position > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * position).exp()) - 1.0 }
}

impl File {
    /// A file's rows in order: their times and scores, and the windows as first and last time, in order.
    pub(crate) fn new(times: &[f64], scores: &[f64], windows: &[(f64, f64)]) -> Result<Self, String> {
        if times.len() != scores.len() {
            return Err(format!("{} rows, {} scores", times.len(), scores.len()));
        }
        let probation = probation(times.len());
        let mut rows = Vec::with_capacity(times.len());
        let mut to_come = windows.iter().enumerate().peekable();
        // The window this row is in: its number, last row, width and last time; then last row and width of the one before.
        let mut current: Option<(usize, f64, f64, f64)> = None;
        let mut previous: Option<(f64, f64)> = None;
        let row_of = |time: f64| times.iter().position(|other| *other == time);
        for (number, (time, score)) in times.iter().zip(scores).enumerate() {
            let number = number as f64;
            if let Some((window, (begin, end))) = to_come.next_if(|(_, (begin, _))| begin == time) {
                let (Some(first), Some(last)) = (row_of(*begin), row_of(*end)) else {
                    return Err("a window's last time is not in the data".to_owned());
                };
                current = Some((window, last as f64, last as f64 - first as f64 + 1.0, *end));
            }
            let row = match (current, previous) {
                (Some((window, last, width, _)), _) => {
                    let value = worth(-(last - number + 1.0) / width) / worth(-1.0);
                    Row { score: *score, window: Some(window), value }
                }
                (None, None) => Row { score: *score, window: None, value: -1.0 },
                (None, Some((last, width))) => {
                    Row { score: *score, window: None, value: worth((last - number).abs() / (width - 1.0)) }
                }
            };
            rows.push(row);
            if let Some((_, last, width, end)) = current
                && end == *time
            {
                (previous, current) = (Some((last, width)), None);
            }
        }
        if to_come.next().is_some() {
            return Err("a window's first time is not in the data".to_owned());
        }
        rows.drain(..probation);
        Ok(Self { rows, windows: windows.len() })
    }

    /// What the file is worth at each threshold, the highest first.
    ///
    /// A window of which every row is in the probation is not counted, neither as missed nor as found.
    fn curve(&self, profile: &Profile) -> Vec<Point> {
        let counted: BTreeSet<usize> = self.rows.iter().filter_map(|row| row.window).collect();
        let mut earned: Vec<Option<f64>> =
            (0..self.windows).map(|window| counted.contains(&window).then_some(-profile.miss)).collect();
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by(|left, right| right.score.total_cmp(&left.score));
        let mut total = earned.iter().flatten().sum::<f64>();
        let mut lost = 0.0;
        let mut curve = Vec::new();
        let mut threshold = NO_DETECTION;
        for row in rows {
            if row.score != threshold {
                curve.push(Point { threshold, total: total + lost });
                threshold = row.score;
            }
            match row.window.and_then(|window| earned.get_mut(window)) {
                Some(Some(best)) => {
                    let value = row.value * profile.hit;
                    if value > *best {
                        total += value - *best;
                        *best = value;
                    }
                }
                _ => lost += row.value * profile.false_detection,
            }
        }
        curve.push(Point { threshold, total: total + lost });
        curve
    }
}

/// Walks down a curve: what it is worth at thresholds that fall.
struct Descent {
    curve: Vec<Point>,
    at: usize,
}

impl Descent {
    fn to(&mut self, threshold: f64) -> f64 {
        while self.curve.get(self.at + 1).is_some_and(|next| next.threshold >= threshold) {
            self.at += 1;
        }
        self.curve.get(self.at).map_or(0.0, |point| point.total)
    }
}

/// 0 for nothing detected, 100 for everything at once and nothing else.
fn normalised(total: f64, files: &[File], profile: &Profile) -> f64 {
    let windows = files.iter().map(|file| file.windows).sum::<usize>() as f64;
    let (null, perfect) = (-profile.miss * windows, profile.hit * windows);
    100.0 * (total - null) / (perfect - null)
}

/// The score when rows of at least `threshold` are detected.
pub(crate) fn at_threshold(files: &[File], profile: &Profile, threshold: f64) -> f64 {
    let total = files.iter().map(|file| Descent { curve: file.curve(profile), at: 0 }.to(threshold)).sum();
    normalised(total, files, profile)
}

/// The threshold that is best for all files together, and the score there.
pub(crate) fn best(files: &[File], profile: &Profile) -> (f64, f64) {
    let table = Thresholds::new(files, profile);
    let best = highest(&table.totals);
    let at = |values: &[f64]| values.get(best).copied().unwrap_or(0.0);
    (at(&table.thresholds), normalised(at(&table.totals), files, profile))
}

/// The score when each file is scored at the threshold that is best for all other files.
pub(crate) fn leave_one_out(files: &[File], profile: &Profile) -> f64 {
    let table = Thresholds::new(files, profile);
    let total = table.of_files.iter().map(|own| {
        let others: Vec<f64> = table.totals.iter().zip(own).map(|(total, own)| total - own).collect();
        own.get(highest(&others)).copied().unwrap_or(0.0)
    });
    normalised(total.sum(), files, profile)
}

/// What every file is worth at every threshold that makes a difference to any, the highest first.
struct Thresholds {
    thresholds: Vec<f64>,
    of_files: Vec<Vec<f64>>,
    totals: Vec<f64>,
}

impl Thresholds {
    fn new(files: &[File], profile: &Profile) -> Self {
        let curves: Vec<Vec<Point>> = files.iter().map(|file| file.curve(profile)).collect();
        let mut thresholds: Vec<f64> = curves.iter().flatten().map(|point| point.threshold).collect();
        thresholds.sort_by(|left, right| right.total_cmp(left));
        thresholds.dedup();
        let mut totals = vec![0.0; thresholds.len()];
        let mut of_files = Vec::new();
        for curve in curves {
            let mut descent = Descent { curve, at: 0 };
            let own: Vec<f64> = thresholds.iter().map(|threshold| descent.to(*threshold)).collect();
            totals.iter_mut().zip(&own).for_each(|(total, own)| *total += own);
            of_files.push(own);
        }
        Self { thresholds, of_files, totals }
    }
}

/// Where the highest value is, the first of several.
fn highest(values: &[f64]) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (place, value) in values.iter().enumerate() {
        if *value > best.1 {
            best = (place, *value);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: f64 = 300.0;

    /// What makes a file's scores, its rows, and its windows.
    type Specification = (usize, usize, &'static [(u32, u32)]);

    /// Four files with windows as first and last row: one is in the probation, one file has none.
    ///
    /// The expected numbers below are those that an independent implementation of the metric gives for these files.
    fn files() -> Vec<File> {
        let specification: [Specification; 4] =
            [(3, 240, &[(200, 229)]), (2, 120, &[]), (0, 200, &[(60, 79), (120, 139)]), (1, 160, &[(10, 20), (90, 109)])];
        let file = |(salt, rows, windows): Specification| {
            let times: Vec<f64> = (0..rows).map(|row| row as f64 * STEP).collect();
            let scores: Vec<f64> = (0..rows).map(|row| score(salt, row)).collect();
            let windows: Vec<(f64, f64)> =
                windows.iter().map(|(first, last)| (f64::from(*first) * STEP, f64::from(*last) * STEP)).collect();
            File::new(&times, &scores, &windows).unwrap()
        };
        specification.into_iter().map(file).collect()
    }

    /// One row in ten has a score, 0.9 to 1.
    fn score(salt: usize, row: usize) -> f64 {
        let score = ((row * 7_919 + salt * 104_729) * 31 % 1_009) as f64 / 1_009.0;
        if score > 0.9 { score } else { 0.0 }
    }

    fn close(measured: impl IntoIterator<Item = f64>, expected: [f64; 3]) {
        let measured: Vec<f64> = measured.into_iter().collect();
        let same = measured.iter().zip(expected).all(|(measured, expected)| (measured - expected).abs() < 1e-9);
        assert!(same, "{measured:?}, expected {expected:?}");
    }

    #[test]
    fn the_score_is_the_benchmarks_at_the_best_threshold() {
        let best: Vec<_> = PROFILES.iter().map(|profile| best(&files(), profile)).collect();
        close(best.iter().map(|(threshold, _)| *threshold), [0.958374628344896, 0.958374628344896, 0.9167492566897919]);
        close(best.iter().map(|(_, score)| *score), [43.7484164681825, 18.44946252926148, 61.1693337044584]);
    }

    #[test]
    fn the_score_is_the_benchmarks_at_a_given_threshold() {
        let scores = PROFILES.iter().map(|profile| at_threshold(&files(), profile, 0.95));
        close(scores, [40.46314074021591, 11.878911073328334, 53.64209382681061]);
    }

    #[test]
    fn the_score_is_the_benchmarks_when_no_file_is_used_for_its_own_threshold() {
        let scores = PROFILES.iter().map(|profile| leave_one_out(&files(), profile));
        close(scores, [8.373236398272965, -12.30153437019979, 25.582157598848646]);
    }

    #[test]
    fn silence_is_worth_0_and_a_detection_at_the_first_row_of_each_window_100() {
        let times: Vec<f64> = (0..100).map(f64::from).collect();
        let scores: Vec<f64> = times.iter().map(|time| if [40.0, 70.0].contains(time) { 1.0 } else { 0.0 }).collect();
        let file = File::new(&times, &scores, &[(40.0, 49.0), (70.0, 79.0)]).unwrap();
        for profile in &PROFILES {
            assert_eq!(at_threshold(std::slice::from_ref(&file), profile, 2.0), 0.0);
            assert_eq!(at_threshold(std::slice::from_ref(&file), profile, 0.5), 100.0);
        }
    }

    #[test]
    fn windows_that_are_not_in_the_data_are_told() {
        let times = [0.0, 1.0, 2.0];
        assert!(File::new(&times, &[0.0; 3], &[(0.5, 1.0)]).unwrap_err().contains("first time"));
        assert!(File::new(&times, &[0.0; 3], &[(1.0, 1.5)]).unwrap_err().contains("last time"));
        assert!(File::new(&times, &[0.0; 2], &[]).unwrap_err().contains("3 rows, 2 scores"));
    }
}
