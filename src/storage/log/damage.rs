//! What was found broken in a log, in sentences.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use super::scan::Tail;

/// Records that were in the log and cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Where in the segment the damage begins, in bytes.
    pub at: u64,
    /// The indices of the records.
    pub lost: Range<u64>,
    /// What is wrong.
    pub cause: Cause,
}

/// What is wrong with a part of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This many bytes do not match their checksums.
    Checksum(u64),
    /// The file ends within a record.
    Short,
    /// The rest of the file is zeros.
    Zeros,
    /// The disk does not give the bytes: its error.
    Unreadable(String),
    /// A later anomalyd wrote them, in this version of the format.
    Newer(u32),
    /// There is no file with these records.
    Missing,
}

impl Cause {
    pub(super) fn of_tail(tail: Tail, bytes: u64) -> Self {
        match tail {
            Tail::Short => Self::Short,
            Tail::Zeros => Self::Zeros,
            Tail::Garbage => Self::Checksum(bytes),
            Tail::Unreadable(error) => Self::Unreadable(error),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.lost;
        match end.saturating_sub(start) {
            0 | 1 => write!(f, "record {start} of the log is lost: ")?,
            n => write!(f, "records {start} to {} of the log ({n}) are lost: ", end - 1)?,
        }
        let (path, at) = (self.path.display(), self.at);
        match &self.cause {
            Cause::Checksum(bytes) => write!(f, "{bytes} bytes from byte {at} of {path} do not match their checksums"),
            Cause::Short => write!(f, "{path} ends within the record at byte {at}"),
            Cause::Zeros => write!(f, "{path} holds only zeros from byte {at} on"),
            Cause::Unreadable(error) => write!(f, "{path} cannot be read from byte {at} on: {error}"),
            Cause::Newer(version) => write!(f, "{path} has format version {version}, which this anomalyd does not know"),
            Cause::Missing => write!(f, "there is no segment that holds them before {path}"),
        }
    }
}
