//! Where each signal is sent to over HTTP.

use super::answer::Refusal;
use super::build::shorten;
use crate::model::Signal;

/// The paths of the signals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paths {
    pub(super) traces: String,
    pub(super) metrics: String,
    pub(super) logs: String,
}

impl Paths {
    /// What is sent to `path`.
    ///
    /// # Errors
    /// When nothing is served there.
    pub(super) fn signal(&self, path: &str) -> Result<Signal, Refusal> {
        let Self { traces, metrics, logs } = self;
        let paths = [(traces, Signal::Traces), (metrics, Signal::Metrics), (logs, Signal::Logs)];
        let found = paths.into_iter().find(|(known, _)| *known == path).map(|(_, signal)| signal);
        found.ok_or_else(|| {
            let path = shorten(path);
            Refusal::not_served(format!("`{path}` is not served: expected {traces}, {metrics} or {logs}"))
        })
    }
}
