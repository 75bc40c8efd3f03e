//! What keeps findings from being told, in the core without threads.

use super::*;
use crate::connectors::detector::Config;
use crate::connectors::detector::rules::{self, Part, Request};
use crate::model::ServiceVersion;
use crate::pipeline::Refusal;
use serde_json::{Value, json};

/// Long after everything: what is fed is history.
const LATER: u64 = BEGIN + 400 * 86_400;

/// The tests' configuration, and more.
fn with(more: Value) -> Config {
    let mut config = json!({ "warmup": 240, "threshold": 1.5 });
    let Value::Object(more) = more else { panic!("an object of keys: {more}") };
    config.as_object_mut().unwrap().extend(more);
    assert_eq!((crate::connectors::detector::FACTORY.check)(&config).iter().filter(|p| p.fatal).count(), 0, "{config}");
    serde_json::from_value(config).unwrap()
}

fn ask(bench: &mut Bench, subject: &str, body: Value) -> Result<Value, Refusal> {
    let request = Request::read(subject, body, bench.now)?;
    let parts: Vec<Part> = bench.cores.iter_mut().map(|core| rules::answer(core, &request)).collect();
    rules::gather(&request, parts)
}

/// Series of `checkout` with findings.
fn found(bench: &Bench) -> Vec<String> {
    let mut all: Vec<String> = bench.found().iter().map(Anomaly::series).collect();
    all.sort();
    all.dedup();
    all
}

fn states(bench: &mut Bench) -> Value {
    ask(bench, "series", json!({})).unwrap()["states"].clone()
}

fn play(config: &Config, shards: usize) -> Bench {
    let mut bench = Bench::new(config, shards, LATER);
    bench.play(&minutes(0, LONG, FAULT));
    bench
}

#[test]
fn later_rules_go_before_earlier_ones_and_only_for_what_they_match() {
    let all = found(&play(&config(), 1));
    assert!(all.iter().any(|s| s.ends_with("span p99")) && all.iter().any(|s| s.ends_with("span error_share")), "{all:?}");
    let rules = json!({ "rules": [
        { "match": { "service": "check*" }, "mute": true, "reason": "moves house" },
        { "match": { "function": "error_share" }, "mute": false },
    ] });
    let bench = play(&with(rules), 1);
    assert_eq!(found(&bench), ["checkout POST /pay (server): span error_share"]);
    assert!(bench.events["suppressed_muted"] >= 3, "{:?}", bench.events);
}

#[test]
fn every_filter_of_a_rule_is_applied_and_counted() {
    for (rule, event) in [
        (json!({ "direction": "below" }), "suppressed_direction"),
        (json!({ "min_absolute_deviation": "1h", "min_relative_deviation": 1000.0 }), "suppressed_too_small"),
        (json!({ "min_samples": 1e6 }), "suppressed_too_few_samples"),
    ] {
        let bench = play(&with(json!({ "rules": [rule] })), 1);
        let slow = found(&bench).into_iter().filter(|s| s.contains(" p")).count();
        assert_eq!(slow, 0, "{event}: {:?}", found(&bench));
        assert!(bench.events.get(event).is_some_and(|n| *n > 0), "{event}: {:?}", bench.events);
    }
    let strict = play(&with(json!({ "rules": [{ "threshold": 20.0 }] })), 1);
    let fewer = strict.anomalies.len() < play(&config(), 1).anomalies.len();
    assert!(
        fewer && !strict.events.keys().any(|event| event.starts_with("suppressed")),
        "what is not unusual enough is not suppressed: {:?} {:?}",
        found(&strict),
        strict.events
    );
}

/// Maintenance from the fault on for `hours`.
fn maintenance(minutes: u64) -> Value {
    let start = UnixNanos::from_secs(BEGIN + FAULT * MINUTE).rfc3339().replace(['-', ':'], "");
    let schedule = format!("DTSTART:{}Z\nRDATE:{0}Z", &start[..15]);
    json!({ "maintenance": [{ "name": "upgrade", "schedule": schedule, "duration": format!("{minutes}m"), "match": { "service": "checkout" } }] })
}

#[test]
fn what_is_still_abnormal_after_maintenance_is_told_then() {
    let config = with(maintenance(10));
    for shards in [1, 3] {
        let mut bench = Bench::new(&config, shards, LATER);
        bench.play(&minutes(0, FAULT + 8, FAULT));
        assert!(bench.anomalies.is_empty(), "{:?}", found(&bench));
        assert!(bench.events["suppressed_maintenance"] > 0);
        assert!(states(&mut bench)["maintenance"].as_u64().unwrap() >= 5);
        // A restart in the window.
        let mut bench = bench.reloaded(&config, shards);
        bench.play(&minutes(FAULT + 8, LONG + 10, FAULT));
        let first = bench.found()[0].window.start.secs();
        assert_eq!(first, BEGIN + (FAULT + 10) * MINUTE, "{:?}", found(&bench));
    }
}

#[test]
fn what_is_over_before_maintenance_ends_is_never_told() {
    let config = with(maintenance(30));
    let mut bench = Bench::new(&config, 1, LATER);
    bench.play(&minutes(0, FAULT + 10, FAULT));
    let healthy: Vec<Observation> =
        (BEGIN + (FAULT + 10) * MINUTE..BEGIN + (FAULT + 90) * MINUTE).step_by(10).flat_map(healthy).collect();
    bench.play(&healthy);
    assert!(bench.anomalies.is_empty(), "{:?}", found(&bench));
}

fn version(bench: &mut Bench, name: &str, minute: u64) {
    let at = UnixNanos::from_secs(BEGIN + minute * MINUTE);
    let versions = [ServiceVersion { service: "checkout".into(), version: name.into(), first: at, last: at }];
    for core in &mut bench.cores {
        core.quieting.note(&versions);
    }
}

#[test]
fn after_a_deployment_there_is_a_grace_period_and_then_the_version_is_named() {
    let config = with(json!({ "deployments": { "grace": "5m" } }));
    let mut bench = Bench::new(&config, 1, LATER);
    bench.play(&minutes(0, FAULT, FAULT));
    version(&mut bench, "1.4.1", 0);
    version(&mut bench, "1.4.2", FAULT);
    bench.play(&minutes(FAULT, FAULT + 4, FAULT));
    assert!(bench.anomalies.is_empty() && bench.events["suppressed_deployment"] > 0);
    bench.play(&minutes(FAULT + 4, LONG, FAULT));
    let first = &bench.found()[0];
    assert_eq!(first.window.start.secs(), BEGIN + (FAULT + 5) * MINUTE);
    let said: Vec<&str> = first.reasons.iter().filter(|r| r.component == "deployment").map(|r| r.text.as_str()).collect();
    assert_eq!(said, ["6 min after checkout 1.4.2 was first seen"]);
}

#[test]
fn people_mute_and_unmute_while_it_runs() {
    let mut bench = Bench::new(&config(), 2, LATER);
    bench.play(&minutes(0, FAULT, FAULT));
    bench.now = UnixNanos::from_secs(BEGIN + FAULT * MINUTE);
    let told =
        ask(&mut bench, "mute", json!({ "match": { "service": "checkout" }, "for": "1h", "reason": "load test" })).unwrap();
    assert_eq!(told["what"], "service checkout");
    bench.play(&minutes(FAULT, FAULT + 5, FAULT));
    assert!(bench.anomalies.is_empty(), "{:?}", found(&bench));
    let rows = ask(&mut bench, "series", json!({ "state": "muted", "limit": 1 })).unwrap();
    assert_eq!(rows["series"][0]["reason"], "muted by mute 1, until 2026-01-05T09:20:00.000Z: load test");
    // It survives a restart.
    bench.now = UnixNanos::from_secs(LATER);
    let mut bench = bench.reloaded(&config(), 3);
    bench.now = UnixNanos::from_secs(BEGIN + (FAULT + 5) * MINUTE);
    assert_eq!(ask(&mut bench, "mutes", json!({})).unwrap()["mutes"].as_array().unwrap().len(), 1);
    ask(&mut bench, "unmute", json!({ "id": 1 })).unwrap();
    assert!(ask(&mut bench, "unmute", json!({ "id": 1 })).unwrap_err().message.contains("no mute 1"));
    bench.now = UnixNanos::from_secs(LATER);
    bench.play(&minutes(FAULT + 5, LONG, FAULT));
    // The last bucket was still open when the mute was ended.
    assert_eq!(bench.found()[0].window.start.secs(), BEGIN + (FAULT + 4) * MINUTE, "it is still so: told at once");
}

#[test]
fn what_makes_no_sense_is_refused_with_a_sentence() {
    let mut bench = Bench::new(&config(), 1, LATER);
    let said: Vec<String> = [
        ("mute", json!({ "for": "1h" })),
        ("mute", json!({ "match": { "servise": "x" }, "for": "1h" })),
        ("mute", json!({ "match": { "service": "x" } })),
        ("mute", json!({ "match": { "service": "x" }, "for": "0s" })),
        ("unmute", json!({ "id": 7 })),
        ("feedback", json!({ "anomaly": "x", "verdict": "bad" })),
        ("feedback", json!({ "anomaly": "x", "verdict": "normal" })),
        ("series", json!({ "state": "warning" })),
        ("weather", json!({})),
    ]
    .into_iter()
    .map(|(subject, body)| format!("{subject} {body}: {}", ask(&mut bench, subject, body.clone()).unwrap_err().message))
    .collect();
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn an_anomaly_that_was_called_normal_is_remembered_by_its_id_over_a_restart() {
    let bench = play(&config(), 2);
    let anomaly = bench.found().into_iter().find(|a| a.function == "p99").unwrap();
    let mut bench = { bench }.reloaded(&config(), 3);
    let body = |verdict: &str| json!({ "anomaly": anomaly.id, "verdict": verdict });
    let refused = ask(&mut bench, "feedback", body("forget")).unwrap_err();
    assert!(refused.message.contains("was not called normal"), "{}", refused.message);
    let told = ask(&mut bench, "feedback", body("normal")).unwrap();
    assert_eq!(told["series"], anomaly.series());
    let rows = ask(&mut bench, "series", json!({ "contains": "span P99", "service": "checkout" })).unwrap();
    assert_eq!(rows["series"][0]["lessons"], 1, "{rows:#}");
    ask(&mut bench, "feedback", body("forget")).unwrap();
}

#[test]
fn every_series_says_why_there_is_nothing() {
    let config =
        with(json!({ "rules": [{ "match": { "service": "cart", "metric": "queue" }, "mute": true, "reason": "known" }] }));
    let mut bench = Bench::new(&config, 2, LATER);
    bench.play(&minutes(0, 300, FAULT));
    // One that has just begun, one with few calls, and one that has fallen silent.
    let mut all = minutes(300, LONG, FAULT);
    for minute in 300..LONG {
        all.push(calls("young", BEGIN + minute * MINUTE, 30, 0, 0.1));
        all.push(calls("rare", BEGIN + minute * MINUTE, 6, 0, 0.1));
        if minute < 400 {
            all.push(gauge("gone", BEGIN + minute * MINUTE, 5.0 + noise(minute)));
        }
    }
    all.sort_by_key(|o| o.time);
    bench.play(&all);
    let answer = ask(&mut bench, "series", json!({ "limit": 1000 })).unwrap();
    let lines: Vec<String> = answer["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            format!(
                "{} | {} | {}",
                row["state"].as_str().unwrap(),
                row["series"].as_str().unwrap(),
                row["reason"].as_str().unwrap()
            )
        })
        .collect();
    insta::assert_snapshot!(format!("{}\n{}", lines.join("\n"), answer["states"]));
}

#[test]
fn pages_of_series_leave_nothing_out_whatever_the_shards() {
    let bench = |shards| {
        let mut bench = Bench::new(&config(), shards, LATER);
        bench.play(&minutes(0, 30, FAULT));
        bench
    };
    let whole = ask(&mut bench(1), "series", json!({ "limit": 1000 })).unwrap();
    assert_eq!(whole["next"], Value::Null);
    let mut paged = Vec::new();
    let mut after = Value::Null;
    let mut three = bench(3);
    loop {
        let page = ask(&mut three, "series", json!({ "limit": 4, "after": after })).unwrap();
        assert_eq!(page["states"], whole["states"]);
        paged.extend(page["series"].as_array().unwrap().clone());
        after = page["next"].clone();
        if after.is_null() {
            break;
        }
    }
    assert_eq!(Value::from(paged), whole["series"]);
}
