//! Measures the detection on labelled data and prints a table beside floors; fails below a floor.
//!
//! Everything is judged in process, row by row, with the one set of parameters that is shipped as default. Nothing of
//! a file is known before it is read: neither its length nor its range, nor what stands in its later rows.

mod baseline;
mod events;
mod nab;
mod series;
mod suites;
mod table;
mod vus_pr;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use detection::{ModelKind, ModelOptions};

use suites::Bench;
use table::Measure;

/// Measures the detection on labelled data and prints a table; the exit code is 1 if something is below its floor.
#[derive(Parser)]
#[command(name = "accuracy", after_help = EXAMPLES)]
struct Arguments {
    /// A folder that holds `nab`, `cloud-monitoring` and `asd`. What is not there is not measured.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The Numenta Anomaly Benchmark, in its own layout: `data/` and `labels/combined_windows.json`.
    #[arg(long, value_name = "DIR")]
    nab: Option<PathBuf>,
    /// What another detector says about the Numenta Anomaly Benchmark, in the layout of its `results/<detector>`: is scored
    /// beside. May be given several times.
    #[arg(long, value_name = "DIR")]
    results: Vec<PathBuf>,
    /// CSV files with the columns `timestamp`, `value` and `label`, in folders of any depth. May be given several times.
    #[arg(long, value_name = "DIR")]
    labelled: Vec<PathBuf>,
    /// Files `NAME_train.csv` and `NAME_test.csv` without a header, rows five minutes apart; the last column of the
    /// second is the label. May be given several times.
    #[arg(long, value_name = "DIR")]
    entities: Vec<PathBuf>,
    /// The model that judges: `ensemble`, `isolation_forest`, `extended_isolation_forest` or `seasonal_band`. Floors are
    /// those of the ensemble.
    #[arg(long, value_name = "MODEL", default_value = "ensemble", value_parser = model)]
    model: ModelKind,
    /// What to measure.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Suite::ALL)]
    only: Vec<Suite>,
    /// Whether a measure below its floor fails. Floors are those of the data below `--data`.
    #[arg(long, value_enum, default_value_t = Floors::On)]
    floors: Floors,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Writes the scores of every row below this folder.
    #[arg(long, value_name = "DIR")]
    scores: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  accuracy --data ../shared/data
  accuracy --data ../shared/data --only nab,cloud --format markdown
  accuracy --labelled my-series --floors off
  accuracy --only cost";

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// The Numenta Anomaly Benchmark.
    Nab,
    /// Labelled series.
    Cloud,
    /// Entities of several series.
    Asd,
    /// Time per observation, memory per series.
    Cost,
}

impl Suite {
    const ALL: [Self; 4] = [Self::Nab, Self::Cloud, Self::Asd, Self::Cost];
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Floors {
    On,
    Off,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Markdown,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(measures) => report(&arguments, &measures),
        Err(error) => {
            tell(&format!("error: {error}\n"));
            ExitCode::from(2)
        }
    }
}

fn model(name: &str) -> Result<ModelKind, String> {
    let all = ModelKind::ALL.map(ModelKind::as_str);
    let known = ModelKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    known.ok_or_else(|| format!("there is no such model: expected one of {}", all.join(", ")))
}

/// What is measured where. Folders below `--data` that are not there are told.
fn measure(arguments: &Arguments) -> Result<Vec<Measure>, String> {
    let model = ModelOptions { kind: arguments.model, ..ModelOptions::default() };
    let parameters = detection::Parameters { model, ..detection::Parameters::default() };
    let mut bench = Bench { scores: arguments.scores.clone(), parameters, largest: 0 };
    let wanted = |suite| arguments.only.contains(&suite);
    let below = |name: &str| -> Option<PathBuf> {
        let folder = arguments.data.as_ref()?.join(name);
        if !folder.is_dir() {
            tell(&format!("not measured: there is no folder {}\n", folder.display()));
            return None;
        }
        Some(folder)
    };
    let mut measures = Vec::new();
    if wanted(Suite::Nab)
        && let Some(folder) = arguments.nab.clone().or_else(|| below("nab"))
    {
        measures.extend(suites::nab::run(&folder, &mut bench)?);
        for results in &arguments.results {
            measures.extend(suites::nab::others(&folder, results, &name_of(results))?);
        }
    }
    let or_below = |given: &[PathBuf], name: &str| {
        if given.is_empty() { below(name).into_iter().collect() } else { given.to_vec() }
    };
    if wanted(Suite::Cloud) {
        for folder in or_below(&arguments.labelled, "cloud-monitoring") {
            measures.extend(suites::labelled::run(&folder, &name_of(&folder), &mut bench)?);
        }
    }
    if wanted(Suite::Asd) {
        for folder in or_below(&arguments.entities, "asd") {
            measures.extend(suites::entities::run(&folder, &name_of(&folder), &bench)?);
        }
    }
    if wanted(Suite::Cost) {
        if cfg!(debug_assertions) {
            tell("not measured: the cost of an observation, in a build without optimisation (use --release)\n");
        } else {
            measures.extend(suites::cost::run(&mut bench));
        }
    }
    if measures.is_empty() {
        return Err("nothing to measure: give --data, --nab, --labelled or --entities".to_owned());
    }
    Ok(measures)
}

fn name_of(folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn report(arguments: &Arguments, measures: &[Measure]) -> ExitCode {
    let off = arguments.floors == Floors::Off;
    let measures: Vec<Measure> =
        measures.iter().cloned().map(|measure| if off { measure.without_floor() } else { measure }).collect();
    let table = if arguments.format == Format::Text { table::text(&measures) } else { table::markdown(&measures) };
    // A reader that has gone away has seen enough.
    let _ = anstream::stdout().lock().write_all(table.as_bytes());
    let failed = measures.iter().filter(|measure| measure.is_below_floor()).count();
    if failed > 0 {
        tell(&format!("\n{failed} of {} measures are below their floor\n", measures.len()));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn tell(text: &str) {
    // There is nowhere left to say that stderr is gone.
    let _ = anstream::stderr().lock().write_all(text.as_bytes());
}
