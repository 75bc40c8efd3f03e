//! `docs/configuration.md`, written from the schemas.

use std::fmt::Write as _;

use serde_json::{Map, Value as Json};

use super::check::{Check, choices, is_secret, types};
use super::scalars;
use super::{format, schema};
use crate::pipeline::{Class, Factory};

/// How deep sections are followed; deeper ones are named but not described.
const DEEPEST: usize = 8;

/// The reference of every key of both kinds of files, as Markdown.
#[must_use]
pub fn markdown(factories: &[Factory]) -> String {
    let mut page = INTRODUCTION.to_owned();
    let daemon = schema::daemon();
    section(&mut page, "## The daemon file", "", None);
    table(&mut page, &Check::new(&daemon), &daemon);
    page.push_str(NOT_YET);
    let pipeline = schema::pipeline(factories);
    let check = Check::new(&pipeline);
    section(&mut page, "## The pipeline file", "", None);
    table(&mut page, &check, &pipeline);
    for class in schema::CLASSES {
        let title = format!(
            "## {}{}",
            class.block().get(..1).unwrap_or_default().to_uppercase(),
            class.block().get(1..).unwrap_or_default()
        );
        section(&mut page, &title, about(class), None);
        for factory in factories.iter().filter(|f| f.class() == class) {
            section(&mut page, &format!("### `{}`", factory.kind), factory.about, Some(factory));
            let name = format!("{}.{}", class.as_str(), factory.kind);
            if let Some(component) = pipeline.pointer(&format!("/$defs/{name}")) {
                table(&mut page, &check, component);
            }
        }
    }
    page
}

const INTRODUCTION: &str = "\
<!-- Written by `anomalyd docs` from the program's own structs; a test tells when it is not current. -->
# Configuration

A daemon reads one daemon file, `config/<deployment>.yml`, and the pipeline files that it names, one per
environment. `anomalyd validate --config FILE` tells everything that is wrong with them, with file, line and
column; `anomalyd schema daemon` and `anomalyd schema pipeline` print JSON Schemas with which editors complete
and check while you type.

## Values

| kind | written as |
|---|---|
| duration | a number and a unit: `500ms`, `30s`, `1m`, `1h 30m` |
| size | a number and a unit: `512MB` (powers of 1000), `64MiB` (powers of 1024) |
| endpoint | `host:port`: `0.0.0.0:4317`, `[::1]:4317` |
| secret | text; it is never printed, neither in messages nor in logs nor by `validate --print` |

Values may contain variables:

| variable | stands for |
|---|---|
| `${env:NAME}`, `${NAME}` | the environment variable `NAME`; an error if it is not set |
| `${env:NAME:-default}` | the same, or `default` if it is not set |
| `${file:path}` | the content of a file without the space around it; the path starts from the folder of the configuration file |
| `$$` | a `$` |

A value that is a variable alone has the type of what the variable holds. Inside `{ }` and `[ ]`, YAML wants
variables in quotes. A section that is named and left empty has its defaults.
";

const NOT_YET: &str = "
`redis`, `alerts`, `data_collection`, `security` and `audit` are read and checked but have no effect yet;
`anomalyd validate` says so where one of them is given. `ai_service` holds the defaults of the `model` block of every
detector.
";

const fn about(class: Class) -> &'static str {
    match class {
        Class::Receiver => "Where telemetry comes in.",
        Class::Processor => "What changes or measures it on its way.",
        Class::Connector => "What ends one pipeline and begins another.",
        Class::Exporter => "Where anomalies go.",
    }
}

fn section(page: &mut String, title: &str, text: &str, factory: Option<&Factory>) {
    let _ = write!(page, "\n{title}\n");
    if !text.is_empty() {
        let _ = write!(page, "\n{text}\n");
    }
    if let Some(factory) = factory {
        let _ = write!(page, "\nAcknowledgement: {}\n", factory.acknowledgement);
        if factory.implicit {
            let _ = write!(page, "\nIt may be used without being declared.\n");
        }
    }
}

struct Row {
    key: String,
    kind: String,
    default: String,
    about: String,
}

fn table(page: &mut String, check: &Check<'_>, schema: &Json) {
    let mut rows = Vec::new();
    keys(check, schema, "", "", 0, &mut rows);
    if rows.is_empty() {
        page.push_str("\nIt has no keys.\n");
        return;
    }
    page.push_str("\n| key | type | default | description |\n|---|---|---|---|\n");
    for Row { key, kind, default, about } in rows {
        let cell = |text: &str| text.replace('|', "\\|");
        let _ = writeln!(page, "| `{}` | {} | {} | {} |", cell(&key), cell(&kind), cell(&default), cell(&about));
    }
}

/// The rows of all keys of `schema`, required ones first. `condition` says when they exist.
fn keys(check: &Check<'_>, schema: &Json, prefix: &str, condition: &str, depth: usize, rows: &mut Vec<Row>) {
    let schema = check.resolved(schema).into_owned();
    let none = Map::new();
    let required: Vec<&str> = strings(&schema, "required");
    let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&none);
    let (first, rest): (Vec<_>, Vec<_>) = properties.iter().partition(|(key, _)| required.contains(&key.as_str()));
    for (key, property) in first.iter().chain(&rest) {
        let path = format!("{prefix}{key}");
        let property = check.resolved(property);
        let default = match property.get("default") {
            _ if required.contains(&key.as_str()) => "required".to_owned(),
            Some(Json::Null | Json::Object(_)) | None => String::new(),
            Some(Json::String(text)) => format!("`{text}`"),
            Some(value) => format!("`{value}`"),
        };
        rows.push(Row {
            key: path.clone(),
            kind: kind(check, &property),
            default,
            about: condition.to_owned() + &description(&property),
        });
        if depth < DEEPEST {
            inside(check, &property, &path, condition, depth, rows);
        }
    }
    if let Some(patterns) = schema.get("patternProperties").and_then(Json::as_object)
        && schema.get("x-keys").and_then(Json::as_str) == Some("pipeline type")
        && let Some(of_pattern) = patterns.values().next()
    {
        keys(check, of_pattern, &format!("{prefix}<pipeline>."), condition, depth + 1, rows);
    }
}

/// The rows of what is inside a property: a section's keys, those of a list's items, those of each variant.
fn inside(check: &Check<'_>, property: &Json, path: &str, condition: &str, depth: usize, rows: &mut Vec<Row>) {
    if let Some(items) = property.get("items") {
        let items = check.resolved(items);
        inside(check, &items, &format!("{path}[]"), condition, depth, rows);
    }
    if let Some(rest) = property.get("additionalProperties").filter(|rest| rest.is_object()) {
        inside(check, &check.resolved(rest), &format!("{path}.<name>"), condition, depth, rows);
    }
    if property.get("properties").is_some() || property.get("patternProperties").is_some() {
        keys(check, property, &format!("{path}."), condition, depth + 1, rows);
    }
    let sections = sections(check, property, depth);
    for branch in &sections {
        // A variant is told apart by the key that only it has one value for.
        let tag = branch.get("properties").and_then(Json::as_object).into_iter().flatten().find_map(|(key, p)| {
            let value = p.get("const")?;
            Some((key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        });
        match tag {
            Some((key, value)) if sections.len() > 1 => {
                let tagged = format!("{path}.{key}");
                let kind = format!("`{value}`");
                rows.push(Row { key: tagged.clone(), kind, default: "required".to_owned(), about: description(branch) });
                let from = rows.len();
                inside(check, branch, path, &format!("With `{key}: {value}`: "), depth, rows);
                // The key that tells the variants apart has its row.
                let rest = rows.split_off(from);
                rows.extend(rest.into_iter().filter(|row| row.key != tagged));
            }
            _ => inside(check, branch, path, condition, depth, rows),
        }
    }
}

/// The forms of `property` that are sections or lists, those of forms of forms too.
fn sections(check: &Check<'_>, property: &Json, depth: usize) -> Vec<Json> {
    let branches = ["oneOf", "anyOf"].iter().filter_map(|word| property.get(word)).filter_map(Json::as_array).flatten();
    let mut found = Vec::new();
    for branch in branches.map(|b| check.resolved(b)) {
        if branch.get("properties").is_some() || branch.get("items").is_some() {
            found.push(branch.into_owned());
        } else if depth < DEEPEST {
            found.extend(sections(check, &branch, depth + 1));
        }
    }
    found
}

fn strings<'a>(schema: &'a Json, word: &str) -> Vec<&'a str> {
    schema.get(word).and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str).collect()
}

fn description(schema: &Json) -> String {
    let text = schema.get("description").and_then(Json::as_str).unwrap_or_default();
    let mut text = text.replace("\n\n", "<br>").replace('\n', " ");
    let limits = [
        ("minimum", "at least"),
        ("exclusiveMinimum", "more than"),
        ("maximum", "at most"),
        ("x-minimum", "at least"),
        ("x-maximum", "at most"),
    ];
    let limits: Vec<String> = limits
        .iter()
        .filter_map(|(word, relation)| {
            let limit = schema.get(word)?;
            // What every whole number of the type fulfils says nothing.
            let trivial = limit == 0 && types(schema).contains(&"integer")
                || limit.as_u64().is_some_and(|l| l > 1_000_000_000 || l == 65535);
            (!trivial).then(|| format!("{relation} {}", limit.as_str().map_or_else(|| limit.to_string(), str::to_owned)))
        })
        .collect();
    if !limits.is_empty() {
        let _ = write!(text, " ({})", limits.join(", "));
    }
    text
}

fn kind(check: &Check<'_>, schema: &Json) -> String {
    let schema = check.resolved(schema);
    if let Some(branches) = ["oneOf", "anyOf"].iter().find_map(|word| schema.get(word)).and_then(Json::as_array) {
        let mut kinds: Vec<String> = Vec::new();
        for branch in branches {
            let kind = kind(check, branch);
            if !kind.is_empty() && !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        return kinds.join(" or ");
    }
    let choices = choices(&schema);
    if !choices.is_empty() {
        let quoted = choices.iter().map(|c| format!("`{}`", c.as_str().map_or_else(|| c.to_string(), str::to_owned)));
        return quoted.collect::<Vec<_>>().join(" or ");
    }
    if is_secret(&schema) {
        return "secret".to_owned();
    }
    let of_format = match schema.get("format").and_then(Json::as_str) {
        Some(scalars::DURATION) => "duration",
        Some(scalars::BYTE_SIZE) => "size",
        Some(scalars::MEMORY_LIMIT) => "share or size",
        Some(scalars::ENDPOINT) => "endpoint",
        Some(format::URI) => "URL",
        Some(format::COMPONENT) => "component id",
        _ => "",
    };
    if !of_format.is_empty() {
        return of_format.to_owned();
    }
    let words = types(&schema).into_iter().filter(|t| *t != "null").map(|t| match t {
        "boolean" => "`true` or `false`".to_owned(),
        "integer" => "whole number".to_owned(),
        "string" => "text".to_owned(),
        "array" => schema.get("items").map_or_else(|| "list".to_owned(), |items| format!("list of {}", kind(check, items))),
        "object" => match schema.get("additionalProperties").filter(|rest| rest.is_object()) {
            Some(rest) => format!("mapping of names to {}", kind(check, rest)),
            None => "section".to_owned(),
        },
        other => other.to_owned(),
    });
    words.collect::<Vec<_>>().join(" or ")
}
