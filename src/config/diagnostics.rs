//! What is wrong with configuration files, shown with the line it is about.

use std::fmt;
use std::path::{Path, PathBuf};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::mask;
use super::source::{FileId, Source, Span};

/// So many messages a report shows; who has more has one mistake many times, or another kind of file.
const SHOWN: usize = 50;

/// Whether it keeps the daemon from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Note,
}

/// One message about one place.
#[derive(Clone, Debug)]
pub(super) struct Diagnostic {
    pub(super) severity: Severity,
    /// Nothing where the file itself could not be read.
    pub(super) span: Option<Span>,
    pub(super) message: String,
    label: Option<String>,
    related: Option<(Span, &'static str)>,
    help: Option<String>,
}

impl Diagnostic {
    pub(super) fn error(span: Span, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { severity: Severity::Error, span: Some(span), message, label: None, related: None, help: None }
    }

    pub(super) fn note(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(span, message) }
    }

    /// About a file that nothing names and that could not be read.
    pub(super) fn without_place(message: impl Into<String>) -> Self {
        Self { span: None, ..Self::error(Span::default(), message) }
    }

    /// A few words at the caret: what was expected, if the message does not say it already.
    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        let label = label.into();
        let said = self.message.contains(label.strip_prefix("expected ").unwrap_or(&label));
        self.label = (!said).then_some(label);
        self
    }

    /// A second place that explains the first.
    pub(super) const fn related(mut self, span: Span, label: &'static str) -> Self {
        self.related = Some((span, label));
        self
    }

    /// What to do.
    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }
}

/// The files that were read, and what of them must not be printed.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    files: Vec<Source>,
    /// Values of secrets, wherever they came from. Taken out of every message.
    secret_values: Vec<String>,
}

impl Sources {
    pub(super) fn add(&mut self, path: &Path, text: String) -> FileId {
        self.files.push(Source { name: path.display().to_string(), text, secrets: Vec::new() });
        FileId(self.files.len() - 1)
    }

    /// Remembers a value that must not be printed. Very short ones stay where messages contain them by chance.
    pub(super) fn hide(&mut self, span: Span, value: &str) {
        if let Some(source) = self.files.get_mut(span.file.0) {
            source.secrets.push(span.start..span.end);
        }
        if value.len() >= 4 {
            self.secret_values.push(value.to_owned());
        }
    }

    fn clean(&self, text: &str) -> String {
        self.secret_values.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), super::scalars::REDACTED))
    }

    fn position(&self, span: Span) -> Option<Position> {
        let source = self.files.get(span.file.0)?;
        let line = source.line(span.start);
        let before = source.text.get(line.start..span.start).unwrap_or_default();
        Some(Position { file: PathBuf::from(&source.name), line: line.number, column: 1 + before.chars().count() })
    }

    fn snippet(
        &self,
        span: Span,
        kind: AnnotationKind,
        label: Option<&str>,
    ) -> Option<Snippet<'_, annotate_snippets::Annotation<'_>>> {
        let source = self.files.get(span.file.0)?;
        let line = source.line(span.start);
        let (start, end) = (span.start.saturating_sub(line.start), span.end.saturating_sub(line.start));
        let secrets = source.secrets.iter().map(|s| s.start.saturating_sub(line.start)..s.end.saturating_sub(line.start));
        let masked = mask::line(line.text, secrets);
        let (start, end) = (masked.place(start), masked.place(end.min(line.text.len())));
        let annotation = kind.span(start..end.max(start)).label(label.map(|l| self.clean(l)));
        Some(Snippet::source(masked.text).line_start(line.number).path(source.name.clone()).annotation(annotation))
    }

    fn render(&self, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Note => Level::NOTE,
        };
        let title = level.primary_title(self.clean(&diagnostic.message));
        let snippet = diagnostic.span.and_then(|s| self.snippet(s, AnnotationKind::Primary, diagnostic.label.as_deref()));
        let mut group: Group<'_> = title.elements(snippet);
        if let Some((span, label)) = diagnostic.related {
            group = group.elements(self.snippet(span, AnnotationKind::Context, Some(label)));
        }
        group = group.elements(diagnostic.help.as_ref().map(|help| Level::HELP.message(self.clean(help))));
        renderer.render(&[group])
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// As it was named.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// Everything that is wrong with a set of configuration files.
///
/// `Display` gives the whole report without colours.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    sources: Sources,
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// In the order of files and places, each message once.
    pub(super) fn new(sources: Sources, mut list: Vec<Diagnostic>) -> Self {
        list.sort_by_key(|d| d.span);
        list.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        Self { sources, list }
    }

    /// Without notes, which nobody reads beside errors.
    pub(super) fn errors_only(mut self) -> Self {
        self.list.retain(|d| d.severity == Severity::Error);
        self
    }

    pub(super) fn errors(&self) -> usize {
        self.list.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// How many messages there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Each message's place and text, without the line it is about.
    pub fn iter(&self) -> impl Iterator<Item = (Option<Position>, String)> + '_ {
        self.list.iter().map(|d| (d.span.and_then(|s| self.sources.position(s)), self.sources.clean(&d.message)))
    }

    /// The first 50 messages, one after the other, each with the line it is about, and how many more there are; with
    /// terminal colours if `coloured`.
    #[must_use]
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let each = self.list.iter().take(SHOWN).map(|d| self.sources.render(d, &renderer) + "\n");
        let more = self.list.len().saturating_sub(SHOWN);
        let more = (more > 0).then(|| format!("... and {more} more\n"));
        each.chain(more).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Something worth knowing about a configuration that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub position: Option<Position>,
    /// What is worth knowing.
    pub message: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { file, line, column }) = &self.position {
            write!(f, "{}:{line}:{column}: ", file.display())?;
        }
        f.write_str(&self.message)
    }
}

impl Diagnostics {
    /// As notes; used when none of them is an error.
    pub(super) fn into_notes(self) -> Vec<Note> {
        self.iter().map(|(position, message)| Note { position, message }).collect()
    }
}
