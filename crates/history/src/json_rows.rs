//! Rows of a file with a JSON object in each line.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::columns::{self, Kind, listed};
use crate::row::{ReadError, Row};
use crate::time::{from_number, seconds};

/// The rows of an open NDJSON file. The first object tells the fields; `{"a":{"b":1}}` and `{"a.b":1}` are the same.
pub(crate) struct JsonRows {
    path: PathBuf,
    first: Option<Fields>,
    lines: BufReader<File>,
    line: u64,
    position: u64,
    time: String,
    values: Vec<String>,
    label: Option<String>,
}

/// What an object holds, nested names joined by dots.
type Fields = Vec<(String, Value)>;

impl JsonRows {
    /// The rows, the names of the values, and the names of what is left unread.
    pub(crate) fn open(path: &Path, labels: bool) -> Result<(Self, Vec<String>, Vec<String>), ReadError> {
        let file = File::open(path).map_err(|e| ReadError::of_file(path, &e))?;
        let mut rows = Self {
            path: path.to_owned(),
            first: None,
            lines: BufReader::new(file),
            line: 0,
            position: 0,
            time: String::new(),
            values: Vec::new(),
            label: None,
        };
        let Some(first) = rows.object()? else {
            return Err(ReadError::of_file(path, &"no rows: expected a JSON object in each line"));
        };
        let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
        let wrong = |what: &str, expected: &str| {
            let told = format!("no field of {what}: expected one called `{expected}`, found {}", listed(&names));
            ReadError::of_line(path, rows.line, &told)
        };
        let named = |kind| names.iter().find(|name| columns::kind(name) == kind).copied();
        let time = named(Kind::Time).ok_or_else(|| wrong("times", "@timestamp"))?.to_owned();
        let label = named(Kind::Label).filter(|_| labels).map(str::to_owned);
        if labels && label.is_none() {
            return Err(wrong("labels", "label"));
        }
        let others = first.iter().filter(|(name, _)| columns::kind(name) == Kind::Value);
        let (numbers, text): (Vec<_>, Vec<_>) = others.partition(|(_, value)| matches!(value, Value::Number(_) | Value::Null));
        let candidates: Vec<&str> = numbers.iter().map(|(name, _)| name.as_str()).collect();
        let is_read = columns::read(&candidates);
        let chosen = |wanted: bool| {
            let pairs = candidates.iter().zip(&is_read).filter(move |(_, read)| **read == wanted);
            pairs.map(|(name, _)| (*name).to_owned())
        };
        let values: Vec<String> = chosen(true).collect();
        if values.is_empty() {
            return Err(wrong("values", "value"));
        }
        let unread = text.iter().map(|(name, _)| name.clone()).chain(chosen(false)).collect();
        (rows.time, rows.label, rows.values) = (time, label, values.clone());
        rows.first = Some(first);
        Ok((rows, values, unread))
    }

    /// Bytes of the file that have been read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next object of the file.
    fn object(&mut self) -> Result<Option<Fields>, ReadError> {
        let mut text = String::new();
        loop {
            text.clear();
            self.line += 1;
            let read = self.lines.read_line(&mut text).map_err(|e| ReadError::of_line(&self.path, self.line, &e))?;
            self.position += read as u64;
            if read == 0 {
                return Ok(None);
            }
            if text.trim().is_empty() {
                continue;
            }
            let object: Map<String, Value> = serde_json::from_str(text.trim_start_matches('\u{feff}').trim()).map_err(|e| {
                // The line that serde_json counts is the only one it is given.
                let (what, line) = (e.to_string(), self.line);
                let what = what.split(" at line ").next().unwrap_or_default();
                let example = "{\"@timestamp\":\"2026-01-15T10:30:00Z\",\"value\":1}";
                ReadError::of_line(&self.path, line, &format!("expected a JSON object such as `{example}`: {what}"))
            })?;
            let mut fields = Fields::new();
            flatten("", object, &mut fields);
            return Ok(Some(fields));
        }
    }

    fn row(&self, fields: &Fields) -> Result<Row, ReadError> {
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value);
        let (stamp, time) = match field(&self.time) {
            Some(Value::String(text)) => (text.clone(), seconds(text)),
            Some(Value::Number(number)) => (number.to_string(), number.as_f64().and_then(from_number)),
            Some(other) => (other.to_string(), None),
            None => {
                return Err(ReadError::of_line(&self.path, self.line, &format!("no field `{}`", self.time)));
            }
        };
        let time = time.ok_or_else(|| ReadError::no_time(&self.path, self.line, &stamp))?;
        let value = |name: &String| field(name).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let values = self.values.iter().map(value).collect();
        let label = self.label.as_deref().and_then(field).is_some_and(|label| match label {
            Value::Bool(label) => *label,
            Value::String(text) => columns::is_anomalous(text),
            other => other.as_f64().is_some_and(|number| number > 0.0),
        });
        Ok(Row { stamp, time, values, label })
    }
}

fn flatten(prefix: &str, object: Map<String, Value>, fields: &mut Fields) {
    for (name, value) in object {
        let name = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Object(inner) => flatten(&name, inner, fields),
            value => fields.push((name, value)),
        }
    }
}

impl Iterator for JsonRows {
    type Item = Result<Row, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let fields = match self.first.take() {
            Some(first) => first,
            None => match self.object() {
                Ok(Some(fields)) => fields,
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            },
        };
        Some(self.row(&fields))
    }
}
