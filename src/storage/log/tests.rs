//! A log against a simulated disk.

use super::*;
use crate::storage::SimFiles;

const OPTIONS: LogOptions = LogOptions { segment_size: 1000, max_size: 100_000 };

pub(super) fn folder() -> PathBuf {
    PathBuf::from("/log")
}

fn open(files: &SimFiles) -> (Log, Opened) {
    Log::open(Arc::new(files.clone()), folder(), OPTIONS).unwrap()
}

/// The records and the damages before `end`.
pub(super) fn read_all(files: &SimFiles, from: u64, end: u64) -> (Vec<(u64, Vec<u8>)>, Vec<Damage>) {
    let mut reader = Reader::open(Arc::new(files.clone()), folder(), from).unwrap();
    reader.stop_before(end);
    let (mut records, mut damages) = (Vec::new(), Vec::new());
    for found in reader {
        match found {
            Ok(record) => records.push(record),
            Err(damage) => damages.push(damage),
        }
    }
    (records, damages)
}

fn read(files: &SimFiles, from: u64) -> Vec<(u64, Vec<u8>)> {
    Reader::open(Arc::new(files.clone()), folder(), from).unwrap().map(Result::unwrap).collect()
}

fn payload(index: u64) -> Vec<u8> {
    index.to_string().into_bytes().repeat(20)
}

fn fill(log: &mut Log, count: u64) {
    for _ in 0..count {
        let index = log.next();
        assert_eq!(log.append(&[payload(index)]).unwrap(), index);
    }
}

#[test]
fn what_was_appended_is_read_in_order_after_a_power_cut() {
    let files = SimFiles::new(1);
    let (mut log, opened) = open(&files);
    assert_eq!((opened, log.first(), log.next()), (Opened::default(), 0, 0));
    fill(&mut log, 50);
    assert!(files.all().len() > 3, "several segments: {files:?}");
    let files = files.power_cut();
    let (mut log, opened) = open(&files);
    assert_eq!(opened, Opened { records: 50, ..Opened::default() });
    assert_eq!(log.next(), 50);
    fill(&mut log, 10);
    assert_eq!(read(&files, 0), (0..60).map(|i| (i, payload(i))).collect::<Vec<_>>());
    assert_eq!(read(&files, 33), (33..60).map(|i| (i, payload(i))).collect::<Vec<_>>());
    assert_eq!(read(&files, 60), []);
}

#[test]
fn a_reader_goes_on_with_what_is_appended_after_it_came_to_the_end() {
    let files = SimFiles::new(1);
    let (mut log, _) = open(&files);
    let mut reader = Reader::open(Arc::new(files), folder(), 0).unwrap();
    assert!(reader.read().is_none());
    for round in 0..30 {
        fill(&mut log, 3);
        reader.stop_before(log.next() - 1);
        let found: Vec<u64> = reader.by_ref().map(|r| r.unwrap().0).collect();
        let begin = if round == 0 { 0 } else { round * 3 - 1 };
        assert_eq!(found, (begin..round * 3 + 2).collect::<Vec<_>>());
    }
}
