//! Scores labelled data with the detector, row by row, for measuring its accuracy.
//!
//! ```text
//! accuracy nab NAB_DIR OUT_DIR     NAB's layout: OUT_DIR/<category>/<file>.csv with anomaly_score in 0..=1
//! accuracy csv DATA_DIR OUT_DIR    every CSV below DATA_DIR: OUT_DIR/<file>.scores.csv with point, alert and page score
//! ```
//!
//! A fourth argument names the model: `ensemble` (the default), `isolation_forest`, `extended_isolation_forest` or
//! `seasonal_band`.
//!
//! A value's scores depend on the rows before it alone. A row without a number as value is left out.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, io};

use detection::{ModelKind, ModelOptions, Parameters, Quantity, Series};

/// NAB wants scores in 0..=1; scores of 20 and more are 1.
const NAB_SCALE: f64 = 20.0;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [mode @ ("nab" | "csv"), data, out, rest @ ..] = texts.as_slice() else {
        return Err(io::Error::other("expected: accuracy nab NAB_DIR OUT_DIR [MODEL] | accuracy csv DATA_DIR OUT_DIR [MODEL]"));
    };
    let parameters = Parameters { model: model(rest)?, ..Parameters::default() };
    let mut files = Vec::new();
    let root = if *mode == "nab" { Path::new(data).join("data") } else { PathBuf::from(data) };
    csv_files(&root, &mut files)?;
    let (mut spent, mut rows, mut largest) = (Duration::ZERO, 0, 0);
    let (mut training, mut trainings) = (Duration::ZERO, 0u32);
    for file in &files {
        let table = read(file)?;
        let mut series = Series::new(Quantity::Level, step(&table));
        let started = Instant::now();
        let mut last = f64::NEG_INFINITY;
        let verdicts: Vec<_> = table
            .iter()
            .map(|row| {
                last = row.time.max(last + 1e-3);
                let verdict = series.observe(last, row.value, f64::NAN, &parameters);
                if let Some(job) = series.job() {
                    let begun = Instant::now();
                    job.train();
                    training += begun.elapsed();
                    trainings += 1;
                }
                (verdict.point, verdict.alert, verdict.page, verdict.finding.is_some(), verdict.surprises)
            })
            .collect();
        spent += started.elapsed();
        rows += table.len();
        largest = largest.max(series.bytes());
        let name = file.file_name().unwrap_or_default();
        let target = if *mode == "nab" {
            let category = file.parent().and_then(Path::file_name).unwrap_or_default();
            Path::new(out).join(category).join(name)
        } else {
            Path::new(out).join(name).with_extension("scores.csv")
        };
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut writer = io::BufWriter::new(fs::File::create(target)?);
        if *mode == "nab" {
            writeln!(writer, "timestamp,value,anomaly_score")?;
        } else {
            writeln!(writer, "timestamp,value,point_score,alert_score,page_score,finding,{}", detection::COMPONENTS.join(","))?;
        }
        for (row, (point, alert, page, finding, surprises)) in table.iter().zip(verdicts) {
            if *mode == "nab" {
                writeln!(writer, "{},{},{:.6}", row.stamp, row.value, (alert / NAB_SCALE).min(1.0))?;
            } else {
                let finding = u8::from(finding);
                writeln!(
                    writer,
                    "{},{},{point:.6},{alert:.6},{page:.6},{finding},{}",
                    row.stamp,
                    row.value,
                    surprises.map(|s| format!("{s:.4}")).join(",")
                )?;
            }
        }
        writer.flush()?;
    }
    let millis = training.as_secs_f64() * 1e3 / f64::from(trainings).max(1.0);
    let micros = (spent - training).as_secs_f64() * 1e6 / f64::from(u32::try_from(rows).unwrap_or(u32::MAX)).max(1.0);
    writeln!(
        io::stderr(),
        "{} files, {rows} rows, {micros:.2} us per observation, {largest} bytes per series, {trainings} trainings of {millis:.2} ms",
        files.len()
    )
}

/// The model that is named.
fn model(names: &[&str]) -> io::Result<ModelOptions> {
    use ModelKind::{Ensemble, ExtendedIsolationForest, IsolationForest, SeasonalBand};
    let Some(name) = names.first() else { return Ok(ModelOptions::default()) };
    let all = [Ensemble, IsolationForest, ExtendedIsolationForest, SeasonalBand];
    let kind = all.into_iter().find(|kind| kind.as_str() == *name);
    let kind = kind.ok_or_else(|| io::Error::other(format!("there is no model `{name}`")))?;
    Ok(ModelOptions { kind, ..ModelOptions::default() })
}

struct Row {
    stamp: String,
    time: f64,
    value: f64,
}

/// So many rows tell the step between them: fewer than any component needs before it says anything, so that a row's
/// scores depend on nothing after it.
const TO_KNOW_THE_STEP: usize = 25;

/// The most usual step of the first rows.
fn step(table: &[Row]) -> f64 {
    let times = table.iter().take(TO_KNOW_THE_STEP).map(|row| row.time);
    let mut steps: Vec<f64> = times.clone().skip(1).zip(times).map(|(next, time)| next - time).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(60.0)
}

fn csv_files(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            csv_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "csv") {
            found.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<Row>> {
    let problem = |what: String| io::Error::other(format!("{}: {what}", path.display()));
    let text = fs::read_to_string(path)?;
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    let header: Vec<String> =
        lines.next().unwrap_or_default().split(',').map(|name| name.trim().trim_matches('"').to_lowercase()).collect();
    let column = |name: &str| header.iter().position(|column| column == name).ok_or_else(|| problem(format!("no column {name}")));
    let (stamps, values) = (column("timestamp")?, column("value")?);
    let mut table = Vec::new();
    for (number, line) in lines.enumerate() {
        let cells: Vec<&str> = line.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
        let (Some(stamp), Some(Ok(value))) = (cells.get(stamps), cells.get(values).map(|cell| cell.parse::<f64>())) else {
            continue;
        };
        if value.is_finite() {
            let time = seconds(stamp).ok_or_else(|| problem(format!("line {}: `{stamp}` is not a time", number + 2)))?;
            table.push(Row { stamp: (*stamp).to_owned(), time, value });
        }
    }
    Ok(table)
}

/// Unix seconds of `2015-09-01 13:45:00`, with `T` and `Z` or a number of seconds as well.
fn seconds(stamp: &str) -> Option<f64> {
    if let Ok(seconds) = stamp.parse() {
        return Some(seconds);
    }
    let mut parts = stamp.trim_end_matches('Z').split(['-', ' ', 'T', ':']).map(str::parse::<f64>);
    let mut next = || parts.next()?.ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let (hour, minute) = (next()?, next()?);
    let second = next().unwrap_or(0.0);
    // Days of the proleptic Gregorian calendar, counted from March.
    let (year, month) = if month <= 2.0 { (year - 1.0, month + 9.0) } else { (year, month - 3.0) };
    let days = 365.0 * year + (year / 4.0).floor() - (year / 100.0).floor()
        + (year / 400.0).floor()
        + ((153.0 * month + 2.0) / 5.0).floor()
        + day
        - 719_469.0;
    Some(days * 86_400.0 + hour * 3_600.0 + minute * 60.0 + second)
}
