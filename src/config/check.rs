//! Compares a file with the JSON Schema of what is expected and tells everything that differs.
//!
//! Knows the part of JSON Schema that `schemars` writes for serde's structs and enums, and three words of our
//! own: `x-secret` (never print it), `x-minimum` and `x-maximum` (of durations and sizes).

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use super::diagnostics::Diagnostic;
use super::format;
use super::mask;
use super::scalars;
use super::scalars::{ByteSize, Duration, REDACTED};
use super::source::Span;
use super::tree::{Entry, Node, Origin, Value};
use super::yaml;
use crate::text::closest;

/// A schema with its definitions.
pub(super) struct Check<'s> {
    root: &'s Json,
    pub(super) problems: Vec<Diagnostic>,
    /// Where the secrets are, and what they are.
    pub(super) secrets: Vec<(Span, String)>,
}

/// What a value is called in messages, and where messages about all of it point.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) name: &'a str,
    pub(super) key: Option<Span>,
}

impl At<'_> {
    /// The place of a message about `node`: its key where it is large or nothing.
    fn place(&self, node: &Node) -> Span {
        match (&node.value, self.key) {
            (Value::Map(_) | Value::List(_) | Value::Null, Some(key)) => key,
            _ => node.span,
        }
    }

    fn called(&self) -> String {
        if self.name.is_empty() { "the file".to_owned() } else { format!("`{}`", self.name) }
    }

    fn inside(&self) -> String {
        if self.name.is_empty() { String::new() } else { format!(" in `{}`", self.name) }
    }
}

impl<'s> Check<'s> {
    pub(super) const fn new(root: &'s Json) -> Self {
        Self { root, problems: Vec::new(), secrets: Vec::new() }
    }

    /// One whose findings are thrown away.
    pub(super) const fn trial(&self) -> Self {
        Self::new(self.root)
    }

    /// The schema that `schema` stands for: its `$ref` followed, what stands beside the `$ref` kept.
    pub(super) fn resolved<'a>(&self, schema: &'a Json) -> Cow<'a, Json>
    where
        's: 'a,
    {
        let mut schema = Cow::Borrowed(schema);
        // A chain of references is as long as the types are nested; a cycle of nothing but references is not written.
        for _ in 0..16 {
            let Some(name) = schema.get("$ref").and_then(Json::as_str).and_then(|r| r.strip_prefix("#/$defs/")) else { break };
            let Some(definition) = self.root.pointer(&format!("/$defs/{}", name.replace('~', "~0").replace('/', "~1"))) else {
                break;
            };
            let beside = schema.as_object().filter(|o| o.len() > 1).cloned();
            schema = match (beside, definition.as_object()) {
                (Some(beside), Some(definition)) => {
                    let mut merged = definition.clone();
                    merged.extend(beside.into_iter().filter(|(k, _)| k != "$ref"));
                    Cow::Owned(Json::Object(merged))
                }
                _ => Cow::Borrowed(definition),
            };
        }
        schema
    }

    /// Compares `node` with `schema`; gives a variable's text the type that is wanted.
    pub(super) fn check(&mut self, node: &mut Node, schema: &Json, at: At<'_>) {
        let schema = self.resolved(schema).into_owned();
        if schema == Json::Bool(true) {
            return;
        }
        for part in schema.get("allOf").and_then(Json::as_array).into_iter().flatten() {
            self.check(node, part, at);
        }
        for word in ["oneOf", "anyOf"] {
            if let Some(branches) = schema.get(word).and_then(Json::as_array) {
                self.choose(node, &schema, branches, at);
                return;
            }
        }
        coerce(node, &schema);
        if matches!(node.value, Value::Null) && types(&schema).contains(&"object") && empty_is_enough(&schema) {
            // As in the Collector: a section that is named and left empty has its defaults.
            node.value = Value::Map(Vec::new());
        }
        if is_secret(&schema) {
            self.secrets.push((node.span, node.raw.clone()));
        }
        if !self.has_type(node, &schema, at) {
            return;
        }
        match &mut node.value {
            Value::Map(_) => self.map(node, &schema, at),
            Value::List(_) => self.list(node, &schema, at),
            _ => self.scalar(node, &schema, at),
        }
    }

    fn has_type(&mut self, node: &Node, schema: &Json, at: At<'_>) -> bool {
        let wanted = types(schema);
        let fits = |wanted: &&str| match &node.value {
            Value::Null => *wanted == "null",
            Value::Bool(_) => *wanted == "boolean",
            Value::Number(n) => *wanted == "number" || (*wanted == "integer" && (n.is_i64() || n.is_u64())),
            Value::Text(_) => *wanted == "string",
            Value::List(_) => *wanted == "array",
            Value::Map(_) => *wanted == "object",
        };
        if wanted.is_empty() || wanted.iter().any(fits) {
            return true;
        }
        // A number where a duration, a size or an endpoint is written: its parser knows what is missing.
        if let Some(format) = schema.get("format").and_then(Json::as_str)
            && wanted.contains(&"string")
            && matches!(node.value, Value::Number(_))
            && self.format(node, format, schema, at)
        {
            return false;
        }
        let expected = self.expected(schema);
        let place = at.place(node);
        let problem = if matches!(node.value, Value::Null) {
            Diagnostic::error(place, format!("{} has no value: expected {expected}", at.called()))
        } else {
            let found = found(node, is_secret(schema));
            Diagnostic::error(place, format!("{} must be {expected}, found {found}", at.called()))
        };
        self.problems.push(problem.label(format!("expected {expected}")).maybe_help(repair(node, schema, &wanted)));
        false
    }

    fn scalar(&mut self, node: &Node, schema: &Json, at: At<'_>) {
        let secret = is_secret(schema);
        let shown = || found(node, secret);
        if let Some(format) = schema.get("format").and_then(Json::as_str)
            && matches!(node.value, Value::Text(_))
            && self.format(node, format, schema, at)
        {
            return;
        }
        let choices = choices(schema);
        if !choices.is_empty() && !choices.contains(&node.to_json()) {
            self.not_among(node, &choices, at);
            return;
        }
        if let Value::Number(number) = &node.value {
            let number = number.as_f64().unwrap_or_default();
            let limit = |word: &str| schema.get(word).and_then(Json::as_f64).map(|limit| (limit, schema.get(word)));
            let wrong = [
                ("minimum", "at least", number < limit("minimum").map_or(f64::MIN, |l| l.0)),
                ("maximum", "at most", number > limit("maximum").map_or(f64::MAX, |l| l.0)),
                ("exclusiveMinimum", "more than", number <= limit("exclusiveMinimum").map_or(f64::NEG_INFINITY, |l| l.0)),
                ("exclusiveMaximum", "less than", number >= limit("exclusiveMaximum").map_or(f64::INFINITY, |l| l.0)),
            ];
            for (word, relation, wrong) in wrong {
                if let (true, Some((_, Some(limit)))) = (wrong, limit(word)) {
                    let message = format!("{} must be {relation} {limit}, found {}", at.called(), shown());
                    self.problems.push(Diagnostic::error(node.span, message).label(format!("expected {relation} {limit}")));
                    return;
                }
            }
        }
        let Value::Text(text) = &node.value else { return };
        let length = text.chars().count() as u64;
        let bound = |word: &str| schema.get(word).and_then(Json::as_u64);
        let message = if bound("minLength").is_some_and(|min| length < min) {
            Some(if text.is_empty() { format!("{} is empty", at.called()) } else { format!("{} is too short", at.called()) })
        } else if bound("maxLength").is_some_and(|max| length > max) {
            Some(format!("{} is too long: expected at most {} characters", at.called(), bound("maxLength").unwrap_or_default()))
        } else {
            let pattern = schema.get("pattern").and_then(Json::as_str).filter(|_| schema.get("format").is_none());
            let unmatched = pattern.filter(|p| regex::Regex::new(p).is_ok_and(|r| !r.is_match(text)));
            unmatched.map(|p| format!("{} must match `{p}`, found {}", at.called(), shown()))
        };
        if let Some(message) = message {
            let mut problem = Diagnostic::error(node.span, message);
            if let (Origin::Variable { written, .. }, true) = (&node.origin, text.is_empty()) {
                problem = problem.help(format!("`{written}` is set to nothing"));
            }
            self.problems.push(problem);
        }
    }

    /// Checks the text of a scalar as `format`; whether something was wrong.
    fn format(&mut self, node: &Node, format: &str, schema: &Json, at: At<'_>) -> bool {
        let text = &node.raw;
        let wrong = format::check(format, text).and_then(|()| limits(format, text, schema));
        let Err(sentence) = wrong else { return false };
        let expected = self.expected(schema);
        // The parsers repeat what they were given.
        let sentence = match &node.origin {
            Origin::Variable { written, .. } => format!("the value of `{written}` is not {expected}"),
            _ if is_secret(schema) => format!("expected {expected}"),
            _ => sentence,
        };
        let message = format!("invalid {}: {sentence}", at.called());
        self.problems.push(Diagnostic::error(node.span, message).label(format!("expected {expected}")));
        true
    }

    fn not_among(&mut self, node: &Node, choices: &[Json], at: At<'_>) {
        let texts: Vec<String> = choices.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
        let listed = list(&texts);
        let known = !matches!(node.origin, Origin::Variable { .. });
        let near = closest(&node.raw, texts.iter().map(String::as_str)).filter(|_| known);
        let message = format!("{} must be {listed}, found {}", at.called(), found(node, false));
        let problem = Diagnostic::error(node.span, message).label(format!("expected {listed}"));
        self.problems.push(problem.maybe_help(near.map(|n| format!("did you mean `{n}`?"))));
    }

    fn list(&mut self, node: &mut Node, schema: &Json, at: At<'_>) {
        let Value::List(items) = &mut node.value else { return };
        let length = items.len() as u64;
        let bound = |word: &str| schema.get(word).and_then(Json::as_u64);
        let place = at.key.unwrap_or(node.span);
        if let Some(min) = bound("minItems").filter(|min| length < *min) {
            let message = if length == 0 { format!("{} is empty", at.called()) } else { format!("{} is too short", at.called()) };
            self.problems.push(Diagnostic::error(place, message).label(format!("expected at least {min}")));
        }
        if let Some(max) = bound("maxItems").filter(|max| length > *max) {
            let message = format!("{} is too long", at.called());
            self.problems.push(Diagnostic::error(place, message).label(format!("expected at most {max}, found {length}")));
        }
        if let Some(of_item) = schema.get("items") {
            for (i, item) in items.iter_mut().enumerate() {
                self.check(item, of_item, At { name: &format!("{}[{i}]", at.name), key: None });
            }
        }
        if schema.get("uniqueItems") == Some(&Json::Bool(true)) {
            for (i, item) in items.iter().enumerate() {
                if let Some(first) = items.iter().take(i).find(|first| first.to_json() == item.to_json()) {
                    let message = format!("{} has {} twice", at.called(), found(item, false));
                    self.problems.push(Diagnostic::error(item.span, message).related(first.span, "first given here"));
                }
            }
        }
    }

    fn map(&mut self, node: &mut Node, schema: &Json, at: At<'_>) {
        let place = at.key.unwrap_or(Span { end: node.span.start, ..node.span });
        let Value::Map(entries) = &mut node.value else { return };
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Json::as_object).unwrap_or(&empty);
        let mut suggested: Vec<String> = Vec::new();
        let mut unknown: Vec<usize> = Vec::new();
        for (i, entry) in entries.iter_mut().enumerate() {
            let next = At { name: &entry.key, key: Some(entry.key_span) };
            let of_value = properties.get(&entry.key).or_else(|| of_pattern(schema, &entry.key));
            match (of_value, schema.get("additionalProperties")) {
                (Some(of_value), _) => self.check(&mut entry.value, of_value, next),
                (None, Some(Json::Bool(false))) => unknown.push(i),
                (None, Some(rest)) => self.check(&mut entry.value, rest, next),
                (None, None) if schema.get("unevaluatedProperties") == Some(&Json::Bool(false)) => unknown.push(i),
                (None, None) => {}
            }
        }
        for i in unknown {
            self.unknown(entries, i, schema, properties, at, &mut suggested);
        }
        let given = |key: &str| entries.iter().any(|e| e.key == key) || suggested.iter().any(|s| s == key);
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
        for key in required.filter(|key| !given(key)) {
            let message = format!("{} lacks `{key}`", at.called());
            let about = properties.get(key).and_then(|p| self.about(p));
            let expected = properties.get(key).map_or_else(String::new, |p| format!(": {}", self.expected(p)));
            let problem = Diagnostic::error(place, message).label(format!("expected the key `{key}`{expected}"));
            self.problems.push(problem.maybe_help(about.map(|about| format!("`{key}`: {about}"))));
        }
        if let Some(min) = schema.get("minProperties").and_then(Json::as_u64).filter(|min| (entries.len() as u64) < *min) {
            let message = format!("{} is empty", at.called());
            self.problems.push(Diagnostic::error(place, message).label(format!("expected at least {min} key")));
        }
    }

    /// Tells that the key of the `i`th entry is unknown, and which was probably meant.
    fn unknown(
        &mut self,
        entries: &[Entry],
        i: usize,
        schema: &Json,
        properties: &Map<String, Json>,
        at: At<'_>,
        suggested: &mut Vec<String>,
    ) {
        let Some(entry) = entries.get(i) else { return };
        let known: Vec<String> = properties.keys().cloned().chain(stems(schema)).collect();
        // Of `oltp/apm`, `oltp` is what may be misspelt.
        let (head, name) = match entry.key.split_once('/') {
            Some((head, name)) if !stems(schema).is_empty() => (head, format!("/{name}")),
            _ => (entry.key.as_str(), String::new()),
        };
        let free = known.iter().filter(|k| !name.is_empty() || !entries.iter().any(|e| e.key == **k)).map(String::as_str);
        let near = closest(head, free).filter(|near| *near != head).map(|near| format!("{near}{name}"));
        let misplaced = entries.iter().take(i).rev().find(|before| {
            // Left empty; by now it has been given its defaults.
            before.value.span.start == before.value.span.end
                && properties.get(&before.key).is_some_and(|schema| self.knows(schema, &entry.key))
        });
        let what = schema.get("x-keys").and_then(Json::as_str).unwrap_or("key");
        let message = format!("unknown {what} `{}`{}", entry.key, at.inside());
        let help = if let Some(before) = misplaced {
            format!("indent it to put it under `{}`", before.key)
        } else if let Some(near) = &near {
            format!("did you mean `{near}`?")
        } else if known.is_empty() {
            format!("no {what}s are known here")
        } else {
            format!("known {what}s: {}", known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", "))
        };
        let meant_secret = near.as_ref().and_then(|n| properties.get(n)).is_some_and(|p| is_secret(&self.resolved(p)));
        if meant_secret || mask::names_a_secret(&entry.key) {
            self.hide(&entry.value);
        }
        suggested.extend(near);
        let label = if what == "key" { "not a known key".to_owned() } else { format!("no such {what}") };
        self.problems.push(Diagnostic::error(entry.key_span, message).label(label).help(help));
    }

    /// Whether `schema` is a mapping that has `key`.
    fn knows(&self, schema: &Json, key: &str) -> bool {
        let schema = self.resolved(schema);
        let branches = ["anyOf", "oneOf"].iter().filter_map(|word| schema.get(word)).filter_map(Json::as_array).flatten();
        schema.get("properties").is_some_and(|p| p.get(key).is_some())
            || of_pattern(&schema, key).is_some()
            || branches.into_iter().any(|branch| self.knows(branch, key))
    }

    /// Keeps all of `node` from being printed.
    pub(super) fn hide(&mut self, node: &Node) {
        match &node.value {
            Value::Map(entries) => entries.iter().for_each(|e| self.hide(&e.value)),
            Value::List(items) => items.iter().for_each(|item| self.hide(item)),
            _ => self.secrets.push((node.span, node.raw.clone())),
        }
    }

    /// The first paragraph of a property's description.
    fn about(&self, schema: &Json) -> Option<String> {
        let schema = self.resolved(schema);
        let text = schema.get("description")?.as_str()?.split("\n\n").next()?;
        Some(text.replace('\n', " ").trim_end_matches('.').to_owned())
    }

    /// A few words for what `schema` takes: `a duration such as `30s``.
    pub(super) fn expected(&self, schema: &Json) -> String {
        let schema = self.resolved(schema);
        let branches = ["oneOf", "anyOf"].iter().find_map(|word| schema.get(word)).and_then(Json::as_array);
        if let Some(branches) = branches {
            let mut each: Vec<String> = Vec::new();
            let choices: Vec<String> = branches.iter().flat_map(|b| choices(&self.resolved(b))).map(|c| plain(&c)).collect();
            if !choices.is_empty() {
                each.push(list(&choices));
            }
            for branch in branches {
                let branch = self.resolved(branch);
                let null = branch.get("type").and_then(Json::as_str) == Some("null");
                let expected = self.expected(&branch);
                if choices_of(&branch).is_none() && !null && !each.contains(&expected) {
                    each.push(expected);
                }
            }
            return each.join(" or ");
        }
        let choices: Vec<String> = choices(&schema).iter().map(plain).collect();
        if !choices.is_empty() {
            return list(&choices);
        }
        if let Some(expected) = schema.get("format").and_then(Json::as_str).and_then(format::expected) {
            return expected.to_owned();
        }
        let words = types(&schema).into_iter().filter(|t| *t != "null").map(|t| match t {
            "boolean" => "`true` or `false`",
            "integer" => "a whole number",
            "number" => "a number",
            "string" => "text",
            "array" => "a list",
            _ => "a mapping (`key: value`)",
        });
        let words: Vec<&str> = words.collect();
        if words.is_empty() { "a value".to_owned() } else { words.join(" or ") }
    }
}

/// The types that `schema` names.
pub(super) fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

pub(super) fn is_secret(schema: &Json) -> bool {
    schema.get("x-secret") == Some(&Json::Bool(true))
}

fn empty_is_enough(schema: &Json) -> bool {
    schema.get("required").and_then(Json::as_array).is_none_or(Vec::is_empty) && schema.get("minProperties").is_none()
        || schema.get("x-null-is-empty") == Some(&Json::Bool(true))
}

/// The values that `schema` admits, where it names them.
fn choices_of(schema: &Json) -> Option<Vec<Json>> {
    let only = schema.get("const").map(|only| vec![only.clone()]);
    only.or_else(|| schema.get("enum")?.as_array().map(|all| all.iter().filter(|v| !v.is_null()).cloned().collect()))
}

pub(super) fn choices(schema: &Json) -> Vec<Json> {
    choices_of(schema).unwrap_or_default()
}

fn plain(choice: &Json) -> String {
    choice.as_str().map_or_else(|| choice.to_string(), str::to_owned)
}

/// ``one of `a`, `b` ``.
fn list(choices: &[String]) -> String {
    let quoted: Vec<String> = choices.iter().map(|c| format!("`{c}`")).collect();
    match quoted.as_slice() {
        [one] => one.clone(),
        [a, b] => format!("{a} or {b}"),
        _ => format!("one of {}", quoted.join(", ")),
    }
}

/// The schema of the pattern that `key` matches.
fn of_pattern<'a>(schema: &'a Json, key: &str) -> Option<&'a Json> {
    let patterns = schema.get("patternProperties")?.as_object()?;
    patterns.iter().find(|(pattern, _)| regex::Regex::new(pattern).is_ok_and(|r| r.is_match(key))).map(|(_, schema)| schema)
}

/// The words that the patterns of `type` or `type/name` begin with.
fn stems(schema: &Json) -> Vec<String> {
    let patterns = schema.get("patternProperties").and_then(Json::as_object).into_iter().flatten();
    patterns.filter_map(|(p, _)| p.strip_prefix('^')?.strip_suffix(super::schema::NAMED)).map(str::to_owned).collect()
}

/// What a value is, without giving away what must not be printed.
pub(super) fn found(node: &Node, secret: bool) -> String {
    let shown = |text: &str| if secret { REDACTED.to_owned() } else { shorten(text) };
    match (&node.origin, &node.value) {
        (Origin::Variable { written, .. }, _) => format!("the value of `{written}`"),
        (_, Value::Null) => "nothing".to_owned(),
        (_, Value::Bool(b)) => format!("`{b}`"),
        (_, Value::Number(_)) => format!("the number `{}`", shown(&node.raw)),
        (_, Value::Text(text)) => format!("the text `{}`", shown(text)),
        (_, Value::List(_)) => "a list".to_owned(),
        (_, Value::Map(_)) => "a mapping".to_owned(),
    }
}

fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// Gives the text of a variable the type that is wanted: `${env:PIN}` of `0123` stays text where text is wanted,
/// and `"${env:PORT}"`, which braces force into quotes, is a number where a number is wanted.
fn coerce(node: &mut Node, schema: &Json) {
    let Origin::Variable { alone: true, .. } = node.origin else { return };
    let wanted = types(schema);
    if wanted.is_empty() {
        return;
    }
    match &node.value {
        Value::Text(_) if !wanted.contains(&"string") => node.value = yaml::of_variable(&node.raw, node.span),
        Value::Text(_) => {}
        _ if wanted.contains(&"string") => node.value = Value::Text(node.raw.clone()),
        _ => {}
    }
}

/// What turns a value of the wrong type into the right one.
fn repair(node: &Node, schema: &Json, wanted: &[&str]) -> Option<String> {
    let literal = node.origin == Origin::Plain && !is_secret(schema);
    match &node.value {
        Value::Number(_) | Value::Bool(_) if wanted.contains(&"string") => {
            Some(if literal { format!("put it in quotes: `\"{}\"`", shorten(&node.raw)) } else { "put it in quotes".to_owned() })
        }
        Value::Text(text) if wanted.contains(&"array") && node.origin == Origin::Plain => {
            Some(format!("write it as a list: `[{}]`", shorten(text)))
        }
        Value::Text(text) if wanted.contains(&"boolean") => match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" => Some("write `true`".to_owned()),
            "no" | "off" | "n" => Some("write `false`".to_owned()),
            _ => None,
        },
        Value::Text(text) if node.origin == Origin::Quoted && wanted.iter().any(|w| matches!(*w, "integer" | "number")) => {
            text.parse::<f64>().is_ok().then(|| "leave out the quotes".to_owned())
        }
        Value::List(_) if wanted.contains(&"object") => Some("write `key: value` lines, without `-`".to_owned()),
        _ => None,
    }
}

/// Checks `x-minimum` and `x-maximum` of durations and sizes.
fn limits(format: &str, text: &str, schema: &Json) -> Result<(), String> {
    fn within<T: std::str::FromStr + PartialOrd>(text: &str, schema: &Json) -> Result<(), String> {
        let limit = |word: &str| schema.get(word).and_then(Json::as_str);
        let Ok(value) = text.parse::<T>() else { return Ok(()) };
        match (limit("x-minimum"), limit("x-maximum")) {
            (Some(min), _) if min.parse::<T>().is_ok_and(|min| value < min) => Err(format!("`{text}` is less than `{min}`")),
            (_, Some(max)) if max.parse::<T>().is_ok_and(|max| value > max) => Err(format!("`{text}` is more than `{max}`")),
            _ => Ok(()),
        }
    }
    match format {
        scalars::DURATION => within::<Duration>(text, schema),
        scalars::BYTE_SIZE => within::<ByteSize>(text, schema),
        _ => Ok(()),
    }
}
