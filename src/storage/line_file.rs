//! A file of lines that is only ever appended to, and in which a full disk leaves no half line.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use super::StorageError;

/// When a file is put aside, and how many old ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file is put aside before it would grow beyond this many bytes.
    pub max_size: u64,
    /// How many files that were put aside are kept: `name.1` is the newest.
    pub backups: u32,
}

/// A file of lines (NDJSON). It is opened for each write, so somebody else may move it away at any time.
#[derive(Clone, Debug)]
pub struct LineFile {
    path: PathBuf,
    rotation: Option<Rotation>,
}

impl LineFile {
    /// The file at `path`. It and its folders are made when the first line is written.
    #[must_use]
    pub const fn new(path: PathBuf, rotation: Option<Rotation>) -> Self {
        Self { path, rotation }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends `lines`, each of which ends in a newline. On success they are on disk; else none of them is in the
    /// file, so that they can be appended again. Blocks for the length of a disk write.
    ///
    /// # Errors
    /// When the file cannot be written: which, and why.
    pub fn append(&self, lines: &[u8]) -> Result<(), StorageError> {
        self.try_append(lines).map_err(|e| StorageError(format!("cannot write {}: {e}", self.path.display())))
    }

    fn try_append(&self, lines: &[u8]) -> std::io::Result<()> {
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = self.open()?;
        let mut length = file.metadata()?.len();
        if let Some(rotation) = self.rotation
            && length > 0
            && length.saturating_add(lines.len() as u64) > rotation.max_size
        {
            drop(file);
            self.rotate(rotation.backups)?;
            file = self.open()?;
            length = file.metadata()?.len();
        }
        let torn = ends_within_a_line(&mut file, length)?;
        let written = if torn { file.write_all(b"\n") } else { Ok(()) };
        let written = written.and_then(|()| file.write_all(lines)).and_then(|()| file.sync_data());
        if written.is_err() {
            // What did not fit is taken out again; if even that fails, the next append ends the torn line.
            let _ = file.set_len(length);
        }
        written
    }

    fn open(&self) -> std::io::Result<File> {
        OpenOptions::new().create(true).append(true).read(true).open(&self.path)
    }

    /// `name` becomes `name.1`, `name.1` becomes `name.2`, and so on; the oldest is overwritten.
    fn rotate(&self, backups: u32) -> std::io::Result<()> {
        if backups == 0 {
            return std::fs::remove_file(&self.path);
        }
        for n in (1..backups).rev() {
            match std::fs::rename(self.backup(n), self.backup(n + 1)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.backup(1))
    }

    /// The path of the `n`th file that was put aside; the first is the newest.
    #[must_use]
    pub fn backup(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }
}

/// Whether the last write was cut short by the end of the process or the machine.
fn ends_within_a_line(file: &mut File, length: u64) -> std::io::Result<bool> {
    if length == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_and_folders_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = LineFile::new(folder.path().join("a/b/lines.ndjson"), None);
        file.append(b"1\n").unwrap();
        file.append(b"2\n3\n").unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "1\n2\n3\n");
    }

    #[test]
    fn a_line_that_a_crash_left_torn_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let file = LineFile::new(folder.path().join("lines"), None);
        std::fs::write(file.path(), "1\n{\"to").unwrap();
        file.append(b"2\n").unwrap();
        assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "1\n{\"to\n2\n");
    }

    #[test]
    fn files_are_put_aside_before_they_grow_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let file = LineFile::new(folder.path().join("lines"), Some(Rotation { max_size: 4, backups: 2 }));
        for n in 1..=7 {
            file.append(format!("{n}\n").as_bytes()).unwrap();
        }
        file.append(b"a line longer than the limit goes alone\n").unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).ok();
        assert_eq!(read("lines").as_deref(), Some("a line longer than the limit goes alone\n"));
        assert_eq!(read("lines.1").as_deref(), Some("7\n"));
        assert_eq!(read("lines.2").as_deref(), Some("5\n6\n"));
        assert_eq!(read("lines.3"), None);
    }

    #[test]
    fn a_path_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = LineFile::new(folder.path().to_owned(), None).append(b"1\n").unwrap_err();
        assert!(error.0.starts_with(&format!("cannot write {}: ", folder.path().display())), "{error}");
    }

    /// `/dev/full` answers every write as a full disk does.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let error = LineFile::new("/dev/full".into(), None).append(b"1\n").unwrap_err();
        assert!(error.0.contains("No space left on device"), "{error}");
    }
}
