//! The log against a plain map: whatever happens to process, machine and disk, what was acknowledged is there, or its
//! loss has a cause and is told; what was refused does not come back; an index stands for one record for ever.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::tests::{folder, read_all};
use super::*;
use crate::storage::SimFiles;

const OPTIONS: LogOptions = LogOptions { segment_size: 1000, max_size: 12_000 };

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<usize>),
    Unsynced(Vec<usize>),
    Sync,
    /// Keeps about this many of the newest records.
    Trim(u64),
    Skip(u64),
    Kill,
    PowerCut,
    WriteErrors(u32),
    SyncErrors(u32),
    CutErrors(u32),
    NameErrors(u32),
    ReadOnly,
    Free(u64),
    Heal,
    /// One bit of one file changes, and the process is killed.
    Flip(usize, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let sizes = || prop::collection::vec(prop_oneof![0..40_usize, 0..400_usize], 0..5);
    let errors = || prop_oneof![Just(1), Just(2), Just(u32::MAX)];
    prop_oneof![
        12 => sizes().prop_map(Op::Append),
        4 => sizes().prop_map(Op::Unsynced),
        2 => Just(Op::Sync),
        3 => (0..30_u64).prop_map(Op::Trim),
        1 => (0..9_u64).prop_map(Op::Skip),
        2 => Just(Op::Kill),
        3 => Just(Op::PowerCut),
        1 => errors().prop_map(Op::WriteErrors),
        1 => errors().prop_map(Op::SyncErrors),
        1 => errors().prop_map(Op::CutErrors),
        1 => errors().prop_map(Op::NameErrors),
        1 => Just(Op::ReadOnly),
        1 => (0..700_u64).prop_map(Op::Free),
        4 => Just(Op::Heal),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(file, bit)| Op::Flip(file, bit)),
    ]
}

struct Model {
    files: SimFiles,
    log: Log,
    /// On disk for sure, and not trimmed.
    kept: BTreeMap<u64, Vec<u8>>,
    /// Written, and lost if the power fails.
    unsynced: BTreeMap<u64, Vec<u8>>,
    /// Refused while the disk did not even take the failed write back.
    in_doubt: BTreeSet<Vec<u8>>,
    /// Every record that was not refused.
    appended: BTreeSet<Vec<u8>>,
    /// Every record that anybody could rely on.
    ever: BTreeMap<u64, Vec<u8>>,
    trimmed: u64,
    payloads: u64,
    faulty: bool,
    ever_faulty: bool,
    /// A bit has changed.
    rotten: bool,
}

impl Model {
    fn new(seed: u64) -> Self {
        let files = SimFiles::new(seed);
        let (log, opened) = Log::open(Arc::new(files.clone()), folder(), OPTIONS).unwrap();
        assert_eq!(opened, Opened::default());
        Self {
            files,
            log,
            kept: BTreeMap::new(),
            unsynced: BTreeMap::new(),
            in_doubt: BTreeSet::new(),
            appended: BTreeSet::new(),
            ever: BTreeMap::new(),
            trimmed: 0,
            payloads: 0,
            faulty: false,
            ever_faulty: false,
            rotten: false,
        }
    }

    /// Payloads that no other record has.
    fn records(&mut self, sizes: &[usize]) -> Vec<Vec<u8>> {
        let records = sizes.iter().map(|size| {
            self.payloads += 1;
            let mut record = self.payloads.to_le_bytes().to_vec();
            record.resize(8 + size, self.payloads as u8);
            record
        });
        records.collect()
    }

    fn append(&mut self, sizes: &[usize], sync: bool) {
        let records = self.records(sizes);
        let next = self.log.next();
        let result = if sync { self.log.append(&records) } else { self.log.append_unsynced(&records) };
        match result {
            Ok(first) => {
                assert_eq!((first, self.log.next()), (next, next + records.len() as u64));
                self.appended.extend(records.iter().cloned());
                self.unsynced.extend((first..).zip(records));
                if sync && !sizes.is_empty() {
                    self.synced();
                }
            }
            Err(error) => {
                assert_eq!(self.log.next(), next);
                match error {
                    AppendError::Full { size, max, wanted } => assert!(size + wanted + SEGMENT_HEADER > max),
                    AppendError::TooLarge(_) => panic!("{error}"),
                    AppendError::Io(_) => assert!(self.faulty, "{error}"),
                }
                if !self.log.segments.is_sound() || self.log.segments.active.is_none() {
                    self.in_doubt.extend(records);
                }
            }
        }
    }

    fn synced(&mut self) {
        for (index, record) in std::mem::take(&mut self.unsynced) {
            let before = self.ever.insert(index, record.clone());
            assert!(before.is_none_or(|before| before == record), "index {index} has stood for another record");
            self.kept.insert(index, record);
        }
    }

    /// While the log is open, it holds what it took.
    fn check_open(&self) {
        if !self.log.segments.is_sound() {
            return;
        }
        let (found, damages) = read_all(&self.files, self.trimmed, self.log.next());
        // When the disk failed as the log was opened, what it then read unsynced may be gone with the power.
        assert!(damages.is_empty() || self.ever_faulty, "{damages:?}");
        let expected: Vec<_> = self.kept.range(self.trimmed..).chain(&self.unsynced).map(|(i, r)| (*i, r.clone())).collect();
        assert_eq!(found, expected);
        assert!(self.log.size() <= OPTIONS.max_size);
        assert!(self.log.first() <= expected.first().map_or(self.log.next(), |(i, _)| *i));
    }

    fn reopen(&mut self, power: bool, first_flip: bool) {
        let sound = self.log.segments.is_sound();
        let (log, opened) = Log::open(Arc::new(self.files.clone()), folder(), OPTIONS).unwrap();
        self.log = log;
        let (found, damages) = read_all(&self.files, 0, u64::MAX);
        let mut found: BTreeMap<u64, Vec<u8>> = found.into_iter().collect();
        assert_eq!(damages, opened.damages);
        assert_eq!(opened.records, found.len() as u64);

        let lost = self.kept.range(self.trimmed..).filter(|(i, r)| found.get(i) != Some(r)).map(|(i, _)| *i);
        let lost: Vec<u64> = lost.collect();
        if self.rotten {
            // What a record before told about this one may be gone with the power.
            let told = |i: &u64| {
                opened.damages.iter().any(|d| d.lost.contains(i)) || opened.unfinished > 0 || !opened.set_aside.is_empty()
            };
            assert!(lost.iter().all(told), "{lost:?} are lost, told is {opened:?}");
            let last = self.kept.last_key_value().map(|(i, _)| *i);
            assert!(
                !first_flip || lost.len() <= 1 || lost.last().copied() == last,
                "one bit costs one record, or the last write: {lost:?}"
            );
        } else {
            assert_eq!(lost, [0_u64; 0], "nothing is wrong with the disk; {opened:?}");
        }
        if sound && !power && !self.rotten {
            assert!(self.unsynced.keys().all(|i| found.contains_key(i)), "a killed process loses nothing that was written");
        }
        for (index, record) in found.range(self.trimmed..) {
            let known = self.ever.get(index) == Some(record) || self.unsynced.get(index) == Some(record);
            // What one damage made void, another one may bring back; and a cut that was not synced, an unsynced record.
            let back = (self.rotten || self.ever_faulty) && self.appended.contains(record);
            assert!(known || back || self.in_doubt.contains(record), "record {index} was never appended, or refused");
        }
        let last = self.ever.last_key_value().map_or(0, |(i, _)| i + 1);
        assert!(self.log.next() >= last, "index {last} would be given twice: {opened:?}");

        if let Some(void) = self.log.segments.left_out {
            // What stands behind an unfinished write goes with it when the next segment is begun.
            self.in_doubt.extend(found.split_off(&void).into_values());
        }
        // Unsynced records were lost, or indices left out while the disk failed and nothing was appended behind them.
        self.trimmed = self.trimmed.min(self.log.next());
        // What is found is safe now, unless the disk still fails.
        let (kept, unsynced) =
            found.into_iter().filter(|(i, _)| *i >= self.trimmed).partition(|(i, r)| !self.faulty || self.kept.get(i) == Some(r));
        self.kept = kept;
        self.unsynced = unsynced;
        self.ever.extend(self.kept.clone());
    }

    fn apply(&mut self, op: &Op) {
        match op {
            // A disk either forgets or fails: together they can undo any promise.
            Op::Flip(..) if self.ever_faulty => self.reopen(false, false),
            Op::Append(sizes) => self.append(sizes, true),
            Op::Unsynced(sizes) => self.append(sizes, false),
            Op::Sync => match self.log.sync() {
                Ok(()) => self.synced(),
                Err(error) => assert!(self.faulty, "{error}"),
            },
            Op::Trim(keep) => {
                let keep_from = self.log.next().saturating_sub(*keep);
                let trimmed = self.log.trim(keep_from);
                assert!(self.faulty || trimmed.is_ok());
                self.trimmed = self.trimmed.max(keep_from);
                self.kept.retain(|i, _| *i >= keep_from);
                self.unsynced.retain(|i, _| *i >= keep_from);
            }
            Op::Skip(by) => {
                let index = self.log.next() + by;
                let skipped = self.log.skip_to(index);
                assert!(self.faulty || skipped.is_ok());
                assert!(skipped.is_err() || self.log.next() == index);
                if *by > 0 && skipped.is_ok() {
                    self.synced();
                }
            }
            Op::Kill => self.reopen(false, false),
            Op::PowerCut => {
                self.files = self.files.power_cut();
                self.faulty = false;
                self.reopen(true, false);
            }
            Op::Flip(file, bit) => {
                let files: Vec<_> = self.files.all().into_iter().filter(|(path, _)| path.parent() == Some(&folder())).collect();
                if let Some((path, length)) = files.get(file % files.len().max(1)).filter(|(_, length)| *length > 0) {
                    self.files.flip(path, bit % (length * 8));
                }
                let first = !std::mem::replace(&mut self.rotten, true);
                self.reopen(false, first);
            }
            Op::Heal => {
                self.files.heal();
                self.faulty = false;
            }
            _ if self.rotten => {}
            fault => {
                self.faulty = true;
                self.ever_faulty = true;
                self.files.faults(|f| match fault {
                    Op::WriteErrors(n) => f.write_errors = *n,
                    Op::SyncErrors(n) => f.sync_errors = *n,
                    Op::CutErrors(n) => f.cut_errors = *n,
                    Op::NameErrors(n) => f.name_errors = *n,
                    Op::Free(bytes) => f.free = Some(*bytes),
                    _ => f.read_only = true,
                });
            }
        }
    }
}

proptest! {
    #[test]
    fn the_log_keeps_what_it_took_and_nothing_else(seed: u64, ops in prop::collection::vec(op(), 1..60)) {
        let mut model = Model::new(seed);
        for op in &ops {
            model.apply(op);
            if !model.rotten {
                model.check_open();
            }
        }
    }
}
