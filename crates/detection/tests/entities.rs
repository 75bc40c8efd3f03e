//! Several series judged jointly: what holds for any input, and what is found.

use detection::{Channel, Entity, EntityVerdict, MOST_CHANNELS, Parameters, Quantity, Series, State, Verdict, Waiting};
use proptest::prelude::*;

const STEP: f64 = 300.0;
const DAY: usize = 288;

/// Series of one entity, each judged by itself, and the entity that judges them jointly.
struct Service {
    series: Vec<Series>,
    entity: Entity,
    parameters: Parameters,
    step: usize,
}

impl Service {
    fn new(series: usize) -> Self {
        Self {
            series: (0..series).map(|_| Series::new(Quantity::Level, STEP)).collect(),
            entity: Entity::new(STEP),
            parameters: Parameters::default(),
            step: 0,
        }
    }

    /// Values of all series; what is not a number is not there.
    fn observe(&mut self, values: &[f64]) -> EntityVerdict {
        let time = STEP * self.step as f64;
        self.step += 1;
        let verdicts: Vec<Verdict> = (self.series.iter_mut().zip(values))
            .map(|(series, value)| series.observe(time, *value, f64::NAN, &self.parameters))
            .collect();
        let channels: Vec<Channel> = (verdicts.iter().zip(values).enumerate())
            .filter(|(_, (_, value))| !value.is_nan())
            .map(|(index, (verdict, value))| Channel { index: index as u32, value: *value, verdict })
            .collect();
        self.entity.observe(time, &channels, &self.parameters)
    }
}

/// Uniform noise between -1 and 1.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// About normally distributed, deviation about 1.
    fn normal(&mut self) -> f64 {
        (0..3).map(|_| self.next()).sum()
    }
}

/// Eight series that follow one load with a daily rhythm: six closely, one constant, one of two values.
fn load(step: usize, noise: &mut Noise) -> [f64; 8] {
    let phase = step as f64 / DAY as f64 * std::f64::consts::TAU;
    let load = 100.0 + 30.0 * phase.sin() + 4.0 * noise.normal();
    let mut values = [0.0; 8];
    for (number, value) in values.iter_mut().enumerate() {
        *value = match number {
            6 => 7.0,
            7 => f64::from(u8::from(noise.next() > 0.9)),
            _ => load * (1.0 + 0.2 * number as f64) + 1.5 * noise.normal(),
        };
    }
    values
}

fn taught(days: usize) -> (Service, Noise) {
    let (mut service, mut noise) = (Service::new(8), Noise(0x9E37_79B9_7F4A_7C15));
    let mut findings = 0;
    for step in 0..days * DAY {
        let found = service.observe(&load(step, &mut noise)).finding.is_some();
        findings += usize::from(found && step > 3 * DAY);
    }
    assert!(findings <= 1, "{findings} findings in {days} healthy days");
    (service, noise)
}

#[test]
fn an_incident_of_several_series_is_found_once_with_those_that_carry_it() {
    let (mut service, mut noise) = taught(14);
    let mut findings = Vec::new();
    for minute in 0..24 {
        let mut values = load(service.step, &mut noise);
        [0, 2, 4].into_iter().for_each(|number| values[number] *= 1.6);
        let verdict = service.observe(&values);
        assert!(minute < 4 || verdict.point > 2.0, "{verdict:?} at {minute}");
        findings.extend(verdict.finding.map(|finding| (minute, finding)));
    }
    let [(minute, finding)] = findings.as_slice() else { panic!("{findings:?}") };
    assert!(*minute <= 3, "{findings:?}");
    let mut strongest: Vec<u32> = finding.carriers.iter().take(3).map(|carrier| carrier.index).collect();
    strongest.sort_unstable();
    assert_eq!(strongest, [0, 2, 4], "{finding:?}");
    let shares: f64 = finding.carriers.iter().map(|carrier| carrier.share).sum();
    assert!((shares - 1.0).abs() < 1e-9 && finding.score >= 25.0);
}

/// Each value alone is usual; that one falls while the others rise is not, however long it lasts.
#[test]
fn a_state_that_never_was_stays_unusual_for_hours() {
    let (mut service, mut noise) = taught(14);
    let usual: f64 = (0..DAY).map(|_| service.observe(&load(service.step, &mut noise)).point).fold(0.0, f64::max);
    let mut lowest = f64::INFINITY;
    for minute in 0..120 {
        let mut values = load(service.step, &mut noise);
        values[3] = load(service.step + DAY / 2, &mut noise)[3];
        let point = service.observe(&values).point;
        if (12..60).contains(&minute) {
            lowest = lowest.min(point);
        }
    }
    assert!(lowest > usual, "{lowest} during the state, {usual} on the day before it");
}

#[test]
fn one_outlier_of_one_series_is_no_incident_of_the_entity() {
    let (mut service, mut noise) = taught(10);
    for step in 0..2 * DAY {
        let mut values = load(service.step, &mut noise);
        if step % 97 == 50 {
            values[5] *= 1.15;
        }
        let verdict = service.observe(&values);
        assert!(verdict.finding.is_none(), "{verdict:?} at {step}");
    }
}

#[test]
fn what_lasts_for_days_is_the_new_normal() {
    let (mut service, mut noise) = taught(10);
    let mut points = Vec::new();
    for _ in 0..12 * DAY {
        let mut values = load(service.step, &mut noise);
        values[0] += 80.0;
        values[1] -= 80.0;
        points.push(service.observe(&values).point);
    }
    let mean = |points: &[f64]| points.iter().sum::<f64>() / points.len() as f64;
    let (first, last) = (mean(&points[6..DAY / 2]), mean(&points[11 * DAY..]));
    assert!(first > 2.0 && last < first / 3.0, "{first} at first, {last} at last");
}

#[test]
fn series_that_come_later_and_go_are_judged_and_harm_nobody() {
    let (mut service, mut noise) = taught(8);
    service.series.push(Series::new(Quantity::Level, STEP));
    let mut findings = Vec::new();
    for step in 0..4 * DAY {
        let mut values = load(service.step, &mut noise).to_vec();
        values.push(if step < 3 * DAY { 5.0 + noise.normal() } else { f64::NAN });
        if step % 5 == 0 {
            values[2] = f64::NAN;
        }
        findings.extend(service.observe(&values).finding);
    }
    assert!(findings.len() <= 1, "{findings:?}");
    // The load that all follow may jump; what comes and goes adds nothing to that.
    let share = |index| findings.iter().flat_map(|finding| &finding.carriers).find(|carrier| carrier.index == index);
    for index in [2, 8] {
        assert!(share(index).is_none_or(|carrier| carrier.share < 0.25), "{findings:?}");
    }
}

#[test]
fn memory_is_bounded_however_many_series_come() {
    let sizes = [19, 38, MOST_CHANNELS, 200].map(|series| {
        let (mut entity, verdict) = (Entity::new(60.0), Verdict::default());
        for step in 0..100u32 {
            let channels: Vec<Channel> =
                (0..series).map(|index| Channel { index: index as u32, value: f64::from(step % 7), verdict: &verdict }).collect();
            entity.observe(60.0 * f64::from(step), &channels, &Parameters::default());
        }
        entity.bytes()
    });
    assert!(sizes[0] < 5 * 1024 && sizes[1] < 11 * 1024 && sizes[2] < 26 * 1024, "{sizes:?}");
    assert_eq!(sizes[2], sizes[3], "more than {MOST_CHANNELS} series need no more memory");
}

#[test]
fn an_entity_has_findings_only_after_its_warm_up() {
    let mut service = Service::new(8);
    let mut noise = Noise(7);
    assert_eq!(service.entity.state(), State::Warming { seen: 0, needed: 240, reason: Waiting::Warmup });
    for step in 0..240 {
        let mut values = load(step, &mut noise);
        if step % 50 == 49 {
            values.iter_mut().for_each(|value| *value *= 9.0);
        }
        assert!(service.observe(&values).finding.is_none());
    }
    assert_eq!(service.entity.state(), State::Ready { trained: None });
}

#[test]
fn times_that_do_not_grow_and_empty_steps_change_nothing() {
    let (mut service, mut noise) = taught(4);
    let before = service.entity.clone();
    let verdict = service.series[0].observe(STEP * service.step as f64, 100.0, f64::NAN, &service.parameters);
    let values = load(service.step, &mut noise);
    let channel = |value| [Channel { index: 0, value, verdict: &verdict }];
    for (time, value) in [(0.0, values[0]), (f64::NAN, values[0]), (STEP * 1e6, f64::NAN)] {
        let verdict = service.entity.observe(time, &channel(value), &service.parameters);
        assert_eq!(verdict, EntityVerdict::default());
    }
    service.entity.observe(STEP * 1e6, &[], &service.parameters);
    assert_eq!(service.entity, before);
}

/// Rows of values for up to 80 series: ordinary, constant, enormous, missing.
fn rows() -> impl Strategy<Value = Vec<Vec<f64>>> {
    let value = prop_oneof![
        8 => -1.0..1.0f64,
        2 => 0.0..1e4f64,
        2 => Just(0.0),
        1 => Just(1e12),
        1 => any::<f64>(),
        1 => prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::MAX), Just(f64::MIN), Just(f64::MIN_POSITIVE)],
    ];
    (1usize..80, 1usize..6).prop_flat_map(move |(series, period)| {
        prop::collection::vec(prop::collection::vec(value.clone(), series), 1..60).prop_map(move |rows| {
            // Repeated, so that there is enough to learn from.
            rows.iter().cycle().take(rows.len() * 3 * period).cloned().collect()
        })
    })
}

fn eager() -> Parameters {
    Parameters { warmup: 0, page_threshold: 0.1, ..Parameters::default() }
}

fn check(verdict: &EntityVerdict) -> Result<(), TestCaseError> {
    for score in [verdict.point, verdict.alert, verdict.page] {
        prop_assert!(score.is_finite() && score >= 0.0, "{verdict:?}");
    }
    if let Some(finding) = &verdict.finding {
        prop_assert!((0.0..=100.0).contains(&finding.score) && (0.0..=1.0).contains(&finding.probability), "{verdict:?}");
        prop_assert!(!finding.carriers.is_empty());
        let shares: f64 = finding.carriers.iter().map(|carrier| carrier.share).sum();
        prop_assert!((shares - 1.0).abs() < 1e-9, "{verdict:?}");
        for carrier in &finding.carriers {
            prop_assert!(carrier.share > 0.0 && carrier.surprise.is_finite() && carrier.deviation.is_finite(), "{verdict:?}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_values_get_finite_scores(rows in rows(), step in prop_oneof![Just(60.0), Just(3600.0), any::<f64>()]) {
        let mut service = Service::new(rows[0].len());
        service.entity = Entity::new(step);
        service.parameters = eager();
        for row in &rows {
            check(&service.observe(row))?;
        }
    }

    #[test]
    fn any_surprises_get_finite_scores(
        rows in prop::collection::vec(prop::collection::vec((any::<f64>(), any::<f64>(), any::<f64>()), 1..5), 1..300),
    ) {
        let mut entity = Entity::new(60.0);
        for (step, row) in rows.iter().enumerate() {
            let verdicts: Vec<Verdict> = row
                .iter()
                .map(|(_, surprise, expected)| {
                    Verdict { surprises: [surprise.abs().min(300.0); detection::COMPONENTS.len()], expected: Some(*expected), ..Verdict::default() }
                })
                .collect();
            let channels: Vec<Channel> = (row.iter().zip(&verdicts).enumerate())
                .map(|(index, ((value, _, _), verdict))| Channel { index: index as u32 * 3, value: *value, verdict })
                .collect();
            check(&entity.observe(60.0 * step as f64, &channels, &eager()))?;
        }
    }

    #[test]
    fn saved_and_loaded_in_the_middle_makes_no_difference(rows in rows(), cut in 0.0..1.0f64) {
        let (mut whole, mut parts) = (Service::new(rows[0].len()), Service::new(rows[0].len()));
        let cut = (cut * rows.len() as f64) as usize;
        for (number, row) in rows.iter().enumerate() {
            if number == cut {
                let bytes = postcard::to_allocvec(&parts.entity).unwrap();
                parts.entity = postcard::from_bytes(&bytes).unwrap();
                prop_assert_eq!(&parts.entity, &whole.entity);
                let text = serde_json::to_string(&parts.entity).unwrap();
                parts.entity = serde_json::from_str(&text).unwrap();
            }
            prop_assert_eq!(whole.observe(row), parts.observe(row));
        }
    }
}
