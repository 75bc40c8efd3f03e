//! The detector on rows of a file: one series, or several that are one entity.

use detection::{Channel, Entity, Parameters, Quantity, Series, Verdict};
use history::Row;

/// What has been learnt of the rows so far.
#[derive(Clone)]
pub(super) struct Judge {
    columns: Vec<String>,
    series: Vec<Series>,
    /// Where there are several series.
    entity: Option<Entity>,
    parameters: Parameters,
    /// What the last row's series said.
    verdicts: Vec<Verdict>,
    /// The last row of the history; no row may be before it.
    history_ends: Option<f64>,
    last: f64,
}

impl Judge {
    /// One that has learnt from earlier rows with the same columns, or one that knows nothing.
    pub(super) fn continued(learnt: Option<Self>, columns: &[String], step: f64) -> Result<Self, String> {
        let Some(learnt) = learnt else { return Ok(Self::new(columns, step)) };
        if learnt.columns.len() == 1 && columns.len() == 1 || learnt.columns == columns {
            return Ok(learnt);
        }
        let listed = |columns: &[String]| columns.join("`, `");
        let (before, now) = (listed(&learnt.columns), listed(columns));
        Err(format!("the columns of values are `{now}`, but those of the history `{before}`: expected the same, in this order"))
    }

    fn new(columns: &[String], step: f64) -> Self {
        Self {
            columns: columns.to_vec(),
            series: columns.iter().map(|_| Series::new(Quantity::Level, step)).collect(),
            entity: (columns.len() > 1).then(|| Entity::new(step)),
            parameters: Parameters::default(),
            verdicts: Vec::new(),
            history_ends: None,
            last: f64::NEG_INFINITY,
        }
    }

    /// Tells that the rows to come are of another file, and later.
    pub(super) fn end_history(&mut self) {
        self.history_ends = Some(self.last).filter(|last| last.is_finite());
    }

    /// Point, alert and page score of the next row, which is learnt then.
    pub(super) fn judge(&mut self, row: &Row) -> Result<[f64; 3], String> {
        if let Some(end) = self.history_ends
            && row.time <= end
        {
            let stamp = &row.stamp;
            return Err(format!("`{stamp}` is not after the end of its history: a history is what was before"));
        }
        self.last = row.time;
        self.verdicts.clear();
        for (series, value) in self.series.iter_mut().zip(&row.values) {
            self.verdicts.push(series.observe(row.time, *value, f64::NAN, &self.parameters));
        }
        let Some(entity) = &mut self.entity else {
            return Ok(self.verdicts.first().map_or([0.0; 3], |verdict| [verdict.point, verdict.alert, verdict.page]));
        };
        let channels = row.values.iter().zip(&self.verdicts).zip(0..);
        let channels: Vec<Channel<'_>> = channels
            .filter(|((value, _), _)| !value.is_nan())
            .map(|((value, verdict), index)| Channel { index, value: *value, verdict })
            .collect();
        let verdict = entity.observe(row.time, &channels, &self.parameters);
        Ok([verdict.point, verdict.alert, verdict.page])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows five minutes apart; row 1,500 is far out in every column, and one in 97 has no number in the first.
    fn rows(count: u32, columns: u32) -> impl Iterator<Item = Row> {
        (0..count).map(move |row| {
            let value = |column: u32| {
                let noise = f64::from((row * 31 + column * 7).wrapping_mul(2_654_435_761) >> 16) / 65_536.0;
                if row == 1_500 { 90.0 } else { 10.0 + noise }
            };
            let gap = |column: u32| column == 0 && row % 97 == 5;
            let values = (0..columns).map(|column| if gap(column) { f64::NAN } else { value(column) }).collect();
            Row { stamp: row.to_string(), time: f64::from(row) * 300.0, values, label: false }
        })
    }

    fn columns(count: u32) -> Vec<String> {
        (0..count).map(|column| format!("c{column}")).collect()
    }

    fn scores(count: u32, columns_: u32) -> Vec<[f64; 3]> {
        let mut judge = Judge::continued(None, &columns(columns_), 300.0).unwrap();
        rows(count, columns_).map(|row| judge.judge(&row).unwrap()).collect()
    }

    fn learn(judge: &mut Judge, count: u32, columns: u32) {
        for row in rows(count, columns) {
            judge.judge(&row).unwrap();
        }
        judge.end_history();
    }

    #[test]
    fn a_rows_scores_do_not_depend_on_the_rows_after_it() {
        for width in [1, 3] {
            let all = scores(2_000, width);
            for cut in [10, 26, 700, 1_501] {
                assert_eq!(scores(cut, width), all[..cut as usize], "{width} columns, {cut} rows");
            }
        }
    }

    #[test]
    fn every_row_has_its_scores_and_the_odd_one_has_the_highest() {
        for width in [1, 3] {
            let all = scores(2_000, width);
            assert!(all.iter().flatten().all(|score| score.is_finite()));
            let highest = |which: usize| (0..all.len()).max_by(|a, b| all[*a][which].total_cmp(&all[*b][which])).unwrap();
            assert_eq!(highest(2), 1_500, "{width} columns");
            assert!((1_500..1_512).contains(&highest(0)), "what follows it is odd too: {}", highest(0));
        }
        assert_eq!(scores(2_000, 1)[102], [0.0; 3], "a row without a value has no scores");
        let of_gaps = scores(2_000, 3).into_iter().enumerate().filter(|(row, _)| row % 97 == 5);
        assert!(of_gaps.skip(10).any(|(_, scores)| scores[0] > 0.0), "of an entity a gap in one column is not a gap");
    }

    #[test]
    fn what_was_learnt_first_counts_as_if_it_stood_before() {
        for width in [1, 3] {
            let mut history = Judge::continued(None, &columns(width), 300.0).unwrap();
            learn(&mut history, 1_400, width);
            let mut judge = Judge::continued(Some(history), &columns(width), 300.0).unwrap();
            let continued: Vec<_> = rows(2_000, width).skip(1_400).map(|row| judge.judge(&row).unwrap()).collect();
            assert_eq!(continued, scores(2_000, width)[1_400..]);
        }
    }

    #[test]
    fn a_history_of_other_columns_or_of_later_times_is_told() {
        let mut history = Judge::continued(None, &columns(2), 300.0).unwrap();
        learn(&mut history, 30, 2);
        let other = Judge::continued(Some(history.clone()), &columns(3), 300.0).map(|_| ()).unwrap_err();
        let later = history.judge(&rows(1, 2).next().unwrap()).unwrap_err();
        insta::assert_snapshot!(format!("{other}\n{later}"));
    }
}
