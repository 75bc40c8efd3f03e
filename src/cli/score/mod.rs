//! `anomalyd score`: what the detector would have said about values in files.

mod judge;

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use csv::Writer;
use history::{Row, Steady, Table};
use indicatif::{ProgressBar, ProgressStyle};

use judge::Judge;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ScoreArgs {
    /// CSV or NDJSON files: a column `timestamp`, and `value` or several columns of values. A column `label` is ignored.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The folder in which a CSV file of the same name is written for each.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Files with the same columns, that are learnt first, in this order; nothing is written about their rows.
    #[arg(long, value_name = "FILE")]
    history: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd score cpu.csv latency.csv --out scores
  anomalyd score today.csv --history last-week.csv --out scores

Several columns of values (`timestamp,cpu,memory,latency`) are one entity, and are judged together; a value that is
missing is a gap of its column. Where one of them is called `value`, the others are not read.

Each row gets three scores, which depend on the rows before it alone:
  point_score  how unusual the value is, or the entity
  alert_score  the same for slower and seasonal changes, once per event; of an entity the same less what is due to chance
  page_score   both agree, and the effect is worth a person's time: 1.4 and more is what the daemon reports

All are -log10 of a probability: 2 is one in a hundred, 3 one in a thousand. Of one column, rows without a number are
left out.";

pub(super) fn run(arguments: &ScoreArgs) -> ExitCode {
    match score_all(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            super::tell(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn score_all(arguments: &ScoreArgs) -> Result<(), String> {
    std::fs::create_dir_all(&arguments.out).map_err(|e| format!("{}: {e}", arguments.out.display()))?;
    let learnt = learn(&arguments.history)?;
    let mut targets = Vec::new();
    for file in &arguments.files {
        let target = arguments.out.join(file.file_name().unwrap_or_default()).with_extension("csv");
        if arguments.files.iter().chain(&arguments.history).any(|file| is_same(file, &target)) {
            let told = "would be overwritten with scores: give another folder as --out";
            return Err(format!("`{}` {told}", target.display()));
        }
        if targets.contains(&target) {
            return Err(format!("two files would be written to `{}`: score them into two folders", target.display()));
        }
        super::tell(&score(file, &target, learnt.clone())?);
        targets.push(target);
    }
    Ok(())
}

fn is_same(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// An open file, its progress, and where the reading of it is.
struct Input {
    rows: Steady<Table>,
    columns: Vec<String>,
    unread: Vec<String>,
    bar: ProgressBar,
}

impl Input {
    fn open(path: &Path) -> Result<Self, String> {
        let table = Table::open(path).map_err(|e| e.to_string())?;
        let (columns, unread) = (table.columns().to_vec(), table.unread().to_vec());
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg:<24} {wide_bar} {bytes}/{total_bytes} {eta}");
            let length = std::fs::metadata(path).map_or(0, |file| file.len());
            let bar = ProgressBar::new(length).with_message(path.display().to_string());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        } else {
            ProgressBar::hidden()
        };
        Ok(Self { rows: Steady::new(table), columns, unread, bar })
    }

    fn next(&mut self) -> Option<Result<Row, String>> {
        let row = self.rows.next();
        if row.is_none() {
            self.bar.finish_and_clear();
        }
        self.bar.set_position(self.rows.source().position());
        row.map(|row| row.map_err(|e| e.to_string()))
    }
}

/// A judge that has seen the rows of `files`; `None` if there are none.
fn learn(files: &[PathBuf]) -> Result<Option<Judge>, String> {
    let mut judge = None;
    for file in files {
        let mut input = Input::open(file)?;
        let mut learning = Judge::continued(judge, &input.columns, input.rows.step()).map_err(|e| of_file(file, &e))?;
        while let Some(row) = input.next() {
            learning.judge(&row?).map_err(|e| of_file(file, &e))?;
        }
        learning.end_history();
        judge = Some(learning);
    }
    Ok(judge)
}

fn of_file(file: &Path, what: &str) -> String {
    format!("{}: {what}", file.display())
}

/// Scores one file; what to tell about it.
fn score(file: &Path, target: &Path, learnt: Option<Judge>) -> Result<String, String> {
    let mut input = Input::open(file)?;
    let mut judge = Judge::continued(learnt, &input.columns, input.rows.step()).map_err(|e| of_file(file, &e))?;
    let cannot = |e: csv::Error| of_file(target, &e.to_string());
    let mut out = Writer::from_writer(File::create(target).map_err(|e| of_file(target, &e.to_string()))?);
    let is_one = input.columns.len() == 1;
    let values = if is_one { vec!["value".to_owned()] } else { input.columns.clone() };
    let scores = ["point_score", "alert_score", "page_score"];
    let header = std::iter::once("timestamp").chain(values.iter().map(String::as_str)).chain(scores);
    out.write_record(header).map_err(cannot)?;
    let mut count: u64 = 0;
    while let Some(row) = input.next() {
        let row = row?;
        if is_one && row.value().is_none() {
            continue;
        }
        let scores = judge.judge(&row).map_err(|e| of_file(file, &e))?;
        let values = row.values.iter().map(|value| if value.is_nan() { String::new() } else { value.to_string() });
        let scores = scores.iter().map(|score| format!("{score:.6}"));
        out.write_record(std::iter::once(row.stamp.clone()).chain(values).chain(scores)).map_err(cannot)?;
        count += 1;
    }
    out.flush().map_err(|e| of_file(target, &e.to_string()))?;
    Ok(summary(file, target, &input, count))
}

/// What was read, what was not, and where the scores are.
fn summary(file: &Path, target: &Path, input: &Input, rows: u64) -> String {
    let entity =
        if input.columns.len() > 1 { format!(" of {} values, judged together", input.columns.len()) } else { String::new() };
    let unread = match input.unread.as_slice() {
        [] => String::new(),
        unread => format!(" (not read: `{}`)", unread.join("`, `")),
    };
    format!("{}: {rows} rows{entity}{unread} -> {}\n", file.display(), target.display())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_help_tells_the_threshold_that_is_shipped() {
        let threshold = detection::Parameters::default().page_threshold;
        assert!(super::EXAMPLES.contains(&format!(": {threshold} and more is what the daemon reports")), "{threshold}");
    }
}
