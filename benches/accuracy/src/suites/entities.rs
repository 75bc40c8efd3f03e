//! Entities of several series, judged jointly: VUS-PR of the entity's score.
//!
//! The layout is that of the Application Server Dataset (Li et al., InterFusion, KDD 2021): for each entity a file
//! `NAME_train.csv` and a file `NAME_test.csv`, without a header and without times, rows five minutes apart; the last
//! column of the second is the label. Files with names of columns, times and `label` are read too. The detector streams
//! through the first and then the second, and is scored on it.

use std::path::{Path, PathBuf};

use super::{Bench, files_below};
use crate::baseline::Chance;
use crate::table::{Better, Measure};
use crate::vus_pr::vus_pr;
use detection::{Channel, Quantity, Series, Verdict};
use history::{Steady, Table};

/// Mean over the entities: floor and what is wanted.
const VUS_PR: (f64, f64) = (0.40, 0.47);
/// Rows by which a detection may be early or late.
const WINDOW: usize = 12;
const STEP: f64 = 300.0;
/// 2026-01-01, a Thursday; the files do not tell when they begin.
const BEGIN: f64 = 1_767_225_600.0;

/// Scores every pair of files below `folder`.
pub(crate) fn run(folder: &Path, name: &str, bench: &Bench) -> Result<Vec<Measure>, String> {
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
        let judged = judge(&Entity::read(test)?, bench, number as u64);
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
    /// Unix seconds, ascending.
    times: Vec<f64>,
    /// One value per series, NaN where there is none.
    rows: Vec<Vec<f64>>,
    /// Of the last rows.
    labels: Vec<bool>,
    step: f64,
}

impl Entity {
    fn read(test: &Path) -> Result<Self, String> {
        let mut entity = Self { times: Vec::new(), rows: Vec::new(), labels: Vec::new(), step: STEP };
        entity.append(&train_of(test), false)?;
        entity.append(test, true)?;
        Ok(entity)
    }

    fn append(&mut self, path: &Path, labelled: bool) -> Result<(), String> {
        let begin = self.times.last().map_or(BEGIN, |last| last + STEP);
        // A first line of names is not one of numbers.
        let headerless = Table::open_headerless(path, begin, STEP).ok();
        let label_is_last = labelled && headerless.is_some();
        let table = match headerless {
            Some(table) => table,
            None if labelled => Table::open_labelled(path).map_err(|e| e.to_string())?,
            None => Table::open(path).map_err(|e| e.to_string())?,
        };
        let rows = Steady::new(table);
        if self.rows.is_empty() {
            self.step = rows.step();
        }
        for row in rows {
            let mut row = row.map_err(|e| e.to_string())?;
            let label = if label_is_last { row.values.pop().is_some_and(|label| label > 0.0) } else { row.label };
            let width = self.rows.first().map_or(row.values.len(), Vec::len);
            if row.values.len() != width {
                return Err(format!("{}: {} series, expected {width}", path.display(), row.values.len()));
            }
            if self.times.last().is_some_and(|last| row.time <= *last) {
                return Err(format!("{}: begins before its train file ends", path.display()));
            }
            if labelled {
                self.labels.push(label);
            }
            self.times.push(row.time);
            self.rows.push(row.values);
        }
        Ok(())
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
        [&self.detector, &self.random, &self.time_of_day].map(|scores| vus_pr(&self.labels, scores, WINDOW))
    }
}

fn judge(entity: &Entity, bench: &Bench, seed: u64) -> Judged {
    let mut chance = Chance::new(seed);
    let width = entity.rows.first().map_or(0, Vec::len);
    let mut series: Vec<Series> = (0..width).map(|_| Series::new(Quantity::Level, entity.step)).collect();
    let mut together = detection::Entity::new(entity.step);
    let learnt_only = entity.rows.len() - entity.labels.len();
    let mut judged = Judged { labels: entity.labels.clone(), detector: Vec::new(), random: Vec::new(), time_of_day: Vec::new() };
    for (number, (time, row)) in entity.times.iter().zip(&entity.rows).enumerate() {
        let verdicts: Vec<Verdict> = series
            .iter_mut()
            .zip(row)
            .map(|(series, value)| series.observe(*time, *value, f64::NAN, &bench.parameters))
            .collect();
        let channels = row.iter().zip(&verdicts).zip(0..);
        let channels: Vec<Channel<'_>> =
            channels.map(|((value, verdict), index)| Channel { index, value: *value, verdict }).collect();
        let point = together.observe(*time, &channels, &bench.parameters).point;
        if number >= learnt_only {
            judged.detector.push(point);
            judged.random.push(chance.uniform());
            let surprises = verdicts.iter().map(|verdict| crate::series::time_of_day(&verdict.surprises));
            judged.time_of_day.push(surprises.sum::<f64>() / width.max(1) as f64);
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_and_without_names_of_columns_hold_the_same_entity() {
        let folder = tempfile::tempdir().unwrap();
        let entity = |name: &str, train: &str, test: &str| {
            std::fs::write(folder.path().join(format!("{name}_train.csv")), train).unwrap();
            let path = folder.path().join(format!("{name}_test.csv"));
            std::fs::write(&path, test).unwrap();
            Entity::read(&path)
        };
        let plain = entity("a", "1,2\n3,4\n", "5,6,0\n7,,1\n").unwrap();
        let named = entity("b", "time,x,y\n0,1,2\n60,3,4\n", "time,x,label,y\n120,5,0,6\n180,7,1,\n").unwrap();
        for entity in [&plain, &named] {
            assert_eq!(entity.rows[..3], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
            assert!(entity.rows[3][0] == 7.0 && entity.rows[3][1].is_nan());
            assert_eq!(entity.labels, [false, true]);
        }
        assert_eq!((plain.step, named.step), (300.0, 60.0));
        assert_eq!(named.times, [0.0, 60.0, 120.0, 180.0]);
        let told = |result: Result<Entity, String>| result.map(|_| ()).unwrap_err();
        assert!(told(entity("c", "1,2\n", "5,6\n")).contains("1 series, expected 2"));
        assert!(told(entity("d", "time,x\n60,1\n", "time,x,label\n0,1,0\n")).contains("before its train file ends"));
    }
}
