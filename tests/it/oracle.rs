//! The real daemon, killed again and again at random moments, in front of a cluster that has bad days. In the end it must
//! have learnt and found exactly what one has that nothing has ever disturbed.
//!
//! ```text
//! scripts/oracle              # 1,000 kills
//! scripts/oracle 200 17       # 200 kills, as seed 17 decides
//! ```

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::traffic::{Step, traffic};
use crate::support::world::{Outcome, World, judge, replay, replaying, undisturbed};

/// Kills in the normal run.
const ROUNDS: usize = 50;
/// After so many kills there is a new data directory.
const MOST_ROUNDS: usize = 100;

/// Kills a daemon `rounds` times.
async fn disturbed(steps: &[Step], rounds: usize, seed: u64, expected: &Outcome) {
    let mut random = fastrand::Rng::with_seed(seed);
    let world = World::new(seed).await;
    world.cluster.moody(true);
    let (at, until) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let killing = async {
        for round in 0..rounds {
            // Every round has its share of what is sent.
            until.store(steps.len() * (round + 1) / (rounds + 1), SeqCst);
            let mut daemon = world.setup.spawn();
            // While it starts and recovers, or later.
            let wait = if random.u8(0..4) == 0 { random.u64(0..150) } else { random.u64(150..1500) };
            tokio::time::sleep(Duration::from_millis(wait)).await;
            if let Some(status) = daemon.ended() {
                panic!("in round {round} the daemon ended by itself: {status}\n{}", daemon.said());
            }
            daemon.kill();
            if random.u8(0..10) == 0 {
                // What a daemon would find again is what has been found.
                // It may have been killed before it had a log.
                let again = String::from_utf8(replaying(world.setup.data(), "json").stdout).expect("text");
                assert!(expected.file.contains(&again), "in round {round} a replay tells what is not true:\n{again}");
            }
        }
        until.store(usize::MAX, SeqCst);
        world.cluster.moody(false);
        world.setup.start().await
    };
    let begin = Instant::now();
    let (daemon, again) = tokio::join!(killing, world.send(steps, &at, &until));
    let documents = world.cluster.documents();
    println!(
        "seed {seed}: {rounds} kills in {:?}; {again} requests were sent again, the cluster refused {} times and saw {} documents again",
        begin.elapsed(),
        documents.refused,
        documents.repeated
    );
    world.end(daemon).await;
    let outcome = world.outcome();
    // Byte for byte, as far as the log goes back.
    let again = replay(world.setup.data(), "json");
    assert!(expected.file.ends_with(&again), "a replay tells something else:\n{again}");
    judge(&outcome, expected);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_a_daemon_learns_once_finds_the_same_and_delivers_it() {
    let rounds = number("ANOMALYD_ORACLE_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    let seed = number("ANOMALYD_ORACLE_SEED").unwrap_or(1);
    let steps = traffic(120);
    let expected = undisturbed(&steps).await;
    let mut left = rounds;
    let mut next = seed;
    while left > 0 {
        let now = left.min(MOST_ROUNDS);
        println!("to repeat this: scripts/oracle {now} {next}");
        disturbed(&steps, now, next, &expected).await;
        left -= now;
        next += 1;
    }
}
