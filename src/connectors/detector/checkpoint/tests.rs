//! Checkpoints by hand: the tests of the detector decide when a shard pays.

use super::super::core::Core;
use super::super::key::VERSION;
use super::*;

/// The chunks of a checkpoint.
pub(in super::super) type Chunks = Vec<(u8, Vec<u8>)>;

/// A whole checkpoint of `cores` as they are now.
pub(in super::super) fn written(cores: &mut [Core]) -> Chunks {
    let mut chunks = begin(cores);
    cores.iter_mut().for_each(|core| finish(core, &mut chunks));
    chunks
}

/// From now on `cores` owe a checkpoint, of which this stands in front.
pub(in super::super) fn begin(cores: &mut [Core]) -> Chunks {
    cores.iter_mut().for_each(Core::begin_checkpoint);
    let head = Head { format: FORMAT, model: VERSION.to_owned(), bucket: cores[0].settings.timing.bucket };
    vec![
        (Kind::Head.number(), postcard::to_stdvec(&head).unwrap()),
        (Kind::Shared.number(), postcard::to_stdvec(&cores[0].shared()).unwrap()),
    ]
}

/// Pays about `bytes` of what `core` owes. Gives the bytes that it holds.
pub(in super::super) fn pay(core: &mut Core, bytes: usize, chunks: &mut Chunks) -> usize {
    core.pay_checkpoint(bytes);
    assert!(!core.checkpoint_failed());
    chunks.extend(std::iter::from_fn(|| core.take_checkpoint_chunk()).map(|(kind, bytes)| (kind.number(), bytes)));
    core.checkpoint_held()
}

/// Pays all of it.
pub(in super::super) fn finish(core: &mut Core, chunks: &mut Chunks) {
    while core.owes_checkpoint() {
        pay(core, 1000, chunks);
    }
    assert_eq!(pay(core, 0, chunks), 0);
}

pub(in super::super) fn give_up(core: &mut Core) {
    core.give_up_checkpoint();
    assert_eq!((core.owes_checkpoint(), core.checkpoint_held()), (false, 0));
}

#[test]
fn what_nobody_takes_is_kept_up_to_a_bound_and_then_given_up() {
    let mut core = crate::connectors::detector::tests::learnt();
    let all: usize = written(std::slice::from_mut(&mut core)).iter().map(|(_, bytes)| bytes.len()).sum();
    for (room, given_up) in [(2 * all, false), (1000, true)] {
        let (pieces, mut taken) = tokio::sync::mpsc::channel(1);
        let mut saver = Saver::with_room(pieces, room);
        saver.begin(&mut core, 5);
        assert!(saver.owes());
        while core.owes_checkpoint() {
            saver.idle(&mut core);
        }
        // Somebody takes it at last.
        let mut parts = Vec::new();
        while saver.owes() || !taken.is_empty() {
            parts.extend(taken.try_recv().ok().map(|piece| (piece.index, piece.part)));
            saver.between(&mut core);
        }
        let bytes: usize = parts.iter().map(|(_, part)| part.bytes()).sum();
        let last = &parts.last().unwrap();
        assert_eq!(last.0, 5);
        if given_up {
            assert!(matches!(last.1, Part::GivenUp("the disk was too slow for it")), "{last:?}");
            assert_eq!(core.checkpoint_held(), 0);
        } else {
            assert!(matches!(last.1, Part::Ended(_)) && bytes > all / 2, "{bytes} of {all}");
        }
    }
}
