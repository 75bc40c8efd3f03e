//! A checkpoint holds the state of one command, whatever comes while it is written.

use proptest::prelude::*;

use super::super::checkpoint::{Outcome, Writer, newest};
use super::super::rules::{self, Request};
use super::super::shard::{self, Command, Shared, Step as Told};
use super::connector::Disk;
use super::*;
use crate::model::PayloadKind;
use crate::pipeline::Counters;
use crate::storage::Checkpoints;

/// What comes in.
#[derive(Clone, Debug)]
enum Step {
    /// A minute of data, after a gap of some minutes.
    Minute {
        gap: u64,
        faulty: bool,
        without_cart: bool,
        pods: u64,
    },
    /// A metric of another source that is behind.
    Other(u64),
    /// The clock goes on by some seconds.
    Tick(u64),
    Mute(bool),
    /// One of the findings is called normal, or not any more.
    Feedback(usize, bool),
    History(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let minute = (prop_oneof![8 => Just(0u64), 1 => 1u64..20], prop::bool::weighted(0.2), prop::bool::weighted(0.2), 0u64..7);
    prop_oneof![
        12 => minute.prop_map(|(gap, faulty, without_cart, pods)| Step::Minute { gap, faulty, without_cart, pods }),
        2 => (0u64..5).prop_map(Step::Other),
        3 => (1u64..200).prop_map(Step::Tick),
        1 => any::<bool>().prop_map(Step::Mute),
        2 => (0usize..100, any::<bool>()).prop_map(|(which, normal)| Step::Feedback(which, normal)),
        1 => any::<bool>().prop_map(Step::History),
    ]
}

/// Shards, and the minute that comes next.
struct Player {
    bench: Bench,
    minute: u64,
    live: bool,
}

impl Player {
    fn new(shards: usize, live: bool) -> Self {
        let now = if live { BEGIN } else { BEGIN + 400 * 86_400 };
        Self { bench: Bench::new(&quick(), shards, now), minute: 0, live }
    }

    /// Other shards that go on where `self` is.
    fn with(&self, cores: Vec<Core>) -> Self {
        let (shards, now) = (cores.len(), self.bench.now.secs());
        let bench = Bench { cores, anomalies: self.bench.anomalies.clone(), ..Bench::new(&quick(), shards, now) };
        Self { bench, ..*self }
    }

    fn play(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.step(step));
    }

    fn step(&mut self, step: &Step) {
        if matches!(step, Step::Mute(_) | Step::Feedback(..) | Step::History(_)) {
            self.bench.settle();
        }
        match step {
            Step::Minute { gap, faulty: bad, without_cart, pods } => {
                self.minute += gap;
                let begin = BEGIN + self.minute * MINUTE;
                for second in (begin..begin + MINUTE).step_by(20) {
                    let mut items = if *bad { faulty(second) } else { healthy(second) };
                    items.retain(|o| !(*without_cart && o.entity.service == "cart"));
                    items.extend((0..*pods).map(|pod| on_pod(pod, second)));
                    if self.live {
                        self.bench.tick(second);
                    }
                    self.bench.feed(items);
                }
                self.minute += 1;
            }
            Step::Other(behind) => {
                let second = BEGIN + self.minute.saturating_sub(*behind) * MINUTE;
                let Payload::Observations(mut all) = payload(vec![gauge("other", second, 5.0 + noise(second))]) else { return };
                Arc::make_mut(&mut all).signal = Signal::Metrics;
                let divided = self.bench.intake.divide(Payload::Observations(all), self.bench.now);
                self.bench.feeds(divided.feeds);
            }
            Step::Tick(seconds) => self.bench.tick(self.bench.now.secs() + seconds),
            Step::Mute(begin) => self.ask(&if *begin {
                serde_json::json!(["mute", { "match": { "service": "cart" }, "for": "5m" }])
            } else {
                serde_json::json!(["unmute", { "id": 1 }])
            }),
            Step::Feedback(which, normal) => {
                let found = self.bench.found();
                let Some(anomaly) = found.get(which % found.len().max(1)) else { return };
                let verdict = if *normal { "normal" } else { "forget" };
                self.ask(&serde_json::json!(["feedback", { "anomaly": anomaly.id, "verdict": verdict }]));
            }
            Step::History(learns) => {
                for i in 0..self.bench.cores.len() {
                    let outcome = self.bench.cores[i].learn_history(*learns);
                    self.bench.account(outcome);
                }
            }
        }
    }

    fn ask(&mut self, what: &serde_json::Value) {
        let request = Request::read(what[0].as_str().unwrap(), what[1].clone(), self.bench.now).unwrap();
        self.bench.cores.iter_mut().for_each(|core| drop(rules::answer(core, &request)));
    }
}

/// One that judges after an hour, and forgets after a quarter of one.
fn quick() -> Config {
    Config { warmup: 60.into(), threshold: 1.1, forget_after: short(900), ..config() }
}

fn on_pod(pod: u64, second: u64) -> Observation {
    let entity = Entity { instance: Some(format!("pod-{pod}")), ..Entity::service("checkout") };
    let value = 64.0 * (1.0 + pod as f64 / 4.0) + noise(second + pod);
    observation(entity, "memory", second, Measure::Gauge { sum: value, count: 1.0 })
}

fn an_hour() -> Vec<Step> {
    (0..70).map(|_| Step::Minute { gap: 0, faulty: false, without_cart: false, pods: 5 }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_checkpoint_holds_the_state_of_the_command_at_which_it_began(
        live in any::<bool>(),
        shards in 1usize..5,
        others in 1usize..5,
        before in prop::collection::vec(step(), 0..30),
        during in prop::collection::vec((step(), prop::collection::vec(0usize..20_000, 4)), 0..20),
        after in prop::collection::vec(step(), 0..10),
        given_up in any::<bool>(),
        slices in any::<Option<u64>>(),
    ) {
        let begun: Vec<Step> = an_hour().into_iter().chain(before).collect();
        let mut whole = Player::new(shards, live);
        whole.bench.slices = slices.map(fastrand::Rng::with_seed);
        whole.play(&begun);
        whole.bench.settle();
        if given_up {
            // One that is not brought to its end leaves nothing behind.
            drop(checkpoint::tests::begin(&mut whole.bench.cores));
            let (cores, half) = (&mut whole.bench.cores, &mut Vec::new());
            cores.iter_mut().for_each(|core| assert!(checkpoint::tests::pay(core, 3000, half) < 1 << 20));
            cores.iter_mut().for_each(checkpoint::tests::give_up);
        }
        let mut stopped = Player::new(shards, live);
        stopped.play(&begun);

        let mut chunks = checkpoint::tests::begin(&mut whole.bench.cores);
        for (step, paid) in &during {
            whole.step(step);
            for (core, bytes) in whole.bench.cores.iter_mut().zip(paid) {
                checkpoint::tests::pay(core, *bytes, &mut chunks);
            }
        }
        whole.bench.settle();
        whole.bench.cores.iter_mut().for_each(|core| checkpoint::tests::finish(core, &mut chunks));

        let mut loaded = stopped.with(Bench::load(chunks, &quick(), others));
        prop_assert_eq!(loaded.bench.cores[0].shared(), stopped.bench.cores[0].shared());
        prop_assert_eq!(loaded.bench.state(), stopped.bench.state());

        let rest: Vec<Step> = during.into_iter().map(|(step, _)| step).collect();
        loaded.play(&rest);
        for player in [&mut whole, &mut loaded] {
            player.play(&after);
            player.bench.settle();
        }
        prop_assert_eq!(loaded.bench.found(), whole.bench.found());
        prop_assert_eq!(loaded.bench.state(), whole.bench.state());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_sweep_in_slices_finds_and_leaves_what_one_at_once_does(
        live in any::<bool>(),
        shards in 1usize..4,
        steps in prop::collection::vec(step(), 0..60),
        slices in any::<u64>(),
    ) {
        let steps: Vec<Step> = an_hour().into_iter().chain(steps).collect();
        let (mut whole, mut sliced) = (Player::new(shards, live), Player::new(shards, live));
        sliced.bench.slices = Some(fastrand::Rng::with_seed(slices));
        for player in [&mut whole, &mut sliced] {
            player.play(&steps);
            player.bench.settle();
        }
        prop_assert_eq!(sliced.bench.found(), whole.bench.found());
        prop_assert_eq!(sliced.bench.state(), whole.bench.state());
        let counted = |player: &Player| (player.bench.late, player.bench.closed, player.bench.events.clone());
        prop_assert_eq!(counted(&sliced), counted(&whole));
        prop_assert_eq!(sliced.bench.cores[0].series(), whole.bench.cores[0].series());
    }
}

#[test]
fn what_only_takes_data_in_is_written_apart_from_what_is_learnt() {
    let mut player = Player::new(1, false);
    player.play(&an_hour());
    let core = &mut player.bench.cores[0];
    let mut chunks = checkpoint::tests::begin(std::slice::from_mut(core));
    let all = core.records().iter().map(Vec::len).sum::<usize>();
    // Half a minute closes nothing.
    let second = BEGIN + 70 * MINUTE;
    player.bench.feed(healthy(second).into_iter().chain((0..5).map(|pod| on_pod(pod, second))).collect());
    let held = checkpoint::tests::pay(&mut player.bench.cores[0], 0, &mut chunks);
    assert!(held > 0 && held < all / 20, "{held} of {all} bytes");
    checkpoint::tests::finish(&mut player.bench.cores[0], &mut chunks);
}

/// Shards on their threads, with a checkpoint at minute 80 and, where `twice`, one right after it.
fn run(disk: &Disk, shards: usize, twice: bool) -> Option<Outcome> {
    let counters = Arc::new(Counters::default());
    let checkpoints = Checkpoints::new(Arc::new(disk.files.clone()), "data".into());
    let settings = settings(&quick());
    let context = disk.context(0, &counters);
    let (writer, pieces, outcome) = Writer::new(&context, Some(checkpoints), shards, settings.timing.bucket);
    let writing = std::thread::spawn(move || writer.run());
    let (reports, mut heard) = tokio::sync::mpsc::channel(10_000);
    let shared = Shared {
        counters: Arc::clone(&counters),
        reports,
        pieces: pieces.sender(),
        sweeping: Arc::default(),
        live_from: UnixNanos(0),
    };
    let now = UnixNanos::from_secs(BEGIN + 400 * 86_400);
    let mut intake = Intake::new(&environment(), shards, settings.timing.bucket);
    let start = |number| shard::start(number, Core::new(Arc::clone(&settings), now), shared.clone()).unwrap();
    let senders: Vec<_> = (0..shards).map(start).collect();
    drop(shared);
    for minute in 0..90 {
        for batch in minutes(minute, minute + 1, 70).chunk_by(|a, b| a.time == b.time) {
            let divided = intake.divide(payload(batch.to_vec()), now);
            for (shard, feed) in senders.iter().zip(divided.feeds) {
                let flight = counters.begin(PayloadKind::Observations, 0);
                shard.blocking_send(Told { at: minute, command: Command::Feed(feed, flight), room: None }).unwrap();
            }
        }
        for index in (80..=if twice { 81 } else { 80 }).filter(|_| minute == 79) {
            senders.iter().for_each(|shard| {
                shard.blocking_send(Told { at: index, command: Command::Checkpoint(index), room: None }).unwrap();
            });
            pieces.behind(index, vec![("incidents".to_owned(), vec![7; index as usize])]);
        }
    }
    drop(senders);
    drop(pieces);
    while heard.blocking_recv().is_some() {}
    writing.join().unwrap();
    outcome.borrow().clone()
}

#[test]
fn running_shards_write_the_state_of_the_command_and_what_is_behind_them() {
    let mut stopped = Bench::new(&quick(), 1, BEGIN + 400 * 86_400);
    stopped.play(&minutes(0, 80, 70));
    for (shards, twice) in [(1, false), (3, false), (2, true)] {
        let disk = Disk::default();
        let written = run(&disk, shards, twice);
        let index = if twice { 81 } else { 80 };
        assert!(matches!(written, Some(Outcome::Written { index: i, .. }) if i == index), "{written:?}");
        let checkpoints = Checkpoints::new(Arc::new(disk.files.clone()), "data".into());
        let settings = settings(&quick());
        let (found, loaded) = newest(&checkpoints, &[settings], |error| panic!("{error}")).unwrap().unwrap();
        assert_eq!((found, loaded.named["incidents"].len() as u64), (index, index));
        let mut loaded = Bench { cores: loaded.cores, ..Bench::new(&quick(), 1, stopped.now.secs()) };
        assert_eq!(loaded.state(), stopped.state(), "{shards} shards");
    }
}
