//! CSV files with a column of times and a column of values, read row by row.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::time::seconds;

/// Why a file cannot be read: which file, which line, what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TableError(String);

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The time as it is written in the file.
    pub stamp: String,
    /// Unix seconds.
    pub time: f64,
    /// The value; `None` where there is no number.
    pub value: Option<f64>,
}

/// An open CSV file: `timestamp` (or `time`, `date`, `@timestamp`) and one more column, of which `value` goes first.
/// Names may have any case. A column `label` or `is_anomaly` is never looked at.
pub struct Table {
    path: PathBuf,
    rows: csv::StringRecordsIntoIter<File>,
    time: usize,
    value: usize,
}

impl Table {
    /// Opens `path` and finds its columns.
    ///
    /// # Errors
    /// When the file cannot be opened, or does not have one column of times and one of values.
    pub fn open(path: &Path) -> Result<Self, TableError> {
        let wrong = |what: &dyn std::fmt::Display| TableError(format!("{}: {what}", path.display()));
        let file = File::open(path).map_err(|e| wrong(&e))?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).flexible(true).from_reader(file);
        let headers = reader.headers().map_err(|e| wrong(&e))?.clone();
        let names: Vec<String> = headers.iter().map(|name| name.trim_start_matches('\u{feff}').to_lowercase()).collect();
        let is_time = |name: &str| matches!(name, "timestamp" | "time" | "date" | "datetime" | "@timestamp");
        let is_label = |name: &str| matches!(name, "label" | "labels" | "is_anomaly" | "anomaly");
        let listed = || names.join("`, `");
        let time = names.iter().position(|name| is_time(name)).ok_or_else(|| {
            wrong(&format!("line 1: no column of times: expected one called `timestamp`, found `{}`", listed()))
        })?;
        let others: Vec<usize> =
            (0..names.len()).filter(|&i| names.get(i).is_some_and(|n| !is_time(n) && !is_label(n))).collect();
        let value = match (names.iter().position(|name| name == "value"), others.as_slice()) {
            (Some(value), _) => value,
            (None, [only]) => *only,
            (None, []) => {
                return Err(wrong(&format!("line 1: no column of values: expected one called `value`, found `{}`", listed())));
            }
            (None, several) => {
                return Err(wrong(&format!(
                    "line 1: {} columns of values, `{}`: judging several together is not built yet; name one of them `value`",
                    several.len(),
                    several.iter().filter_map(|&i| names.get(i)).map(String::as_str).collect::<Vec<_>>().join("`, `")
                )));
            }
        };
        Ok(Self { path: path.to_owned(), rows: reader.into_records(), time, value })
    }
}

impl Iterator for Table {
    type Item = Result<Row, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.rows.reader().position().line();
        let record = match self.rows.next()? {
            Ok(record) => record,
            Err(error) => return Some(Err(TableError(format!("{}: {error}", self.path.display())))),
        };
        let stamp = record.get(self.time).unwrap_or("");
        let Some(time) = seconds(stamp) else {
            let line = record.position().map_or(line, csv::Position::line);
            return Some(Err(TableError(format!(
                "{}:{line}: `{stamp}` is not a time: expected such as `2026-01-15T10:30:00Z` or Unix seconds",
                self.path.display()
            ))));
        };
        let value = record.get(self.value).and_then(|text| text.parse().ok()).filter(|value: &f64| value.is_finite());
        Some(Ok(Row { stamp: stamp.to_owned(), time, value }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Row>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.csv");
        std::fs::write(&path, text).unwrap();
        let rows = Table::open(&path).and_then(Iterator::collect);
        rows.map_err(|e| e.to_string().replace(&folder.path().display().to_string(), "FOLDER"))
    }

    #[test]
    fn columns_are_found_by_name_in_any_case_and_labels_are_not_looked_at() {
        let rows =
            read("\u{feff}TimeStamp, Value ,Label\n2018-07-03 14:00:00,1.5,0\n2018-07-03 15:00:00,,1\n1530633600,NaN\n").unwrap();
        let values: Vec<_> = rows.iter().map(|row| (row.time, row.value)).collect();
        assert_eq!(values, [(1_530_626_400.0, Some(1.5)), (1_530_630_000.0, None), (1_530_633_600.0, None)]);
        assert_eq!(rows[0].stamp, "2018-07-03 14:00:00");
        assert_eq!(read("time,cpu\n0,3\n").unwrap()[0].value, Some(3.0));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        let told: Vec<String> = ["value\n1\n", "time,label\n0,1\n", "time,cpu,memory\n0,1,2\n", "time,value\n0,1\nsoon,2\n", ""]
            .iter()
            .map(|text| read(text).unwrap_err())
            .collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}
