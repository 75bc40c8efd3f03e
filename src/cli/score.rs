//! `anomalyd score`: what the detector would have said about values in files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use detection::{Parameters, Quantity, Series};

use crate::history::{Row, Table, TableError};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScoreArgs {
    /// CSV files with the columns `timestamp` and `value`. A column `label` is ignored.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The folder in which a file of the same name is written for each.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd score cpu.csv latency.csv --out scores

Each row gets three scores, which depend on the rows before it alone:
  point_score  how unusual the value is
  alert_score  the same for slower and seasonal changes, once per event
  page_score   both agree, and the effect is worth a person's time: 1.55 and more is what the daemon reports

All are -log10 of a probability: 2 is one in a hundred, 3 one in a thousand.";

pub(super) fn run(arguments: &ScoreArgs) -> ExitCode {
    if let Err(error) = std::fs::create_dir_all(&arguments.out) {
        return fail(&format!("{}: {error}", arguments.out.display()));
    }
    for file in &arguments.files {
        let target = arguments.out.join(file.file_name().unwrap_or_default());
        if same_file(file, &target) {
            return fail(&format!("`{}` would be overwritten with its scores: give another folder as --out", file.display()));
        }
        match score(file, &target) {
            Ok(rows) => super::tell(&format!("{}: {rows} rows -> {}\n", file.display(), target.display())),
            Err(error) => return fail(&error),
        }
    }
    ExitCode::SUCCESS
}

fn same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

fn fail(error: &str) -> ExitCode {
    super::tell(&format!("error: {error}\n"));
    ExitCode::FAILURE
}

/// Scores one file; how many rows it has.
fn score(file: &Path, target: &Path) -> Result<u64, String> {
    let table = Table::open(file).map_err(|e| e.to_string())?;
    let cannot = |e: std::io::Error| format!("{}: {e}", target.display());
    let mut out = BufWriter::new(File::create(target).map_err(cannot)?);
    writeln!(out, "timestamp,value,point_score,alert_score,page_score").map_err(cannot)?;
    let mut rows = 0;
    for scored in Scored::new(table) {
        let (row, [point, alert, page]) = scored.map_err(|e| e.to_string())?;
        let value = row.value.map(|v| v.to_string()).unwrap_or_default();
        let stamp = if row.stamp.contains(',') { format!("\"{}\"", row.stamp) } else { row.stamp };
        writeln!(out, "{stamp},{value},{point:.6},{alert:.6},{page:.6}").map_err(cannot)?;
        rows += 1;
    }
    out.flush().map_err(cannot)?;
    Ok(rows)
}

/// So many rows are read before the first is judged, to know the step between them. Nothing is lost by it: no
/// component says anything about the first 50 values.
const TO_KNOW_THE_STEP: usize = 25;

/// Rows and their scores, one by one.
struct Scored<I> {
    rows: I,
    /// The first rows, while the step is not known.
    first: std::collections::VecDeque<Row>,
    series: Option<Series>,
    parameters: Parameters,
}

impl<I: Iterator<Item = Result<Row, TableError>>> Scored<I> {
    fn new(rows: I) -> Self {
        Self { rows, first: std::collections::VecDeque::new(), series: None, parameters: Parameters::default() }
    }

    fn judge(&mut self, row: Row) -> (Row, [f64; 3]) {
        let scores = match (&mut self.series, row.value) {
            (Some(series), Some(value)) => {
                let verdict = series.observe(row.time, value, f64::NAN, &self.parameters);
                [verdict.point, verdict.alert, verdict.page]
            }
            _ => [0.0; 3],
        };
        (row, scores)
    }
}

impl<I: Iterator<Item = Result<Row, TableError>>> Iterator for Scored<I> {
    type Item = Result<(Row, [f64; 3]), TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.series.is_none() {
            while self.first.len() < TO_KNOW_THE_STEP {
                match self.rows.next() {
                    Some(Ok(row)) => self.first.push_back(row),
                    Some(Err(error)) => return Some(Err(error)),
                    None => break,
                }
            }
            self.series = Some(Series::new(Quantity::Level, step(&self.first)));
        }
        let row = match self.first.pop_front() {
            Some(row) => row,
            None => match self.rows.next()? {
                Ok(row) => row,
                Err(error) => return Some(Err(error)),
            },
        };
        Some(Ok(self.judge(row)))
    }
}

/// The median step of `rows` in seconds; a minute where there is none.
fn step(rows: &std::collections::VecDeque<Row>) -> f64 {
    let next = rows.iter().skip(1);
    let mut steps: Vec<f64> = rows.iter().zip(next).map(|(row, next)| next.time - row.time).filter(|s| *s > 0.0).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(60.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: u32) -> impl Iterator<Item = Result<Row, TableError>> {
        (0..count).map(|i| {
            let noise = f64::from(i.wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
            let value = if i == 1_500 { 90.0 } else { 10.0 + noise };
            Ok(Row { stamp: i.to_string(), time: f64::from(i) * 300.0, value: Some(value).filter(|_| i % 97 != 5) })
        })
    }

    #[test]
    fn a_rows_scores_do_not_depend_on_the_rows_after_it() {
        let all: Vec<_> = Scored::new(rows(2_000)).map(Result::unwrap).collect();
        for cut in [10, 26, 700, 1_501] {
            let part: Vec<_> = Scored::new(rows(cut)).map(Result::unwrap).collect();
            assert_eq!(part, all[..cut as usize]);
        }
    }

    #[test]
    fn every_row_has_its_scores_and_the_odd_one_has_the_highest() {
        let all: Vec<_> = Scored::new(rows(2_000)).map(Result::unwrap).collect();
        assert_eq!(all.len(), 2_000);
        let highest = |which: usize| (0..all.len()).max_by(|a, b| all[*a].1[which].total_cmp(&all[*b].1[which])).unwrap();
        assert_eq!(highest(2), 1_500);
        assert!((1_500..1_512).contains(&highest(0)), "the shapes that hold it are odd too: {}", highest(0));
        assert_eq!(all[102].1, [0.0; 3], "a row without a value has no scores");
    }
}
