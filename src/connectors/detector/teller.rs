//! Behind the shards: what they find comes together, becomes incidents, and goes on.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::checkpoint::Pieces;
use super::incidents::{Incidents, Told};
use super::limits;
use super::merge::Merge;
use super::shard::Report;
use crate::model::{Findings, IncidentEvent};
use crate::pipeline::{ComponentError, Context};

/// The name under which open incidents are kept in a checkpoint.
pub(super) const INCIDENTS: &str = "incidents";

/// Parts of a checkpoint that only their owners understand, by name.
pub(super) type Parts = Vec<(String, Vec<u8>)>;

/// Where findings go.
pub(super) trait Sink: Send {
    /// Takes what came of the entry `at`. Entries come in their order, each at most once.
    fn take(&mut self, at: u64, findings: Findings);

    /// What it has to add to a checkpoint that is about to be written: everything that was taken must be as safe as
    /// the checkpoint is.
    ///
    /// # Errors
    /// Why that cannot be made sure; then there is no checkpoint.
    fn checkpoint(&mut self) -> Result<Parts, String>;
}

/// See the module.
pub(super) struct Teller<S> {
    pub(super) context: Context,
    pub(super) incidents: Incidents,
    pub(super) pieces: Pieces,
    pub(super) sink: S,
    pub(super) shards: usize,
}

impl<S: Sink> Teller<S> {
    /// Works until the last shard has ended; gives back where findings went. Blocks: for a thread of its own.
    pub(super) fn run(mut self, reports: mpsc::Receiver<Report>) -> (Result<(), ComponentError>, S) {
        let told = self.tell(reports);
        (told, self.sink)
    }

    fn tell(&mut self, mut reports: mpsc::Receiver<Report>) -> Result<(), ComponentError> {
        let mut ended = 0;
        let mut merge = Merge::new(self.shards);
        let mut told_crowds = limits::Told::default();
        let mut parts: VecDeque<(u64, Parts)> = VecDeque::new();
        self.show();
        while let Some(report) = reports.blocking_recv() {
            match report {
                Report::Found { shard, command, found } => {
                    let Some(mut found) = merge.take(shard, command, found) else { continue };
                    self.context.counters.gauge("series", found.series as f64);
                    for crowd in found.crowds.drain(..).filter(|crowd| told_crowds.is_news(crowd)) {
                        tracing::warn!(environment = %self.context.environment, component = %self.context.id, "{crowd}");
                    }
                    if let Some(index) = found.checkpoint {
                        self.checkpoint(index, &mut parts);
                    }
                    if found.is_empty() && found.until.is_none() {
                        continue;
                    }
                    let at = found.at;
                    let told = self.incidents.take(found);
                    self.hand_on(at, told);
                }
                Report::Parts { index, parts: more } => parts.push_back((index, more)),
                Report::Ended => ended += 1,
            }
            if ended == self.shards {
                return Ok(());
            }
        }
        Err(super::shard_ended())
    }

    /// Adds what is kept here, as of the same command, to the checkpoint at `index`.
    fn checkpoint(&mut self, index: u64, waiting: &mut VecDeque<(u64, Parts)>) {
        let mut parts = Vec::new();
        while let Some((of, more)) = waiting.pop_front() {
            if of == index {
                parts = more;
                break;
            }
        }
        let behind = self.sink.checkpoint();
        let saved = self.incidents.save().map_err(|e| format!("open incidents cannot be encoded: {e}"));
        match behind.and_then(|more| saved.map(|bytes| (more, bytes))) {
            Ok((more, bytes)) => {
                parts.extend(more);
                parts.push((INCIDENTS.to_owned(), bytes));
                self.pieces.behind(index, parts);
            }
            Err(why) => {
                tracing::warn!(environment = %self.context.environment, component = %self.context.id, why, "no checkpoint");
                self.pieces.give_up(index, "what is behind the shards could not be kept");
            }
        }
    }

    /// Hands on what one entry has come to, and counts it.
    fn hand_on(&mut self, at: u64, told: Told) {
        let Told { findings, below_budget, threshold } = told;
        let counters = &self.context.counters;
        if let Some(change) = threshold {
            tracing::info!(
                environment = %self.context.environment,
                component = %self.context.id,
                from = change.from,
                to = change.to,
                "the budget for alerts has moved the threshold"
            );
        }
        let of = |event| findings.incidents.iter().filter(|i| i.event == event).count() as u64;
        for (event, times) in [
            ("anomalies", findings.anomalies.len() as u64),
            ("below_budget", below_budget),
            ("incidents_opened", of(IncidentEvent::Opened)),
            ("incidents_escalated", of(IncidentEvent::Escalated)),
            ("incidents_ended", of(IncidentEvent::Ended)),
        ] {
            if times > 0 {
                counters.event(event, times);
            }
        }
        if threshold.is_some() || !findings.incidents.is_empty() {
            self.show();
        }
        if !findings.is_empty() {
            self.sink.take(at, findings);
        }
    }

    /// Shows what stands now, for `/metrics`.
    fn show(&self) {
        self.context.counters.gauge("alert_threshold", self.incidents.threshold());
        self.context.counters.gauge("incidents_open", self.incidents.open() as f64);
    }
}
