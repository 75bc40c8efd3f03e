//! Which services call which, as the spans of one batch say.
//!
//! A client or producer span names its peer (`peer.service`, else `server.address`). And where a batch holds spans of
//! several services, a span's parent in another service is its caller; that is looked up for one trace in eight, because a
//! call graph needs every edge but not every call.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::{MAX_TEXT, UNKNOWN_SERVICE, service};
use crate::model::{AttributeRange, Call, Span, SpanKind, Spans, Symbol, Value};
use crate::text::clip;

/// Calls of one batch that are passed on.
const MAX_CALLS: usize = 256;

/// Where a span says whom it calls; the first that is there counts. The last is what older instrumentations write.
const PEER: [&str; 3] = ["peer.service", "server.address", "net.peer.name"];

/// What a host's name ends in where its first label is the service's name.
const CLUSTER: [&str; 4] = [".svc.cluster.local", ".svc", ".local", ".internal"];

/// The calls between services that `spans` tell of, sorted, each once.
pub(super) fn of(spans: &Spans) -> Vec<Call> {
    let mut pairs: BTreeSet<(Symbol, Symbol)> = BTreeSet::new();
    let peers = PEER.map(|key| spans.symbols.find(key));
    let mut services = Services::new(spans);
    let mut several = false;
    let mut first = None;
    for span in &spans.rows {
        let caller = services.of(span.resource);
        several |= *first.get_or_insert(caller) != caller;
        if !matches!(span.kind, SpanKind::Client | SpanKind::Producer) || pairs.len() >= MAX_CALLS {
            continue;
        }
        let peer = peers.iter().flatten().find_map(|key| match spans.attributes.value(span.attributes, *key) {
            Some(Value::Str(peer)) if peer != Symbol::EMPTY => Some(peer),
            _ => None,
        });
        pairs.extend(peer.map(|peer| (caller, peer)));
    }
    let mut calls: BTreeSet<Call> = BTreeSet::new();
    for (caller, callee) in pairs {
        calls.insert(call(name(spans, caller), host(name(spans, callee))));
    }
    if several {
        for (caller, callee) in by_parents(spans, &mut services) {
            calls.insert(call(name(spans, caller), name(spans, callee)));
        }
    }
    calls.into_iter().filter(|call| call.caller != call.callee).take(MAX_CALLS).collect()
}

/// Pairs of services of which one has a span below a span of the other.
fn by_parents(spans: &Spans, services: &mut Services<'_>) -> BTreeSet<(Symbol, Symbol)> {
    let looked_at = |span: &&Span| span.trace_id[15] & 7 == 0 && span.trace_id != [0; 16];
    let mut by_id: HashMap<([u8; 16], [u8; 8]), Symbol> = HashMap::new();
    for span in spans.rows.iter().filter(looked_at) {
        by_id.insert((span.trace_id, span.span_id), services.of(span.resource));
    }
    let mut pairs = BTreeSet::new();
    for span in spans.rows.iter().filter(looked_at).filter(|span| span.parent_span_id != [0; 8]) {
        let callee = services.of(span.resource);
        if let Some(&caller) = by_id.get(&(span.trace_id, span.parent_span_id))
            && caller != callee
            && pairs.len() < MAX_CALLS
        {
            pairs.insert((caller, callee));
        }
    }
    pairs
}

/// The services of a batch. Spans of one resource follow each other.
struct Services<'a> {
    spans: &'a Spans,
    key: Option<Symbol>,
    last: Option<(AttributeRange, Symbol)>,
}

impl<'a> Services<'a> {
    fn new(spans: &'a Spans) -> Self {
        Self { spans, key: spans.symbols.find("service.name"), last: None }
    }

    fn of(&mut self, resource: AttributeRange) -> Symbol {
        match self.last {
            Some((range, service)) if range == resource => service,
            _ => {
                let service = service(self.spans, self.key, resource);
                self.last = Some((resource, service));
                service
            }
        }
    }
}

fn name(spans: &Spans, symbol: Symbol) -> &str {
    match spans.symbols.get(symbol) {
        "" => UNKNOWN_SERVICE,
        name => clip(name, MAX_TEXT),
    }
}

/// The service that a host's name stands for: in a cluster its first label.
fn host(name: &str) -> &str {
    if CLUSTER.iter().any(|end| name.ends_with(end)) { name.split('.').next().unwrap_or(name) } else { name }
}

fn call(caller: &str, callee: &str) -> Call {
    Call { caller: Arc::from(caller), callee: Arc::from(callee) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{StatusCode, UnixNanos};

    /// Adds a span of `service`; `peer` is an attribute.
    fn add(spans: &mut Spans, service: &str, kind: SpanKind, peer: Option<(&str, &str)>, id: u8, parent: u8) {
        let mut range = |pairs: &[(&str, &str)]| {
            let mark = spans.attributes.mark();
            for (key, value) in pairs {
                let (key, value) = (spans.symbols.intern(key), spans.symbols.intern(value));
                spans.attributes.push(key, Value::Str(value));
            }
            spans.attributes.since(mark)
        };
        let resource = range(&[("service.name", service)]);
        let attributes = range(&peer.into_iter().collect::<Vec<_>>());
        spans.rows.push(Span {
            resource,
            name: Symbol::EMPTY,
            kind,
            status: StatusCode::Unset,
            start: UnixNanos(1),
            duration: 1,
            weight: 1.0,
            trace_id: [8; 16],
            span_id: [id; 8],
            parent_span_id: [parent; 8],
            attributes,
        });
    }

    fn said(spans: &Spans) -> Vec<String> {
        of(spans).iter().map(|c| format!("{} -> {}", c.caller, c.callee)).collect()
    }

    #[test]
    fn client_spans_name_their_peer() {
        let mut spans = Spans::default();
        for _ in 0..2 {
            add(&mut spans, "web", SpanKind::Client, Some(("peer.service", "checkout")), 1, 0);
        }
        add(&mut spans, "web", SpanKind::Client, Some(("server.address", "cart.shop.svc.cluster.local")), 2, 0);
        add(&mut spans, "cart", SpanKind::Client, Some(("server.address", "db-1.example.com")), 3, 0);
        add(&mut spans, "cart", SpanKind::Producer, Some(("net.peer.name", "kafka")), 4, 0);
        add(&mut spans, "cart", SpanKind::Client, Some(("peer.service", "cart")), 5, 0);
        add(&mut spans, "cart", SpanKind::Server, Some(("server.address", "me")), 6, 0);
        assert_eq!(said(&spans), ["cart -> db-1.example.com", "cart -> kafka", "web -> cart", "web -> checkout"]);
    }

    #[test]
    fn a_span_below_a_span_of_another_service_was_called_by_it() {
        let mut spans = Spans::default();
        add(&mut spans, "web", SpanKind::Client, None, 1, 0);
        add(&mut spans, "checkout", SpanKind::Server, None, 2, 1);
        add(&mut spans, "checkout", SpanKind::Client, None, 3, 2);
        add(&mut spans, "payments", SpanKind::Server, None, 4, 3);
        add(&mut spans, "payments", SpanKind::Server, None, 5, 9);
        assert_eq!(said(&spans), ["checkout -> payments", "web -> checkout"]);
    }

    #[test]
    fn what_one_batch_can_say_is_bounded() {
        let mut spans = Spans::default();
        for i in 0..1000 {
            add(&mut spans, "web", SpanKind::Client, Some(("peer.service", &format!("s{i}"))), 1, 0);
        }
        assert_eq!(of(&spans).len(), MAX_CALLS);
        assert!(of(&Spans::default()).is_empty());
    }
}
