//! One labelled series and what the detector and the baselines say about it.

use std::path::Path;

use detection::{COMPONENTS, Parameters, Quantity, Series};
use history::{Steady, Table};

use crate::baseline::{Chance, Refractory, penalty};

/// Rows at the begin of a series that are not judged: 15 %, and at most 750.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 750")]
pub(crate) fn probation(rows: usize) -> usize {
    (0.15 * rows as f64).min(750.0).floor() as usize
}

/// The rows of one file.
pub(crate) struct Rows {
    /// As the file writes them.
    pub(crate) stamps: Vec<String>,
    /// Unix seconds, as the file writes them.
    pub(crate) times: Vec<f64>,
    /// NaN where there is no number.
    pub(crate) values: Vec<f64>,
    pub(crate) labels: Vec<bool>,
    /// What the detector is given: seconds between two rows, and times that never go back.
    step: f64,
    ascending: Vec<f64>,
}

impl Rows {
    /// Reads the first value column of a file; rows without a number are left out if there are `labels`.
    pub(crate) fn read(path: &Path, labels: bool) -> Result<Self, String> {
        let open = || if labels { Table::open_labelled(path) } else { Table::open(path) };
        let told = |e: history::ReadError| e.to_string();
        let kept = |row: &Result<history::Row, _>| !labels || row.as_ref().map_or(true, |row| row.value().is_some());
        let mut times = Vec::new();
        let table = open().map_err(told)?.filter(kept).inspect(|row| {
            if let Ok(row) = row {
                times.push(row.time);
            }
        });
        let steady = Steady::new(table);
        let step = steady.step();
        let (mut stamps, mut values, mut marks, mut ascending) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in steady {
            let row = row.map_err(told)?;
            values.push(row.value().unwrap_or(f64::NAN));
            marks.push(row.label);
            ascending.push(row.time);
            stamps.push(row.stamp);
        }
        Ok(Self { stamps, times, values, labels: marks, step, ascending })
    }
}

/// The scores of one judge, one of each for every row.
#[derive(Default)]
pub(crate) struct Scores {
    pub(crate) alert: Vec<f64>,
    pub(crate) page: Vec<f64>,
}

/// What all judges say about a series.
pub(crate) struct Judged {
    pub(crate) point: Vec<f64>,
    pub(crate) detector: Scores,
    /// The page score where the detector has a finding: after the warm-up, and once for an incident; else 0.
    pub(crate) findings: Vec<f64>,
    /// A surprise by chance.
    pub(crate) random: Scores,
    /// The time-of-day component alone.
    pub(crate) time_of_day: Scores,
    /// Memory of the series at its end.
    pub(crate) bytes: usize,
}

/// Judges row by row: what is said of a row depends on the rows before it alone.
pub(crate) fn judge(rows: &Rows, parameters: &Parameters, seed: u64) -> Judged {
    let mut series = Series::new(Quantity::Level, rows.step);
    let mut chance = Chance::new(seed);
    let refractory = || [Refractory::new(parameters.alert_refractory), Refractory::new(parameters.page_refractory)];
    let (mut of_chance, mut of_day) = (refractory(), refractory());
    let mut judged = Judged {
        point: Vec::new(),
        detector: Scores::default(),
        findings: Vec::new(),
        random: Scores::default(),
        time_of_day: Scores::default(),
        bytes: 0,
    };
    for (seen, (time, value)) in rows.ascending.iter().zip(&rows.values).enumerate() {
        let verdict = series.observe(*time, *value, f64::NAN, parameters);
        judged.point.push(verdict.point);
        judged.detector.alert.push(verdict.alert);
        judged.detector.page.push(verdict.page);
        judged.findings.push(if verdict.finding.is_some() { verdict.page } else { 0.0 });
        judged.random.pass((chance.surprise() - penalty(seen)).max(0.0), &mut of_chance);
        let surprise = time_of_day(&verdict.surprises);
        judged.time_of_day.pass(if surprise > 0.0 { (surprise - penalty(seen)).max(0.0) } else { 0.0 }, &mut of_day);
    }
    judged.bytes = series.bytes();
    judged
}

impl Scores {
    fn pass(&mut self, score: f64, [alerts, pages]: &mut [Refractory; 2]) {
        self.alert.push(alerts.pass(score));
        self.page.push(pages.pass(score));
    }
}

/// The surprise of the calendar's day alone.
pub(crate) fn time_of_day(surprises: &[f64]) -> f64 {
    COMPONENTS.iter().zip(surprises).find(|(name, _)| **name == "time_of_day").map_or(0.0, |(_, surprise)| *surprise)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// A file of `rows` rows, one in 97 without a number, one of them far out and labelled.
    fn rows(rows: usize) -> Rows {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("series.csv");
        let mut text = "timestamp,value,label\n".to_owned();
        let mut chance = Chance::new(3);
        for row in 0..rows {
            let value = if row == 1_500 { 90.0 } else { 10.0 + chance.uniform() };
            let value = if row % 97 == 5 { "NaN".to_owned() } else { value.to_string() };
            writeln!(text, "{},{value},{}", row * 300, u8::from(row == 1_500)).unwrap();
        }
        std::fs::write(&path, text).unwrap();
        Rows::read(&path, true).unwrap()
    }

    #[test]
    fn what_is_said_of_a_row_does_not_depend_on_the_rows_after_it() {
        let all = judge(&rows(2_000), &Parameters::default(), 1);
        for cut in [10, 26, 700, 1_550] {
            let part = judge(&rows(cut), &Parameters::default(), 1);
            let length = part.point.len();
            assert_eq!(part.point, all.point[..length]);
            assert_eq!(part.detector.alert, all.detector.alert[..length]);
            assert_eq!(part.detector.page, all.detector.page[..length]);
        }
    }

    #[test]
    fn rows_without_a_number_are_left_out_of_labelled_series_and_the_odd_one_is_seen() {
        let rows = rows(2_000);
        assert_eq!(rows.values.len(), 2_000 - 21);
        let odd = rows.labels.iter().position(|label| *label).unwrap();
        assert_eq!(rows.times[odd], 1_500.0 * 300.0);
        let judged = judge(&rows, &Parameters::default(), 1);
        assert!(judged.detector.page[odd] > 1.4, "{}", judged.detector.page[odd]);
        assert!(judged.bytes > 1_000);
    }
}
