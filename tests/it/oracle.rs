//! The real daemon, killed again and again at random moments, between clients and a cluster that has bad days. In the end
//! it must have learnt and found exactly what one has that nothing has ever disturbed: from what clients sent to it, and
//! from what it read in the cluster.
//!
//! ```text
//! scripts/oracle              # 1,000 kills
//! scripts/oracle 200 17       # 200 kills, as seed 17 decides
//! ```

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::elasticsearch::{NEW, elasticsearch};
use crate::support::judge::{Outcome, essence, judge};
use crate::support::needs;
use crate::support::traffic::{self, Step, traffic};
use crate::support::world::{World, replay_of, replaying, undisturbed};

/// Kills in the normal run.
const ROUNDS: usize = 50;
/// Kills in front of a real cluster, and while history is learnt.
const OTHER_ROUNDS: usize = 12;
/// After so many kills there is a new data directory.
const MOST_ROUNDS: usize = 100;
/// Minutes that are sent one by one, behind those that are sent in large requests.
const MINUTES: u64 = 120;
/// Minutes that documents are behind what the daemon takes for the present when it starts; they come while it runs.
const BEHIND: u64 = 4;
/// How long such a minute lasts.
const TICK: Duration = Duration::from_millis(60);

/// Kills a daemon `rounds` times.
async fn disturbed(world: World, steps: &[Step], rounds: usize, seed: u64, expected: &Outcome) {
    let mut random = fastrand::Rng::with_seed(seed);
    world.cluster.moody(true);
    let all = traffic::all(MINUTES);
    let (at, until) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let killing = async {
        for round in 0..rounds {
            // Every round has its share of what is sent, and of what can be read.
            until.store(steps.len() * (round + 1) / (rounds + 1), SeqCst);
            let minute = all * (round as u64 + 1) / (rounds as u64 + 1);
            world.present(traffic::end_of(minute), random.usize(5..400));
            // While it starts and recovers, or later.
            let wait = Duration::from_millis(if random.u8(0..4) == 0 { random.u64(0..150) } else { random.u64(150..1500) });
            let mut come = minute.saturating_sub(BEHIND);
            world.reach(traffic::end_of(come)).await;
            let mut daemon = world.setup.spawn();
            let begin = Instant::now();
            while begin.elapsed() < wait {
                come = (come + 1).min(minute);
                world.reach(traffic::end_of(come)).await;
                tokio::time::sleep(TICK.min(wait.saturating_sub(begin.elapsed()))).await;
            }
            if let Some(status) = daemon.ended() {
                panic!("in round {round} the daemon ended by itself: {status}\n{}", daemon.said());
            }
            daemon.kill();
            if random.u8(0..10) == 0 {
                // What a daemon would find again is what has been found.
                for (environment, file) in &expected.files {
                    // It may have been killed before it had a log.
                    let output = replaying(world.setup.data(), &["--environment", environment]);
                    let again = String::from_utf8(output.stdout).expect("text");
                    let (file, again) = (essence(file), essence(&again));
                    let untrue: Vec<&str> = again.lines().filter(|line| !file.contains(line)).collect();
                    assert_eq!(untrue, [""; 0], "in round {round} a replay of {environment} tells what is not true");
                }
            }
        }
        until.store(usize::MAX, SeqCst);
        world.cluster.moody(false);
        world.reach(u64::MAX).await;
        world.present(traffic::end_of(all), 200);
        world.setup.start().await
    };
    let begin = Instant::now();
    let (daemon, again) = tokio::join!(killing, world.send(steps, &at, &until));
    let took = begin.elapsed();
    world.end(daemon).await;
    let documents = world.cluster.documents();
    let (read, gone) = world.cluster.index(|index| (index.read, index.gone));
    eprintln!(
        "seed {seed}: {rounds} kills in {took:?}; {again} requests were sent again; the cluster refused {} requests that write and \
         {} that read, saw {} documents again, handed out {read}, and lost {gone} points in time",
        documents.refused,
        world.cluster.searches_refused(),
        documents.repeated
    );
    let outcome = world.outcome();
    // Byte for byte, as far as the log goes back.
    for (environment, file) in &outcome.files {
        let again = replay_of(world.setup.data(), environment);
        assert!(file.ends_with(&again), "a replay of {environment} tells something else:\n{again}");
    }
    judge(&outcome, expected);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_a_daemon_learns_once_finds_the_same_and_delivers_it() {
    let rounds = number("ANOMALYD_ORACLE_ROUNDS").map_or(ROUNDS, |rounds| rounds as usize);
    let seed = number("ANOMALYD_ORACLE_SEED").unwrap_or(1);
    let steps = traffic(MINUTES);
    let expected = undisturbed(&World::reading(0, MINUTES).await, &steps, MINUTES).await;
    let mut left = rounds;
    let mut next = seed;
    while left > 0 {
        let now = left.min(MOST_ROUNDS);
        eprintln!("to repeat this: scripts/oracle {now} {next}");
        disturbed(World::reading(next, MINUTES).await, &steps, now, next, &expected).await;
        left -= now;
        next += 1;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_it_learns_from_history_a_daemon_learns_it_once_and_tells_nothing_of_it() {
    let expected = undisturbed(&World::reading(0, MINUTES).await.with_history().await, &[], MINUTES).await;
    let seed = number("ANOMALYD_ORACLE_SEED").unwrap_or(1);
    let world = World::reading(seed, MINUTES).await.with_history().await;
    disturbed(world, &[], OTHER_ROUNDS, seed, &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_a_daemon_learns_each_document_of_a_real_cluster_once() {
    let elasticsearch = needs!(elasticsearch(NEW));
    let expected = undisturbed(&World::reading(0, MINUTES).await, &[], MINUTES).await;
    let seed = number("ANOMALYD_ORACLE_SEED").unwrap_or(1);
    disturbed(World::reading_from(elasticsearch, seed, MINUTES).await, &[], OTHER_ROUNDS, seed, &expected).await;
}
