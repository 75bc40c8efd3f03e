//! `type` or `type/name`, as in the Collector.

use serde::{Deserialize, Serialize};

/// The id of a component in a pipeline file: its type, and a name where there are several of that type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ComponentId {
    kind: String,
    name: Option<String>,
}

impl ComponentId {
    /// Reads `type` or `type/name`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with `text`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        let good = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        if !good(kind) || !name.is_none_or(good) {
            return Err(format!(
                "`{text}` is not a component id: expected `type` or `type/name` of letters, digits, `_`, `-` and `.`"
            ));
        }
        Ok(Self { kind: kind.to_owned(), name: name.map(str::to_owned) })
    }

    /// The type: which factory makes it.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The name, if it has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl std::fmt::Display for ComponentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{}/{name}", self.kind),
            None => f.write_str(&self.kind),
        }
    }
}

impl TryFrom<String> for ComponentId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<ComponentId> for String {
    fn from(id: ComponentId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_a_type_and_maybe_a_name() {
        assert_eq!(ComponentId::parse("otlp").unwrap().kind(), "otlp");
        let named = ComponentId::parse("elasticsearch/apm").unwrap();
        assert_eq!((named.kind(), named.name(), named.to_string().as_str()), ("elasticsearch", Some("apm"), "elasticsearch/apm"));
        for bad in ["", "/", "otlp/", "/x", "a b", "a/b/c", "a:b"] {
            assert!(ComponentId::parse(bad).is_err(), "{bad}");
        }
    }
}
