//! What the limits promise.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::super::Config;
use super::super::bucket::Kind;
use super::super::checkpoint;
use super::super::core::{Core, Feed, Item, Settings};
use super::super::key::Who;
use super::super::outcome::Outcome;
use super::*;
use crate::model::{Entity, Environment, Measure, Signal, SourceId, UnixNanos};

/// Long after everything: what is fed is history.
const LATER: UnixNanos = UnixNanos::from_secs(2_000_000_000);
/// A bucket in the past.
const BEGIN: u64 = 1_767_571_200 / 60;

fn config(max_series: usize, max_series_per_metric: usize) -> Config {
    Config { max_series, max_series_per_metric, warmup: 10.into(), ..Config::default() }
}

fn core(config: &Config) -> Core {
    Core::new(Arc::new(Settings::new(&Environment::new("production"), "detector", config)), LATER)
}

fn entity(service: &str, attributes: &[(&str, &str)]) -> Arc<Entity> {
    let attributes = attributes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Arc::new(Entity { attributes, ..Entity::service(service) })
}

fn item(entity: &Arc<Entity>, metric: &str, minute: u64, value: f64) -> Item {
    Item {
        entity: Arc::clone(entity).into(),
        metric: metric.into(),
        unit: "1".into(),
        kind: Kind::Gauge,
        time: UnixNanos::from_secs((BEGIN + minute) * 60 + 30),
        measure: Measure::Gauge { sum: value, count: 1.0 },
        covers: 0.0,
        records: 1,
    }
}

/// What `core` is told in `minute`.
fn feed(core: &mut Core, minute: u64, items: Vec<Item>) -> Outcome {
    let newest = UnixNanos::from_secs((BEGIN + minute) * 60 + 30);
    core.observe(Feed {
        source: SourceId::from("otlp"),
        signal: Signal::Metrics,
        newest,
        buckets: vec![BEGIN + minute].into(),
        versions: Vec::new().into(),
        items,
        calls: Vec::new(),
    })
}

fn services(core: &Core) -> BTreeSet<String> {
    core.groups.iter().map(|(key, _)| key).map(|key| key.entity.service.clone()).collect()
}

/// What `core` would save.
fn saved(core: &mut Core) -> Vec<Vec<u8>> {
    let mut records = core.records();
    records.push(postcard::to_stdvec(&core.shared()).unwrap());
    records
}

/// A core with what `core` would save, as after a restart.
fn restarted(core: &mut Core) -> Core {
    let chunks = checkpoint::tests::written(std::slice::from_mut(core));
    checkpoint::load(chunks.into_iter().map(Ok), &[Arc::clone(&core.settings)]).unwrap().cores.remove(0)
}

#[test]
fn the_series_of_one_metric_of_one_service_leave_room_for_others() {
    let mut core = core(&config(100, 20));
    let many = |service: &str, minute| -> Vec<Item> {
        (0..60).map(|i| item(&entity(service, &[("user", &format!("{minute}-{i}"))]), "m", minute, 1.0)).collect()
    };
    let outcome = feed(&mut core, 0, many("a", 0));
    assert_eq!((outcome.dropped, outcome.added, core.series()), ([("metric_series_limit", 40)].into(), 20, 20));
    let outcome = feed(&mut core, 0, many("b", 0));
    assert_eq!((outcome.dropped, outcome.added, core.series()), ([("metric_series_limit", 40)].into(), 20, 40));
    // Who may still report in the next minute stays; who has left it out makes room.
    assert_eq!(feed(&mut core, 1, many("a", 1)).added, 0);
    let outcome = feed(&mut core, 2, many("a", 2));
    assert_eq!((outcome.added, outcome.events.get("series_evicted"), core.series()), (20, Some(&20), 40));
}

#[test]
fn no_metric_has_more_than_half_of_a_shard() {
    let mut core = core(&config(100, 1000));
    let items = (0..200).map(|i| item(&entity("a", &[("user", &i.to_string())]), "m", 0, 1.0)).collect();
    assert_eq!(feed(&mut core, 0, items).added, 50);
    let items = (0..200).map(|i| item(&entity(&format!("s{i}"), &[]), "m", 0, 1.0)).collect();
    let outcome = feed(&mut core, 0, items);
    assert_eq!((outcome.dropped, core.series()), ([("series_limit", 150)].into(), 100));
}

#[test]
fn shards_divide_the_places_without_asking_each_other() {
    let config = Config { shards: 4, ..config(100, 10) };
    let spread = Key {
        entity: Entity { operation: Some("GET /".into()), ..Entity::service("a") }.into(),
        metric: "span".into(),
        kind: Kind::Calls,
        unit: "s".into(),
        signal: Signal::Traces,
    };
    let whole = Key { entity: entity("a", &[]).into(), ..spread.clone() };
    let settings = config.limits();
    assert_eq!((settings.series, settings.of_metric(&whole), settings.of_metric(&spread)), (25, 10, 3));
    // Whatever its instance and attributes, a metric of a service lives in one shard, unless operations divide it.
    let shards: BTreeSet<usize> = (0..50)
        .map(|i| Entity { instance: Some(i.to_string()), ..Entity::clone(&entity("a", &[("k", &i.to_string())])) })
        .map(|entity| Who::from(entity).shard(4))
        .collect();
    assert_eq!(shards.len(), 1);
}

#[test]
fn a_series_that_learns_is_not_pushed_out_by_those_that_come_once() {
    let mut core = core(&config(40, 1000));
    let learner = entity("learner", &[]);
    for minute in 0..30 {
        let crowd = (0..30).map(|i| item(&entity(&format!("once-{minute}-{i}"), &[]), "m", minute, 1.0));
        // Those that come once are always first in their minute.
        let items = crowd.chain([item(&learner, "m", minute, 1.0)]).collect();
        feed(&mut core, minute, items);
        assert!(core.series() <= 40);
    }
    let group = core.groups.iter().find(|(key, _)| key.entity.service == "learner").unwrap().1;
    assert!(group.hold().learnt, "{:?}", group.hold());
}

#[test]
fn what_has_learnt_gives_way_after_a_day_of_silence_and_not_before() {
    let mut core = core(&config(12, 1000));
    let old: Vec<_> = (0..6).map(|i| entity(&format!("old-{i}"), &[])).collect();
    for minute in 0..20 {
        feed(&mut core, minute, old.iter().map(|e| item(e, "m", minute, 1.0)).collect());
    }
    let newer: Vec<_> = (0..9).map(|i| entity(&format!("new-{i}"), &[])).collect();
    let day = 19 + 1440;
    for minute in 20..=day {
        let outcome = feed(&mut core, minute, newer.iter().map(|e| item(e, "m", minute, 1.0)).collect());
        assert_eq!(outcome.dropped, [("series_limit", 3)].into(), "minute {minute}");
    }
    let outcome = feed(&mut core, day + 1, newer.iter().map(|e| item(e, "m", day + 1, 1.0)).collect());
    assert!(outcome.dropped.is_empty(), "{:?}", outcome.dropped);
    assert_eq!(services(&core).iter().filter(|s| s.starts_with("old")).count(), 3);
}

#[test]
fn a_series_that_came_once_has_not_learnt_however_many_zeros_followed() {
    let mut core = core(&config(4, 1000));
    let count = |service: &str, minute| Item {
        kind: Kind::Delta,
        measure: Measure::Delta(1.0),
        ..item(&entity(service, &[]), "m", minute, 1.0)
    };
    feed(&mut core, 0, (0..4).map(|i| count(&format!("once-{i}"), 0)).collect());
    for minute in 1..100 {
        feed(&mut core, minute, Vec::new());
    }
    let outcome = feed(&mut core, 100, vec![count("new", 100)]);
    assert_eq!((outcome.dropped.len(), outcome.events.get("series_evicted")), (0, Some(&1)));
}

#[test]
fn without_growth_nothing_is_begun_and_what_is_known_goes_on() {
    let mut core = core(&config(100, 100));
    let (known, new) = (entity("known", &[]), entity("new", &[]));
    feed(&mut core, 0, vec![item(&known, "m", 0, 1.0)]);
    core.set_growth(false);
    let outcome = feed(&mut core, 1, vec![item(&known, "m", 1, 1.0), item(&new, "m", 1, 1.0)]);
    assert_eq!((outcome.dropped, core.series()), ([("memory_limit", 1)].into(), 1));
    core.set_growth(true);
    assert_eq!(feed(&mut core, 2, vec![item(&new, "m", 2, 1.0)]).added, 1);
}

#[test]
fn what_is_evicted_is_judged_together_no_more_and_leaves_what_others_have_learnt() {
    let mut core = core(&config(20, 1000));
    let pod = |i: u64| Arc::new(Entity { instance: Some(format!("pod-{i}")), ..Entity::service("fleet") });
    for minute in 0..40 {
        let crowd = (0..6).map(|i| item(&pod(1000 + minute * 6 + i), "cpu", minute, 1.0));
        let items = (0..5).map(|i| item(&pod(i), "cpu", minute, 1.0 + i as f64)).chain(crowd).collect();
        feed(&mut core, minute, items);
    }
    assert!(core.joint.learnt_siblings() >= 1, "the fleet is still known");
    for minute in 40..60 {
        let items = (0..20).map(|i| item(&entity(&format!("s-{minute}-{i}"), &[]), "m", minute, 1.0)).collect();
        feed(&mut core, minute, items);
    }
    let groups = core.groups.len();
    assert!(core.joint.held() <= groups + 1, "{} of {groups} groups", core.joint.held());
}

#[test]
fn a_request_id_as_an_attribute_neither_blinds_what_was_learnt_nor_fills_the_memory() {
    let config = Config { warmup: 240.into(), threshold: 1.0, ..config(4_000, 1_500) };
    let mut core = core(&config);
    let mut other = self::core(&config);
    let learnt: Vec<_> = (0..1_000).map(|i| entity(&format!("service-{}", i % 50), &[("route", &format!("r{i}"))])).collect();
    let report = |minute: u64, factor: f64| -> Vec<Item> {
        let value = |i: usize| factor * (50.0 + ((i as u64 * 7 + minute * 13) % 11) as f64);
        learnt.iter().enumerate().map(|(i, e)| item(e, "latency", minute, value(i))).collect()
    };
    for minute in 0..280 {
        feed(&mut core, minute, report(minute, 1.0));
        feed(&mut other, minute, report(minute, 1.0));
    }
    assert_eq!(core.series(), 1_000);
    let (mut refused, mut evicted, mut crowds) = (0, 0, Vec::new());
    for minute in 280..300 {
        let crowd =
            (0..10_000).map(|i| item(&entity("checkout", &[("request_id", &format!("{minute}-{i}"))]), "latency", minute, 1.0));
        let mut items: Vec<Item> = crowd.collect();
        items.extend(report(minute, 1.0));
        let outcome = feed(&mut core, minute, items);
        refused += outcome.dropped.get("metric_series_limit").copied().unwrap_or(0);
        evicted += outcome.events.get("series_evicted").copied().unwrap_or(0);
        crowds.extend(outcome.found.crowds);
        feed(&mut other, minute, report(minute, 1.0));
        assert!(core.series() <= 2_500, "1,000 and what one metric may have");
        let known: usize = core.groups.iter().filter(|(_, g)| g.hold().learnt).count();
        assert_eq!(known, 1_000);
    }
    assert!(refused >= 180_000 && evicted >= 13_000, "{refused} refused, {evicted} evicted");
    assert!(core.joint.held() <= 1_100, "{}", core.joint.held());
    let crowds: Vec<String> = crowds.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(crowds.join("\n"));
    // The learnt ones are judged as where nothing of it happened.
    let judged = |core: &mut Core| {
        let mut all = Vec::new();
        for minute in 300..305 {
            all.extend(feed(core, minute, report(minute, 5.0)).found.anomalies);
        }
        all.retain(|a| a.entity.service != "checkout");
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    };
    let (there, here) = (judged(&mut other), judged(&mut core));
    assert!(there.len() >= 1_000, "{}", there.len());
    assert_eq!(here.len(), there.len());
    assert!(here.iter().zip(&there).all(|(a, b)| a.id == b.id && a.score == b.score));
    assert!(
        other.settings.limits == core.settings.limits && services(&other).len() == 50,
        "the other environment knows nothing of it"
    );
}

#[test]
fn the_warning_names_what_makes_the_series_and_what_to_do() {
    let said = |config: &Config, items: Vec<Item>| {
        let crowds = feed(&mut core(config), 0, items).found.crowds;
        crowds.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let long = "x".repeat(200);
    let users =
        |n: usize| (0..n).map(|i| item(&entity("shop", &[("region", "eu"), ("user", &format!("{i}{long}"))]), "visits", 0, 1.0));
    let routes = (0..60).map(|i| Item {
        entity: Entity { operation: Some(format!("GET /user/{i}\n")), ..Entity::service("shop") }.into(),
        ..item(&entity("", &[]), "span", 0, 1.0)
    });
    let pods = (0..60).map(|i| item(&entity(&format!("job-{i}"), &[]), "m", 0, 1.0));
    let all = [
        said(&config(1000, 50), users(60).collect()),
        said(&config(80, 1000), users(60).collect()),
        said(&Config { shards: 2, ..config(1000, 100) }, routes.collect()),
        said(&Config { shards: 2, ..config(100, 1000) }, pods.collect()),
        said(&config(60, 1000), (0..40).map(|i| item(&entity("a", &[]), &format!("m{i}"), 0, 1.0)).chain(users(40)).collect()),
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

#[test]
fn the_same_is_said_again_after_an_hour_and_something_else_at_once() {
    let mut core = core(&config(1000, 10));
    let mut said = Vec::new();
    for minute in 0..130 {
        let mut items: Vec<Item> =
            (0..20).map(|i| item(&entity("a", &[("id", &format!("{minute}-{i}"))]), "m", minute, 1.0)).collect();
        if minute >= 30 {
            items.extend((0..20).map(|i| item(&entity("b", &[("id", &format!("{minute}-{i}"))]), "m", minute, 1.0)));
        }
        let crowds = feed(&mut core, minute, items).found.crowds;
        said.extend(crowds.iter().map(|c| (minute, c.subject.clone().unwrap().0)));
    }
    let said: Vec<(u64, &str)> = said.iter().map(|(minute, service)| (*minute, service.as_str())).collect();
    assert_eq!(said, [(0, "a"), (30, "b"), (60, "a"), (90, "b"), (120, "a")]);
}

/// Which service, and which attribute value, reports in which minute.
fn stream() -> impl Strategy<Value = Vec<Vec<(u8, u16)>>> {
    prop::collection::vec(prop::collection::vec((0u8..4, 0u16..300), 0..80), 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_comes_the_limits_hold_and_a_learnt_series_that_reports_stays(minutes in stream(), series in 30usize..80, metric in 6usize..40) {
        let config = config(series, metric);
        let mut core = core(&config);
        let learnt: Vec<_> = (0..5).map(|i| entity("learnt", &[("i", &i.to_string())])).collect();
        for minute in 0..15 {
            feed(&mut core, minute, learnt.iter().map(|e| item(e, "m", minute, 1.0)).collect());
        }
        for (minute, crowd) in (15..).zip(&minutes) {
            let mut items: Vec<Item> = crowd
                .iter()
                .map(|(service, value)| item(&entity(&format!("s{service}"), &[("v", &value.to_string())]), "m", minute, 1.0))
                .collect();
            items.extend(learnt.iter().map(|e| item(e, "m", minute, 1.0)));
            let before = core.series() as u64;
            let outcome = feed(&mut core, minute, items);
            let evicted = outcome.events.get("series_evicted").copied().unwrap_or(0);
            prop_assert_eq!(core.series() as u64, before + outcome.added - evicted - outcome.forgotten);
            prop_assert_eq!(core.series(), core.groups.iter().map(|(key, _)| key).map(|k| k.kind.functions().len()).sum::<usize>());
            prop_assert!(core.series() <= series);
            for service in ["s0", "s1", "s2", "s3", "learnt"] {
                let held = core.groups.iter().map(|(key, _)| key).filter(|k| k.entity.service == service).count();
                prop_assert!(held <= metric.min((series / 2).max(5)), "{} has {}", service, held);
            }
            prop_assert_eq!(core.groups.iter().map(|(key, _)| key).filter(|k| k.entity.service == "learnt").count(), 5);
        }
    }

    #[test]
    fn a_restart_in_the_middle_evicts_the_same(minutes in stream(), at in 0usize..50) {
        let config = config(60, 25);
        let (mut through, mut first) = (core(&config), core(&config));
        let play = |core: &mut Core, minute: usize, crowd: &[(u8, u16)]| {
            let one = |(service, value): &(u8, u16)| {
                item(&entity(&format!("s{service}"), &[("v", &(value / (1 + minute as u16 % 7)).to_string())]), "m", minute as u64, 1.0)
            };
            let outcome = feed(core, minute as u64, crowd.iter().map(one).collect());
            (outcome.dropped, outcome.added, outcome.events.get("series_evicted").copied())
        };
        for (minute, crowd) in minutes.iter().enumerate() {
            if minute == at {
                first = restarted(&mut first);
            }
            prop_assert_eq!(play(&mut through, minute, crowd), play(&mut first, minute, crowd));
        }
        prop_assert_eq!(saved(&mut through), saved(&mut first));
    }
}
