use proptest::prelude::*;

use super::*;
use crate::storage::SimFiles;

/// What a checkpoint holds, by its index: a few chunks of different sizes.
fn chunks(index: u64, count: usize) -> Vec<(u8, Vec<u8>)> {
    let bytes = |n: usize| (0..n * 37 % 300).map(|i| (i as u64 * 31 + index * 7 + n as u64) as u8).collect();
    (0..count).map(|n| (1 + (n % 5) as u8, bytes(n))).collect()
}

fn on(files: &SimFiles) -> Checkpoints {
    Checkpoints::new(Arc::new(files.clone()), PathBuf::from("data/production/detector"))
}

fn write(checkpoints: &Checkpoints, index: u64, count: usize) -> Result<u64, StorageError> {
    let mut writer = checkpoints.create(index)?;
    for (kind, bytes) in chunks(index, count) {
        writer.chunk(kind, &bytes)?;
    }
    writer.finish()
}

fn read(checkpoints: &Checkpoints, index: u64) -> Result<Vec<(u8, Vec<u8>)>, StorageError> {
    checkpoints.open(index)?.collect()
}

/// Kinds and bytes.
type Chunks = Vec<(u8, Vec<u8>)>;

/// The newest one that is whole.
fn newest(checkpoints: &Checkpoints) -> Option<(u64, Chunks)> {
    checkpoints.list().unwrap().into_iter().find_map(|index| Some((index, read(checkpoints, index).ok()?)))
}

#[test]
fn the_two_newest_are_kept_and_what_was_not_finished_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(Arc::new(crate::storage::DiskFiles), folder.path().join("production/detector"));
    assert_eq!(checkpoints.list().unwrap(), [] as [u64; 0]);
    for index in [3, 70, 500] {
        let length = write(&checkpoints, index, 20).unwrap();
        assert_eq!(std::fs::metadata(checkpoints.path(index)).unwrap().len(), length);
    }
    let mut dropped = checkpoints.create(600).unwrap();
    dropped.chunk(1, b"something").unwrap();
    drop(dropped);
    assert_eq!(checkpoints.list().unwrap(), [500, 70]);
    assert_eq!(read(&checkpoints, 70).unwrap(), chunks(70, 20));
    assert_eq!(std::fs::read_dir(checkpoints.folder()).unwrap().count(), 2);
    // A process that was killed while it wrote.
    std::fs::write(checkpoints.folder().join("checkpoint-00000000000000000700.unfinished"), b"ANOM").unwrap();
    std::fs::write(checkpoints.folder().join("checkpoint-7"), b"of somebody else").unwrap();
    assert_eq!(checkpoints.list().unwrap(), [500, 70]);
    checkpoints.tidy().unwrap();
    assert_eq!(std::fs::read_dir(checkpoints.folder()).unwrap().count(), 3);
}

#[test]
fn what_is_wrong_with_a_file_is_told() {
    let files = SimFiles::new(1);
    let checkpoints = on(&files);
    write(&checkpoints, 1, 3).unwrap();
    let whole = files.content(&checkpoints.path(1)).unwrap();
    let told = |bytes: Vec<u8>, index: u64| {
        files.put(&checkpoints.path(index), bytes);
        read(&checkpoints, index).unwrap_err().to_string()
    };
    let newer = {
        let mut header = whole[..20].to_vec();
        header[8] = 9;
        let sum = crc32c::crc32c(&header).to_le_bytes();
        [header, sum.to_vec(), whole[24..].to_vec()].concat()
    };
    let changed = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let all = [
        told(Vec::new(), 1),
        told(b"not a checkpoint at all, but long enough".to_vec(), 1),
        told(newer, 1),
        told(whole.clone(), 2),
        told(changed(9), 1),
        told(changed(26), 1),
        told(changed(HEADER + CHUNK_HEAD + CHUNK_HEAD + 2), 1),
        told(whole[..whole.len() - 21].to_vec(), 1),
        told([whole.clone(), vec![0]].concat(), 1),
        checkpoints.open(77).unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn a_damaged_one_is_set_aside_and_pushes_out_none_that_is_whole() {
    let files = SimFiles::new(1);
    let checkpoints = on(&files);
    for index in 1..=3 {
        write(&checkpoints, index, 9).unwrap();
    }
    assert_eq!(checkpoints.set_aside(3).unwrap(), None, "it is whole");
    assert!(files.flip(&checkpoints.path(3), 400));
    let aside = checkpoints.set_aside(3).unwrap().unwrap();
    assert!(files.content(&aside).is_some() && checkpoints.list().unwrap() == [2]);
    write(&checkpoints, 4, 9).unwrap();
    assert_eq!(on(&files.power_cut()).list().unwrap(), [4, 2]);
    let all = files.list(checkpoints.folder()).unwrap();
    assert_eq!(all.len(), 2, "nobody needs the damaged one any more: {all:?}");
    // What cannot be read today may be whole.
    assert_eq!(checkpoints.set_aside(77).unwrap(), None);
    files.put(&checkpoints.path(5), [&MAGIC[..], &9u32.to_le_bytes(), &[0; 12]].concat());
    assert!(checkpoints.set_aside(5).unwrap().is_some(), "a header with another checksum");
}

#[test]
fn a_disk_that_fails_leaves_the_one_before_in_force_and_can_be_written_again() {
    let faults: [fn(&SimFiles); 5] = [
        |files| files.faults(|f| f.free = Some(300)),
        |files| files.faults(|f| f.read_only = true),
        |files| files.faults(|f| f.write_errors = 1),
        |files| files.faults(|f| f.sync_errors = 1),
        |files| files.faults(|f| f.name_errors = 1),
    ];
    for (seed, fault) in faults.into_iter().enumerate() {
        let files = SimFiles::new(seed as u64);
        let checkpoints = on(&files);
        write(&checkpoints, 1, 9).unwrap();
        write(&checkpoints, 2, 9).unwrap();
        fault(&files);
        assert!(write(&checkpoints, 3, 50).is_err(), "fault {seed}");
        assert_eq!(newest(&checkpoints), Some((2, chunks(2, 9))), "fault {seed}");
        assert_eq!(newest(&on(&files.power_cut())), Some((2, chunks(2, 9))), "fault {seed}");
        files.heal();
        write(&checkpoints, 4, 9).unwrap();
        assert_eq!(newest(&on(&files.power_cut())), Some((4, chunks(4, 9))), "fault {seed}");
        assert_eq!(checkpoints.list().unwrap(), [4, 2], "fault {seed}");
    }
}

proptest! {
    #[test]
    fn whenever_the_power_is_cut_the_last_one_or_the_one_that_was_being_written_is_there_wholly(
        seed in any::<u64>(),
        before in 1u64..4,
        count in 0usize..40,
        cut in 0usize..44,
        faults in prop::collection::vec(0u32..2, 4),
    ) {
        let files = SimFiles::new(seed);
        let checkpoints = on(&files);
        for index in 1..=before {
            write(&checkpoints, index, 5).unwrap();
        }
        files.faults(|f| {
            (f.write_errors, f.sync_errors, f.name_errors) = (faults[0], faults[1], faults[2]);
            f.free = (faults[3] == 1).then_some(2000);
        });
        let index = before + 1;
        let mut after = None;
        // Every step is tried: a process does not live through its power cut.
        let mut step = 0;
        let mut here = |files: &SimFiles| {
            if step == cut {
                after = Some(files.power_cut());
            }
            step += 1;
        };
        let written = (|| {
            let mut writer = checkpoints.create(index)?;
            here(&files);
            for (kind, bytes) in chunks(index, count) {
                writer.chunk(kind, &bytes)?;
                here(&files);
            }
            writer.finish()
        })();
        here(&files);
        let found = newest(&on(&after.unwrap_or_else(|| files.power_cut())));
        let (old, new) = (Some((before, chunks(before, 5))), Some((index, chunks(index, count))));
        if written.is_ok() && cut > count {
            prop_assert_eq!(&found, &new);
        } else {
            prop_assert!(found == old || found == new, "{:?}", found.map(|f| f.0));
        }
        // Those who did not lose their power go on.
        files.heal();
        let expected = if written.is_ok() { new } else { old };
        let now = newest(&checkpoints);
        prop_assert!(now == expected || now == Some((index, chunks(index, count))));
        write(&checkpoints, index + 1, 3).unwrap();
        prop_assert_eq!(newest(&on(&files.power_cut())), Some((index + 1, chunks(index + 1, 3))));
    }

    #[test]
    fn a_bit_that_has_changed_is_noticed_wherever_it_is(count in 0usize..20, bit in any::<u64>()) {
        let files = SimFiles::new(1);
        let checkpoints = on(&files);
        let length = write(&checkpoints, 5, count).unwrap();
        write(&checkpoints, 6, count).unwrap();
        prop_assert!(files.flip(&checkpoints.path(6), bit % (length * 8)));
        prop_assert!(read(&checkpoints, 6).is_err());
        prop_assert_eq!(newest(&checkpoints), Some((5, chunks(5, count))));
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        behind_a_header in any::<bool>(),
    ) {
        let files = SimFiles::new(1);
        let checkpoints = on(&files);
        write(&checkpoints, 5, 0).unwrap();
        let header = files.content(&checkpoints.path(5)).unwrap()[..HEADER].to_vec();
        files.put(&checkpoints.path(5), if behind_a_header { [header, bytes].concat() } else { bytes });
        prop_assert!(read(&checkpoints, 5).is_err());
    }
}
