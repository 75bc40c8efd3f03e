//! What checkpoints cost at 100,000 series:
//! `cargo test --release --lib measure -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use super::super::checkpoint::{Outcome, Writer, newest};
use super::super::rules::Request;
use super::super::shard::{self, Command, Shared, Step};
use super::*;
use crate::pipeline::{Context, Counters, Services};
use crate::storage::{Checkpoints, DiskFiles};

const ENTITIES: u64 = 200;
const COPIES: u64 = 100;
const MINUTES: u64 = 300;
const NOW: u64 = BEGIN + 400 * 86_400;

/// The calls of some entities in one minute. The name ends in digits that copies replace.
fn minute(entities: std::ops::Range<u64>, copy: u64, minute: u64) -> Vec<Observation> {
    let second = BEGIN + minute * MINUTE;
    entities
        .map(|i| {
            let mut one = calls("checkout", second, 24 + (noise(second + i) * 8.0) as u32, 0, 0.125);
            Arc::make_mut(&mut one.entity).service = format!("service-{i:04}-#{copy:04}");
            one
        })
        .collect()
}

/// What 100,000 series have learnt.
fn many() -> Chunks {
    let mut bench = Bench::new(&Config { max_series: 1_000_000, ..config() }, 1, NOW);
    for m in 0..MINUTES {
        bench.feed(minute(0..ENTITIES, 0, m));
    }
    let chunks = bench.save();
    let (front, rest) = chunks.split_at(2);
    let mut all = front.to_vec();
    for copy in 0..COPIES {
        let name = format!("#{copy:04}");
        all.extend(rest.iter().map(|(kind, bytes)| {
            let mut bytes = bytes.clone();
            let places: Vec<usize> = bytes.windows(5).enumerate().filter(|(_, w)| *w == b"#0000").map(|(at, _)| at).collect();
            places.into_iter().for_each(|at| bytes[at..at + 5].copy_from_slice(name.as_bytes()));
            (*kind, bytes)
        }));
    }
    all
}

fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn context(counters: &Arc<Counters>) -> Context {
    Context { counters: Arc::clone(counters), ..Context::of_test(environment().as_str(), "detector", Services::in_memory()) }
}

#[test]
#[ignore = "measures, in a release build"]
fn what_a_checkpoint_costs() {
    let config = Config { max_series: 1_000_000, ..config() };
    let chunks = many();
    let bytes: usize = chunks.iter().map(|c| c.1.len()).sum();
    for kind in 3..=5 {
        let of: usize = chunks.iter().filter(|c| c.0 == kind).map(|c| c.1.len()).sum();
        println!("kind {kind}: {:.1} MB", of as f64 / 1e6);
    }
    let begun = Instant::now();
    let mut cores = Bench::load(chunks, &config, 2);
    let series: usize = cores.iter().map(Core::series).sum();
    println!(
        "{series} series, {:.0} MB, {:.0} bytes each; decoded in {:.0} ms",
        bytes as f64 / 1e6,
        bytes as f64 / series as f64,
        ms(begun)
    );

    // One shard by hand.
    let core = &mut cores[0];
    for round in 0..2 {
        let begun = Instant::now();
        let mut all = checkpoint::tests::begin(std::slice::from_mut(core));
        println!("round {round}: begun in {:.1} ms", ms(begun));
        let (mut longest, mut slices, begun) = (0.0f64, 0, Instant::now());
        let mut total = 0;
        while core.owes_checkpoint() {
            let slice = Instant::now();
            checkpoint::tests::pay(core, 256 << 10, &mut all);
            longest = longest.max(ms(slice));
            slices += 1;
            total += all.drain(..).map(|c| c.1.len()).sum::<usize>();
        }
        let spent = ms(begun);
        println!("{slices} slices, longest {longest:.2} ms, {spent:.0} ms in all, {:.0} MB/s", total as f64 / spent / 1e3);
    }
    // Feeds and sweeps of that shard, without and with everything owed.
    let intake = |core: &mut Core, m: u64, copy: u64| {
        let mut intake = Intake::new(&environment(), 2, core.settings.timing.bucket);
        let mut divided = intake.divide(payload(minute(0..ENTITIES, copy, m)), UnixNanos::from_secs(NOW));
        let feed = divided.feeds.remove(0);
        let begun = Instant::now();
        core.observe(feed);
        ms(begun)
    };
    for (name, owed, m) in [("nothing owed", false, MINUTES), ("everything owed", true, MINUTES + 1)] {
        if owed {
            drop(checkpoint::tests::begin(std::slice::from_mut(core)));
        }
        let sweep = intake(core, m, 0);
        println!("{name}: the feed that closes a bucket takes {sweep:.0} ms");
        if owed {
            checkpoint::tests::give_up(core);
            drop(checkpoint::tests::begin(std::slice::from_mut(core)));
        }
        let feeds: Vec<f64> = (1..COPIES).map(|copy| intake(core, m, copy)).collect();
        let (sum, longest) = (feeds.iter().sum::<f64>(), feeds.iter().fold(0.0f64, |a, b| a.max(*b)));
        println!("{name}: a feed of {} takes {:.2} ms, at most {longest:.2} ms", ENTITIES / 2, sum / feeds.len() as f64);
    }
    checkpoint::tests::give_up(core);

    // Both shards as they run, onto a real disk.
    let folder = tempfile::tempdir_in(".").unwrap();
    let checkpoints = Checkpoints::new(Arc::new(DiskFiles), folder.path().to_owned());
    let counters = Arc::new(Counters::default());
    let flights = Arc::clone(&counters);
    let context = context(&counters);
    let (writer, pieces, outcome) = Writer::new(&context, Some(checkpoints.clone()), 2, cores[0].settings.timing.bucket);
    let writing = std::thread::spawn(move || writer.run());
    let (reports, mut heard) = tokio::sync::mpsc::channel(1000);
    let shared = Shared { counters, reports, pieces: pieces.sender(), sweeping: Arc::default(), live_from: UnixNanos(0) };
    let shards: Vec<_> = cores.into_iter().enumerate().map(|(n, core)| shard::start(n, core, shared.clone()).unwrap()).collect();
    drop(shared);
    let listening = std::thread::spawn(move || while heard.blocking_recv().is_some() {});
    for (name, busy) in [("idle", false), ("busy", true)] {
        let index = u64::from(busy);
        let (begun, before) = (Instant::now(), cpu());
        for shard in &shards {
            shard.blocking_send(Step { at: 0, command: Command::Checkpoint(index), room: None }).unwrap();
        }
        pieces.behind(index, Vec::new());
        let mut longest = 0.0f64;
        let mut asked = 0;
        let mut m = MINUTES + 2;
        let mut copy = 0;
        let mut intake = Intake::new(&environment(), 2, config.bucket.nanos());
        let written = |outcome: &tokio::sync::watch::Receiver<_>| matches!(&*outcome.borrow(), Some(Outcome::Written { index: i, .. }) if *i == index);
        while !written(&outcome) && begun.elapsed() < Duration::from_secs(60) {
            if busy {
                let divided = intake.divide(payload(minute(0..ENTITIES, copy, m)), UnixNanos::from_secs(NOW));
                for (shard, feed) in shards.iter().zip(divided.feeds) {
                    let _ = shard.blocking_send(Step {
                        at: 0,
                        command: Command::Feed(feed, flights.begin(crate::model::PayloadKind::Observations, 0)),
                        room: None,
                    });
                }
                copy += 1;
                if copy == COPIES {
                    (copy, m) = (0, m + 1);
                }
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
            let request = Arc::new(Request::Mutes(UnixNanos(0)));
            let (answer, mut answers) = tokio::sync::mpsc::channel(2);
            let asking = Instant::now();
            for shard in &shards {
                shard
                    .blocking_send(Step { at: 0, command: Command::Ask(Arc::clone(&request), answer.clone()), room: None })
                    .unwrap();
            }
            (0..2).for_each(|_| drop(answers.blocking_recv().unwrap()));
            longest = longest.max(ms(asking));
            asked += 1;
        }
        println!(
            "{name}: {:?} in {:.0} ms, {:.2} s of processor time, longest answer of {asked}: {longest:.1} ms",
            *outcome.borrow(),
            ms(begun),
            cpu() - before
        );
    }
    drop(shards);
    drop(pieces);
    listening.join().unwrap();
    writing.join().unwrap();
    let settings = settings(&config);
    let begun = Instant::now();
    let (index, loaded) = newest(&checkpoints, &[Arc::clone(&settings), settings], |e| panic!("{e}")).unwrap().unwrap();
    println!(
        "checkpoint {index} of {} series loaded in {:.0} ms",
        loaded.cores.iter().map(Core::series).sum::<usize>(),
        ms(begun)
    );
}
