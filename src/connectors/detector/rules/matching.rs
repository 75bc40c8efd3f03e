//! Which series something is about.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::bucket::Function;
use super::super::key::Key;
use crate::model::Entity;

/// Which series it is about. `*` stands for any text; a key that is left out matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The series as a whole, as anomalies and `anomalyd series` show it: `checkout POST /pay (server): span p99`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// The service: `checkout`, `payment-*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The instance of the service that reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The operation: a span name such as `GET /health*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// The metric: `span`, `log.records`, or the name of a metric.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// What of it: `rate`, `error_share`, `p50`, `p95`, `p99`, `mean`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Attributes that tell the series apart, each with its value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

impl Match {
    /// Whether a series is meant.
    pub(super) fn matches(&self, key: &Key, function: Function) -> bool {
        self.means(&key.entity, &key.metric, function.as_str())
    }

    /// Whether this function of this metric of this entity is meant.
    pub(super) fn means(&self, entity: &Entity, metric: &str, function: &str) -> bool {
        let is = |pattern: &Option<String>, text: Option<&str>| match pattern {
            None => true,
            Some(pattern) => text.is_some_and(|text| glob(pattern, text)),
        };
        is(&self.service, Some(&entity.service))
            && is(&self.instance, entity.instance.as_deref())
            && is(&self.operation, entity.operation.as_deref())
            && is(&self.metric, Some(metric))
            && is(&self.function, Some(function))
            && (self.series.is_none() || is(&self.series, Some(&named(entity, metric, function))))
            && self
                .attributes
                .iter()
                .all(|(name, pattern)| entity.attributes.iter().any(|(known, value)| known == name && glob(pattern, value)))
    }

    /// In words: `service checkout, operation GET /*`.
    pub(super) fn words(&self) -> String {
        let named = [
            ("series", &self.series),
            ("service", &self.service),
            ("instance", &self.instance),
            ("operation", &self.operation),
            ("metric", &self.metric),
            ("function", &self.function),
        ];
        let mut words: Vec<String> =
            named.into_iter().filter_map(|(name, pattern)| Some(format!("{name} {}", pattern.as_ref()?))).collect();
        words.extend(self.attributes.iter().map(|(name, pattern)| format!("{name}={pattern}")));
        if words.is_empty() { "everything".to_owned() } else { words.join(", ") }
    }
}

/// The series in words, as anomalies name it.
pub(super) fn series(key: &Key, function: Function) -> String {
    named(&key.entity, &key.metric, function.as_str())
}

fn named(entity: &Entity, metric: &str, function: &str) -> String {
    format!("{}: {metric} {function}", entity.key())
}

/// Whether `text` is like `pattern`, in which `*` stands for any text.
pub(super) fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let Some((middle, tail)) = rest.rsplit_once('*') else { return text.ends_with(rest) };
    // The first place that fits is as good as any, as something may follow everywhere.
    for part in middle.split('*') {
        let Some(at) = text.find(part) else { return false };
        text = text.get(at + part.len()..).unwrap_or("");
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::bucket::Kind;
    use super::*;
    use crate::model::Signal;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("checkout", "checkout", true),
            ("checkout", "checkout2", false),
            ("*", "", true),
            ("", "x", false),
            ("check*", "checkout", true),
            ("*out", "checkout", true),
            ("c*o*t", "checkout", true),
            ("GET /*/items", "GET /v1/items", true),
            ("a*a", "a", false),
            ("a**b", "ab", true),
            ("*bc*bc", "abc", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "`{pattern}` and `{text}`");
        }
    }

    #[test]
    fn what_is_left_out_matches_everything_and_what_is_not_there_matches_nothing() {
        let entity = Entity {
            operation: Some("POST /pay".into()),
            attributes: vec![("region".into(), "eu-1".into())],
            ..Entity::service("checkout")
        };
        let key =
            Key { entity: entity.into(), metric: "span".into(), kind: Kind::Calls, unit: "s".into(), signal: Signal::Traces };
        let is = |text: &str| serde_json::from_str::<Match>(text).unwrap().matches(&key, Function::P99);
        assert!(is("{}"));
        assert!(is(r#"{"service": "check*", "operation": "POST *", "function": "p9*", "attributes": {"region": "eu-*"}}"#));
        assert!(!is(r#"{"instance": "*"}"#), "it has no instance");
        assert!(!is(r#"{"attributes": {"zone": "*"}}"#));
        assert!(!is(r#"{"metric": "log.records"}"#));
        assert!(is(r#"{"series": "checkout POST /pay {region=eu-1}: span p99"}"#));
    }

    proptest! {
        #[test]
        fn a_pattern_that_is_made_of_a_text_matches_it(text in "[ab*]{0,12}", cuts in prop::collection::vec((0usize..13, 0usize..13), 0..4)) {
            let mut pattern: Vec<char> = text.chars().collect();
            for (from, to) in cuts {
                let (from, to) = (from.min(pattern.len()), to.min(pattern.len()));
                if from <= to {
                    pattern.splice(from..to, ['*']);
                }
            }
            let pattern: String = pattern.into_iter().collect();
            prop_assert!(glob(&pattern, &text), "`{}` and `{}`", pattern, text);
        }

        #[test]
        fn globs_agree_with_regular_expressions(pattern in "[ab*]{0,8}", text in "[ab]{0,8}") {
            let parts: Vec<String> = pattern.split('*').map(regex::escape).collect();
            let expression = regex::Regex::new(&format!("^{}$", parts.join(".*"))).unwrap();
            prop_assert_eq!(glob(&pattern, &text), expression.is_match(&text));
        }
    }
}
