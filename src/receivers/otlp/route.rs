//! Which environment a resource belongs to.
//!
//! By its attribute `deployment.environment.name` (older: `deployment.environment`), else by the header or token of
//! the request, else to the default environment, else to the only one there is. What belongs to none is rejected.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use http::{HeaderMap, HeaderName, header::AUTHORIZATION};

use super::line::Line;
use crate::config::Secret;
use crate::model::{Environment, Signal, SourceId};
use crate::pipeline::{Counters, Outputs};
use crate::text::closest;

/// The attributes that name an environment, the newer first.
pub(super) const ATTRIBUTES: [&str; 2] = ["deployment.environment.name", "deployment.environment"];

/// The way into the pipelines of an environment. Closed while the environment is drained: nobody who has come late, with
/// a body that took its time, holds a pipeline open that is to end.
#[derive(Debug, Default)]
pub(super) struct Door {
    outputs: RwLock<Option<Arc<Outputs>>>,
    /// Those who wait at it, over all protocols.
    pub(super) line: Line,
}

impl Door {
    pub(super) fn new(outputs: Outputs) -> Self {
        Self { outputs: RwLock::new(Some(Arc::new(outputs))), line: Line::default() }
    }

    /// The pipelines, unless it is closed.
    pub(super) fn open(&self) -> Option<Arc<Outputs>> {
        self.outputs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes it, for good.
    pub(super) fn close(&self) {
        self.outputs.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// One environment that listens here.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) environment: Environment,
    pub(super) source: SourceId,
    pub(super) door: Arc<Door>,
    pub(super) counters: Arc<Counters>,
    pub(super) default: bool,
    pub(super) header: Option<HeaderName>,
    pub(super) tokens: Vec<Secret>,
}

/// All environments that share a listener.
#[derive(Clone, Debug)]
pub(super) struct Tenants {
    all: Vec<Tenant>,
    /// Takes what does not say where it belongs.
    fallback: Option<usize>,
}

/// What the request itself, not its resources, says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing.
    None,
    /// It is of this environment.
    Tenant(usize),
    /// It names one that does not listen here.
    Unknown(String),
}

impl Tenants {
    pub(super) fn new(all: Vec<Tenant>) -> Self {
        let fallback = all.iter().position(|t| t.default).or((all.len() == 1).then_some(0));
        Self { all, fallback }
    }

    pub(super) fn get(&self, index: usize) -> Option<&Tenant> {
        self.all.get(index)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether any environment has a pipeline for `signal`, or may have one when it is back.
    pub(super) fn serve(&self, signal: Signal) -> bool {
        self.all.iter().any(|t| t.door.open().is_none_or(|outputs| !outputs.of(signal).is_empty()))
    }

    /// Where the line is so long that a request of whatever environment would wait there, and for how long somebody has
    /// waited; for requests that may wait for `wait`, and that nobody has read yet.
    pub(super) fn long_line(&self, wait: Duration) -> Option<(&Tenant, Duration)> {
        let mut lines = self.all.iter().map(|tenant| Some((tenant, tenant.door.line.is_long(wait)?)));
        let first = lines.next()??;
        lines.all(|line| line.is_some()).then_some(first)
    }

    /// Whose counters take what belongs to nobody.
    pub(super) fn home(&self, claim: &Claim) -> Option<&Tenant> {
        let claimed = if let Claim::Tenant(index) = claim { Some(*index) } else { None };
        self.get(claimed.or(self.fallback).unwrap_or(0))
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|t| t.environment.as_str() == name)
    }

    fn names(&self) -> String {
        let names: Vec<String> = self.all.iter().map(|t| format!("`{}`", t.environment)).collect();
        names.join(", ")
    }

    /// What the headers of a request say.
    pub(super) fn claim(&self, headers: &HeaderMap) -> Claim {
        let named = self.all.iter().filter_map(|t| t.header.as_ref()).find_map(|name| headers.get(name));
        if let Some(value) = named.filter(|v| !v.is_empty()) {
            let value = String::from_utf8_lossy(value.as_bytes());
            return self.position(&value).map_or_else(|| Claim::Unknown(value.into_owned()), Claim::Tenant);
        }
        let bearer = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.split_once(' '));
        let Some((_, token)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else { return Claim::None };
        // Hashes are compared in constant time: the time of an answer says nothing about a token.
        let sent = blake3::hash(token.trim().as_bytes());
        let owner = |t: &Tenant| t.tokens.iter().any(|known| blake3::hash(known.expose().as_bytes()) == sent);
        self.all.iter().position(owner).map_or(Claim::None, Claim::Tenant)
    }

    /// Where the records of a resource go, or why nowhere.
    pub(super) fn place(&self, attribute: Option<&str>, claim: &Claim) -> Result<usize, String> {
        let unknown = |what: &str, name: &str| {
            let known = self.all.iter().map(|t| t.environment.as_str());
            let meant = closest(name, known).map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default();
            let name = super::build::shorten(name);
            Err(format!("{what} names the environment `{name}`, which does not listen here{meant}: known are {}", self.names()))
        };
        match (attribute, claim, self.fallback) {
            (Some(name), ..) => self.position(name).map_or_else(|| unknown("the resource", name), Ok),
            (None, Claim::Unknown(name), _) => unknown("the request's header", name),
            (None, Claim::Tenant(index), _) => Ok(*index),
            (None, Claim::None, Some(index)) => Ok(index),
            (None, Claim::None, None) => Err(format!(
                "the resource has no `{}`, and no environment of this listener is the default: known are {}",
                ATTRIBUTES[0],
                self.names()
            )),
        }
    }
}
