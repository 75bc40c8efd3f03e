//! What components take over from the daemon file.
//!
//! A property of a component's schema with `x-inherits` names, per key of its own, the value of the daemon file that
//! stands in where that key is left out: `{ "type": "ai_service.model_type" }`.

use serde_json::{Map, Value as Json};

/// Fills in what `config`, of a component with this schema, takes over from `daemon`. Whether there was something.
pub(super) fn fill(config: &mut Json, schema: &Json, root: &Json, daemon: &Json) -> bool {
    let mut filled = false;
    for (property, schema) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
        let Some(inherits) = inherits(schema, root) else { continue };
        for (key, from) in inherits {
            let path = from.as_str().unwrap_or_default().split('.');
            let Some(value) = path.into_iter().try_fold(daemon, |at, step| at.get(step)).filter(|value| !value.is_null()) else {
                continue;
            };
            let Some(block) = object(config).map(|all| all.entry(property.clone()).or_insert(Json::Null)).and_then(object) else {
                continue;
            };
            if !block.contains_key(key) {
                block.insert(key.clone(), value.clone());
                filled = true;
            }
        }
    }
    filled
}

/// Where in the daemon file the value at `path` of a component with this schema would come from.
pub(super) fn source(path: &[String], schema: &Json, root: &Json) -> Option<Vec<String>> {
    let [property, key] = path else { return None };
    let from = inherits(schema.get("properties")?.get(property)?, root)?.get(key)?.as_str()?;
    Some(from.split('.').map(str::to_owned).collect())
}

/// What a property says that it takes over, itself or where it refers to.
fn inherits<'a>(schema: &'a Json, root: &'a Json) -> Option<&'a Map<String, Json>> {
    let referred = schema.get("$ref").and_then(Json::as_str).and_then(|path| root.pointer(path.trim_start_matches('#')));
    [Some(schema), referred].into_iter().flatten().find_map(|schema| schema.get("x-inherits")?.as_object())
}

/// A section; one that is named and left empty becomes one.
fn object(value: &mut Json) -> Option<&mut Map<String, Json>> {
    if value.is_null() {
        *value = Json::Object(Map::new());
    }
    value.as_object_mut()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(mut config: Json, daemon: &Json) -> Json {
        let root = json!({ "$defs": { "Model": { "x-inherits": { "type": "ai.kind", "samples": "ai.samples" } } } });
        let schema = json!({ "properties": { "model": { "$ref": "#/$defs/Model" }, "bucket": {} } });
        fill(&mut config, &schema, &root, daemon);
        config
    }

    #[test]
    fn what_is_left_out_is_taken_from_the_daemon_file_and_what_is_written_stays() {
        let daemon = json!({ "ai": { "kind": "forest", "samples": 500 } });
        assert_eq!(filled(Json::Null, &daemon), json!({ "model": { "type": "forest", "samples": 500 } }));
        assert_eq!(filled(json!({ "model": null }), &daemon), json!({ "model": { "type": "forest", "samples": 500 } }));
        let own = json!({ "bucket": "1m", "model": { "type": "band" } });
        assert_eq!(filled(own, &daemon), json!({ "bucket": "1m", "model": { "type": "band", "samples": 500 } }));
    }

    #[test]
    fn without_the_block_nothing_is_filled_in() {
        for daemon in [json!({}), json!({ "ai": null }), json!({ "ai": { "kind": null } })] {
            assert_eq!(filled(json!({ "bucket": "1m" }), &daemon), json!({ "bucket": "1m" }));
        }
    }
}
