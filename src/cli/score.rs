//! `anomalyd score`: what the detector would have said about values in files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use detection::{Parameters, Quantity, Series};

use history::{Steady, Table};

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
    let rows_of = Steady::new(table);
    let (mut series, parameters) = (Series::new(Quantity::Level, rows_of.step()), Parameters::default());
    for row in rows_of {
        let row = row.map_err(|e| e.to_string())?;
        let Some(value) = row.value() else { continue };
        let verdict = series.observe(row.time, value, f64::NAN, &parameters);
        let (point, alert, page) = (verdict.point, verdict.alert, verdict.page);
        let stamp = if row.stamp.contains(',') { format!("\"{}\"", row.stamp) } else { row.stamp };
        writeln!(out, "{stamp},{value},{point:.6},{alert:.6},{page:.6}").map_err(cannot)?;
        rows += 1;
    }
    out.flush().map_err(cannot)?;
    Ok(rows)
}
