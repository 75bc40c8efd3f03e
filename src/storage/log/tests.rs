//! A log against a simulated disk.

use proptest::prelude::*;

use super::*;
use crate::storage::{Files as _, SimFiles};

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

fn segment(first: u64) -> PathBuf {
    folder().join(format::name(first))
}

/// A disk with a log of 20 records in 4 segments: from 0, 6, 12 and so on.
fn filled() -> SimFiles {
    let options = LogOptions { segment_size: 500, ..OPTIONS };
    let files = SimFiles::new(5);
    let (mut log, _) = Log::open(Arc::new(files.clone()), folder(), options).unwrap();
    fill(&mut log, 20);
    files
}

fn firsts(files: &SimFiles) -> Vec<u64> {
    files.list(&folder()).unwrap().iter().filter_map(|(name, _)| format::index_of(name)).collect()
}

fn lost(opened: &Opened) -> Vec<u64> {
    opened.damages.iter().flat_map(|d| d.lost.clone()).collect()
}

/// Opens, appends one record, and returns what was told and which indices can be read then.
fn after(files: &SimFiles) -> (Opened, Vec<u64>) {
    let (mut log, opened) = open(files);
    fill(&mut log, 1);
    let (records, damages) = read_all(files, 0, u64::MAX);
    assert_eq!(damages, opened.damages, "the reader tells the same");
    assert!(records.iter().all(|(i, r)| *r == payload(*i)));
    (opened, records.into_iter().map(|(i, _)| i).collect())
}

#[test]
fn a_write_that_was_cut_short_is_left_out_and_its_index_given_again() {
    let files = filled();
    let last = segment(*firsts(&files).last().unwrap());
    let mut bytes = files.content(&last).unwrap();
    bytes.pop();
    files.put(&last, bytes);
    let (opened, indices) = after(&files);
    assert_eq!((opened.records, opened.unfinished, opened.damages), (19, RECORD_HEADER + 39, vec![]));
    assert_eq!(indices, (0..20).collect::<Vec<_>>());
}

#[test]
fn zeros_at_the_end_are_left_out_and_no_index_is_given_twice() {
    let files = filled();
    let last = segment(*firsts(&files).last().unwrap());
    let mut bytes = files.content(&last).unwrap();
    bytes.resize(bytes.len() + 4096, 0);
    files.put(&last, bytes);
    let (opened, indices) = after(&files);
    assert_eq!((opened.records, opened.unfinished, opened.damages), (20, 4096, vec![]));
    assert_eq!(indices, (0..20).chain([20 + 4096 / 32]).collect::<Vec<_>>());
}

/// The disk may have written the later of two records and not the earlier. Both are left out; were the later one read as
/// long as the disk fails, it would be gone when it works again.
#[test]
fn what_is_left_out_is_not_read_while_the_disk_refuses_to_say_so() {
    let files = SimFiles::new(1);
    let (mut log, _) = open(&files);
    fill(&mut log, 1);
    let length = files.content(&segment(0)).unwrap().len() as u64;
    for index in 1..3 {
        log.append_unsynced(&[payload(index)]).unwrap();
    }
    drop(log);
    files.flip(&segment(0), (length + RECORD_HEADER) * 8);
    files.faults(|faults| faults.name_errors = u32::MAX);
    let (log, opened) = open(&files);
    assert_eq!((opened.records, log.void().start), (1, 1));
    let read = |void| Reader::open(Arc::new(files.clone()), folder(), 0).unwrap().without(void).flatten().count();
    assert_eq!((read(0..0), read(log.void())), (2, 1));
    drop(log);
    files.heal();
    let (log, opened) = open(&files);
    assert_eq!(
        (opened.records, log.void(), after(&files).1),
        (1, 0..0, vec![0, 5]),
        "the index of what was left out is not given again"
    );
}

#[test]
fn a_changed_byte_costs_its_record_alone_and_the_segment_is_copied() {
    let files = filled();
    let before = firsts(&files);
    let path = segment(before[1]);
    assert!(files.flip(&path, (SEGMENT_HEADER + RECORD_HEADER + 3) * 8));
    let damaged = files.content(&path).unwrap();
    let (opened, indices) = after(&files);
    assert_eq!(lost(&opened), [before[1]]);
    assert_eq!(indices, (0..21).filter(|i| *i != before[1]).collect::<Vec<_>>());
    let copy = folder().join("set_aside").join(format::name(before[1]));
    assert_eq!(files.content(&copy).unwrap(), damaged);
    assert_eq!(open(&files).1.damages, opened.damages, "told again, and not copied again");
    assert_eq!(files.list(&folder().join("set_aside")).unwrap().len(), 1);
}

#[test]
fn a_damaged_record_header_is_stepped_over() {
    let files = filled();
    let path = segment(firsts(&files)[1]);
    files.flip(&path, (SEGMENT_HEADER + 5) * 8);
    let (opened, indices) = after(&files);
    assert_eq!(opened.damages.len(), 1);
    assert_eq!(indices.len(), 20, "one of 21 is lost");
}

#[test]
fn a_damaged_segment_header_costs_nothing() {
    let files = filled();
    for first in firsts(&files) {
        files.flip(&segment(first), 77);
    }
    let (opened, indices) = after(&files);
    assert_eq!((opened.damages, opened.set_aside), (vec![], vec![]));
    assert_eq!(indices, (0..21).collect::<Vec<_>>());
}

#[test]
fn a_file_without_any_record_is_set_aside_and_the_others_are_read() {
    let files = filled();
    let before = firsts(&files);
    files.put(&segment(before[1]), vec![7; 300]);
    let (opened, indices) = after(&files);
    assert_eq!(lost(&opened), (before[1]..before[2]).collect::<Vec<_>>());
    assert_eq!(opened.set_aside.iter().map(|s| s.reason).collect::<Vec<_>>(), [Reason::Unreadable]);
    assert_eq!(indices, (0..before[1]).chain(before[2]..21).collect::<Vec<_>>());
    assert!(open(&files).1.set_aside.is_empty());
}

#[test]
fn a_missing_segment_is_told() {
    let files = filled();
    let before = firsts(&files);
    files.remove(&segment(before[1])).unwrap();
    let (opened, indices) = after(&files);
    assert_eq!(lost(&opened), (before[1]..before[2]).collect::<Vec<_>>());
    assert_eq!(indices, (0..before[1]).chain(before[2]..21).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_read() {
    let files = filled();
    let before = firsts(&files);
    files.faults(|f| f.unreadable.extend([(segment(before[1]), SEGMENT_HEADER + 100)]));
    let (records, damages) = read_all(&files, 0, u64::MAX);
    assert_eq!(damages.len(), 1);
    assert_eq!(records.len() as u64, 20 - (damages[0].lost.end - damages[0].lost.start));
    assert_eq!(damages[0].lost.end, before[2]);
}

#[test]
fn empty_segments_and_unfinished_files_are_removed() {
    let files = filled();
    files.put(&segment(20), vec![]);
    files.put(&folder().join("00000000000000000020.tmp"), vec![1; 50]);
    files.put(&folder().join("notes.txt"), vec![1]);
    let (opened, indices) = after(&files);
    assert_eq!(opened, Opened { records: 20, ..Opened::default() });
    assert_eq!(indices, (0..21).collect::<Vec<_>>());
    let names: Vec<String> = files.list(&folder()).unwrap().into_iter().map(|(name, _)| name).collect();
    assert!(names.contains(&"notes.txt".to_owned()) && !names.iter().any(|n| n.ends_with("tmp")), "{names:?}");
}

#[test]
fn a_segment_of_a_newer_version_is_set_aside_untouched_and_its_indices_are_not_given_again() {
    let files = filled();
    let newer = format::newer_segment(20, 1000);
    files.put(&segment(20), newer.clone());
    let (opened, indices) = after(&files);
    assert_eq!(opened.set_aside.iter().map(|s| s.reason).collect::<Vec<_>>(), [Reason::Newer(2)]);
    assert_eq!(files.content(&folder().join("set_aside").join(format::name(20))).unwrap(), newer);
    assert_eq!(indices, (0..20).chain([20 + newer.len() as u64]).collect::<Vec<_>>());
}

#[test]
fn a_full_log_refuses_and_has_room_again_when_it_is_trimmed() {
    let (files, options) = (SimFiles::new(1), LogOptions { segment_size: 400, max_size: 2000 });
    let (mut log, _) = Log::open(Arc::new(files), folder(), options).unwrap();
    let refused = loop {
        if let Err(error) = log.append(&[vec![1; 100]]) {
            break error;
        }
    };
    assert!(matches!(refused, AppendError::Full { max: 2000, wanted: 132, .. }), "{refused}");
    assert!(log.size() <= 2000);
    let next = log.next();
    log.trim(next).unwrap();
    assert!(log.size() <= 400, "{}", log.size());
    assert_eq!(log.append(&[vec![1; 100]]).unwrap(), next);
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    let files = SimFiles::new(1);
    let (mut log, _) = open(&files);
    fill(&mut log, 2);
    log.append(&[vec![9; 5000]]).unwrap();
    fill(&mut log, 2);
    let lengths: Vec<usize> = read(&files, 0).iter().map(|(_, r)| r.len()).collect();
    assert_eq!(lengths, [20, 20, 5000, 20, 20]);
    assert_eq!(firsts(&files), [0, 2, 3]);
    assert_eq!(log.append(&[vec![0; MAX_RECORD as usize + 1]]), Err(AppendError::TooLarge(MAX_RECORD + 1)));
}

#[test]
fn what_a_failed_sync_refused_never_comes_back() {
    for seed in 0..50 {
        let files = SimFiles::new(seed);
        let (mut log, _) = open(&files);
        fill(&mut log, 3);
        files.faults(|f| f.sync_errors = 1 + seed as u32 % 3);
        log.append(&[b"refused"]).unwrap_err();
        files.heal();
        fill(&mut log, 2);
        assert_eq!(read(&files.power_cut(), 0), (0..5).map(|i| (i, payload(i))).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_found_after_a_kill_is_safe_though_its_sync_had_failed() {
    for seed in 0..50 {
        let files = SimFiles::new(seed);
        let (mut log, _) = open(&files);
        fill(&mut log, 1);
        log.append_unsynced(&[payload(1)]).unwrap();
        files.faults(|f| {
            (f.sync_errors, f.cut_errors, f.name_errors) = (1, u32::MAX, u32::MAX);
        });
        log.sync().unwrap_err();
        drop(log);
        files.heal();
        assert_eq!(open(&files).1.records, 2);
        assert_eq!(read(&files.power_cut(), 0).len(), 2);
    }
}

#[test]
fn one_sync_makes_a_batch_safe() {
    let files = SimFiles::new(1);
    let (mut log, _) = open(&files);
    fill(&mut log, 1);
    let before = files.syncs();
    log.append(&(0..10).map(|_| [1; 20]).collect::<Vec<_>>()).unwrap();
    assert_eq!(files.syncs() - before, 1);
}

#[test]
fn every_sentence_says_what_is_lost_where_and_why() {
    let path = segment(40);
    let damage = |cause| Damage { path: path.clone(), at: 4096, lost: 41..44, cause };
    let set_aside = |reason, now| SetAside { path: path.clone(), now, reason };
    let aside = || Ok(folder().join("set_aside").join(format::name(40)));
    let opened = Opened {
        records: 9,
        unfinished: 77,
        damages: vec![
            damage(Cause::Checksum(135)),
            Damage { lost: 41..42, ..damage(Cause::Short) },
            damage(Cause::Zeros),
            damage(Cause::Unreadable("input/output error".to_owned())),
            damage(Cause::Newer(2)),
            damage(Cause::Missing),
        ],
        set_aside: vec![
            set_aside(Reason::Damaged, aside()),
            set_aside(Reason::Unreadable, aside()),
            set_aside(Reason::Newer(2), aside()),
            set_aside(Reason::Damaged, Err("no space left on device".to_owned())),
        ],
    };
    let errors =
        [AppendError::Full { size: 900, max: 1000, wanted: 200 }, AppendError::TooLarge(MAX_RECORD + 1)].map(|e| e.to_string());
    insta::assert_snapshot!(opened.sentences().chain(errors).collect::<Vec<_>>().join("\n"));
}

proptest! {
    #[test]
    fn whatever_bytes_are_in_the_folder_the_log_opens_and_takes_records(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..80)), 1..6),
    ) {
        let files = filled();
        for (file, at, bytes) in changes {
            let (path, length) = file.get(&files.all()).clone();
            let mut content = files.content(&path).unwrap();
            let at = at.index(length as usize + 1);
            match bytes.len() {
                0 => content.truncate(at),
                n if n % 2 == 0 => drop(content.splice(at..(at + n).min(content.len()), bytes)),
                _ => drop(content.splice(at..at, bytes)),
            }
            files.put(&path, content);
        }
        let (mut log, _) = open(&files);
        let first = log.append(&[b"new"]).unwrap();
        prop_assert_eq!(read_all(&files, first, u64::MAX), (vec![(first, b"new".to_vec())], vec![]));
        let known = |(i, r): &(u64, Vec<u8>)| *r == payload(*i) || *i == first;
        prop_assert!(read_all(&files, 0, u64::MAX).0.iter().all(known), "no record is made of damage");
    }
}
