//! Entities of several series, judged jointly: VUS-PR of the entity's score.
//!
//! The layout is that of the Application Server Dataset (Li et al., InterFusion, KDD 2021): for each entity a file
//! `NAME_train.csv` and a file `NAME_test.csv`, without a header and without times, rows five minutes apart; the last
//! column of the second is the label. The detector streams through the first and then the second, and is scored on it.

use std::path::{Path, PathBuf};

use super::{Bench, files_below};
use crate::baseline::Chance;
use crate::table::{Better, Measure};
use crate::vus_pr::vus_pr;
use detection::{Parameters, Quantity, Series};
use history::Table;

/// Mean over the entities: floor and what is wanted.
const VUS_PR: (f64, f64) = (0.40, 0.47);
/// Rows by which a detection may be early or late.
const WINDOW: usize = 12;
const STEP: f64 = 300.0;
/// 2026-01-01, a Thursday; the files do not tell when they begin.
const BEGIN: f64 = 1_767_225_600.0;

/// Scores every pair of files below `folder`.
pub(crate) fn run(folder: &Path, name: &str, bench: &mut Bench) -> Result<Vec<Measure>, String> {
    let tests = files_below(folder, "_test.csv")?;
    if tests.is_empty() {
        return Err(format!("{}: no files NAME_train.csv and NAME_test.csv", folder.display()));
    }
    let bar = bench.progress(name, tests.len());
    let mut of_entities: Vec<(String, [f64; 3])> = Vec::new();
    for (number, test) in tests.iter().enumerate() {
        let file = test.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let entity = file.trim_end_matches("_test.csv").to_owned();
        bar.set_message(entity.clone());
        let judged = judge(&Entity::read(test)?, &bench.parameters, number as u64);
        of_entities.push((entity.clone(), judged.vus_pr()));
        let lines = judged.labels.iter().zip(&judged.detector).enumerate();
        let lines = lines.map(|(row, (label, score))| format!("{row},{},{score}", u8::from(*label)));
        bench.write(&Path::new(name).join(format!("{entity}.csv")), "row,label,entity_score", lines)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mean = |column: usize| {
        let values = of_entities.iter().filter_map(|(_, values)| values.get(column));
        values.sum::<f64>() / of_entities.len() as f64
    };
    let title = format!("{name}, VUS-PR (window {WINDOW}) of the entity score, mean of {}", of_entities.len());
    let mut measures =
        vec![Measure::new(title, Better::Higher, 3).target(VUS_PR.0, VUS_PR.1).of(mean(0)).beside(mean(1), mean(2))];
    measures.extend(of_entities.iter().map(|(entity, [detector, random, time_of_day])| {
        Measure::new(format!("  {entity}"), Better::Higher, 3).of(*detector).beside(*random, *time_of_day)
    }));
    Ok(measures)
}

/// The rows of both files of one entity.
struct Entity {
    /// One value per series, NaN where there is none.
    rows: Vec<Vec<f64>>,
    /// Of the last rows.
    labels: Vec<bool>,
}

impl Entity {
    fn read(test: &Path) -> Result<Self, String> {
        let rows = |path: &Path| -> Result<Vec<Vec<f64>>, String> {
            let table = Table::open_headerless(path, BEGIN, STEP).map_err(|e| e.to_string())?;
            table.map(|row| row.map(|row| row.values).map_err(|e| e.to_string())).collect()
        };
        let mut all = rows(&train_of(test))?;
        let series = all.first().map_or(0, Vec::len);
        let mut labels = Vec::new();
        for mut row in rows(test)? {
            if row.len() != series + 1 {
                return Err(format!("{}: {} columns, expected {series} and the label", test.display(), row.len()));
            }
            labels.push(row.pop().is_some_and(|label| label > 0.0));
            all.push(row);
        }
        Ok(Self { rows: all, labels })
    }
}

fn train_of(test: &Path) -> PathBuf {
    let name = test.file_name().unwrap_or_default().to_string_lossy().replace("_test.csv", "_train.csv");
    test.with_file_name(name)
}

/// Scores of the rows of the second file.
struct Judged {
    labels: Vec<bool>,
    detector: Vec<f64>,
    random: Vec<f64>,
    /// Mean of the series' surprises of the time of day.
    time_of_day: Vec<f64>,
}

impl Judged {
    fn vus_pr(&self) -> [f64; 3] {
        let score = |scores: &[f64]| vus_pr(&self.labels, scores, WINDOW);
        // Scores that are all missing rank anyhow; they are not a measurement.
        let detector = if self.detector.iter().all(|score| score.is_nan()) { f64::NAN } else { score(&self.detector) };
        [detector, score(&self.random), score(&self.time_of_day)]
    }
}

fn judge(entity: &Entity, parameters: &Parameters, seed: u64) -> Judged {
    let mut chance = Chance::new(seed);
    let width = entity.rows.first().map_or(0, Vec::len);
    let mut series: Vec<Series> = (0..width).map(|_| Series::new(Quantity::Level, STEP)).collect();
    let learnt_only = entity.rows.len() - entity.labels.len();
    let mut judged = Judged { labels: entity.labels.clone(), detector: Vec::new(), random: Vec::new(), time_of_day: Vec::new() };
    for (number, row) in entity.rows.iter().enumerate() {
        let time = BEGIN + number as f64 * STEP;
        let surprises = series
            .iter_mut()
            .zip(row)
            .map(|(series, value)| crate::series::time_of_day(&series.observe(time, *value, f64::NAN, parameters).surprises));
        let time_of_day = surprises.sum::<f64>() / width.max(1) as f64;
        if number >= learnt_only {
            judged.detector.push(f64::NAN);
            judged.random.push(chance.uniform());
            judged.time_of_day.push(time_of_day);
        }
    }
    judged
}
