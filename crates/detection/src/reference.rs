//! The models against numbers of a slow and plain computation over whole arrays.

use serde::Deserialize;

use crate::calibrate::Calibration;
use crate::ensemble::shape::{History, Kept};
use crate::forecast::{Autoregression, Profile};

#[derive(Deserialize)]
struct Fixture {
    start: f64,
    step: f64,
    series: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    values: Vec<f64>,
    autoregression: Vec<f64>,
    time_of_day: Vec<f64>,
    residuals_surprise: Vec<f64>,
    shape12: Vec<f64>,
    shape12x3: Vec<f64>,
    nov3x10: Vec<f64>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("fixtures/reference.json")).unwrap()
}

fn close(name: &str, step: usize, ours: f64, theirs: f64, tolerance: f64) {
    assert!((ours - theirs).abs() <= tolerance * (1.0 + theirs.abs()), "{name}, step {step}: {ours}, reference {theirs}");
}

/// -log10 of the tail probability of every value among all before it, from the sorted list of them.
fn exact_surprises(raws: &[f64]) -> Vec<f64> {
    let mut sorted: Vec<f64> = Vec::new();
    raws.iter()
        .map(|raw| {
            let count = sorted.len();
            let below = sorted.partition_point(|past| past < raw);
            let surprise = if count < 50 { 0.0 } else { exact_surprise(&sorted, below, *raw) };
            sorted.insert(below, *raw);
            surprise
        })
        .collect()
}

fn exact_surprise(sorted: &[f64], below: usize, raw: f64) -> f64 {
    let count = sorted.len() as f64;
    let start = (0.95 * count) as usize;
    let (limit, tail) = (sorted[start], &sorted[start + 1..]);
    if raw <= limit || tail.len() < 5 {
        return -((count - below as f64 + 0.5) / (count + 1.0)).log10();
    }
    let excesses = tail.len() as f64;
    let mean = tail.iter().map(|past| past - limit).sum::<f64>() / excesses;
    let moment =
        tail.iter().zip(1u32..).map(|(past, rank)| (past - limit) * (1.0 - (f64::from(rank) - 0.35) / excesses)).sum::<f64>()
            / excesses;
    if mean <= 1e-12 {
        let beyond = (1.0 + (raw - limit) / limit.abs().max(1e-9) * 10.0).log10().min(3.0);
        return -(0.5 / (count + 1.0)).log10() + beyond;
    }
    let difference = mean - 2.0 * moment;
    let shape = if difference > 1e-12 { (2.0 - mean / difference).clamp(0.0, 0.7) } else { 0.0 };
    let scale = mean * (1.0 - shape);
    let excess = raw - limit;
    let log_tail = if shape < 1e-3 { excess / scale } else { (1.0 + shape * excess / scale).ln() / shape };
    -(excesses / count).log10() + log_tail / std::f64::consts::LN_10
}

#[test]
fn autoregression_expects_what_the_reference_expects() {
    for case in fixture().series {
        let mut model = Autoregression::new();
        for (step, (value, theirs)) in case.values.iter().zip(&case.autoregression).enumerate() {
            close(&case.name, step, model.expect().unwrap_or(*value), *theirs, 1e-6);
            model.learn(*value);
        }
    }
}

#[test]
fn the_time_of_day_expects_what_the_reference_expects() {
    let fixture = fixture();
    for case in fixture.series {
        let mut model = Profile::new(86_400.0, 48, 0.05);
        for (step, (value, theirs)) in case.values.iter().zip(&case.time_of_day).enumerate() {
            let time = fixture.start + fixture.step * step as f64;
            close(&case.name, step, model.expect(time).unwrap_or(*value), *theirs, 1e-5);
            model.learn(time, *value);
        }
    }
}

#[test]
fn exact_calibration_is_that_of_the_reference() {
    for case in fixture().series {
        let raws: Vec<f64> =
            case.values.iter().zip(&case.time_of_day).map(|(value, expected)| (value - expected).abs()).collect();
        for (step, (ours, theirs)) in exact_surprises(&raws).iter().zip(&case.residuals_surprise).enumerate() {
            close(&case.name, step, *ours, *theirs, 1e-5);
        }
    }
}

#[test]
fn the_histogram_calibrates_like_the_exact_past() {
    for case in fixture().series {
        let raws: Vec<f64> =
            case.values.iter().zip(&case.time_of_day).map(|(value, expected)| (value - expected).abs()).collect();
        let mut calibration = Calibration::new();
        let (mut error, mut judged) = (0.0, 0);
        for (raw, exact) in raws.iter().zip(exact_surprises(&raws)) {
            let ours = calibration.surprise(*raw);
            if exact > 0.0 {
                error += (ours - exact).abs() / (1.0 + exact);
                judged += 1;
            }
            calibration.learn(*raw);
        }
        let error = error / f64::from(judged);
        println!("{}: mean relative difference {error:.3}", case.name);
        assert!(error < 0.06, "{}: {error}", case.name);
    }
}

/// `distances` of the reference are of unlimited history and not quantised: compared while all is remembered.
fn nearest_like(name: &str, values: &[f64], distances: &[f64], step: u8, width: usize, centred: bool, holds: bool) {
    let spread = values.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    let mut history = History::<i16>::new(Kept::Mean, step, 512);
    for (number, (value, theirs)) in values.iter().zip(distances).take(500).enumerate() {
        if history.push(*value) {
            let ours = history.distance(width, centred).unwrap_or(0.0);
            assert!((ours - theirs).abs() <= 1e-3 * (spread + theirs), "{name}, step {number}: {ours}, reference {theirs}");
        } else if !holds {
            assert_eq!(*theirs, 0.0);
        }
    }
}

#[test]
fn shapes_are_as_far_from_the_past_as_in_the_reference() {
    for case in fixture().series {
        nearest_like(&case.name, &case.values, &case.shape12, 1, 12, true, true);
        nearest_like(&case.name, &case.values, &case.shape12x3, 3, 12, true, true);
        nearest_like(&case.name, &case.values, &case.nov3x10, 10, 3, false, false);
    }
}

#[test]
fn both_centred_distances_in_one_pass_are_those_of_two() {
    for case in fixture().series {
        let mut history = History::<i16>::new(Kept::Mean, 1, 256);
        for (step, value) in case.values.iter().enumerate() {
            history.push(*value);
            let (short, long) = history.centred_distances(12);
            let (alone, longer) = (history.distance(12, true), history.distance(24, true));
            if let (Some(long), Some(longer)) = (long, longer) {
                close(&case.name, step, long, longer, 1e-3);
            }
            // The oldest windows are left out of the shorter comparison.
            if let (Some(short), Some(alone)) = (short, alone) {
                assert!(short >= alone - 1e-3 * (1.0 + alone), "{}, step {step}: {short}, alone {alone}", case.name);
            }
        }
    }
}
