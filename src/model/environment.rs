//! The tenant.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of an environment (`dev`, `staging`, `production`). Cheap to clone.
///
/// Nothing that is learnt or seen in one environment is ever used in another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(Arc<str>);

impl Environment {
    /// The environment called `name`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
