//! Reads the records of one segment and finds the way again behind damaged bytes.

use std::io::{self, BufReader, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;

use super::format::{NoHeader, RECORD_HEADER, RecordHeader, SEGMENT_HEADER, SegmentHeader, index_of};
use crate::storage::{Files, ReadFile};

const BUFFER: usize = 256 * 1024;
/// How many bytes are looked through at once for the next record.
const WINDOW: usize = 64 * 1024;

/// What stands next in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole record; its payload is in [`Scan::payload`], unless it is one before [`Scan::from`].
    Record { index: u64, durable: u64 },
    /// Bytes that are no record, with a record or the segment's end behind them.
    Hole { at: u64, bytes: u64 },
    /// Nothing to be read from here to the end of the file.
    Tail { at: u64, tail: Tail },
    /// The end of the file, right behind a record.
    End,
}

/// What kind of bytes stand behind the last record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// The file ends within a record, as when a write was cut short.
    Short,
    Zeros,
    Garbage,
    /// The disk does not give them: its error.
    Unreadable(String),
}

pub(super) struct Scan {
    file: BufReader<Box<dyn ReadFile>>,
    /// Where the next record is expected.
    position: u64,
    length: u64,
    mark: Option<u32>,
    /// Records with a lower index are stepped over and not checked.
    from: u64,
    /// The index after the last record that was found.
    next: u64,
    pub(super) payload: Vec<u8>,
}

impl Scan {
    /// Opens a segment. Records can be found even where the header is damaged.
    pub(super) fn open(files: &dyn Files, path: &Path, from: u64) -> io::Result<(Self, Result<SegmentHeader, NoHeader>)> {
        let mut file = BufReader::with_capacity(BUFFER, files.read(path)?);
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = [0; SEGMENT_HEADER as usize];
        let header = match file.read_exact(&mut bytes) {
            Ok(()) => SegmentHeader::decode(&bytes),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(NoHeader::Damaged),
            Err(e) => return Err(e),
        };
        let mark = header.ok().map(|h| h.mark);
        let position = SEGMENT_HEADER.min(length);
        // What has a lower index than the segment's name says does not belong here, and would be taken for the last record.
        let next = path.file_name().and_then(|name| index_of(&name.to_string_lossy())).unwrap_or(0);
        Ok((Self { file, position, length, mark, from, next, payload: Vec::new() }, header))
    }

    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// Where the next record is expected.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// Sees what was written since, or was cut off; whether the length is another one now.
    pub(super) fn refresh(&mut self) -> io::Result<bool> {
        let before = self.length;
        self.length = self.file.seek(SeekFrom::End(0))?;
        // Seeking forgets what was buffered of bytes that may be others by now.
        self.file.seek(SeekFrom::Start(self.position))?;
        Ok(self.length != before)
    }

    /// These bytes, which are records that were found. The scan cannot go on after that.
    pub(super) fn bytes(mut self, range: Range<u64>) -> io::Result<Vec<u8>> {
        let length = range.end.saturating_sub(range.start);
        self.file.seek(SeekFrom::Start(range.start))?;
        let mut bytes = Vec::new();
        let read = self.file.take(length).read_to_end(&mut bytes)?;
        if read as u64 == length { Ok(bytes) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }

    /// What stands next. After a tail or the end it is the same again, unless `refresh` saw more.
    pub(super) fn advance(&mut self) -> Found {
        match self.try_advance() {
            Ok(found) => found,
            Err(e) => Found::Tail { at: self.position, tail: Tail::Unreadable(e.to_string()) },
        }
    }

    fn try_advance(&mut self) -> io::Result<Found> {
        let at = self.position;
        let left = self.length.saturating_sub(at);
        if left == 0 {
            return Ok(Found::End);
        }
        if left < RECORD_HEADER {
            return Ok(Found::Tail { at, tail: Tail::Short });
        }
        let mut bytes = [0; RECORD_HEADER as usize];
        self.file.read_exact(&mut bytes)?;
        let Some(header) = RecordHeader::decode(&bytes).filter(|h| self.accepts(h)) else { return self.find_next(at) };
        let length = u64::from(header.length);
        if left - RECORD_HEADER < length {
            self.file.seek(SeekFrom::Start(at))?;
            return Ok(Found::Tail { at, tail: Tail::Short });
        }
        self.mark = Some(header.mark);
        self.next = header.index.saturating_add(1);
        self.payload.clear();
        let whole = if header.index < self.from {
            self.file.seek_relative(i64::from(header.length))?;
            true
        } else {
            let read = (&mut self.file).take(length).read_to_end(&mut self.payload)?;
            read as u64 == length && crc32c::crc32c(&self.payload) == header.payload_checksum
        };
        self.position = at + RECORD_HEADER + length;
        Ok(if whole {
            Found::Record { index: header.index, durable: header.durable }
        } else {
            Found::Hole { at, bytes: RECORD_HEADER + length }
        })
    }

    fn accepts(&self, header: &RecordHeader) -> bool {
        self.mark.is_none_or(|mark| mark == header.mark) && header.index >= self.next
    }

    /// Looks behind `at` for the next record header by the segment's mark.
    fn find_next(&mut self, at: u64) -> io::Result<Found> {
        let mut zeros = true;
        let mut base = at;
        let mut window = Vec::new();
        while base < self.length {
            self.file.seek(SeekFrom::Start(base))?;
            window.clear();
            // As many more as a header at the window's last byte needs.
            (&mut self.file).take(WINDOW as u64 + RECORD_HEADER - 1).read_to_end(&mut window)?;
            zeros = zeros && window.iter().all(|b| *b == 0);
            if let Some(mark) = self.mark {
                let headers = window.windows(RECORD_HEADER as usize).take(WINDOW).enumerate();
                let mut headers = headers.filter(|(_, bytes)| bytes.starts_with(&mark.to_le_bytes()));
                let found = headers.find_map(|(offset, bytes)| {
                    let header = bytes.first_chunk().and_then(RecordHeader::decode)?;
                    let start = base + offset as u64;
                    let fits = start + RECORD_HEADER + u64::from(header.length) <= self.length;
                    (start > at && fits && self.accepts(&header)).then_some(start)
                });
                if let Some(start) = found {
                    self.file.seek(SeekFrom::Start(start))?;
                    self.position = start;
                    return Ok(Found::Hole { at, bytes: start - at });
                }
            }
            base += WINDOW as u64;
        }
        self.file.seek(SeekFrom::Start(at))?;
        Ok(Found::Tail { at, tail: if zeros { Tail::Zeros } else { Tail::Garbage } })
    }
}
