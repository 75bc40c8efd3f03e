//! What is taken, and what it becomes.

use proptest::prelude::*;

use super::*;
use crate::config::{ByteSize, Channel, Contamination, Duration, Endpoint, ModelType, Redis};
use crate::pipeline::{Class, ComponentId};

fn loaded(daemon: &str, pipeline: &str) -> Loaded {
    load(&files(daemon, pipeline)).unwrap_or_else(|report| panic!("{report}"))
}

/// The configuration of `id` in the only environment.
fn config(loaded: &Loaded, class: Class, id: &str) -> serde_json::Value {
    loaded.plans[0].find(class, &ComponentId::parse(id).unwrap()).unwrap().config.clone()
}

#[test]
fn what_is_not_written_has_its_default() {
    let daemon = loaded(DAEMON, PIPELINE).daemon;
    assert_eq!(daemon.storage.data_dir, Path::new("./data"));
    assert_eq!(daemon.server.endpoint, Endpoint::new("127.0.0.1", 13133));
    assert_eq!((daemon.pipeline.queue_size, daemon.pipeline.shutdown_deadline), (64, Duration::from_secs(30)));
    assert_eq!(daemon.telemetry.logs.level.as_str(), "info");
    assert!(daemon.redis.is_none() && daemon.telemetry.otlp.is_none());
}

#[test]
fn the_blocks_of_the_design_are_read_as_written() {
    let blocks = r#"
redis: { cluster_mode: true, nodes: [redis-cluster-1:6379, redis-cluster-2:6379] }
ai_service: { model_type: isolation_forest, training_samples: 1000, retrain_interval: "24h", contamination: 0.05 }
alerts: { channels: [ { type: console }, { type: webhook, url: "https://alerts.company.com/webhook" }, { type: slack, webhook_url: "https://${HOST}/x" } ] }
data_collection: { batch_size: 100, flush_interval: "30s", max_memory: "512MB" }
security: { api_key_required: true, rate_limiting: { requests_per_minute: 1000, burst_limit: 100 }, allowed_origins: [], encryption: { data_at_rest: true, data_in_transit: true } }
audit: { log_all_requests: true, retention_days: 90 }
"#;
    let loaded = loaded(&format!("{DAEMON}{blocks}"), PIPELINE);
    let daemon = &loaded.daemon;
    assert!(matches!(&daemon.redis, Some(Redis::Cluster(c)) if c.nodes.len() == 2));
    let ai = daemon.ai_service.as_ref().unwrap();
    assert_eq!((ai.model_type, ai.contamination), (ModelType::IsolationForest, Contamination::Share(0.05)));
    let channels = &daemon.alerts.as_ref().unwrap().channels;
    assert!(matches!(&channels[2], Channel::Slack { webhook_url } if webhook_url.expose() == "https://es-1/x"));
    assert_eq!(daemon.data_collection.unwrap().max_memory, Some(ByteSize::new(512_000_000)));
    assert!(daemon.security.as_ref().unwrap().encryption.data_at_rest);
    assert_eq!(daemon.audit.unwrap().retention_days, 90);
    insta::assert_snapshot!(loaded.notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_single_redis_and_every_channel_are_read() {
    let blocks = "
redis: { single_node: true, host: localhost, port: 6380 }
ai_service:
alerts:
  channels:
    - { type: pagerduty, routing_key: \"${env:ES_KEY}\" }
    - { type: email, smtp: mail:25, from: a@b.c, to: [d@e.f], username: u, password: p }
";
    let daemon = loaded(&format!("{DAEMON}{blocks}"), PIPELINE).daemon;
    assert!(matches!(&daemon.redis, Some(Redis::Single(s)) if s.port == 6380));
    assert_eq!(daemon.ai_service.unwrap().contamination, Contamination::Auto);
    assert_eq!(daemon.alerts.unwrap().channels.len(), 2);
}

#[test]
fn a_section_that_is_named_and_left_empty_has_its_defaults() {
    let loaded = loaded(DAEMON, &pipeline_with("      grpc:\n", "      grpc:\n      http:\n"));
    assert_eq!(config(&loaded, Class::Receiver, "otlp").to_string(), r#"{"protocols":{"grpc":{},"http":{}}}"#);
}

#[test]
fn a_variable_alone_has_the_type_that_is_wanted() {
    let daemon = "environments: [dev.yml]\npipeline: { queue_size: \"${env:SIZE}\" }\n";
    let exporter = "exporters:
  elasticsearch:
    endpoints: ${env:NODES}
    api_key: ${env:PIN}
    interval: ${env:MISSING:-5s}
";
    let loaded = loaded(daemon, &format!("{}{exporter}", pipeline_with("[console]", "[elasticsearch]")));
    assert_eq!(loaded.daemon.pipeline.queue_size, 32);
    let config = config(&loaded, Class::Exporter, "elasticsearch");
    insta::assert_snapshot!(config.to_string());
}

#[test]
fn the_resolved_files_show_everything_but_secrets() {
    let exporter = "exporters:
  elasticsearch:
    endpoints: [\"https://${env:HOST}:9200\"]
    api_key: ${env:ES_KEY}
    interval: 10s
";
    let loaded = loaded(DAEMON, &format!("{}{exporter}", pipeline_with("[console]", "[elasticsearch]")));
    let resolved: Vec<String> = loaded.resolved.iter().map(|(file, yaml)| format!("# {}\n{yaml}", file.display())).collect();
    insta::assert_snapshot!(resolved.join("\n"));
}

#[test]
fn what_a_component_has_to_say_without_objecting_is_a_note() {
    let loaded = loaded(DAEMON, &pipeline_with("grpc:", "grpc: { endpoint: 0.0.0.0:4317 }"));
    insta::assert_snapshot!(loaded.notes[0].to_string());
}

#[test]
fn anchors_and_merge_keys_work_as_in_yaml() {
    let exporters = "exporters:
  elasticsearch/a: &es
    endpoints: [https://es:9200]
    interval: 10s
  elasticsearch/b:
    <<: *es
    interval: 20s
";
    let text = format!("{}{exporters}", pipeline_with("[console]", "[elasticsearch/a, elasticsearch/b]"));
    let loaded = loaded(DAEMON, &text);
    let config = config(&loaded, Class::Exporter, "elasticsearch/b");
    assert_eq!(config.to_string(), r#"{"endpoints":["https://es:9200"],"interval":"20s"}"#);
}

#[test]
fn paths_of_pipeline_files_start_from_the_daemon_file() {
    let files = Texts::default()
        .with("etc/config/a.yml", "environments: [../pipelines/dev.yml]\n")
        .with("etc/pipelines/dev.yml", pipeline_with("environment: dev", "environment: ${file:name}"))
        .with("etc/pipelines/name", "qa\n");
    let loaded = load_from(&files, Path::new("etc/config/a.yml"), &environment, FACTORIES).unwrap();
    assert_eq!(loaded.plans[0].spec.environment.as_str(), "qa");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    let text = format!("\u{feff}{}", PIPELINE.replace('\n', "\r\n"));
    assert_eq!(loaded(DAEMON, &text).plans[0].spec.environment.as_str(), "dev");
}

#[test]
fn the_report_is_coloured_only_when_asked() {
    let report = load(&files(DAEMON, "x: 1\n")).err().unwrap();
    assert!(report.render(true).contains("\u{1b}["));
    assert!(!report.render(false).contains('\u{1b}') && !report.to_string().contains('\u{1b}'));
}

#[test]
fn every_message_has_a_place() {
    let report = load(&files("environments: [dev.yml]\nnonsense: é\nx: 1\n", PIPELINE)).err().unwrap();
    let places: Vec<String> =
        report.iter().map(|(p, m)| p.map_or(m.clone(), |p| format!("{}:{}:{}", p.file.display(), p.line, p.column))).collect();
    assert_eq!(places, ["daemon.yml:2:1", "daemon.yml:3:1"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Lines are dropped, cut, repeated and shuffled; the report must come, and each place must be in the file.
    #[test]
    fn a_mangled_file_is_taken_or_reported_but_never_harmful(
        cuts in prop::collection::vec((0usize..12, 0usize..60, "[a-z:{}\\[\\]\"' #&*$!|>\t-]{0,4}"), 1..6)
    ) {
        let mut lines: Vec<String> = PIPELINE.lines().map(str::to_owned).collect();
        for (line, at, insert) in cuts {
            if let Some(text) = lines.get_mut(line) {
                let at = at.min(text.len());
                text.insert_str(at, &insert);
            } else if !lines.is_empty() {
                let line = line % lines.len();
                lines.remove(line);
            }
        }
        let text = lines.join("\n");
        if let Err(report) = load(&files(DAEMON, &text)) {
            prop_assert!(!report.is_empty());
            prop_assert!(!report.to_string().is_empty());
            for (place, _) in report.iter() {
                prop_assert!(place.is_none_or(|p| p.line <= text.lines().count().max(1)));
            }
        }
    }

    #[test]
    fn any_text_is_taken_or_reported(text in "\\PC{0,80}") {
        let _ = load(&files(DAEMON, &text)).map_err(|report| report.to_string());
        let _ = load(&files(&text, PIPELINE)).map_err(|report| report.to_string());
    }
}
