//! A machine whose power can be cut at any moment: in the middle of any call to its disk, whichever thread makes it.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::storage::{Files, ReadFile, SimFiles, WriteFile};

/// How a machine ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The process is killed: what it wrote is there.
    Kill,
    /// The power is cut: what was not synced may be there, torn, zeros or not at all.
    PowerCut,
}

/// See the module. Whatever still runs on it after its end changes only the disk that nobody will look at.
#[derive(Clone, Debug)]
pub(super) struct Machine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: SimFiles,
    end: End,
    /// Calls to the disk until the end.
    left: AtomicI64,
    /// Set before the disk is taken: what is heard after that was never said.
    dead: CancellationToken,
    after: Mutex<Option<SimFiles>>,
}

impl Machine {
    /// Ends as `end` says at the call to `disk` with the number `at`, or when it is told to.
    pub(super) fn new(disk: SimFiles, end: End, at: Option<i64>) -> Self {
        let left = AtomicI64::new(at.unwrap_or(i64::MAX));
        Self(Arc::new(Inner { disk, end, left, dead: CancellationToken::new(), after: Mutex::new(None) }))
    }

    pub(super) fn disk(&self) -> &SimFiles {
        &self.0.disk
    }

    pub(super) fn is_dead(&self) -> bool {
        self.0.dead.is_cancelled()
    }

    pub(super) async fn died(&self) {
        self.0.dead.cancelled().await;
    }

    /// The end, now.
    pub(super) fn die(&self) {
        let mut after = self.0.after.lock().unwrap();
        if after.is_some() {
            return;
        }
        self.0.dead.cancel();
        *after = Some(match self.0.end {
            End::Kill => self.0.disk.killed(),
            End::PowerCut => self.0.disk.power_cut(),
        });
        // What still runs must come to its end.
        self.0.disk.heal();
    }

    /// The disk as the next machine finds it; the same disk if this one has ended in order.
    pub(super) fn next_disk(&self) -> SimFiles {
        self.0.after.lock().unwrap().clone().unwrap_or_else(|| self.0.disk.clone())
    }

    fn call(&self) {
        if self.0.left.fetch_sub(1, SeqCst) == 1 {
            self.die();
        }
    }
}

struct Written {
    machine: Machine,
    file: Box<dyn WriteFile>,
}

impl WriteFile for Written {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.machine.call();
        self.file.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.machine.call();
        let synced = self.file.sync();
        self.machine.call();
        synced
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.machine.call();
        self.file.cut(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

impl Files for Machine {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.call();
        self.0.disk.make_folder(folder)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>> {
        self.0.disk.list(folder)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.call();
        Ok(Box::new(Written { machine: self.clone(), file: self.0.disk.create(path)? }))
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        self.call();
        Ok(Box::new(Written { machine: self.clone(), file: self.0.disk.append_to(path)? }))
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        self.0.disk.read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call();
        self.0.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call();
        self.0.disk.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.call();
        let synced = self.0.disk.sync_folder(folder);
        self.call();
        synced
    }
}
