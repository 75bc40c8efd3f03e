//! The state of every component, and of the whole.

use serde::Serialize;

use super::reload::{Last, Reloads};
use crate::pipeline::{Class, Registry, Status};

/// The answer of `/health`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Report {
    /// `ok`, `degraded` (something tries again, or a reload is under way), `starting`, `stopping` or `error`.
    status: &'static str,
    version: &'static str,
    /// Environments that learn from history and are not live yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learning: Vec<Learning>,
    /// When the configuration was last read again, and what became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reload: Option<Last>,
    components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Learning {
    environment: String,
    /// `learning from history: 9 of 14 days, 38,000 docs/s, ready in 2 min`.
    message: String,
    /// 0 to 1.
    progress: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Component {
    environment: String,
    class: Class,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pipeline: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Report {
    /// Whether traffic may be sent here. A component that tries again does not make it 503: a cluster that is
    /// down for an hour must not make an orchestrator restart the daemon.
    pub(super) fn serving(&self) -> bool {
        matches!(self.status, "ok" | "degraded")
    }
}

/// The report as of now.
pub(super) fn report(registry: &Registry, reloads: Option<&Reloads>) -> Report {
    let components = registry.all();
    let states: Vec<Status> = components.iter().map(|c| c.health.get()).collect();
    let reloading = reloads.is_some_and(Reloads::is_running);
    let any = |wanted: &[&str]| states.iter().any(|s| wanted.contains(&s.name()));
    let status = if any(&["permanent_error"]) {
        "error"
    } else if reloading && any(&["stopping", "stopped", "starting"]) {
        // One environment starts anew; the others must not be taken out of service for it.
        "degraded"
    } else if any(&["stopping", "stopped"]) {
        "stopping"
    } else if states.is_empty() || any(&["starting"]) {
        "starting"
    } else if any(&["recoverable_error"]) {
        "degraded"
    } else {
        "ok"
    };
    let describe = |(component, state): (&crate::pipeline::ComponentInfo, &Status)| Component {
        environment: component.environment.to_string(),
        class: component.class,
        id: component.id.to_string(),
        pipeline: component.pipeline.clone(),
        status: state.name(),
        message: state.message().map(str::to_owned),
    };
    let learning = registry.histories().into_iter().filter_map(|(environment, history)| {
        let progress = history.progress().filter(|p| !p.done)?;
        Some(Learning {
            environment: environment.to_string(),
            message: format!("learning from history: {}", progress.sentence()),
            progress: (progress.share() * 1000.0).round() / 1000.0,
        })
    });
    let learning = learning.collect();
    Report {
        status,
        version: env!("CARGO_PKG_VERSION"),
        learning,
        reload: reloads.and_then(Reloads::last),
        components: components.iter().zip(&states).map(describe).collect(),
    }
}
