//! Simulated services with a daily rhythm: healthy ones stay quiet, faults are found within minutes.

use std::f64::consts::PI;

use detection::{Direction, Parameters, Quantity, Series, Verdict};

/// A small deterministic generator (Vigna's splitmix64).
struct Chance(u64);

impl Chance {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (2.0 * PI * self.uniform()).cos()
    }

    fn poisson(&mut self, mean: f64) -> f64 {
        if mean > 60.0 {
            return (mean + mean.sqrt() * self.normal()).round().max(0.0);
        }
        let (limit, mut product, mut count) = ((-mean).exp(), self.uniform(), 0.0);
        while product > limit {
            product *= self.uniform();
            count += 1.0;
        }
        count
    }

    fn binomial(&mut self, trials: f64, share: f64) -> f64 {
        if trials * share > 60.0 {
            let mean = trials * share;
            return (mean + (mean * (1.0 - share)).sqrt() * self.normal()).round().clamp(0.0, trials);
        }
        (0..trials as u32).filter(|_| self.uniform() < share).count() as f64
    }
}

/// What a fault does to one bucket.
#[derive(Clone, Copy)]
struct Fault {
    traffic: f64,
    latency: f64,
    error_share: f64,
    logs: f64,
}

const HEALTHY: Fault = Fault { traffic: 1.0, latency: 1.0, error_share: 0.01, logs: 1.0 };
const FAULT_LENGTH: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Signal {
    Traffic,
    ErrorShare,
    Latency,
    Logs,
    Load,
}

struct Service {
    chance: Chance,
    calls: f64,
    drift: f64,
}

impl Service {
    fn new(seed: u64, calls: f64) -> Self {
        Self { chance: Chance(seed), calls, drift: 0.0 }
    }

    /// Value and samples of one minute.
    fn minute(&mut self, signal: Signal, minute: usize, fault: Fault) -> (f64, f64) {
        let day = (minute as f64 / 1440.0 * 2.0 * PI).sin();
        self.drift = 0.95 * self.drift + 0.03 * self.chance.normal();
        let mean = self.calls * (1.0 + 0.7 * day) * (1.0 + self.drift) * fault.traffic;
        let calls = self.chance.poisson(mean.max(0.0));
        match signal {
            Signal::Traffic => (calls, calls),
            Signal::ErrorShare | Signal::Latency if calls == 0.0 => (f64::NAN, 0.0),
            Signal::ErrorShare => (self.chance.binomial(calls, fault.error_share) / calls, calls),
            Signal::Latency => {
                let spread = 0.6 / calls.sqrt();
                let noise = (0.08 * self.chance.normal() + spread * self.chance.normal() + 0.15 * day).exp();
                (0.080 * noise * fault.latency, calls)
            }
            Signal::Logs => (self.chance.poisson(mean * 0.05 * fault.logs), f64::NAN),
            Signal::Load => (40.0 + 20.0 * day + 3.0 * self.chance.normal(), f64::NAN),
        }
    }
}

fn quantity(signal: Signal) -> Quantity {
    match signal {
        Signal::Traffic | Signal::Logs => Quantity::Count,
        Signal::ErrorShare => Quantity::Ratio,
        Signal::Latency => Quantity::Duration,
        Signal::Load => Quantity::Level,
    }
}

/// Runs `days` of history and then the fault; gives findings before it and the verdicts during it.
fn run(signal: Signal, seed: u64, calls: f64, days: usize, fault: Fault) -> (Vec<usize>, Vec<Verdict>) {
    let mut service = Service::new(seed, calls);
    let mut series = Series::new(quantity(signal), 60.0);
    let parameters = Parameters::default();
    let start = days * 1440 + 300 + (seed as usize * 97) % 600;
    let (mut early, mut during) = (Vec::new(), Vec::new());
    for minute in 0..start + FAULT_LENGTH {
        let (value, samples) = service.minute(signal, minute, if minute < start { HEALTHY } else { fault });
        let verdict = series.observe(1_700_006_400.0 + 60.0 * minute as f64, value, samples, &parameters);
        if minute >= start {
            during.push(verdict);
        } else if verdict.finding.is_some() {
            early.push(minute);
        }
    }
    (early, during)
}

#[test]
fn healthy_services_stay_quiet() {
    let (mut findings, mut series_days) = (0usize, 0.0);
    for signal in [Signal::Traffic, Signal::ErrorShare, Signal::Latency, Signal::Logs, Signal::Load] {
        for calls in [0.5, 5.0, 60.0, 2000.0] {
            let mut here = Vec::new();
            for seed in 1..=4 {
                let (early, _) = run(signal, seed, calls, 14, HEALTHY);
                here.extend(early.iter().map(|minute| (seed, *minute)));
                series_days += 14.0;
            }
            if !here.is_empty() {
                println!("{signal:?} of {calls} calls: {here:?}");
            }
            findings += here.len();
        }
    }
    let rate = findings as f64 / series_days;
    println!("{findings} findings in {series_days} series-days: {rate:.4}");
    assert!(rate <= 0.015, "{rate} false findings per series-day");
}

#[test]
fn faults_are_found_within_three_minutes() {
    let faults = [
        ("latency x4", Signal::Latency, Fault { latency: 4.0, ..HEALTHY }, Direction::Spike),
        ("error share 1 % -> 30 %", Signal::ErrorShare, Fault { error_share: 0.3, ..HEALTHY }, Direction::Spike),
        ("traffic -80 %", Signal::Traffic, Fault { traffic: 0.2, ..HEALTHY }, Direction::Dip),
        ("no traffic", Signal::Traffic, Fault { traffic: 0.0, ..HEALTHY }, Direction::Dip),
        ("log burst x20", Signal::Logs, Fault { logs: 20.0, ..HEALTHY }, Direction::Spike),
    ];
    let mut missed = Vec::new();
    for (name, signal, fault, direction) in faults {
        for days in [1, 2, 5, 7] {
            for calls in [60.0, 300.0, 2000.0] {
                for seed in 11..=14 {
                    let (_, during) = run(signal, seed, calls, days, fault);
                    let first = during.iter().position(|verdict| verdict.finding.is_some());
                    let right = first
                        .and_then(|first| during[first].finding.as_ref())
                        .is_some_and(|finding| finding.direction == direction && finding.score >= 25.0);
                    if !right || first.is_none_or(|first| first > 2) {
                        let pages: Vec<f64> = during.iter().take(4).map(|verdict| (verdict.page * 10.0).round() / 10.0).collect();
                        missed.push(format!(
                            "{name} after {days} days of {calls} calls, seed {seed}: first {first:?}, pages {pages:?}"
                        ));
                    }
                }
            }
        }
    }
    assert!(missed.is_empty(), "{} of 240:\n{}", missed.len(), missed.join("\n"));
}
