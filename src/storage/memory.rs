//! A store that forgets: for the demo and for tests.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Storage, StorageError};

/// Keeps values until the process ends.
#[derive(Debug, Default)]
pub struct MemoryStorage(Mutex<HashMap<String, Vec<u8>>>);

impl Storage for MemoryStorage {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned())
    }

    fn put(&self, entries: &[(&str, &[u8])]) -> Result<(), StorageError> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in entries {
            map.insert((*key).to_owned(), value.to_vec());
        }
        Ok(())
    }
}

/// For tests: a store that once refuses to write, when it is told to.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct FullStorage {
    /// Whether the next write fails.
    pub(crate) full: std::sync::atomic::AtomicBool,
    inner: MemoryStorage,
}

#[cfg(test)]
impl Storage for FullStorage {
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>, StorageError> {
        self.inner.get(key)
    }

    fn put(&self, entries: &[(&str, &[u8])]) -> Result<(), StorageError> {
        if self.full.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(StorageError("no space left on device".to_owned()));
        }
        self.inner.put(entries)
    }
}
