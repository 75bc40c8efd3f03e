//! Files that are in memory and nowhere else: for what runs without a data directory.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Files, ReadFile, WriteFile};

/// Files in memory; gone with the last clone.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(Arc<Mutex<BTreeMap<PathBuf, Content>>>);

/// The bytes of one file. Who has it open keeps it, whatever becomes of its name.
#[derive(Clone, Debug, Default)]
struct Content(Arc<Mutex<Vec<u8>>>);

impl Content {
    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryFiles {
    fn names(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Content>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, path: &Path) -> io::Result<Content> {
        self.names().get(path).cloned().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Files for MemoryFiles {
    fn make_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>> {
        let names = self.names();
        let inside = names.iter().filter(|(path, _)| path.parent() == Some(folder));
        Ok(inside.filter_map(|(path, file)| Some((path.file_name()?.to_str()?.to_owned(), file.bytes().len() as u64))).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let file = Content::default();
        self.names().insert(path.to_owned(), file.clone());
        Ok(Box::new(file))
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(self.find(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(Reading { file: self.find(path)?, at: 0 }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        let file = names.remove(from).ok_or(ErrorKind::NotFound)?;
        names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.names().remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for Content {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes().extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.bytes().truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }
}

struct Reading {
    file: Content,
    at: u64,
}

impl Read for Reading {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.bytes();
        let mut rest = usize::try_from(self.at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let read = rest.read(into)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Reading {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => (self.file.bytes().len() as u64).checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Log, LogOptions, Reader};

    #[test]
    fn a_log_in_memory_is_read_while_it_is_written_and_trimmed() {
        let files: Arc<dyn Files> = Arc::new(MemoryFiles::default());
        let options = LogOptions { segment_size: 200, max_size: 2000 };
        let (mut log, _) = Log::open(Arc::clone(&files), "log".into(), options).unwrap();
        let mut reader = Reader::open(Arc::clone(&files), "log".into(), 0).unwrap();
        for round in 0..100u64 {
            log.append_unsynced(&[[round as u8; 50]]).unwrap();
            reader.stop_before(log.next());
            assert_eq!(reader.read().unwrap().unwrap(), (round, &[round as u8; 50][..]));
            assert!(reader.read().is_none());
            log.trim(round).unwrap();
        }
        assert!(files.list(Path::new("log")).unwrap().len() <= 3);
    }
}
