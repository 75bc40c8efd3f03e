//! Clusters and disks that misbehave: what is wrong is named, nothing is lost, and everything else keeps flowing.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::daemon::Setup;
use crate::support::documents::otel;
use crate::support::elasticsearch::{NEW, elasticsearch};
use crate::support::history::{History, SLOW};
use crate::support::otlp::{Call, send_all, send_grpc, traces};
use crate::support::{eventually, free_port, needs, pipelines, unique};

const SOON: Duration = Duration::from_secs(60);

/// Answers every request with a page, as a proxy in front of a cluster that is down does.
async fn proxy_with_a_page() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let page = "<html><head><title>Welcome</title></head><body>Please log in</body></html>";
                let mut buffer = vec![0; 65536];
                while connection.read(&mut buffer).await.is_ok_and(|n| n > 0) {
                    let answer =
                        format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{page}", page.len());
                    if connection.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_page_of_a_proxy_stops_one_environment_and_no_other() {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    let proxy = proxy_with_a_page().await;
    let receiver =
        format!("  elasticsearch: {{ endpoints: [\"http://127.0.0.1:{proxy}\"], indices: [\"traces-*\"], interval: 1s }}\n");
    setup.environment("staging", &pipelines::traces("elasticsearch", &receiver, "console", "  console: {}\n"));
    setup.environment("production", &pipelines::otlp_to_console(grpc, http));
    let mut daemon = setup.start().await;
    let health = eventually("the health to tell what is wrong", SOON, async || {
        let (status, health) = daemon.health().await;
        let health: serde_json::Value = serde_json::from_str(&health).expect("JSON");
        if status == 200 && health["status"] == json!("degraded") {
            Ok(health)
        } else {
            Err(format!("{status} {health:#}\n{}", daemon.said()))
        }
    })
    .await;
    let components = health["components"].as_array().expect("components");
    let broken: Vec<_> = components.iter().filter(|c| c["message"].is_string()).collect();
    assert_eq!(broken.len(), 1, "one component is not well: {health:#}");
    assert_eq!((&broken[0]["environment"], &broken[0]["id"]), (&json!("staging"), &json!("elasticsearch")));
    let message = broken[0]["message"].as_str().expect("a message");
    assert!(message.contains("<html>") && message.contains(&proxy.to_string()), "what came and from where: {message}");

    send_grpc(grpc, traces(&[Call::now(1)], Some("production"))).await.expect("the other environment goes on");
    let received = [("environment", "production"), ("class", "receiver")];
    daemon.metrics_when("the span of the other environment", SOON, |m| m.received(&received) == 1).await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test]
async fn an_index_that_vanishes_while_it_is_read_does_not_stop_the_others() {
    let elasticsearch = needs!(elasticsearch(NEW));
    let word = unique("vanish");
    let (doomed, lasting) = (format!("spans-{word}-doomed"), format!("spans-{word}-lasting"));
    let begin = History::of_hours("checkout", 2);
    let documents = |count: u64| begin.calls().take(count as usize).map(|call| otel(&call, "production")).collect::<Vec<_>>();
    elasticsearch.plain_index(&doomed).await;
    elasticsearch.index(&doomed, documents(5000)).await;
    let mut setup = Setup::new();
    let receiver = elasticsearch.receiver(&format!("spans-{word}-*")) + "    page_size: 100\n";
    setup.environment("production", &pipelines::traces("elasticsearch", &receiver, "console", "  console: {}\n"));
    let mut daemon = setup.start().await;
    let receiver = [("environment", "production"), ("class", "receiver")];
    daemon.metrics_when("a page of the index that will vanish", SOON, |m| m.received(&receiver) > 0).await;
    elasticsearch.call(reqwest::Method::DELETE, &doomed, None).await;

    // Newer than all that was read: these are counted only if the receiver has gone on.
    elasticsearch.plain_index(&lasting).await;
    let fresh: Vec<_> = (0..50).map(|n| otel(&Call::now(1_000_000 + n), "production")).collect();
    let read = daemon.metrics().await.received(&receiver);
    elasticsearch.index(&lasting, fresh).await;
    daemon
        .metrics_when("the documents of the other index", Duration::from_secs(60), |m| m.received(&receiver) >= read + 50)
        .await;
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}

#[tokio::test]
async fn a_full_disk_behind_the_file_exporter_loses_no_other_exporters_anomalies() {
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    let exporters = "  file: { path: /dev/full }\n  console: { format: json }\n";
    setup.environment("production", &pipelines::traces("otlp", &pipelines::otlp(grpc, http), "file, console", exporters));
    let mut daemon = setup.start().await;
    send_all(grpc, History::of_hours("checkout", 7).with_fault().calls(), "production").await;
    let console = [("class", "exporter"), ("component", "console")];
    daemon.metrics_when("an anomaly on the console", SOON, |m| m.sum("anomalyd_component_sent_total", &console) > 0).await;
    let anomaly = daemon.printed();
    let anomaly: serde_json::Value = serde_json::from_str(anomaly.lines().next().expect("a line")).expect("JSON");
    assert_eq!(anomaly["entity"]["operation"], json!(SLOW), "{anomaly}");
    let told = eventually("the health to tell of the full disk", SOON, async || {
        let (_, health) = daemon.health().await;
        if health.contains("No space left on device") { Ok(health) } else { Err(format!("{health}\n{}", daemon.said())) }
    })
    .await;
    assert!(told.contains("/dev/full"), "where: {told}");
    send_grpc(grpc, traces(&[Call::now(1)], None)).await.expect("everything else keeps flowing");
    daemon.stop().await;
}

#[tokio::test]
async fn a_full_disk_behind_the_dead_letter_file_loses_nothing() {
    let elasticsearch = needs!(elasticsearch(NEW));
    let environment = unique("letters");
    // A data stream in which no anomaly fits.
    let stream = format!("logs-anomaly.strange-{environment}");
    let template = json!({
        "index_patterns": [stream], "priority": 1000, "data_stream": {},
        "template": { "mappings": { "properties": { "anomaly": { "type": "boolean" } } } },
    });
    elasticsearch.call(reqwest::Method::PUT, &format!("_index_template/{stream}"), Some(template)).await;
    let (grpc, http) = (free_port(), free_port());
    let exporter = format!("  elasticsearch:\n{}    index: {stream}\n    setup: false\n", elasticsearch.yaml(4));
    let mut setup = Setup::new();
    setup.environment(&environment, &pipelines::traces("otlp", &pipelines::otlp(grpc, http), "elasticsearch", &exporter));
    let folder = setup.path("data/dead_letter");
    let letters = folder.join(format!("{environment}-elasticsearch.ndjson"));
    std::fs::create_dir_all(&folder).expect("a folder");
    std::os::unix::fs::symlink("/dev/full", &letters).expect("a link to a full disk");

    let mut daemon = setup.start().await;
    send_all(grpc, History::of_hours("checkout", 7).with_fault().calls(), &environment).await;
    eventually("the health to tell of the full disk", SOON, async || {
        let (_, health) = daemon.health().await;
        let told = health.contains("No space left on device") && health.contains("dead_letter");
        if told { Ok(()) } else { Err(format!("{health}\n{}", daemon.said())) }
    })
    .await;
    let dropped = [("class", "exporter")];
    assert_eq!(daemon.metrics().await.sum("anomalyd_component_dropped_total", &dropped), 0, "what has no place waits");
    send_grpc(grpc, traces(&[Call::now(1)], Some(&environment))).await.expect("spans are still taken");

    // There is room again.
    std::fs::remove_file(&letters).expect("the link");
    let metrics = daemon
        .metrics_when("the anomalies in the dead-letter file", Duration::from_secs(60), |m| {
            m.sum("anomalyd_component_dropped_total", &[("class", "exporter"), ("reason", "dead_letter")]) > 0 && m.drained()
        })
        .await;
    let written = std::fs::read_to_string(&letters).expect("the dead-letter file");
    // Its strange fields are those of anomalies: the events of incidents are taken.
    let refused = metrics.sum("anomalyd_component_dropped_total", &[("class", "exporter"), ("reason", "dead_letter")]);
    let sent = metrics.sum("anomalyd_component_sent_total", &[("class", "exporter")]);
    assert_eq!(written.lines().count() as u64, refused, "every refused document is in it: {written}");
    assert_eq!(refused + sent, metrics.received(&dropped), "and the others are in the cluster");
    for line in written.lines() {
        let letter: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(letter.to_string().contains("document_parsing_exception"), "with the reason: {letter}");
    }
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}
