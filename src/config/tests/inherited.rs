//! What detectors take over from the daemon file, with the component types that exist.

use super::{DAEMON, PIPELINE, files};
use crate::components::FACTORIES;
use crate::config::{Loaded, load_from};
use crate::pipeline::{Class, ComponentId};

fn loaded(daemon: &str, pipeline: &str) -> Loaded {
    let variables = |_: &str| Some("value".to_owned());
    let loaded = load_from(&files(daemon, pipeline), std::path::Path::new("daemon.yml"), &variables, FACTORIES);
    loaded.unwrap_or_else(|report| panic!("{report}"))
}

/// The configuration of `id` in the only environment.
fn config(loaded: &Loaded, class: Class, id: &str) -> serde_json::Value {
    loaded.plans[0].find(class, &ComponentId::parse(id).unwrap()).unwrap().config.clone()
}

#[test]
fn the_daemon_file_holds_the_defaults_of_every_detector() {
    let block = "ai_service: { model_type: isolation_forest, contamination: 0.0005, retrain_interval: 12h }\n";
    let used = |connectors: &str| {
        let loaded = loaded(&format!("{DAEMON}{block}"), &format!("{PIPELINE}{connectors}"));
        config(&loaded, Class::Connector, "detector")
    };
    let inherited = r#"{"contamination":0.0005,"retrain_interval":"12h","type":"isolation_forest"}"#;
    assert_eq!(sorted(&used("")["model"]), inherited, "also where the detector is not declared");
    assert_eq!(sorted(&used("connectors:\n  detector:\n")["model"]), inherited);
    let own = used("connectors:\n  detector: { bucket: 5m, model: { type: seasonal_band } }\n");
    assert_eq!(own["bucket"], "5m");
    assert_eq!(sorted(&own["model"]), inherited.replace("isolation_forest", "seasonal_band"));
    let plain = config(&loaded(DAEMON, PIPELINE), Class::Connector, "detector");
    assert_eq!(plain.get("model"), None, "without the block nothing is filled in");
}

/// With its keys in order.
fn sorted(value: &serde_json::Value) -> String {
    let keys: std::collections::BTreeMap<_, _> = value.as_object().unwrap().iter().collect();
    serde_json::to_string(&keys).unwrap()
}

#[test]
fn a_contamination_that_would_call_often_is_told_at_the_block_it_comes_from() {
    let block = "ai_service: { contamination: 0.05 }\n";
    let all = loaded(&format!("{DAEMON}{block}"), PIPELINE).notes;
    let own = loaded(DAEMON, &format!("{PIPELINE}connectors:\n  detector: {{ model: {{ contamination: 0.05 }} }}\n")).notes;
    insta::assert_snapshot!(all.iter().chain(&own).map(ToString::to_string).collect::<Vec<_>>().join("\n"));
}
