//! The few things that the durable parts ask of a file system, so that tests can put a failing one in its place.
//!
//! What is durable is told in the terms of POSIX: bytes after [`WriteFile::sync`], names (a new file, a rename, a
//! removal) after [`Files::sync_folder`].

mod disk;
mod memory;
#[cfg(test)]
mod sim;

use std::fmt::Debug;
use std::io::{self, Read, Seek};
use std::path::Path;

pub use disk::DiskFiles;
pub use memory::MemoryFiles;
#[cfg(test)]
pub(crate) use sim::SimFiles;

/// A file system. Calls block for as long as the disk takes.
///
/// Every method's error is the operating system's: not found, no space left, read-only, input/output error.
#[expect(clippy::missing_errors_doc, reason = "told once, above")]
pub trait Files: Send + Sync + Debug {
    /// Makes `folder` and the folders above it, durably. That it is there already is no error.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;

    /// The names and lengths (bytes) of the files in `folder`, sorted by name; none when there is no such folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>>;

    /// A new, empty file. What was there under this name is gone.
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// A file that is there, to be written from its end on.
    fn append_to(&self, path: &Path) -> io::Result<Box<dyn WriteFile>>;

    /// A file to be read from its beginning. It can be read while somebody else writes it.
    fn read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>>;

    /// Gives a file another name, at once; what had that name is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// On return, every creation, rename and removal in `folder` survives a power cut.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that is written at its end.
#[expect(clippy::missing_errors_doc, reason = "as for `Files`")]
pub trait WriteFile: Send + Sync {
    /// Appends all of `bytes`. After an error some of them may be in the file.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// On return, all that was written survives a power cut. After an error none of what was written since the last
    /// success can be relied on, and syncing again does not help: the kernel may have dropped it.
    fn sync(&mut self) -> io::Result<()>;

    /// Takes off everything behind the first `length` bytes.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// A file that is read.
pub trait ReadFile: Read + Seek + Send {}

impl<T: Read + Seek + Send> ReadFile for T {}
