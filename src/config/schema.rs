//! The JSON Schemas of both kinds of files, made of the structs: for editors, for the check and for the docs.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::daemon::Daemon;
use super::format;
use crate::pipeline::{Class, Factory};

/// What patterns of component ids and of pipeline ids end with: a type alone or `type/name`.
pub(super) const NAMED: &str = "(/.+)?$";

/// In the order of the file.
pub(super) const CLASSES: [Class; 4] = [Class::Receiver, Class::Processor, Class::Connector, Class::Exporter];

/// What pipelines may carry.
pub(super) const PIPELINES: [&str; 4] = ["traces", "metrics", "logs", "anomalies"];

/// The schema of a daemon file (JSON Schema draft 2020-12).
#[must_use]
pub fn daemon() -> Json {
    let mut schema = generator().into_root_schema_for::<Daemon>().to_value();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("title".to_owned(), json!("anomalyd daemon file"));
    }
    schema
}

/// The schema of a pipeline file that may use `factories` (JSON Schema draft 2020-12).
#[must_use]
pub fn pipeline(factories: &[Factory]) -> Json {
    let mut generator = generator();
    let mut blocks = Map::new();
    let mut components = Map::new();
    for class in CLASSES {
        let mut patterns = Map::new();
        for factory in factories.iter().filter(|f| f.class() == class) {
            let name = format!("{}.{}", class.as_str(), factory.kind);
            patterns.insert(format!("^{}{NAMED}", regex::escape(factory.kind)), json!({ "$ref": format!("#/$defs/{name}") }));
            components.insert(name, component(factory, &mut generator));
        }
        let block = json!({
            "type": ["object", "null"],
            "description": about_block(class),
            "patternProperties": patterns,
            "additionalProperties": false,
            "x-keys": format!("{} type", class.as_str()),
        });
        blocks.insert(class.block().to_owned(), block);
    }
    let mut definitions = generator.take_definitions(true);
    definitions.extend(components);
    let ids = |description: &str| json!({ "type": "array", "items": { "type": "string", "format": format::COMPONENT }, "uniqueItems": true, "description": description });
    let pipeline = json!({
        "type": "object",
        "description": "One pipeline.",
        "properties": {
            "receivers": ids("Where it begins: receivers, or connectors that end another pipeline."),
            "processors": ids("What the data goes through, in this order."),
            "exporters": ids("Where it ends: exporters, or connectors that begin another pipeline."),
        },
        "required": ["receivers", "exporters"],
        "additionalProperties": false,
    });
    definitions.insert("pipeline".to_owned(), pipeline);
    let pipelines: Map<String, Json> =
        PIPELINES.iter().map(|kind| (format!("^{kind}{NAMED}"), json!({ "$ref": "#/$defs/pipeline" }))).collect();
    let mut properties = Map::new();
    properties.insert(
        "environment".to_owned(),
        json!({
            "type": "string",
            "format": format::ENVIRONMENT,
            "pattern": "^[a-z0-9][a-z0-9_.]{0,63}$",
            "description": "Whose pipelines these are: lower case letters, digits, `_` and `.`.\n\nNothing that is learnt or seen in one environment is ever used in another. The name must be unique over all pipeline files of a daemon.",
            "examples": ["production"],
        }),
    );
    properties.insert(
        "default".to_owned(),
        json!({
            "type": "boolean",
            "default": false,
            "description": "Whether this environment takes what arrives at a shared listener and says no environment.\n\nAt most one environment of a daemon may.",
        }),
    );
    properties.extend(blocks);
    properties.insert(
        "service".to_owned(),
        json!({
            "type": "object",
            "description": "What is run.",
            "properties": { "pipelines": {
                "type": "object",
                "description": "The pipelines by id: `traces`, `metrics`, `logs` or `anomalies`, and a name where there are several of a kind (`logs/audit`).",
                "patternProperties": pipelines,
                "additionalProperties": false,
                "minProperties": 1,
                "x-keys": "pipeline type",
            } },
            "required": ["pipelines"],
            "additionalProperties": false,
        }),
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "anomalyd pipeline file",
        "description": "One environment: where its telemetry comes from, what happens to it, where its anomalies go.",
        "type": "object",
        "properties": properties,
        "required": ["environment", "service"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// The schema of one component. Left empty, it has its defaults.
fn component(factory: &Factory, generator: &mut SchemaGenerator) -> Json {
    let schema = (factory.schema)(generator).to_value();
    // A reference is followed once, so that all components look alike to editors and to the documentation.
    let name = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/$defs/")).map(str::to_owned);
    let mut schema = match name.and_then(|name| generator.definitions().get(&name).cloned()) {
        Some(definition) => definition,
        None => schema,
    };
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.insert("title".to_owned(), json!(format!("{} {}", factory.kind, factory.class().as_str())));
        object.insert("description".to_owned(), json!(factory.about));
        if object.get("type") == Some(&json!("object")) {
            object.insert("type".to_owned(), json!(["object", "null"]));
            object.insert("x-null-is-empty".to_owned(), json!(true));
        }
    }
    schema
}

const fn about_block(class: Class) -> &'static str {
    match class {
        Class::Receiver => "Where telemetry comes in, by component id: `type`, or `type/name` where there are several of a type.",
        Class::Processor => "What changes or measures it, by component id.",
        Class::Connector => "What ends one pipeline and begins another, by component id.",
        Class::Exporter => "Where anomalies go, by component id.",
    }
}

fn generator() -> SchemaGenerator {
    SchemaSettings::draft2020_12().into_generator()
}
