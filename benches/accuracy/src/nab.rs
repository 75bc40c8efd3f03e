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
