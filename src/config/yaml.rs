//! YAML text becomes a tree.
//!
//! The tree is built from the parser's events rather than through serde, because serde stops at the first
//! error and does not tell `"30"` from `30`, which matters for variables.

use std::collections::HashMap;

use serde_yaml::granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span as YamlSpan, StrInput, Tag};

use super::diagnostics::Diagnostic;
use super::source::{FileId, Span};
use super::tree::{Entry, Node, Origin, Value};

/// How deep values may be nested.
const DEEPEST: usize = 64;
/// How many values a file may have after its aliases are filled in.
const MOST: usize = 100_000;

/// Reads one file. Repeated keys are told in `problems`, and the first of them counts.
pub(super) fn parse(file: FileId, text: &str, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEEPEST;
    options.block_nesting_limit = DEEPEST;
    let mut composer = Composer {
        file,
        text,
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        values: 0,
        problems,
    };
    match composer.document() {
        Ok(node) => Some(node),
        Err(problem) => {
            problems.push(*problem);
            None
        }
    }
}

/// The value that a variable's text stands for: a scalar, or a list or mapping in brackets.
pub(super) fn of_variable(text: &str, span: Span) -> Value {
    let bracketed = (text.starts_with('[') && text.ends_with(']')) || (text.starts_with('{') && text.ends_with('}'));
    if bracketed {
        let mut problems = Vec::new();
        if let Some(mut node) = parse(span.file, text, &mut problems)
            && problems.is_empty()
        {
            settle(&mut node, span);
            return node.value;
        }
    }
    // An empty variable is empty text, so that a key that needs a value can say that it has none.
    if text.is_empty() { Value::Text(String::new()) } else { Value::of_plain(text) }
}

/// Moves all of `node` to `span`.
fn settle(node: &mut Node, span: Span) {
    node.span = span;
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| settle(item, span)),
        Value::Map(entries) => {
            for entry in entries {
                entry.key_span = span;
                settle(&mut entry.value, span);
            }
        }
        _ => {}
    }
}

type Composed<T> = Result<T, Box<Diagnostic>>;

struct Composer<'a> {
    file: FileId,
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    values: usize,
    problems: &'a mut Vec<Diagnostic>,
}

impl<'a> Composer<'a> {
    fn span(&self, span: &YamlSpan) -> Span {
        let end = self.text.len();
        let start = span.start.byte_offset().unwrap_or(0).min(end);
        Span { file: self.file, start, end: span.end.byte_offset().unwrap_or(start).clamp(start, end) }
    }

    fn error<T>(&self, span: &YamlSpan, message: &str) -> Composed<T> {
        Err(Box::new(Diagnostic::error(self.span(span), message)))
    }

    fn next(&mut self) -> Composed<(Event<'a>, YamlSpan)> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Box::new(self.syntax(&error))),
            None => Err(Box::new(Diagnostic::error(Span { file: self.file, start: 0, end: 0 }, "the file ends too early"))),
        }
    }

    fn document(&mut self) -> Composed<Node> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    return self.error(&span, "a second document begins here: expected one per file");
                }
                Event::DocumentStart(..) => {
                    let (event, span) = self.next()?;
                    root = Some(self.node(event, &span)?);
                }
                _ => return self.error(&span, "expected a document"),
            }
        }
        match root {
            Some(root) if !matches!(root.value, Value::Null) => Ok(root),
            _ => Err(Box::new(Diagnostic::error(Span { file: self.file, start: 0, end: 0 }, "the file is empty"))),
        }
    }

    fn node(&mut self, event: Event<'a>, at: &YamlSpan) -> Composed<Node> {
        self.values += 1;
        if self.values > MOST {
            return self.error(at, &format!("the file has more than {MOST} values"));
        }
        let mut span = self.span(at);
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (self.scalar(&text, style, tag.as_deref(), at)?, anchor),
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, at) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        span.end = self.span(&at).end.max(span.end);
                        break;
                    }
                    items.push(self.node(event, &at)?);
                }
                (Node::new(Value::List(items), span), anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                let mut entries: Vec<Entry> = Vec::new();
                let mut merged: Vec<Entry> = Vec::new();
                loop {
                    let (event, at) = self.next()?;
                    match event {
                        Event::MappingEnd => {
                            span.end = self.span(&at).end.max(span.end);
                            break;
                        }
                        Event::Scalar(key, style, ..) => {
                            let (event, value_at) = self.next()?;
                            let value = self.node(event, &value_at)?;
                            if key == "<<" && style == ScalarStyle::Plain {
                                self.merge(value, &value_at, &mut merged)?;
                            } else {
                                self.entry(&mut entries, Entry { key: key.into_owned(), key_span: self.span(&at), value });
                            }
                        }
                        _ => return self.error(&at, "a key must be a word: expected `key: value`"),
                    }
                }
                for entry in merged {
                    if !entries.iter().any(|e| e.key == entry.key) {
                        entries.push(entry);
                    }
                }
                (Node::new(Value::Map(entries), span), anchor)
            }
            Event::Alias(id) => {
                let Some(mut node) = self.anchors.get(&id).cloned() else {
                    return self.error(at, "this alias stands for a value that contains it");
                };
                self.values += node.size();
                if self.values > MOST {
                    return self.error(at, &format!("with its aliases filled in, the file has more than {MOST} values"));
                }
                node.span = span;
                return Ok(node);
            }
            _ => return self.error(at, "expected a value"),
        };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn scalar(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: &YamlSpan) -> Composed<Node> {
        let quoted = style != ScalarStyle::Plain;
        let value = match tag.map(Tag::core_suffix) {
            Some(Some("str")) => Value::Text(text.to_owned()),
            Some(None) => return self.error(at, "tags (`!name`) have no meaning here: expected a plain value"),
            _ if quoted => Value::Text(text.to_owned()),
            _ => Value::of_plain(text),
        };
        let origin = if quoted { Origin::Quoted } else { Origin::Plain };
        Ok(Node { value, span: self.span(at), raw: text.to_owned(), origin })
    }

    fn entry(&mut self, entries: &mut Vec<Entry>, entry: Entry) {
        let Some(first) = entries.iter().find(|e| e.key == entry.key) else {
            entries.push(entry);
            return;
        };
        let problem = Diagnostic::error(entry.key_span, format!("`{}` is given twice", entry.key))
            .label("given again here")
            .related(first.key_span, "first given here")
            .help("keep one of them");
        self.problems.push(problem);
    }

    /// The entries that `<<: *anchor` or `<<: [*a, *b]` adds; what comes first counts.
    fn merge(&self, value: Node, at: &YamlSpan, merged: &mut Vec<Entry>) -> Composed<()> {
        match value.value {
            Value::Map(entries) => {
                for entry in entries {
                    if !merged.iter().any(|e| e.key == entry.key) {
                        merged.push(entry);
                    }
                }
                Ok(())
            }
            Value::List(items) => items.into_iter().try_for_each(|item| self.merge(item, at, merged)),
            _ => self.error(at, "`<<` merges a mapping: expected `<<: *name` of an anchored mapping"),
        }
    }

    fn syntax(&self, error: &ScanError) -> Diagnostic {
        let mut at = error.marker().byte_offset().unwrap_or(0).min(self.text.len());
        // The parser may stop at the end of a file or line; the last thing written is what to look at.
        if self.text.get(at..).is_none_or(|rest| rest.trim().is_empty()) {
            at = self.text.trim_end().len().saturating_sub(1);
            while !self.text.is_char_boundary(at) {
                at -= 1;
            }
        }
        let span = Span { file: self.file, start: at, end: at };
        let line = self.text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
        let line = self.text.get(line..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        let indent: &str = line.get(..line.len() - line.trim_start().len()).unwrap_or_default();
        match error.kind() {
            ErrorKind::UnknownAnchor => return Diagnostic::error(span, "this alias has no anchor (`&name`) above it"),
            ErrorKind::RecursionLimitExceeded => {
                return Diagnostic::error(span, format!("values are nested more than {DEEPEST} deep"));
            }
            _ => {}
        }
        let problem = Diagnostic::error(span, format!("this is not YAML: {}", error.info()));
        let within = |open: char, close: char| line.find(open).is_some_and(|i| line.get(i..).is_some_and(|l| l.contains(close)));
        if indent.contains('\t') {
            problem.help("indent with spaces: YAML allows no tabs there")
        } else if line.contains("${") && (within('{', '}') || within('[', ']')) && !line.contains("\"${") && !line.contains("'${")
        {
            problem.help("inside `{ }` and `[ ]`, put a variable in quotes: `\"${env:NAME}\"`")
        } else {
            problem.help("check the indentation, the quotes and the `:` of this line and of the one above")
        }
    }
}
