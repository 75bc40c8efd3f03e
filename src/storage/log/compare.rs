//! Would an embedded engine do? Run by hand, on the disk that is to be measured:
//!
//!     TMPDIR=/var/lib cargo test --release --lib storage::log::compare -- --ignored --nocapture

use std::path::Path;
use std::time::Instant;

use redb::{Database, Durability, TableDefinition};

use super::*;
use crate::storage::DiskFiles;

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// The newest bytes that are kept; older records are trimmed every `TRIM` batches.
const KEPT: u64 = 100 << 20;
const TRIM: u64 = 256;

fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries.map(|e| if e.path().is_dir() { bytes_below(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}

/// What the process made the disks write, where the system tells.
fn written() -> u64 {
    let counters = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    counters.lines().find_map(|l| l.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or(0)
}

/// Hands batches of records that cannot be compressed to `append`, with the index below which nothing is needed.
fn measure(name: &str, size: usize, count: usize, folder: &Path, mut append: impl FnMut(u64, &[Vec<u8>], Option<u64>)) {
    let mut random = fastrand::Rng::with_seed(1);
    let batch: Vec<Vec<u8>> = (0..count).map(|_| std::iter::repeat_with(|| random.u8(..)).take(size).collect()).collect();
    let bytes = (size * count) as u64;
    let batches = (if bytes < 10_000 { 40 << 20 } else { 400 << 20 }) / bytes;
    let (before, begin) = (written(), Instant::now());
    for n in 0..batches {
        let first = n * count as u64;
        append(first, &batch, (n % TRIM == 0).then(|| first.saturating_sub(KEPT / size as u64)));
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{name:5} {count:3} x {size:6} bytes: {:8.1} MB/s, {:7.0} syncs/s, {:.2} bytes written per byte, {} MB on disk",
        (batches * bytes) as f64 / seconds / 1e6,
        batches as f64 / seconds,
        (written() - before) as f64 / (batches * bytes) as f64,
        bytes_below(folder) / 1_000_000,
    );
}

#[test]
#[ignore = "a measurement, for a quiet machine and a release build"]
fn this_log_beside_an_embedded_engine() {
    for (size, count) in [(135_000, 1), (4_000, 1), (4_000, 32)] {
        let folder = tempfile::tempdir().unwrap();
        let options = LogOptions { segment_size: 64 << 20, max_size: 4 << 30 };
        let path = folder.path().join("log");
        let (mut log, _) = Log::open(Arc::new(DiskFiles), path.clone(), options).unwrap();
        measure("log", size, count, folder.path(), |_, batch, keep_from| {
            log.append(batch).unwrap();
            if let Some(keep_from) = keep_from {
                log.trim(keep_from).unwrap();
            }
        });
        let begin = Instant::now();
        let mut reader = Reader::open(Arc::new(DiskFiles), path, 0).unwrap();
        let mut bytes = 0;
        while let Some(record) = reader.read() {
            bytes += record.unwrap().1.len();
        }
        println!("      read back at {:.0} MB/s", bytes as f64 / begin.elapsed().as_secs_f64() / 1e6);

        let folder = tempfile::tempdir().unwrap();
        let database = Database::create(folder.path().join("redb")).unwrap();
        let mut trimmed = 0;
        measure("redb", size, count, folder.path(), |first, batch, keep_from| {
            let mut write = database.begin_write().unwrap();
            write.set_durability(Durability::Immediate).unwrap();
            let mut table = write.open_table(TABLE).unwrap();
            for (index, record) in (first..).zip(batch) {
                table.insert(index, record.as_slice()).unwrap();
            }
            if let Some(keep_from) = keep_from.filter(|k| *k > trimmed) {
                table.retain_in(trimmed..keep_from, |_, _| false).unwrap();
                trimmed = keep_from;
            }
            drop(table);
            write.commit().unwrap();
        });
    }
}
