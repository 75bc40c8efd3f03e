//! What the memory limit comes to on this machine, and whether what is configured fits into it.

use std::collections::BTreeSet;

use crate::components;
use crate::config::{Daemon, Loaded, MemoryLimit};
use crate::pipeline::{Available, Plan};
use crate::text::quantity;

/// Requests that are being received should hold no more than this part of the limit.
const RECEIVED: u64 = 4;

/// One line: `at most 3.2 GiB: 80% of 4 GiB (limit of the cgroup)`.
pub(super) fn line(daemon: &Daemon, room: Option<Available>) -> String {
    let limit = daemon.memory_limit();
    match (limit, limit.bytes(room.map(|room| room.bytes)), room) {
        (MemoryLimit::Share(percent), Some(bytes), Some(room)) => format!("at most {}: {percent}% of {room}", size(bytes)),
        (_, Some(bytes), _) => format!("at most {}", size(bytes)),
        _ => format!("not limited: how much there is, of which {limit} are asked for, is not known on this system"),
    }
}

/// What does not fit.
pub(super) fn notes(loaded: &Loaded, room: Option<Available>) -> Vec<String> {
    let limit = loaded.daemon.memory_limit().bytes(room.map(|room| room.bytes));
    let Some(limit) = limit else { return Vec::new() };
    let mut notes = Vec::new();
    if let (MemoryLimit::Size(asked), Some(room)) = (loaded.daemon.memory_limit(), room)
        && asked.bytes() > room.bytes
    {
        notes.push(format!("the memory limit of {asked} is more than there is, {room}: the kernel would end the daemon first"));
    }
    let of = |of: fn(&str, &serde_json::Value) -> u64| {
        move |plan: &Plan| plan.used.iter().map(|used| of(used.factory.kind, &used.config)).sum::<u64>()
    };
    let learnt: Vec<(String, u64)> =
        loaded.plans.iter().map(|p| (p.spec.environment.to_string(), of(components::most_learnt)(p))).collect();
    let all: u64 = learnt.iter().map(|(_, bytes)| bytes).sum();
    if all > limit {
        let each: Vec<String> = learnt.iter().map(|(name, bytes)| format!("{name} {}", size(*bytes))).collect();
        notes.push(format!(
            "all series that detectors may learn would take about {} ({}), and the daemon may use {}: from 85 % of that on \
             no new ones are learnt; raise `memory.limit`, or lower `max_series`",
            size(all),
            each.join(", "),
            size(limit)
        ));
    }
    // Environments that share a listener share what it holds.
    let used = loaded.plans.iter().flat_map(|plan| &plan.used);
    let listeners: BTreeSet<(String, u64)> =
        used.flat_map(|used| components::most_received(used.factory.kind, &used.config)).collect();
    let received: u64 = listeners.iter().map(|(_, bytes)| bytes).sum();
    if received > limit / RECEIVED {
        let most = limit / RECEIVED / listeners.len().max(1) as u64;
        notes.push(format!(
            "requests that are being received may hold {} ({} listeners), which is more than a quarter of the {} that the \
             daemon may use: set `max_in_flight_size` of the receivers to at most {}",
            size(received),
            listeners.len(),
            size(limit),
            size(most)
        ));
    }
    notes
}

fn size(bytes: u64) -> String {
    quantity(bytes as f64, "By")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Texts};

    fn said(daemon: &str, room: Option<Available>) -> String {
        let pipeline = "environment: NAME
receivers: { otlp: { protocols: { grpc: , http: } } }
service: { pipelines: { metrics: { receivers: [otlp], exporters: [detector] }, anomalies: { receivers: [detector], exporters: [console] } } }
";
        let daemon = format!("environments: [a.yml, b.yml]\n{daemon}\n");
        let (a, b) = (pipeline.replace("NAME", "production"), pipeline.replace("NAME", "staging"));
        let files = Texts::default().with("d.yml", daemon).with("a.yml", a).with("b.yml", b);
        let loaded = match config::load_from(&files, Path::new("d.yml"), &|_| None, components::FACTORIES) {
            Ok(loaded) => loaded,
            Err(diagnostics) => return diagnostics.render(false),
        };
        let mut all = vec![line(&loaded.daemon, room)];
        all.extend(notes(&loaded, room));
        all.join("\n")
    }

    #[test]
    fn what_the_limit_comes_to_is_said_and_what_does_not_fit_into_it() {
        let gib = |gib: u64, of_cgroup| Some(Available { bytes: gib << 30, of_cgroup });
        let all = [
            said("", gib(16, false)),
            said("", gib(2, true)),
            said("", None),
            said("memory: { limit: 1GiB }", None),
            said("memory: { limit: 8GiB }", gib(4, true)),
            said("data_collection: { max_memory: 4GiB }", gib(8, false)),
            said("memory: { limit: 50% }\ndata_collection: { max_memory: 4GiB }", gib(8, false)),
            said("memory: { limit: 0% }", gib(8, false)),
            said("memory: { limit: 3 }", gib(8, false)),
        ];
        insta::assert_snapshot!(all.join("\n\n"));
    }
}
