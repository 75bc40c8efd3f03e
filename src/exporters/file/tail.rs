//! What a file of findings holds at its end.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Seek as _, SeekFrom};
use std::path::Path;

use serde::Deserialize;

/// So many bytes are read: much more than an outbox sends again after a crash.
const TAIL: u64 = 8 << 20;

/// What tells a line from all others.
#[derive(Deserialize)]
struct Line {
    id: String,
    /// Only an event of an incident has one.
    sequence: Option<u32>,
}

/// The ids of the last findings in the file at `path`, and in `backup`, the one before it, where the file is short.
/// Lines that are no findings are left out.
pub(super) fn ids(path: &Path, backup: &Path) -> io::Result<HashSet<String>> {
    let mut ids = HashSet::new();
    let read = read(path, TAIL, &mut ids)?;
    self::read(backup, TAIL.saturating_sub(read), &mut ids)?;
    Ok(ids)
}

/// Reads the last `most` bytes; how many there were.
fn read(path: &Path, most: u64, ids: &mut HashSet<String>) -> io::Result<u64> {
    let bytes = match std::fs::metadata(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(0),
        // Only a regular file can be read again.
        other => other.map(|data| if data.is_file() { data.len().min(most) } else { 0 })?,
    };
    if bytes == 0 {
        return Ok(0);
    }
    let mut file = File::open(path)?;
    file.seek(SeekFrom::End(-i64::try_from(bytes).unwrap_or(0)))?;
    for line in BufReader::new(file).split(b'\n') {
        // The first line may be cut off, and the last torn.
        if let Ok(Line { id, sequence }) = serde_json::from_slice(&line?) {
            ids.insert(sequence.map_or_else(|| id.clone(), |sequence| format!("{id}-{sequence}")));
        }
    }
    Ok(bytes)
}
