//! Versions of services, seen in passing.

use serde::{Deserialize, Serialize};

use super::{AttributeRange, Attributes, Symbol, Symbols, UnixNanos, Value};

/// Versions that are noted of one batch.
const MOST: usize = 64;
/// Versions are cut to this many bytes.
const MAX_TEXT: usize = 128;

/// A version of a service (`service.version` of the resource) that a batch has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceVersion {
    /// `service.name`.
    pub service: String,
    /// `service.version`.
    pub version: String,
    /// Earliest event time with it.
    pub first: UnixNanos,
    /// Latest event time with it.
    pub last: UnixNanos,
}

/// Collects the versions of a batch. Nothing is allocated per record.
#[derive(Debug)]
pub struct VersionsSeen {
    keys: Option<(Symbol, Symbol)>,
    /// The resource of the record before, and its place among the versions.
    resource: Option<(AttributeRange, Option<usize>)>,
    seen: Vec<(Symbol, Symbol, UnixNanos, UnixNanos)>,
}

impl VersionsSeen {
    /// For a batch with these texts.
    #[must_use]
    pub fn new(symbols: &Symbols) -> Self {
        let keys = symbols.find("service.name").zip(symbols.find("service.version"));
        Self { keys, resource: None, seen: Vec::new() }
    }

    /// Takes note of a record of `resource`. Records of one resource follow each other, so this is a comparison.
    pub fn note(&mut self, attributes: &Attributes, resource: AttributeRange, time: UnixNanos) {
        let Some((service, version)) = self.keys else { return };
        let place = match self.resource {
            Some((known, place)) if known == resource => place,
            _ => {
                let place = match (attributes.value(resource, service), attributes.value(resource, version)) {
                    (Some(Value::Str(service)), Some(Value::Str(version))) => self.place(service, version, time),
                    _ => None,
                };
                self.resource = Some((resource, place));
                place
            }
        };
        if let Some((_, _, first, last)) = place.and_then(|place| self.seen.get_mut(place)) {
            *first = (*first).min(time);
            *last = (*last).max(time);
        }
    }

    fn place(&mut self, service: Symbol, version: Symbol, time: UnixNanos) -> Option<usize> {
        if let Some(place) = self.seen.iter().position(|seen| (seen.0, seen.1) == (service, version)) {
            return Some(place);
        }
        if self.seen.len() >= MOST {
            return None;
        }
        self.seen.push((service, version, time, time));
        Some(self.seen.len() - 1)
    }

    /// What was seen.
    #[must_use]
    pub fn finish(self, symbols: &Symbols) -> Vec<ServiceVersion> {
        let text = |symbol| crate::text::clip(symbols.get(symbol), MAX_TEXT).to_owned();
        let named = self.seen.into_iter().filter(|seen| !symbols.get(seen.0).is_empty() && !symbols.get(seen.1).is_empty());
        named
            .map(|(service, version, first, last)| ServiceVersion { service: text(service), version: text(version), first, last })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_noted_with_their_first_and_last_moment() {
        let (mut symbols, mut attributes) = (Symbols::default(), Attributes::default());
        let mut resource = |service: &str, version: Option<&str>| {
            let mark = attributes.mark();
            for (key, value) in [("service.name", Some(service)), ("service.version", version)] {
                let Some(value) = value else { continue };
                let (key, value) = (symbols.intern(key), symbols.intern(value));
                attributes.push(key, Value::Str(value));
            }
            attributes.since(mark)
        };
        let resources = [resource("cart", Some("1")), resource("cart", Some("2")), resource("api", None)];
        let mut seen = VersionsSeen::new(&symbols);
        for (resource, second) in [(0, 50), (0, 40), (1, 60), (2, 10), (0, 70)] {
            seen.note(&attributes, resources[resource], UnixNanos::from_secs(second));
        }
        let seen: Vec<_> =
            seen.finish(&symbols).into_iter().map(|v| (v.service, v.version, v.first.secs(), v.last.secs())).collect();
        assert_eq!(seen, [("cart".to_owned(), "1".to_owned(), 40, 70), ("cart".to_owned(), "2".to_owned(), 60, 60)]);
    }
}
