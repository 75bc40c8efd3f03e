//! Brings a log in order when it is opened: after a crash, a power cut, or damage to its files.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::damage::{Cause, Damage};
use super::format::{NoHeader, RECORD_HEADER, SEGMENT_HEADER, index_of, name};
use super::reader::Reader;
use super::scan::{Found, Scan, Tail};
use super::segments::{Active, Segment, Segments};
use crate::storage::{Files, StorageError};

/// So many unfinished writes are told apart.
const MOST_HOLES: usize = 1024;
const SET_ASIDE: &str = "set_aside";

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// How many records can be read.
    pub records: u64,
    /// How many bytes of a write that was not finished were cut off.
    pub cut: u64,
    /// Records that were kept and cannot be read. Told at every opening until they are trimmed.
    pub damages: Vec<Damage>,
    /// Files that were moved or copied to `set_aside/`, or should have been.
    pub set_aside: Vec<SetAside>,
}

/// A file that somebody may want to look into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// The file as it was found.
    pub path: PathBuf,
    /// Where it is now, or why it could not be brought there.
    pub now: Result<PathBuf, String>,
    /// Why.
    pub reason: Reason,
}

/// Why a file was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Some records cannot be read: this is a copy.
    Damaged,
    /// The end was cut off, and may have held records: this is a copy.
    Cut,
    /// No record can be read.
    Unreadable,
    /// A later anomalyd wrote it, in this version of the format.
    Newer(u32),
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.reason {
            Reason::Damaged => write!(f, "the log segment {path} is damaged; its other records are used")?,
            Reason::Cut => write!(f, "the log segment {path} ended in bytes that are no records and were cut off")?,
            Reason::Unreadable => write!(f, "no record can be read in the log segment {path}")?,
            Reason::Newer(version) => write!(
                f,
                "the log segment {path} has format version {version}, which this anomalyd does not know; to use it, \
                 run the anomalyd that wrote it, with this file moved back"
            )?,
        }
        match (&self.now, self.reason) {
            (Ok(now), Reason::Damaged | Reason::Cut) => write!(f, "; {} is a copy of it as it was", now.display()),
            (Ok(now), _) => write!(f, "; it is now {}", now.display()),
            (Err(e), _) => write!(f, "; it could not be set aside: {e}"),
        }
    }
}

/// A log's segments in order, and the index that the next record gets.
pub(super) fn open(files: Arc<dyn Files>, folder: PathBuf) -> Result<(Segments, u64, Opened), StorageError> {
    let at = |what: &str, e: &io::Error| StorageError(format!("cannot {what} the log folder {}: {e}", folder.display()));
    files.make_folder(&folder).map_err(|e| at("make", &e))?;
    let found = files.list(&folder).map_err(|e| at("list", &e))?;
    let mut recovery = Recovery { files, folder: folder.clone(), opened: Opened::default(), floor: 0 };
    let mut all = VecDeque::new();
    for (name, length) in found {
        if let Some(first) = index_of(&name) {
            if recovery.is_usable(first, length) {
                all.push_back(Segment { first, length });
            }
        } else if Path::new(&name).extension().is_some_and(|e| e == "tmp") {
            let _ = recovery.files.remove(&folder.join(name)); // of a copy that was not finished
        }
    }
    let (active, end) = match all.back_mut() {
        Some(last) => recovery.finish(last),
        None => (None, 0),
    };
    let next = end.max(recovery.floor);
    let left_out = (next > end).then_some(end);
    let active = active.filter(|_| left_out.is_none());
    recovery.check(next)?;
    let Recovery { files, folder, opened, .. } = recovery;
    let mut segments = Segments { files, folder, all, active, broken: false, left_out };
    if left_out.is_some() {
        // Remembers which indices are left out; if it fails now, the first append does it.
        let _ = segments.begin(next);
    }
    Ok((segments, next, opened))
}

struct Recovery {
    files: Arc<dyn Files>,
    folder: PathBuf,
    opened: Opened,
    /// No index below may be given to a new record.
    floor: u64,
}

impl Recovery {
    /// Whether the segment has anything to read; else it is put out of the way.
    fn is_usable(&mut self, first: u64, length: u64) -> bool {
        let path = self.folder.join(name(first));
        let reason = match Scan::open(self.files.as_ref(), &path, 0) {
            Ok((_, Ok(header))) if header.first == first => return true,
            Ok((_, Err(NoHeader::Newer(version)))) => Reason::Newer(version),
            Ok((mut scan, _)) => {
                if length <= SEGMENT_HEADER {
                    // The header is on disk before the first record is written: there was none.
                    self.floor = self.floor.max(first);
                    self.opened.cut += length;
                    let _ = self.files.remove(&path);
                    return false;
                }
                if let Found::Record { .. } | Found::Hole { .. } = scan.advance() {
                    return true;
                }
                Reason::Unreadable
            }
            Err(_) => Reason::Unreadable,
        };
        // As many records as could have been in it, in any version.
        self.floor = self.floor.max(first.saturating_add(length));
        self.move_aside(path, first, reason);
        false
    }

    fn move_aside(&mut self, path: PathBuf, first: u64, reason: Reason) {
        let aside = self.folder.join(SET_ASIDE);
        let now = aside.join(name(first));
        let moved = self.files.make_folder(&aside).and_then(|()| self.files.rename(&path, &now));
        let moved = moved.and_then(|()| self.files.sync_folder(&aside)).and_then(|()| self.files.sync_folder(&self.folder));
        let now = moved.map(|()| now).map_err(|e| e.to_string());
        self.opened.set_aside.push(SetAside { path, now, reason });
    }

    /// Copies a segment to `set_aside/`, unless that was done before.
    fn copy_aside(&mut self, first: u64, reason: Reason) {
        let path = self.folder.join(name(first));
        let now = self.try_copy(&path, first).map_err(|e| e.to_string());
        self.opened.set_aside.push(SetAside { path, now, reason });
    }

    fn try_copy(&self, path: &Path, first: u64) -> io::Result<PathBuf> {
        let aside = self.folder.join(SET_ASIDE);
        self.files.make_folder(&aside)?;
        let to = aside.join(name(first));
        if self.files.list(&aside)?.iter().any(|(there, _)| *there == name(first)) {
            return Ok(to);
        }
        let unfinished = self.folder.join(format!("{first:020}.tmp"));
        let mut source = self.files.read(path)?;
        let mut copy = self.files.create(&unfinished)?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            match source.read(&mut buffer)? {
                0 => break,
                n => copy.write_all(buffer.get(..n).unwrap_or_default())?,
            }
        }
        copy.sync()?;
        self.files.rename(&unfinished, &to)?;
        self.files.sync_folder(&aside)?;
        Ok(to)
    }

    /// Takes the unfinished write off the last segment, and opens it to be written on. Returns the index after its last
    /// record.
    fn finish(&mut self, last: &mut Segment) -> (Option<Active>, u64) {
        let path = self.folder.join(name(last.first));
        let Ok((mut scan, header)) = Scan::open(self.files.as_ref(), &path, 0) else { return (None, last.first) };
        let end = End::of(&mut scan, last.first, header.is_ok());
        last.length = scan.length();
        drop(scan);
        let cut = last.length.saturating_sub(end.at);
        if cut > 0 {
            if matches!(end.tail, Tail::Unreadable(_)) {
                // What is there may be read another day.
                self.floor = self.floor.max(end.next.saturating_add(cut / RECORD_HEADER));
                return (None, end.next);
            }
            if end.tail == Tail::Garbage {
                self.copy_aside(last.first, Reason::Cut);
            }
        }
        let opened = self.files.append_to(&path).and_then(|mut file| {
            if cut > 0 {
                file.cut(end.at)?;
            }
            // What a process wrote that ended before it synced can be read, and is not safe yet.
            file.sync()?;
            self.files.sync_folder(&self.folder)?;
            Ok(file)
        });
        // When it cannot be cut, the next segment says where this one ends.
        let Ok(file) = opened else { return (None, end.next) };
        last.length = end.at;
        self.opened.cut += cut;
        if cut > 0 && end.tail != Tail::Short {
            self.floor = self.floor.max(end.next.saturating_add(cut / RECORD_HEADER));
        }
        let mark = header.ok().filter(|_| !end.damaged).map(|h| h.mark);
        let active = mark.map(|mark| Active { file, mark, durable: end.at, written: end.at });
        (active, end.next)
    }

    /// Reads everything, and sets the damaged segments aside.
    fn check(&mut self, next: u64) -> Result<(), StorageError> {
        let mut reader = Reader::open(Arc::clone(&self.files), self.folder.clone(), 0)?;
        reader.stop_before(next);
        while let Some(found) = reader.read() {
            match found {
                Ok(_) => self.opened.records += 1,
                Err(damage) => self.opened.damages.push(damage),
            }
        }
        let damaged = self.opened.damages.iter().filter(|d| d.cause != Cause::Missing);
        let mut firsts: Vec<u64> = damaged.filter_map(|d| index_of(&d.path.file_name()?.to_string_lossy())).collect();
        firsts.dedup();
        for first in firsts {
            self.copy_aside(first, Reason::Damaged);
        }
        Ok(())
    }
}

/// Where the last segment ends.
struct End {
    /// The index after the last record.
    next: u64,
    /// The byte after it.
    at: u64,
    /// What stands behind it.
    tail: Tail,
    /// Whether there is damage before it.
    damaged: bool,
}

impl End {
    fn of(scan: &mut Scan, first: u64, header: bool) -> Self {
        let mut end = Self { next: first, at: scan.position(), tail: Tail::Short, damaged: !header };
        // Holes that may be an unfinished write, of which the disk may have written any parts: where each begins, and the
        // end behind the records that follow it. A later record that was written when the hole's place was already on
        // disk tells that the bytes have changed since.
        let mut holes: VecDeque<(u64, u64, u64)> = VecDeque::new();
        loop {
            match scan.advance() {
                Found::Record { index, durable } => {
                    let behind = (index.saturating_add(1), scan.position());
                    match holes.back_mut() {
                        Some((_, next, at)) => (*next, *at) = behind,
                        None => (end.next, end.at) = behind,
                    }
                    while let Some((_, next, at)) = holes.pop_front_if(|(hole, ..)| *hole < durable) {
                        (end.next, end.at) = (next, at);
                        end.damaged = true;
                    }
                }
                Found::Hole { at, .. } if holes.len() < MOST_HOLES => holes.push_back((at, end.next, end.at)),
                Found::Hole { .. } => {}
                Found::Tail { tail, .. } => {
                    end.tail = tail;
                    break;
                }
                Found::End => break,
            }
        }
        if !holes.is_empty() && !matches!(end.tail, Tail::Unreadable(_)) {
            end.tail = Tail::Garbage;
        }
        end
    }
}
