//! The log: records in order, each with an index that is never given twice, in segment files.
//!
//! What [`Log::append`] has returned is on disk. What it refused is not in the log. Damage costs the records that it
//! hit and no others, is told in a sentence, and never keeps a log from opening.
//!
//! | what is found | what happens |
//! |---|---|
//! | the last write torn, or zeros in its place (a power cut) | left out; nobody was told that it is kept |
//! | bytes that changed after they were safe | stepped over; a copy of the segment goes to `set_aside/` |
//! | a file in which no record can be read | moved to `set_aside/` |
//! | a segment of a newer format version | moved to `set_aside/`, untouched |
//! | a segment is missing | told; the ones after it are read |
//! | an empty segment or an unfinished file | removed |
//!
//! A file that holds records is never changed but by appending, or by cutting off a write that has just failed. When the
//! log is opened, a new segment is begun; it says from which index on the one before is void, and it begins with the last
//! batch again, since what a killed process wrote may be known to the kernel's cache alone.
//!
//! Where it cannot be known how many records were in what was lost, as many indices are left out as there may have
//! been, so that no index ever stands for two records.
//!
//! Why not an embedded engine: beside redb 4.5 and fjall 3.1 with one sync per batch (`compare.rs`), all are as slow as the
//! disk's syncs, but of records of 135 kB this log writes 1.03 times their bytes and the engines 2.0 to 2.15 times (of 4 kB:
//! 2.0 and 8.4), and in memory it takes 388 MB/s where they take 155 and 244 (of 4 kB: 297, 20 and 187). With the newest
//! 100 MB kept it needs 144 MB of disk and they 514 and 511, since to trim is to remove a file. And no engine reads on
//! behind damage and tells which records it cost, which is what this log is for.

#[cfg(test)]
mod compare;
mod damage;
mod format;
#[cfg(test)]
mod model;
mod open;
mod reader;
mod scan;
mod segments;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

pub use damage::{Cause, Damage};
pub use format::MAX_RECORD;
pub use open::{Opened, Reason, SetAside};
pub use reader::Reader;

use self::format::{INDICES, RECORD_HEADER, SEGMENT_HEADER, encode};
use self::open::Recovered;
use self::segments::{Segment, Segments};
use super::{Files, StorageError};

/// How large a log may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment is closed before it would grow beyond this many bytes; one with a single record may be larger.
    /// At most a quarter of `max_size` is used.
    pub segment_size: u64,
    /// The most bytes that all segments may have together.
    pub max_size: u64,
}

/// Why records were not appended. None of them is in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// They do not fit.
    #[error("the log is full: {size} of {max} bytes are taken and {wanted} more are needed")]
    Full {
        /// Bytes that the log has.
        size: u64,
        /// Bytes that it may have.
        max: u64,
        /// Bytes that the records need.
        wanted: u64,
    },
    /// A record is larger than any may be.
    #[error("a record of {0} bytes is larger than the {MAX_RECORD} bytes that one may have")]
    TooLarge(u64),
    /// The disk did not take them.
    #[error(transparent)]
    Io(#[from] StorageError),
}

/// A log that is open for writing. One process may have it open, and does not share it.
pub struct Log {
    segments: Segments,
    unsynced: Unsynced,
    next: u64,
    options: LogOptions,
}

/// Records that may not be on disk yet, encoded, as they stand at the end of the last segment.
#[derive(Debug, Default)]
struct Unsynced {
    bytes: Vec<u8>,
    /// Index of the first.
    first: u64,
    count: u64,
}

/// So many unsynced bytes are kept in memory at most.
const MOST_UNSYNCED: usize = 8 * 1024 * 1024;
/// The buffer for encoding is given back when a batch made it larger than this.
const BUFFER_KEPT: usize = 4 * 1024 * 1024;

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, size) = (self.first(), self.size());
        f.debug_struct("Log").field("first", &first).field("next", &self.next).field("size", &size).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in `folder`, which is made if it is not there, and brings it in order after a crash or damage.
    /// Reads all of it.
    ///
    /// # Errors
    /// When the folder cannot be made or listed. Never because of what is in it.
    pub fn open(files: Arc<dyn Files>, folder: PathBuf, options: LogOptions) -> Result<(Self, Opened), StorageError> {
        let most = (options.max_size / 4).max(SEGMENT_HEADER + RECORD_HEADER);
        let options = LogOptions { segment_size: options.segment_size.min(most), ..options };
        let Recovered { segments, unsynced, next, opened } = open::open(files, folder)?;
        let mut log = Self { segments, unsynced, next, options };
        // What cannot be written now is written before anything else.
        if log.sync().is_ok() && log.segments.left_out.is_some() {
            let _ = log.segments.begin(next);
        }
        let opened = opened.read_all(&log.segments, next)?;
        Ok((log, opened))
    }

    /// Index of the first record that the log has; `next` when it has none.
    #[must_use]
    pub fn first(&self) -> u64 {
        self.segments.first().unwrap_or(self.next).min(self.next)
    }

    /// The index that the next record gets.
    #[must_use]
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Indices that are left out, as long as no segment on disk says so, because the disk has failed: what stands in the
    /// files with them was never kept, and will be gone. For [`Reader::without`].
    #[must_use]
    pub fn void(&self) -> Range<u64> {
        self.segments.left_out.map_or(0..0, |from| from..self.next)
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.segments.size()
    }

    /// Appends `records` with one write and one sync, and returns the index of the first. All of them are on disk then;
    /// else none is in the log.
    ///
    /// When the disk refuses everything from then on, even taking the failed write back, and the process ends before it
    /// recovers, then these records may be found when the log is opened again. Nobody was told that they are kept.
    ///
    /// # Errors
    /// When the log is full, a record too large, or the disk fails. The same records can be appended again.
    pub fn append(&mut self, records: &[impl AsRef<[u8]>]) -> Result<u64, AppendError> {
        let first = self.write(records)?;
        if records.is_empty() {
            return Ok(first);
        }
        let count = records.len() as u64;
        if let Err(error) = self.segments.sync() {
            self.take_back(count, bytes_of(records));
            return Err(error.into());
        }
        self.settled();
        Ok(first)
    }

    /// Appends `records` with one write, and returns the index of the first. They survive a crash of the process from
    /// then on, and one of the machine after the next [`Log::sync`] or [`Log::append`].
    ///
    /// # Errors
    /// As for [`Log::append`].
    pub fn append_unsynced(&mut self, records: &[impl AsRef<[u8]>]) -> Result<u64, AppendError> {
        if self.unsynced.bytes.len().saturating_add(bytes_of(records) as usize) > MOST_UNSYNCED {
            return self.append(records);
        }
        self.write(records)
    }

    /// Brings on disk what was appended unsynced. What fails is kept, so this can be tried again.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn sync(&mut self) -> Result<(), StorageError> {
        if self.unsynced.count > 0 || !self.segments.is_sound() {
            if !self.segments.is_sound() || self.segments.sync().is_err() {
                let first = if self.unsynced.count > 0 { self.unsynced.first } else { self.next };
                self.segments.repair(first, &mut self.unsynced.bytes)?;
            }
            self.settled();
        }
        Ok(())
    }

    /// Removes the segments in which all records have an index below `keep_from`.
    ///
    /// # Errors
    /// When the disk fails; then less is removed.
    pub fn trim(&mut self, keep_from: u64) -> Result<(), StorageError> {
        let large = |s: &Segment| s.first < self.next && s.length > self.options.segment_size / 2;
        if keep_from >= self.next && self.segments.last().is_some_and(|s| large(&s)) {
            // Nothing of the last segment is needed either.
            self.sync()?;
            self.segments.begin(self.next)?;
        }
        self.segments.trim(keep_from)
    }

    /// Gives the next record this index, if it is higher than the one it would get.
    ///
    /// # Errors
    /// When records were appended unsynced and the disk fails.
    pub fn skip_to(&mut self, index: u64) -> Result<(), StorageError> {
        if index > self.next {
            self.sync()?;
            self.segments.leave_out(self.next);
            self.next = index;
            // So that it holds from now on; if it fails, the next append does it.
            let _ = self.segments.begin(index);
        }
        Ok(())
    }

    /// Writes the records behind those that are not synced yet.
    fn write(&mut self, records: &[impl AsRef<[u8]>]) -> Result<u64, AppendError> {
        if let Some(record) = records.iter().map(|r| r.as_ref().len() as u64).find(|length| *length > MAX_RECORD) {
            return Err(AppendError::TooLarge(record));
        }
        let (wanted, size, max) = (bytes_of(records), self.size(), self.options.max_size);
        if size.saturating_add(wanted).saturating_add(SEGMENT_HEADER) > max {
            return Err(AppendError::Full { size, max, wanted });
        }
        if records.is_empty() {
            return Ok(self.next);
        }
        if self.next.saturating_add(records.len() as u64) > INDICES {
            // Nobody writes so many; a file that somebody put here says so.
            return Err(StorageError(format!("the log has given index {} and has no more", self.next)).into());
        }
        if !self.segments.is_sound() {
            self.sync()?;
        }
        if !self.segments.has_room(wanted, self.options.segment_size) {
            self.sync()?;
            self.segments.begin(self.next)?;
        }
        if self.unsynced.count == 0 {
            self.unsynced.first = self.next;
        }
        let start = self.unsynced.bytes.len();
        let (mark, durable) = self.segments.mark_and_durable();
        for (index, record) in (self.next..).zip(records) {
            encode(&mut self.unsynced.bytes, mark, index, durable, record.as_ref());
        }
        let first = self.next;
        self.next += records.len() as u64;
        self.unsynced.count += records.len() as u64;
        if let Err(error) = self.segments.write(self.unsynced.bytes.get(start..).unwrap_or_default()) {
            self.take_back(records.len() as u64, wanted);
            return Err(error.into());
        }
        Ok(first)
    }

    /// After a failed write or sync: as if the last `count` records had never been there.
    fn take_back(&mut self, count: u64, bytes: u64) {
        self.next -= count;
        self.unsynced.count -= count;
        self.unsynced.bytes.truncate(self.unsynced.bytes.len().saturating_sub(bytes as usize));
        // When this fails too, it is tried again before anything else is written.
        let _ = self.sync();
    }

    fn settled(&mut self) {
        self.unsynced.count = 0;
        self.unsynced.bytes.clear();
        self.unsynced.bytes.shrink_to(BUFFER_KEPT);
    }
}

fn bytes_of(records: &[impl AsRef<[u8]>]) -> u64 {
    records.iter().map(|r| RECORD_HEADER + r.as_ref().len() as u64).sum()
}
