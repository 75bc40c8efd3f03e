//! Reads a log from an index on, across its segments, beside its writer.

use std::collections::VecDeque;
use std::fmt;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::damage::{Cause, Damage};
use super::format::{NoHeader, SEGMENT_HEADER, index_of, name};
use super::scan::{Found, Scan};
use crate::storage::{Files, StorageError};

/// The records of a log in order. `None` means that there are no more by now: asked again, it goes on with what was
/// appended since. Damage is told once, where records are missing, and reading goes on behind it.
///
/// It writes nothing, and another process may have the log open. A record that is being written is not seen before it
/// is whole, but it may be seen before it is on disk, and an append that fails takes it back: who must not see such
/// records sets [`Reader::stop_before`] to [`Log::next`](super::Log::next).
pub struct Reader {
    files: Arc<dyn Files>,
    folder: PathBuf,
    /// First indices of the segments behind the current one, as last listed.
    later: VecDeque<u64>,
    /// What the current segment has from this index on, a later one voids.
    bound: u64,
    current: Option<Current>,
    /// The last segment that was opened, or could not be.
    passed: Option<u64>,
    /// Index of the next record.
    next: u64,
    /// Whether a segment was opened. What is missing before the first one was trimmed, not lost.
    begun: bool,
    /// The damaged bytes since the last record: which file, from where, why.
    hole: Option<(PathBuf, u64, Cause)>,
    end: u64,
    /// Indices that stand for nothing, whatever stands in the files.
    void: Range<u64>,
}

struct Current {
    scan: Scan,
    path: PathBuf,
    /// A record that was found, whose turn is after the damage before it or when `end` allows it.
    held: Option<u64>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("folder", &self.folder).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Reader {
    /// Reads the log in `folder` from the record with index `from` on, or from its first record if that is later.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn open(files: Arc<dyn Files>, folder: PathBuf, from: u64) -> Result<Self, StorageError> {
        let mut reader = Self {
            files,
            folder,
            later: VecDeque::new(),
            bound: u64::MAX,
            current: None,
            passed: None,
            next: from,
            begun: false,
            hole: None,
            end: u64::MAX,
            void: 0..0,
        };
        let segments = reader.list()?;
        // The last segment that begins at or before `from`, and all after it.
        let begin = segments.partition_point(|first| *first <= from).saturating_sub(1);
        reader.later = segments.into_iter().skip(begin).collect();
        Ok(reader)
    }

    /// Passes over records with these indices: what [`Log::void`](super::Log::void) says.
    #[must_use]
    pub fn without(mut self, void: Range<u64>) -> Self {
        self.void = void;
        self
    }

    /// Index of the record that comes next.
    #[must_use]
    pub const fn next_index(&self) -> u64 {
        self.next
    }

    /// From now on, ends before the record with this index.
    pub const fn stop_before(&mut self, end: u64) {
        self.end = end;
    }

    /// The next record, or the damage before it. The payload is valid until the next call: nothing is allocated for it.
    pub fn read(&mut self) -> Option<Result<(u64, &[u8]), Damage>> {
        let index = match self.step()? {
            Ok(index) => index,
            Err(damage) => return Some(Err(damage)),
        };
        let payload = self.current.as_ref().map_or(&[][..], |c| c.scan.payload.as_slice());
        Some(Ok((index, payload)))
    }

    fn list(&self) -> Result<Vec<u64>, StorageError> {
        let files = self.files.list(&self.folder);
        let files = files.map_err(|e| StorageError(format!("cannot list {}: {e}", self.folder.display())))?;
        Ok(files.iter().filter_map(|(name, _)| index_of(name)).collect())
    }

    fn step(&mut self) -> Option<Result<u64, Damage>> {
        while self.next < self.end {
            let Some(current) = &mut self.current else {
                match self.open_next()? {
                    Some(damage) => return Some(Err(damage)),
                    None => continue,
                }
            };
            let found = match current.held.take() {
                Some(index) => Found::Record { index, durable: 0 },
                None => current.scan.advance(),
            };
            match found {
                // What a failed append left behind: the segment after this one has these indices.
                Found::Record { index, .. } if index >= self.bound => self.current = None,
                Found::Record { index, .. } if index < self.next || self.void.contains(&index) => {}
                Found::Record { index, .. } if index >= self.end => {
                    current.held = Some(index);
                    return None;
                }
                Found::Record { index, .. } if index > self.next => {
                    current.held = Some(index);
                    let (path, at, cause) = self.hole.take().unwrap_or_else(|| (current.path.clone(), 0, Cause::Missing));
                    let lost = std::mem::replace(&mut self.next, index)..index;
                    return Some(Err(Damage { path, at, lost, cause }));
                }
                Found::Record { index, .. } => {
                    self.hole = None;
                    self.next = index.saturating_add(1);
                    return Some(Ok(index));
                }
                Found::Hole { at, bytes } => match &mut self.hole {
                    Some((_, _, Cause::Checksum(sum))) => *sum += bytes,
                    _ => self.hole = Some((current.path.clone(), at, Cause::Checksum(bytes))),
                },
                Found::Tail { at, tail } if !self.later.is_empty() => {
                    let bytes = current.scan.length().saturating_sub(at);
                    let path = current.path.clone();
                    self.hole.get_or_insert_with(|| (path, at, Cause::of_tail(tail, bytes)));
                    self.current = None;
                }
                Found::End if !self.later.is_empty() => self.current = None,
                Found::Tail { .. } | Found::End => {
                    if !self.sees_more() {
                        return None;
                    }
                }
            }
        }
        None
    }

    /// Goes on with the next segment. None when there is none; else the damage before it, if there is any.
    fn open_next(&mut self) -> Option<Option<Damage>> {
        if self.later.is_empty() && !self.sees_more() {
            return None;
        }
        let before = self.passed;
        let first = self.later.pop_front()?;
        self.passed = Some(first);
        let path = self.folder.join(name(first));
        let (scan, header) = match Scan::open(self.files.as_ref(), &path, self.next) {
            Ok((scan, _)) if scan.length() < SEGMENT_HEADER && self.later.is_empty() => {
                // It is being made right now.
                self.passed = before;
                return None;
            }
            Ok((scan, Err(NoHeader::Newer(version)))) => {
                drop(scan);
                self.hole.get_or_insert((path, 0, Cause::Newer(version)));
                return Some(None);
            }
            Ok((scan, header)) => (scan, header.ok()),
            // Trimmed since the folder was listed.
            Err(e) if e.kind() == ErrorKind::NotFound => return Some(None),
            Err(e) => {
                self.hole.get_or_insert((path, 0, Cause::Unreadable(e.to_string())));
                return Some(None);
            }
        };
        self.bound = self.bound_by_next();
        let follows = header.map_or(first, |h| h.follows);
        let lost = self.next..follows;
        self.next = self.next.max(first);
        self.current = Some(Current { scan, path: path.clone(), held: None });
        let hole = self.hole.take();
        if !std::mem::replace(&mut self.begun, true) || lost.is_empty() {
            return Some(None);
        }
        let (path, at, cause) = hole.unwrap_or((path, 0, Cause::Missing));
        Some(Some(Damage { path, at, lost, cause }))
    }

    fn bound_by_next(&self) -> u64 {
        let Some(first) = self.later.front() else { return u64::MAX };
        match Scan::open(self.files.as_ref(), &self.folder.join(name(*first)), 0) {
            // A header that says more than its file's name voids nothing behind that.
            Ok((_, Ok(header))) => header.follows.min(*first),
            _ => *first,
        }
    }

    /// Looks whether the log has grown since.
    fn sees_more(&mut self) -> bool {
        let after = self.passed;
        let Ok(segments) = self.list() else { return false };
        // A segment is complete when there is a later one: so the folder is looked at first, the file after.
        self.later = segments.into_iter().filter(|first| after.is_none_or(|after| *first > after)).collect();
        let begin = if after.is_none() { self.later.partition_point(|first| *first <= self.next).saturating_sub(1) } else { 0 };
        self.later.drain(..begin);
        self.bound = self.bound_by_next();
        let grown = self.current.as_mut().is_some_and(|c| c.scan.refresh().unwrap_or(false));
        grown || !self.later.is_empty()
    }
}

impl Iterator for Reader {
    type Item = Result<(u64, Vec<u8>), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.step()?.map(|index| {
            let payload = self.current.as_mut().map(|c| std::mem::take(&mut c.scan.payload));
            (index, payload.unwrap_or_default())
        }))
    }
}
