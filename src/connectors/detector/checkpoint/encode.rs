//! Entries become chunks of bytes.

use std::collections::VecDeque;

use postcard::ser_flavors::Flavor;
use serde::Serialize;

/// Bytes from which on a chunk is full. One that ends with a large entry (a forest) is larger.
pub(super) const CHUNK: usize = 256 << 10;

/// Bytes that values are appended to, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Buffer(Vec<u8>);

/// What postcard writes goes to the end of a buffer.
struct Appending<'a>(&'a mut Vec<u8>);

impl Flavor for Appending<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl Buffer {
    /// Appends `value`.
    ///
    /// # Errors
    /// When it is of a form that cannot be written (a sequence of unknown length), which nothing learnt is.
    pub(crate) fn write(&mut self, value: &(impl Serialize + ?Sized)) -> postcard::Result<()> {
        postcard::serialize_with_flavor(value, Appending(&mut self.0))
    }

    /// Appends what is encoded already.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Entries on their way out.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    open: Buffer,
    full: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Chunks {
    /// Appends one entry, by `write`: all of it or nothing.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Buffer) -> postcard::Result<()>) -> postcard::Result<()> {
        let before = self.open.0.len();
        if before == 0 {
            self.open.0.reserve(CHUNK + CHUNK / 4);
        }
        let written = write(&mut self.open);
        if written.is_err() {
            self.open.0.truncate(before);
        }
        self.bytes += self.open.0.len() - before;
        if self.open.0.len() >= CHUNK {
            self.full.push_back(std::mem::take(&mut self.open.0));
        }
        written
    }

    /// Bytes that are not taken yet.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next full chunk; where no more entries come, also one that is not full.
    pub(super) fn take(&mut self, last: bool) -> Option<Vec<u8>> {
        let rest = || (last && !self.open.0.is_empty()).then(|| std::mem::take(&mut self.open.0));
        let chunk = self.full.pop_front().or_else(rest)?;
        self.bytes -= chunk.len();
        Some(chunk)
    }
}
