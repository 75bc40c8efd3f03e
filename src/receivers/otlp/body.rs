//! Bodies: gathered from the network and decompressed, both within limits that hold while they grow.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::answer::Refusal;
use crate::config::ByteSize;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a refused body is read, and for how long.
const DISCARDED: usize = 64 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Windows of zstd up to 8 MiB, as RFC 9659 wants it: the memory that one body can ask for.
const ZSTD_WINDOW_LOG: u32 = 23;
/// The output is checked after each such step.
const STEP: u64 = 256 << 10;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
    /// The zlib format, as HTTP's `deflate` and the Collector's `zlib` have it.
    Deflate,
}

impl Compression {
    /// By its name; nothing and `identity` are none.
    pub(super) fn of(name: Option<&str>) -> Result<Self, Refusal> {
        let name = name.unwrap_or_default().trim();
        let known = [
            ("", Self::None),
            ("identity", Self::None),
            ("gzip", Self::Gzip),
            ("x-gzip", Self::Gzip),
            ("zstd", Self::Zstd),
            ("deflate", Self::Deflate),
            ("zlib", Self::Deflate),
        ];
        let found = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, compression)| *compression).ok_or_else(|| Refusal::encoding(name))
    }
}

/// How many bytes all requests of a listener may hold together. Clones are one and the same.
#[derive(Clone, Debug)]
pub(super) struct Admission {
    kibibytes: Arc<Semaphore>,
    total: ByteSize,
}

impl Admission {
    pub(super) fn new(total: ByteSize) -> Self {
        let kibibytes = usize::try_from(total.bytes() >> 10).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self { kibibytes: Arc::new(Semaphore::new(kibibytes)), total }
    }

    /// How many.
    pub(super) const fn total(&self) -> ByteSize {
        self.total
    }

    pub(super) fn enter(&self) -> Reservation {
        Reservation { kibibytes: Arc::clone(&self.kibibytes), total: self.total, permits: None }
    }
}

/// What one request holds; given back when it is let go.
#[derive(Debug)]
pub(super) struct Reservation {
    kibibytes: Arc<Semaphore>,
    total: ByteSize,
    permits: Option<OwnedSemaphorePermit>,
}

impl Reservation {
    /// Holds at least `bytes`. Never waits: a request that waited for room while it holds some could wait for ever.
    pub(super) fn cover(&mut self, bytes: usize) -> Result<(), Refusal> {
        let held = self.permits.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = bytes.div_ceil(1024).checked_sub(held).filter(|more| *more > 0) else { return Ok(()) };
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(&self.kibibytes).try_acquire_many_owned(more) else {
            let message = format!("the requests that are being received hold {} already (`max_in_flight_size`)", self.total);
            return Err(Refusal::overloaded(message));
        };
        match &mut self.permits {
            Some(permits) => permits.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

/// A body that was received, and not yet decompressed.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) bytes: Bytes,
    pub(super) compression: Compression,
    pub(super) limit: ByteSize,
    pub(super) reservation: Reservation,
}

fn too_large(observed: impl std::fmt::Display, limit: ByteSize) -> Refusal {
    let bytes = limit.bytes();
    Refusal::too_large(format!(
        "the request has {observed}, the limit is {bytes} bytes ({limit}, `max_request_body_size`): send smaller batches"
    ))
}

/// Refuses a body that says that it is too large.
pub(super) fn check_declared(declared: u64, limit: ByteSize) -> Result<(), Refusal> {
    if declared > limit.bytes() { Err(too_large(format_args!("{declared} bytes"), limit)) } else { Ok(()) }
}

/// Gathers a body. `check` sees all that has arrived so far.
pub(super) async fn gather<B>(
    body: B,
    limit: u64,
    reservation: &mut Reservation,
    mut check: impl FnMut(&[u8]) -> Result<(), Refusal>,
) -> Result<Bytes, Refusal>
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut body = body;
    let gathered = async {
        // A body that arrives in one piece is never copied.
        let (mut first, mut all) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Refusal::invalid(format!("the body could not be read: {e}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&data);
            }
            let now: &[u8] = if all.is_empty() { &first } else { &all };
            check(now)?;
            if now.len() as u64 > limit {
                return Err(too_large(format_args!("more than {limit} bytes"), ByteSize::new(limit)));
            }
            reservation.cover(now.len())?;
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    tokio::time::timeout(BODY_TIMEOUT, gathered)
        .await
        .unwrap_or_else(|_| Err(Refusal::overloaded(format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()))))
}

/// Reads and forgets what is left of a refused HTTP/1.1 request, within bounds: a client that is still sending when the
/// connection closes may never see the answer.
pub(super) async fn discard<B>(mut body: B)
where
    B: hyper::body::Body<Data = Bytes> + Unpin,
{
    let drain = async {
        let mut left = DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, drain).await;
}

impl Raw {
    /// Whether unpacking and reading it would keep a worker thread for long.
    pub(super) fn is_big(&self) -> bool {
        let usual_ratio = if self.compression == Compression::None { 1 } else { 8 };
        self.bytes.len() * usual_ratio > 256 << 10
    }

    /// The body itself, and what it holds of the listener's memory.
    pub(super) fn unpack(self) -> Result<(Bytes, Reservation), Refusal> {
        let Self { bytes, compression, limit, mut reservation } = self;
        if compression == Compression::None || bytes.is_empty() {
            return Ok((bytes, reservation));
        }
        let name = format!("{compression:?}").to_lowercase();
        let read = |e: io::Error| Refusal::invalid(format!("the body is not valid {name}: {e}"));
        let (input, covered) = (bytes.as_ref(), bytes.len());
        let mut reader: Box<dyn Read + '_> = match compression {
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(read)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(read)?;
                Box::new(decoder)
            }
            Compression::Deflate => Box::new(flate2::bufread::ZlibDecoder::new(input)),
            Compression::Gzip | Compression::None => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        };
        let mut output = Vec::with_capacity(covered.saturating_mul(4).min(limit.as_usize()).min(1 << 20));
        loop {
            let step = reader.by_ref().take(STEP).read_to_end(&mut output).map_err(read)?;
            if step == 0 {
                return Ok((output.into(), reservation));
            }
            if output.len() as u64 > limit.bytes() {
                let observed = format!("{covered} bytes that decompress to more than {} bytes", limit.bytes());
                return Err(too_large(observed, limit));
            }
            reservation.cover(covered + output.len())?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn raw(bytes: Vec<u8>, compression: Compression, limit: u64) -> Raw {
        let reservation = Admission::new(ByteSize::mib(16)).enter();
        Raw { bytes: bytes.into(), compression, limit: ByteSize::new(limit), reservation }
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn all_members_of_a_gzip_body_are_read() {
        let bytes = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(raw(bytes, Compression::Gzip, 100).unpack().unwrap().0.as_ref(), b"one two");
    }

    #[test]
    fn a_bomb_stops_at_the_limit_without_being_unpacked_whole() {
        let zeros = vec![0; 64 << 20];
        for (bytes, compression) in
            [(gzip(&zeros), Compression::Gzip), (zstd::encode_all(zeros.as_slice(), 1).unwrap(), Compression::Zstd)]
        {
            assert!(bytes.len() < 128 << 10);
            let refusal = raw(bytes, compression, 1 << 20).unpack().unwrap_err();
            assert_eq!(refusal.code, tonic::Code::ResourceExhausted);
            assert!(refusal.message.contains("decompress to more than 1048576 bytes"), "{}", refusal.message);
        }
    }

    #[test]
    fn requests_that_together_hold_too_much_are_told_to_come_again() {
        let admission = Admission::new(ByteSize::new(10 << 10));
        let (mut one, mut two) = (admission.enter(), admission.enter());
        one.cover(6 << 10).unwrap();
        one.cover(3 << 10).unwrap();
        assert!(two.cover(6 << 10).unwrap_err().retry.is_some());
        drop(one);
        two.cover(6 << 10).unwrap();
    }

    #[test]
    fn broken_compression_is_bad_data() {
        let mut cut = gzip(&[7; 1000]);
        cut.truncate(12);
        for (bytes, compression) in
            [(cut, Compression::Gzip), (b"{}".to_vec(), Compression::Zstd), (b"xx".to_vec(), Compression::Deflate)]
        {
            assert_eq!(raw(bytes, compression, 1 << 20).unpack().unwrap_err().code, tonic::Code::InvalidArgument);
        }
    }
}
