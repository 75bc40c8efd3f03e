//! Files that hold the whole of a state: the two newest of them are kept.
//!
//! `checkpoint-<index>` is written beside under another name, and gets its own when all of it is on disk. So what has
//! the name was complete once; what a disk did to it since shows in its checksums.
//!
//! ```text
//! header  magic (8 bytes), format (u32), index (u64), CRC-32C of these (u32)
//! chunk   kind (u8), length (u32), CRC-32C of kind, length and bytes (u32), bytes
//! end     a chunk of kind 0: number of chunks (u64), CRC-32C of their checksums (u32); behind it nothing
//! ```
//!
//! Numbers are little endian. What the chunks hold is their owner's affair.

mod reader;
#[cfg(test)]
mod tests;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::reader::CheckpointReader;
use self::reader::Problem;
pub use self::writer::CheckpointWriter;
use super::{Files, StorageError};

const MAGIC: &[u8; 8] = b"ANOMCKPT";
const FORMAT: u32 = 1;
/// Kind of the end mark.
const END: u8 = 0;
/// Bytes in front of a chunk's own.
const CHUNK_HEAD: usize = 9;
const HEADER: usize = 24;
/// Bytes of the end mark, without its head.
const END_MARK: usize = 12;
/// How many are kept.
const KEPT: usize = 2;
const PREFIX: &str = "checkpoint-";
const UNFINISHED: &str = ".unfinished";
/// The ending of one that is damaged.
const DAMAGED: &str = ".damaged";

/// The checkpoints of one folder.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    files: Arc<dyn Files>,
    folder: PathBuf,
}

impl Checkpoints {
    /// Those in `folder`, which is made when the first one is written.
    #[must_use]
    pub const fn new(files: Arc<dyn Files>, folder: PathBuf) -> Self {
        Self { files, folder }
    }

    /// Where they are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The indices of all that are there, newest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<u64>, StorageError> {
        let files = self.files.list(&self.folder).map_err(|e| self.error("read", &self.folder, &e))?;
        let mut all: Vec<u64> = files.iter().filter_map(|(name, _)| index_of(name)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        Ok(all)
    }

    /// Begins the checkpoint at `index`. It is there when [`CheckpointWriter::finish`] returns, and not before.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn create(&self, index: u64) -> Result<CheckpointWriter, StorageError> {
        CheckpointWriter::new(self.clone(), index)
    }

    /// The checkpoint at `index`, chunk by chunk.
    ///
    /// # Errors
    /// When it cannot be read, is of another format, or its beginning or end is damaged.
    pub fn open(&self, index: u64) -> Result<CheckpointReader, StorageError> {
        Ok(CheckpointReader::new(self, index)?)
    }

    /// Takes the checkpoint at `index` out of those that are kept if it is damaged, so that it pushes out none that is whole.
    /// Where it is now, until there are two newer ones. `None` if its bytes are those that were written.
    ///
    /// # Errors
    /// When it cannot be given another name.
    pub fn set_aside(&self, index: u64) -> Result<Option<PathBuf>, StorageError> {
        if !self.is_damaged(index) {
            return Ok(None);
        }
        let path = self.path(index);
        let aside = self.folder.join(format!("{PREFIX}{index:020}{DAMAGED}"));
        let moved = self.files.rename(&path, &aside).and_then(|()| self.files.sync_folder(&self.folder));
        moved.map_err(|e| self.error("set aside", &path, &e))?;
        Ok(Some(aside))
    }

    fn is_damaged(&self, index: u64) -> bool {
        let read_all = || {
            let mut reader = CheckpointReader::new(self, index)?;
            while reader.next_chunk()?.is_some() {}
            Ok(())
        };
        matches!(read_all(), Err(Problem::Damaged(_)))
    }

    /// Removes what a crash left unfinished. Not while one is being written.
    ///
    /// # Errors
    /// When the folder cannot be read, or something cannot be removed from it.
    pub fn tidy(&self) -> Result<(), StorageError> {
        self.remove_all(UNFINISHED)
    }

    /// Removes all but the newest, and what is left of those that could neither be written nor removed.
    fn trim(&self) -> Result<(), StorageError> {
        self.tidy()?;
        let all = self.list()?;
        if all.len() >= KEPT {
            self.remove_all(DAMAGED)?;
        }
        for index in all.into_iter().skip(KEPT) {
            let path = self.path(index);
            self.files.remove(&path).map_err(|e| self.error("remove", &path, &e))?;
        }
        Ok(())
    }

    /// Removes those with this ending.
    fn remove_all(&self, ending: &str) -> Result<(), StorageError> {
        let files = self.files.list(&self.folder).map_err(|e| self.error("read", &self.folder, &e))?;
        for (name, _) in files.iter().filter(|(name, _)| name.starts_with(PREFIX) && name.ends_with(ending)) {
            let path = self.folder.join(name);
            self.files.remove(&path).map_err(|e| self.error("remove", &path, &e))?;
        }
        Ok(())
    }

    fn path(&self, index: u64) -> PathBuf {
        self.folder.join(format!("{PREFIX}{index:020}"))
    }

    #[expect(clippy::unused_self, reason = "reads better where it is used")]
    fn error(&self, what: &str, path: &Path, error: &dyn std::fmt::Display) -> StorageError {
        StorageError(format!("cannot {what} `{}`: {error}", path.display()))
    }
}

fn index_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(PREFIX)?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// The checksum of a chunk.
fn checksum(kind: u8, length: [u8; 4], bytes: &[u8]) -> u32 {
    let [a, b, c, d] = length;
    crc32c::crc32c_append(crc32c::crc32c(&[kind, a, b, c, d]), bytes)
}
