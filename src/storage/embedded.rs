//! The embedded store: one redb file in `data_dir`. A transaction is on disk when `put` returns.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase as _, TableDefinition, TableError};

use super::{Storage, StorageError};

const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");

/// `state.redb` in the data directory. Only one process can have it open.
#[derive(Debug)]
pub struct EmbeddedStorage {
    database: Database,
    path: PathBuf,
}

/// Why a file is not open.
enum NotOpen {
    /// What is in it is no store any more, for this reason.
    Damaged(String),
    /// It may be well, and cannot be had.
    Error(StorageError),
}

impl EmbeddedStorage {
    /// Opens the store in `data_dir`, making both if they are not there. A damaged file is set aside, which is told, and
    /// a new one made: what it held begins anew, and everything else in the folder is of use without it.
    ///
    /// # Errors
    /// When the folder or the file cannot be made, or another process has the store open.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        std::fs::create_dir_all(data_dir).map_err(|e| {
            StorageError(format!(
                "cannot make the data directory `{}`: {e}; set `storage.data_dir` to a writable folder",
                data_dir.display()
            ))
        })?;
        let path = data_dir.join("state.redb");
        let why = match whole(&path) {
            Ok(database) => return Ok(Self { database, path }),
            Err(NotOpen::Error(error)) => return Err(error),
            Err(NotOpen::Damaged(why)) => why,
        };
        let error = |error: StorageError| {
            StorageError(format!("`{}` is damaged ({why}), and cannot be set aside: {error}", path.display()))
        };
        let aside = set_aside(&path).map_err(|e| error(StorageError(e.to_string())))?;
        tracing::error!(
            "`{}` was damaged ({why}) and is now `{}`: how far receivers had read is taken from the input logs, and where they \
             do not tell it receivers begin anew; what detectors have learnt is not in it",
            path.display(),
            aside.display()
        );
        match whole(&path) {
            Ok(database) => Ok(Self { database, path }),
            Err(NotOpen::Error(new) ) => Err(new),
            Err(NotOpen::Damaged(new)) => Err(error(StorageError(new))),
        }
    }

    fn error(&self, what: &str, error: impl std::fmt::Display) -> StorageError {
        StorageError(format!("cannot {what} `{}`: {error}", self.path.display()))
    }
}

/// Opens the file if all of it is as it was written.
fn whole(path: &Path) -> Result<Database, NotOpen> {
    // A damaged file may lead anywhere, also to where its reader gives up in its own way.
    let opened = std::panic::catch_unwind(|| {
        let mut database = Database::create(path)?;
        database.check_integrity()?;
        Ok(database)
    });
    let error = match opened {
        Ok(Ok(database)) => return Ok(database),
        Ok(Err(error)) => error,
        Err(_) => return Err(NotOpen::Damaged("it cannot be read".to_owned())),
    };
    Err(match error {
        DatabaseError::DatabaseAlreadyOpen => NotOpen::Error(StorageError(format!(
            "`{}` is in use by another anomalyd: stop it, or give this one a `storage.data_dir` of its own",
            path.display()
        ))),
        DatabaseError::Storage(redb::StorageError::Corrupted(why)) => NotOpen::Damaged(why),
        DatabaseError::Storage(redb::StorageError::Io(e))
            if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof | ErrorKind::InvalidInput) =>
        {
            NotOpen::Damaged(e.to_string())
        }
        other => NotOpen::Error(StorageError(format!("cannot open `{}`: {other}", path.display()))),
    })
}

/// Gives the file another name, which nothing has; that name.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let name = |number: u32| match number {
        1 => path.with_extension("redb.damaged"),
        n => path.with_extension(format!("redb.damaged-{n}")),
    };
    let aside = (1..).map(name).find(|aside| !aside.exists()).unwrap_or_else(|| name(0));
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

impl Storage for EmbeddedStorage {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let read = self.database.begin_read().map_err(|e| self.error("read", e))?;
        let table = match read.open_table(VALUES) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(self.error("read", e)),
        };
        let value = table.get(key).map_err(|e| self.error("read", e))?;
        Ok(value.map(|v| v.value().to_vec()))
    }

    fn put(&self, entries: &[(&str, &[u8])]) -> Result<(), StorageError> {
        let write = self.database.begin_write().map_err(|e| self.error("write", e))?;
        {
            let mut table = write.open_table(VALUES).map_err(|e| self.error("write", e))?;
            for (key, value) in entries {
                table.insert(*key, *value).map_err(|e| self.error("write", e))?;
            }
        }
        write.commit().map_err(|e| self.error("write", e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = EmbeddedStorage::open(dir.path()).unwrap();
            assert_eq!(store.get("cursor/a").unwrap(), None);
            store.put(&[("cursor/a", b"1"), ("cursor/b", b"2")]).unwrap();
        }
        let store = EmbeddedStorage::open(dir.path()).unwrap();
        assert_eq!(store.get("cursor/a").unwrap().as_deref(), Some(b"1".as_slice()));
        assert_eq!(store.get("cursor/b").unwrap().as_deref(), Some(b"2".as_slice()));
    }

    #[test]
    fn a_damaged_store_is_set_aside_and_a_new_one_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.redb");
        let put = || {
            let store = EmbeddedStorage::open(dir.path()).unwrap();
            for n in 0..200 {
                store.put(&[(&format!("cursor/{n}"), &[n as u8; 500])]).unwrap();
            }
        };
        put();
        let good = std::fs::read(&path).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut damages: Vec<Vec<u8>> = vec![b"no store at all".to_vec(), good[..good.len() / 2].to_vec(), vec![0; good.len()]];
        for _ in 0..20 {
            let mut bytes = good.clone();
            let at = random.usize(0..bytes.len());
            let end = (at + random.usize(1..5000)).min(bytes.len());
            bytes[at..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            damages.push(bytes);
        }
        let mut aside = 0;
        for bytes in damages {
            std::fs::write(&path, bytes).unwrap();
            let store = EmbeddedStorage::open(dir.path()).unwrap();
            for n in 0..200 {
                // What was not hit is what it was.
                let value = store.get(&format!("cursor/{n}")).unwrap();
                assert!(value.is_none_or(|value| value == [n as u8; 500]), "{n}");
            }
            store.put(&[("cursor/new", b"1")]).unwrap();
            aside = std::fs::read_dir(dir.path()).unwrap().count() - 1;
        }
        assert!(aside > 5, "{aside} damaged files");
    }

    #[test]
    fn a_second_process_is_told_that_the_store_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let _first = EmbeddedStorage::open(dir.path()).unwrap();
        let error = EmbeddedStorage::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("in use by another anomalyd"), "{error}");
    }
}
