//! Any course of events: each target has every finding, in order, and only those may come twice that the module speaks of.
//!
//! The test plays the journal: its entries are on disk, so after each restart it appends the findings of all entries
//! since the last checkpoint again.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    /// Entries happen, each with so many findings.
    Entries(Vec<u32>),
    /// A checkpoint: the outbox is synced, and the journal goes back to here no more.
    Checkpoint,
    /// Targets handle so many deliveries.
    Handle(u8),
    /// A target changes how it behaves.
    Behave(usize, Behaviour),
    /// Some time passes: cursors are written.
    Tidy,
    /// The process is killed; or the machine, too.
    Crash { power: bool },
    /// An orderly stop.
    Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behaviour {
    Keep,
    /// Lets go of every second one.
    LetGo,
    Refuse,
    /// Takes nothing.
    Block,
    /// Has it, and cannot say so any more.
    KeepInSilence,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let behaviour = prop_oneof![
        3 => Just(Behaviour::Keep),
        1 => Just(Behaviour::LetGo),
        1 => Just(Behaviour::Refuse),
        1 => Just(Behaviour::Block),
        1 => Just(Behaviour::KeepInSilence),
    ];
    let step = prop_oneof![
        6 => prop::collection::vec(0u32..3, 1..12).prop_map(Step::Entries),
        2 => Just(Step::Checkpoint),
        6 => (1u8..20).prop_map(Step::Handle),
        2 => (0..NAMES.len(), behaviour).prop_map(|(target, behaviour)| Step::Behave(target, behaviour)),
        2 => Just(Step::Tidy),
        2 => any::<bool>().prop_map(|power| Step::Crash { power }),
        1 => Just(Step::Stop),
    ];
    prop::collection::vec(step, 1..25)
}

const NAMES: [&str; 2] = ["elasticsearch", "file"];

/// A running daemon, as far as the outbox knows it.
struct Life {
    outbox: Outbox,
    targets: Vec<Played>,
    running: tokio::task::JoinHandle<Result<(), crate::pipeline::ComponentError>>,
}

struct World {
    files: SimFiles,
    folder: tempfile::TempDir,
    /// Findings of each entry that is on disk in the journal.
    journal: Vec<u32>,
    checkpoint: usize,
    behaviours: [Behaviour; 2],
    /// How often each target has had each finding.
    had: [BTreeMap<String, u32>; 2],
    /// In the order in which it had them first.
    order: [Vec<String>; 2],
    handled: u64,
    /// Findings that may come again, because a target could not say that it had them, or died.
    lives: u32,
    silent: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            files: SimFiles::new(seed),
            folder: tempfile::tempdir().unwrap(),
            journal: Vec::new(),
            checkpoint: 0,
            behaviours: [Behaviour::Keep; 2],
            had: Default::default(),
            order: Default::default(),
            handled: 0,
            lives: 0,
            silent: false,
        }
    }

    async fn begin(&self) -> Life {
        let context = context(Some(self.files.clone()), self.folder.path(), 4 << 20);
        let outbox = Outbox::open(&context).unwrap();
        let replay = outbox.clone();
        let entries: Vec<(usize, u32)> = self.journal.iter().copied().enumerate().skip(self.checkpoint).collect();
        tokio::task::spawn_blocking(move || {
            for (entry, count) in entries {
                replay.append(entry as u64, &findings(entry as u64, count)).unwrap();
            }
        })
        .await
        .unwrap();
        let targets: Vec<Played> = NAMES.iter().map(|name| played(name, 4)).collect();
        let running = run(&outbox, Output::new(targets.iter().map(|target| target.edge.clone()).collect()));
        let attached = outbox.clone();
        until("it runs", || lock(&attached.0.state).attached).await;
        Life { outbox, targets, running }
    }

    /// The targets handle up to `count` deliveries each, as far as there are any.
    async fn handle(&mut self, life: &mut Life, count: u32) {
        for _ in 0..count {
            tokio::time::sleep(Duration::from_millis(1)).await;
            for (place, target) in life.targets.iter_mut().enumerate() {
                let behaviour = self.behaviours[place];
                if behaviour == Behaviour::Block {
                    continue;
                }
                let Some(delivery) = target.input.try_recv() else { continue };
                if delivery.flight.is_withdrawn() {
                    delivery.flight.refused();
                    continue;
                }
                self.handled += 1;
                let lets_go = behaviour == Behaviour::LetGo && self.handled.is_multiple_of(2);
                if lets_go {
                    drop(delivery);
                } else if behaviour == Behaviour::Refuse {
                    delivery.flight.refused_because("not now");
                } else {
                    for id in found(&delivery) {
                        let times = self.had[place].entry(id.clone()).or_default();
                        *times += 1;
                        if *times == 1 {
                            self.order[place].push(id);
                        }
                    }
                    if behaviour == Behaviour::KeepInSilence {
                        self.silent = true;
                        drop(delivery);
                    } else {
                        delivery.flight.sent();
                    }
                }
            }
        }
    }

    async fn play(&mut self, steps: Vec<Step>) {
        let mut life = self.begin().await;
        for step in steps {
            match step {
                Step::Entries(counts) => {
                    for count in counts {
                        let entry = self.journal.len() as u64;
                        self.journal.push(count);
                        append(&life.outbox, entry, count).await;
                    }
                }
                Step::Checkpoint => {
                    life.outbox.sync().unwrap();
                    self.checkpoint = self.journal.len();
                }
                Step::Handle(count) => self.handle(&mut life, count.into()).await,
                Step::Behave(target, behaviour) => self.behaviours[target] = behaviour,
                Step::Tidy => life.outbox.0.tidy().unwrap(),
                Step::Crash { power } => {
                    self.lives += 1;
                    if power {
                        // What the old process still does reaches a disk that nobody looks at.
                        self.files = self.files.power_cut();
                    }
                    life.running.abort();
                    let _ = (&mut life.running).await;
                    // A killed process writes nothing more.
                    until("its threads end", || Arc::strong_count(&life.outbox.0) == 1).await;
                    drop(life);
                    life = self.begin().await;
                }
                Step::Stop => {
                    life.outbox.sync().unwrap();
                    self.checkpoint = self.journal.len();
                    life.outbox.close();
                    while !life.running.is_finished() {
                        self.handle(&mut life, 1).await;
                    }
                    drop(life);
                    life = self.begin().await;
                }
            }
        }
        // In the end all is well.
        self.behaviours = [Behaviour::Keep; 2];
        let begin = std::time::Instant::now();
        while levels(&life.outbox).values().any(|level| level.waiting > 0) {
            assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", levels(&life.outbox));
            self.handle(&mut life, 1).await;
        }
        life.outbox.close();
        (&mut life.running).await.unwrap().unwrap();
    }

    fn judge(&self) {
        let all: Vec<String> =
            self.journal.iter().enumerate().flat_map(|(entry, count)| ids(&findings(entry as u64, *count))).collect();
        let place: BTreeMap<&String, usize> = all.iter().enumerate().map(|(place, id)| (id, place)).collect();
        for (target, had) in self.had.iter().enumerate() {
            let missing: Vec<&String> = all.iter().filter(|id| !had.contains_key(*id)).collect();
            assert!(missing.is_empty(), "{} never had {missing:?}", NAMES[target]);
            assert!(had.keys().all(|id| place.contains_key(id)), "only what was found");
            let twice = had.values().filter(|times| **times > 1).count();
            assert!(twice == 0 || self.lives > 0 || self.silent, "{twice} came twice to {} for no reason", NAMES[target]);
            for pair in self.order[target].windows(2) {
                assert!(place[&pair[0]] < place[&pair[1]], "{} had {} before {}", NAMES[target], pair[0], pair[1]);
            }
        }
        assert!(dead_letters(self.folder.path()).is_empty());
    }
}

/// What there is after these steps, and an end in which all is well.
fn played_out(seed: u64, steps: Vec<Step>) -> World {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut world = World::new(seed);
    runtime.block_on(world.play(steps));
    world.judge();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_each_target_has_every_finding_in_order_and_only_a_crash_repeats_one(seed in any::<u64>(), steps in steps()) {
        played_out(seed, steps);
    }
}

/// Where nothing fails but the power, a target is sent nothing twice that it had before cursors were written.
#[test]
fn a_cursor_that_is_ahead_of_an_outbox_that_lost_its_end_sends_nothing_twice() {
    for seed in 0..30 {
        let steps = vec![
            Step::Entries(vec![1, 0, 2, 1, 1, 1]),
            Step::Handle(12),
            Step::Tidy,
            Step::Crash { power: true },
            Step::Entries(vec![1, 1]),
            Step::Handle(12),
            Step::Tidy,
            Step::Crash { power: true },
        ];
        let world = played_out(seed, steps);
        for had in &world.had {
            let twice: Vec<_> = had.iter().filter(|(_, times)| **times > 1).collect();
            assert!(twice.is_empty(), "seed {seed}: {twice:?}");
        }
    }
}
