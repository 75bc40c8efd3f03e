//! Writing a checkpoint.

use std::path::PathBuf;

use super::{CHUNK_HEAD, Checkpoints, END, END_MARK, FORMAT, HEADER, MAGIC, PREFIX, UNFINISHED, checksum};
use crate::storage::{StorageError, WriteFile};

/// Bytes that are handed to the file at once.
const BUFFER: usize = 1 << 20;
/// Bytes after which what was written is put on disk, so that the end has not everything to wait for.
const SYNC_EVERY: u64 = 64 << 20;

/// A checkpoint that is being written. Dropped before its end, it leaves nothing.
pub struct CheckpointWriter {
    checkpoints: Checkpoints,
    index: u64,
    unfinished: PathBuf,
    file: Box<dyn WriteFile>,
    buffer: Vec<u8>,
    chunks: u64,
    /// Of the chunks' checksums.
    total: u32,
    bytes: u64,
    synced: u64,
    finished: bool,
}

impl std::fmt::Debug for CheckpointWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointWriter").field("index", &self.index).field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

impl CheckpointWriter {
    pub(super) fn new(checkpoints: Checkpoints, index: u64) -> Result<Self, StorageError> {
        let Checkpoints { files, folder } = &checkpoints;
        files.make_folder(folder).map_err(|e| checkpoints.error("make the folder", folder, &e))?;
        let unfinished = folder.join(format!("{PREFIX}{index:020}{UNFINISHED}"));
        let file = files.create(&unfinished).map_err(|e| checkpoints.error("create", &unfinished, &e))?;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&FORMAT.to_le_bytes());
        header.extend_from_slice(&index.to_le_bytes());
        let sum = crc32c::crc32c(&header);
        header.extend_from_slice(&sum.to_le_bytes());
        Ok(Self {
            checkpoints,
            index,
            unfinished,
            file,
            buffer: header,
            chunks: 0,
            total: 0,
            bytes: 0,
            synced: 0,
            finished: false,
        })
    }

    /// Which one it is.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// Appends a chunk of a kind (1 to 255).
    ///
    /// # Errors
    /// When the file cannot be written: this checkpoint is lost, and those before it are in force.
    pub fn chunk(&mut self, kind: u8, bytes: &[u8]) -> Result<(), StorageError> {
        if kind == END {
            return Err(StorageError("a chunk of kind 0 would end the checkpoint".to_owned()));
        }
        let sum = self.append(kind, bytes)?;
        self.total = crc32c::crc32c_append(self.total, &sum.to_le_bytes());
        self.chunks += 1;
        if self.bytes.saturating_sub(self.synced) >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }

    /// From now on it is the newest; all but the one before are removed. Its length in bytes.
    ///
    /// # Errors
    /// As for [`Self::chunk`]. That an older one cannot be removed is no reason to fail.
    pub fn finish(mut self) -> Result<u64, StorageError> {
        let mut mark = [0; END_MARK];
        let (chunks, total) = mark.split_at_mut(8);
        chunks.copy_from_slice(&self.chunks.to_le_bytes());
        total.copy_from_slice(&self.total.to_le_bytes());
        self.append(END, &mark)?;
        self.flush()?;
        self.sync()?;
        let Checkpoints { files, folder } = &self.checkpoints;
        let path = self.checkpoints.path(self.index);
        files.rename(&self.unfinished, &path).map_err(|e| self.checkpoints.error("give its name to", &path, &e))?;
        self.finished = true;
        files.sync_folder(folder).map_err(|e| self.checkpoints.error("write", folder, &e))?;
        if let Err(error) = self.checkpoints.trim() {
            tracing::warn!(%error, "an old checkpoint takes room that it should not");
        }
        Ok(self.bytes)
    }

    fn append(&mut self, kind: u8, bytes: &[u8]) -> Result<u32, StorageError> {
        let length = u32::try_from(bytes.len()).map_err(|_| StorageError("a chunk of more than 4 GiB".to_owned()))?.to_le_bytes();
        let sum = checksum(kind, length, bytes);
        if self.buffer.len() + CHUNK_HEAD + bytes.len() > BUFFER {
            self.flush()?;
        }
        self.buffer.push(kind);
        self.buffer.extend_from_slice(&length);
        self.buffer.extend_from_slice(&sum.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        Ok(sum)
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        self.file.write_all(&self.buffer).map_err(|e| self.checkpoints.error("write", &self.unfinished, &e))?;
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StorageError> {
        self.synced = self.bytes;
        self.file.sync().map_err(|e| self.checkpoints.error("put on disk", &self.unfinished, &e))
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.finished {
            // What stays is removed at the next start.
            let _ = self.checkpoints.files.remove(&self.unfinished);
        }
    }
}
