//! How far each target has come, on disk: a small file that is written anew and renamed.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::record::Position;
use crate::storage::Files;

const NAME: &str = "cursors.json";

/// How far one target has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Index in the outbox's log of the first record that it may not have.
    pub(super) next: u64,
    /// The last that it has of what entries brought: at or below this, nothing is sent to it again.
    pub(super) position: Option<Position>,
}

/// All targets of an outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursors {
    pub(super) targets: BTreeMap<Arc<str>, Cursor>,
}

/// Reads the file; none when there is none yet.
pub(super) fn load(files: &dyn Files, folder: &Path) -> io::Result<Option<Cursors>> {
    let mut text = Vec::new();
    match files.read(&folder.join(NAME)) {
        Ok(mut file) => file.read_to_end(&mut text)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    Ok(Some(serde_json::from_slice(&text)?))
}

/// Writes the file. On return it is on disk; else the one before is.
pub(super) fn save(files: &dyn Files, folder: &Path, cursors: &Cursors) -> io::Result<()> {
    let (new, path) = (folder.join("cursors.new"), folder.join(NAME));
    let mut file = files.create(&new)?;
    file.write_all(&serde_json::to_vec(cursors)?)?;
    file.sync()?;
    files.rename(&new, &path)?;
    files.sync_folder(folder)
}
