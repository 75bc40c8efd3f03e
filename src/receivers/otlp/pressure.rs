//! Shows, where receivers tell how they are, that requests are refused while there is no memory for them.

use tokio::sync::watch;

use crate::pipeline::{Health, Memory, Pressure, Status};

/// Tells it of all receivers in `healths`, as they come and go; for ever.
pub(super) async fn tell(memory: Memory, mut healths: watch::Receiver<Vec<Health>>) {
    let mut pressure = memory.watch();
    let mut told: Vec<(Health, Status)> = Vec::new();
    loop {
        let full = *pressure.borrow_and_update() == Pressure::Full;
        // Who has something else to say by now goes on saying it.
        for (health, status) in told.drain(..).filter(|(health, status)| health.get() == *status) {
            health.set(if full { status } else { Status::Ok });
        }
        let all = healths.borrow_and_update().clone();
        if full {
            let why = memory.refusal().unwrap_or_default();
            let status = Status::RecoverableError(format!("requests are refused until there is room: {why}"));
            told.extend(all.into_iter().map(|health| (health, status.clone())));
            told.iter().for_each(|(health, status)| health.set(status.clone()));
        }
        let ended = tokio::select! {
            changed = pressure.changed() => changed.is_err(),
            changed = healths.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}
