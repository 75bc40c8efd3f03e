//! A value that may have one of several shapes: optional values, enums, `auto` or a number, tagged and untagged
//! variants. Messages are about the shape that was most likely meant.

use serde_json::Value as Json;

use super::check::{At, Check, choices, is_secret, types};
use super::diagnostics::Diagnostic;
use super::tree::{Node, Value};

impl Check<'_> {
    /// Compares `node` with the branches of `schema`.
    pub(super) fn choose(&mut self, node: &mut Node, schema: &Json, branches: &[Json], at: At<'_>) {
        let branches: Vec<Json> = branches.iter().map(|b| self.combined(schema, b)).collect();
        let is_null = |branch: &Json| types(branch) == ["null"];
        let real: Vec<&Json> = branches.iter().filter(|b| !is_null(b)).collect();
        if let [only] = real.as_slice() {
            // An optional value: left empty it has its defaults if it is a section that needs nothing, else it is absent.
            if matches!(node.value, Value::Null) && real.len() < branches.len() && !self.takes(node, only, at) {
                return;
            }
            self.check(node, only, at);
            return;
        }
        if matches!(node.value, Value::Null) && branches.iter().any(is_null) {
            return;
        }
        if let Some(chosen) = self.tagged(node, &real, at) {
            if let Some(branch) = chosen {
                self.check(node, branch, at);
            }
            return;
        }
        if let Some(branch) = real.iter().find(|branch| self.takes(node, branch, at)) {
            self.check(node, branch, at);
            return;
        }
        match self.nearest(node, &real, at) {
            Some(branch) => self.check(node, branch, at),
            None if matches!(node.value, Value::Map(_)) => {
                let forms = real.iter().filter_map(|b| b.get("required")?.as_array()).map(|required| {
                    let keys = required.iter().filter_map(Json::as_str).map(|key| format!("`{key}`"));
                    keys.collect::<Vec<_>>().join(", ")
                });
                self.hide_any(node, &real);
                let message = format!("`{}` has none of its forms", at.name);
                let problem = Diagnostic::error(at.key.unwrap_or(node.span), message);
                self.problems.push(problem.label(format!("expected the keys {}", forms.collect::<Vec<_>>().join(" or "))));
            }
            None => {
                let names: Vec<Json> = real.iter().flat_map(|b| choices(b)).collect();
                let expected = self.expected(schema);
                let near = names.iter().filter_map(Json::as_str);
                let near = crate::text::closest(node.text().unwrap_or_default(), near).map(|n| format!("did you mean `{n}`?"));
                let message = format!("`{}` must be {expected}, found {}", at.name, super::check::found(node, false));
                let place = if matches!(node.value, Value::Map(_) | Value::List(_) | Value::Null) { at.key } else { None };
                let problem = Diagnostic::error(place.unwrap_or(node.span), message).label(format!("expected {expected}"));
                self.problems.push(problem.maybe_help(near));
            }
        }
    }

    /// A branch with what stands beside the word that lists the branches (a secret stays one).
    fn combined(&self, schema: &Json, branch: &Json) -> Json {
        let mut branch = self.resolved(branch).into_owned();
        if let (Some(own), Some(outer)) = (branch.as_object_mut(), schema.as_object()) {
            for word in ["x-secret", "x-minimum", "x-maximum"] {
                if let Some(value) = outer.get(word) {
                    own.entry(word).or_insert_with(|| value.clone());
                }
            }
        }
        branch
    }

    /// Whether `branch` has nothing against `node`.
    fn takes(&self, node: &Node, branch: &Json, at: At<'_>) -> bool {
        self.objections(node, branch, at) == 0
    }

    fn objections(&self, node: &Node, branch: &Json, at: At<'_>) -> usize {
        let mut trial = self.trial();
        trial.check(&mut node.clone(), branch, at);
        trial.problems.len()
    }

    /// For variants that a key of their own tells apart (`type: slack`): the branch that is meant, or nothing where
    /// the key is missing or unknown, which is told. `None` if the variants have no such key.
    fn tagged<'b>(&mut self, node: &mut Node, branches: &[&'b Json], at: At<'_>) -> Option<Option<&'b Json>> {
        let tags = |branch: &Json| -> Vec<String> {
            let properties = branch.get("properties").and_then(Json::as_object).into_iter().flatten();
            properties.filter(|(_, p)| p.get("const").is_some_and(Json::is_string)).map(|(key, _)| key.clone()).collect()
        };
        let tag = tags(branches.first()?).into_iter().find(|tag| branches.iter().all(|b| tags(b).contains(tag)))?;
        if !matches!(node.value, Value::Map(_)) {
            return None;
        }
        let value_of = |branch: &Json| branch.pointer(&format!("/properties/{tag}/const")).cloned().unwrap_or_default();
        let given = node.get(&tag).map(Node::to_json);
        if let Some(branch) = branches.iter().find(|b| given.as_ref() == Some(&value_of(b))) {
            return Some(Some(branch));
        }
        // Which variant it is is not known, so what would be secret in any of them is not shown.
        self.hide_any(node, branches);
        let all: Vec<Json> = branches.iter().map(|b| value_of(b)).collect();
        if let Value::Map(entries) = &mut node.value
            && let Some(entry) = entries.iter_mut().find(|e| e.key == tag)
        {
            let key = entry.key_span;
            self.check(
                &mut entry.value,
                &serde_json::json!({ "type": "string", "enum": all }),
                At { name: &tag, key: Some(key) },
            );
        } else {
            let expected = self.expected(&serde_json::json!({ "enum": all }));
            let place = at.key.unwrap_or(node.span);
            let message = format!("`{}` lacks `{tag}`", at.name);
            self.problems.push(Diagnostic::error(place, message).label(format!("expected the key `{tag}`: {expected}")));
        }
        Some(None)
    }

    /// Hides what is secret in any of `branches`.
    fn hide_any(&mut self, node: &Node, branches: &[&Json]) {
        for (key, property) in branches.iter().filter_map(|b| b.get("properties")?.as_object()).flatten() {
            if let Some(value) = node.get(key).filter(|_| is_secret(&self.resolved(property))) {
                self.hide(value);
            }
        }
    }

    /// The branch of the node's own type that shares most keys with it and objects least.
    fn nearest<'b>(&self, node: &Node, branches: &[&'b Json], at: At<'_>) -> Option<&'b Json> {
        let own = match &node.value {
            Value::Null => return None,
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::Text(_) => "string",
            Value::List(_) => "array",
            Value::Map(_) => "object",
        };
        let fits = |t: &&str| *t == own || (own == "number" && *t == "integer");
        let free = |branch: &&&Json| own == "object" || own == "array" || choices(branch).is_empty();
        let candidates: Vec<&Json> = branches.iter().filter(|b| types(b).iter().any(fits)).filter(free).copied().collect();
        let shared = |branch: &Json| {
            let has = |key: &str| branch.get("properties").is_some_and(|p| p.get(key).is_some());
            node.entries().iter().filter(|e| has(&e.key)).count()
        };
        let rank = |branch: &&Json| (shared(branch), std::cmp::Reverse(self.objections(node, branch, at)));
        let mut ranked: Vec<_> = candidates.into_iter().map(|b| (rank(&b), b)).collect();
        // The first of equals.
        ranked.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
        let strangers = own == "object" && ranked.len() > 1 && ranked.iter().all(|((shared, _), _)| *shared == 0);
        ranked.first().filter(|_| !strangers).map(|(_, branch)| *branch)
    }
}
