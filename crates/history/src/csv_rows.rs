//! Rows of a CSV file.

use std::fs::File;
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord, StringRecordsIntoIter, Trim};

use crate::columns::{self, Kind, listed, number};
use crate::row::{ReadError, Row};
use crate::time::seconds;

/// The rows of an open CSV file.
pub(crate) struct CsvRows {
    path: PathBuf,
    /// The first row, which told what the columns hold.
    first: Option<StringRecord>,
    rest: StringRecordsIntoIter<File>,
    clock: Clock,
    values: Vec<usize>,
    label: Option<usize>,
}

/// Where a row's time comes from.
enum Clock {
    Column(usize),
    /// The next row's Unix seconds, and how far it is to the one after it.
    Steps {
        next: f64,
        step: f64,
    },
}

impl CsvRows {
    /// The rows, the names of the values, and the names of what is left unread.
    pub(crate) fn open(path: &Path, labels: bool) -> Result<(Self, Vec<String>, Vec<String>), ReadError> {
        let wrong = |what: &dyn std::fmt::Display| ReadError::of_file(path, what);
        let file = File::open(path).map_err(|e| wrong(&e))?;
        let mut reader = ReaderBuilder::new().trim(Trim::All).flexible(true).from_reader(file);
        let headers = reader.headers().map_err(|e| wrong(&e))?;
        let names: Vec<String> = headers.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
        let found = if names.is_empty() { "nothing".to_owned() } else { listed(&names) };
        let wrong = |what: &dyn std::fmt::Display| ReadError::of_line(path, 1, what);
        if !names.is_empty() && names.iter().all(|name| name.parse::<f64>().is_ok()) {
            return Err(wrong(
                &"numbers where the names of columns are expected: put a line such as `timestamp,cpu,memory` before it, and a \
                 column of times into each row",
            ));
        }
        let place = |kind| names.iter().position(|name| columns::kind(name) == kind);
        let time = place(Kind::Time)
            .ok_or_else(|| wrong(&format!("no column of times: expected one called `timestamp`, found {found}")))?;
        let label = place(Kind::Label).filter(|_| labels);
        if labels && label.is_none() {
            return Err(wrong(&format!("no column of labels: expected one called `label`, found {found}")));
        }
        let mut rest = reader.into_records();
        let first = rest.next().transpose().map_err(|e| ReadError::of_file(path, &e))?;
        let holds_text = |place: usize| {
            let cell = first.as_ref().and_then(|row| row.get(place));
            cell.is_some_and(|cell| number(cell).is_none())
        };
        let others = names.iter().enumerate().filter(|(_, name)| columns::kind(name) == Kind::Value);
        let (text, numbers): (Vec<_>, Vec<_>) = others.partition(|(place, _)| holds_text(*place));
        let candidates: Vec<&str> = numbers.iter().map(|(_, name)| name.as_str()).collect();
        let is_read = columns::read(&candidates);
        let chosen =
            |wanted: bool| numbers.iter().zip(&is_read).filter(move |(_, read)| **read == wanted).map(|(column, _)| *column);
        let values: Vec<usize> = chosen(true).map(|(place, _)| place).collect();
        if values.is_empty() {
            return Err(wrong(&format!("no column of values: expected one called `value`, found {found}")));
        }
        let unread = text.iter().copied().chain(chosen(false)).map(|(_, name)| name.clone()).collect();
        let columns = chosen(true).map(|(_, name)| name.clone()).collect();
        Ok((Self { path: path.to_owned(), first, rest, clock: Clock::Column(time), values, label }, columns, unread))
    }

    /// The rows and the names of the values of a file without a header.
    pub(crate) fn headerless(path: &Path, begin: f64, step: f64) -> Result<(Self, Vec<String>), ReadError> {
        let wrong = |what: &dyn std::fmt::Display| ReadError::of_file(path, what);
        let file = File::open(path).map_err(|e| wrong(&e))?;
        let reader = ReaderBuilder::new().trim(Trim::All).flexible(true).has_headers(false).from_reader(file);
        let mut rest = reader.into_records();
        let first = rest.next().transpose().map_err(|e| wrong(&e))?;
        let width = first.as_ref().map_or(0, StringRecord::len);
        if let Some(text) = first.iter().flatten().find(|cell| number(cell).is_none()) {
            return Err(ReadError::of_line(path, 1, &format!("expected numbers, found `{text}`")));
        }
        let clock = Clock::Steps { next: begin, step };
        let columns = (1..=width).map(|column| column.to_string()).collect();
        Ok((Self { path: path.to_owned(), first, rest, clock, values: (0..width).collect(), label: None }, columns))
    }

    /// Bytes of the file that have been read.
    pub(crate) fn position(&self) -> u64 {
        self.rest.reader().position().byte()
    }

    fn row(&mut self, record: &StringRecord) -> Result<Row, ReadError> {
        let (stamp, time) = match &mut self.clock {
            Clock::Column(column) => {
                let stamp = record.get(*column).unwrap_or("");
                let Some(time) = seconds(stamp) else {
                    let line = record.position().map_or(0, csv::Position::line);
                    return Err(ReadError::no_time(&self.path, line, stamp));
                };
                (stamp.to_owned(), time)
            }
            Clock::Steps { next, step } => {
                let time = *next;
                *next += *step;
                (time.to_string(), time)
            }
        };
        let values = self.values.iter().map(|column| record.get(*column).and_then(number).unwrap_or(f64::NAN)).collect();
        let label = self.label.and_then(|column| record.get(column)).is_some_and(columns::is_anomalous);
        Ok(Row { stamp, time, values, label })
    }
}

impl Iterator for CsvRows {
    type Item = Result<Row, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = match self.first.take() {
            Some(first) => first,
            None => match self.rest.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(ReadError::of_file(&self.path, &error))),
            },
        };
        Some(self.row(&record))
    }
}
