//! The processors of a pipeline, one after the other in one task.

use std::sync::Arc;

use super::edge::payload_kind;
use super::{Counters, Delivery, Input, Output, Processor};

/// One processor, and what it counts.
pub(super) struct Stage {
    pub(super) processor: Box<dyn Processor>,
    pub(super) counters: Arc<Counters>,
}

/// Runs the processors of `pipeline`, one after the other in one task.
pub(super) async fn run(pipeline: String, mut input: Input, mut stages: Vec<Stage>, output: Output) {
    while let Some(Delivery { payload, mut flight, mut origin }) = input.recv().await {
        // The payload is safe when what becomes of it is.
        let receipt = flight.receipt();
        origin.id = origin.id.map(|id| id.through(&pipeline));
        let mut payload = Some(payload);
        let mut flight = Some(flight);
        let mut flights = Vec::with_capacity(stages.len());
        for stage in &mut stages {
            let Some(incoming) = payload.take() else { break };
            // The first stage's account was opened when the payload entered the queue.
            let mut account = flight.take().unwrap_or_else(|| stage.counters.begin(payload_kind(&incoming), incoming.len()));
            let processed = stage.processor.process(incoming);
            for (reason, items) in processed.dropped {
                account.dropped(items, reason);
            }
            flights.push(account);
            payload = processed.output;
        }
        let handed_on = match payload {
            Some(payload) if !payload.is_empty() => output.send_on(payload, origin, receipt).await.is_ok(),
            _ => {
                receipt.kept();
                true
            }
        };
        for account in flights {
            if handed_on {
                account.sent();
            } else {
                account.dropped_rest("pipeline_ended");
            }
        }
    }
}
