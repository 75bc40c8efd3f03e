//! The nodes of a cluster, and which of them did not answer lately.

use std::time::Duration;

use tokio::time::Instant;

/// How long a node is left alone after its first failure in a row.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long it is left alone at most.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Failures since it last answered.
    failures: u32,
    /// Until when it is left alone.
    dead_until: Option<Instant>,
    /// When it last answered.
    answered: Option<Instant>,
}

/// Which node the next request goes to: round robin over those that are not dead; when all are dead, the one that
/// has been left alone the longest. A node whose time is up is tried by one request only; it is taken back when
/// that one is answered.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    next: usize,
}

impl Nodes {
    /// `count` nodes of which nothing is known yet.
    pub(super) fn new(count: usize) -> Self {
        Self { nodes: vec![Node::default(); count], next: 0 }
    }

    /// The node for the next request.
    pub(super) fn choose(&mut self, now: Instant) -> usize {
        let count = self.nodes.len();
        let order = (0..count).map(|step| (self.next + step) % count.max(1));
        let ready = |i: &usize| self.nodes.get(*i).is_some_and(|n| n.dead_until.is_none_or(|until| until <= now));
        let chosen = order
            .clone()
            .find(ready)
            .or_else(|| order.min_by_key(|i| self.nodes.get(*i).and_then(|n| n.dead_until)))
            .unwrap_or(0);
        self.next = (chosen + 1) % count.max(1);
        if let Some(node) = self.nodes.get_mut(chosen)
            && node.dead_until.is_some()
        {
            // While this request finds out, others keep away.
            node.dead_until = Some(now + dead_time(node.failures));
        }
        chosen
    }

    /// Whether all nodes are dead.
    pub(super) fn all_dead(&self, now: Instant) -> bool {
        self.nodes.iter().all(|n| n.dead_until.is_some_and(|until| until > now))
    }

    /// Whether node `i` has answered within `window` and not failed since.
    pub(super) fn fresh(&self, i: usize, now: Instant, window: Duration) -> bool {
        self.nodes.get(i).is_some_and(|n| n.failures == 0 && n.answered.is_some_and(|at| now.duration_since(at) < window))
    }

    /// Node `i` answered.
    pub(super) fn answered(&mut self, i: usize, now: Instant) {
        if let Some(node) = self.nodes.get_mut(i) {
            *node = Node { failures: 0, dead_until: None, answered: Some(now) };
        }
    }

    /// Node `i` did not answer, or answered that it cannot serve.
    pub(super) fn failed(&mut self, i: usize, now: Instant) {
        if let Some(node) = self.nodes.get_mut(i) {
            node.failures = node.failures.saturating_add(1);
            node.dead_until = Some(now + dead_time(node.failures));
        }
    }
}

/// 1 s after the first failure, doubled with each further one, at most a minute.
fn dead_time(failures: u32) -> Duration {
    SHORTEST.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_nodes_take_turns() {
        let mut nodes = Nodes::new(3);
        let now = Instant::now();
        let chosen: Vec<usize> = (0..6).map(|_| nodes.choose(now)).collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_dead_node_is_left_alone_and_then_tried_by_one_request() {
        let mut nodes = Nodes::new(2);
        let start = Instant::now();
        nodes.failed(0, start);
        assert_eq!((0..4).map(|_| nodes.choose(start)).collect::<Vec<_>>(), [1, 1, 1, 1]);
        let later = start + Duration::from_millis(1001);
        assert_eq!((0..3).map(|_| nodes.choose(later)).collect::<Vec<_>>(), [0, 1, 1]);
        nodes.answered(0, later);
        assert_eq!((0..4).map(|_| nodes.choose(later)).collect::<Vec<_>>(), [0, 1, 0, 1]);
    }

    #[test]
    fn the_time_grows_from_a_second_to_a_minute() {
        let times: Vec<u64> = [1, 2, 3, 4, 5, 6, 7, 8, 1000].iter().map(|&n| dead_time(n).as_secs()).collect();
        assert_eq!(times, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn when_all_are_dead_the_one_left_alone_the_longest_is_tried() {
        let mut nodes = Nodes::new(2);
        let now = Instant::now();
        nodes.failed(1, now);
        nodes.failed(0, now + Duration::from_millis(10));
        assert!(nodes.all_dead(now + Duration::from_millis(20)));
        assert_eq!(nodes.choose(now + Duration::from_millis(20)), 1);
        assert_eq!(nodes.choose(now + Duration::from_millis(20)), 0);
    }

    #[test]
    fn no_nodes_at_all_do_not_panic() {
        assert_eq!(Nodes::new(0).choose(Instant::now()), 0);
    }
}
