//! The bytes of a segment. All numbers are little-endian; checksums are CRC32C.
//!
//! | segment header | bytes | |
//! |---|---|---|
//! | magic | 4 | `alog` |
//! | version | 4 | 1; magic, version and checksum stand at these places in every version |
//! | checksum | 4 | of the other 28 bytes |
//! | mark | 4 | that of its records |
//! | first | 8 | index of the first record |
//! | follows | 8 | index after the last record before this segment; less than `first` when indices were skipped |
//!
//! | record | bytes | |
//! |---|---|---|
//! | mark | 4 | a random number, the same for all records of a segment: what is found by it is no other file's |
//! | length | 4 | of the payload, at most 256 MiB |
//! | index | 8 | one more than the record's before it |
//! | durable | 8 | how many bytes of the segment were known to be on disk when this record was written |
//! | payload checksum | 4 | |
//! | header checksum | 4 | of the 28 bytes before |
//! | payload | length | |
//!
//! The two checksums of a record let a damaged payload be stepped over, and `durable` tells a write that a power cut
//! tore from bytes that went bad after they had been safe.

/// What a segment's file name ends in.
pub(super) const ENDING: &str = ".log";
/// What the name of a file ends in that is not complete.
pub(super) const UNFINISHED: &str = ".tmp";
pub(super) const MAGIC: [u8; 4] = *b"alog";
pub(super) const VERSION: u32 = 1;
pub(super) const SEGMENT_HEADER: u64 = 32;
pub(super) const RECORD_HEADER: u64 = 32;

/// The most bytes that one record may have.
pub const MAX_RECORD: u64 = 256 * 1024 * 1024;

/// Every index is below this, whatever the name or the content of a file says: there is always a next one.
pub(super) const INDICES: u64 = 1 << 63;

/// The name of the segment whose first record has index `first`. Names sort as their indices do.
pub(super) fn name(first: u64) -> String {
    format!("{first:020}{ENDING}")
}

/// The name of a segment or of a copy of one until it is complete.
pub(super) fn unfinished_name(first: u64) -> String {
    format!("{first:020}{UNFINISHED}")
}

/// The index in a segment's name.
pub(super) fn index_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(ENDING)?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|index| all_digits && *index < INDICES)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) mark: u32,
    pub(super) first: u64,
    pub(super) follows: u64,
}

/// Why the first bytes of a file are not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    Damaged,
    /// A version that a later anomalyd wrote.
    Newer(u32),
}

impl SegmentHeader {
    pub(super) fn encode(self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0; SEGMENT_HEADER as usize];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 4, &VERSION.to_le_bytes());
        put(&mut bytes, 12, &self.mark.to_le_bytes());
        put(&mut bytes, 16, &self.first.to_le_bytes());
        put(&mut bytes, 24, &self.follows.to_le_bytes());
        let checksum = Self::checksum(&bytes);
        put(&mut bytes, 8, &checksum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER as usize]) -> Result<Self, NoHeader> {
        if !bytes.starts_with(&MAGIC) || u32_at(bytes, 8) != Self::checksum(bytes) {
            return Err(NoHeader::Damaged);
        }
        match u32_at(bytes, 4) {
            VERSION if u32_at(bytes, 12) == 0 => Err(NoHeader::Damaged),
            VERSION => Ok(Self { mark: u32_at(bytes, 12), first: u64_at(bytes, 16), follows: u64_at(bytes, 24) }),
            version if version > VERSION => Err(NoHeader::Newer(version)),
            _ => Err(NoHeader::Damaged),
        }
    }

    fn checksum(bytes: &[u8; SEGMENT_HEADER as usize]) -> u32 {
        let (before, after) = (bytes.get(..8).unwrap_or_default(), bytes.get(12..).unwrap_or_default());
        crc32c::crc32c_append(crc32c::crc32c(before), after)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub(super) mark: u32,
    pub(super) length: u32,
    pub(super) index: u64,
    pub(super) durable: u64,
    pub(super) payload_checksum: u32,
}

impl RecordHeader {
    pub(super) fn encode(self) -> [u8; RECORD_HEADER as usize] {
        let mut bytes = [0; RECORD_HEADER as usize];
        put(&mut bytes, 0, &self.mark.to_le_bytes());
        put(&mut bytes, 4, &self.length.to_le_bytes());
        put(&mut bytes, 8, &self.index.to_le_bytes());
        put(&mut bytes, 16, &self.durable.to_le_bytes());
        put(&mut bytes, 24, &self.payload_checksum.to_le_bytes());
        let checksum = crc32c::crc32c(bytes.get(..28).unwrap_or_default());
        put(&mut bytes, 28, &checksum.to_le_bytes());
        bytes
    }

    /// The header in these bytes, if they are one. Zeros are none.
    pub(super) fn decode(bytes: &[u8; RECORD_HEADER as usize]) -> Option<Self> {
        let header = Self {
            mark: u32_at(bytes, 0),
            length: u32_at(bytes, 4),
            index: u64_at(bytes, 8),
            durable: u64_at(bytes, 16),
            payload_checksum: u32_at(bytes, 24),
        };
        let whole = u32_at(bytes, 28) == crc32c::crc32c(bytes.get(..28).unwrap_or_default());
        let possible = header.mark != 0 && header.index < INDICES && u64::from(header.length) <= MAX_RECORD;
        (whole && possible).then_some(header)
    }
}

/// Appends a record to `bytes`.
pub(super) fn encode(bytes: &mut Vec<u8>, mark: u32, index: u64, durable: u64, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let header = RecordHeader { mark, length, index, durable, payload_checksum: crc32c::crc32c(payload) };
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(payload);
}

/// Makes the whole records in `bytes` records of another segment.
pub(super) fn move_records(mut bytes: &mut [u8], mark: u32, durable: u64) {
    while let Some((header_bytes, rest)) = bytes.split_first_chunk_mut() {
        let Some(header) = RecordHeader::decode(header_bytes) else { return };
        *header_bytes = RecordHeader { mark, durable, ..header }.encode();
        bytes = rest.get_mut(header.length as usize..).unwrap_or_default();
    }
}

fn put(bytes: &mut [u8; 32], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

fn u32_at(bytes: &[u8; 32], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8; 32], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

/// A segment as a later version may write it.
#[cfg(test)]
pub(super) fn newer_segment(first: u64, bytes: usize) -> Vec<u8> {
    let mut header = SegmentHeader { mark: 1, first, follows: first }.encode();
    put(&mut header, 4, &(VERSION + 1).to_le_bytes());
    let checksum = SegmentHeader::checksum(&header);
    put(&mut header, 8, &checksum.to_le_bytes());
    let mut segment = header.to_vec();
    segment.resize(bytes, 0xA5);
    segment
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_sort_as_indices_and_nothing_else_is_a_name() {
        assert_eq!(name(42), "00000000000000000042.log");
        assert!(name(9) < name(10) && name(u64::MAX) > name(u64::MAX - 1));
        assert_eq!(index_of(&name(INDICES - 1)), Some(INDICES - 1));
        assert_eq!(index_of(&name(INDICES)), None);
        for other in ["42.log", "00000000000000000042.tmp", "+0000000000000000042.log", "99999999999999999999.log", ""] {
            assert_eq!(index_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = SegmentHeader { mark: 1, first: 3, follows: 3 }.encode();
        bytes[4] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(NoHeader::Damaged));
        let checksum = SegmentHeader::checksum(&bytes);
        put(&mut bytes, 8, &checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(NoHeader::Newer(2)));
    }

    proptest! {
        #[test]
        fn a_header_with_any_one_bit_changed_is_none(first: u64, follows: u64, index in 0..INDICES, durable: u64, bit in 0..256_usize) {
            let segment = SegmentHeader { mark: 7, first, follows };
            let mut bytes = segment.encode();
            prop_assert_eq!(SegmentHeader::decode(&bytes), Ok(segment));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(SegmentHeader::decode(&bytes), Err(NoHeader::Damaged));

            let record = RecordHeader { mark: 7, length: 9, index, durable, payload_checksum: 1 };
            let mut bytes = record.encode();
            prop_assert_eq!(RecordHeader::decode(&bytes), Some(record));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(RecordHeader::decode(&bytes), None);
        }
    }
}
