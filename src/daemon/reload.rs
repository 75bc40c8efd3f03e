//! Reads the files again and applies what is different, or says why not.

use std::fmt::Write as _;
use std::sync::Arc;

use super::{Load, after_restart};
use crate::config::{Daemon, Diagnostics, Loaded};
use crate::model::Environment;
use crate::pipeline::{Change, Drained, Running};
use crate::server::{Applied, Changed, NotApplied, Outcome};

/// Reloads. `daemon` is the file that the daemon was started with.
pub(super) async fn reload(running: &mut Running, load: &Load, daemon: &Daemon) -> Outcome {
    let load = Arc::clone(load);
    // A file may be on a disk that hangs.
    let loaded = tokio::task::spawn_blocking(move || load()).await;
    let Loaded { daemon: changed, plans, notes, .. } = match loaded {
        Ok(loaded) => loaded.map_err(|diagnostics| wrong(&diagnostics))?,
        Err(error) => {
            return Err(NotApplied { error: format!("the files could not be read: {error}"), diagnostics: None });
        }
    };
    let changes = running.reload(&plans, daemon.pipeline.shutdown_deadline.get()).await;
    let changes = changes.map_err(|error| NotApplied { error: error.to_string(), diagnostics: None })?;
    let notes = notes.iter().map(ToString::to_string).chain(after_restart(daemon, &changed)).collect();
    Ok(Applied { environments: changes.iter().map(told).collect(), notes })
}

/// The files cannot be used.
fn wrong(diagnostics: &Diagnostics) -> NotApplied {
    let mut messages = diagnostics.iter().map(|(position, message)| match position {
        Some(at) => format!("{}:{}:{}: {message}", at.file.display(), at.line, at.column),
        None => message,
    });
    let mut error = messages.next().unwrap_or_else(|| "the files cannot be used".to_owned());
    for message in messages {
        let _ = write!(error, "\n{message}");
    }
    NotApplied { error, diagnostics: Some(diagnostics.render(false)) }
}

fn told((environment, change): &(Environment, Change)) -> Changed {
    let (word, difference, drained) = match change {
        Change::Unchanged => ("unchanged", None, None),
        Change::Started => ("started", None, None),
        Change::Restarted(difference, drained) => ("restarted", Some(difference), Some(drained)),
        Change::Ended(drained) => ("ended", None, Some(drained)),
    };
    let details = difference.map(ToString::to_string).into_iter().chain(drained.and_then(cut_off)).collect();
    Changed { environment: environment.to_string(), change: word.to_owned(), details }
}

/// What a drain that was not over in time has cost.
fn cut_off(drained: &Drained) -> Option<String> {
    let Drained { aborted, unsaved, lost } = *drained;
    let saved = if unsaved > 0 { ", and what was learnt since the last save" } else { "" };
    (aborted > 0).then(|| format!("not drained in time: {lost} records were dropped{saved}"))
}

/// Tells the log what whoever asked is told.
pub(super) fn log(outcome: &Outcome) {
    match outcome {
        Ok(applied) => {
            for note in &applied.notes {
                tracing::info!("{note}");
            }
            for Changed { environment, change, details } in &applied.environments {
                tracing::info!(environment, change, details = details.join("; "), "reloaded");
            }
        }
        Err(NotApplied { error, diagnostics }) => {
            for line in error.lines() {
                tracing::error!("{line}");
            }
            let why = if diagnostics.is_some() { "the files have mistakes" } else { "it could not be applied" };
            tracing::error!(why, "not reloaded: the daemon runs on as it did");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Difference;

    #[test]
    fn what_a_reload_did_is_told_in_a_line_each() {
        let difference = Difference {
            changed: vec!["connectors.detector.threshold".to_owned(), "receivers.otlp.wait".to_owned()],
            added: vec!["exporters.console".to_owned()],
            removed: Vec::new(),
        };
        let lost = Drained { aborted: 2, unsaved: 1, lost: 30 };
        let changes = [
            ("production", Change::Unchanged),
            ("staging", Change::Restarted(difference.clone(), Drained::default())),
            ("qa", Change::Restarted(difference, lost)),
            ("dev", Change::Started),
            ("old", Change::Ended(Drained { unsaved: 0, ..lost })),
            ("older", Change::Ended(Drained::default())),
        ];
        let lines = changes.map(|(name, change)| told(&(Environment::new(name), change)).to_string());
        insta::assert_snapshot!(lines.join("\n"), @"
        production: unchanged
        staging: restarted (connectors.detector.threshold, receivers.otlp.wait changed; exporters.console added)
        qa: restarted (connectors.detector.threshold, receivers.otlp.wait changed; exporters.console added; not drained in time: 30 records were dropped, and what was learnt since the last save)
        dev: started
        old: ended (not drained in time: 30 records were dropped)
        older: ended
        ");
    }
}
