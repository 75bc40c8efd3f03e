//! One row, and why there is none.

use std::path::Path;

/// Why a file cannot be read: which file, which line, what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReadError(String);

impl ReadError {
    pub(crate) fn of_file(path: &Path, what: &dyn std::fmt::Display) -> Self {
        Self(format!("{}: {what}", path.display()))
    }

    pub(crate) fn of_line(path: &Path, line: u64, what: &dyn std::fmt::Display) -> Self {
        Self(format!("{}:{line}: {what}", path.display()))
    }

    pub(crate) fn no_time(path: &Path, line: u64, stamp: &str) -> Self {
        let what = format!("`{stamp}` is not a time: expected such as `2026-01-15T10:30:00Z` or Unix seconds");
        Self::of_line(path, line, &what)
    }
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The time as it is written in the file.
    pub stamp: String,
    /// Unix seconds.
    pub time: f64,
    /// One value per column of the table; NaN where there is no number.
    pub values: Vec<f64>,
    /// Whether the row is labelled as anomalous; always false in a table that was opened without labels.
    pub label: bool,
}

impl Row {
    /// The value of the first column; `None` where there is no number.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.values.first().copied().filter(|value| !value.is_nan())
    }
}
