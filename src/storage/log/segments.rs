//! The segment files of a log, of which the last is written.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::format::{SEGMENT_HEADER, SegmentHeader, move_records, name, unfinished_name};
use crate::storage::{Files, StorageError, WriteFile};

/// A segment, as far as it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) first: u64,
    /// As its header says.
    pub(super) follows: u64,
    pub(super) length: u64,
}

/// The segment that is written.
pub(super) struct Active {
    pub(super) file: Box<dyn WriteFile>,
    pub(super) mark: u32,
    /// How much of it is on disk.
    pub(super) durable: u64,
    /// How much was written.
    pub(super) written: u64,
}

pub(super) struct Segments {
    pub(super) files: Arc<dyn Files>,
    pub(super) folder: PathBuf,
    /// All segments in order; the active one is the last.
    pub(super) all: VecDeque<Segment>,
    /// None: the next write begins a new segment. Once a new one was tried, there is no way back to the old one,
    /// since a file that was half made may already say that its indices are the new one's.
    pub(super) active: Option<Active>,
    /// A write or sync failed: what stands behind `durable` is unknown.
    pub(super) broken: bool,
    /// The first of the indices that are left out before the next segment, if any are.
    pub(super) left_out: Option<u64>,
}

impl Segments {
    pub(super) fn first(&self) -> Option<u64> {
        self.all.front().map(|s| s.first)
    }

    pub(super) fn size(&self) -> u64 {
        self.all.iter().map(|s| s.length).sum()
    }

    pub(super) fn last(&self) -> Option<Segment> {
        self.all.back().copied()
    }

    /// Whether what was written so far stands as it should.
    pub(super) const fn is_sound(&self) -> bool {
        !self.broken
    }

    /// Whether `bytes` more go into the active segment.
    pub(super) fn has_room(&self, bytes: u64, segment_size: u64) -> bool {
        let fits = |a: &Active| a.written <= SEGMENT_HEADER || a.written.saturating_add(bytes) <= segment_size;
        self.left_out.is_none() && self.active.as_ref().is_some_and(fits)
    }

    pub(super) fn mark_and_durable(&self) -> (u32, u64) {
        self.active.as_ref().map_or((0, 0), |a| (a.mark, a.durable))
    }

    /// Leaves out the indices from `next` to that of the next write. All that was written is synced.
    pub(super) fn leave_out(&mut self, next: u64) {
        self.left_out.get_or_insert(next);
        self.active = None;
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let Some(active) = &mut self.active else { return Err(StorageError("no segment is open".to_owned())) };
        if let Err(e) = active.file.write_all(bytes) {
            self.broken = true;
            return Err(self.error("write", &e));
        }
        active.written += bytes.len() as u64;
        if let Some(last) = self.all.back_mut() {
            last.length = active.written;
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        let Some(active) = &mut self.active else { return Err(StorageError("no segment is open".to_owned())) };
        match active.file.sync() {
            Ok(()) => {
                active.durable = active.written;
                Ok(())
            }
            Err(e) => {
                self.broken = true;
                Err(self.error("sync", &e))
            }
        }
    }

    /// After a failed write or sync: makes the log end with the records that are on disk and `unsynced`, the first of
    /// which has index `first`. In the same file, if it can be cut; else in a new segment, which voids what stands in the
    /// old one from `first` on.
    pub(super) fn repair(&mut self, first: u64, unsynced: &mut [u8]) -> Result<(), StorageError> {
        if let Some(active) = &mut self.active {
            let mut cut = || {
                active.file.cut(active.durable)?;
                active.file.write_all(unsynced)?;
                active.file.sync()
            };
            let done = cut().is_ok();
            active.written = active.durable + if done { unsynced.len() as u64 } else { 0 };
            let length = active.written;
            if let Some(last) = self.all.back_mut() {
                last.length = length;
            }
            if done {
                active.durable = length;
                self.broken = false;
                return Ok(());
            }
        }
        self.begin_with(first, unsynced)
    }

    /// Begins a new segment whose first record will have index `first`.
    pub(super) fn begin(&mut self, first: u64) -> Result<(), StorageError> {
        self.begin_with(first, &mut [])
    }

    fn begin_with(&mut self, first: u64, records: &mut [u8]) -> Result<(), StorageError> {
        self.active = None;
        // One under this name has no record that counts, but for those that go into the new one.
        let follows = match self.all.back() {
            Some(before) if before.first == first => before.follows,
            _ => self.left_out.map_or(first, |left_out| left_out.min(first)),
        };
        let mark = fastrand::u32(1..);
        let header = SegmentHeader { mark, first, follows }.encode();
        move_records(records, mark, SEGMENT_HEADER);
        let (path, unfinished) = (self.folder.join(name(first)), self.folder.join(unfinished_name(first)));
        let make = || {
            let mut file = self.files.create(&unfinished)?;
            file.write_all(&header)?;
            file.write_all(records)?;
            file.sync()?;
            self.files.rename(&unfinished, &path)?;
            self.files.sync_folder(&self.folder)?;
            Ok::<_, io::Error>(file)
        };
        let file = make().map_err(|e| {
            let _ = self.files.remove(&unfinished);
            StorageError(format!("cannot begin the log segment {}: {e}", path.display()))
        })?;
        let written = SEGMENT_HEADER + records.len() as u64;
        self.all.pop_back_if(|s| s.first == first);
        self.all.push_back(Segment { first, follows, length: written });
        self.active = Some(Active { file, mark, durable: written, written });
        self.broken = false;
        self.left_out = self.left_out.filter(|left_out| first <= *left_out);
        Ok(())
    }

    pub(super) fn trim(&mut self, keep_from: u64) -> Result<(), StorageError> {
        while let (Some(oldest), Some(second)) = (self.all.front(), self.all.get(1))
            && second.first <= keep_from
        {
            let path = self.folder.join(name(oldest.first));
            // One at a time: were a later removal to survive a power cut and an earlier not, records would seem lost.
            let removed = match self.files.remove(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            };
            let removed = removed.and_then(|()| self.files.sync_folder(&self.folder));
            removed.map_err(|e| StorageError(format!("cannot remove the log segment {}: {e}", path.display())))?;
            self.all.pop_front();
        }
        Ok(())
    }

    fn error(&self, what: &str, error: &io::Error) -> StorageError {
        let path = self.folder.join(name(self.all.back().map_or(0, |s| s.first)));
        StorageError(format!("cannot {what} the log segment {}: {error}", path.display()))
    }
}
