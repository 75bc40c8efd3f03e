//! Rows of which the step is known.

use std::collections::VecDeque;

use crate::row::{ReadError, Row};

/// So many rows are read before the first is given out, to know the step between them. Who judges rows loses nothing by
/// it as long as no row among the first so many can be unusual.
pub const TO_KNOW_THE_STEP: usize = 25;

/// What a row that comes at no later time than the one before is moved by, in seconds: clocks that are put back give
/// such rows, and their values are as good as others.
const A_MOMENT: f64 = 1e-3;

/// Rows one by one, of which the step is known, and of which each is later than the one before.
pub struct Steady<I> {
    rows: I,
    first: VecDeque<Result<Row, ReadError>>,
    step: f64,
    last: f64,
}

impl<I: Iterator<Item = Result<Row, ReadError>>> Steady<I> {
    /// Reads the first rows.
    pub fn new(mut rows: I) -> Self {
        let first: VecDeque<_> = rows.by_ref().take(TO_KNOW_THE_STEP).collect();
        let step = step(first.iter().flatten().map(|row| row.time));
        Self { rows, first, step, last: f64::NEG_INFINITY }
    }

    /// The most usual step of the first rows, in seconds; a minute where there is none.
    #[must_use]
    pub fn step(&self) -> f64 {
        self.step
    }

    /// Where the rows come from.
    #[must_use]
    pub fn source(&self) -> &I {
        &self.rows
    }
}

/// The median of the steps between `times`.
fn step(times: impl Iterator<Item = f64> + Clone) -> f64 {
    let next = times.clone().skip(1);
    let mut steps: Vec<f64> = times.zip(next).map(|(time, next)| next - time).filter(|step| *step > 0.0).collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied().unwrap_or(60.0)
}

impl<I: Iterator<Item = Result<Row, ReadError>>> Iterator for Steady<I> {
    type Item = Result<Row, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.first.pop_front().or_else(|| self.rows.next())?;
        Some(row.map(|mut row| {
            row.time = row.time.max(self.last + A_MOMENT);
            self.last = row.time;
            row
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(times: &[f64]) -> impl Iterator<Item = Result<Row, ReadError>> {
        let row = |time: &f64| Ok(Row { stamp: time.to_string(), time: *time, values: vec![1.0], label: false });
        times.iter().map(row).collect::<Vec<_>>().into_iter()
    }

    #[test]
    fn the_step_is_the_usual_one_and_no_row_is_lost() {
        let times: Vec<f64> = (0..60).map(|row| f64::from(row) * 300.0 + if row > 7 { 900.0 } else { 0.0 }).collect();
        let steady = Steady::new(rows(&times));
        assert_eq!(steady.step(), 300.0);
        assert_eq!(steady.map(|row| row.unwrap().time).collect::<Vec<_>>(), times);
        assert_eq!(Steady::new(rows(&[5.0])).step(), 60.0);
        assert_eq!(Steady::new(rows(&[])).count(), 0);
    }

    #[test]
    fn no_time_goes_back_when_a_clock_does() {
        let times: Vec<f64> = Steady::new(rows(&[0.0, 60.0, 60.0, 30.0, 120.0])).map(|row| row.unwrap().time).collect();
        assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
        assert_eq!((times[0], times[1], times[4]), (0.0, 60.0, 120.0));
    }

    #[test]
    fn a_wrong_row_stays_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "time,value\n0,1\n60,1\nsoon,1\n180,1\n").unwrap();
        let told: Vec<bool> = Steady::new(crate::Table::open(&path).unwrap()).map(|row| row.is_ok()).collect();
        assert_eq!(told, [true, true, false, true]);
    }
}
