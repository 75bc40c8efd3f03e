//! The operating system's file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;

use super::{Files, ReadFile, WriteFile};

/// Files on the machine's disks.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        // A folder is an entry of the one above it, and as durable as that.
        let above = folder.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(above) = above {
            self.make_folder(above)?;
        }
        match fs::create_dir(folder) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
            Err(e) => Err(e),
            Ok(()) => self.sync_folder(above.unwrap_or(Path::new("."))),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>> {
        let entries = match fs::read_dir(folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry?;
            let data = match entry.metadata() {
                Err(e) if e.kind() == ErrorKind::NotFound => continue, // removed since
                other => other?,
            };
            if let (true, Ok(name)) = (data.is_file(), entry.file_name().into_string()) {
                files.push((name, data.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        // Truncated by hand: the standard library has no append together with truncate.
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        file.set_len(0)?;
        Ok(Box::new(file))
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Elsewhere a folder cannot be opened as a file, and names are the file system's own affair.
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }
}

impl WriteFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        <Self as io::Write>::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn text(path: &Path) -> String {
        let mut text = String::new();
        DiskFiles.read(path).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_is_written_cut_and_written_again_stands_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        assert_eq!(DiskFiles.list(&below).unwrap(), []);
        DiskFiles.make_folder(&below).unwrap();
        DiskFiles.make_folder(&below).unwrap();
        let path = below.join("file");
        let mut file = DiskFiles.create(&path).unwrap();
        file.write_all(b"one two").unwrap();
        file.cut(4).unwrap();
        file.write_all(b"three").unwrap();
        file.sync().unwrap();
        assert_eq!((text(&path).as_str(), file.length().unwrap()), ("one three", 9));
        drop(file);
        DiskFiles.append_to(&path).unwrap().write_all(b"!").unwrap();
        DiskFiles.rename(&path, &below.join("name")).unwrap();
        DiskFiles.sync_folder(&below).unwrap();
        assert_eq!(DiskFiles.list(&below).unwrap(), [("name".to_owned(), 10)]);
        DiskFiles.create(&below.join("name")).unwrap();
        assert_eq!(text(&below.join("name")), "");
        DiskFiles.remove(&below.join("name")).unwrap();
        assert_eq!(DiskFiles.list(&below).unwrap(), []);
    }

    #[test]
    fn only_create_makes_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert_eq!(DiskFiles.append_to(&missing).err().unwrap().kind(), ErrorKind::NotFound);
        assert_eq!(DiskFiles.read(&missing).err().unwrap().kind(), ErrorKind::NotFound);
    }
}
