//! What is measured, one file per kind of data.

pub(crate) mod cost;
pub(crate) mod entities;
pub(crate) mod labelled;
pub(crate) mod nab;

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

/// What all suites share.
pub(crate) struct Bench {
    /// The folder for the scores of each row, if they are wanted.
    pub(crate) scores: Option<PathBuf>,
    /// The one set of parameters that everything is measured with.
    pub(crate) parameters: detection::Parameters,
    /// The largest series seen, in bytes.
    pub(crate) largest: usize,
}

impl Bench {
    /// A progress bar on a terminal, nothing elsewhere.
    pub(crate) fn progress(&self, what: &str, files: usize) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{prefix:<22} {wide_bar} {pos}/{len} {msg}");
        let bar = ProgressBar::new(files as u64).with_prefix(what.to_owned());
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    }

    /// Writes a file below the folder for scores.
    pub(crate) fn write(&self, name: &Path, header: &str, lines: impl Iterator<Item = String>) -> Result<(), String> {
        let Some(folder) = &self.scores else { return Ok(()) };
        let path = folder.join(name);
        let cannot = |e: io::Error| format!("{}: {e}", path.display());
        fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(cannot)?;
        let mut out = io::BufWriter::new(fs::File::create(&path).map_err(cannot)?);
        writeln!(out, "{header}").map_err(cannot)?;
        for line in lines {
            writeln!(out, "{line}").map_err(cannot)?;
        }
        out.flush().map_err(cannot)
    }
}

/// The files below `folder` with that ending, sorted.
pub(crate) fn files_below(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, String> {
    let cannot = |e: io::Error| format!("{}: {e}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.is_dir() {
            found.extend(files_below(&path, ending)?);
        } else if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// A time stamp as a field of a CSV file.
pub(crate) fn field(stamp: &str) -> String {
    if stamp.contains([',', '"']) { format!("\"{}\"", stamp.replace('"', "\"\"")) } else { stamp.to_owned() }
}
