//! The promises of incidents: what belongs together, what is told, and that nothing depends on chance.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::config::Config;
use super::graph::tests::graph;
use super::*;
use crate::connectors::detector::merge::Merge;
use crate::model::{Call, DetectorRef, Direction, Entity, IncidentEvent, Reason, Signal, SpanKind, Window};

/// A Monday, at the start of a bucket.
const BEGIN: u64 = 1_767_571_200;
const MINUTE: u64 = 60 * UnixNanos::SECOND;

fn at(minute: u64) -> UnixNanos {
    UnixNanos::from_secs(BEGIN + 60 * minute)
}

/// A slow operation of `service` in `minute`.
pub(in crate::connectors::detector) fn anomaly(service: &str, minute: u64, score: f64) -> Anomaly {
    let start = at(minute);
    Anomaly {
        id: format!("{service}-{minute}"),
        fingerprint: service.to_owned(),
        environment: Environment::new("production"),
        detector: DetectorRef { name: "detector".to_owned(), kind: "ensemble".to_owned(), version: "1".to_owned() },
        signal: Signal::Traces,
        entity: Entity { operation: Some("POST /pay".into()), kind: Some(SpanKind::Server), ..Entity::service(service) },
        metric: "span".to_owned(),
        unit: "s".to_owned(),
        function: "p99".to_owned(),
        window: Window { start, end: start.plus(MINUTE) },
        observed: 0.4,
        expected: 0.1,
        lower: 0.05,
        upper: 0.15,
        samples: 120.0,
        score,
        probability: 1e-5,
        severity: Severity::of(score),
        direction: Direction::Spike,
        reasons: vec![Reason { component: "forecast".into(), surprise: 5.0, share: 1.0, text: "it rose".into() }],
        past: None,
        incident: None,
    }
}

pub(in crate::connectors::detector) fn found(anomalies: Vec<Anomaly>, until: u64) -> Found {
    Found { anomalies, until: Some(at(until)), ..Found::default() }
}

fn incidents() -> Incidents {
    Incidents::new(&Environment::new("production"), Config::default().incidents())
}

/// With these calls known.
fn knowing(edges: &[(&str, &str)]) -> Incidents {
    let mut incidents = incidents();
    incidents.state.graph = graph(edges);
    incidents
}

/// `event title`, for each event.
fn said(told: &Told) -> Vec<String> {
    told.findings.incidents.iter().map(|i| format!("{} {}", i.event.as_str(), i.services.join("+"))).collect()
}

#[test]
fn what_calls_each_other_is_one_incident_and_the_callee_leads() {
    let mut incidents = knowing(&[("web", "checkout"), ("checkout", "payments")]);
    let all = vec![anomaly("checkout", 0, 70.0), anomaly("payments", 0, 60.0), anomaly("web", 0, 90.0)];
    let told = incidents.take(found(all, 1));
    assert_eq!(said(&told), ["opened payments+checkout+web"]);
    let incident = &told.findings.incidents[0];
    assert_eq!(incident.lead.anomaly, "payments-0");
    assert_eq!((incident.score, incident.severity, incident.anomalies), (90.0, Severity::Critical, 3));
    assert_eq!(incident.title, "payments POST /pay is slow: p99 400 ms instead of 100 ms, together with checkout, web");
    let leads: Vec<bool> = told.findings.anomalies.iter().map(|a| a.incident.as_ref().unwrap().lead).collect();
    assert_eq!(leads, [false, true, false]);
}

#[test]
fn services_that_have_nothing_to_do_with_each_other_are_two_incidents() {
    let mut incidents = knowing(&[("web", "checkout"), ("batch", "reports")]);
    let told = incidents.take(found(vec![anomaly("checkout", 0, 70.0), anomaly("reports", 0, 60.0)], 1));
    assert_eq!(said(&told), ["opened checkout", "opened reports"]);
}

#[test]
fn what_sets_in_at_once_belongs_together_where_no_calls_are_known() {
    let mut incidents = incidents();
    let told = incidents.take(found(vec![anomaly("a", 0, 70.0), anomaly("b", 0, 60.0)], 1));
    assert_eq!(said(&told), ["opened a+b"]);
    let told = incidents.take(found(vec![anomaly("c", 1, 60.0)], 2));
    assert_eq!(said(&told), ["escalated a+b+c"], "the next bucket is still the same time");
    let told = incidents.take(found(vec![anomaly("d", 5, 60.0)], 6));
    assert_eq!(said(&told), ["opened d"], "later it is not");
}

#[test]
fn two_services_behind_which_the_same_third_one_may_be_belong_together_if_they_set_in_at_once() {
    let edges = [("a", "db:5432"), ("b", "db:5432"), ("web", "x")];
    let told = knowing(&edges).take(found(vec![anomaly("a", 0, 70.0), anomaly("b", 0, 60.0), anomaly("web", 0, 60.0)], 1));
    assert_eq!(said(&told), ["opened a+b", "opened web"]);
    let mut apart = knowing(&edges);
    apart.take(found(vec![anomaly("a", 0, 70.0)], 1));
    assert_eq!(said(&apart.take(found(vec![anomaly("b", 4, 60.0)], 5))), ["opened b"]);
}

#[test]
fn the_two_ends_of_a_call_belong_together() {
    let edges = [("web", "x"), ("checkout", "y")];
    let client = Anomaly {
        entity: Entity { kind: Some(SpanKind::Client), operation: Some("POST /pay".into()), ..Entity::service("web") },
        ..anomaly("web", 0, 60.0)
    };
    let told = knowing(&edges).take(found(vec![anomaly("checkout", 0, 70.0), client], 1));
    assert_eq!(said(&told).len(), 1, "{:?}", said(&told));
}

#[test]
fn it_is_told_again_only_when_it_is_clearly_worse_and_once_when_it_is_over() {
    let mut incidents = knowing(&[("web", "checkout")]);
    assert_eq!(said(&incidents.take(found(vec![anomaly("checkout", 0, 60.0)], 1))), ["opened checkout"]);
    assert_eq!(said(&incidents.take(found(vec![anomaly("checkout", 3, 70.0)], 4))), [""; 0], "the same band");
    assert_eq!(said(&incidents.take(found(vec![anomaly("checkout", 4, 80.0)], 5))), ["escalated checkout"]);
    assert_eq!(said(&incidents.take(found(vec![anomaly("web", 5, 30.0)], 6))), ["escalated checkout+web"]);
    assert_eq!(said(&incidents.take(found(vec![], 15))), [""; 0]);
    let told = incidents.take(found(vec![], 16));
    assert_eq!(said(&told), ["ended checkout+web"]);
    let ended = &told.findings.incidents[0];
    assert_eq!((ended.sequence, ended.start, ended.end, ended.anomalies), (4, at(0), Some(at(6)), 4));
    assert_eq!(said(&incidents.take(found(vec![], 100))), [""; 0], "it ends once");
    assert_eq!(said(&incidents.take(found(vec![anomaly("checkout", 100, 60.0)], 101))), ["opened checkout"], "a new one");
}

#[test]
fn it_is_not_over_while_its_values_stay_out_of_their_bounds() {
    let mut incidents = incidents();
    incidents.take(found(vec![anomaly("checkout", 0, 60.0)], 1));
    let still = |minute: u64| Found {
        unusual: vec![
            Unusual { start: at(minute), fingerprint: "checkout".into() },
            Unusual { start: at(minute), fingerprint: "of another series".into() },
        ],
        until: Some(at(minute + 1)),
        ..Found::default()
    };
    for minute in 1..60 {
        assert_eq!(said(&incidents.take(still(minute))), [""; 0]);
    }
    assert_eq!(said(&incidents.take(found(vec![], 66))), [""; 0]);
    // A value that is out of its bounds after it was back is nothing special.
    assert_eq!(said(&incidents.take(still(66))), [""; 0]);
    let told = incidents.take(found(vec![], 70));
    assert_eq!(said(&told), ["ended checkout"]);
    assert_eq!(told.findings.incidents[0].end, Some(at(60)));
}

#[test]
fn a_storm_is_one_incident_of_bounded_size() {
    let mut incidents = incidents();
    let all: Vec<Anomaly> = (0..5000)
        .map(|i| Anomaly {
            fingerprint: format!("{i}"),
            id: format!("{i:05}"),
            ..anomaly(&format!("service-{}", i % 700), 0, 60.0)
        })
        .collect();
    let told = incidents.take(found(all, 1));
    assert_eq!(told.findings.incidents.len(), 1);
    let incident = &told.findings.incidents[0];
    assert_eq!((incident.anomalies, incident.series_count), (5000, 1000));
    assert_eq!((incident.services.len(), incident.entities.len(), incident.series.len()), (100, 50, 50));
    assert!(incident.title.ends_with("and 96 more services"), "{}", incident.title);
    assert!(incidents.save().unwrap().len() < 200_000);
}

#[test]
fn open_incidents_survive_a_restart() {
    let script = [
        found(vec![anomaly("checkout", 0, 60.0)], 1),
        found(vec![anomaly("web", 3, 80.0)], 4),
        found(vec![], 20),
        found(vec![anomaly("web", 30, 80.0)], 31),
    ];
    let script = || script.iter().map(|f| Found { anomalies: f.anomalies.clone(), until: f.until, ..Found::default() });
    let edges = [("web", "checkout")];
    let mut through = knowing(&edges);
    let wanted: Vec<Findings> = script().map(|f| through.take(f).findings).collect();
    let mut now = knowing(&edges);
    let mut got = Vec::new();
    for command in script() {
        got.push(now.take(command).findings);
        let mut next = incidents();
        next.restore(&now.save().unwrap()).unwrap();
        now = next;
    }
    assert_eq!(got, wanted);
    assert_eq!(got[2].incidents[0].event, IncidentEvent::Ended);
}

#[test]
fn calls_are_learnt_from_what_comes_with_the_observations() {
    let mut incidents = incidents();
    let calls =
        vec![Call { caller: "web".into(), callee: "checkout".into() }, Call { caller: "batch".into(), callee: "x".into() }];
    incidents.take(Found { calls, until: Some(at(0)), ..Found::default() });
    let told = incidents.take(found(vec![anomaly("batch", 1, 99.0), anomaly("checkout", 1, 60.0), anomaly("web", 1, 90.0)], 2));
    assert_eq!(said(&told), ["opened batch", "opened checkout+web"]);
}

/// A day of an environment: which services misbehave when, how much, and until when event time has come.
fn any_script() -> impl Strategy<Value = Vec<(Vec<Anomaly>, u64)>> {
    let one = (prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]), 0u64..4, 1u32..100);
    prop::collection::vec((prop::collection::vec(one, 0..6), 1u64..8), 1..40).prop_map(|commands| {
        let mut now = 5;
        let commands = commands.into_iter().map(|(anomalies, passed)| {
            now += passed;
            let anomalies = anomalies.into_iter().enumerate().map(|(i, (service, ago, score))| Anomaly {
                id: format!("{service}-{now}-{i}"),
                ..anomaly(service, now - ago - 1, f64::from(score))
            });
            (anomalies.collect(), now)
        });
        commands.collect()
    })
}

/// Runs a script through `shards` shards, each of which tells what it found in an order of its own.
fn run(script: &[(Vec<Anomaly>, u64)], shards: usize, seed: u64) -> Vec<Findings> {
    let mut incidents = knowing(&[("a", "b"), ("b", "c"), ("d", "e")]);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut queues: Vec<Vec<(u64, Found)>> = (0..shards).map(|_| Vec::new()).collect();
    let end = script.last().map_or(0, |(_, until)| until + 1000);
    let closing = [(Vec::new(), end)];
    for (number, (anomalies, until)) in script.iter().chain(&closing).enumerate() {
        let mut parts: Vec<Vec<Anomaly>> = vec![Vec::new(); shards];
        for anomaly in anomalies {
            parts[random.usize(..shards)].push(anomaly.clone());
        }
        for (queue, mut part) in queues.iter_mut().zip(parts) {
            random.shuffle(&mut part);
            queue.push((number as u64, found(part, *until)));
        }
    }
    let (mut merge, mut told) = (Merge::new(shards), Vec::new());
    queues.iter_mut().for_each(|queue| queue.reverse());
    while queues.iter().any(|queue| !queue.is_empty()) {
        let shard = random.usize(..shards);
        if let Some((number, part)) = queues[shard].pop()
            && let Some(all) = merge.take(shard, number, part)
        {
            told.push(incidents.take(all).findings);
        }
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn incidents_are_the_same_in_any_order_and_with_any_number_of_shards(script in any_script(), shards in 2usize..6, seed: u64) {
        prop_assert_eq!(run(&script, shards, seed), run(&script, 1, 0));
    }

    #[test]
    fn every_anomaly_is_in_one_incident_and_every_incident_opens_once_and_ends_once(script in any_script()) {
        let all = run(&script, 1, 0);
        let mut events: BTreeMap<String, Vec<IncidentEvent>> = BTreeMap::new();
        let mut members: BTreeMap<String, u64> = BTreeMap::new();
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for findings in &all {
            for incident in &findings.incidents {
                let before = events.entry(incident.id.clone()).or_default();
                before.push(incident.event);
                prop_assert_eq!(incident.sequence as usize, before.len());
                prop_assert!(incident.start <= incident.updated);
                prop_assert!(incident.services.contains(&incident.lead.service));
                counted.insert(incident.id.clone(), incident.anomalies);
            }
            for anomaly in &findings.anomalies {
                let id = &anomaly.incident.as_ref().expect("an incident").id;
                prop_assert!(events.contains_key(id), "it is told no later than its anomalies");
                *members.entry(id.clone()).or_default() += 1;
            }
        }
        let sent: usize = script.iter().map(|(anomalies, _)| anomalies.len()).sum();
        prop_assert_eq!(members.values().sum::<u64>(), sent as u64);
        prop_assert_eq!(members, counted);
        for (id, events) in events {
            prop_assert_eq!(events.first(), Some(&IncidentEvent::Opened), "{}", id);
            prop_assert_eq!(events.last(), Some(&IncidentEvent::Ended), "{}", id);
            let inner = &events[1..events.len() - 1];
            prop_assert!(inner.iter().all(|e| *e == IncidentEvent::Escalated), "{:?}", events);
        }
    }
}
