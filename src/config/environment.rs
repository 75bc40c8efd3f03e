//! A pipeline file becomes the engine's [`EnvironmentSpec`].

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::schema::CLASSES;
use super::tree::{Node, Value};
use crate::model::Environment;
use crate::pipeline::{Class, ComponentId, EnvironmentSpec, PipelineSpec};

/// What can be understood of `file`. Whatever it leaves out was told by the check of the file, so that the graph
/// of a file with a misspelt key somewhere is looked at all the same.
pub(super) fn spec(file: &Node) -> EnvironmentSpec {
    let declared = |class: Class| -> IndexMap<ComponentId, Json> {
        let block = file.get(class.block()).map(Node::entries).unwrap_or_default();
        block.iter().filter_map(|e| Some((ComponentId::parse(&e.key).ok()?, configuration(&e.value)))).collect()
    };
    let pipelines = file.get("service").and_then(|s| s.get("pipelines")).map(Node::entries).unwrap_or_default();
    let [receivers, processors, connectors, exporters] = CLASSES.map(declared);
    EnvironmentSpec {
        environment: Environment::new(file.get("environment").and_then(Node::text).unwrap_or_default()),
        default: matches!(file.get("default").map(|d| &d.value), Some(Value::Bool(true))),
        receivers,
        processors,
        connectors,
        exporters,
        pipelines: pipelines.iter().map(|e| (e.key.clone(), pipeline(&e.value))).collect(),
    }
}

fn configuration(node: &Node) -> Json {
    match node.to_json() {
        Json::Null => Json::Object(serde_json::Map::new()),
        other => other,
    }
}

fn pipeline(node: &Node) -> PipelineSpec {
    let ids = |list: &str| {
        let items = node.get(list).map(Node::items).unwrap_or_default();
        items.iter().filter_map(|item| ComponentId::parse(item.text()?).ok()).collect()
    };
    PipelineSpec { receivers: ids("receivers"), processors: ids("processors"), exporters: ids("exporters") }
}
