//! Where the text of configuration files comes from, and positions in it.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The longest file that is read. Configuration that is longer is a mistake (a log, a binary).
const LONGEST: usize = 4 << 20;

/// Gives the bytes of files by path.
pub trait Files {
    /// The content of the file at `path`.
    ///
    /// # Errors
    /// As the file system says it.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        use io::Read as _;
        let mut bytes = Vec::new();
        // One byte more than allowed tells that there is more; devices and pipes end here too.
        std::fs::File::open(path)?.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Files that exist only in memory, by path.
#[derive(Clone, Debug, Default)]
pub struct Texts(HashMap<PathBuf, Vec<u8>>);

impl Texts {
    /// The same with one file more.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>, content: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.into(), content.into());
        self
    }
}

impl Files for Texts {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Reads text: the path's content, or why it cannot be used.
pub(super) fn read_text(files: &dyn Files, path: &Path) -> Result<String, String> {
    let bytes = files.read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "reading it is not permitted".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        _ => error.to_string(),
    })?;
    if bytes.len() > LONGEST {
        return Err(format!("it is longer than {} MiB", LONGEST >> 20));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(before).filter(|b| **b == b'\n').count();
        format!("it is not UTF-8 text (line {line})")
    })
}

/// One of the files that were read, by the order of reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FileId(pub(super) usize);

/// A part of a file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Span {
    pub(super) file: FileId,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A file that was read.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// As people named it.
    pub(super) name: String,
    pub(super) text: String,
    /// What of the text is secret, in bytes.
    pub(super) secrets: Vec<Range<usize>>,
}

/// One line of a file.
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: usize,
    /// Where it begins in the file, in bytes.
    pub(super) start: usize,
    /// Without its end.
    pub(super) text: &'a str,
}

impl Source {
    /// The line that byte `at` is in.
    pub(super) fn line(&self, at: usize) -> Line<'_> {
        let (mut number, mut start) = (1, 0);
        for text in self.text.split_inclusive('\n') {
            let end = start + text.len();
            if at < end || end == self.text.len() {
                return Line { number, start, text: text.trim_end_matches(['\n', '\r']) };
            }
            number += 1;
            start = end;
        }
        Line { number: 1, start: 0, text: "" }
    }
}
