//! Simulated services: how many calls come in each minute, how long they take, which fail, and what is logged.
//!
//! Plain data, from a seed: the same seed gives the same calls. What makes it look like real services:
//!
//! - calls arrive at random (Poisson) around a level with a daily rhythm, whose peak and depth differ by service;
//! - on top of it load and latency wander, as they do with marketing mails and neighbours on the same machine
//!   (an autoregressive process with a memory of about half an hour);
//! - durations are log-normal, grow with the load, and one call in a hundred takes several times as long;
//! - a fraction of a percent of the calls fails, and what fails or is slow is logged.

use std::f64::consts::TAU;

use fastrand::Rng;

use super::faults::{Effect, Fault, MINUTE};
use crate::model::UnixNanos;

/// One endpoint of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    /// Span name.
    pub(super) name: &'static str,
    /// Calls per minute in production at the busiest time of the day.
    pub(super) peak: f64,
    /// Median duration in seconds.
    median: f64,
    /// Standard deviation of the logarithm of the duration.
    spread: f64,
    /// Share of the calls that fails, 0 to 1.
    failing: f64,
}

/// One service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Service {
    /// `service.name`.
    pub(super) name: &'static str,
    /// Its endpoints.
    pub(super) operations: [Operation; 2],
    /// Hour of the day (UTC) with most calls.
    busiest: f64,
    /// What is left of the peak in the quietest hour, 0 to 1.
    night: f64,
    /// Error records per minute that have nothing to do with a call.
    grumbling: f64,
}

/// The services; every environment runs all of them.
pub(super) const SERVICES: [Service; 3] = [
    Service {
        name: "checkout",
        operations: [
            Operation { name: "POST /checkout", peak: 60.0, median: 0.120, spread: 0.35, failing: 0.006 },
            Operation { name: "GET /cart", peak: 50.0, median: 0.035, spread: 0.40, failing: 0.005 },
        ],
        busiest: 19.0,
        night: 0.35,
        grumbling: 0.6,
    },
    Service {
        name: "payments",
        operations: [
            Operation { name: "POST /pay", peak: 45.0, median: 0.210, spread: 0.30, failing: 0.009 },
            Operation { name: "GET /payments/{id}", peak: 40.0, median: 0.018, spread: 0.45, failing: 0.005 },
        ],
        busiest: 18.0,
        night: 0.40,
        grumbling: 0.4,
    },
    Service {
        name: "catalog",
        operations: [
            Operation { name: "GET /products", peak: 70.0, median: 0.045, spread: 0.40, failing: 0.005 },
            Operation { name: "GET /products/{id}", peak: 55.0, median: 0.012, spread: 0.45, failing: 0.007 },
        ],
        busiest: 13.0,
        night: 0.45,
        grumbling: 0.5,
    },
];

/// One environment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// `deployment.environment.name`.
    pub(super) name: &'static str,
    /// Its traffic, as a part of production's.
    traffic: f64,
    /// Its durations, as a multiple of production's.
    slower: f64,
}

/// The environments; each has levels of its own.
pub(super) const PLACES: [Place; 3] = [
    Place { name: "dev", traffic: 0.35, slower: 1.8 },
    Place { name: "staging", traffic: 0.5, slower: 1.3 },
    Place { name: "production", traffic: 1.0, slower: 1.0 },
];

/// One call that a service has answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Call {
    /// Index of the operation in its service.
    pub(super) operation: usize,
    /// When it came in.
    pub(super) start: UnixNanos,
    /// How long it took, in seconds.
    pub(super) seconds: f64,
    /// Whether it failed.
    pub(super) failed: bool,
}

/// Severity numbers of OpenTelemetry that the services use.
pub(super) const INFO: u8 = 9;
/// Warnings.
pub(super) const WARN: u8 = 13;
/// Errors.
pub(super) const ERROR: u8 = 17;

/// One line that a service has logged.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// When.
    pub(super) time: UnixNanos,
    /// Severity number.
    pub(super) severity: u8,
    /// What.
    pub(super) text: String,
}

/// What one service did in one minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Activity {
    /// Its calls.
    pub(super) calls: Vec<Call>,
    /// Its log records.
    pub(super) lines: Vec<Line>,
}

/// What wanders from minute to minute, around 0.
#[derive(Clone, Copy, Debug, Default)]
struct Wander(f64);

impl Wander {
    /// The next minute; the standard deviation over time is `size`.
    fn step(&mut self, rng: &mut Rng, size: f64) -> f64 {
        const MEMORY: f64 = 0.967;
        self.0 = MEMORY * self.0 + (1.0 - MEMORY * MEMORY).sqrt() * size * normal(rng);
        self.0
    }
}

/// All services of one environment.
#[derive(Clone, Debug)]
pub(super) struct Simulation {
    place: Place,
    faults: Vec<Fault>,
    rng: Rng,
    load: [Wander; SERVICES.len()],
    pace: [Wander; SERVICES.len()],
}

impl Simulation {
    /// The services of `place`, broken by those of `faults` that are its own.
    pub(super) fn new(place: Place, seed: u64, faults: &[Fault]) -> Self {
        let of_place = place.name.bytes().fold(seed, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
        Self {
            place,
            faults: faults.iter().filter(|f| f.environment == place.name).cloned().collect(),
            rng: Rng::with_seed(of_place),
            load: Default::default(),
            pace: Default::default(),
        }
    }

    /// What the services do in the minute from `start`, in the order of [`SERVICES`]. Minutes must be asked for in order.
    pub(super) fn minute(&mut self, start: UnixNanos) -> Vec<Activity> {
        let mut all = Vec::with_capacity(SERVICES.len());
        for ((service, load), pace) in SERVICES.iter().zip(&mut self.load).zip(&mut self.pace) {
            let rng = &mut self.rng;
            let rhythm = rhythm(service, start) * (1.0 + load.step(rng, 0.08)).max(0.1);
            let slowness = self.place.slower * (1.0 + pace.step(rng, 0.05)).max(0.1) * (1.0 + 0.15 * rhythm);
            let active: Vec<Effect> =
                self.faults.iter().filter(|f| f.service == service.name && f.active(start)).map(|f| f.effect).collect();
            let mut minute = Minute { rng, service, start, active: &active, activity: Activity::default() };
            for index in 0..service.operations.len() {
                minute.calls(index, self.place.traffic * rhythm, slowness);
            }
            minute.grumble(self.place.traffic * rhythm);
            all.push(minute.activity);
        }
        all
    }
}

/// The level of the day at `time`: 1 in the busiest hour, the service's `night` in the quietest.
fn rhythm(service: &Service, time: UnixNanos) -> f64 {
    let hour = (time.secs() % 86_400) as f64 / 3_600.0;
    let wave = 0.5 + 0.5 * ((hour - service.busiest) / 24.0 * TAU).cos();
    service.night + (1.0 - service.night) * wave.powf(1.3)
}

/// One minute of one service in the making.
struct Minute<'a> {
    rng: &'a mut Rng,
    service: &'a Service,
    start: UnixNanos,
    active: &'a [Effect],
    activity: Activity,
}

impl Minute<'_> {
    fn sometime(&mut self) -> UnixNanos {
        self.start.plus(self.rng.u64(0..MINUTE))
    }

    fn calls(&mut self, index: usize, level: f64, slowness: f64) {
        let Some(operation) = self.service.operations.get(index) else { return };
        let (mut level, mut slowness, mut failing) = (level, slowness, operation.failing);
        for effect in self.active {
            match *effect {
                Effect::Latency { operation: slow, factor } if slow == operation.name => slowness *= factor,
                Effect::Errors { share } => failing = share,
                Effect::Traffic { left } => level *= left,
                Effect::Latency { .. } | Effect::Logs { .. } => {}
            }
        }
        for _ in 0..poisson(self.rng, operation.peak * level) {
            let start = self.sometime();
            let hiccup = if self.rng.f64() < 0.01 { 3.0 + 3.0 * self.rng.f64() } else { 1.0 };
            let seconds = operation.median * slowness * hiccup * (operation.spread * normal(self.rng)).exp();
            let failed = self.rng.f64() < failing;
            self.log_call(operation, start, seconds, failed);
            self.activity.calls.push(Call { operation: index, start, seconds, failed });
        }
    }

    /// Every other call leaves a record; every failed one, and every one that is far slower than it should be.
    fn log_call(&mut self, operation: &Operation, start: UnixNanos, seconds: f64, failed: bool) {
        let millis = seconds * 1_000.0;
        let (severity, text) = if failed {
            (ERROR, format!("{} failed after {millis:.0} ms: upstream answered 503", operation.name))
        } else if seconds > 5.0 * operation.median {
            (WARN, format!("slow request: {} took {millis:.0} ms", operation.name))
        } else if self.rng.bool() {
            (INFO, format!("{} done in {millis:.0} ms for customer {}", operation.name, self.rng.u32(1_000..50_000)))
        } else {
            return;
        };
        let end = start.plus((seconds * UnixNanos::SECOND as f64) as u64);
        // A record belongs to the minute in which it is written; the few calls that cross its end are logged at the end.
        let time = end.min(self.start.plus(MINUTE - 1));
        self.activity.lines.push(Line { time, severity, text });
    }

    /// What is logged without a call.
    fn grumble(&mut self, level: f64) {
        let burst = self.active.iter().find_map(|e| if let Effect::Logs { factor } = *e { Some(factor) } else { None });
        let of_calls: f64 = self.service.operations.iter().map(|o| o.peak * level * o.failing).sum();
        // The burst multiplies all error records of the service; those of failed calls are there already.
        let errors = burst.map_or(self.service.grumbling, |f| f * (self.service.grumbling + of_calls) - of_calls);
        for _ in 0..poisson(self.rng, errors) {
            let text = format!("connection {} to the database was lost: timeout", self.rng.u32(1..200));
            let time = self.sometime();
            self.activity.lines.push(Line { time, severity: ERROR, text });
        }
        for _ in 0..poisson(self.rng, 0.8) {
            let text = format!("cache holds {} of 10000 entries", self.rng.u32(8_000..10_000));
            let time = self.sometime();
            self.activity.lines.push(Line { time, severity: WARN, text });
        }
    }
}

/// A standard normal number (Box and Muller 1958).
fn normal(rng: &mut Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    radius * (TAU * rng.f64()).cos()
}

/// How many events come where `mean` are expected (Knuth's product method; above 30 the normal approximation).
fn poisson(rng: &mut Rng, mean: f64) -> u32 {
    if mean > 30.0 {
        return (mean + mean.sqrt() * normal(rng)).round().max(0.0) as u32;
    }
    let limit = (-mean.max(0.0)).exp();
    let mut product = rng.f64();
    let mut count = 0;
    while product > limit {
        product *= rng.f64();
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::faults::schedule;

    const DAY: u64 = 1_440;

    fn production() -> Place {
        PLACES[2]
    }

    /// Midnight of 2026-01-15.
    fn midnight() -> UnixNanos {
        UnixNanos::from_secs(1_768_435_200)
    }

    fn minutes(mut simulation: Simulation, from: UnixNanos, count: u64) -> Vec<Vec<Activity>> {
        (0..count).map(|m| simulation.minute(from.plus(m * MINUTE))).collect()
    }

    fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * q) as usize]
    }

    #[test]
    fn the_same_seed_gives_the_same_calls_and_another_seed_others() {
        let run = |seed| minutes(Simulation::new(production(), seed, &[]), midnight(), 5);
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let elsewhere = minutes(Simulation::new(PLACES[1], 7, &[]), midnight(), 5);
        assert_ne!(run(7), elsewhere);
    }

    #[test]
    fn every_service_has_its_day_and_night() {
        let day = minutes(Simulation::new(production(), 1, &[]), midnight(), DAY);
        for (index, service) in SERVICES.iter().enumerate() {
            let hourly: Vec<usize> = day.chunks(60).map(|h| h.iter().map(|m| m[index].calls.len()).sum()).collect();
            let busy = hourly[service.busiest as usize] as f64;
            let quiet = hourly[(service.busiest as usize + 12) % 24] as f64;
            let expected = 60.0 * service.operations.iter().map(|o| o.peak).sum::<f64>();
            assert!((busy / expected - 1.0).abs() < 0.25, "{}: {busy} calls, {expected} expected", service.name);
            assert!((quiet / busy / service.night - 1.0).abs() < 0.4, "{}: {quiet} of {busy} calls at night", service.name);
        }
    }

    #[test]
    fn calls_and_records_look_like_those_of_real_services() {
        let day = minutes(Simulation::new(production(), 2, &[]), midnight(), DAY);
        for (index, service) in SERVICES.iter().enumerate() {
            let calls: Vec<Call> = day.iter().flat_map(|m| m[index].calls.iter().copied()).collect();
            let failed = calls.iter().filter(|c| c.failed).count() as f64 / calls.len() as f64;
            assert!((0.003..0.012).contains(&failed), "{}: {failed}", service.name);
            let durations: Vec<f64> = calls.iter().filter(|c| c.operation == 0).map(|c| c.seconds).collect();
            let (p50, p99) = (quantile(durations.clone(), 0.5), quantile(durations, 0.99));
            assert!((0.9..1.3).contains(&(p50 / service.operations[0].median)), "{}: p50 {p50}", service.name);
            assert!(p99 > 2.0 * p50, "{}: p99 {p99}, p50 {p50}", service.name);
            let errors = day.iter().flat_map(|m| &m[index].lines).filter(|l| l.severity == ERROR).count();
            assert!(errors as f64 > failed * calls.len() as f64, "every failed call is logged");
        }
    }

    #[test]
    fn everything_of_a_minute_is_inside_it() {
        let from = midnight();
        for (m, minute) in minutes(Simulation::new(production(), 3, &[]), from, 200).iter().enumerate() {
            let start = from.plus(m as u64 * MINUTE);
            for activity in minute {
                assert!(activity.calls.iter().all(|c| c.start.floor(MINUTE) == start));
                assert!(activity.lines.iter().all(|l| l.time.floor(MINUTE) == start));
            }
        }
    }

    #[test]
    fn a_fault_changes_what_it_says_for_as_long_as_it_says_and_nothing_elsewhere() {
        let end = midnight().plus(15 * 60 * MINUTE);
        let faults = schedule(end);
        let broken = |at: UnixNanos, fault: &Fault| {
            let index = SERVICES.iter().position(|s| s.name == fault.service).unwrap();
            let mut simulation = Simulation::new(production(), 4, &faults);
            let many: Vec<Activity> = (0..200).map(|_| simulation.minute(at).swap_remove(index)).collect();
            let calls: Vec<Call> = many.iter().flat_map(|a| a.calls.iter().copied()).collect();
            let slow: Vec<f64> = calls.iter().filter(|c| c.operation == 0).map(|c| c.seconds).collect();
            let failed = calls.iter().filter(|c| c.failed).count() as f64 / calls.len() as f64;
            let errors = many.iter().flat_map(|a| &a.lines).filter(|l| l.severity == ERROR).count();
            (quantile(slow, 0.5), failed, calls.len() as f64, errors as f64)
        };
        for fault in &faults {
            let before = broken(fault.start.minus(1), fault);
            let after = broken(fault.end, fault);
            let during = broken(fault.start, fault);
            for quiet in [before, after] {
                match fault.effect {
                    Effect::Latency { factor, .. } => assert!((during.0 / quiet.0 / factor - 1.0).abs() < 0.1),
                    Effect::Errors { share } => assert!((during.1 - share).abs() < 0.02 && quiet.1 < 0.02),
                    Effect::Traffic { left } => assert!((during.2 / quiet.2 - left).abs() < 0.02),
                    Effect::Logs { factor } => assert!((during.3 / quiet.3 / factor - 1.0).abs() < 0.25),
                }
            }
        }
        let healthy = minutes(Simulation::new(PLACES[1], 4, &faults), faults[0].start, 12);
        assert_eq!(healthy, minutes(Simulation::new(PLACES[1], 4, &[]), faults[0].start, 12));
    }

    #[test]
    fn poisson_numbers_have_their_mean_and_variance() {
        let mut rng = Rng::with_seed(5);
        for mean in [0.0, 0.4, 5.0, 29.0, 31.0, 80.0] {
            let numbers: Vec<f64> = (0..20_000).map(|_| f64::from(poisson(&mut rng, mean))).collect();
            let average = numbers.iter().sum::<f64>() / numbers.len() as f64;
            let variance = numbers.iter().map(|n| (n - average).powi(2)).sum::<f64>() / numbers.len() as f64;
            assert!((average - mean).abs() <= 0.03 * mean.max(0.1), "mean {mean}: {average}");
            assert!((variance - mean).abs() <= 0.06 * mean.max(0.1), "mean {mean}: variance {variance}");
        }
    }
}
