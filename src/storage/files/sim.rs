//! A file system in memory whose disk fails as told, and which forgets in a power cut what was not synced.
//!
//!     let files = SimFiles::new(7);
//!     files.faults(|f| f.sync_errors = 1);        // the next sync fails
//!     let files = files.power_cut();              // what a machine finds after it
//!
//! Clones share one disk, as processes of one machine do: to "kill" a process is to drop what it held. The same seed and
//! the same calls give the same disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Files, ReadFile, WriteFile};

/// What goes wrong from now on. A count goes down with each error; `u32::MAX` never ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// So many more bytes fit on the disk. Removing and cutting give room back.
    pub(crate) free: Option<u64>,
    /// Nothing can be written, made or removed.
    pub(crate) read_only: bool,
    /// So many writes fail, with a part of the bytes written.
    pub(crate) write_errors: u32,
    /// So many syncs of files fail; some of what was not synced by then never will be, though it can still be read.
    pub(crate) sync_errors: u32,
    /// So many cuts fail.
    pub(crate) cut_errors: u32,
    /// So many creations, renames, removals and syncs of folders fail.
    pub(crate) name_errors: u32,
    /// Files that cannot be read from this byte on.
    pub(crate) unreadable: BTreeMap<PathBuf, u64>,
}

/// A simulated file system.
#[derive(Clone)]
pub(crate) struct SimFiles(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    random: fastrand::Rng,
    faults: Faults,
    files: Vec<Inode>,
    /// As processes see them.
    names: BTreeMap<PathBuf, usize>,
    /// As they are after a power cut, before `name_changes`.
    durable_names: BTreeMap<PathBuf, usize>,
    name_changes: Vec<NameChange>,
    folders: BTreeSet<PathBuf>,
    syncs: u64,
}

#[derive(Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Cut(usize),
}

#[derive(Clone)]
enum NameChange {
    Made { path: PathBuf, file: usize },
    Renamed { from: PathBuf, to: PathBuf, file: usize },
    Removed { path: PathBuf },
}

impl fmt::Debug for SimFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFiles").field("names", &self.disk().names.keys()).finish_non_exhaustive()
    }
}

impl SimFiles {
    /// An empty disk. `seed` decides what survives a power cut and how errors look.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Disk { random: fastrand::Rng::with_seed(seed), ..Disk::default() })))
    }

    /// Sets what goes wrong from now on.
    pub(crate) fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.disk().faults);
    }

    /// From now on nothing goes wrong.
    pub(crate) fn heal(&self) {
        self.disk().faults = Faults::default();
    }

    /// The disk as it is found after the power was cut now, without faults. Of each write that was not synced all, a
    /// part, zeros in its place or nothing is there; each change of a name that was not synced is there or not.
    pub(crate) fn power_cut(&self) -> Self {
        let mut disk = self.disk();
        let mut random = disk.random.fork();
        let mut files = disk.files.clone();
        for file in &mut files {
            file.lose(&mut random);
        }
        let mut names = disk.durable_names.clone();
        for change in &disk.name_changes {
            if random.bool() {
                change.apply(&mut names);
            }
        }
        let folders = disk.folders.clone();
        drop(disk);
        let durable_names = names.clone();
        Self(Arc::new(Mutex::new(Disk { random, files, names, durable_names, folders, ..Disk::default() })))
    }

    /// The disk as it is found after the process was killed now, without faults: all that it wrote is there, though it
    /// may not survive a power cut.
    pub(crate) fn killed(&self) -> Self {
        let disk = self.disk();
        let next = Disk {
            random: disk.random.clone(),
            files: disk.files.clone(),
            names: disk.names.clone(),
            durable_names: disk.durable_names.clone(),
            name_changes: disk.name_changes.clone(),
            folders: disk.folders.clone(),
            ..Disk::default()
        };
        drop(disk);
        Self(Arc::new(Mutex::new(next)))
    }

    /// Changes one bit of a file, as a disk may after years. Whether there is such a byte.
    pub(crate) fn flip(&self, path: &Path, bit: u64) -> bool {
        let mut disk = self.disk();
        let Some(file) = disk.names.get(path).copied() else { return false };
        let file = &mut disk.files[file];
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        for bytes in [&mut file.bytes, &mut file.durable] {
            if let Some(byte) = bytes.get_mut(byte) {
                *byte ^= mask;
            }
        }
        for change in &mut file.changes {
            if let Change::Write { at, bytes } = change
                && let Some(byte) = byte.checked_sub(*at).and_then(|offset| bytes.get_mut(offset))
            {
                *byte ^= mask;
            }
        }
        byte < file.bytes.len()
    }

    /// The bytes of a file as processes see them.
    pub(crate) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let disk = self.disk();
        Some(disk.files[*disk.names.get(path)?].bytes.clone())
    }

    /// Puts a file on the disk, synced.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut disk = self.disk();
        disk.files.push(Inode { durable: bytes.clone(), bytes, changes: Vec::new() });
        let file = disk.files.len() - 1;
        disk.names.insert(path.to_owned(), file);
        disk.durable_names.insert(path.to_owned(), file);
    }

    /// All files, with their lengths.
    pub(crate) fn all(&self) -> Vec<(PathBuf, u64)> {
        let disk = self.disk();
        disk.names.iter().map(|(path, file)| (path.clone(), disk.files[*file].bytes.len() as u64)).collect()
    }

    /// How many syncs of files there were.
    pub(crate) fn syncs(&self) -> u64 {
        self.disk().syncs
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, file: usize) -> Box<dyn WriteFile> {
        Box::new(SimFile { disk: self.clone(), file, position: 0, unreadable: None })
    }
}

fn error(kind: ErrorKind, what: &str) -> io::Error {
    io::Error::new(kind, what.to_owned())
}

/// Whether the error that this counts happens now.
fn happens(count: &mut u32) -> bool {
    let now = *count > 0;
    if *count != u32::MAX {
        *count = count.saturating_sub(1);
    }
    now
}

impl Disk {
    fn may_write(&self) -> io::Result<()> {
        if self.faults.read_only { Err(error(ErrorKind::ReadOnlyFilesystem, "read-only file system")) } else { Ok(()) }
    }

    fn may_name(&mut self) -> io::Result<()> {
        self.may_write()?;
        if happens(&mut self.faults.name_errors) { Err(error(ErrorKind::Other, "input/output error")) } else { Ok(()) }
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| error(ErrorKind::NotFound, "no such file or directory"))
    }

    fn write(&mut self, file: usize, bytes: &[u8]) {
        let file = &mut self.files[file];
        file.changes.push(Change::Write { at: file.bytes.len(), bytes: bytes.to_vec() });
        file.bytes.extend_from_slice(bytes);
        if let Some(free) = &mut self.faults.free {
            *free = free.saturating_sub(bytes.len() as u64);
        }
    }

    fn freed(&mut self, bytes: usize) {
        if let Some(free) = &mut self.faults.free {
            *free += bytes as u64;
        }
    }
}

impl Inode {
    fn cut(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.changes.push(Change::Cut(length));
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { at, bytes } => {
                let end = at + bytes.len();
                if self.durable.len() < end {
                    self.durable.resize(end, 0);
                }
                self.durable[*at..end].copy_from_slice(bytes);
            }
            Change::Cut(length) => self.durable.truncate(*length),
        }
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            self.apply(&change);
        }
    }

    fn lose(&mut self, random: &mut fastrand::Rng) {
        for change in std::mem::take(&mut self.changes) {
            match change {
                Change::Cut(_) if random.bool() => self.apply(&change),
                Change::Cut(_) => {}
                Change::Write { at, bytes } => {
                    let survivor = match random.u8(0..5) {
                        0 => Some(bytes),
                        1 => Some(bytes[..random.usize(0..=bytes.len())].to_vec()),
                        2 => Some(vec![0; random.usize(0..=bytes.len())]),
                        3 => Some(sectors(at, bytes, random)),
                        _ => None,
                    };
                    if let Some(bytes) = survivor {
                        self.apply(&Change::Write { at, bytes });
                    }
                }
            }
        }
        self.bytes = self.durable.clone();
    }
}

/// Some sectors were written, and some were not and are zeros.
fn sectors(at: usize, mut bytes: Vec<u8>, random: &mut fastrand::Rng) -> Vec<u8> {
    const SECTOR: usize = 64; // small, so that small files have many
    let mut lost = false;
    for (offset, byte) in bytes.iter_mut().enumerate() {
        if offset == 0 || (at + offset).is_multiple_of(SECTOR) {
            lost = random.bool();
        }
        if lost {
            *byte = 0;
        }
    }
    bytes
}

impl NameChange {
    fn is_in(&self, folder: &Path) -> bool {
        let (Self::Made { path, .. } | Self::Removed { path } | Self::Renamed { to: path, .. }) = self;
        path.parent() == Some(folder) || matches!(self, Self::Renamed { from, .. } if from.parent() == Some(folder))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Made { path, file } => drop(names.insert(path.clone(), *file)),
            Self::Removed { path } => drop(names.remove(path)),
            Self::Renamed { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl Files for SimFiles {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.folders.contains(folder) {
            disk.may_name()?;
            disk.folders.insert(folder.to_owned());
        }
        Ok(())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>> {
        let disk = self.disk();
        let inside = disk.names.iter().filter(|(path, _)| path.parent() == Some(folder));
        let mut files: Vec<(String, u64)> = inside
            .filter_map(|(path, file)| Some((path.file_name()?.to_str()?.to_owned(), disk.files[*file].bytes.len() as u64)))
            .collect();
        files.sort_unstable();
        Ok(files)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let mut disk = self.disk();
        disk.may_name()?;
        let known = disk.names.get(path).copied();
        let file = match known {
            Some(file) => {
                let length = disk.files[file].bytes.len();
                disk.freed(length);
                disk.files[file].cut(0);
                file
            }
            None => {
                disk.files.push(Inode::default());
                let file = disk.files.len() - 1;
                disk.names.insert(path.to_owned(), file);
                disk.name_changes.push(NameChange::Made { path: path.to_owned(), file });
                file
            }
        };
        drop(disk);
        Ok(self.open(file))
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let disk = self.disk();
        let file = disk.find(path)?;
        disk.may_write()?;
        drop(disk);
        Ok(self.open(file))
    }

    fn read(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let disk = self.disk();
        let (file, unreadable) = (disk.find(path)?, disk.faults.unreadable.get(path).copied());
        drop(disk);
        Ok(Box::new(SimFile { disk: self.clone(), file, position: 0, unreadable }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let file = disk.find(from)?;
        disk.may_name()?;
        let change = NameChange::Renamed { from: from.to_owned(), to: to.to_owned(), file };
        change.apply(&mut disk.names);
        disk.name_changes.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let file = disk.find(path)?;
        disk.may_name()?;
        let length = disk.files[file].bytes.len();
        disk.freed(length);
        let change = NameChange::Removed { path: path.to_owned() };
        change.apply(&mut disk.names);
        disk.name_changes.push(change);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.may_name()?;
        let (now, later) = std::mem::take(&mut disk.name_changes).into_iter().partition(|c| c.is_in(folder));
        disk.name_changes = later;
        let now: Vec<NameChange> = now;
        for change in now {
            change.apply(&mut disk.durable_names);
        }
        Ok(())
    }
}

struct SimFile {
    disk: SimFiles,
    file: usize,
    position: u64,
    unreadable: Option<u64>,
}

impl WriteFile for SimFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.may_write()?;
        if happens(&mut disk.faults.write_errors) {
            let part = disk.random.usize(0..=bytes.len());
            disk.write(self.file, &bytes[..part]);
            return Err(error(ErrorKind::Other, "input/output error"));
        }
        match disk.faults.free {
            Some(free) if free < bytes.len() as u64 => {
                disk.write(self.file, &bytes[..free as usize]);
                Err(error(ErrorKind::StorageFull, "no space left on device"))
            }
            _ => {
                disk.write(self.file, bytes);
                Ok(())
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.syncs += 1;
        if happens(&mut disk.faults.sync_errors) {
            let mut random = disk.random.fork();
            let file = &mut disk.files[self.file];
            // The kernel holds these for written from now on.
            file.changes.retain(|c| matches!(c, Change::Cut(_)) || random.bool());
            return Err(error(ErrorKind::Other, "input/output error"));
        }
        disk.files[self.file].sync();
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.may_write()?;
        if happens(&mut disk.faults.cut_errors) {
            return Err(error(ErrorKind::Other, "input/output error"));
        }
        let freed = disk.files[self.file].bytes.len().saturating_sub(length as usize);
        disk.freed(freed);
        disk.files[self.file].cut(length as usize);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.disk().files[self.file].bytes.len() as u64)
    }
}

impl Read for SimFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let disk = self.disk.disk();
        let bytes = &disk.files[self.file].bytes;
        let begin = (self.position as usize).min(bytes.len());
        let mut end = (begin + buffer.len()).min(bytes.len());
        if let Some(unreadable) = self.unreadable {
            end = end.min(unreadable as usize);
            if end <= begin && !buffer.is_empty() && begin < bytes.len() {
                return Err(error(ErrorKind::Other, "input/output error"));
            }
        }
        let part = &bytes[begin..end];
        buffer[..part.len()].copy_from_slice(part);
        self.position += part.len() as u64;
        Ok(part.len())
    }
}

impl Seek for SimFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let length = self.length()?;
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => length.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| error(ErrorKind::InvalidInput, "before the beginning"))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(files: &SimFiles) -> Option<Vec<u8>> {
        files.content(Path::new("/f/one"))
    }

    #[test]
    fn a_power_cut_takes_only_what_was_not_synced() {
        let mut found = BTreeSet::new();
        for seed in 0..200 {
            let files = SimFiles::new(seed);
            let mut file = files.create(Path::new("/f/one")).unwrap();
            file.write_all(b"kept").unwrap();
            file.sync().unwrap();
            files.sync_folder(Path::new("/f")).unwrap();
            file.write_all(b"not").unwrap();
            files.create(Path::new("/f/two")).unwrap();
            let after = files.power_cut();
            let bytes = one(&after).unwrap();
            assert!(bytes.starts_with(b"kept"), "{bytes:?}");
            found.insert((bytes[4..].to_vec(), after.all().len()));
            assert_eq!(one(&files).unwrap(), b"keptnot", "the machine before the cut is another one");
        }
        for expected in [(b"".to_vec(), 1), (b"not".to_vec(), 2), (b"no".to_vec(), 1), (vec![0; 3], 1)] {
            assert!(found.contains(&expected), "{expected:?} of {found:?}");
        }
    }

    #[test]
    fn a_sync_that_failed_is_not_made_good_by_the_next() {
        let lost = (0..20).filter(|seed| {
            let files = SimFiles::new(*seed);
            let mut file = files.create(Path::new("/f/one")).unwrap();
            files.sync_folder(Path::new("/f")).unwrap();
            file.write_all(b"bytes").unwrap();
            files.faults(|f| f.sync_errors = 1);
            file.sync().unwrap_err();
            file.sync().unwrap();
            assert_eq!(one(&files).unwrap(), b"bytes", "it can still be read");
            one(&files.power_cut()).unwrap().is_empty()
        });
        assert!((5..=15).contains(&lost.count()));
    }

    #[test]
    fn a_full_disk_takes_a_part_and_has_room_again_after_a_removal() {
        let files = SimFiles::new(1);
        files.put(Path::new("/f/two"), vec![0; 10]);
        files.faults(|f| f.free = Some(3));
        let mut file = files.create(Path::new("/f/one")).unwrap();
        assert_eq!(file.write_all(b"12345").unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(one(&files).unwrap(), b"123");
        files.remove(Path::new("/f/two")).unwrap();
        file.cut(0).unwrap();
        file.write_all(b"12345").unwrap();
        assert_eq!(one(&files).unwrap(), b"12345");
    }
}
