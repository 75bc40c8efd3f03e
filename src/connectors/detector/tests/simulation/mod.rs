//! The production connector in a simulated world: clients that send again what was not confirmed, a disk that fails, a
//! machine that ends at any moment, exporters that refuse. Whatever happens, in the end the same is learnt, and the same
//! was found and delivered, as if nothing had happened.
//!
//! A seed decides everything but the pace of the threads. A seed that fails prints itself:
//!
//! ```text
//! ANOMALYD_SIMULATION_SEED=17 cargo test --lib simulation     # this one, a few times
//! ANOMALYD_SIMULATIONS=5000 cargo test --lib simulation       # that many
//! ```

mod exporter;
mod life;
mod machine;
mod stream;

use std::sync::{Arc, OnceLock};

use self::exporter::{Delivered, Does};
use self::life::{Ended, Fault, Plan, World};
use self::machine::End;
use self::stream::{Stage, stream};
use super::*;
use crate::storage::Checkpoints;

/// So many streams there are.
const STREAMS: u64 = 4;
/// So many seeds are tried.
const SEEDS: u64 = 100;

/// What came of a stream that nothing disturbed.
struct Reference {
    stages: Arc<Vec<Stage>>,
    delivered: Delivered,
    state: State,
}

/// All that a detector has learnt, apart from what tells when it ran.
#[derive(Debug, PartialEq)]
struct State {
    records: Vec<Vec<u8>>,
    sources: serde_json::Value,
    quieting: Vec<u8>,
}

impl State {
    /// The newest checkpoint, in one core.
    fn core(world: &World) -> Result<Core, String> {
        let settings = settings(&Config::read(&life::config(1)).unwrap());
        let checkpoints = Checkpoints::new(Arc::new(world.disk.clone()), life::folder());
        let newest = checkpoint::newest(&checkpoints, &[settings], |error| panic!("{error}"));
        let (_, loaded) = newest.map_err(|e| e.to_string())?.ok_or("there is no checkpoint")?;
        Ok(loaded.cores.into_iter().next().unwrap())
    }

    fn load(world: &World) -> Result<Self, String> {
        let mut core = Self::core(world)?;
        core.sort_sources();
        let shared = core.shared();
        let mut sources = serde_json::to_value(&shared.sources).unwrap();
        for source in sources.as_array_mut().unwrap() {
            let source = source.as_object_mut().unwrap();
            for when in ["last_seen", "idle", "resumed", "downtime"] {
                source.remove(when).unwrap();
            }
        }
        let mut records = core.records();
        records.sort();
        Ok(Self { records, sources, quieting: postcard::to_stdvec(&shared.quieting).unwrap() })
    }

    /// A sentence when it is not as `expected`.
    fn judge(&self, expected: &Self) -> Result<(), String> {
        if self.records != expected.records {
            let name = |record: &Vec<u8>| String::from_utf8_lossy(&record[..record.len().min(60)]).escape_default().to_string();
            let others = |ours: &[Vec<u8>], theirs: &[Vec<u8>]| {
                ours.iter().filter(|record| !theirs.contains(record)).map(name).collect::<Vec<_>>().join("\n")
            };
            let (learnt, missing) = (others(&self.records, &expected.records), others(&expected.records, &self.records));
            return Err(format!("what was learnt is\n{learnt}\nand not\n{missing}"));
        }
        if self.sources != expected.sources {
            return Err(format!("event time has come elsewhere:\n{}\n{}", self.sources, expected.sources));
        }
        if self.quieting != expected.quieting {
            return Err("what was muted is another".to_owned());
        }
        Ok(())
    }
}

/// Lives to the end of the stream, undisturbed.
async fn undisturbed(world: &mut World, shards: usize) -> Result<(), String> {
    let ended = world.live(Plan { shards, is_last: true, ..Plan::default() }).await?;
    if ended != Ended::InOrder || !world.is_through() {
        return Err(format!("it ended {ended:?} at stage {}", world.at));
    }
    let left: Vec<_> = world.disk.all().into_iter().filter(|(path, _)| path.parent() == Some(&life::folder())).collect();
    if left.len() > 2 { Err(format!("more than two checkpoints are left: {left:?}")) } else { Ok(()) }
}

async fn reference(number: u64) -> &'static Reference {
    static ALL: [OnceLock<Reference>; STREAMS as usize] = [const { OnceLock::new() }; STREAMS as usize];
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one = ONE.lock().await;
    if let Some(known) = ALL[number as usize].get() {
        return known;
    }
    let run = async |normal: Option<&str>| {
        let stages = Arc::new(stream(number, normal));
        let mut world = World::new(number, Arc::clone(&stages));
        undisturbed(&mut world, 2).await.unwrap();
        let (delivered, times) = world.others[0].delivered().unwrap();
        assert_eq!(times as usize, delivered.order.len(), "nothing comes twice when nothing is disturbed");
        assert_eq!(world.others[1].delivered().unwrap().0, delivered);
        Reference { stages, delivered, state: State::load(&world).unwrap() }
    };
    let before = run(None).await;
    let anomaly = before.delivered.order.iter().find(|id| !id.contains('-')).expect("the fault is found");
    let events = before.delivered.order.iter().filter(|id| id.contains('-')).count();
    assert!(events > 1, "it becomes incidents");
    let reference = run(Some(anomaly)).await;
    assert_ne!(reference.state, before.state, "what was called normal is learnt");
    ALL[number as usize].get_or_init(|| reference)
}

fn fault(random: &mut fastrand::Rng) -> Fault {
    match random.u8(0..6) {
        0 => Fault::Full(random.u64(0..4000)),
        1 => Fault::ReadOnly,
        2 => Fault::Writes(random.u32(1..4)),
        3 => Fault::Syncs(random.u32(1..4)),
        4 => Fault::Cuts(random.u32(1..4)),
        _ => Fault::Names(random.u32(1..4)),
    }
}

/// How the next life goes, of a world that has come to stage `at`.
fn plan(random: &mut fastrand::Rng, at: usize) -> Plan {
    let mut faults = Vec::new();
    if random.u8(0..5) == 0 {
        // While it starts.
        faults.push((at, fault(random), random.u32(1..6)));
    }
    for _ in 0..[0, 0, 1, 3][random.usize(0..4)] {
        faults.push((at + random.usize(0..200), fault(random), random.u32(1..6)));
    }
    let mut does = || {
        let all = [Does::Keep, Does::Keep, Does::Keep, Does::KeepSilently, Does::Refuse, Does::Hang, Does::End];
        let quiet = random.bool();
        (0..random.usize(0..12)).map(|_| if quiet { Does::Keep } else { all[random.usize(0..all.len())] }).collect()
    };
    let does = [does(), does()];
    let end = if random.bool() { End::Kill } else { End::PowerCut };
    let calls = if random.u8(0..3) == 0 { 60 } else { 3000 };
    let (mut plan, how) = (Plan { faults, does, shards: random.usize(1..4), ..Plan::default() }, random.u8(0..5));
    match how {
        0 => plan.stages = Some(random.usize(0..200)),
        1 => (plan.end, plan.end_at_poll) = (Some((end, i64::MAX)), Some(random.u64(1..2000))),
        _ => plan.end = Some((end, random.i64(1..calls))),
    }
    plan
}

/// What happens to seed `seed`; a sentence where it must not.
async fn simulate(seed: u64) -> Result<(), String> {
    let reference = reference(seed % STREAMS).await;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut world = World::new(seed, Arc::clone(&reference.stages));
    let mut lives = Vec::new();
    for _ in 0..random.usize(1..8) {
        let plan = plan(&mut random, world.at);
        lives.push(format!("from stage {} {plan:?}", world.at));
        let ended = world.live(plan).await.map_err(|why| format!("{why}\n{}", lives.join("\n")))?;
        lives.push(format!("{ended:?} at stage {}", world.at));
    }
    let told = |why: String| format!("{why}\n{}", lives.join("\n"));
    undisturbed(&mut world, random.usize(1..4)).await.map_err(told)?;
    State::load(&world)?.judge(&reference.state).map_err(told)?;
    for other in &world.others {
        let (delivered, _) = other.delivered().map_err(told)?;
        if delivered.all != reference.delivered.all {
            let (ours, true_ones) = (&delivered.all, &reference.delivered.all);
            let lost: Vec<_> = true_ones.iter().filter(|(id, _)| !ours.contains_key(*id)).collect();
            let invented: Vec<_> = ours.iter().filter(|(id, finding)| true_ones.get(*id) != Some(finding)).collect();
            let left = world.left();
            return Err(told(format!(
                "these never came: {lost:#?}\nthese are not true: {invented:#?}\nstill in the outbox: {left:?}"
            )));
        }
        if !other.is_disturbed() && delivered.order != reference.delivered.order {
            return Err(told("the findings came in another order".to_owned()));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_full_makes_room_although_no_bucket_is_closed() {
    let mut world = World::new(1, Arc::new(stream::standing_still()));
    // Once over a restart: what is in the log then counts too.
    world.live(Plan { shards: 1, stages: Some(world.stages.len() / 3), ..Plan::default() }).await.unwrap();
    world.live(Plan { shards: 1, end: Some((End::Kill, 200)), ..Plan::default() }).await.unwrap();
    undisturbed(&mut world, 1).await.unwrap();
}

/// What a disk does after years. What it hit in a log is lost, and only that; what it hit in one checkpoint is not, because
/// the one before and the log know it too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_bits_never_keep_it_from_starting_and_cost_only_what_they_hit() {
    for seed in 0..30 {
        let reference = reference(seed % STREAMS).await;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(seed, Arc::clone(&reference.stages));
        let plan = Plan { shards: 2, end: Some((End::PowerCut, random.i64(900..3000))), ..Plan::default() };
        world.live(plan).await.unwrap();
        let mut files = world.disk.all();
        let checkpoints: Vec<_> = files.iter().filter(|(path, _)| path.parent() == Some(&life::folder())).cloned().collect();
        let whole = checkpoints.iter().filter(|(path, _)| path.extension().is_none()).count();
        let in_checkpoint = seed % 2 == 0 && whole == 2;
        if in_checkpoint {
            files = checkpoints;
        }
        let (path, length) = &files[random.usize(0..files.len())];
        for _ in 0..random.u32(1..20) {
            world.disk.flip(path, random.u64(0..(length * 8).max(1)));
        }
        let ended = undisturbed(&mut world, 2).await;
        assert_eq!(ended, Ok(()), "seed {seed}: bits of {} changed", path.display());
        if in_checkpoint {
            let judged = State::load(&world).unwrap().judge(&reference.state);
            assert_eq!(judged, Ok(()), "seed {seed}: bits of {} changed", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_stands_for_one_entry_even_if_the_disk_fails_when_some_are_left_out() {
    let reference = reference(0).await;
    let mut world = World::new(1, Arc::clone(&reference.stages));
    assert_eq!(world.live(Plan { shards: 1, end: Some((End::Kill, 300)), ..Plan::default() }).await, Ok(Ended::Dead));
    damage_the_end(&world);
    let faults = vec![(world.at, Fault::Names(u32::MAX), 3)];
    let ended = world.live(Plan { shards: 1, faults, stages: Some(20), ..Plan::default() }).await;
    assert_eq!(ended, Ok(Ended::InOrder));
    undisturbed(&mut world, 2).await.unwrap();
    State::load(&world).unwrap().judge(&reference.state).unwrap();
}

/// What a killed process has written may be known to the kernel alone. Neither a poller nor a client that asks again may
/// hear that it is kept, before it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_last_is_safe_before_anybody_relies_on_it() {
    let stages = Arc::new(stream::by_turns());
    let mut reference = World::new(0, Arc::clone(&stages));
    undisturbed(&mut reference, 1).await.unwrap();
    let reference = State::load(&reference).unwrap();
    for calls in 10..50 {
        let mut world = World::new(calls as u64, Arc::clone(&stages));
        world.live(Plan { shards: 1, end: Some((End::Kill, calls)), ..Plan::default() }).await.unwrap();
        let faults = vec![(world.at, Fault::ReadOnly, 20)];
        world.live(Plan { shards: 1, faults, end: Some((End::PowerCut, 12)), ..Plan::default() }).await.unwrap();
        undisturbed(&mut world, 1).await.unwrap();
        State::load(&world).unwrap().judge(&reference).unwrap_or_else(|why| panic!("killed at call {calls}: {why}"));
    }
}

/// Indices that are left out at the end of the log stand for no entry, so nothing waits for the configuration of before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_configuration_begins_behind_indices_that_were_left_out() {
    let reference = reference(0).await;
    for times in 1..5 {
        let mut world = World::new(1, Arc::clone(&reference.stages));
        assert_eq!(world.live(Plan { shards: 1, end: Some((End::Kill, 300)), ..Plan::default() }).await, Ok(Ended::Dead));
        damage_the_end(&world);
        // One of them is the segment that would tell where the log goes on.
        let faults = vec![(world.at, Fault::Names(times), 3)];
        let ended = world.live(Plan { shards: 2, faults, stages: Some(20), ..Plan::default() }).await;
        assert_eq!(ended, Ok(Ended::InOrder));
        undisturbed(&mut world, 2).await.unwrap();
        State::load(&world).unwrap().judge(&reference.state).unwrap();
    }
}

/// Puts bytes behind the last entry of the log that may have been entries.
fn damage_the_end(world: &World) {
    let mut segments =
        world.disk.all().into_iter().map(|(path, _)| path).filter(|path| path.parent() == Some(&life::folder().join("log")));
    let last = segments.rfind(|path| path.extension().is_some_and(|e| e == "log")).unwrap();
    let bytes = world.disk.content(&last).unwrap();
    world.disk.put(&last, [bytes, vec![7; 500]].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_when_history_is_learnt_does_not_keep_the_detector_in_the_past() {
    let mut world = World::new(1, Arc::new(stream::after_history()));
    let faults = vec![(1, Fault::ReadOnly, 1)];
    let plan = Plan { shards: 1, faults, is_last: true, history: true, ..Plan::default() };
    assert_eq!(world.live(plan).await, Ok(Ended::InOrder));
    assert!(!State::core(&world).unwrap().in_history);
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match (number("ANOMALYD_SIMULATION_SEED"), number("ANOMALYD_SIMULATIONS")) {
        (Some(seed), _) => vec![seed; 5],
        (None, Some(seeds)) => (0..seeds).collect(),
        (None, None) => (0..SEEDS).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_everything_is_learnt_once_and_delivered_as_if_nothing_had() {
    let begin = std::time::Instant::now();
    let seeds = seeds();
    for seed in &seeds {
        if let Err(why) = simulate(*seed).await {
            panic!("ANOMALYD_SIMULATION_SEED={seed} fails: {why}");
        }
    }
    eprintln!("{} seeds in {:?}", seeds.len(), begin.elapsed());
}
