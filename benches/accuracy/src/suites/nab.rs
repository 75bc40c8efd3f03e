//! The Numenta Anomaly Benchmark, in its own layout.

use std::path::{Path, PathBuf};

use history::seconds;
use serde_json::Value;

use super::{Bench, field, files_below};
use crate::nab::{self, File, PROFILES};
use crate::series::{Judged, Rows, judge};
use crate::table::{Better, Measure};

/// Thresholds left one file out: floor and what is wanted, for each profile.
const LEFT_OUT: [(f64, f64); 3] = [(72.0, 75.0), (65.0, 68.0), (72.0, 78.0)];
/// At the default threshold, standard profile.
const AT_DEFAULT: (f64, f64) = (70.0, 73.0);
/// NAB wants scores in 0 to 1: a written score of 1 is an alert score of 20 and more.
const SCALE: f64 = 20.0;

/// Scores `folder`, which holds `data/` and `labels/`.
pub(crate) fn run(folder: &Path, bench: &mut Bench) -> Result<Vec<Measure>, String> {
    let windows = windows(&folder.join("labels").join("combined_windows.json"))?;
    let bar = bench.progress("NAB", windows.len());
    let mut files: [Vec<File>; 3] = Default::default();
    for (number, (name, windows)) in windows.iter().enumerate() {
        bar.set_message(name.clone());
        let path = folder.join("data").join(name);
        let rows = Rows::read(&path, false)?;
        let judged = judge(&rows, &bench.parameters, number as u64);
        bench.largest = bench.largest.max(judged.bytes);
        for (files, scores) in files.iter_mut().zip([&judged.detector, &judged.random, &judged.time_of_day]) {
            files.push(File::new(&rows.times, &scores.alert, windows).map_err(|e| format!("{}: {e}", path.display()))?);
        }
        write(name, &rows, &judged, bench)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let [detector, random, time_of_day] = files;
    let mut measures = Vec::new();
    for (profile, (floor, wanted)) in PROFILES.iter().zip(LEFT_OUT) {
        let score = |files: &[File]| nab::leave_one_out(files, profile);
        let measure = Measure::new(format!("NAB {}, thresholds left-one-file-out", profile.name), Better::Higher, 2);
        measures.push(measure.target(floor, wanted).of(score(&detector)).beside(score(&random), score(&time_of_day)));
    }
    let threshold = bench.parameters.alert_threshold;
    for profile in &PROFILES {
        let name = format!("NAB {}, alert_score >= {threshold} (default)", profile.name);
        // The baselines have no default: they are given the threshold that is best for them.
        let best = |files: &[File]| nab::best(files, profile).1;
        let measure = Measure::new(name, Better::Higher, 2)
            .of(nab::at_threshold(&detector, profile, threshold))
            .beside(best(&random), best(&time_of_day));
        let is_asked = profile.name == "standard";
        measures.push(if is_asked { measure.target(AT_DEFAULT.0, AT_DEFAULT.1) } else { measure });
    }
    for profile in &PROFILES {
        let (threshold, score) = nab::best(&detector, profile);
        let name = format!("NAB {}, best threshold ({threshold:.3})", profile.name);
        measures.push(Measure::new(name, Better::Higher, 2).of(score));
    }
    Ok(measures)
}

/// Scores what another detector said, in the layout of the benchmark's own results: in `results` one
/// `<category>/<anything>_<file>.csv` for each file, with the column `anomaly_score`.
pub(crate) fn others(folder: &Path, results: &Path, name: &str) -> Result<Vec<Measure>, String> {
    let windows = windows(&folder.join("labels").join("combined_windows.json"))?;
    let found = files_below(results, ".csv")?;
    let mut files = Vec::new();
    for (data, windows) in &windows {
        let rows = Rows::read(&folder.join("data").join(data), false)?;
        let path = result_of(data, &found).ok_or_else(|| format!("{}: no results for `{data}`", results.display()))?;
        let scores = anomaly_scores(path)?;
        files.push(File::new(&rows.times, &scores, windows).map_err(|e| format!("{}: {e}", path.display()))?);
    }
    let mut measures = Vec::new();
    for profile in &PROFILES {
        let (threshold, best) = nab::best(&files, profile);
        let of =
            |how: &str, score: f64| Measure::new(format!("{name}: NAB {}, {how}", profile.name), Better::Higher, 2).of(score);
        measures.push(of(&format!("best threshold ({threshold:.4})"), best));
        measures.push(of("thresholds left-one-file-out", nab::leave_one_out(&files, profile)));
    }
    Ok(measures)
}

/// The file of results for `data`, which is `<category>/<file>`.
fn result_of<'a>(data: &str, found: &'a [PathBuf]) -> Option<&'a PathBuf> {
    let (category, file) = data.rsplit_once('/')?;
    let is_of = |path: &&PathBuf| {
        let folder = path.parent().and_then(Path::file_name);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        folder.is_some_and(|folder| folder == category) && (name == file || name.ends_with(&format!("_{file}")))
    };
    found.iter().find(is_of)
}

fn anomaly_scores(path: &Path) -> Result<Vec<f64>, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let mut reader = csv::Reader::from_path(path).map_err(|e| wrong(&e))?;
    let names = reader.headers().map_err(|e| wrong(&e))?;
    let column = names.iter().position(|name| name.trim() == "anomaly_score");
    let column = column.ok_or_else(|| wrong(&"no column `anomaly_score`"))?;
    let mut scores = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| wrong(&e))?;
        let score = record.get(column).and_then(|score| score.trim().parse().ok()).filter(|score: &f64| !score.is_nan());
        let line = record.position().map_or(0, csv::Position::line);
        scores.push(score.ok_or_else(|| format!("{}:{line}: no number in `anomaly_score`", path.display()))?);
    }
    Ok(scores)
}

/// Windows of one file: first and last time, Unix seconds.
type Windows = Vec<(f64, f64)>;

/// The files with their windows, in the order of their names.
fn windows(path: &Path) -> Result<Vec<(String, Windows)>, String> {
    let wrong = |what: &str| format!("{}: {what}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| wrong(&e.to_string()))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| wrong(&e.to_string()))?;
    let files = json.as_object().ok_or_else(|| wrong("expected an object with a list of windows per file"))?;
    let time = |value: Option<&Value>| value.and_then(Value::as_str).and_then(seconds);
    let mut found = Vec::new();
    for (name, windows) in files {
        let windows = windows.as_array().ok_or_else(|| wrong(&format!("expected a list of windows for `{name}`")))?;
        let limits = windows.iter().map(|window| Some((time(window.get(0))?, time(window.get(1))?)));
        let limits = limits.collect::<Option<Windows>>();
        found.push((name.clone(), limits.ok_or_else(|| wrong(&format!("a window of `{name}` is not two times")))?));
    }
    found.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(found)
}

fn write(name: &str, rows: &Rows, judged: &Judged, bench: &Bench) -> Result<(), String> {
    let lines = rows.stamps.iter().zip(&rows.values).zip(&judged.detector.alert);
    let lines = lines.map(|((stamp, value), alert)| format!("{},{value},{}", field(stamp), (alert / SCALE).min(1.0)));
    bench.write(&Path::new("nab").join(name), "timestamp,value,anomaly_score", lines)
}
