//! The pace at which a shard pays what it owes to a checkpoint.
//!
//! Commands always come first: a slice takes a fraction of a millisecond, and where commands wait, slices take at most a
//! quarter of the time. A shard never waits for the disk either: what nobody takes is kept, up to a bound beyond which
//! the checkpoint is given up.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::super::core::Core;
use super::encode::CHUNK;
use super::{Part, Piece};

/// Bytes that a shard keeps for a checkpoint that nobody takes.
const MOST_KEPT: usize = 64 << 20;
/// Bytes that wait to be taken, from which on nothing is written but what must be.
const ENOUGH: usize = 4 * CHUNK;
/// How much longer than a slice it takes, at least, until the next one while commands wait.
const REST: u32 = 3;
/// The longest time without a look at the commands while there are none.
const NAP: Duration = Duration::from_millis(1);

/// What one shard owes.
#[derive(Debug)]
pub(in super::super) struct Saver {
    pieces: mpsc::Sender<Piece>,
    /// The checkpoint that is owed.
    index: Option<u64>,
    waiting: VecDeque<Piece>,
    bytes: usize,
    /// The most that waits.
    room: usize,
    /// The next slice is due.
    due: Instant,
    /// The longest time for which the checkpoint has kept the shard from its work at once.
    longest: Duration,
}

impl Saver {
    pub(in super::super) fn new(pieces: mpsc::Sender<Piece>) -> Self {
        Self::with_room(pieces, MOST_KEPT)
    }

    /// One that keeps at most about so many bytes.
    pub(super) fn with_room(pieces: mpsc::Sender<Piece>, room: usize) -> Self {
        Self { pieces, index: None, waiting: VecDeque::new(), bytes: 0, room, due: Instant::now(), longest: Duration::ZERO }
    }

    /// From here on the checkpoint at `index` is owed: the state of `core` as it is now.
    pub(in super::super) fn begin(&mut self, core: &mut Core, index: u64) {
        if self.index.is_some() {
            self.give_up(core, "the next one began before this one had ended");
        }
        let before = Instant::now();
        core.begin_checkpoint();
        self.index = Some(index);
        self.longest = before.elapsed();
        self.add(Part::Shared(Box::new(core.shared())));
        self.send();
    }

    /// Whether something is owed, or waits to be taken.
    pub(in super::super) fn owes(&self) -> bool {
        self.index.is_some() || !self.waiting.is_empty()
    }

    /// After a command: takes what it made necessary, and pays a little if that is due.
    pub(in super::super) fn between(&mut self, core: &mut Core) {
        if self.owes() {
            let (before, spent) = (Instant::now(), core.checkpoint_time());
            self.step(core, before >= self.due);
            self.paused(core, before, spent);
        }
    }

    /// While no command waits: pays a slice, or waits a moment until there is room for one.
    pub(in super::super) fn idle(&mut self, core: &mut Core) {
        let before = Instant::now();
        self.step(core, true);
        // As long as it took: whoever decodes and writes needs the processor as well.
        let took = before.elapsed();
        std::thread::sleep(if self.bytes >= ENOUGH { NAP } else { took.min(NAP) });
        self.paused(core, before, Duration::ZERO);
    }

    /// Notes for how long the shard could do nothing else: since `before`, and what had to be written meanwhile for the
    /// command before that.
    fn paused(&mut self, core: &mut Core, before: Instant, spent: Duration) {
        core.checkpoint_time();
        self.longest = self.longest.max(before.elapsed() + spent);
    }

    /// No command comes any more: pays everything that is owed, as long as somebody takes it.
    pub(in super::super) fn finish(&mut self, core: &mut Core) {
        while self.owes() {
            self.pay(core);
            while let Some(piece) = self.waiting.pop_front() {
                self.bytes -= piece.part.bytes();
                if self.pieces.blocking_send(piece).is_err() {
                    return;
                }
            }
        }
    }

    fn step(&mut self, core: &mut Core, due: bool) {
        self.send();
        if self.index.is_some() {
            if due && self.bytes < ENOUGH {
                let before = Instant::now();
                self.pay(core);
                self.due = Instant::now() + before.elapsed() * REST;
            } else {
                self.collect(core);
            }
        }
        self.send();
        if self.index.is_some() && self.bytes + core.checkpoint_held() > self.room {
            self.give_up(core, "the disk was too slow for it");
        }
    }

    /// Writes a slice.
    fn pay(&mut self, core: &mut Core) {
        if self.index.is_some() {
            core.pay_checkpoint(CHUNK);
            self.collect(core);
        }
    }

    /// Takes the chunks that are full.
    fn collect(&mut self, core: &mut Core) {
        if core.checkpoint_failed() {
            return self.give_up(core, "something that was learnt cannot be encoded");
        }
        while let Some((kind, bytes)) = core.take_checkpoint_chunk() {
            self.add(Part::Chunk(kind, bytes));
        }
        if !core.owes_checkpoint() {
            self.add(Part::Ended(self.longest));
            self.index = None;
        }
    }

    fn add(&mut self, part: Part) {
        if let Some(index) = self.index {
            self.bytes += part.bytes();
            self.waiting.push_back(Piece { index, part });
        }
    }

    /// Hands over what is taken without waiting.
    fn send(&mut self) {
        while let Some(piece) = self.waiting.pop_front() {
            let bytes = piece.part.bytes();
            match self.pieces.try_send(piece) {
                Ok(()) => self.bytes -= bytes,
                Err(TrySendError::Full(piece)) => return self.waiting.push_front(piece),
                // Nobody listens any more.
                Err(TrySendError::Closed(_)) => {
                    self.waiting.clear();
                    self.bytes = 0;
                    self.index = None;
                }
            }
        }
    }

    fn give_up(&mut self, core: &mut Core, why: &'static str) {
        core.give_up_checkpoint();
        let Some(index) = self.index else { return };
        self.waiting.retain(|piece| piece.index != index);
        self.bytes = self.waiting.iter().map(|piece| piece.part.bytes()).sum();
        self.add(Part::GivenUp(why));
        self.index = None;
    }
}
