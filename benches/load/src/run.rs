//! One run: requests when they are due, what is refused again later, until all is acknowledged or time is up.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Error;
use crate::client::{Answer, Connection, Protocol, Target};
use crate::request::Shape;
use crate::tally::{Tally, record};

/// How long a client waits before it sends something again: `first`, then half as long again each time, up to `most`,
/// with a jitter of a half; never shorter than the answer asks. As the Collector's exporters do it.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// After the first refusal.
    pub first: Duration,
    /// At most.
    pub most: Duration,
}

impl Backoff {
    fn wait(self, attempt: u32, asked: Option<Duration>, rng: &mut Rng) -> Duration {
        let factor = 1.5f64.powi(attempt.saturating_sub(1).min(60).cast_signed());
        let wait = self.first.mul_f64(factor.min(1e6)).min(self.most).mul_f64(0.5 + rng.f64());
        wait.max(asked.unwrap_or_default())
    }
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is sent.
    pub shape: Shape,
    /// Where to.
    pub target: Target,
    /// How many connections.
    pub connections: usize,
    /// Calls in flight on each of them.
    pub in_flight: usize,
    /// Records a second; nothing for as fast as it takes.
    pub rate: Option<f64>,
    /// How long new requests are made.
    pub duration: Duration,
    /// How long after that what was refused is sent again.
    pub patience: Duration,
    /// Between two attempts.
    pub backoff: Backoff,
    /// Which requests are made; they end with these, or with `duration`.
    pub numbers: Range<u64>,
    /// When their records happened.
    pub clock: Clock,
}

/// When the records of a request happened.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// When it is made.
    Now,
    /// Request `number` at `start + number * step`, nanoseconds since the epoch: the past goes by as fast as it is taken.
    Past {
        /// Of request 0.
        start: u64,
        /// From one to the next.
        step: u64,
    },
}

impl Clock {
    /// The time of request `number`, which is made now.
    fn of(self, number: u64) -> u64 {
        match self {
            Self::Now => now(),
            Self::Past { start, step } => start.saturating_add(number.saturating_mul(step)),
        }
    }
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(0))
}

/// A request that has been sent, and comes again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Again {
    at: Instant,
    job: Job,
}

/// A request: its bytes follow from this.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    number: u64,
    /// When its records happened, nanoseconds since the epoch.
    time: u64,
    due: Instant,
    attempts: u32,
    /// Whether an attempt got no answer.
    unsure: bool,
}

struct State {
    next: u64,
    waiting: BinaryHeap<Reverse<Again>>,
    in_flight: u64,
    tally: Tally,
    rng: Rng,
}

struct Run {
    plan: Plan,
    began: Instant,
    state: Mutex<State>,
    /// Making a request takes time of the threads that also look after connections: were all made at once, calls would
    /// look slow because of what goes on here.
    making: Semaphore,
}

enum Next {
    Send(Job),
    Wait(Instant),
    Done,
}

/// Sends as `plan` says. Also says how long it took until the last answer.
///
/// # Errors
/// When a sender ended in a panic.
pub async fn run(plan: Plan) -> Result<(Tally, Duration), Error> {
    let state = State {
        next: plan.numbers.start,
        waiting: BinaryHeap::new(),
        in_flight: 0,
        tally: Tally::default(),
        rng: Rng::with_seed(plan.shape.seed),
    };
    let run = Arc::new(Run { plan, began: Instant::now(), state: Mutex::new(state), making: Semaphore::new(1) });
    let mut senders = JoinSet::new();
    for _ in 0..run.plan.connections.max(1) {
        let shared = Arc::new(Connection::new(run.plan.target.clone()));
        for _ in 0..run.plan.in_flight.max(1) {
            let connection = match run.plan.target.protocol {
                Protocol::Grpc => Arc::clone(&shared),
                Protocol::Http => Arc::new(Connection::new(run.plan.target.clone())),
            };
            senders.spawn(sender(Arc::clone(&run), connection));
        }
    }
    while let Some(ended) = senders.join_next().await {
        ended?;
    }
    let took = run.began.elapsed();
    let mut state = run.state();
    let mut tally = std::mem::take(&mut state.tally);
    tally.left = state.waiting.len() as u64 * run.plan.shape.records as u64;
    Ok((tally, took))
}

async fn sender(run: Arc<Run>, connection: Arc<Connection>) {
    loop {
        match run.next() {
            Next::Done => return,
            Next::Wait(until) => tokio::time::sleep_until(until.into()).await,
            Next::Send(job) => {
                let making = run.making.acquire().await;
                let body = run.plan.shape.body(job.number, job.time).unwrap_or_default();
                drop(making);
                let sent = Instant::now();
                let answer = connection.send(body).await;
                run.answered(job, sent.elapsed(), answer);
            }
        }
    }
}

impl Run {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a sender that is free does next.
    fn next(&self) -> Next {
        let (plan, now) = (&self.plan, Instant::now());
        let mut state = self.state();
        let end = self.began + plan.duration;
        if now > end + plan.patience {
            return Next::Done;
        }
        let records = plan.shape.records as u64;
        let again = state.waiting.peek().map(|Reverse(again)| again.at);
        if again.is_some_and(|at| at <= now)
            && let Some(Reverse(Again { job, .. })) = state.waiting.pop()
        {
            state.in_flight += 1;
            state.tally.retried += records;
            return Next::Send(job);
        }
        let made = state.next - plan.numbers.start;
        let due = match plan.rate {
            _ if state.next >= plan.numbers.end => end,
            Some(rate) => self.began + Duration::from_secs_f64(made as f64 * records as f64 / rate.max(1e-3)),
            None => now,
        };
        if now < end && due <= now {
            let time = plan.clock.of(state.next);
            let job = Job { number: state.next, time, due, attempts: 0, unsure: false };
            state.next += 1;
            state.in_flight += 1;
            state.tally.sent += records;
            return Next::Send(job);
        }
        if due >= end && state.waiting.is_empty() && state.in_flight == 0 || now >= end && again.is_none() && state.in_flight == 0
        {
            return Next::Done;
        }
        // A call in flight may be refused and come again, so nobody waits for long.
        let soon = now + Duration::from_millis(20);
        Next::Wait(again.into_iter().chain((due < end).then_some(due)).fold(soon, Instant::min).max(now))
    }

    fn answered(&self, mut job: Job, took: Duration, answer: Answer) {
        let records = self.plan.shape.records as u64;
        let mut guard = self.state();
        let state = &mut *guard;
        state.in_flight -= 1;
        job.attempts += 1;
        let mut again = None;
        match answer {
            Answer::Taken { rejected } => {
                state.tally.acknowledged += records;
                state.tally.rejected += rejected;
                state.tally.unsure += if job.unsure { records } else { 0 };
                record(&mut state.tally.call, took);
                record(&mut state.tally.whole, job.due.elapsed());
            }
            Answer::Refused { code, retry, after, message } => {
                *state.tally.refused.entry(code.clone()).or_default() += records;
                state.tally.said.entry(code.clone()).or_insert(message);
                record(&mut state.tally.refusal, took);
                if retry {
                    state.tally.unhinted += if after.is_none() { records } else { 0 };
                    again = Some(after);
                } else {
                    *state.tally.refused_for_good.entry(code).or_default() += records;
                }
            }
            Answer::None { why } => {
                state.tally.failed += records;
                state.tally.said.entry("no answer".to_owned()).or_insert(why);
                job.unsure = true;
                again = Some(None);
            }
        }
        if let Some(asked) = again {
            let at = Instant::now() + self.plan.backoff.wait(job.attempts, asked, &mut state.rng);
            state.waiting.push(Reverse(Again { at, job }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_to_its_bound_and_is_never_shorter_than_asked() {
        let backoff = Backoff { first: Duration::from_millis(100), most: Duration::from_secs(5) };
        let mut rng = Rng::with_seed(1);
        for attempt in 1..100 {
            let wait = backoff.wait(attempt, None, &mut rng);
            assert!(wait >= Duration::from_millis(50) && wait <= Duration::from_millis(7500), "{attempt}: {wait:?}");
            assert!(backoff.wait(attempt, Some(Duration::from_secs(9)), &mut rng) >= Duration::from_secs(9));
        }
    }
}
