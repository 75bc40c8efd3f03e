//! Reading a checkpoint.

use std::io::{BufReader, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::{CHUNK_HEAD, Checkpoints, END, END_MARK, FORMAT, HEADER, MAGIC, checksum};
use crate::storage::{ReadFile, StorageError};

/// Why a checkpoint cannot be read.
#[derive(Debug)]
pub(super) enum Problem {
    /// Its bytes are not those that were written.
    Damaged(String),
    /// Anything else: the disk does not give it, another version wrote it.
    Other(StorageError),
}

impl From<Problem> for StorageError {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::Damaged(sentence) => Self(sentence),
            Problem::Other(error) => error,
        }
    }
}

/// The chunks of a checkpoint: kind and bytes of each. It was whole when it ends without an error.
pub struct CheckpointReader {
    file: BufReader<Box<dyn ReadFile>>,
    path: PathBuf,
    /// Bytes that are not read yet.
    left: u64,
    chunks: u64,
    total: u32,
    ended: bool,
}

impl std::fmt::Debug for CheckpointReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckpointReader").field("path", &self.path).field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

impl CheckpointReader {
    pub(super) fn new(checkpoints: &Checkpoints, index: u64) -> Result<Self, Problem> {
        let path = checkpoints.path(index);
        let failed = |e: std::io::Error| Problem::Other(checkpoints.error("read", &path, &e));
        let mut file = checkpoints.files.read(&path).map_err(failed)?;
        let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let mut reader = Self {
            file: BufReader::with_capacity(1 << 16, file),
            path: path.clone(),
            left: length,
            chunks: 0,
            total: 0,
            ended: false,
        };
        let header: [u8; HEADER] = reader.exactly("header")?;
        let (told, sum) = header.split_at(HEADER - 4);
        let (magic, rest) = told.split_at(MAGIC.len());
        let (format, number) = rest.split_at(4);
        if magic != MAGIC {
            return Err(reader.damaged("it does not begin as a checkpoint does"));
        }
        if crc32c::crc32c(told).to_le_bytes() != sum {
            return Err(reader.damaged("its header does not match its checksum"));
        }
        if format != FORMAT.to_le_bytes() {
            let sentence = format!("`{}` is of another format: another version of anomalyd wrote it", reader.path.display());
            return Err(Problem::Other(StorageError(sentence)));
        }
        if number != index.to_le_bytes() {
            return Err(reader.damaged("its header tells another index than its name"));
        }
        Ok(reader)
    }

    /// The next chunk; none at the end.
    pub(super) fn next_chunk(&mut self) -> Result<Option<(u8, Vec<u8>)>, Problem> {
        let [kind, a, b, c, d, sum @ ..]: [u8; CHUNK_HEAD] = self.exactly("end")?;
        let length = [a, b, c, d];
        let count = u32::from_le_bytes(length);
        // A length that is damaged must not take memory that nobody has.
        if u64::from(count) > self.left {
            return Err(self.damaged("a chunk is longer than what is there"));
        }
        let mut bytes = vec![0; count as usize];
        self.fill(&mut bytes)?;
        if checksum(kind, length, &bytes).to_le_bytes() != sum {
            return Err(self.damaged(&format!("chunk {} does not match its checksum", self.chunks)));
        }
        if kind != END {
            self.total = crc32c::crc32c_append(self.total, &sum);
            self.chunks += 1;
            return Ok(Some((kind, bytes)));
        }
        let mut mark = [0; END_MARK];
        let (chunks, total) = mark.split_at_mut(8);
        chunks.copy_from_slice(&self.chunks.to_le_bytes());
        total.copy_from_slice(&self.total.to_le_bytes());
        if bytes != mark || self.left > 0 {
            return Err(self.damaged("its end mark does not match what is before it"));
        }
        Ok(None)
    }

    fn exactly<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        if self.left < N as u64 {
            return Err(self.damaged(&format!("it has no {what}")));
        }
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Problem> {
        let failed = |e| Problem::Other(StorageError(format!("cannot read `{}`: {e}", self.path.display())));
        self.file.read_exact(bytes).map_err(failed)?;
        self.left = self.left.saturating_sub(bytes.len() as u64);
        Ok(())
    }

    fn damaged(&self, how: &str) -> Problem {
        Problem::Damaged(format!("`{}` is damaged: {how}", self.path.display()))
    }
}

impl Iterator for CheckpointReader {
    type Item = Result<(u8, Vec<u8>), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.next_chunk().map_err(StorageError::from).transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}
