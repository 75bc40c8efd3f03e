//! What the journal adds to a checkpoint.

use serde::{Deserialize, Serialize};

use super::{Known, Started};

/// The name under which it is kept.
pub(in super::super) const JOURNAL: &str = "journal";

/// With what the detector ran when the checkpoint was begun, and what was taken in lately.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Stored {
    pub(in super::super) started: Started,
    pub(in super::super) known: Known,
}

#[derive(Serialize, Deserialize)]
struct Encoded<S> {
    started: S,
    known: Vec<u8>,
}

impl Stored {
    /// As it is kept.
    pub(in super::super) fn save(started: &Started, known: &Known) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_stdvec(&Encoded { started, known: known.save()? })
    }

    /// From what was kept.
    pub(in super::super) fn restore(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let Encoded { started, known } = postcard::from_bytes(bytes)?;
        Ok(Self { started, known: Known::restore(&known)? })
    }
}
