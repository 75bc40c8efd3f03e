//! A TCP proxy before an OTLP port: it counts the calls that pass, and can lose answers or spoil requests.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What is spoken on a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// gRPC over HTTP/2 without TLS.
    Grpc,
    /// HTTP/1.1.
    Http,
}

/// A text whose length a wire spoils where it passes: what holds it is no protobuf any more.
pub(crate) const SPOILED: &str = "spoiled-on-the-way";

#[derive(Debug, Default)]
struct Seen {
    calls: AtomicU64,
    turned_away: AtomicU64,
    to_lose: AtomicU64,
    lost: AtomicU64,
}

/// A proxy; it ends with the runtime of its test.
#[derive(Debug)]
pub(crate) struct Wire {
    port: u16,
    seen: Arc<Seen>,
}

impl Wire {
    /// Listens, and connects every client to `target`.
    pub(crate) async fn to(target: u16, protocol: Protocol) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                match TcpStream::connect(("127.0.0.1", target)).await {
                    Ok(server) => drop(tokio::spawn(join(client, server, protocol, Arc::clone(&shared)))),
                    Err(_) => drop(shared.turned_away.fetch_add(1, SeqCst)),
                }
            }
        });
        Self { port, seen }
    }

    /// Where it listens.
    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// How many calls were begun.
    pub(crate) fn calls(&self) -> u64 {
        self.seen.calls.load(SeqCst)
    }

    /// How many connections found nobody behind the wire.
    pub(crate) fn turned_away(&self) -> u64 {
        self.seen.turned_away.load(SeqCst)
    }

    /// Cuts the connection where the next `count` answers would pass.
    pub(crate) fn lose(&self, count: u64) {
        self.seen.to_lose.fetch_add(count, SeqCst);
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.seen.lost.load(SeqCst)
    }
}

/// Passes on what comes until one side ends, and then ends both.
async fn join(mut client: TcpStream, mut server: TcpStream, protocol: Protocol, seen: Arc<Seen>) {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let forth = async {
        let mut counter = Counter::new(protocol, true);
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let bytes = &mut buffer[..read];
            seen.calls.fetch_add(counter.take(bytes), SeqCst);
            spoil(bytes);
            if to_server.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut counter = Counter::new(protocol, false);
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            let bytes = &buffer[..read];
            if counter.take(bytes) > 0 && seen.to_lose.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                seen.lost.fetch_add(1, SeqCst);
                return;
            }
            if to_client.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = forth => {}
        () = back => {}
    }
}

fn spoil(bytes: &mut [u8]) {
    let found = bytes.windows(SPOILED.len()).position(|window| window == SPOILED.as_bytes());
    if let Some(length) = found.and_then(|at| at.checked_sub(1)).and_then(|at| bytes.get_mut(at)) {
        *length = 0x7f;
    }
}

/// Counts what begins in a stream: requests, or answers.
struct Counter {
    protocol: Protocol,
    start: &'static [u8],
    /// HTTP/2: bytes until the next frame. HTTP/1.1: not used.
    skip: usize,
    /// HTTP/2: what has come of the head of a frame. HTTP/1.1: the last bytes, in which a start may have begun.
    kept: Vec<u8>,
}

impl Counter {
    fn new(protocol: Protocol, requests: bool) -> Self {
        // A client begins with the connection preface (RFC 9113, 3.4).
        let skip = if protocol == Protocol::Grpc && requests { 24 } else { 0 };
        Self { protocol, start: if requests { b"POST /v1/" } else { b"HTTP/1.1 " }, skip, kept: Vec::new() }
    }

    fn take(&mut self, bytes: &[u8]) -> u64 {
        match self.protocol {
            Protocol::Grpc => self.frames(bytes),
            Protocol::Http => self.starts(bytes),
        }
    }

    /// Frames of type HEADERS (RFC 9113, 4.1 and 6.2).
    fn frames(&mut self, mut bytes: &[u8]) -> u64 {
        let mut found = 0;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let head = bytes.len().min(9 - self.kept.len());
            if self.skip > 0 || head == 0 {
                continue;
            }
            self.kept.extend_from_slice(&bytes[..head]);
            bytes = &bytes[head..];
            if let [a, b, c, kind, _, _, _, _, _] = self.kept[..] {
                self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
                found += u64::from(kind == 1);
                self.kept.clear();
            }
        }
        found
    }

    fn starts(&mut self, bytes: &[u8]) -> u64 {
        self.kept.extend_from_slice(bytes);
        let found = self.kept.windows(self.start.len()).filter(|window| *window == self.start).count();
        self.kept.drain(..self.kept.len().saturating_sub(self.start.len() - 1));
        found as u64
    }
}

#[test]
fn calls_are_counted_however_the_stream_is_cut() {
    let frame = |kind: u8, length: u8| [&[0, 0, length, kind, 4, 0, 0, 0, 1][..], &vec![1; usize::from(length)]].concat();
    let grpc = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 6), frame(1, 30), frame(0, 0), frame(0, 99), frame(1, 0)]
        .concat();
    let http = b"POST /v1/traces HTTP/1.1\r\n\r\nbodyPOST /v1/logs HTTP/1.1\r\n\r\n".to_vec();
    for (protocol, stream) in [(Protocol::Grpc, grpc), (Protocol::Http, http)] {
        for step in 1..stream.len() {
            let mut counter = Counter::new(protocol, true);
            let found: u64 = stream.chunks(step).map(|part| counter.take(part)).sum();
            assert_eq!(found, 2, "{protocol:?} in steps of {step}");
        }
    }
}
