//! One life of a daemon: from its start to its end, whatever that is. Around the production connector stand clients that
//! send again what was not confirmed, and exporters.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;

use super::super::*;
use super::exporter::{self, Does, OtherSide};
use super::machine::{End, Machine};
use super::stream::{POLLER, Parcel, Stage};
use crate::pipeline::{
    Context, Counters, Input, Instance, Make, ManualClock, OutboxSettings, Output, Receipt, Registry, Services, Waiting,
};
use crate::storage::{LogOptions, Reader, Storage};

/// The most bytes that the input log may have, and about how many a segment has.
pub(super) const LOG: LogOptions = LogOptions { segment_size: 16 << 10, max_size: 256 << 10 };
/// What the clock shows at first: far behind are all event times.
const NOW: u64 = BEGIN + 400 * 86_400;
/// How long anything may take that nothing hinders.
const SOON: Duration = Duration::from_secs(60);
/// So long a client waits for the answer before the disk is repaired.
const PATIENCE: Duration = Duration::from_millis(40);

/// What goes wrong with the disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Full(u64),
    ReadOnly,
    Writes(u32),
    Syncs(u32),
    Cuts(u32),
    Names(u32),
}

/// How a life goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// The machine ends at this call to its disk.
    pub(super) end: Option<(End, i64)>,
    /// It ends when the connector has been looked at so often.
    pub(super) end_at_poll: Option<u64>,
    /// It is stopped in order when so many stages are through.
    pub(super) stages: Option<usize>,
    /// Before these stages the disk begins to fail; it is repaired when clients have tried this often.
    pub(super) faults: Vec<(usize, Fault, u32)>,
    /// What the exporters do.
    pub(super) does: [Vec<Does>; 2],
    pub(super) shards: usize,
    /// Everything is to be delivered before its end.
    pub(super) is_last: bool,
    /// An hour of history is learnt first.
    pub(super) history: bool,
}

/// What outlives daemons.
pub(super) struct World {
    pub(super) disk: SimFiles,
    pub(super) storage: Arc<dyn Storage>,
    pub(super) stages: Arc<Vec<Stage>>,
    /// The stage that is on its way.
    pub(super) at: usize,
    /// What of it was confirmed.
    confirmed: BTreeSet<usize>,
    pub(super) others: [OtherSide; 2],
    pub(super) random: fastrand::Rng,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Dead,
    InOrder,
    /// It could not go on while its disk failed.
    ByFault,
}

/// Configuration of the detector.
pub(super) fn config(shards: usize) -> serde_json::Value {
    json!({ "shards": shards, "warmup": 20, "threshold": 1.1, "idle_timeout": "6h" })
}

/// Where the detector keeps what it knows.
pub(super) fn folder() -> PathBuf {
    "data/production/detector".into()
}

impl World {
    pub(super) fn new(seed: u64, stages: Arc<Vec<Stage>>) -> Self {
        Self {
            disk: SimFiles::new(seed),
            storage: Arc::new(MemoryStorage::default()),
            stages,
            at: 0,
            confirmed: BTreeSet::new(),
            others: Default::default(),
            random: fastrand::Rng::with_seed(seed ^ 0x5eed),
        }
    }

    /// Whether all was taken in.
    pub(super) fn is_through(&self) -> bool {
        self.at == self.stages.len()
    }

    /// Lives once.
    ///
    /// # Errors
    /// What must never happen.
    pub(super) async fn live(&mut self, plan: Plan) -> Result<Ended, String> {
        let (end, calls) = plan.end.map_or((End::Kill, None), |(end, calls)| (end, Some(calls)));
        let machine = Machine::new(self.disk.clone(), end, calls);
        let living = self.live_on(&machine, plan);
        let ended = tokio::select! {
            biased;
            () = machine.died() => Ok(Ended::Dead),
            ended = tokio::time::timeout(4 * SOON, living) => ended.unwrap_or_else(|_| Err("it hangs".to_owned())),
        };
        let ended = if machine.is_dead() { Ok(Ended::Dead) } else { ended };
        self.disk = machine.next_disk();
        ended
    }

    async fn live_on(&mut self, machine: &Machine, plan: Plan) -> Result<Ended, String> {
        let clock = Arc::new(ManualClock::new(self.time()));
        let registry = Registry::default();
        let counters = Arc::new(Counters::default());
        let services = Services {
            clock: Arc::clone(&clock) as _,
            storage: Arc::clone(&self.storage),
            data_dir: "data".into(),
            files: Some(Arc::new(machine.clone())),
            input_log: Some(LOG),
            checkpoint_interval: Duration::from_millis(1),
            outbox: OutboxSettings { max_size: 8 << 20, patience: Duration::from_millis(if plan.is_last { 10_000 } else { 30 }) },
            registry: registry.clone(),
            queue_capacity: 4,
        };
        let context = Context { counters: Arc::clone(&counters), ..Context::of_test("production", "detector", services) };
        let at_start = plan.faults.iter().find(|(stage, ..)| *stage == self.at);
        let mut failing = at_start.is_some();
        at_start.into_iter().for_each(|(_, fault, _)| fault.begin(machine));
        let Make::Connector(make) = super::super::super::FACTORY.make else { panic!("a connector") };
        let mut config = config(plan.shards);
        if plan.history {
            config["warmup"] = json!({ "buckets": 20, "history": "1h" });
        }
        let made = make(Instance { config, context });
        let history = registry.history(&environment());
        history.join(POLLER, UnixNanos::from_secs(BEGIN));
        history.seal();
        let starting = async {
            let mut detector = made?;
            detector.start().await.map(|()| detector)
        };
        let mut starting = std::pin::pin!(starting);
        let started = match tokio::time::timeout(10 * PATIENCE, &mut starting).await {
            Ok(started) => started,
            Err(_) => {
                // What is found again waits for a disk that takes it.
                machine.disk().heal();
                starting.await
            }
        };
        let detector = match started {
            Ok(detector) => detector,
            Err(_) if failing => {
                machine.disk().heal();
                return Ok(Ended::ByFault);
            }
            Err(error) => return Err(format!("it does not start: {error}")),
        };
        // A page that is in the log was read.
        let marks = registry.marks(&environment(), POLLER);
        if let (Some(Stage::Page(_, page)), Some(mark)) = (self.stages.get(self.at), marks.last())
            && mark.generation >= *page
        {
            self.at += 1;
        }

        let (edge, input) = Input::queue(4, counters);
        let (one, one_in) = Input::queue(1, Arc::default());
        let (two, two_in) = Input::queue(1, Arc::default());
        let [does_one, does_two] = plan.does.clone();
        let exporters = async {
            tokio::join!(
                exporter::run(one_in, does_one, self.others[0].clone(), machine.clone()),
                exporter::run(two_in, does_two, self.others[1].clone(), machine.clone())
            )
        };
        let mut running = detector.run(input, Output::new(vec![one.named("one"), two.named("two")]));
        let (mut polls, end_at) = (0, plan.end_at_poll);
        let running = poll_fn(|context| {
            polls += 1;
            if Some(polls) == end_at {
                machine.die();
            }
            if machine.is_dead() { std::task::Poll::Pending } else { running.as_mut().poll(context) }
        });
        let mut clients = Clients {
            output: Output::new(vec![edge]),
            machine,
            registry,
            storage: Arc::clone(&self.storage),
            clock,
            stages: &self.stages,
            at: &mut self.at,
            confirmed: &mut self.confirmed,
            random: &mut self.random,
            failing: &mut failing,
        };
        let clients = async {
            let sent = clients.send(&plan).await;
            // The input ends.
            let failing = *clients.failing;
            drop(clients);
            (sent, failing)
        };
        let (ended, (sent, failing), _) = tokio::join!(running, clients, exporters);
        machine.disk().heal();
        match (ended, sent) {
            (_, Err(why)) => Err(why),
            (Err(error), _) if failing && !error.0.contains("panicked") => Ok(Ended::ByFault),
            (Err(error), _) => Err(format!("it ended: {error}")),
            (Ok(()), _) => Ok(Ended::InOrder),
        }
    }

    /// What the outbox holds: cursors, and the ids of what is in its log.
    pub(super) fn left(&self) -> Vec<String> {
        let files: Arc<dyn crate::storage::Files> = Arc::new(self.disk.clone());
        let outbox = folder().join("outbox");
        let read = Reader::open(Arc::clone(&files), outbox.join("log"), 0).into_iter().flatten();
        let mut all: Vec<String> = read
            .map(|record| match record {
                Ok((index, bytes)) => format!("{index}: {}", String::from_utf8_lossy(&bytes)),
                Err(damage) => damage.to_string(),
            })
            .collect();
        let files = self.disk.all().into_iter().filter(|(path, _)| path.parent() == Some(&outbox));
        all.extend(files.map(|(path, _)| String::from_utf8_lossy(&self.disk.content(&path).unwrap_or_default()).into_owned()));
        all
    }

    fn time(&self) -> UnixNanos {
        time_of(self.at)
    }
}

fn time_of(stage: usize) -> UnixNanos {
    UnixNanos::from_secs(NOW + stage as u64)
}

impl Fault {
    fn begin(self, machine: &Machine) {
        machine.disk().faults(|faults| match self {
            Self::Full(free) => faults.free = Some(free),
            Self::ReadOnly => faults.read_only = true,
            Self::Writes(times) => faults.write_errors = times,
            Self::Syncs(times) => faults.sync_errors = times,
            Self::Cuts(times) => (faults.cut_errors, faults.sync_errors) = (times, times),
            Self::Names(times) => faults.name_errors = times,
        });
    }
}

/// Those who send.
struct Clients<'a> {
    output: Output,
    machine: &'a Machine,
    registry: Registry,
    storage: Arc<dyn Storage>,
    clock: Arc<ManualClock>,
    stages: &'a [Stage],
    at: &'a mut usize,
    confirmed: &'a mut BTreeSet<usize>,
    random: &'a mut fastrand::Rng,
    /// The disk fails.
    failing: &'a mut bool,
}

impl Clients<'_> {
    async fn send(&mut self, plan: &Plan) -> Result<(), String> {
        let until = plan.stages.map_or(self.stages.len(), |stages| (*self.at + stages).min(self.stages.len()));
        while *self.at < until {
            self.clock.set(time_of(*self.at));
            let mut patience = 0;
            if let Some((_, fault, tries)) = plan.faults.iter().find(|(stage, ..)| *stage == *self.at) {
                (*self.failing, patience) = (true, *tries);
                fault.begin(self.machine);
            }
            let begin = Instant::now();
            let mut tries = 0;
            while !self.stage().await? {
                if self.output.room().await.is_err() {
                    // It has ended by itself; what it says is looked at.
                    return Ok(());
                }
                tries += 1;
                if tries >= patience {
                    self.heal();
                }
                if begin.elapsed() > SOON {
                    return Err(format!("stage {} is not taken in: {:?}", self.at, self.stages[*self.at]));
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.heal();
            *self.at += 1;
            self.confirmed.clear();
            self.judge_room(plan.faults.len())?;
        }
        Ok(())
    }

    fn heal(&mut self) {
        if std::mem::take(self.failing) {
            self.machine.disk().heal();
        }
    }

    /// Tries what is left of the stage; whether it is through.
    async fn stage(&mut self) -> Result<bool, String> {
        let stages = self.stages;
        let done = match &stages[*self.at] {
            Stage::Send(parcels) => {
                let mut left: Vec<usize> = (0..parcels.len()).filter(|place| !self.confirmed.contains(place)).collect();
                self.random.shuffle(&mut left);
                let mut waiting = Vec::new();
                for place in left {
                    if self.random.u8(0..8) == 0 {
                        // A client that stops waiting at once, and sends it again.
                        drop(self.hand_in(&parcels[place]).await?);
                    }
                    let Some(answer) = self.hand_in(&parcels[place]).await? else { return Ok(false) };
                    waiting.push(async move { (place, answer.heard().await.is_ok()) });
                }
                let heard = self.patiently(join_all(waiting)).await?;
                if !self.machine.is_dead() {
                    self.confirmed.extend(heard.into_iter().filter(|(_, kept)| *kept).map(|(place, _)| place));
                }
                self.confirmed.len() == parcels.len()
            }
            Stage::Page(parcel, _) => match self.hand_in(parcel).await? {
                Some(answer) => self.patiently(answer.heard()).await?.is_ok(),
                None => false,
            },
            Stage::Mute(reason) => {
                // Whoever has heard nothing looks before muting again.
                let told =
                    |answer: &serde_json::Value| answer["mutes"].as_array().unwrap().iter().any(|m| m["reason"] == **reason);
                match self.ask("mutes", json!({})).await? {
                    Some(mutes) if told(&mutes) => true,
                    Some(_) => {
                        let body = json!({ "match": { "service": "cart" }, "for": "1h", "reason": reason });
                        self.ask("mute", body).await?.is_some()
                    }
                    None => false,
                }
            }
            Stage::HistoryRead => {
                self.registry.history(&environment()).done(POLLER);
                let learnt = || self.storage.get("warmup/production/detector").unwrap().unwrap_or_default();
                while !String::from_utf8(learnt()).unwrap().contains("\"done\":true") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                // The journal hears of it a moment before.
                tokio::time::sleep(Duration::from_millis(200)).await;
                true
            }
            Stage::Normal(anomaly) => self.ask("feedback", json!({ "anomaly": anomaly, "verdict": "normal" })).await?.is_some(),
        };
        if self.machine.is_dead() {
            // Nobody has heard anything.
            std::future::pending::<()>().await;
        }
        Ok(done)
    }

    /// Hands a batch in. Where its sender hears of it; nothing if nobody takes it.
    async fn hand_in(&mut self, parcel: &Parcel) -> Result<Option<Waiting>, String> {
        let output = self.output.clone();
        let room = self.patiently(output.room()).await?;
        Ok(room.ok().map(|room| {
            let (receipt, waiting) = Receipt::new();
            room.send(&parcel.payload, &parcel.origin, receipt);
            waiting
        }))
    }

    async fn ask(&mut self, subject: &str, body: serde_json::Value) -> Result<Option<serde_json::Value>, String> {
        let Some(desk) = self.registry.desks(subject).pop() else { return Ok(None) };
        Ok(self.patiently(desk.ask(subject, body)).await?.ok())
    }

    /// Waits for an answer. When none comes while the disk fails, it is repaired.
    async fn patiently<T>(&mut self, answer: impl Future<Output = T>) -> Result<T, String> {
        let mut answer = std::pin::pin!(answer);
        if let Ok(answer) = tokio::time::timeout(PATIENCE, &mut answer).await {
            return Ok(answer);
        }
        self.heal();
        let late = tokio::time::timeout(SOON, answer).await;
        late.map_err(|_| format!("there is no answer at stage {}: {:?}", self.at, self.stages[*self.at]))
    }

    /// The folders are not larger than they may be.
    fn judge_room(&self, faults: usize) -> Result<(), String> {
        let all = self.machine.disk().all();
        let inside = |folder: PathBuf| all.iter().filter(move |(path, _)| path.parent() == Some(&folder));
        let log: u64 = inside(folder().join("log")).map(|(_, length)| length).sum();
        // A segment that is just being begun has no name yet.
        if log > LOG.max_size + LOG.segment_size {
            return Err(format!("the input log has {log} bytes: {all:#?}"));
        }
        // One that has just got its name, and the two that are kept; those that could not be removed, and those whose removal
        // a power cut has undone.
        let is_checkpoint = |path: &std::path::Path| path.extension().is_none();
        if inside(folder()).filter(|(path, _)| is_checkpoint(path)).count() > 6 + 4 * faults {
            return Err(format!("too many checkpoints: {all:#?}"));
        }
        Ok(())
    }
}
