//! What is different between two plans of an environment, in the words of their files.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::Plan;

/// Keys that are told by name; of more only the number is told.
const TOLD: usize = 8;

/// The keys in which two configurations differ: `connectors.detector.threshold`. Never a value: it may be secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Another value.
    pub changed: Vec<String>,
    /// Components and pipelines that were not there.
    pub added: Vec<String>,
    /// Components and pipelines that are not there any more.
    pub removed: Vec<String>,
}

impl Difference {
    /// Between the plans of one environment, before and after.
    #[must_use]
    pub fn of(before: &Plan, after: &Plan) -> Self {
        let mut difference = Self::default();
        if before.spec.default != after.spec.default {
            difference.changed.push("default".to_owned());
        }
        let key = |used: &super::Used| format!("{}.{}", used.factory.class().block(), used.id);
        let find = |plan: &Plan, name: &str| plan.used.iter().find(|u| key(u) == name).map(|u| u.config.clone());
        let components: BTreeSet<String> = before.used.iter().chain(&after.used).map(key).collect();
        for name in components {
            difference.add(&name, find(before, &name), find(after, &name));
        }
        let find = |plan: &Plan, name: &str| plan.spec.pipelines.get(name).and_then(|p| serde_json::to_value(p).ok());
        let pipelines: BTreeSet<&String> = before.spec.pipelines.keys().chain(after.spec.pipelines.keys()).collect();
        for name in pipelines {
            difference.add(&format!("service.pipelines.{name}"), find(before, name), find(after, name));
        }
        difference
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.added.is_empty() && self.removed.is_empty()
    }

    fn add(&mut self, name: &str, before: Option<Value>, after: Option<Value>) {
        match (before, after) {
            (Some(before), Some(after)) => self.changed.extend(changed_keys(name, &before, &after)),
            (None, Some(_)) => self.added.push(name.to_owned()),
            (Some(_), None) => self.removed.push(name.to_owned()),
            (None, None) => {}
        }
    }
}

/// `receivers.otlp.wait, default changed; exporters.console added`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(&self.changed, "changed"), (&self.added, "added"), (&self.removed, "removed")];
        for (i, (keys, what)) in parts.into_iter().filter(|(keys, _)| !keys.is_empty()).enumerate() {
            let named: Vec<&str> = keys.iter().take(TOLD).map(String::as_str).collect();
            let more = keys.len().saturating_sub(TOLD);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            write!(f, "{}{}{more} {what}", if i > 0 { "; " } else { "" }, named.join(", "))?;
        }
        Ok(())
    }
}

/// The keys below `name` whose values differ, as deep as both sides are objects.
#[must_use]
pub fn changed_keys(name: &str, before: &Value, after: &Value) -> Vec<String> {
    if before == after {
        return Vec::new();
    }
    let (Value::Object(old), Value::Object(new)) = (before, after) else { return vec![name.to_owned()] };
    let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let below = |key: &String| if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
    let absent = Value::Null;
    keys.into_iter()
        .flat_map(|key| match (old.get(key), new.get(key)) {
            (Some(before), Some(after)) => changed_keys(&below(key), before, after),
            // A block that was not written is compared with an empty one, so that its keys are named.
            (before, after) => {
                let (before, after) = (before.unwrap_or(&absent), after.unwrap_or(&absent));
                let empty = Value::Object(serde_json::Map::new());
                let filled = |v: &Value| if v.is_null() { empty.clone() } else { v.clone() };
                let keys = changed_keys(&below(key), &filled(before), &filled(after));
                if keys.is_empty() { vec![below(key)] } else { keys }
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;
    use serde_json::json;

    use super::super::test_components::FACTORIES;
    use super::super::{ComponentId, EnvironmentSpec, PipelineSpec, plan};
    use super::*;
    use crate::model::Environment;

    fn id(text: &str) -> ComponentId {
        ComponentId::parse(text).unwrap()
    }

    fn planned(source: Value, sinks: &[(&str, Value)], default: bool) -> Plan {
        let spec = EnvironmentSpec {
            environment: Environment::new("staging"),
            default,
            receivers: IndexMap::from([(id("source"), source)]),
            processors: IndexMap::new(),
            connectors: IndexMap::new(),
            exporters: sinks.iter().map(|(name, config)| (id(name), config.clone())).collect(),
            pipelines: IndexMap::from([(
                "traces".to_owned(),
                PipelineSpec {
                    receivers: vec![id("source")],
                    processors: Vec::new(),
                    exporters: sinks.iter().map(|(name, _)| id(name)).collect(),
                },
            )]),
        };
        plan(&spec, FACTORIES).unwrap()
    }

    fn told(before: &Plan, after: &Plan) -> String {
        Difference::of(before, after).to_string()
    }

    #[test]
    fn equal_plans_have_none() {
        let one = || planned(json!({ "wait": "1s" }), &[("sink", json!({}))], false);
        assert!(Difference::of(&one(), &one()).is_empty());
        assert_eq!(told(&one(), &one()), "");
    }

    #[test]
    fn it_is_told_in_keys_and_never_in_values() {
        let before = planned(
            json!({ "protocols": { "grpc": { "endpoint": "a:1" } }, "tokens": ["old secret"], "wait": "1s" }),
            &[("sink", json!({})), ("sink/old", json!({}))],
            false,
        );
        let after = planned(
            json!({ "protocols": { "grpc": { "endpoint": "a:2" }, "http": { "endpoint": "a:3" } }, "tokens": ["new secret"], "wait": "1s" }),
            &[("sink", json!({ "format": "json" })), ("sink/new", json!({}))],
            true,
        );
        insta::assert_snapshot!(told(&before, &after), @"default, exporters.sink.format, receivers.source.protocols.grpc.endpoint, receivers.source.protocols.http.endpoint, receivers.source.tokens, service.pipelines.traces.exporters changed; exporters.sink/new added; exporters.sink/old removed");
    }

    #[test]
    fn a_file_with_other_content_is_a_difference() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            planned(json!({ "ca_file": path }), &[("sink", json!({}))], false)
        };
        let before = read("old");
        assert_eq!(told(&before, &read("old")), "");
        assert_eq!(told(&before, &read("new")), "receivers.source.ca_file.text changed");
    }

    #[test]
    fn of_very_many_keys_only_some_are_named() {
        let many = |value: u32| (0..20).map(|i| (format!("key{i:02}"), json!(value))).collect::<serde_json::Map<_, _>>();
        let before = planned(Value::Object(many(1)), &[("sink", json!({}))], false);
        let after = planned(Value::Object(many(2)), &[("sink", json!({}))], false);
        assert!(told(&before, &after).ends_with("receivers.source.key07 and 12 more changed"), "{}", told(&before, &after));
    }
}
