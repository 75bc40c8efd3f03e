//! The files that the repository ships, with the component types that exist.

use std::path::Path;

use crate::components::FACTORIES;
use crate::config::{Loaded, load};

fn example(name: &str) -> Loaded {
    let variables = |name: &str| match name {
        "STAGING_ES_API_KEY" | "STAGING_ES_WRITE_KEY" | "PROD_ES_API_KEY" | "PROD_ES_WRITE_KEY" => Some("id:key".to_owned()),
        "STAGING_SLACK_WEBHOOK" | "SLACK_WEBHOOK" => Some("https://hooks.slack.com/services/T0/B0/x".to_owned()),
        "PAGERDUTY_ROUTING_KEY" => Some("0123456789abcdef0123456789abcdef".to_owned()),
        _ => None,
    };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    load(&path, &variables, FACTORIES).unwrap_or_else(|report| panic!("{report}"))
}

fn environments(loaded: &Loaded) -> Vec<&str> {
    loaded.plans.iter().map(|p| p.spec.environment.as_str()).collect()
}

#[test]
fn the_development_example_is_valid() {
    assert_eq!(environments(&example("development.yml")), ["development"]);
}

#[test]
fn the_staging_example_is_valid() {
    assert_eq!(environments(&example("staging.yml")), ["staging"]);
}

#[test]
fn the_production_example_is_valid_and_says_what_has_no_effect_yet() {
    let loaded = example("production.yml");
    assert_eq!(environments(&loaded), ["production", "staging"]);
    for block in ["redis", "alerts", "data_collection", "security", "audit"] {
        assert!(loaded.notes.iter().any(|note| note.message.contains(&format!("`{block}`"))), "nothing is said about {block}");
    }
}
