//! Files of the log and of checkpoints. They are guarded by checksums, which no engine guesses; so the first byte of an
//! input says which of them are made to fit.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anomalyd::connectors::detector::rewrite;
use anomalyd::model::Environment;
use anomalyd::storage::{AppendError, Checkpoints, Files, Log, LogOptions, Reader};

use crate::files::Memory;
use crate::memory::bounded;

/// Buffers of readers are some hundred kilobytes each.
const EACH: u64 = 64;
const FIXED: u64 = 8 << 20;
const OPTIONS: LogOptions = LogOptions { segment_size: 1 << 10, max_size: 1 << 20 };

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_le_bytes());
    }
}

fn crc(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, part))
}

/// Makes the checksums of a segment fit: of its header, of the records' headers, of their payloads.
fn mend_segment(bytes: &mut [u8], [header, records, payloads]: [bool; 3]) {
    const HEADER: usize = 32;
    if header && let (Some(before), Some(after)) = (bytes.get(..8), bytes.get(12..HEADER)) {
        let sum = crc(&[before, after]);
        put(bytes, 8, sum);
    }
    let mut at = HEADER;
    while at + HEADER <= bytes.len() {
        let payload = at + HEADER..(at + HEADER).saturating_add(u32_at(bytes, at + 4) as usize);
        if payloads && let Some(payload) = bytes.get(payload.clone()) {
            let sum = crc(&[payload]);
            put(bytes, at + 24, sum);
        }
        if records && let Some(head) = bytes.get(at..at + 28) {
            let sum = crc(&[head]);
            put(bytes, at + 28, sum);
        }
        at = payload.end;
    }
}

type Records = Vec<(u64, Vec<u8>)>;

fn read(files: &Arc<dyn Files>, folder: &Path) -> Records {
    let Ok(reader) = Reader::open(Arc::clone(files), folder.to_owned(), 0) else { return Vec::new() };
    let records: Records = reader.filter_map(Result::ok).collect();
    let ascending = records.is_sorted_by(|a, b| a.0 < b.0);
    assert!(ascending, "indices are not ascending: {:?}", records.iter().map(|r| r.0).collect::<Vec<_>>());
    records
}

/// Segments as somebody may find them: the first byte says which checksums fit; a segment is 8 bytes of index, 2 of
/// length, and as many of content. Whatever they are, the log opens, keeps what it could read, gives no index twice,
/// and what it holds is the same when it is opened again.
pub(crate) fn log(input: &[u8]) {
    let folder = PathBuf::from("/log");
    let memory = Memory::default();
    let (flags, mut rest) = input.split_first().unwrap_or((&0, &[]));
    for _ in 0..4 {
        let Some((&[a, b, c, d, e, f, g, h, low, high], content)) = rest.split_first_chunk() else { break };
        let first = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let length = usize::from(u16::from_le_bytes([low, high])).min(content.len());
        let (content, after) = content.split_at(length);
        let mut content = content.to_vec();
        mend_segment(&mut content, [flags & 1 == 0, flags & 2 == 0, flags & 4 == 0]);
        memory.put(folder.join(format!("{first:020}.log")), content);
        rest = after;
    }
    let files: Arc<dyn Files> = Arc::new(memory);
    let open = || Log::open(Arc::clone(&files), folder.clone(), OPTIONS);
    let opened = bounded(input.len(), EACH, FIXED, open);
    let Ok((mut log, opened)) = opened else { panic_with("a log with bad files does not open") };
    let kept = read(&files, &folder);
    assert_eq!(opened.records, kept.len() as u64, "records that are said to be readable, and are");
    assert!(kept.last().is_none_or(|(last, _)| *last < log.next()), "the next index {} is taken", log.next());
    assert!(opened.damages.iter().chain(&[]).all(|d| !d.to_string().is_empty() && d.lost.start <= d.lost.end));
    let next = log.next();
    let appended = log.append(&[b"after".as_slice()]);
    let has_room = appended.is_ok();
    match appended {
        Ok(index) => {
            assert_eq!(index, next, "the index of the record that was appended");
            let now = read(&files, &folder);
            let (last, before) = now.split_last().map_or((None, [].as_slice()), |(last, before)| (Some(last), before));
            assert_eq!(last, Some(&(index, b"after".to_vec())), "what was appended is read again");
            assert_eq!(before, kept, "what was there before is still there");
        }
        // There is no index left to give.
        Err(AppendError::Io(_) | AppendError::Full { .. }) => assert!(next > u64::MAX / 2, "an append to {next} failed"),
        Err(error) => panic_with(&error.to_string()),
    }
    drop(log);
    let before = read(&files, &folder);
    let Ok((log, again)) = open() else { panic_with("the log does not open again") };
    if !has_room {
        // Where no index is left there is no segment that could say what is left out.
        return;
    }
    // What was cut back to its header before has no record, and is removed now.
    assert!(again.unfinished <= 4 * 32, "{} bytes of a log that was in order are cut at its next opening", again.unfinished);
    assert_eq!(read(&files, &folder), before, "what was read is still there after another opening");
    // What was accepted and is written anew is read as the same.
    let anew: Arc<dyn Files> = Arc::new(Memory::default());
    let Ok((mut copy, _)) = Log::open(Arc::clone(&anew), folder.clone(), OPTIONS) else { panic_with("a new log does not open") };
    for (index, payload) in &before {
        if copy.skip_to(*index).is_err() || copy.append(&[payload]).is_err() {
            assert!(*index > u64::MAX / 2, "record {index} cannot be written again");
            return;
        }
    }
    assert_eq!(read(&anew, &folder), before, "written anew");
    assert!(copy.next() <= log.next(), "the log would give index {} again", log.next());
}

/// A checkpoint: the first byte says which checksums fit. It is refused with a sentence, or what was read of it, written
/// again, is the same file.
pub(crate) fn checkpoint(input: &[u8]) {
    const INDEX: u64 = 7;
    let (flags, content) = input.split_first().unwrap_or((&0, &[]));
    let mut content = content.to_vec();
    mend_checkpoint(&mut content, [flags & 1 == 0, flags & 2 == 0]);
    let path = PathBuf::from("/state/checkpoint-00000000000000000007");
    let memory = Memory::default();
    memory.put(path.clone(), content.clone());
    let checkpoints = Checkpoints::new(Arc::new(memory.clone()), PathBuf::from("/state"));
    let chunks = bounded(input.len(), EACH, FIXED, || checkpoints.open(INDEX).and_then(Iterator::collect::<Result<Vec<_>, _>>));
    let chunks = match chunks {
        Ok(chunks) => chunks,
        Err(error) => {
            assert!(error.to_string().contains("checkpoint-00000000000000000007"), "{error}");
            return;
        }
    };
    let written = checkpoints.create(INDEX).and_then(|mut writer| {
        chunks.iter().try_for_each(|(kind, bytes)| writer.chunk(*kind, bytes))?;
        writer.finish()
    });
    assert_eq!(written, Ok(content.len() as u64), "written again");
    assert_eq!(memory.content(&path), Some(content), "written again");
}

/// Makes the checksums of a checkpoint fit: of the header, and of the chunks and their end.
fn mend_checkpoint(bytes: &mut [u8], [header, chunks]: [bool; 2]) {
    const HEADER: usize = 24;
    const HEAD: usize = 9;
    if header && let Some(told) = bytes.get(..HEADER - 4) {
        let sum = crc(&[told]);
        put(bytes, HEADER - 4, sum);
    }
    let (mut at, mut total) = (HEADER, 0);
    while chunks && at + HEAD <= bytes.len() {
        let end = (at + HEAD).saturating_add(u32_at(bytes, at + 1) as usize);
        let kind = bytes.get(at).copied().unwrap_or(0);
        if kind == 0 {
            put(bytes, at + HEAD + 8, total);
        }
        let (Some(head), Some(content)) = (bytes.get(at..at + 5), bytes.get(at + HEAD..end)) else { break };
        let sum = crc(&[head, content]);
        put(bytes, at + 5, sum);
        total = crc32c::crc32c_append(total, &sum.to_le_bytes());
        at = end;
    }
}

/// An entry of a journal: it is refused with a sentence, or what was read of it is read and written as the same again.
pub(crate) fn journal(input: &[u8]) {
    let environment = Environment::new("production");
    match bounded(input.len(), 512, FIXED, || rewrite(input, &environment)) {
        Ok(once) => assert_eq!(rewrite(&once, &environment), Ok(once.clone()), "read and written again"),
        Err(why) => assert!(!why.is_empty(), "an error without a message"),
    }
}

#[expect(clippy::panic, reason = "a broken promise ends in a panic")]
fn panic_with(what: &str) -> ! {
    panic!("{what}")
}
