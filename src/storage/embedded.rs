//! The embedded store: one redb file in `data_dir`. A transaction is on disk when `put` returns.

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

impl EmbeddedStorage {
    /// Opens the store in `data_dir`, making both if they are not there.
    ///
    /// # Errors
    /// When the folder cannot be made, another process has the store open, or the file is damaged.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        std::fs::create_dir_all(data_dir).map_err(|e| {
            StorageError(format!(
                "cannot make the data directory `{}`: {e}; set `storage.data_dir` to a writable folder",
                data_dir.display()
            ))
        })?;
        let path = data_dir.join("state.redb");
        let database = Database::create(&path).map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => StorageError(format!(
                "`{}` is in use by another anomalyd: stop it, or give this one a `storage.data_dir` of its own",
                path.display()
            )),
            other => StorageError(format!("cannot open `{}`: {other}", path.display())),
        })?;
        Ok(Self { database, path })
    }

    fn error(&self, what: &str, error: impl std::fmt::Display) -> StorageError {
        StorageError(format!("cannot {what} `{}`: {error}", self.path.display()))
    }
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
    fn a_second_process_is_told_that_the_store_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let _first = EmbeddedStorage::open(dir.path()).unwrap();
        let error = EmbeddedStorage::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("in use by another anomalyd"), "{error}");
    }
}
