//! Brings a log in order when it is opened: after a crash, a power cut, or damage to its files.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Unsynced;
use super::damage::{Cause, Damage};
use super::format::{NoHeader, RECORD_HEADER, SEGMENT_HEADER, SegmentHeader, UNFINISHED, index_of, name};
use super::reader::Reader;
use super::scan::{Found, Scan, Tail};
use super::segments::{Active, Segment, Segments};
use crate::storage::{Files, StorageError};

/// So many unfinished writes are told apart.
const MOST_HOLES: usize = 1024;
/// So many files are in `set_aside/` before no more copies are made.
const MOST_SET_ASIDE: usize = 16;
const SET_ASIDE: &str = "set_aside";

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// How many records can be read.
    pub records: u64,
    /// How many bytes of a write that was not finished are left out.
    pub unfinished: u64,
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
            Reason::Unreadable => write!(f, "no record can be read in the log segment {path}")?,
            Reason::Newer(version) => write!(
                f,
                "the log segment {path} has format version {version}, which this anomalyd does not know; to use it, \
                 run the anomalyd that wrote it, with this file moved back"
            )?,
        }
        match (&self.now, self.reason) {
            (Ok(now), Reason::Damaged) => write!(f, "; {} is a copy of it as it was", now.display()),
            (Ok(now), _) => write!(f, "; it is now {}", now.display()),
            (Err(e), _) => write!(f, "; it could not be set aside: {e}"),
        }
    }
}

/// A log as it is when its folder has been looked through.
pub(super) struct Recovered {
    pub(super) segments: Segments,
    /// The last records, which may be known to the kernel's cache alone: written again, they are safe.
    pub(super) unsynced: Unsynced,
    pub(super) next: u64,
    pub(super) opened: Opened,
}

/// Looks through the segments. Changes nothing but that it sets unreadable files aside and removes unfinished ones.
pub(super) fn open(files: Arc<dyn Files>, folder: PathBuf) -> Result<Recovered, StorageError> {
    let at = |what: &str, e: &io::Error| StorageError(format!("cannot {what} the log folder {}: {e}", folder.display()));
    files.make_folder(&folder).map_err(|e| at("make", &e))?;
    let found = files.list(&folder).map_err(|e| at("list", &e))?;
    let mut recovery = Recovery { files: Arc::clone(&files), folder: folder.clone(), opened: Opened::default(), floor: 0 };
    let mut all = VecDeque::new();
    for (name, length) in found {
        if let Some(first) = index_of(&name) {
            if let Some(follows) = recovery.usable(first, length) {
                // No index before it is given again.
                recovery.floor = 0;
                all.push_back(Segment { first, follows, length });
            }
        } else if name.ends_with(UNFINISHED) {
            let _ = files.remove(&folder.join(name));
        }
    }
    let (active, unsynced, end) = match all.back() {
        Some(last) => recovery.finish(*last),
        None => (None, Unsynced::default(), 0),
    };
    let next = end.max(recovery.floor);
    let left_out = (next > end).then_some(end);
    let broken = unsynced.count > 0;
    let segments = Segments { files, folder, all, active, broken, left_out };
    Ok(Recovered { segments, unsynced, next, opened: recovery.opened })
}

struct Recovery {
    files: Arc<dyn Files>,
    folder: PathBuf,
    opened: Opened,
    /// No index below may be given to a new record.
    floor: u64,
}

impl Recovery {
    /// Which index the segment follows, if it has anything to read; else it is put out of the way.
    fn usable(&mut self, first: u64, length: u64) -> Option<u64> {
        let path = self.folder.join(name(first));
        let reason = match Scan::open(self.files.as_ref(), &path, 0) {
            Ok((_, Ok(header))) if header.first == first => return Some(header.follows),
            Ok((_, Err(NoHeader::Newer(version)))) => Reason::Newer(version),
            Ok((mut scan, _)) => {
                if length <= SEGMENT_HEADER {
                    // The header is on disk before the first record is written: there was none.
                    self.floor = self.floor.max(first);
                    self.opened.unfinished += length;
                    let _ = self.files.remove(&path);
                    return None;
                }
                if let Found::Record { .. } | Found::Hole { .. } = scan.advance() {
                    return Some(first);
                }
                Reason::Unreadable
            }
            Err(_) => Reason::Unreadable,
        };
        // As many records as could have been in it, in any version.
        self.floor = self.floor.max(first.saturating_add(length));
        self.move_aside(path, first, reason);
        None
    }

    fn move_aside(&mut self, path: PathBuf, first: u64, reason: Reason) {
        let aside = self.folder.join(SET_ASIDE);
        let now = aside.join(name(first));
        let moved = self.files.make_folder(&aside).and_then(|()| self.files.rename(&path, &now));
        let moved = moved.and_then(|()| self.files.sync_folder(&aside)).and_then(|()| self.files.sync_folder(&self.folder));
        let now = moved.map(|()| now).map_err(|e| e.to_string());
        self.opened.set_aside.push(SetAside { path, now, reason });
    }

    /// Finds where the last segment ends. Returns it to be written on, if it has no record yet; else its last records, to
    /// be carried over into a new one. And the index after its last record.
    fn finish(&mut self, last: Segment) -> (Option<Active>, Unsynced, u64) {
        let path = self.folder.join(name(last.first));
        let nothing = (None, Unsynced::default(), last.first);
        let Ok((mut scan, header)) = Scan::open(self.files.as_ref(), &path, 0) else { return nothing };
        let end = End::of(&mut scan, last.first);
        let unfinished = scan.length().saturating_sub(end.at);
        self.opened.unfinished += unfinished;
        if unfinished > 0 && end.tail != Tail::Short {
            // Perhaps these were records that went bad.
            self.floor = self.floor.max(end.next.saturating_add(unfinished.div_ceil(RECORD_HEADER)));
            // Only a power cut leaves such an end; what can be read after one was read from the disk.
            return (None, Unsynced::default(), end.next);
        }
        if let Ok(SegmentHeader { mark, .. }) = header
            && scan.length() == SEGMENT_HEADER
        {
            let reopened = self.files.sync_folder(&self.folder).and_then(|()| self.files.append_to(&path));
            let length = SEGMENT_HEADER;
            let active = reopened.ok().map(|file| Active { file, mark, durable: length, written: length });
            return (active, Unsynced::default(), end.next);
        }
        match scan.bytes(end.durable..end.at) {
            Ok(bytes) => (
                None,
                Unsynced { bytes, first: end.first_unsynced, count: end.next.saturating_sub(end.first_unsynced) },
                end.next,
            ),
            Err(_) => (None, Unsynced::default(), end.next),
        }
    }
}

impl Opened {
    /// What somebody should know, in sentences; none when all is well.
    pub fn sentences(&self) -> impl Iterator<Item = String> {
        let unfinished = (self.unfinished > 0).then(|| {
            format!(
                "{} bytes of a write that was not finished are left out at the end of the log; nobody was told that they are kept",
                self.unfinished
            )
        });
        let set_aside = self.set_aside.iter().map(ToString::to_string);
        unfinished.into_iter().chain(self.damages.iter().map(ToString::to_string)).chain(set_aside)
    }

    /// Reads everything, and copies the damaged segments to `set_aside/`.
    pub(super) fn read_all(mut self, segments: &Segments, next: u64) -> Result<Self, StorageError> {
        let void = segments.left_out.map_or(0..0, |from| from..next);
        let mut reader = Reader::open(Arc::clone(&segments.files), segments.folder.clone(), 0)?.without(void);
        reader.stop_before(next);
        while let Some(found) = reader.read() {
            match found {
                Ok(_) => self.records += 1,
                Err(damage) => self.damages.push(damage),
            }
        }
        let damaged = self.damages.iter().filter(|d| d.cause != Cause::Missing);
        let mut names: Vec<String> = damaged.filter_map(|d| Some(d.path.file_name()?.to_str()?.to_owned())).collect();
        names.dedup();
        for name in names {
            let now = copy_aside(segments.files.as_ref(), &segments.folder, &name).map_err(|e| e.to_string());
            self.set_aside.push(SetAside { path: segments.folder.join(name), now, reason: Reason::Damaged });
        }
        Ok(self)
    }
}

/// Copies a segment to `set_aside/`, unless that was done before.
fn copy_aside(files: &dyn Files, folder: &Path, name: &str) -> io::Result<PathBuf> {
    let aside = folder.join(SET_ASIDE);
    files.make_folder(&aside)?;
    let to = aside.join(name);
    let there = files.list(&aside)?;
    if there.iter().any(|(there, _)| there == name) {
        return Ok(to);
    }
    if there.len() >= MOST_SET_ASIDE {
        return Err(io::Error::other(format!("there are {} files in {} already", there.len(), aside.display())));
    }
    let unfinished = folder.join(format!("{name}{UNFINISHED}"));
    let mut source = files.read(&folder.join(name))?;
    let mut copy = files.create(&unfinished)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            n => copy.write_all(buffer.get(..n).unwrap_or_default())?,
        }
    }
    copy.sync()?;
    files.rename(&unfinished, &to)?;
    files.sync_folder(&aside)?;
    Ok(to)
}

/// Where the last segment ends.
struct End {
    /// The index after the last record.
    next: u64,
    /// The byte after it.
    at: u64,
    /// What stands behind it.
    tail: Tail,
    /// Up to which byte the segment is known to be on disk, and the index of the record that stands there.
    durable: u64,
    first_unsynced: u64,
}

impl End {
    fn of(scan: &mut Scan, first: u64) -> Self {
        let begin = scan.position();
        let mut end = Self { next: first, at: begin, tail: Tail::Short, durable: begin, first_unsynced: first };
        // Holes that may be an unfinished write, of which the disk may have written any parts: where each begins, and the
        // end behind the records that follow it. A later record that was written when the hole's place was already on
        // disk tells that the bytes have changed since.
        let mut holes: VecDeque<(u64, u64, u64)> = VecDeque::new();
        loop {
            let at = scan.position();
            match scan.advance() {
                Found::Record { index, durable } => {
                    let behind = (index.saturating_add(1), scan.position());
                    match holes.back_mut() {
                        Some((_, next, at)) => (*next, *at) = behind,
                        None => (end.next, end.at) = behind,
                    }
                    while let Some((_, next, at)) = holes.pop_front_if(|(hole, ..)| *hole < durable) {
                        (end.next, end.at) = (next, at);
                        (end.first_unsynced, end.durable) = (next, at);
                    }
                    if holes.is_empty() && durable > end.durable {
                        // A batch begins here.
                        (end.durable, end.first_unsynced) = (at, index);
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
