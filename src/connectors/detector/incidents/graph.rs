//! Which services call which, as far as their spans say.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Call, UnixNanos};

/// Edges that are remembered. While there are as many, new ones are not learnt.
const MAX_EDGES: usize = 10_000;

/// What was not seen for this long, in event time, is no longer so.
const FORGET_AFTER: u64 = 7 * 86_400 * UnixNanos::SECOND;

/// The call graph of one environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<Edge>", into = "Vec<Edge>")]
pub(in crate::connectors::detector) struct Graph {
    /// By caller, the callees and when the call was seen last.
    callees: BTreeMap<String, BTreeMap<String, UnixNanos>>,
    callers: BTreeMap<String, BTreeSet<String>>,
    edges: usize,
}

type Edge = (String, String, UnixNanos);

impl Graph {
    /// A call was seen at `time`.
    pub(super) fn learn(&mut self, call: &Call, time: UnixNanos) {
        let (caller, callee) = (&*call.caller, &*call.callee);
        if caller == callee {
            return;
        }
        if let Some(seen) = self.callees.get_mut(caller).and_then(|callees| callees.get_mut(callee)) {
            *seen = time.max(*seen);
        } else if self.edges < MAX_EDGES {
            self.insert(caller.to_owned(), callee.to_owned(), time);
        }
    }

    fn insert(&mut self, caller: String, callee: String, time: UnixNanos) {
        self.callers.entry(callee.clone()).or_default().insert(caller.clone());
        self.callees.entry(caller).or_default().insert(callee, time);
        self.edges += 1;
    }

    /// Forgets what was not seen for long; event time has come to `now`.
    pub(super) fn forget(&mut self, now: UnixNanos) {
        let since = now.minus(FORGET_AFTER);
        if self.callees.values().flat_map(BTreeMap::values).any(|seen| *seen < since) {
            let edges: Vec<Edge> = std::mem::take(self).into();
            *self = edges.into_iter().filter(|(_, _, seen)| *seen >= since).collect::<Vec<_>>().into();
        }
    }

    /// Whether anything is known of what `service` calls or who calls it.
    pub(super) fn knows(&self, service: &str) -> bool {
        self.callees.contains_key(service) || self.callers.contains_key(service)
    }

    /// The services that `service` calls.
    pub(super) fn callees(&self, service: &str) -> impl Iterator<Item = &str> {
        self.callees.get(service).into_iter().flat_map(BTreeMap::keys).map(String::as_str)
    }

    /// The services that `service` calls or that call it.
    pub(super) fn neighbours(&self, service: &str) -> impl Iterator<Item = &str> {
        let callers = self.callers.get(service).into_iter().flatten().map(String::as_str);
        self.callees(service).chain(callers)
    }

    /// Of `services` those that stand at the root: they call, by way of the others, none that does not call them back.
    pub(super) fn roots<'a>(&self, services: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let reached: BTreeMap<&str, BTreeSet<&str>> = services.iter().map(|s| (*s, self.reached(s, services))).collect();
        let calls = |from: &str, to: &str| reached.get(from).is_some_and(|all| all.contains(to));
        services.iter().filter(|s| services.iter().all(|other| !calls(s, other) || calls(other, s))).copied().collect()
    }

    /// What `service` calls, itself or by way of others, among `services`.
    fn reached<'a>(&self, service: &str, services: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let (mut reached, mut todo) = (BTreeSet::new(), vec![service]);
        while let Some(at) = todo.pop() {
            for callee in self.callees(at) {
                if let Some(callee) = services.get(callee)
                    && reached.insert(*callee)
                {
                    todo.push(callee);
                }
            }
        }
        reached
    }
}

impl From<Vec<Edge>> for Graph {
    fn from(edges: Vec<Edge>) -> Self {
        let mut graph = Self::default();
        for (caller, callee, time) in edges.into_iter().take(MAX_EDGES) {
            graph.insert(caller, callee, time);
        }
        graph
    }
}

impl From<Graph> for Vec<Edge> {
    fn from(graph: Graph) -> Self {
        let all = graph.callees.into_iter();
        all.flat_map(|(caller, callees)| callees.into_iter().map(move |(callee, seen)| (caller.clone(), callee, seen))).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::connectors::detector) fn graph(edges: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for (caller, callee) in edges {
            graph.learn(&Call { caller: (*caller).into(), callee: (*callee).into() }, UnixNanos::from_secs(1_767_571_200));
        }
        graph
    }

    #[test]
    fn the_root_is_what_calls_none_of_the_others() {
        let graph = graph(&[("web", "cart"), ("cart", "stock"), ("web", "users")]);
        let roots = |services: &[&'static str]| graph.roots(&services.iter().copied().collect()).into_iter().collect::<Vec<_>>();
        assert_eq!(roots(&["web", "cart", "stock"]), ["stock"]);
        assert_eq!(roots(&["web", "cart"]), ["cart"]);
        assert_eq!(roots(&["web", "users", "stock"]), ["stock", "users"], "not by way of a healthy one");
        assert_eq!(roots(&["web", "mailer"]), ["mailer", "web"]);
    }

    #[test]
    fn services_that_call_each_other_in_a_ring_have_a_root_all_the_same() {
        let graph = graph(&[("a", "b"), ("b", "a"), ("web", "a")]);
        assert_eq!(graph.roots(&BTreeSet::from(["a", "b", "web"])), BTreeSet::from(["a", "b"]));
    }

    #[test]
    fn edges_are_bounded_and_forgotten() {
        let mut graph = Graph::default();
        for i in 0..2 * MAX_EDGES {
            graph.learn(&Call { caller: "web".into(), callee: format!("{i}").into() }, UnixNanos::from_secs(i as u64));
        }
        assert_eq!(graph.edges, MAX_EDGES);
        graph.learn(&Call { caller: "web".into(), callee: "0".into() }, UnixNanos::from_secs(900_000));
        graph.forget(UnixNanos::from_secs(900_000));
        assert_eq!(graph.neighbours("web").collect::<Vec<_>>(), ["0"]);
        assert_eq!(graph.edges, 1);
    }

    #[test]
    fn it_reads_back_as_it_was_written() {
        let graph = graph(&[("web", "cart"), ("cart", "stock")]);
        let bytes = postcard::to_stdvec(&graph).unwrap();
        assert_eq!(postcard::from_bytes::<Graph>(&bytes).unwrap(), graph);
    }
}
