//! `${env:NAME}`, `${env:NAME:-default}`, `${NAME}`, `${file:path}`; `$$` is a `$`.
//!
//! As in the Collector, a variable may stand anywhere in a value and several may stand in one. A value that is
//! a variable alone has the type of what the variable holds; text that comes from a variable is not searched
//! for variables again.

use std::path::Path;
use std::rc::Rc;

use super::diagnostics::Diagnostic;
use super::source::{Files, Span, read_text};
use super::tree::{Node, Origin, Value};
use super::yaml;

/// How deep defaults may be nested in each other.
const DEEPEST: usize = 8;

/// Where variables are looked up.
pub(super) struct Lookup<'a> {
    /// The environment of the process.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// Where `${file:...}` reads.
    pub(super) files: &'a dyn Files,
    /// The folder that paths of files start from.
    pub(super) folder: &'a Path,
}

/// Replaces all variables in `node`. `text` is that of the node's file.
pub(super) fn expand(node: &mut Node, text: &str, lookup: &Lookup<'_>, problems: &mut Vec<Diagnostic>) {
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| expand(item, text, lookup, problems)),
        Value::Map(entries) => entries.iter_mut().for_each(|e| expand(&mut e.value, text, lookup, problems)),
        Value::Text(value) if value.contains('$') => match replace(value, lookup, 0) {
            Ok(replaced) => settle(node, replaced),
            Err((part, message, help)) => {
                problems.push(Diagnostic::error(find(text, node.span, &part), message).help(help));
            }
        },
        _ => {}
    }
}

fn settle(node: &mut Node, replaced: Replaced) {
    node.raw.clone_from(&replaced.text);
    let Some(written) = replaced.variable else {
        node.value = Value::Text(replaced.text);
        return;
    };
    let typed = replaced.alone && node.origin == Origin::Plain;
    node.value = if typed { yaml::of_variable(&replaced.text, node.span) } else { Value::Text(replaced.text) };
    node.origin = Origin::Variable { written: Rc::from(written), alone: replaced.alone };
}

/// The place of `part` in the value at `span`; all of the value where it is not written in one piece.
fn find(text: &str, span: Span, part: &str) -> Span {
    let at = text.get(span.start..span.end).and_then(|value| value.find(part));
    at.map_or(span, |at| Span { start: span.start + at, end: span.start + at + part.len(), ..span })
}

struct Replaced {
    text: String,
    /// The first variable, as written.
    variable: Option<String>,
    /// There is nothing but one variable.
    alone: bool,
}

/// The part at fault, what is wrong with it, what to do.
type Fault = (String, String, String);

fn replace(value: &str, lookup: &Lookup<'_>, depth: usize) -> Result<Replaced, Fault> {
    let mut replaced = Replaced { text: String::new(), variable: None, alone: false };
    let mut rest = value;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        replaced.text.push_str(before);
        if let Some(after) = from.strip_prefix("$$") {
            replaced.text.push('$');
            rest = after;
        } else if let Some(inside) = from.strip_prefix("${") {
            let Some(end) = closing(inside) else {
                return Err((
                    from.to_owned(),
                    "`${` is not closed".to_owned(),
                    "close it with `}`, or write `$$` for a `$`".into(),
                ));
            };
            let (name, after) = inside.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            let written = format!("${{{name}}}");
            replaced.alone = at == 0 && replaced.text.is_empty() && rest.is_empty();
            replaced.text.push_str(&resolve(name, &written, lookup, depth)?);
            replaced.variable.get_or_insert(written);
        } else {
            replaced.text.push('$');
            rest = from.get(1..).unwrap_or_default();
        }
    }
    replaced.text.push_str(rest);
    Ok(replaced)
}

/// Where the `}` of the variable is, past those of variables inside it.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => open += 1,
            '}' if open == 0 => return Some(at),
            '}' => open -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

fn resolve(inside: &str, written: &str, lookup: &Lookup<'_>, depth: usize) -> Result<String, Fault> {
    let fault = |message: String, help: &str| Err((written.to_owned(), message, help.to_owned()));
    let (reference, default) = match inside.split_once(":-") {
        Some((reference, default)) => (reference, Some(default)),
        None => (inside, None),
    };
    let (scheme, name) = reference.split_once(':').unwrap_or(("env", reference));
    match scheme {
        "env" => {
            let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(good) {
                let help = "write `${env:NAME}` with letters, digits and `_`, or `$$` for a `$`";
                return fault(format!("`{written}` names no environment variable"), help);
            }
            match ((lookup.env)(name), default) {
                (Some(value), _) => Ok(value),
                (None, Some(_)) if depth >= DEEPEST => fault("defaults are nested too deep".to_owned(), "use fewer"),
                (None, Some(default)) => replace(default, lookup, depth + 1).map(|r| r.text),
                (None, None) => {
                    let help = format!("set it, or give a default: `${{env:{name}:-default}}`");
                    Err((written.to_owned(), format!("the environment variable `{name}` is not set"), help))
                }
            }
        }
        "file" => {
            let path = lookup.folder.join(name.trim());
            match (read_text(lookup.files, &path), default) {
                (Ok(content), _) => Ok(content.trim().to_owned()),
                (Err(_), Some(default)) if depth < DEEPEST => replace(default, lookup, depth + 1).map(|r| r.text),
                (Err(why), _) => {
                    let help = "paths start from the folder of this configuration file";
                    fault(format!("cannot read `{}`: {why}", path.display()), help)
                }
            }
        }
        _ => fault(
            format!("`{written}` has the unknown source `{scheme}`"),
            "expected `${env:NAME}`, `${env:NAME:-default}` or `${file:path}`; write `$$` for a `$`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::source::Texts;
    use proptest::prelude::*;

    fn expanded(value: &str) -> Result<String, String> {
        let files = Texts::default().with("conf/key", "  s3cret\n");
        let env = |name: &str| match name {
            "HOST" => Some("es-1".to_owned()),
            "DOLLAR" => Some("a${env:HOST}$$".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let lookup = Lookup { env: &env, files: &files, folder: Path::new("conf") };
        replace(value, &lookup, 0).map(|r| r.text).map_err(|(part, message, help)| format!("{part} | {message} | {help}"))
    }

    #[test]
    fn variables_stand_anywhere_and_several_in_one_value() {
        let cases = [
            ("https://${env:HOST}:${PORT:-9200}/", "https://es-1:9200/"),
            ("${env:MISSING:-${env:HOST}-b}", "es-1-b"),
            ("${env:EMPTY:-unused}", ""),
            ("${file:key}", "s3cret"),
            ("${file:nowhere:-none}", "none"),
            ("$$HOME $HOME $${env:HOST} 5$", "$HOME $HOME ${env:HOST} 5$"),
            ("${env:DOLLAR}", "a${env:HOST}$$"),
        ];
        for (value, expected) in cases {
            assert_eq!(expanded(value).as_deref(), Ok(expected), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_looked_up_says_why() {
        let bad = ["${env:MISSING}", "${file:nowhere}", "${vault:x}", "${env:}", "${1A}", "a ${env:HOST", "${}"];
        insta::assert_snapshot!(bad.map(|value| expanded(value).unwrap_err()).join("\n"));
    }

    proptest! {
        #[test]
        fn text_without_a_dollar_stays_and_any_text_ends(text in "[a-z{}: -]*", wild in "[$A-Z{}:-]{0,40}") {
            prop_assert_eq!(expanded(&text), Ok(text.clone()));
            let _ = expanded(&wild);
        }
    }
}
