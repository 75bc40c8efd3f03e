//! What a real Collector makes of each answer of the `otlp` receiver, over gRPC and over HTTP: it sends again what it
//! shall, drops what it shall, and each request is in the input log once. What is seen is a row of
//! `docs/reliability.md`.

use std::convert::Infallible;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::collector::collector;
use crate::support::daemon::{Daemon, Setup, signal};
use crate::support::otlp::{Call, text, traces};
use crate::support::relay::{BOTH, Options, Relay, SOON};
use crate::support::wire::{SPOILED, Wire};
use crate::support::{eventually, free_port, needs, pipelines, project};

const AGAIN: &str = "sends again until it is taken";
const ONCE: &str = "1 call, drops it (`send_failed`)";

/// The row of `docs/reliability.md` that says what was seen must be there.
fn documented(state: &str, [grpc, http]: [&str; 2], collector: &str, records: &str) {
    let row = format!("| {state} | {grpc} | {http} | {collector} | {records} |");
    let document = std::fs::read_to_string(project("docs/reliability.md")).expect("docs/reliability.md");
    assert!(document.lines().any(|line| line == row), "docs/reliability.md does not say what was seen:\n{row}");
}

fn as_texts(answers: &[String; 2]) -> [&str; 2] {
    answers.each_ref().map(String::as_str)
}

/// While the daemon refuses: gives the Collector ten requests, and waits until it has sent some of them again.
async fn is_tried_again(relay: &mut Relay, numbers: std::ops::Range<u64>) -> [String; 2] {
    let answers = relay.refuses().await;
    let (before, sent) = (relay.calls(), relay.exported("sent_spans").await);
    let count = numbers.end - numbers.start;
    relay.send(numbers).await;
    relay.called(before, count + 5).await;
    assert_eq!(relay.exported("sent_spans").await, sent, "nothing of it is acknowledged");
    answers
}

/// Lets files grow to `size` bytes at most, or as they like.
fn limit_files(pid: u32, size: Option<u64>) {
    let size = size.map_or_else(|| "unlimited".to_owned(), |size| size.to_string());
    let limit = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--fsize={size}:unlimited")]).status();
    assert!(limit.expect("prlimit").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_input_log_cannot_be_written_the_collector_keeps_what_it_has() {
    let mut relay = Relay::start(&needs!(collector()), Options::default()).await;
    relay.send(0..5).await;
    relay.settled().await;
    // Files may not grow: a part of what is written next is written, and then it fails as on a full disk.
    let sizes =
        std::fs::read_dir(relay.log_folder()).expect("the log").map(|f| f.and_then(|f| f.metadata()).expect("a file").len());
    limit_files(relay.daemon.pid(), Some(sizes.max().expect("a segment") + 7));
    let answers = is_tried_again(&mut relay, 5..15).await;
    assert!(relay.daemon.health().await.1.contains("nothing is taken in"), "/health says it");
    assert!(relay.event("connector", "log_write_errors").await > 0);
    assert!(relay.event("receiver", "requests_refused").await >= 20);
    limit_files(relay.daemon.pid(), None);
    relay.settled().await;
    relay.watched().await;
    documented("the input log cannot be written (a full disk)", as_texts(&answers), AGAIN, "each once");
    assert_eq!(relay.daemon.stop().await.code(), Some(0), "{}", relay.daemon.said());
}

/// Sends all of a body but its last byte to the gRPC port, and waits. Ends when it is refused: another request had room
/// a moment before.
async fn hold_grpc(port: u16, length: usize) {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the gRPC port");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    let mut message = vec![0; length - 1];
    message[1..5].copy_from_slice(&u32::try_from(length - 5).expect("a length").to_be_bytes());
    let frame = futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(message)))]);
    let request = http::Request::post("http://x/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        .header("content-type", "application/grpc")
        .body(StreamBody::new(futures::StreamExt::chain(frame, futures::stream::pending())).boxed());
    let answer = sender.send_request(request.expect("a request"));
    tokio::select! {
        _ = connection => {}
        _ = answer => {}
    }
}

/// The same at the HTTP port.
async fn hold_http(port: u16, length: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the HTTP port");
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\nconnection: close\r\n";
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n").as_bytes()).await.expect("a head");
    let _ = stream.write_all(&vec![0; length - 1]).await;
    let _ = stream.read(&mut [0; 64]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_receiver_is_full_the_collector_keeps_what_it_has() {
    let limits =
        Options { receiver: "    max_in_flight_size: 1MiB\n", protocols: ", max_request_body_size: 1MiB", ..Options::default() };
    let mut relay = Relay::start(&needs!(collector()), limits).await;
    relay.send(0..5).await;
    relay.settled().await;
    // One body has all the room of a port.
    let [grpc, http] = relay.ports();
    let held = tokio::spawn(async move {
        let grpc = async {
            loop {
                hold_grpc(grpc, 1 << 20).await;
            }
        };
        let http = async {
            loop {
                hold_http(http, 1 << 20).await;
            }
        };
        tokio::join!(grpc, http)
    });
    let answers = is_tried_again(&mut relay, 5..15).await;
    held.abort();
    relay.settled().await;
    relay.watched().await;
    documented("no room in the receiver or in the pipeline", as_texts(&answers), AGAIN, "each once");
}

/// More than a daemon without work needs.
const LIMIT: &str = "memory: { limit: 160MiB }\n";

/// Whether the daemon refuses because of its memory.
async fn has_no_memory(daemon: &Daemon) -> bool {
    daemon.health().await.1.contains("requests are refused until there is room")
}

/// Fills the memory of the daemon with bodies that do not end, until it refuses. It has them until they are let go, but no
/// longer than a body may take.
async fn fill_memory(daemon: &Daemon, http: u16) -> Vec<TcpStream> {
    let head = "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 60000000\r\n\r\n";
    let (mut bodies, most) = (Vec::new(), vec![1; 55_000_000]);
    eventually("the memory limit", SOON, async || {
        if has_no_memory(daemon).await {
            return Ok(());
        }
        let mut body = TcpStream::connect(("127.0.0.1", http)).await.map_err(|e| e.to_string())?;
        // What it has begun to read it reads on, also at the limit. A refused one it reads for a moment.
        let _ = body.write_all(head.as_bytes()).await;
        let _ = tokio::time::timeout(Duration::from_secs(10), body.write_all(&most)).await;
        bodies.push(body);
        Err(format!("{} bodies\n{}", bodies.len(), daemon.said()))
    })
    .await;
    bodies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_memory_limit_is_reached_the_collector_keeps_what_it_has() {
    let limit = Options { daemon: LIMIT, ..Options::default() };
    let mut relay = Relay::start(&needs!(collector()), limit).await;
    relay.send(0..5).await;
    relay.settled().await;
    let mut next = 5;
    let answers = loop {
        let bodies = fill_memory(&relay.daemon, relay.ports()[1]).await;
        let answers = relay.probe().await;
        let (before, sent) = (relay.calls(), relay.exported("sent_spans").await);
        relay.send(next..next + 5).await;
        next += 5;
        // Each is called for once. That it is sent again follows, when it is there in the end.
        relay.called(before, 5).await;
        let after = relay.exported("sent_spans").await;
        // On a busy machine all this may take longer than the daemon waits for a body: then it was not seen, and is done again.
        let throughout = has_no_memory(&relay.daemon).await;
        drop(bodies);
        if throughout {
            assert_eq!(after, sent, "nothing of it is acknowledged");
            break answers;
        }
        assert!(next < 100, "the memory is never full for long enough\n{}", relay.daemon.said());
    };
    relay.settled().await;
    documented("the memory limit is reached", as_texts(&answers), AGAIN, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_in_memory_is_given_back_though_nothing_more_comes() {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    setup.more(LIMIT).environment("production", &pipelines::otlp_to_console(grpc, http));
    let daemon = setup.start().await;
    drop(fill_memory(&daemon, http).await);
    eventually("room in memory", SOON, async || if has_no_memory(&daemon).await { Err(daemon.said()) } else { Ok(()) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_with_requests_on_their_way_and_a_start_lose_and_double_nothing() {
    let mut relay = Relay::start(&needs!(collector()), Options::default()).await;
    let mut number = 0;
    for _ in 0..2 {
        relay.send(number..number + 20).await;
        assert_eq!(relay.daemon.stop().await.code(), Some(0), "{}", relay.daemon.said());
        // What is given now finds nobody.
        relay.send(number + 20..number + 30).await;
        eventually("the Collector to find nobody", SOON, async || {
            let found = relay.wires.each_ref().map(Wire::turned_away);
            if found.iter().all(|times| *times > 0) { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
        relay.restart().await;
        number += 30;
    }
    relay.settled().await;
    relay.watched().await;
    documented("it stops, and starts again", ["no connection", "no connection"], AGAIN, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_with_requests_on_their_way_loses_and_doubles_nothing() {
    let mut relay = Relay::start(&needs!(collector()), Options::default()).await;
    for part in 0..3 {
        let before = relay.calls();
        relay.send(part * 20..part * 20 + 20).await;
        relay.called(before, 5).await;
        relay.daemon.kill();
        relay.restart().await;
    }
    relay.settled().await;
    relay.watched().await;
    documented("it is killed, and starts again", ["connection lost", "connection lost"], AGAIN, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_is_asked_for_again_and_nothing_is_counted_twice() {
    let mut relay = Relay::start(&needs!(collector()), Options::default()).await;
    relay.send(0..5).await;
    relay.settled().await;
    relay.wires.iter().for_each(|wire| wire.lose(3));
    relay.send(5..15).await;
    relay.settled().await;
    relay.watched().await;
    assert_eq!(relay.wires.each_ref().map(Wire::lost), [3, 3]);
    let (calls, given) = (relay.calls(), relay.given());
    assert!(calls[0] >= given[0] + 3 && calls[1] >= given[1] + 3, "{calls:?} calls for {given:?} requests");
    assert!(relay.event("connector", "requests_repeated").await >= 6, "what comes again is known");
    documented("the answer is lost", ["connection lost", "connection lost"], AGAIN, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_does_not_answer_in_time_is_asked_again_and_nothing_is_counted_twice() {
    let mut relay = Relay::start(&needs!(collector()), Options::default()).await;
    relay.send(0..5).await;
    relay.settled().await;
    signal(relay.daemon.pid(), "STOP");
    let before = relay.calls();
    relay.send(5..15).await;
    relay.called(before, 11).await;
    signal(relay.daemon.pid(), "CONT");
    relay.settled().await;
    relay.watched().await;
    documented("no answer within the client's `timeout`", ["none", "none"], AGAIN, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_never_be_taken_is_sent_once_dropped_by_the_collector_and_counted() {
    let small = Options { protocols: ", max_request_body_size: 64KiB", ..Options::default() };
    let mut relay = Relay::start(&needs!(collector()), small).await;
    relay.send(0..1).await;
    relay.settled().await;

    // Asked for once by the test, then given to the Collector: the answer, and that it made one call.
    let mut large = traces(&[Call::now(1)], None);
    large.resource_spans[0].scope_spans[0].spans[0].attributes.push(text("large", &"x".repeat(100_000)));
    let spoiled = traces(&[Call { service: SPOILED.to_owned(), ..Call::now(2) }], None);
    let mut failed = 0;
    for (state, request) in [("a request larger than `max_request_body_size`", large), ("bad data", spoiled)] {
        let answers = relay.ask(&request).await;
        let before = relay.calls();
        for to in 0..BOTH.len() {
            relay.give(to, request.clone()).await;
        }
        failed += 1;
        relay.exported_when("send_failed_spans", [failed; 2]).await;
        assert_eq!(relay.calls(), before.map(|calls| calls + 1), "calls for {state}");
        documented(state, as_texts(&answers), ONCE, "none; `requests_invalid`");
    }
    let answers = relay.ask_with_logs().await;
    let before = relay.calls();
    for to in 0..BOTH.len() {
        relay.give_log(to).await;
    }
    relay.exported_when("send_failed_log_records", [1; 2]).await;
    assert_eq!(relay.calls(), before.map(|calls| calls + 1), "calls for logs");
    documented("a signal that no pipeline takes", as_texts(&answers), ONCE, "none; `requests_invalid`");
    assert_eq!(relay.event("receiver", "requests_invalid").await, 3 * 2 * 2, "those of the test and those of the Collector");

    // One span is good, one is of the year 2100.
    let two = |number| {
        let good = Call { service: format!("id-part-{number:04}"), ..Call::now(number) };
        traces(&[good.clone(), Call { start: 4_102_444_800_000_000_000, ..good }], None)
    };
    let answers = relay.ask(&two(0)).await;
    let before = relay.calls();
    for to in 0..BOTH.len() {
        relay.give(to, two(1 + to as u64)).await;
    }
    let [grpc, http] = relay.given();
    relay.exported_when("sent_spans", [grpc - failed, http - failed]).await;
    assert_eq!(relay.calls(), before.map(|calls| calls + 1), "calls for a partial success");
    let said = relay.collector_log();
    assert_eq!(said.matches("Partial success response").count(), 2, "{said}");
    let dropped = [("class", "receiver"), ("reason", "bad_timestamp")];
    let metrics = relay.daemon.metrics().await;
    assert_eq!(metrics.sum("anomalyd_component_dropped_total", &dropped), 4, "{}", metrics.text());
    let taken = relay.taken();
    assert_eq!([1, 2].map(|n| taken.get(&format!("id-part-{n:04}")).copied()), [Some(1), Some(1)], "{taken:?}");
    let records = "the good ones once; the others `dropped`, with the reason";
    documented("some records are bad", as_texts(&answers), "1 call, warns `Partial success response`", records);
}
