//! Who behaves.

use serde::{Deserialize, Serialize};

use super::SpanKind;

/// A service, optionally one instance of it, one operation, and further attributes that tell series apart.
///
/// The environment is not part of it: everything that holds entities belongs to one environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entity {
    /// `service.name`; `unknown_service` where the sender did not say.
    pub service: String,
    /// `service.instance.id`, else pod, else host; only for metrics that an instance reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Span name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Span kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<SpanKind>,
    /// Point attributes (metrics) or the severity (logs), sorted by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<(String, String)>,
}

impl Entity {
    /// The entity that is the service as a whole.
    #[must_use]
    pub fn service(name: &str) -> Self {
        Self { service: name.to_owned(), ..Self::default() }
    }

    /// Memory that it holds beside itself, in bytes.
    #[must_use]
    pub fn heap(&self) -> usize {
        let texts = [&self.instance, &self.operation].into_iter().flatten().map(String::len).sum::<usize>();
        let attributes = self.attributes.iter().map(|(name, value)| size_of::<(String, String)>() + name.len() + value.len());
        self.service.len() + texts + attributes.sum::<usize>()
    }

    /// One line that identifies it and that a person can read:
    /// `checkout POST /pay (server)`, `checkout@pod-1 {cpu=0}`.
    #[must_use]
    pub fn key(&self) -> String {
        use std::fmt::Write as _;
        let mut key = self.service.clone();
        if let Some(instance) = &self.instance {
            let _ = write!(key, "@{instance}");
        }
        if let Some(operation) = &self.operation {
            let _ = write!(key, " {operation}");
        }
        if let Some(kind) = self.kind {
            let _ = write!(key, " ({})", kind.as_str());
        }
        for (i, (name, value)) in self.attributes.iter().enumerate() {
            let _ = write!(key, "{}{name}={value}", if i == 0 { " {" } else { "," });
        }
        if !self.attributes.is_empty() {
            key.push('}');
        }
        key
    }
}
