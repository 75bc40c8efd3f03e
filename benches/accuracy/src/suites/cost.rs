//! What an observation costs, and what a series keeps in memory.

use std::time::Duration;

use detection::{Channel, Entity, Quantity, Series, Verdict};
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
/// Series of an entity; so many are judged together.
const TOGETHER: usize = 20;
const STEP: f64 = 60.0;

/// Series that take turns, and the entities that they are taken together to.
struct Fleet {
    series: Vec<Series>,
    entities: Vec<Entity>,
    chance: Chance,
    steps: u32,
}

/// Processor time of some steps, making the values not counted.
#[derive(Clone, Copy, Default)]
struct Spent {
    series: Duration,
    entities: Duration,
}

impl Fleet {
    fn new() -> Self {
        let series = (0..SERIES).map(|_| Series::new(Quantity::Level, STEP)).collect();
        let entities = (0..SERIES / TOGETHER).map(|_| Entity::new(STEP)).collect();
        Self { series, entities, chance: Chance::new(1), steps: 0 }
    }

    /// Gives so many noisy values with a daily rhythm to each of the series.
    fn observe(&mut self, count: usize, bench: &Bench) -> Spent {
        let mut spent = Spent::default();
        for _ in 0..count {
            let time = f64::from(self.steps) * STEP;
            self.steps += 1;
            let daily = 100.0 + 30.0 * (std::f64::consts::TAU * time / 86_400.0).sin();
            let values: Vec<f64> = self.series.iter().map(|_| daily + 10.0 * self.chance.normal()).collect();
            let mut verdicts: Vec<Verdict> = Vec::with_capacity(SERIES);
            let begin = processor_time();
            for (series, value) in self.series.iter_mut().zip(&values) {
                verdicts.push(series.observe(time, *value, f64::NAN, &bench.parameters));
            }
            let judged = processor_time();
            let channels = values.iter().zip(&verdicts).zip((0..).map(|index| index % TOGETHER as u32));
            let channels: Vec<Channel<'_>> =
                channels.map(|((value, verdict), index)| Channel { index, value: *value, verdict }).collect();
            for (entity, channels) in self.entities.iter_mut().zip(channels.chunks(TOGETHER)) {
                std::hint::black_box(entity.observe(time, channels, &bench.parameters));
            }
            spent.series += judged.saturating_sub(begin);
            spent.entities += processor_time().saturating_sub(judged);
        }
        spent
    }
}

/// Times noisy values with a daily rhythm.
pub(crate) fn run(bench: &mut Bench) -> Vec<Measure> {
    let mut fleet = Fleet::new();
    let bar = bench.progress("cost", RUNS + 1);
    fleet.observe(LEARNT, bench);
    bar.inc(1);
    let runs: Vec<Spent> = (0..RUNS).map(|_| fleet.observe(TIMED, bench)).inspect(|_| bar.inc(1)).collect();
    bar.finish_and_clear();
    let micros = |of: fn(&Spent) -> Duration| {
        let each = runs.iter().map(|spent| of(spent).as_secs_f64() * 1e6 / (TIMED * SERIES) as f64);
        median(each.collect())
    };
    bench.largest = bench.largest.max(fleet.series.iter().map(Series::bytes).max().unwrap_or(0));
    let entity = fleet.entities.iter().map(Entity::bytes).max().unwrap_or(0);
    vec![
        Measure::new("cost per observation, one core, noisy data (microseconds)", Better::Lower, 2)
            .target(MICROSECONDS.0, MICROSECONDS.1)
            .of(micros(|spent| spent.series)),
        Measure::new(format!("  judging {TOGETHER} of them together, for each (microseconds)"), Better::Lower, 2)
            .of(micros(|spent| spent.entities)),
        Measure::new("memory of a series, everything included (bytes)", Better::Lower, 0)
            .target(BYTES.0, BYTES.1)
            .of(bench.largest as f64),
        Measure::new(format!("  an entity of {TOGETHER}, for each (bytes)"), Better::Lower, 0)
            .of(entity as f64 / TOGETHER as f64),
    ]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Time that this thread has had on a processor: what other programs do meanwhile is not counted.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
