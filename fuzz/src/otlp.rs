//! OTLP requests. The first byte of an input says its signal (`t`, `m`, `l`), for gRPC also the compression.

use anomalyd::config::ByteSize;
use anomalyd::model::{Signal, UnixNanos};
use anomalyd::receivers::otlp::{DecodeError, Format, Limits, decode, unframe};
use bytes::Bytes;

use crate::batch::rows;
use crate::memory::bounded;
use crate::otlp_json;

/// 2026-01-15T10:30:00Z
const NOW: u64 = 1_768_473_000_000_000_000;

const LIMITS: Limits =
    Limits { now: UnixNanos(NOW), max_future: 600_000_000_000, max_attribute_value_size: 1 << 10, max_decoded_size: 1 << 20 };

/// The smallest record has two bytes on the wire (`12 00`) and some 150 in columns, which grow by doubling; while they
/// grow the old ones are there too.
const EACH: u64 = 512;
const FIXED: u64 = 64 << 10;

fn signal(input: &[u8]) -> (Signal, &[u8]) {
    let (first, rest) = input.split_first().unwrap_or((&0, &[]));
    let signal = match first {
        b't' => Signal::Traces,
        b'm' => Signal::Metrics,
        b'l' => Signal::Logs,
        other => *Signal::ALL.get(usize::from(*other) % 3).unwrap_or(&Signal::Logs),
    };
    (signal, rest)
}

type Read = Result<(Vec<String>, u64), DecodeError>;

/// Decodes a request twice: the rows, and how many records were rejected.
fn read(signal: Signal, format: Format, body: &[u8]) -> Read {
    let once = |(batch, rejected)| (rows(&batch), rejected);
    let first = bounded(body.len(), EACH, FIXED, || decode(signal, format, body, LIMITS)).map(once);
    assert_eq!(decode(signal, format, body, LIMITS).map(once), first, "the same request, another time");
    if let Err(DecodeError::Malformed(message) | DecodeError::TooLarge(message)) = &first {
        assert!(!message.is_empty() && message.len() < 2000, "a message of {} bytes: {message}", message.len());
    }
    first
}

/// OTLP in protobuf; written as OTLP/JSON it must give the same rows.
pub(crate) fn protobuf(input: &[u8]) {
    let (signal, body) = signal(input);
    let _ = read(signal, Format::Protobuf, body);
    // What prost reads and writes again says everything once, and nothing that is not known.
    let Some((plain, json)) = otlp_json::of(signal, body) else { return };
    let of_protobuf = read(signal, Format::Protobuf, &plain);
    let of_json = read(signal, Format::Json, json.to_string().as_bytes());
    let too_large = |read: &Read| matches!(read, Err(DecodeError::TooLarge(_)));
    if too_large(&of_protobuf) || too_large(&of_json) {
        return;
    }
    match (of_protobuf, of_json) {
        (Err(_), Err(_)) => {}
        (one, other) => assert_eq!(one, other, "protobuf on the left, the same as JSON on the right: {json}"),
    }
}

/// OTLP/JSON.
pub(crate) fn json(input: &[u8]) {
    let (signal, body) = signal(input);
    let _ = read(signal, Format::Json, body);
}

/// The body of a gRPC call: frame, compression, protobuf.
pub(crate) fn grpc(input: &[u8]) {
    const LIMIT: u64 = 256 << 10;
    let (signal, rest) = signal(input);
    let (first, framed) = rest.split_first().unwrap_or((&0, &[]));
    let encoding = [None, Some("gzip"), Some("zstd"), Some("deflate"), Some("identity"), Some("snappy")];
    let encoding = encoding.get(usize::from(*first) % encoding.len()).copied().flatten();
    let framed = Bytes::copy_from_slice(framed);
    // The window of zstd may have 8 MiB; zstd takes it from the system and not from the allocator that is counted.
    let message = bounded(framed.len(), 8, 8 * LIMIT, || unframe(&framed, encoding, ByteSize::new(LIMIT)));
    match message {
        Ok(message) => {
            assert!(message.len() as u64 <= LIMIT, "{} bytes were unpacked", message.len());
            let _ = read(signal, Format::Protobuf, &message);
        }
        Err(message) => assert!(!message.is_empty() && message.len() < 2000, "{message}"),
    }
}
