//! What people mute while the daemon runs.

use serde::{Deserialize, Serialize};

use super::matching::Match;
use crate::model::{Entity, UnixNanos};

/// Mutes at the same time.
const MOST: usize = 1000;

/// Findings of some series are held back for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mute {
    pub(super) id: u64,
    pub(super) r#match: SavedMatch,
    pub(super) from: UnixNanos,
    pub(super) until: UnixNanos,
    pub(super) reason: Option<String>,
}

/// A [`Match`] in a form in which nothing is left out, as the saved state needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SavedMatch([Option<String>; 6], Vec<(String, String)>);

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mutes {
    all: Vec<Mute>,
    next: u64,
    /// Changes when something is added or taken away.
    generation: u64,
}

impl From<&Match> for SavedMatch {
    fn from(m: &Match) -> Self {
        let parts = [&m.series, &m.service, &m.instance, &m.operation, &m.metric, &m.function];
        Self(parts.map(Clone::clone), m.attributes.clone().into_iter().collect())
    }
}

impl SavedMatch {
    pub(super) fn get(&self) -> Match {
        let [series, service, instance, operation, metric, function] = self.0.clone();
        Match { series, service, instance, operation, metric, function, attributes: self.1.iter().cloned().collect() }
    }
}

impl Mutes {
    /// Adds one; its id. What has ended makes room.
    ///
    /// # Errors
    /// A sentence where there are too many.
    pub(super) fn add(&mut self, r#match: &Match, now: UnixNanos, nanos: u64, reason: Option<String>) -> Result<&Mute, String> {
        self.all.retain(|mute| mute.until > now);
        self.generation += 1;
        if self.all.len() >= MOST {
            return Err(format!("there are {MOST} mutes already: end one of them, or mute more series with one"));
        }
        self.next += 1;
        let mute = Mute { id: self.next, r#match: r#match.into(), from: now, until: now.plus(nanos), reason };
        self.all.push(mute);
        self.all.last().ok_or_else(String::new)
    }

    /// Ends one; whether there was such.
    pub(super) fn end(&mut self, id: u64) -> bool {
        let before = self.all.len();
        self.all.retain(|mute| mute.id != id);
        self.generation += 1;
        self.all.len() < before
    }

    pub(super) fn all(&self) -> &[Mute] {
        &self.all
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Those that are about a series.
    pub(super) fn of(&self, entity: &Entity, metric: &str, function: &str) -> Vec<u64> {
        self.all.iter().filter(|mute| mute.r#match.get().means(entity, metric, function)).map(|mute| mute.id).collect()
    }

    /// The one of `ids` that holds for something between `from` and `to` and ends last.
    pub(super) fn covering(&self, ids: &[u64], from: UnixNanos, to: UnixNanos) -> Option<&Mute> {
        let holding = self.all.iter().filter(|mute| ids.contains(&mute.id) && mute.from < to && mute.until > from);
        holding.max_by_key(|mute| mute.until)
    }
}
