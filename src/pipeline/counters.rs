//! What every component counts. At any time and for every payload kind:
//! received = sent + dropped + in flight.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Receipt;
use crate::model::PayloadKind;

/// The counts of one component for one payload kind, in records (spans, points, log records, observations,
/// anomalies).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken in.
    pub received: u64,
    /// Handed on: what became of these was accepted by all next components, or by the outside.
    pub sent: u64,
    /// Offered, but not taken in; whoever offered it still has it.
    pub refused: u64,
    /// Given up, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Taken in, and neither sent nor dropped yet.
    pub in_flight: u64,
}

impl Counts {
    /// All drops together.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Whether nothing is unaccounted for.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.received == self.sent + self.dropped_total() + self.in_flight
    }
}

#[derive(Default, Debug)]
struct Inner {
    kinds: Vec<(PayloadKind, Counts)>,
    events: BTreeMap<&'static str, u64>,
    gauges: BTreeMap<&'static str, f64>,
    levels: BTreeMap<usize, BTreeMap<&'static str, u64>>,
}

/// The counters of one component. One short lock per batch, so a snapshot always balances.
#[derive(Default, Debug)]
pub struct Counters(Mutex<Inner>);

impl Counters {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, kind: PayloadKind, change: impl FnOnce(&mut Counts)) {
        let mut inner = self.lock();
        if let Some((_, counts)) = inner.kinds.iter_mut().find(|(k, _)| *k == kind) {
            change(counts);
        } else {
            let mut counts = Counts::default();
            change(&mut counts);
            inner.kinds.push((kind, counts));
        }
    }

    /// Takes in `items` records. The flight must end in sent, dropped or refused; if it is let go before
    /// (a task was aborted), what is left of it counts as refused where its sender waits for a receipt and so still has
    /// it, and else as dropped with the reason `aborted`.
    #[must_use]
    pub fn begin(self: &Arc<Self>, kind: PayloadKind, items: usize) -> Flight {
        let items = items as u64;
        self.with(kind, |c| {
            c.received += items;
            c.in_flight += items;
        });
        Flight { counters: Arc::clone(self), kind, left: items, receipt: Receipt::default() }
    }

    /// Counts records that were offered and not taken in.
    pub fn refused(&self, kind: PayloadKind, items: usize) {
        self.with(kind, |c| c.refused += items as u64);
    }

    /// Counts records that were taken in and given up at once (records that fail validation).
    pub fn rejected(&self, kind: PayloadKind, items: usize, reason: &'static str) {
        self.with(kind, |c| {
            c.received += items as u64;
            *c.dropped.entry(reason).or_default() += items as u64;
        });
    }

    /// Counts something else worth counting: `late_observations`, `retries`, `requests_refused`...
    pub fn event(&self, name: &'static str, times: u64) {
        *self.lock().events.entry(name).or_default() += times;
    }

    /// Shows something that goes up and down: `alert_threshold`, `incidents_open`...
    pub fn gauge(&self, name: &'static str, value: f64) {
        self.lock().gauges.insert(name, value);
    }

    /// What goes up and down, as of now.
    #[must_use]
    pub fn gauges(&self) -> BTreeMap<&'static str, f64> {
        self.lock().gauges.clone()
    }

    /// Sets how many things there are of each kind in `part` of the component; the parts of a component add up.
    pub fn levels(&self, part: usize, levels: BTreeMap<&'static str, u64>) {
        self.lock().levels.insert(part, levels);
    }

    /// How many things there are of each kind, in all parts together.
    #[must_use]
    pub fn all_levels(&self) -> BTreeMap<&'static str, u64> {
        let mut all = BTreeMap::new();
        for (kind, count) in self.lock().levels.values().flatten() {
            *all.entry(*kind).or_default() += count;
        }
        all
    }

    /// The counts as of now, per payload kind.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(PayloadKind, Counts)> {
        self.lock().kinds.clone()
    }

    /// The counts of one payload kind as of now.
    #[must_use]
    pub fn of(&self, kind: PayloadKind) -> Counts {
        self.lock().kinds.iter().find(|(k, _)| *k == kind).map(|(_, c)| c.clone()).unwrap_or_default()
    }

    /// The other events as of now.
    #[must_use]
    pub fn events(&self) -> BTreeMap<&'static str, u64> {
        self.lock().events.clone()
    }
}

/// Records that a component has taken in and not yet accounted for.
#[derive(Debug)]
pub struct Flight {
    counters: Arc<Counters>,
    kind: PayloadKind,
    left: u64,
    receipt: Receipt,
}

impl Flight {
    /// Whoever sent these records waits for `receipt`: it is kept when all of them are accounted for, and not when
    /// some are let go or refused.
    pub fn attach(&mut self, receipt: Receipt) {
        std::mem::replace(&mut self.receipt, receipt).kept();
    }

    /// Of nothing.
    #[must_use]
    pub fn none() -> Self {
        Self { counters: Arc::default(), kind: PayloadKind::Observations, left: 0, receipt: Receipt::default() }
    }

    /// Takes the receipt out, to be confirmed on its own.
    #[must_use]
    pub fn receipt(&mut self) -> Receipt {
        std::mem::take(&mut self.receipt)
    }

    /// Whether the sender has stopped waiting for the receipt, and has these records again.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.receipt.is_withdrawn()
    }

    /// Waits until the sender has stopped waiting for the receipt; for ever if nobody waits.
    pub fn withdrawn(&self) -> impl Future<Output = ()> + Send + use<> {
        self.receipt.withdrawn()
    }

    /// All that is left was handed on.
    pub fn sent(mut self) {
        let left = self.left;
        self.sent_part(left);
    }

    /// `items` of it were handed on.
    pub fn sent_part(&mut self, items: u64) {
        let items = items.min(self.left);
        self.left -= items;
        self.counters.with(self.kind, |c| {
            c.in_flight = c.in_flight.saturating_sub(items);
            c.sent += items;
        });
    }

    /// `items` of it were given up.
    pub fn dropped(&mut self, items: u64, reason: &'static str) {
        let items = items.min(self.left);
        self.left -= items;
        if items > 0 {
            self.counters.with(self.kind, |c| {
                c.in_flight = c.in_flight.saturating_sub(items);
                *c.dropped.entry(reason).or_default() += items;
            });
        }
    }

    /// All that is left was given up.
    pub fn dropped_rest(mut self, reason: &'static str) {
        let left = self.left;
        self.dropped(left, reason);
    }

    /// The component could not take it in after all; whoever offered it keeps it.
    pub fn refused(self) {
        self.refused_because("the pipeline could not take it in");
    }

    /// As [`Flight::refused`]; says why to whoever waits.
    pub fn refused_because(mut self, why: &str) {
        self.receipt().refuse(why);
        self.give_back();
    }

    fn give_back(&mut self) {
        let left = std::mem::take(&mut self.left);
        self.counters.with(self.kind, |c| {
            c.in_flight = c.in_flight.saturating_sub(left);
            c.received = c.received.saturating_sub(left);
            c.refused += left;
        });
    }

    /// Takes `items` of it out, to be accounted for by somebody else.
    #[must_use]
    pub fn split(&mut self, items: u64) -> Self {
        let items = items.min(self.left);
        self.left -= items;
        Self { counters: Arc::clone(&self.counters), kind: self.kind, left: items, receipt: self.receipt.share() }
    }

    /// How many records are still to be accounted for.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let left = self.left;
        let receipt = self.receipt();
        if left == 0 {
            return receipt.kept();
        }
        if receipt.has_sender() {
            // Its sender hears that it was not kept, and still has it.
            drop(receipt);
            return self.give_back();
        }
        self.dropped(left, "aborted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Signal;
    use proptest::prelude::*;

    const KIND: PayloadKind = PayloadKind::Telemetry(Signal::Traces);

    proptest! {
        #[test]
        fn whatever_becomes_of_a_flight_the_counts_balance_at_every_step(steps in prop::collection::vec((0u8..5, 0usize..50), 0..40)) {
            let counters = Arc::new(Counters::default());
            let mut open: Vec<Flight> = Vec::new();
            for (what, n) in steps {
                match (what, open.pop()) {
                    (1, Some(flight)) => flight.sent(),
                    (2, Some(mut flight)) => { flight.dropped(n as u64, "filtered"); open.push(flight); }
                    (3, Some(flight)) => flight.refused(),
                    (4, Some(flight)) => drop(flight),
                    (_, last) => { open.extend(last); open.push(counters.begin(KIND, n)); }
                }
                let counts = counters.of(KIND);
                prop_assert!(counts.balanced(), "{counts:?}");
                prop_assert_eq!(counts.in_flight, open.iter().map(Flight::left).sum::<u64>());
            }
        }
    }
}
