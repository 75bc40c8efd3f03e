//! The core without threads.

use proptest::prelude::*;

use super::*;
use crate::model::Direction;

/// Long after everything: what is fed is history.
const LATER: u64 = BEGIN + 400 * 86_400;

fn functions(anomalies: &[Anomaly], service: &str) -> Vec<String> {
    let mut all: Vec<String> =
        anomalies.iter().filter(|a| a.entity.service == service).map(|a| format!("{} {}", a.metric, a.function)).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn a_fault_is_found_where_it_is_and_nowhere_else() {
    let mut bench = Bench::new(&config(), 1, LATER);
    bench.play(&minutes(0, LONG, FAULT));
    let found = bench.found();
    let functions_of_checkout = functions(&found, "checkout");
    for function in ["span error_share", "span p50", "span p99"] {
        assert!(functions_of_checkout.iter().any(|f| f == function), "{function} is not in {functions_of_checkout:?}");
    }
    assert!(functions(&found, "cart").is_empty(), "{found:#?}");
    let first = &found[0];
    assert_eq!(first.window.start.secs(), BEGIN + FAULT * MINUTE);
    assert!((first.lower..=first.upper).contains(&first.expected) && first.observed > first.upper, "{first:#?}");
    assert_eq!(first.samples, 120.0);
    assert!(!first.reasons.is_empty());
}

#[test]
fn the_number_of_shards_does_not_matter() {
    let run = |shards| {
        let mut bench = Bench::new(&config(), shards, LATER);
        bench.play(&minutes(0, LONG, FAULT));
        (bench.found(), bench.state())
    };
    let one = run(1);
    assert!(!one.0.is_empty());
    assert_eq!(run(2), one);
    assert_eq!(run(7), one);
}

#[test]
fn entities_spread_over_the_shards() {
    let counts = far_from_one_shard(4000, 8);
    assert!(counts.iter().all(|&n| (400..600).contains(&n)), "{counts:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn order_and_pieces_do_not_matter_as_long_as_nothing_is_late(
        delays in prop::collection::vec(0u64..30, 50..200),
        sizes in prop::collection::vec(1usize..40, 1..50),
    ) {
        let all = minutes(0, LONG, FAULT);
        let mut in_order = Bench::new(&config(), 1, LATER);
        in_order.play(&all);
        // Each one is delayed by less than the lateness, and they come in pieces of any size.
        let mut delayed: Vec<(u64, usize, Observation)> = all
            .into_iter()
            .enumerate()
            .map(|(i, o)| (o.time.secs() + delays[i % delays.len()], i.wrapping_mul(7919) % 1000, o))
            .collect();
        delayed.sort_by_key(|&(at, tie, _)| (at, tie));
        let mut items = delayed.into_iter().map(|(.., o)| o).peekable();
        let mut shuffled = Bench::new(&config(), 3, LATER);
        let mut sizes = sizes.iter().cycle();
        while items.peek().is_some() {
            shuffled.feed(items.by_ref().take(*sizes.next().unwrap()).collect());
        }
        // What the last pieces left open is closed by a last piece of both.
        let end = vec![gauge("end", BEGIN + (LONG + 5) * MINUTE, 1.0)];
        in_order.feed(end.clone());
        shuffled.feed(end);
        prop_assert_eq!(shuffled.late, 0);
        prop_assert!(!in_order.found().is_empty());
        prop_assert_eq!(shuffled.found(), in_order.found());
        prop_assert_eq!(shuffled.state(), in_order.state());
    }

    #[test]
    fn a_restart_in_the_middle_changes_nothing(at in 1u64..LONG * 6) {
        let all = minutes(0, LONG, FAULT);
        let mut through = Bench::new(&config(), 2, LATER);
        through.play(&all);
        let (before, after): (Vec<_>, Vec<_>) = all.into_iter().partition(|o| o.time.secs() < BEGIN + at * 10);
        let mut first = Bench::new(&config(), 2, LATER);
        first.play(&before);
        let mut second = first.reloaded(&config(), 3);
        second.play(&after);
        prop_assert_eq!(second.found(), through.found());
        prop_assert_eq!(second.state(), through.state());
    }
}

#[test]
fn what_comes_after_its_bucket_was_closed_is_counted_and_changes_nothing() {
    let mut bench = Bench::new(&config(), 1, LATER);
    bench.play(&minutes(0, 10, FAULT));
    let before = bench.state();
    let late = calls("cart", BEGIN + 2 * MINUTE, 1000, 1000, 9.0);
    // The newest event time is not the late one's.
    bench.feed(vec![late.clone()]);
    bench.feed(vec![calls("newcomer", BEGIN + 2 * MINUTE, 1, 0, 1.0)]);
    assert_eq!(bench.late, 2);
    assert_eq!(bench.state(), before);
}

#[test]
fn traffic_that_stops_is_missed_by_the_clock() {
    let mut bench = Bench::new(&config(), 1, BEGIN);
    bench.live(&minutes(0, FAULT, FAULT));
    assert!(bench.found().is_empty(), "{:#?}", bench.found());
    for second in (BEGIN + FAULT * MINUTE..BEGIN + (FAULT + 10) * MINUTE).step_by(30) {
        bench.tick(second);
    }
    let found = bench.found();
    assert_eq!(functions(&found, "checkout"), ["span rate"]);
    assert!(found.iter().all(|a| a.direction == Direction::Missing && a.observed == 0.0), "{found:#?}");
    assert!(found[0].expected > 1.5 && found[0].expected < 3.0, "per second: {}", found[0].expected);
}

#[test]
fn a_service_that_stops_is_missed_while_others_go_on() {
    let mut bench = Bench::new(&config(), 1, LATER);
    let mut all = minutes(0, LONG, LONG);
    all.retain(|o| o.entity.service == "cart" || o.time.secs() < BEGIN + FAULT * MINUTE);
    bench.play(&all);
    let found = bench.found();
    assert_eq!(functions(&found, "checkout"), ["span rate"]);
    assert_eq!(functions(&found, "cart"), Vec::<String>::new());
    assert_eq!(found[0].direction, Direction::Missing);
}

#[test]
fn a_finished_replay_of_history_does_not_become_an_outage() {
    let mut bench = Bench::new(&config(), 1, LATER);
    bench.play(&minutes(0, FAULT, FAULT));
    let closed = bench.closed;
    for hour in 1..200 {
        bench.tick(LATER + hour * 3600);
    }
    assert_eq!(bench.closed, closed);
    // Live data begins a week later: the time in between was not watched.
    let now = LATER + 200 * 3600;
    bench.tick(now);
    let shift = now - BEGIN - 60 * MINUTE;
    let live = minutes(60, 90, LONG).into_iter().map(|mut o| {
        o.time = o.time.plus(shift * UnixNanos::SECOND);
        o
    });
    bench.live(&live.collect::<Vec<_>>());
    let missing: Vec<_> = bench.found().into_iter().filter(|a| a.direction == Direction::Missing).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_restart_after_some_downtime_is_no_outage() {
    let mut bench = Bench::new(&config(), 1, BEGIN);
    bench.live(&minutes(0, 100, LONG));
    let mut again = bench.reloaded(&config(), 1);
    // Ten minutes later, in the middle of a bucket.
    let now = UnixNanos::from_secs(BEGIN + 110 * MINUTE + 30);
    again.cores[0].resume(now);
    let rest: Vec<_> = minutes(110, LONG, LONG).into_iter().filter(|o| o.time >= now).collect();
    again.live(&rest);
    assert!(again.found().is_empty(), "{:#?}", again.found());
}

#[test]
fn a_counter_that_restarts_is_no_anomaly() {
    let mut bench = Bench::new(&config(), 1, LATER);
    for second in (BEGIN..BEGIN + LONG * MINUTE).step_by(10) {
        let restart = BEGIN + 100 * MINUTE;
        let start = if second < restart { BEGIN } else { restart };
        let grown = (second - start) as f64 * 4.0 + noise(second);
        bench.feed(vec![total("cart", second, start, grown)]);
    }
    assert!(bench.closed > 100);
    assert!(bench.found().is_empty(), "{:#?}", bench.found());
}

/// A delta of a counter that is exported every minute.
fn delta(second: u64, value: f64) -> Payload {
    use crate::model::{Batch, Metric, MetricKind, Point, PointValue, Points, Telemetry, Temporality};
    let mut points = Points::default();
    let (name, unit) = (points.symbols.intern("requests"), points.symbols.intern("{request}"));
    let kind = MetricKind::Sum { temporality: Temporality::Delta, monotonic: true };
    points.metrics.push(Metric { name, unit, kind });
    points.rows.push(Point {
        resource: Default::default(),
        metric: 0,
        time: UnixNanos::from_secs(second),
        start: UnixNanos::from_secs(second - 60),
        value: PointValue::Number(value),
        attributes: Default::default(),
    });
    Payload::Telemetry(Arc::new(Telemetry { environment: environment(), source: "otlp".into(), batch: Batch::Metrics(points) }))
}

#[test]
fn an_interval_as_long_as_a_bucket_makes_no_holes_and_no_peaks_but_an_end_is_seen() {
    let mut bench = Bench::new(&config(), 1, BEGIN);
    let send = |bench: &mut Bench, second: u64| {
        bench.tick(second);
        let mut divided = bench.intake.divide(delta(second, 600.0 + noise(second) * 60.0), bench.now);
        let outcome = bench.cores[0].observe(divided.feeds.remove(0));
        bench.account(outcome);
    };
    for minute in 0..LONG {
        // The moment wanders over the border of the buckets, there and back: some have two points, some none.
        let late = if minute % 7 < 3 { 1 } else { 0 };
        send(&mut bench, BEGIN + (minute + 1) * MINUTE - 1 + late);
    }
    assert!(bench.found().is_empty(), "{:#?}", bench.found());
    for second in (BEGIN + (LONG + 2) * MINUTE..BEGIN + (LONG + 20) * MINUTE).step_by(10) {
        bench.tick(second);
    }
    let found = bench.found();
    assert!(!found.is_empty());
    assert!(found.iter().all(|a| a.direction == Direction::Missing && a.unit == "{request}/s"), "{found:#?}");
}

#[test]
fn one_wrong_clock_does_not_close_everything() {
    let mut bench = Bench::new(&config(), 1, BEGIN);
    bench.live(&minutes(0, 5, LONG));
    bench.feed(vec![gauge("future", BEGIN + 10 * 86_400, 1.0)]);
    bench.feed(vec![gauge("ahead", BEGIN + 30 * MINUTE, 1.0)]);
    bench.live(&minutes(5, 20, LONG));
    assert_eq!(bench.late, 0);
}

#[test]
fn series_beyond_the_limit_are_not_learnt_and_are_counted() {
    let mut core = Core::new(settings(&Config { max_series: 12, ..config() }), UnixNanos::from_secs(LATER));
    let mut intake = Intake::new(&environment(), 1, 60 * UnixNanos::SECOND);
    // A group of calls has five series.
    let items = (0..5).map(|i| calls(&format!("s{i}"), BEGIN, 5, 0, 0.25)).collect();
    let outcome = core.observe(intake.divide(payload(items), core.now).feeds.remove(0));
    assert_eq!(outcome.dropped, [("series_limit", 3)].into());
    assert_eq!((core.series(), outcome.added), (10, 10));
    // Those that are known go on.
    let outcome = core.observe(intake.divide(payload(vec![calls("s0", BEGIN, 5, 0, 0.25)]), core.now).feeds.remove(0));
    assert!(outcome.dropped.is_empty());
}

#[test]
fn series_that_had_no_data_for_long_are_forgotten_and_make_room() {
    let config = Config { forget_after: short(3600), ..config() };
    let mut bench = Bench::new(&config, 1, LATER);
    bench.play(&minutes(0, 2, LONG));
    let all = bench.cores[0].series();
    for minute in 2..70 {
        bench.feed(vec![gauge("other", BEGIN + minute * MINUTE, 1.0)]);
    }
    assert!(all > 10);
    assert_eq!(bench.cores[0].series(), 1);
}

#[test]
fn what_belongs_to_another_environment_is_never_taken_in() {
    let mut intake = Intake::new(&Environment::new("staging"), 1, 60 * UnixNanos::SECOND);
    let divided = intake.divide(payload(minutes(0, 1, LONG)), UnixNanos::from_secs(LATER));
    assert!(divided.feeds.is_empty());
    assert_eq!(divided.dropped, [("other_environment", 36)].into());
}

#[test]
fn what_cannot_be_used_is_dropped_with_its_reason() {
    let mut intake = Intake::new(&environment(), 1, 60 * UnixNanos::SECOND);
    let now = UnixNanos::from_secs(BEGIN);
    let items = vec![gauge("a", 0, 1.0), gauge("a", BEGIN + 7200, 1.0), gauge("a", BEGIN, f64::NAN), gauge("a", BEGIN, 1.0)];
    let mut divided = intake.divide(payload(items), now);
    assert_eq!(divided.dropped, [("in_the_future", 1), ("no_time", 1)].into());
    let outcome = Core::new(settings(&config()), now).observe(divided.feeds.remove(0));
    assert_eq!(outcome.dropped, [("not_finite", 1)].into());
}

#[test]
fn a_state_that_does_not_fit_is_refused_with_the_reason() {
    let mut bench = Bench::new(&config(), 1, LATER);
    bench.play(&minutes(0, 3, LONG));
    let chunks = bench.save();
    let load = |chunks: Chunks, config: Config| {
        checkpoint::load(chunks.into_iter().map(Ok), &[settings(&config)]).map(drop).unwrap_err().to_string()
    };
    let wider = load(chunks.clone(), Config { bucket: short(300), ..config() });
    insta::assert_snapshot!(wider, @"it was learnt in buckets of 60 s, and `bucket` is now 300 s");
    let mut garbage = chunks.clone();
    garbage.last_mut().unwrap().1 = b"\x02garbage".to_vec();
    insta::assert_snapshot!(load(garbage, config()), @"what was learnt cannot be decoded: Found an Option discriminant that wasn't 0 or 1");
    let mut unknown = chunks.clone();
    unknown.push((77, Vec::new()));
    insta::assert_snapshot!(load(unknown, config()), @"what was learnt cannot be decoded: a chunk is of the unknown kind 77");
    let headless = chunks[1..].to_vec();
    insta::assert_snapshot!(load(headless, config()), @"what was learnt cannot be decoded: it has no head");
}

#[test]
fn a_wrong_configuration_is_explained() {
    let problems = |config: serde_json::Value| -> Vec<String> {
        let all = super::super::config::check(&config).into_iter();
        all.map(|p| format!("{}: {}{}", p.path.join("."), p.message, p.hint.map_or(String::new(), |h| format!(" ({h})"))))
            .collect()
    };
    assert!(problems(serde_json::json!({})).is_empty());
    assert!(problems(serde_json::Value::Null).is_empty());
    assert!(problems(serde_json::json!({ "bucket": "1h", "lateness": "0s", "shards": 64 })).is_empty());
    let wrong = serde_json::json!({
        "bucket": "65s", "lateness": "2h", "idle_timeout": "10ms", "shards": 65, "max_series": 0, "forget_after": "1m",
        "min_samples": 0.5, "warmup": 5, "threshold": 50.0, "min_deviation": -1.0, "min_error_share_deviation": 2.0,
    });
    let mut all = problems(wrong);
    all.extend(problems(serde_json::json!({ "bucket": "5s" })));
    let budget = serde_json::json!({ "at_most": 0, "per": "week" });
    all.extend(problems(serde_json::json!({ "threshold": 1.55, "alerts": budget, "incidents": { "window": "1s" } })));
    insta::assert_snapshot!(all.join("\n"));
}
