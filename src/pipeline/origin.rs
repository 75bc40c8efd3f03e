//! What travels with a payload so that it is taken in once, whatever fails on the way.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Signal, SourceId};

/// The content of a request, as a hash: who sends it again after a lost answer sends the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BatchId(pub [u8; 16]);

impl BatchId {
    /// Of `parts`, in this order.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }

    /// The same request on its way through `pipeline`: it may come to one detector by several.
    #[must_use]
    pub fn through(self, pipeline: &str) -> Self {
        Self::of(&[&self.0, pipeline.as_bytes()])
    }
}

/// How far a receiver has read, as it stands when this batch is taken in. Kept with the batch, so that after a crash
/// the receiver knows exactly what was taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Whose.
    pub source: SourceId,
    /// A receiver marks each signal on its own.
    pub signal: Signal,
    /// Counts up with every batch of the receiver.
    pub generation: u64,
    /// What the receiver makes of it.
    pub bytes: Vec<u8>,
}

/// Where a payload comes from. What comes from nowhere in particular is [`Origin::default`].
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The same for the same content; none where a sender does not send again.
    pub id: Option<BatchId>,
    /// How far its receiver has read with it.
    pub mark: Option<Arc<Mark>>,
}
