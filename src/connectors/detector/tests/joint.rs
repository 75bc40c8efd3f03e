//! Several series judged together: siblings, and the series of one entity.

use super::*;
use crate::model::Direction;

const LATER: u64 = BEGIN + 400 * 86_400;
const PODS: u64 = 5;

fn on(pod: &str, metric: &str, second: u64, value: f64) -> Observation {
    let entity = Entity { instance: Some(pod.to_owned()), ..Entity::service("checkout") };
    observation(entity, metric, second, Measure::Gauge { sum: value, count: 1.0 })
}

/// The pods in one minute: memory with an offset of each pod's own, and the same rhythm for all.
fn pods(minute: u64, names: &[String], bad: Option<(usize, f64)>) -> Vec<Observation> {
    let second = BEGIN + minute * MINUTE;
    let rhythm = 1.0 + 0.25 * ((minute % 64) as f64 / 64.0);
    let all = names.iter().enumerate().map(|(i, name)| {
        let usual = 64.0 * (1.0 + 0.25 * i as f64) * (rhythm + noise(minute * 31 + i as u64) / 16.0);
        let wrong = bad.filter(|(pod, _)| *pod == i).map_or(1.0, |(_, factor)| factor);
        on(name, "memory", second, usual * wrong)
    });
    all.collect()
}

fn names() -> Vec<String> {
    (0..PODS).map(|i| format!("pod-{i}")).collect()
}

/// `minutes` of pods, of which one is three times as large from minute `fault` on.
fn fleet(minutes: u64, fault: u64) -> Vec<Observation> {
    (0..minutes).flat_map(|m| pods(m, &names(), (m >= fault).then_some((3, 3.0)))).collect()
}

/// One that says nothing about series alone.
fn peers_only() -> Config {
    Config { threshold: 19.0, ..config() }
}

#[test]
fn a_faulty_instance_among_five_is_found_and_named() {
    for model in ["dbscan", "kmeans"] {
        let peers = serde_json::from_value(serde_json::json!({ "model": model })).unwrap();
        let mut bench = Bench::new(&Config { peers, ..peers_only() }, 1, LATER);
        bench.play(&fleet(LONG, FAULT));
        let found = bench.found();
        let [one] = found.as_slice() else { panic!("one finding, not {found:#?}") };
        assert_eq!(one.entity.instance.as_deref(), Some("pod-3"));
        assert_eq!((one.metric.as_str(), one.function.as_str(), one.direction), ("memory", "mean", Direction::Spike));
        assert_eq!((one.detector.kind.as_str(), one.reasons[0].component.as_str()), (model, "peers"));
        let minutes = (one.window.start.secs() - BEGIN) / MINUTE;
        assert!((FAULT..FAULT + 5).contains(&minutes), "{minutes}");
        assert!(one.observed > one.upper && (one.lower..=one.upper).contains(&one.expected), "{one:#?}");
        if model == "dbscan" {
            insta::assert_snapshot!(one.reasons[0].text);
        }
    }
}

#[test]
fn an_instance_whose_own_series_has_a_finding_is_not_reported_twice() {
    let mut bench = Bench::new(&config(), 1, LATER);
    bench.play(&fleet(LONG, FAULT));
    let found = bench.found();
    let of_pod: Vec<&Anomaly> = found.iter().filter(|a| a.entity.instance.as_deref() == Some("pod-3")).collect();
    assert!(of_pod.iter().any(|a| a.detector.kind == "ensemble"), "{found:#?}");
    assert!(of_pod.iter().all(|a| a.detector.kind == "ensemble"), "{found:#?}");
    assert_eq!(bench.events.get("peers_already_found"), Some(&1), "{:?}", bench.events);
}

#[test]
fn a_replaced_instance_is_no_finding_and_a_bad_new_one_is_found_while_it_is_new() {
    let run = |factor: f64| {
        let mut bench = Bench::new(&peers_only(), 1, LATER);
        for minute in 0..LONG {
            let mut names = names();
            if minute >= FAULT {
                names[2] = "pod-new".to_owned();
            }
            bench.feed(pods(minute, &names, (minute >= FAULT).then_some((2, factor))));
        }
        bench.found()
    };
    assert_eq!(run(1.0), []);
    let found = run(6.0);
    assert_eq!(found.iter().map(|a| a.entity.instance.as_deref()).collect::<Vec<_>>(), [Some("pod-new")], "{found:#?}");
    assert!(found[0].reasons[0].text.contains("as new as this one"), "{}", found[0].reasons[0].text);
}

#[test]
fn the_model_of_the_detector_says_how_peers_are_compared_where_the_block_does_not() {
    let config: Config = serde_json::from_value(serde_json::json!({ "model": { "type": "kmeans" } })).unwrap();
    let peers = |config: &Config| settings(config).joint.peers.map(|p| p.model);
    assert_eq!(peers(&config), Some(detection::PeerModel::Kmeans));
    assert_eq!(peers(&Config::default()), Some(detection::PeerModel::Dbscan));
}

#[test]
fn instances_are_not_compared_when_that_is_turned_off() {
    let peers = serde_json::from_value(serde_json::json!({ "model": "off" })).unwrap();
    let mut bench = Bench::new(&Config { peers, ..peers_only() }, 1, LATER);
    bench.play(&fleet(LONG, FAULT));
    assert_eq!(bench.found(), []);
}

#[test]
fn neither_shards_nor_pieces_nor_a_restart_change_what_is_found_jointly() {
    let all = fleet(LONG, FAULT);
    let mut whole = Bench::new(&peers_only(), 1, LATER);
    whole.play(&all);
    assert!(!whole.found().is_empty());
    for (shards, pieces, at) in [(3, 7, 250), (7, 211, 501), (2, 1, 502), (1, 640, 503)] {
        let (before, after) = all.split_at(at * PODS as usize);
        let mut first = Bench::new(&peers_only(), shards, LATER);
        before.chunks(pieces).for_each(|piece| first.feed(piece.to_vec()));
        let mut second = first.reloaded(&peers_only(), shards + 1);
        after.chunks(pieces).for_each(|piece| second.feed(piece.to_vec()));
        assert_eq!(second.found(), whole.found(), "{shards} shards, pieces of {pieces}, restart at {at}");
        // What the pieces left open is closed by a last one.
        let end = vec![gauge("end", BEGIN + (LONG + 5) * MINUTE, 1.0)];
        second.feed(end.clone());
        let mut through = Bench::new(&peers_only(), 1, LATER);
        through.play(&all);
        through.feed(end);
        assert_eq!(second.state(), through.state());
    }
}

/// One healthy service in one minute: a daily rhythm, drifting load and latency, one call in a hundred failing.
struct Service {
    seed: u64,
    drift: f64,
}

impl Service {
    fn chance(&mut self) -> f64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.chance()).ln()).sqrt() * (2.0 * std::f64::consts::PI * self.chance()).cos()
    }

    /// `worse` is what traffic, latency and errors are multiplied with.
    fn minute(&mut self, name: &str, minute: u64, worse: [f64; 3]) -> Vec<Observation> {
        let day = (minute as f64 / 1440.0 * 2.0 * std::f64::consts::PI).sin();
        self.drift = 0.95 * self.drift + 0.03 * self.normal();
        let mean = 120.0 * (1.0 + 0.7 * day) * (1.0 + self.drift) * worse[0];
        let count = (mean + mean.sqrt() * self.normal()).round().max(0.0);
        let errors = (0..count as u32).filter(|_| self.chance() < 0.01 * worse[2]).count() as f64;
        let second = BEGIN + minute * MINUTE;
        let slow = 0.1 * (1.0 + 0.2 * day) * (0.05 * self.normal()).exp() * worse[1];
        let mut latency = Sketch::new();
        for _ in 0..count as u32 {
            latency.add(slow * (0.4 * self.normal()).exp(), 1.0);
        }
        let entity = Entity { operation: Some("POST /pay".into()), kind: Some(SpanKind::Server), ..Entity::service(name) };
        vec![observation(entity, "span", second, Measure::Calls { count, errors, latency })]
    }
}

/// Printed with `cargo test --lib detector::tests::joint::measured -- --ignored --nocapture`.
#[test]
#[ignore = "measures for minutes"]
fn measured() {
    let (days, services) = (7u64, 12u64);
    let mut cost = [0.0; 2];
    for (place, enabled) in [false, true].into_iter().enumerate() {
        let entities = serde_json::from_value(serde_json::json!({ "enabled": enabled })).unwrap();
        let mut bench = Bench::new(&Config { entities, ..Config::default() }, 1, LATER);
        let mut all: Vec<Service> = (0..services).map(|seed| Service { seed: seed * 77, drift: 0.0 }).collect();
        for minute in 0..days * 1440 {
            let items = all.iter_mut().enumerate().flat_map(|(i, s)| s.minute(&format!("s{i}"), minute, [1.0; 3])).collect();
            let started = std::time::Instant::now();
            bench.feed(items);
            cost[place] += started.elapsed().as_secs_f64();
        }
        let by = |kind: &str| bench.found().iter().filter(|a| a.detector.kind == kind).count();
        println!(
            "entities {enabled}: {} findings of series, {} of entities in {} healthy entity-days; {:?}",
            by("ensemble"),
            by("entity"),
            days * services,
            bench.events
        );
        for one in bench.found().iter().filter(|a| a.detector.kind == "entity") {
            println!("  {:.1} {}", one.score, one.reasons[0].text);
        }
    }
    let buckets = (days * services * 1440) as f64;
    println!(
        "a bucket of an entity of five series: {:.1} us, judged jointly {:.1} us more",
        cost[0] / buckets * 1e6,
        (cost[1] - cost[0]) / buckets * 1e6
    );
    for worse in [[0.8, 1.15, 2.0], [0.7, 1.25, 3.0], [0.6, 1.4, 4.0]] {
        let mut found = [0, 0];
        let mut events: std::collections::BTreeMap<&str, u64> = Default::default();
        for seed in 0..12u64 {
            let mut bench = Bench::new(&Config::default(), 1, LATER);
            let mut service = Service { seed: 1000 + seed, drift: 0.0 };
            let begin = 3 * 1440 + seed * 100;
            for minute in 0..begin + 30 {
                bench.feed(service.minute("s", minute, if minute < begin { [1.0; 3] } else { worse }));
            }
            let late = |kind: &str| {
                bench.found().iter().any(|a| a.detector.kind == kind && a.window.start.secs() >= BEGIN + begin * MINUTE)
            };
            found[0] += usize::from(late("ensemble"));
            found[1] += usize::from(late("ensemble") || late("entity"));
            bench.events.iter().for_each(|(event, times)| *events.entry(event).or_default() += times);
        }
        println!(
            "traffic, latency, errors times {worse:?}: series alone find {} of 12, with entities {} of 12",
            found[0], found[1]
        );
    }
}

#[test]
fn what_belongs_to_one_operation_of_a_service_lives_in_one_shard() {
    let entity = |instance: u32, operation: &str| Entity {
        instance: Some(format!("pod-{instance}")),
        operation: Some(operation.to_owned()),
        attributes: vec![("cpu".into(), instance.to_string())],
        ..Entity::service("checkout")
    };
    let shard = Who::from(entity(0, "POST /pay")).shard(16);
    assert!((0..100).all(|i| Who::from(entity(i, "POST /pay")).shard(16) == shard));
    let shards: std::collections::BTreeSet<usize> =
        (0..100).map(|i| Who::from(entity(0, &format!("GET /{i}"))).shard(16)).collect();
    assert!(shards.len() > 10, "operations spread: {shards:?}");
}

/// Twelve series of one entity, which share nothing but the moment of the fault: then all move a little.
fn together(minutes: u64, fault: u64, factor: f64) -> Vec<Observation> {
    let mut all = Vec::new();
    for minute in 0..minutes {
        for series in 0..12u64 {
            let usual = 64.0 + 8.0 * noise(minute * 131 + series * 7);
            let value = if minute >= fault && minute < fault + 12 { usual * factor } else { usual };
            all.push(on("pod-0", &format!("queue.{series:02}"), BEGIN + minute * MINUTE, value));
        }
    }
    all
}

#[test]
fn an_entity_whose_series_all_move_a_little_is_found_with_the_series_that_carry_it() {
    let (fault, long) = (1_000, 1_020);
    let mut bench = Bench::new(&config(), 1, LATER);
    bench.play(&together(long, fault, 1.15));
    let found = bench.found();
    assert!(found.iter().all(|a| a.detector.kind == "entity"), "no series says it alone: {found:#?}");
    let one = found.first().expect("a finding");
    assert_eq!((one.series().as_str(), one.direction), ("checkout@pod-0: entity joint", Direction::Spike));
    assert!(one.window.start.secs() >= BEGIN + fault * MINUTE, "{found:#?}");
    assert!(one.reasons.len() > 1 && (one.reasons.iter().map(|r| r.share).sum::<f64>() - 1.0).abs() < 1e-9);
    insta::assert_snapshot!(one.reasons.iter().map(|r| r.text.as_str()).collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_series_found_alone_is_not_told_again_of_their_entity() {
    let mut bench = Bench::new(&config(), 1, LATER);
    bench.play(&together(1_020, 1_000, 4.0));
    let found = bench.found();
    assert!(found.iter().any(|a| a.detector.kind == "ensemble"));
    assert!(found.iter().all(|a| a.detector.kind == "ensemble"), "{found:#?}");
    assert!(bench.events.contains_key("entities_already_found"), "{:?}", bench.events);
}

#[test]
fn what_is_judged_together_is_forgotten_with_its_series() {
    let config = Config { forget_after: short(3600), ..config() };
    let mut bench = Bench::new(&config, 1, LATER);
    bench.play(&fleet(5, LONG));
    assert!(bench.cores[0].joint.held() > 0);
    for minute in 5..70 {
        bench.feed(vec![gauge("other", BEGIN + minute * MINUTE, 1.0)]);
    }
    assert_eq!(bench.cores[0].joint.held(), 1, "the other one");
}

#[test]
fn wrong_blocks_are_explained() {
    let config = serde_json::json!({ "peers": { "min_members": 2, "min_points": 300, "threshold": 0.1 } });
    let all: Vec<String> =
        super::super::config::check(&config).into_iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect();
    insta::assert_snapshot!(all.join("\n"));
}
