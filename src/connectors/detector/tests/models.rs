//! Detectors with other models than the default one: found faults, training beside the shards, restarts.

use serde_json::json;

use super::super::model::ModelConfig;
use super::connector::{Disk, payloads, run_with};
use super::*;
use crate::config::ModelType;

const NOW: u64 = BEGIN + 400 * 86_400;

fn with(kind: ModelType) -> Config {
    let retrain_interval = Duration::from_secs(3 * 3600);
    Config { model: ModelConfig { kind, training_samples: 200, retrain_interval, ..ModelConfig::default() }, ..config() }
}

fn written(kind: &str, shards: u64) -> serde_json::Value {
    json!({
        "shards": shards, "warmup": 240, "threshold": 1.5,
        "model": { "type": kind, "training_samples": 200, "retrain_interval": "3h" },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_model_finds_the_fault_and_signs_for_it() {
    for (kind, name, version) in [
        (ModelType::IsolationForest, "isolation_forest", "2.2"),
        (ModelType::ExtendedIsolationForest, "extended_isolation_forest", "2.2"),
        (ModelType::SeasonalBand, "seasonal_band", "2"),
    ] {
        let mut bench = Bench::new(&with(kind), 1, NOW);
        bench.play(&minutes(0, LONG, FAULT));
        let ran = run_with(written(name, 2), &Arc::default(), NOW, payloads(0, LONG)).await;
        assert_eq!(ran.plain(), bench.found(), "{name}: with threads and a training stage as without");
        let found = ran.anomalies.iter().filter(|a| a.entity.service == "checkout" && a.metric == "span").count();
        assert!(found > 0 && found == ran.anomalies.len(), "{name}: {:?}", ran.anomalies);
        assert!(ran.anomalies.iter().all(|a| a.window.start.secs() >= BEGIN + FAULT * MINUTE));
        for anomaly in &ran.anomalies {
            assert_eq!((anomaly.detector.kind.as_str(), anomaly.detector.version.as_str()), (name, version));
            assert!(anomaly.observed > anomaly.upper || anomaly.observed < anomaly.lower, "{anomaly:?}");
            assert!(!anomaly.reasons.is_empty());
        }
        let trained = ran.events.get("models_trained").copied().unwrap_or(0);
        assert_eq!(trained > 0, kind != ModelType::SeasonalBand, "{name}: {trained}");
        assert_eq!(ran.events.get("models_failed"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forests_and_their_versions_survive_a_restart_into_other_shards() {
    let disk = Arc::new(Disk::default());
    let whole = run_with(written("isolation_forest", 1), &Arc::default(), NOW, payloads(0, LONG)).await;
    // The first stop is while the first forests are being trained.
    run_with(written("isolation_forest", 2), &disk, NOW, payloads(0, 204)).await;
    run_with(written("isolation_forest", 3), &disk, NOW, payloads(204, FAULT)).await;
    let rest = run_with(written("isolation_forest", 1), &disk, NOW, payloads(FAULT, LONG)).await;
    assert!(!rest.anomalies.is_empty());
    assert_eq!(rest.anomalies, whole.anomalies);
}

#[test]
fn a_restart_at_any_moment_of_training_changes_nothing() {
    let config = with(ModelType::ExtendedIsolationForest);
    let all = minutes(0, 260, FAULT);
    let mut through = Bench::new(&config, 2, NOW);
    through.play(&all);
    for minute in [150, 199, 200, 201, 205, 210, 211, 240] {
        let (before, after): (Vec<_>, Vec<_>) = all.iter().cloned().partition(|o| o.time.secs() < BEGIN + minute * MINUTE);
        let mut first = Bench::new(&config, 2, NOW);
        first.play(&before);
        let mut second = first.reloaded(&config, 3);
        second.play(&after);
        assert_eq!(second.found(), through.found());
        assert_eq!(second.state(), through.state(), "stopped at minute {minute}");
    }
}

#[test]
fn another_model_after_a_restart_begins_anew() {
    let mut first = Bench::new(&config(), 1, NOW);
    first.play(&minutes(0, 300, FAULT));
    let config = with(ModelType::SeasonalBand);
    let mut second = first.reloaded(&config, 1);
    second.play(&minutes(300, LONG, FAULT));
    let series = second.found().into_iter().filter(|a| a.detector.kind != "entity").count();
    assert_eq!(series, 0, "212 values are fewer than the 240 of its warm-up; the entity remembers its days");
}

#[test]
fn what_is_wrong_with_a_model_is_told() {
    let told = |block: serde_json::Value| -> String {
        let problems = super::super::config::check(&json!({ "model": block.clone() }));
        let lines = problems.iter().map(|p| {
            let hint = p.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("  {} {}: {}{hint}", if p.fatal { "error" } else { "note" }, p.path.join("."), p.message)
        });
        format!("{block}\n{}\n", lines.collect::<Vec<_>>().join("\n"))
    };
    let report: String = [
        json!({ "training_samples": 10, "trees": 0, "subsample": 1, "retrain_interval": "5s" }),
        json!({ "contamination": 0.05 }),
        json!({ "contamination": 0.0005 }),
        json!({ "type": "isolation_forest" }),
        json!({ "type": "isolation_forest", "training_samples": 100, "trees": 5 }),
        json!({ "type": "seasonal_band" }),
    ]
    .into_iter()
    .map(told)
    .collect();
    insta::assert_snapshot!(report);
}
