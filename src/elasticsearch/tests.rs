//! The client against servers that behave badly.

use std::time::Duration as Time;

use serde_json::{Value, json};

use super::stub::{Answer, Stub};
use super::*;
use crate::config::{Duration, Secret};
use crate::pipeline::TextFile;

/// Fast enough for tests; what is tested is that and not how long is waited.
fn config(endpoints: &[&str]) -> ConnectionConfig {
    let mut config = ConnectionConfig::new("");
    config.endpoints = endpoints.iter().map(|&e| e.to_owned()).collect();
    config.retry = RetryConfig {
        max_retries: 3,
        initial_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(4),
        max_elapsed_time: Duration::from_secs(20),
    };
    config
}

fn client(endpoints: &[&str]) -> Client {
    Client::new(&config(endpoints), "anomalyd/test/elasticsearch").unwrap()
}

/// A port on which nobody listens.
async fn dead() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

/// The message with what differs from run to run replaced.
fn told(error: &ClientError) -> String {
    let text = error.to_string();
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("127.0.0.1:") {
        let after = &rest[at + "127.0.0.1:".len()..];
        out.push_str(&rest[..at]);
        out.push_str("127.0.0.1:PORT");
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out + rest
}

#[tokio::test]
async fn a_request_says_who_sends_it_and_carries_what_it_was_given() {
    let stub = Stub::answering([Answer::json(200, &json!({"took": 1}))]).await;
    let url = stub.url.replace("http://", "http://elastic:pw@");
    let mut config = config(&[&format!("{url}/prefix/")]);
    config.headers.insert("X-Tenant".to_owned(), Secret::new("blue\n"));
    let client = Client::new(&config, "anomalyd/prod \u{e9}/elasticsearch/apm").unwrap();
    let path = format!("{}/_search", segment("remote:logs-*,-logs-anomaly.*"));
    let reply = client.send(Request::post(path).query("filter_path", "took,hits.hits").json(&json!({"size": 1}))).await.unwrap();
    assert_eq!(reply.json::<Value>().unwrap(), json!({"took": 1}));
    let seen = stub.seen().remove(0);
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.uri, "/prefix/remote%3Alogs-*,-logs-anomaly.*/_search?filter_path=took%2Chits.hits");
    assert_eq!(seen.lines(), [json!({"size": 1})]);
    assert_eq!(seen.header("authorization"), "Basic ZWxhc3RpYzpwdw==");
    assert_eq!(seen.header("x-opaque-id"), "anomalyd/prod__/elasticsearch/apm");
    assert_eq!(seen.header("x-tenant"), "blue");
    assert_eq!(seen.header("content-encoding"), "gzip");
    assert!(seen.header("user-agent").starts_with("anomalyd/"));
}

#[tokio::test]
async fn a_colon_in_the_first_segment_is_not_taken_for_a_scheme() {
    let stub = Stub::answering([]).await;
    client(&[&stub.url]).send(Request::get("remote:logs/_count")).await.unwrap();
    assert_eq!(stub.seen()[0].uri, "/remote:logs/_count");
}

#[tokio::test]
async fn a_dead_node_costs_no_request_and_is_remembered() {
    let (alive, dead) = (Stub::answering([]).await, dead().await);
    let client = client(&[&dead, &alive.url]);
    for _ in 0..10 {
        client.send(Request::get("/").retry(Retry::Never)).await.unwrap();
    }
    assert_eq!(alive.seen().len(), 10);
    let now = Instant::now();
    let next: Vec<usize> = (0..3).map(|_| client.0.state().choose(now)).collect();
    assert_eq!(next, [1, 1, 1], "the dead node is left alone");
}

#[tokio::test]
async fn a_node_that_answers_502_is_left_for_another() {
    let (bad, good) = (Stub::with(|_| Some(Answer::html(502))).await, Stub::answering([]).await);
    let client = client(&[&bad.url, &good.url]);
    for _ in 0..4 {
        client.send(Request::get("/")).await.unwrap();
    }
    assert_eq!((bad.seen().len(), good.seen().len()), (1, 4));
}

#[tokio::test]
async fn what_means_not_now_is_tried_again_and_what_means_no_is_not() {
    for status in [429, 502, 503, 504] {
        let stub = Stub::answering([Answer::html(status), Answer::empty(status)]).await;
        client(&[&stub.url]).send(Request::get("/")).await.unwrap();
        assert_eq!(stub.seen().len(), 3, "{status}");
    }
    for status in [400, 401, 403, 404, 409, 413, 500] {
        let stub = Stub::answering([Answer::empty(status)]).await;
        let error = client(&[&stub.url]).send(Request::get("/")).await.unwrap_err();
        assert_eq!((error.status(), error.is_retryable(), stub.seen().len()), (Some(status), false, 1));
    }
}

#[tokio::test]
async fn retries_end() {
    let stub = Stub::with(|_| Some(Answer::empty(503))).await;
    let error = client(&[&stub.url]).send(Request::get("_search")).await.unwrap_err();
    assert_eq!((error.status(), stub.seen().len()), (Some(503), 4));
    client(&[&stub.url]).send(Request::get("_search").retry(Retry::Never)).await.unwrap_err();
    assert_eq!(stub.seen().len(), 5);
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_ends_the_request_at_once_and_is_told() {
    let stub = Stub::with(|_| Some(Answer::empty(429).header("retry-after", "3600"))).await;
    let error = client(&[&stub.url]).send(Request::get("/")).await.unwrap_err();
    assert_eq!((error.retry_after(), stub.seen().len()), (Some(Time::from_secs(3600)), 1));
}

#[tokio::test]
async fn a_slow_answer_and_a_cut_answer_are_retried() {
    let slow = Answer::json(200, &json!({})).after(Time::from_secs(60));
    let stub = Stub::answering([slow, Answer::text(200, "application/json", "{\"hits\":").cut()]).await;
    let reply = client(&[&stub.url]).send(Request::get("/").timeout(Time::from_millis(300))).await.unwrap();
    assert_eq!((reply.body.as_ref(), stub.seen().len()), (&b"{}"[..], 3));
}

#[tokio::test]
async fn messages_say_what_where_and_what_to_do() {
    let es = |status, error| Answer::json(status, &json!({"error": error, "status": status}));
    let parsing = json!({
        "type": "search_phase_execution_exception", "reason": "all shards failed",
        "root_cause": [{"type": "query_shard_exception", "reason": "failed to create query: no such field"}],
        "failed_shards": [{"shard": 0, "reason": {"type": "query_shard_exception", "reason": "failed to create query: no such field"}}],
        "caused_by": {"type": "illegal_argument_exception", "reason": "no such field"},
    });
    let answers = [
        Answer::html(502),
        Answer::empty(413),
        es(401, json!({"type": "security_exception", "reason": "unable to authenticate with provided credentials"})),
        es(
            403,
            json!({"type": "security_exception", "reason": "action [indices:data/read/search] is unauthorized for API key id [x], this action is granted by the index privileges [read,all]"}),
        ),
        es(404, json!({"type": "index_not_found_exception", "reason": "no such index [logs]"})),
        es(400, parsing),
        es(400, json!("a plain text")),
        Answer::json(400, &json!(["not", "an", "error"])),
        Answer::text(500, "text/plain", vec![0xff, 0xfe, b'x'].into_iter().chain([b'y'; 500]).collect::<Vec<_>>()),
        Answer::json(200, &json!({})).after(Time::from_secs(60)),
    ];
    let count = answers.len();
    let stub = Stub::answering(answers).await;
    let dead = dead().await.replace("http://", "http://me:hunter2@");
    let mut lines = Vec::new();
    let client_ = client(&[&stub.url.replace("http://", "http://me:hunter2@")]);
    for _ in 0..count {
        let request = Request::post("logs-*/_search").retry(Retry::Never).timeout(Time::from_millis(300));
        lines.push(told(&client_.send(request).await.unwrap_err()));
    }
    lines.push(told(&client(&[&dead]).send(Request::get("_search").retry(Retry::Never)).await.unwrap_err()));
    let https = stub.url.replace("http://", "https://");
    lines.push(told(&client(&[&https]).send(Request::get("_search").retry(Retry::Never)).await.unwrap_err()));
    assert!(!lines.join("").contains("hunter2"));
    insta::assert_snapshot!(lines.join("\n"));
}

#[tokio::test]
async fn html_instead_of_json_is_shown_and_not_parsed() {
    let stub = Stub::answering([Answer::html(200)]).await;
    let reply = client(&[&stub.url]).send(Request::get("logs/_count")).await.unwrap();
    insta::assert_snapshot!(told(&reply.json::<Value>().unwrap_err()));
}

#[test]
fn a_ca_file_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let told = |content: Option<&str>| {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let mut config = config(&["https://es:9200"]);
        config.ca_file = Some(TextFile::at(file.clone()));
        let error = Client::new(&config, "x").map(|_| ()).unwrap_err();
        error.to_string().replace(&file.display().to_string(), "ca.pem")
    };
    let messages = [told(None), told(Some("")), told(Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"))];
    insta::assert_snapshot!(messages.join("\n"));
}

#[tokio::test]
async fn a_newline_at_the_end_of_a_key_is_not_sent() {
    let stub = Stub::answering([]).await;
    let mut config = config(&[&stub.url]);
    config.api_key = Some(ApiKey::Encoded(Secret::new("aWQ6a2V5\n")));
    Client::new(&config, "x").unwrap().send(Request::get("/")).await.unwrap();
    assert_eq!(stub.seen()[0].header("authorization"), "ApiKey aWQ6a2V5");
}

/// A port that takes no more connections: those who ask are not answered at all, as by a machine that is gone.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_machine_that_swallows_connections_costs_the_connect_timeout_and_not_the_request_timeout() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody accepts these, so the queue of the kernel fills.
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Time::from_millis(100), tokio::net::TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    let alive = Stub::answering([]).await;
    let mut config = config(&[&format!("http://{address}"), &alive.url]);
    config.connect_timeout = Duration::from_millis(50);
    config.request_timeout = Duration::from_secs(3600);
    Client::new(&config, "x").unwrap().send(Request::get("/").retry(Retry::Never)).await.unwrap();
    assert_eq!(alive.seen().len(), 1);
    config.endpoints.truncate(1);
    let error = Client::new(&config, "x").unwrap().send(Request::get("/").retry(Retry::Never)).await.unwrap_err();
    assert!(told(&error).contains("cannot connect within 50ms"), "{error}");
}

#[tokio::test]
async fn an_answer_larger_than_is_ever_read_is_refused_before_it_is_read() {
    let stub = Stub::answering([Answer::text(200, "application/json", "[").header("content-length", "300000000").cut()]).await;
    let error = client(&[&stub.url]).send(Request::get("_search")).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { size: 300_000_000, .. }), "{error}");
}

#[tokio::test]
async fn an_answer_that_does_not_say_how_large_it_is_is_read_up_to_the_limit_and_no_further() {
    // 64 MiB that compress to 64 kB, and chunks without an end.
    let bomb = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, &vec![b' '; 64 << 20]).unwrap();
        encoder.finish().unwrap()
    };
    assert!(bomb.len() < 1 << 20);
    let stub = Stub::answering([Answer::text(200, "application/json", bomb).header("content-encoding", "gzip")]).await;
    let error = client(&[&stub.url]).send(Request::get("_search")).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { size, limit, .. } if limit < size && size < 2 * limit), "{error}");

    let given = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = Arc::clone(&given);
    let endless = axum::Router::new().fallback(move || async move {
        let chunks = futures::stream::repeat_with(move || {
            counted.fetch_add(64 << 10, std::sync::atomic::Ordering::Relaxed);
            Ok::<_, std::io::Error>(Bytes::from(vec![b'['; 64 << 10]))
        });
        axum::body::Body::from_stream(chunks)
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, endless).await });
    let error = client(&[&url]).send(Request::get("_search")).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { .. }) && !error.is_retryable(), "{error}");
    let before = given.load(std::sync::atomic::Ordering::Relaxed);
    assert!(before < 64 << 20, "{before} bytes were taken from the server");
    // A page that fits is taken, in however many chunks.
    let page = format!("[{}1]", "1,".repeat(3 << 20));
    let stub = Stub::answering([Answer::text(200, "application/json", page.clone())]).await;
    assert_eq!(client(&[&stub.url]).send(Request::get("_search")).await.unwrap().body, page.as_bytes());
}
