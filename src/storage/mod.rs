//! What survives a restart: small values such as poll cursors, logs, checkpoints of learnt states.

mod checkpoint;
mod embedded;
mod files;
mod folder;
mod line_file;
pub mod log;
mod memory;

pub use checkpoint::{CheckpointReader, CheckpointWriter, Checkpoints};
pub use embedded::EmbeddedStorage;
#[cfg(test)]
pub(crate) use files::SimFiles;
pub use files::{DiskFiles, Files, MemoryFiles, ReadFile, WriteFile};
pub use folder::folder_name;
pub use line_file::{LineFile, Rotation};
pub use log::{AppendError, Log, LogOptions, Reader};
#[cfg(test)]
pub(crate) use memory::FullStorage;
pub use memory::MemoryStorage;

/// Why a value could not be read or written: what, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StorageError(pub String);

/// A durable map of bytes. Keys are paths such as `cursor/production/elasticsearch/apm`.
/// Calls block for the length of a disk write; async callers use `spawn_blocking` for large values.
pub trait Storage: Send + Sync {
    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError>;

    /// Sets all `entries` at once, or none of them; on success they are on disk.
    ///
    /// # Errors
    /// When the store cannot be written (a full disk); what was there before is still there.
    fn put(&self, entries: &[(&str, &[u8])]) -> Result<(), StorageError>;
}
