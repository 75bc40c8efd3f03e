//! A file system in memory that never fails.

use std::collections::BTreeMap;
use std::io::{self, Cursor, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anomalyd::storage::{Files, ReadFile, WriteFile};

type Content = Arc<Mutex<Vec<u8>>>;

/// Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<BTreeMap<PathBuf, Content>>>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Memory {
    /// Puts a file there.
    pub(crate) fn put(&self, path: PathBuf, content: Vec<u8>) {
        lock(&self.0).insert(path, Arc::new(Mutex::new(content)));
    }

    /// A file's content; nothing where there is none.
    pub(crate) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.file(path).ok().map(|file| lock(&file).clone())
    }

    fn file(&self, path: &Path) -> io::Result<Content> {
        lock(&self.0).get(path).cloned().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

struct Writer(Content);

impl WriteFile for Writer {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        lock(&self.0).truncate(usize::try_from(length).unwrap_or(usize::MAX));
        Ok(())
    }
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.0).len() as u64)
    }
}

impl Files for Memory {
    fn make_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>> {
        let files = lock(&self.0);
        let inside = files.iter().filter(|(path, _)| path.parent() == Some(folder));
        let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(inside.map(|(path, content)| (name(path), lock(content).len() as u64)).collect())
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.put(path.to_owned(), Vec::new());
        self.append_to(path)
    }
    fn append_to(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        Ok(Box::new(Writer(self.file(path)?)))
    }
    fn read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(Cursor::new(lock(&*self.file(path)?).clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = lock(&self.0);
        let content = files.remove(from).ok_or(ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        lock(&self.0).remove(path).map(drop).ok_or_else(|| ErrorKind::NotFound.into())
    }
    fn sync_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
