//! A folder of labelled series: recall, false alarms and precision of pages.

use std::path::Path;

use super::{Bench, field, files_below};
use crate::events::{Events, Outcome};
use crate::series::{Rows, judge};
use crate::table::{Better, Measure};

/// Floor and what is wanted, at the default threshold of the page score.
const RECALL: (f64, f64) = (0.28, 0.36);
const FALSE_ALARMS: (f64, f64) = (0.015, 0.015);
const PRECISION: (f64, f64) = (0.78, 0.82);
/// Rates of false alarms per series and day, and the recall up to them: floor and what is wanted.
const RECALL_WITHIN: [(f64, f64, f64); 2] = [(0.06, 0.45, 0.55), (0.11, 0.58, 0.68)];

/// Scores every CSV below `folder`; `name` stands before each measure.
pub(crate) fn run(folder: &Path, name: &str, bench: &mut Bench) -> Result<Vec<Measure>, String> {
    let files = files_below(folder, ".csv")?;
    if files.is_empty() {
        return Err(format!("{}: no CSV files", folder.display()));
    }
    let bar = bench.progress(name, files.len());
    let (mut detector, mut random, mut time_of_day) = (Events::default(), Events::default(), Events::default());
    let mut findings = Events::default();
    for (number, path) in files.iter().enumerate() {
        let file = path.file_name().unwrap_or_default();
        bar.set_message(file.to_string_lossy().into_owned());
        let rows = Rows::read(path, true)?;
        let judged = judge(&rows, &bench.parameters, number as u64);
        bench.largest = bench.largest.max(judged.bytes);
        for (events, scores) in
            [(&mut detector, &judged.detector), (&mut random, &judged.random), (&mut time_of_day, &judged.time_of_day)]
        {
            events.add(&rows.times, &rows.labels, &scores.page);
        }
        findings.add(&rows.times, &rows.labels, &judged.findings);
        let scores = judged.point.iter().zip(&judged.detector.alert).zip(&judged.detector.page);
        let lines = rows.stamps.iter().zip(&rows.values).zip(scores);
        let lines =
            lines.map(|((stamp, value), ((point, alert), page))| format!("{},{value},{point},{alert},{page}", field(stamp)));
        let target = Path::new(name).join(file);
        bench.write(&target, "timestamp,value,point_score,alert_score,page_score", lines)?;
        bar.inc(1);
    }
    bar.finish_and_clear();

    let threshold = bench.parameters.page_threshold;
    let at_default = detector.at(threshold);
    // The baselines have no default: they are given the threshold that makes as many false alarms.
    let level = |events: &Events| events.at(events.threshold_within(at_default.false_alarms));
    let (chance, day) = (level(&random), level(&time_of_day));
    let page = format!("{name}, page_score >= {threshold} (default)");
    let of = |what: &str, better, decimals, (floor, wanted): (f64, f64), pick: fn(&Outcome) -> f64| {
        let measure = Measure::new(format!("{page}: {what}"), better, decimals).target(floor, wanted);
        measure.of(pick(&at_default)).beside(pick(&chance), pick(&day))
    };
    let mut measures = vec![
        of("recall", Better::Higher, 3, RECALL, |outcome| outcome.recall),
        of("false alarms per series-day", Better::Lower, 4, FALSE_ALARMS, |outcome| outcome.false_alarms),
        of("precision", Better::Higher, 3, PRECISION, |outcome| outcome.precision),
    ];
    for (rate, floor, wanted) in RECALL_WITHIN {
        let recall = |events: &Events| events.at(events.threshold_within(rate)).recall;
        let at = detector.threshold_within(rate);
        let name = format!("{name}, recall at up to {rate} false alarms per series-day (page_score >= {at:.3})");
        let measure = Measure::new(name, Better::Higher, 3).target(floor, wanted);
        measures.push(measure.of(recall(&detector)).beside(recall(&random), recall(&time_of_day)));
    }
    let reported = findings.at(threshold);
    let of = |what: &str, better, decimals, value: f64| {
        Measure::new(format!("{name}, findings (after warm-up, once per incident): {what}"), better, decimals).of(value)
    };
    measures.extend([
        of("recall", Better::Higher, 3, reported.recall),
        of("false alarms per series-day", Better::Lower, 4, reported.false_alarms),
        of("precision", Better::Higher, 3, reported.precision),
    ]);
    Ok(measures)
}
