//! Rows of files in the order of time, whatever the files are.
//!
//! - CSV, and NDJSON whose lines hold a time and one or several numbers: each number is a series of the file.
//! - NDJSON in the long form, `{"@timestamp", "service"?, "metric"?, "value"}`: a line is one value of one series.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::model::UnixNanos;

/// Rows that are looked at to know the step between them.
const SURVEYED: usize = 2_000;
/// Series of one file that are told apart.
const MAX_NAMES: usize = 1_000_000;

/// Whose values, and of what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    pub(super) service: String,
    pub(super) metric: String,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) time: UnixNanos,
    /// Only numbers.
    pub(super) values: Vec<(Arc<Name>, f64)>,
}

/// What the beginnings of the files tell.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Surveyed {
    /// Seconds between two rows of one series, the median.
    pub(super) step: f64,
    pub(super) notes: Vec<String>,
}

/// Reads the beginnings of all files.
pub(super) fn survey(inputs: &[PathBuf]) -> Result<Surveyed, String> {
    let (mut steps, mut notes) = (Vec::new(), Vec::new());
    for path in inputs {
        let (rows, unread) = open(path)?;
        if !unread.is_empty() {
            notes.push(format!("{}: not read as values: `{}`", path.display(), unread.join("`, `")));
        }
        let mut last: HashMap<Arc<Name>, UnixNanos> = HashMap::new();
        for row in rows.take(SURVEYED) {
            let row = row?;
            for (name, _) in row.values {
                if let Some(before) = last.insert(name, row.time)
                    && row.time > before
                {
                    steps.push((row.time.0 - before.0) as f64 / UnixNanos::SECOND as f64);
                }
            }
        }
    }
    steps.sort_by(f64::total_cmp);
    Ok(Surveyed { step: steps.get(steps.len() / 2).copied().unwrap_or(60.0), notes })
}

type Rows = Box<dyn Iterator<Item = Result<Row, String>> + Send>;

/// The rows of one file, and the names of its columns that are no values.
fn open(path: &Path) -> Result<(Rows, Vec<String>), String> {
    let stem = path.file_stem().map_or_else(|| "file".to_owned(), |stem| stem.to_string_lossy().into_owned());
    if let Some(long) = Long::open(path, &stem)? {
        return Ok((Box::new(long), Vec::new()));
    }
    let table = history::Table::open(path).map_err(|e| e.to_string())?;
    let unread = table.unread().to_vec();
    let name = |metric: &String| Arc::new(Name { service: stem.clone(), metric: metric.clone() });
    let names: Vec<Arc<Name>> = table.columns().iter().map(name).collect();
    let rows = table.map(move |row| {
        let row = row.map_err(|e| e.to_string())?;
        let values = names.iter().zip(&row.values).filter(|(_, value)| value.is_finite());
        Ok(Row { time: nanos(row.time), values: values.map(|(name, value)| (Arc::clone(name), *value)).collect() })
    });
    Ok((Box::new(rows), unread))
}

/// Of Unix seconds, to the microsecond; 0 before 1970.
fn nanos(seconds: f64) -> UnixNanos {
    // A float to integer cast saturates.
    UnixNanos(((seconds * 1e6).round() as u64).saturating_mul(1000))
}

/// The rows of several files, merged by their times.
pub(super) struct Merged {
    files: Vec<(Rows, Option<Row>)>,
    heads: BinaryHeap<Reverse<(UnixNanos, usize)>>,
    /// An error that comes after the rows before it.
    error: Option<String>,
}

impl Merged {
    pub(super) fn open(inputs: &[PathBuf]) -> Result<Self, String> {
        let mut merged = Self { files: Vec::new(), heads: BinaryHeap::new(), error: None };
        for path in inputs {
            merged.files.push((open(path)?.0, None));
            merged.refill(merged.files.len() - 1);
        }
        Ok(merged)
    }

    fn refill(&mut self, file: usize) {
        let Some((rows, head)) = self.files.get_mut(file) else { return };
        match rows.next() {
            Some(Ok(row)) => {
                self.heads.push(Reverse((row.time, file)));
                *head = Some(row);
            }
            Some(Err(error)) => self.error = Some(error),
            None => {}
        }
    }
}

impl Iterator for Merged {
    type Item = Result<Row, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.error.take() {
            self.heads.clear();
            return Some(Err(error));
        }
        let Reverse((_, file)) = self.heads.pop()?;
        let row = self.files.get_mut(file)?.1.take()?;
        self.refill(file);
        Some(Ok(row))
    }
}

/// NDJSON in the long form.
struct Long {
    path: PathBuf,
    lines: std::io::Lines<BufReader<File>>,
    line: u64,
    service: String,
    names: HashMap<Name, Arc<Name>>,
}

impl Long {
    /// `None` where the first line has neither a service nor a metric.
    fn open(path: &Path, stem: &str) -> Result<Option<Self>, String> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        if !matches!(ending.as_str(), "ndjson" | "jsonl" | "json") {
            return Ok(None);
        }
        let lines = || File::open(path).map(|file| BufReader::new(file).lines()).map_err(|e| format!("{}: {e}", path.display()));
        let first = lines()?.map_while(Result::ok).find(|line| !line.trim().is_empty()).unwrap_or_default();
        let Ok(Value::Object(object)) = serde_json::from_str(&first) else { return Ok(None) };
        if ["resourceMetrics", "resourceSpans", "resourceLogs"].iter().any(|key| object.contains_key(*key)) {
            return Err(format!(
                "{}: this is OTLP: expected rows with a time and values; send OTLP to a running daemon instead, or convert it",
                path.display()
            ));
        }
        let object = Value::Object(object);
        let is_long = SERVICE.iter().chain(&["metric"]).any(|key| field(&object, key).is_some_and(Value::is_string));
        if !is_long {
            return Ok(None);
        }
        Ok(Some(Self { path: path.to_owned(), lines: lines()?, line: 0, service: stem.to_owned(), names: HashMap::new() }))
    }

    fn row(&mut self, line: &str) -> Result<Row, String> {
        let wrong = |what: &str| format!("{}:{}: {what}", self.path.display(), self.line);
        let object: Value = serde_json::from_str(line).map_err(|e| wrong(&format!("no JSON object: {e}")))?;
        let stamp = ["@timestamp", "timestamp", "time"].iter().find_map(|key| field(&object, key));
        let time = match stamp {
            Some(Value::String(text)) => history::seconds(text),
            Some(Value::Number(number)) => history::seconds(&number.to_string()),
            _ => None,
        };
        let Some(time) = time else {
            let found = stamp.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            return Err(wrong(&format!("no time: expected `@timestamp` such as `2026-01-15T10:30:00Z`, found {found}")));
        };
        let text = |key: &str| field(&object, key).and_then(Value::as_str).map(str::to_owned);
        let name = Name {
            service: SERVICE.iter().find_map(|key| text(key)).unwrap_or_else(|| self.service.clone()),
            metric: text("metric").unwrap_or_else(|| "value".to_owned()),
        };
        let value = match field(&object, "value") {
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::Null) | None => None,
            Some(other) => return Err(wrong(&format!("`value` must be a number, found {other}"))),
        };
        let name = match self.names.get(&name) {
            Some(known) => Arc::clone(known),
            None if self.names.len() >= MAX_NAMES => {
                return Err(wrong(&format!(
                    "more than {MAX_NAMES} different series: is `metric` or `service` something that never repeats?"
                )));
            }
            None => {
                let shared = Arc::new(name.clone());
                self.names.insert(name, Arc::clone(&shared));
                shared
            }
        };
        Ok(Row { time: nanos(time), values: value.filter(|v| v.is_finite()).map(|v| (name, v)).into_iter().collect() })
    }
}

const SERVICE: [&str; 2] = ["service", "service.name"];

/// The field `a.b` of `{"a.b": ...}` or `{"a": {"b": ...}}`; a service may also be `{"name": ...}`.
fn field<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    let found = object.get(key).or_else(|| key.split_once('.').and_then(|(first, rest)| object.get(first)?.get(rest)))?;
    Some(found)
}

impl Iterator for Long {
    type Item = Result<Row, String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = self.lines.next()?;
            self.line += 1;
            match line {
                Ok(line) if line.trim().is_empty() => {}
                Ok(line) => return Some(self.row(&line)),
                Err(error) => return Some(Err(format!("{}:{}: {error}", self.path.display(), self.line))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
        for (path, (_, text)) in paths.iter().zip(files) {
            std::fs::write(path, text).unwrap();
        }
        let said = |row: Row| {
            let values: Vec<String> = row.values.iter().map(|(n, v)| format!("{}/{}={v}", n.service, n.metric)).collect();
            format!("{} {}", row.time.secs(), values.join(" "))
        };
        let rows = Merged::open(&paths).and_then(|rows| rows.map(|row| row.map(said)).collect());
        rows.map_err(|e: String| e.replace(&folder.path().display().to_string(), "FOLDER"))
    }

    #[test]
    fn files_of_all_forms_come_together_in_the_order_of_time() {
        let rows = read(&[
            ("host.csv", "timestamp,cpu,memory\n60,1,10\n180,2,\n"),
            (
                "long.ndjson",
                "{\"@timestamp\":\"1970-01-01T00:02:00Z\",\"service\":\"shop\",\"metric\":\"orders\",\"value\":5}\n\n\
                 {\"@timestamp\":240000000000,\"service\":{\"name\":\"cart\"},\"value\":7}\n",
            ),
            ("wide.jsonl", "{\"time\":90,\"queue\":3}\n"),
        ])
        .unwrap();
        assert_eq!(
            rows,
            ["60 host/cpu=1 host/memory=10", "90 wide/queue=3", "120 shop/orders=5", "180 host/cpu=2", "240000000 cart/value=7"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        let told: Vec<String> = [
            ("a.ndjson", "{\"metric\":\"x\",\"value\":1}\n"),
            ("b.ndjson", "{\"metric\":\"x\",\"time\":1,\"value\":\"high\"}\n"),
            ("c.ndjson", "{\"metric\":\"x\",\"time\":1,\"value\":1}\nnonsense\n"),
            ("d.json", "{\"resourceMetrics\":[]}\n"),
        ]
        .iter()
        .map(|file| read(&[*file]).unwrap_err())
        .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn the_step_is_the_median_of_all_series() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        std::fs::write(&path, "time,v\n0,1\n300,2\n600,3\n1500,4\n1800,4\n").unwrap();
        assert_eq!(survey(&[path]).unwrap().step, 300.0);
    }
}
