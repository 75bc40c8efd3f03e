//! Keeps secrets out of the lines that are shown with a message.
//!
//! Where the file is understood, its secrets are known by their place. Where it is not (a misspelt key, a
//! syntax error), words that usually name secrets tell where one may stand.

use std::ops::Range;

use super::scalars::REDACTED;

/// A line that can be shown.
pub(super) struct Masked {
    pub(super) text: String,
    /// What was replaced, in bytes of the original line, in order and apart from each other.
    replaced: Vec<Range<usize>>,
}

impl Masked {
    /// Where byte `at` of the original line is now.
    pub(super) fn place(&self, at: usize) -> usize {
        let mut moved = at;
        for part in &self.replaced {
            if at >= part.end {
                moved = moved + REDACTED.len() - part.len();
            } else if at > part.start {
                moved -= at - part.start;
                break;
            }
        }
        moved.min(self.text.len())
    }
}

/// `line` without what is at `secrets` and without what looks like one.
pub(super) fn line(line: &str, secrets: impl Iterator<Item = Range<usize>>) -> Masked {
    let known = secrets.map(|s| s.start.min(line.len())..s.end.min(line.len()));
    let mut parts: Vec<Range<usize>> = known
        .chain(suspected(line))
        .chain(credentials(line))
        .filter(|part| !part.is_empty() && line.get(part.clone()).is_some_and(|t| !is_variable(t)))
        .collect();
    parts.sort_by_key(|part| (part.start, std::cmp::Reverse(part.end)));
    let mut text = String::with_capacity(line.len());
    let mut replaced: Vec<Range<usize>> = Vec::new();
    let mut from = 0;
    for part in parts {
        if part.start < from {
            continue;
        }
        text.push_str(line.get(from..part.start).unwrap_or_default());
        text.push_str(REDACTED);
        from = part.end;
        replaced.push(part);
    }
    text.push_str(line.get(from..).unwrap_or_default());
    Masked { text, replaced }
}

/// `${env:KEY}` gives nothing away and is what the reader must see.
fn is_variable(value: &str) -> bool {
    let bare = value.trim().trim_matches(['"', '\'']);
    bare.starts_with("${") && bare.find('}') == Some(bare.len() - 1) && !bare.contains(":-")
}

/// Words that name secrets in the keys of configuration files.
const WORDS: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "token", "credential", "credentials", "authorization", "webhook"];

/// Whether `key` is usually the name of something secret.
pub(super) fn names_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    if key.ends_with("_required") || key.ends_with("_file") {
        return false;
    }
    let mut parts = key.split(|c: char| !c.is_ascii_alphanumeric());
    parts.any(|part| matches!(part, "key" | "apikey") || WORDS.iter().any(|word| part.ends_with(word)))
}

/// The values of keys that name a secret, in block style and inside braces.
fn suspected(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(colon) = line.get(from..).and_then(|rest| rest.find(':')).map(|i| i + from) {
        from = colon + 1;
        let before = line.get(..colon).unwrap_or_default();
        let key = before.trim_end().trim_end_matches(['"', '\'']);
        let begin = key.rfind(|c: char| !(c.is_alphanumeric() || "_-.".contains(c))).map_or(0, |i| i + 1);
        if !key.get(begin..).is_some_and(names_a_secret) {
            continue;
        }
        let rest = line.get(from..).unwrap_or_default();
        let start = from + (rest.len() - rest.trim_start().len());
        let value = line.get(start..).unwrap_or_default();
        let in_braces = before.contains('{');
        let end = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value.get(1..).and_then(|v| v.find(quote)).map_or(value.len(), |i| i + 2),
            Some('{' | '[' | '|' | '>' | '*' | '&') | None => continue,
            _ if in_braces => value.find([',', '}']).map_or(value.len(), |i| i),
            _ => value.find(" #").unwrap_or(value.len()),
        };
        let value = value.get(..end).unwrap_or_default().trim_end();
        if value.starts_with("${") {
            continue;
        }
        found.push(start..start + value.len());
        from = start + value.len();
    }
    found
}

/// `user:password` of addresses.
fn credentials(line: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(start) = line.get(from..).and_then(|rest| rest.find("://")).map(|i| i + from + 3) {
        let host = line.get(start..).unwrap_or_default();
        let end = host.find(|c: char| c.is_whitespace() || "/\"',]}".contains(c)).unwrap_or(host.len());
        if let Some(at) = host.get(..end).and_then(|authority| authority.rfind('@')) {
            found.push(start..start + at);
        }
        from = start;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(text: &str) -> String {
        line(text, std::iter::empty()).text
    }

    #[test]
    fn what_looks_like_a_secret_is_not_shown() {
        let lines = [
            "    api_kye: abc123",
            "    apikey: abc123 # mine",
            "  { password: \"a, b\", other: 1 }",
            "  basic: {username: elastic, password: changeme}",
            "  webhook_url: 'https://hooks.example.com/T0/B1'",
            "  - https://elastic:changeme@es:9200/path",
            "  Authorization: ApiKey abc",
        ];
        insta::assert_snapshot!(lines.map(masked).join("\n"));
    }

    #[test]
    fn what_is_no_secret_is_shown() {
        for text in [
            "  api_key: ${env:KEY}",
            "  api_key: \"${env:KEY}\"",
            "  api_key_required: true",
            "  api_key_file: /run/key",
            "  monkeys: 3",
            "  endpoints: [https://es:9200]",
            "  keys: [a, b]",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    proptest! {
        #[test]
        fn any_line_and_any_secrets_are_masked_without_harm(text in "[a-z:{ \"é@/]{0,30}", a in 0usize..40, b in 0usize..40) {
            let masked = line(&text, std::iter::once(a.min(b)..a.max(b)));
            for at in 0..=text.len() {
                prop_assert!(masked.place(at) <= masked.text.len());
            }
        }
    }
}
