//! Disks that fail under the real daemon: it says what is wrong, loses nothing that it can keep, and goes on.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::support::daemon::{get, signal};
use crate::support::judge::PRODUCTION;
use crate::support::traffic::{Step, traffic};
use crate::support::world::{World, replay};
use crate::support::{Absent, eventually, needs};

const SOON: Duration = Duration::from_secs(60);

/// A file system of its own in memory, as large as it is told.
struct Disk(PathBuf);

impl Disk {
    fn new(folder: &Path, size: &str) -> Result<Self, Absent> {
        std::fs::create_dir_all(folder).expect("a folder");
        let options = format!("size={size}");
        mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], folder)?;
        Ok(Self(folder.to_owned()))
    }

    fn remount(&self, how: &str) -> Result<(), Absent> {
        mount(&["-o", &format!("remount,{how}")], &self.0)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

fn mount(arguments: &[&str], folder: &Path) -> Result<(), Absent> {
    let output = Command::new("mount").args(arguments).arg(folder).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Absent(format!("nothing can be mounted here: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        Err(error) => Err(Absent(format!("there is no `mount`: {error}"))),
    }
}

fn steps() -> &'static [Step] {
    static STEPS: OnceLock<std::sync::Arc<Vec<Step>>> = OnceLock::new();
    STEPS.get_or_init(|| traffic(4))
}

/// Sends the steps of this range.
async fn send(world: &World, range: std::ops::Range<usize>) {
    let (at, until) = (AtomicUsize::new(range.start), AtomicUsize::new(range.end));
    tokio::time::timeout(2 * SOON, world.send(&steps()[..range.end], &at, &until)).await.expect("all of it is taken in");
    assert_eq!(at.load(SeqCst), range.end);
}

/// The folder of the detector.
fn detector(world: &World) -> PathBuf {
    world.setup.data().join("production/detector")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    all.retain(|path| path.is_file());
    all.sort();
    all
}

fn checkpoints(world: &World) -> Vec<PathBuf> {
    let mut all = files(&detector(world));
    all.retain(|path| path.extension().is_none() && path.to_string_lossy().contains("checkpoint-"));
    all
}

/// A daemon that was killed when it had two checkpoints and something behind them; what it knew.
async fn killed() -> (World, String) {
    let world = World::new(7).await;
    let mut daemon = world.setup.start().await;
    let mut sent = 0;
    while sent < steps().len() {
        let next = (sent + 8).min(steps().len());
        send(&world, sent..next).await;
        sent = next;
        // One is begun a second after the one before, when buckets are closed.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if sent > 400 && checkpoints(&world).len() >= 2 {
            break;
        }
    }
    assert_eq!(checkpoints(&world).len(), 2, "{}", daemon.said());
    daemon.kill();
    let digest = replay(world.setup.data(), "digest");
    assert!(digest.lines().count() > 5, "{digest}");
    (world, digest)
}

/// Starts the daemon on what is there and stops it; what it knows then, and what it said.
async fn known_after_a_start(world: &World) -> (String, String) {
    let mut daemon = world.setup.start().await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    let said = daemon.said();
    // Once more, so that both checkpoints are new: a replay begins with the older one.
    let mut daemon = world.setup.start().await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    (replay(world.setup.data(), "digest"), said)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("the file");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("the file");
}

#[tokio::test]
async fn a_damaged_checkpoint_is_passed_over_and_nothing_is_lost() {
    let (world, known) = killed().await;
    let newest = checkpoints(&world).pop().expect("a checkpoint");
    change(&newest, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8].iter_mut().for_each(|byte| *byte ^= 0x10);
    });
    let (after, said) = known_after_a_start(&world).await;
    assert_eq!(after, known, "the one before and the log tell the same");
    assert!(said.contains("a checkpoint cannot be used; the one before it is tried"), "{said}");
}

#[tokio::test]
async fn a_checkpoint_of_a_newer_format_is_passed_over_and_kept() {
    let (world, known) = killed().await;
    let newest = checkpoints(&world).pop().expect("a checkpoint");
    change(&newest, |bytes| {
        bytes[8] = 9;
        let sum = crc32c::crc32c(&bytes[..20]).to_le_bytes();
        bytes[20..24].copy_from_slice(&sum);
    });
    let (after, said) = known_after_a_start(&world).await;
    assert_eq!(after, known);
    assert!(said.contains("another version of anomalyd wrote it"), "{said}");
}

#[tokio::test]
async fn what_does_not_belong_there_is_left_alone() {
    let (world, known) = killed().await;
    let folder = detector(&world);
    for name in [
        "checkpoint-7",
        "checkpoint-00000000000000000009.unfinished",
        "log/notes.txt",
        "log/00000000000000000003.tmp",
        "log/x.log",
    ] {
        std::fs::write(folder.join(name), b"something else").expect("a file");
    }
    std::fs::create_dir_all(folder.join("log/00000000000000000001.log")).expect("a folder");
    std::fs::create_dir_all(world.setup.data().join("lost+found")).expect("a folder");
    let (after, _) = known_after_a_start(&world).await;
    assert_eq!(after, known);
    assert!(folder.join("log/notes.txt").exists() && folder.join("checkpoint-7").exists());
}

#[tokio::test]
async fn an_old_segment_that_went_bad_is_told_and_costs_nothing_that_a_checkpoint_has() {
    let (world, known) = killed().await;
    let oldest = files(&detector(&world).join("log")).into_iter().next().expect("a segment");
    // The newest checkpoint is younger than the beginning of the log.
    change(&oldest, |bytes| bytes[100..140].iter_mut().for_each(|byte| *byte ^= 0xFF));
    let (after, said) = known_after_a_start(&world).await;
    assert_eq!(after, known);
    assert!(said.contains("do not match their checksums") && said.contains("set_aside"), "{said}");
}

#[tokio::test]
async fn a_log_that_was_cut_short_and_a_segment_of_a_newer_version_do_not_keep_a_daemon_from_starting() {
    let (world, _) = killed().await;
    let log = detector(&world).join("log");
    let last = files(&log).pop().expect("a segment");
    change(&last, |bytes| bytes.truncate(bytes.len() - 5));
    let (_, said) = known_after_a_start(&world).await;
    assert!(!said.contains("panicked"), "{said}");
    let last = files(&log).pop().expect("a segment");
    change(&last, |bytes| {
        bytes[4] = 9;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..32]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    });
    let newer = std::fs::read(&last).expect("the segment");
    let (_, said) = known_after_a_start(&world).await;
    assert!(said.contains("format version 9"), "{said}");
    let aside = log.join("set_aside").join(last.file_name().expect("a name"));
    assert_eq!(std::fs::read(aside).expect("it is set aside"), newer, "as it was");
}

#[tokio::test]
async fn a_damaged_store_of_small_values_is_set_aside_and_what_was_learnt_stays() {
    let (world, known) = killed().await;
    let store = world.setup.data().join("state.redb");
    change(&store, |bytes| bytes[..64].fill(0x55));
    let (after, said) = known_after_a_start(&world).await;
    assert_eq!(after, known);
    assert!(said.contains("was damaged") && said.contains("state.redb.damaged"), "{said}");
    assert!(world.setup.data().join("state.redb.damaged").exists());
}

#[tokio::test]
async fn a_second_daemon_on_the_same_directory_says_so_and_ends() {
    let world = World::new(7).await;
    let mut first = world.setup.start().await;
    let mut other = World::new(8).await;
    other.setup.data_at(world.setup.data());
    let mut second = other.setup.spawn();
    let status = second.end(SOON).await;
    assert!(!status.success() && second.said().contains("in use by another anomalyd"), "{status}: {}", second.said());
    send(&world, 0..1).await;
    assert_eq!(first.stop().await.code(), Some(0), "{}", first.said());
}

#[tokio::test]
async fn on_a_full_disk_clients_keep_what_they_have_until_there_is_room_again() {
    let undisturbed = World::new(7).await;
    let mut daemon = undisturbed.setup.start().await;
    send(&undisturbed, 0..steps().len()).await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    let known = replay(undisturbed.setup.data(), "digest");

    let mut world = World::new(7).await;
    let folder = world.setup.path("small");
    let _disk = needs!(Disk::new(&folder, "48m"));
    world.setup.data_at(&folder.join("data"));
    let mut daemon = world.setup.start().await;
    let half = steps().len() / 2;
    send(&world, 0..half).await;
    let ballast = folder.join("ballast");
    // As much as there is room for.
    let _ = Command::new("dd")
        .args(["if=/dev/zero", "bs=4k"])
        .arg(format!("of={}", ballast.display()))
        .stderr(Stdio::null())
        .status();
    let rest = async { send(&world, half..steps().len()).await };
    let room = async {
        eventually("the health to tell of the full disk", SOON, async || {
            let (_, health) = daemon.health().await;
            if health.contains("No space left on device") { Ok(()) } else { Err(format!("{health}\n{}", daemon.said())) }
        })
        .await;
        std::fs::remove_file(&ballast).expect("the ballast");
    };
    tokio::join!(rest, room);
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    assert_eq!(replay(world.setup.data(), "digest"), known, "as if there had always been room");
}

#[tokio::test]
async fn a_disk_that_becomes_read_only_stops_the_intake_and_not_the_daemon() {
    let mut world = World::new(7).await;
    let folder = world.setup.path("small");
    let disk = needs!(Disk::new(&folder, "48m"));
    world.setup.data_at(&folder.join("data"));
    needs!(disk.remount("ro"));
    let mut refused = world.setup.spawn();
    let status = refused.end(SOON).await;
    assert!(!status.success() && refused.said().contains("Read-only file system"), "{status}: {}", refused.said());

    needs!(disk.remount("rw"));
    let mut daemon = world.setup.start().await;
    send(&world, 0..2).await;
    // A file that is open for writing keeps a file system from becoming read-only, but for an emergency.
    if disk.remount("ro").is_ok() {
        eventually("the health to tell of it", SOON, async || {
            let (_, health) = daemon.health().await;
            if health.contains("Read-only file system") { Ok(()) } else { Err(format!("{health}\n{}", daemon.said())) }
        })
        .await;
        needs!(disk.remount("rw"));
    }
    send(&world, 2..4).await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test]
async fn a_start_that_cannot_put_what_it_finds_again_anywhere_says_so_and_can_be_stopped() {
    let world = World::with_storage(7, "checkpoint_interval: 1h").await;
    let mut daemon = world.setup.start().await;
    // So much comes after the first findings that it does not fit into the queues behind the log.
    let steps = traffic(60);
    let (at, until) = (AtomicUsize::new(0), AtomicUsize::new(steps.len()));
    tokio::time::timeout(2 * SOON, world.send(&steps, &at, &until)).await.expect("all of it is taken in");
    eventually("findings", SOON, async || if world.file(PRODUCTION).is_empty() { Err(daemon.said()) } else { Ok(()) }).await;
    daemon.kill();
    let known = replay(world.setup.data(), "digest");

    // All of it happens again, into an outbox that is on a full disk.
    let outbox = detector(&world).join("outbox");
    std::fs::remove_dir_all(&outbox).expect("the outbox");
    let disk = needs!(Disk::new(&outbox, "64k"));
    let ballast = outbox.join("ballast");
    let _ = Command::new("dd").arg("if=/dev/zero").arg(format!("of={}", ballast.display())).stderr(Stdio::null()).status();
    for _ in 0..2 {
        let mut daemon = world.setup.spawn();
        eventually("the health to tell why it does not get ready", SOON, async || {
            let answer = get(world.setup.admin(), "/health").await;
            let told = matches!(&answer, Ok((503, health)) if health.contains("findings cannot be put into the outbox")
                && health.contains("No space left on device"));
            if told { Ok(()) } else { Err(format!("{answer:?}\n{}", daemon.said())) }
        })
        .await;
        // Its deadline.
        signal(daemon.pid(), "TERM");
        assert_eq!(daemon.end(Duration::from_secs(20)).await.code(), Some(0), "{}", daemon.said());
    }
    std::fs::remove_file(&ballast).expect("the ballast");
    drop(disk);
    let mut daemon = world.setup.start().await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
    assert_eq!(replay(world.setup.data(), "digest"), known);
}
