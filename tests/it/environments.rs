//! Two environments on two clusters at once: a fault in one never shows in the other.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::Setup;
use crate::support::documents::apm;
use crate::support::elasticsearch::{Elasticsearch, NEW, OLD, elasticsearch};
use crate::support::history::{History, SLOW};
use crate::support::{eventually, needs, pipelines, unique};

/// The anomalies of one environment in a cluster, of whatever data stream.
async fn with(field: &str, elasticsearch: &Elasticsearch, environment: &str) -> Vec<Value> {
    let index = format!("logs-anomaly.*-{environment}");
    elasticsearch.search(&index, json!({ "exists": { "field": field } })).await
}

async fn anomalies(elasticsearch: &Elasticsearch, environment: &str) -> Vec<Value> {
    with("anomaly.id", elasticsearch, environment).await
}

#[tokio::test]
async fn a_fault_in_one_environment_never_shows_in_the_other() {
    let (production, staging) = (needs!(elasticsearch(NEW)), needs!(elasticsearch(OLD)));
    let (faulty, healthy) = (unique("production"), unique("staging"));
    // The same service in both, at the same time, with the same calls but for the fault.
    let calm = History::of_hours("checkout", 7);
    let broken = calm.clone().with_fault();
    let documents = calm.buckets * calm.calls_per_bucket * 2;
    let mut setup = Setup::new();
    for (elasticsearch, environment, history) in [(&production, &faulty, &broken), (&staging, &healthy, &calm)] {
        let stream = format!("traces-apm-{environment}");
        elasticsearch.data_stream(&stream).await;
        elasticsearch.index(&stream, history.calls().map(|call| apm(&call, environment))).await;
        // Read from the cluster, and reported to the same cluster.
        let exporter = format!("  elasticsearch:\n{}", elasticsearch.yaml(4));
        let receiver = elasticsearch.receiver(&stream);
        setup.environment(environment, &pipelines::traces("elasticsearch", &receiver, "elasticsearch", &exporter));
    }
    let mut daemon = setup.start().await;
    for environment in [&faulty, &healthy] {
        let receiver = [("environment", environment.as_str()), ("class", "receiver")];
        let all = format!("all documents of {environment} to be read");
        daemon.metrics_when(&all, Duration::from_secs(180), |m| m.received(&receiver) == documents).await;
    }
    let found = eventually("anomalies in the cluster of the faulty environment", Duration::from_secs(180), async || {
        let found = anomalies(&production, &faulty).await;
        if found.is_empty() { Err(daemon.said()) } else { Ok(found) }
    })
    .await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());

    let incidents = with("incident.id", &production, &faulty).await;
    let event = |incident: &Value| incident["event"]["action"].as_str().unwrap_or_default().to_owned();
    assert_eq!(incidents.iter().filter(|i| event(i) == "incident-opened").count(), 1, "one fault, one alert: {incidents:#?}");
    let ids: std::collections::BTreeSet<_> = incidents.iter().map(|i| i["incident"]["id"].to_string()).collect();
    assert!(found.iter().all(|a| ids.contains(&a["anomaly"]["incident"]["id"].to_string())), "anomalies name it");

    let begin = broken.fault().rfc3339();
    for anomaly in &found {
        assert_eq!(anomaly["transaction"]["name"], json!(SLOW), "only what was broken is reported: {anomaly:#}");
        assert!(
            anomaly["event"]["start"].as_str().is_some_and(|start| start >= begin.as_str()),
            "not before the fault: {anomaly:#}"
        );
        assert_eq!(anomaly["data_stream"], json!({ "type": "logs", "dataset": "anomaly.record", "namespace": faulty }));
        assert_eq!(anomaly["service"], json!({ "name": "checkout", "environment": faulty }));
        assert_eq!(anomaly["event"]["kind"], json!("event"), "people are alerted on incidents");
        assert!(anomaly["anomaly"]["past"]["text"].is_string(), "it says how rare it is: {anomaly:#}");
        assert_eq!((&anomaly["anomaly"]["signal"], &anomaly["anomaly"]["direction"]), (&json!("traces"), &json!("spike")));
        let number = |name: &str| anomaly["anomaly"][name].as_f64().unwrap_or_else(|| panic!("{name}: {anomaly:#}"));
        assert!(number("score") > 0.0 && number("score") <= 100.0, "{anomaly:#}");
        assert!(number("actual") > number("upper") && number("upper") >= number("typical"), "{anomaly:#}");
        assert!(number("typical") >= number("lower"), "{anomaly:#}");
        // Twelve times 80 ms.
        assert!((0.8..1.1).contains(&number("actual")) && number("typical") < 0.1, "{anomaly:#}");
        assert!(anomaly["event"]["reason"].as_str().is_some_and(|reason| reason.len() > 20), "{anomaly:#}");
    }
    // Nothing anywhere about the environment that is well, and nothing of the broken one in the other's cluster.
    for (cluster, environment) in [(&staging, &healthy), (&production, &healthy), (&staging, &faulty)] {
        assert_eq!(anomalies(cluster, environment).await, Vec::<Value>::new());
    }
}
