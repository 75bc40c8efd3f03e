//! Configuration files: a pipeline file, or a daemon file and a pipeline file with a line `%%` between them.

use std::path::Path;

use anomalyd::components::FACTORIES;
use anomalyd::config::{Diagnostics, Loaded, Position, Texts, load_from};

use crate::memory::bounded;

const DAEMON: &str = "environments: [dev.yml]\n";
/// The value of a variable that belongs into secret fields.
const SECRET: &str = "s3cr3t-from-outside";

fn environment(name: &str) -> Option<String> {
    match name {
        "ES_KEY" => Some(SECRET.to_owned()),
        "SIZE" => Some("32".to_owned()),
        "EMPTY" => Some(String::new()),
        "NODES" => Some("[https://a:9200, https://b:9200]".to_owned()),
        _ => None,
    }
}

fn load(daemon: &[u8], pipeline: &[u8]) -> Result<Loaded, Diagnostics> {
    let files = Texts::default().with("daemon.yml", daemon).with("dev.yml", pipeline);
    load_from(&files, Path::new("daemon.yml"), &environment, FACTORIES)
}

/// Every message has a place that exists, no message has the secret, and the same files give the same messages.
pub(crate) fn run(input: &[u8]) {
    let separator = b"\n%%\n";
    let at = input.windows(separator.len()).position(|w| w == separator);
    let (daemon, pipeline) = match at {
        Some(at) => (input.get(..=at).unwrap_or_default(), input.get(at + separator.len()..).unwrap_or_default()),
        None => (DAEMON.as_bytes(), input),
    };
    // The schemas of all components are made anew for every load.
    let loaded = bounded(input.len(), 4096, 64 << 20, || load(daemon, pipeline));
    match &loaded {
        Ok(loaded) => {
            for note in &loaded.notes {
                assert!(note.position.is_some(), "a note without a place: {note}");
            }
            for (path, resolved) in &loaded.resolved {
                assert!(!resolved.contains(SECRET), "the secret is in {}:\n{resolved}", path.display());
            }
        }
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "an error without a message");
            for (position, message) in diagnostics.iter() {
                assert!(!message.is_empty(), "an empty message at {position:?}");
                match position {
                    Some(position) => check(&position, daemon, pipeline, &message),
                    // A daemon file that is no text has no lines.
                    None => assert!(std::str::from_utf8(daemon).is_err(), "a message without a place: {message}"),
                }
            }
            let report = diagnostics.render(false);
            assert!(!report.contains(SECRET), "the secret is in\n{report}");
            let again = load(daemon, pipeline).err().map(|d| d.render(true).len());
            assert_eq!(again, Some(diagnostics.render(true).len()), "the same files, another time");
        }
    }
}

fn check(position: &Position, daemon: &[u8], pipeline: &[u8], message: &str) {
    let text = match position.file.to_str() {
        Some("daemon.yml") => daemon,
        Some("dev.yml") => pipeline,
        _ => b"",
    };
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.trim_start_matches('\u{feff}').split('\n').collect();
    let line = position.line.checked_sub(1).and_then(|i| lines.get(i));
    assert!(line.is_some(), "{position:?} of {} lines: {message}", lines.len());
    let columns = line.map_or(0, |l| l.chars().count()) + 1;
    assert!((1..=columns).contains(&position.column), "{position:?} of {columns} columns: {message}");
}
