//! A real Collector relays what telemetrygen makes, over both protocols: every item is counted.

use std::time::Duration;

use crate::support::collector::collector;
use crate::support::daemon::Setup;
use crate::support::metrics::Metrics;
use crate::support::{free_port, needs, pipelines};

const SIGNALS: [(&str, &str, u64); 3] = [("traces", "--traces", 500), ("metrics", "--metrics", 300), ("logs", "--logs", 700)];

#[tokio::test]
async fn a_collector_relays_every_item_over_grpc_and_over_http() {
    let collector = needs!(collector());
    let (grpc, http) = (free_port(), free_port());
    let mut setup = Setup::new();
    setup.environment("production", &pipelines::all_signals(grpc, http));
    let mut daemon = setup.start().await;

    // What comes in at one port goes out over gRPC, what comes in at the other over HTTP; both in batches and with
    // gzip, which is the Collector's default.
    let (over_grpc, over_http) = (free_port(), free_port());
    let mut config = format!(
        "receivers:
  otlp/grpc: {{ protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{over_grpc}\" }} }} }}
  otlp/http: {{ protocols: {{ grpc: {{ endpoint: \"127.0.0.1:{over_http}\" }} }} }}
processors:
  batch: {{ timeout: 200ms, send_batch_size: 200 }}
exporters:
  otlp_grpc: {{ endpoint: \"127.0.0.1:{grpc}\", tls: {{ insecure: true }} }}
  otlp_http: {{ endpoint: \"http://127.0.0.1:{http}\" }}
service:
  telemetry: {{ metrics: {{ level: none }} }}
  pipelines:
"
    );
    for (signal, ..) in SIGNALS {
        for protocol in ["grpc", "http"] {
            let pipeline = format!("{{ receivers: [otlp/{protocol}], processors: [batch], exporters: [otlp_{protocol}] }}");
            config.push_str(&format!("    {signal}/{protocol}: {pipeline}\n"));
        }
    }
    let mut relay = collector.run(&config, &[over_grpc, over_http]).await;
    for port in [over_grpc, over_http] {
        for (signal, option, count) in SIGNALS {
            let arguments = ["--otlp-endpoint", &format!("127.0.0.1:{port}"), option, &count.to_string(), "--service", "shop"];
            collector.generate(signal, &arguments).await;
        }
    }
    relay.stop().await;

    // Each of telemetrygen's traces is a span and its child; everything came twice, once over each protocol.
    let expected = SIGNALS.map(|(signal, _, count)| (signal, 2 * count * if signal == "traces" { 2 } else { 1 }));
    let metrics = daemon
        .metrics_when("every item of the Collector", Duration::from_secs(60), |m| {
            expected.iter().all(|(signal, count)| m.received(&[("class", "receiver"), ("payload", signal)]) >= *count)
        })
        .await;
    for (signal, count) in expected {
        let receiver = [("environment", "production"), ("class", "receiver"), ("component", "otlp"), ("payload", signal)];
        assert_eq!(metrics.received(&receiver), count, "{signal}\n{}\n{}", relay.log(), daemon.said());
    }
    let settled = daemon.metrics_when("the pipelines to be empty", Duration::from_secs(60), Metrics::drained).await;
    for signal in ["traces", "metrics", "logs"] {
        let dropped = settled.sum("anomalyd_component_dropped_total", &[("payload", signal)]);
        assert_eq!(dropped, 0, "nothing of {signal} is dropped:\n{}", settled.text());
    }
    assert_eq!(daemon.stop().await.code(), Some(0), "{}", daemon.said());
}
