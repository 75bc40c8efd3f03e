//! What an observation costs, and what a series keeps in memory.

use std::time::Duration;

use detection::{Quantity, Series};
use rustix::time::{ClockId, clock_gettime};

use super::Bench;
use crate::baseline::Chance;
use crate::table::{Better, Measure};

/// Floor and what is wanted, in microseconds.
const MICROSECONDS: (f64, f64) = (5.0, 2.0);
/// Floor and what is wanted, in bytes.
const BYTES: (f64, f64) = (8192.0, 4096.0);
/// Series that take turns, as in a daemon, so that not all of their state is in the nearest cache.
const SERIES: usize = 300;
/// Values of each series before the first that is timed: all histories are full.
const LEARNT: usize = 5_400;
/// Values of each series in a run.
const TIMED: usize = 100;
const RUNS: usize = 9;
const STEP: f64 = 60.0;

/// Times noisy values with a daily rhythm.
pub(crate) fn run(bench: &mut Bench) -> Vec<Measure> {
    let mut chance = Chance::new(1);
    let mut all: Vec<Series> = (0..SERIES).map(|_| Series::new(Quantity::Level, STEP)).collect();
    let mut minute = 0;
    let bar = bench.progress("cost", RUNS + 1);
    observe(&mut all, &mut chance, &mut minute, LEARNT, bench);
    bar.inc(1);
    let mut runs: Vec<f64> = Vec::new();
    for _ in 0..RUNS {
        let spent = observe(&mut all, &mut chance, &mut minute, TIMED, bench);
        runs.push(spent.as_secs_f64() * 1e6 / (TIMED * SERIES) as f64);
        bar.inc(1);
    }
    bar.finish_and_clear();
    runs.sort_by(f64::total_cmp);
    bench.largest = bench.largest.max(all.iter().map(Series::bytes).max().unwrap_or(0));
    let cost = Measure::new("cost per observation, one core, noisy data (microseconds)", Better::Lower, 2);
    let memory = Measure::new("memory of a series, everything included (bytes)", Better::Lower, 0);
    vec![
        cost.target(MICROSECONDS.0, MICROSECONDS.1).of(runs.get(RUNS / 2).copied().unwrap_or(f64::NAN)),
        memory.target(BYTES.0, BYTES.1).of(bench.largest as f64),
    ]
}

/// Gives so many values to each of the series; how long they took, making the values not counted.
fn observe(all: &mut [Series], chance: &mut Chance, minute: &mut u32, count: usize, bench: &Bench) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..count {
        let time = f64::from(*minute) * STEP;
        let daily = 100.0 + 30.0 * (std::f64::consts::TAU * time / 86_400.0).sin();
        let values: Vec<f64> = all.iter().map(|_| daily + 10.0 * chance.normal()).collect();
        let begin = processor_time();
        for (series, value) in all.iter_mut().zip(values) {
            std::hint::black_box(series.observe(time, value, f64::NAN, &bench.parameters));
        }
        spent += processor_time().saturating_sub(begin);
        *minute += 1;
    }
    spent
}

/// Time that this thread has had on a processor: what other programs do meanwhile is not counted.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
