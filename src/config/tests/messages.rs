//! Snapshots of every message. Each case is one mistake.

use std::fmt::Write as _;

use super::*;

/// The reports on all `cases`, one after the other.
fn reports(cases: &[(&str, Texts)]) -> String {
    let mut all = String::new();
    for (mistake, files) in cases {
        let report = load(files).err().unwrap_or_else(|| panic!("`{mistake}` was taken"));
        let _ = write!(all, "# {mistake}\n\n{report}\n");
    }
    all
}

fn pipeline(text: &str) -> Texts {
    files(DAEMON, text)
}

fn daemon(more: &str) -> Texts {
    files(&format!("{DAEMON}{more}"), PIPELINE)
}

#[test]
fn what_is_not_yaml_is_told_with_its_line() {
    insta::assert_snapshot!(reports(&[
        ("a tab indents", pipeline("environment: dev\nreceivers:\n\totlp:\n")),
        ("a line is indented too far", pipeline("environment: dev\n  default: true\n")),
        ("a bracket is not closed", pipeline("environment: dev\nreceivers: { otlp: {}\n")),
        ("a quote is not closed", pipeline("environment: \"dev\ndefault: true\n")),
        (
            "a variable in braces without quotes",
            pipeline("environment: dev\nreceivers:\n  elasticsearch: { api_key: ${env:ES_KEY} }\n")
        ),
        ("a key is given twice", pipeline("environment: dev\nservice: {}\nenvironment: prod\n")),
        ("two documents", pipeline("environment: dev\n---\nenvironment: prod\n")),
        ("an empty file", pipeline("# nothing\n")),
        ("a tag", pipeline("environment: !env NAME\n")),
        ("an unknown alias", pipeline("environment: *name\n")),
        ("an alias in itself", pipeline("service: &a\n  pipelines: *a\n")),
        ("not a mapping", pipeline("just some words\n")),
        ("a secret on the line at fault", pipeline("receivers:\n  elasticsearch:\n    api_key: \"hunter2hunter2\n")),
    ]));
}

#[test]
fn files_that_cannot_be_read_are_told() {
    insta::assert_snapshot!(reports(&[
        ("no daemon file", Texts::default()),
        (
            "no pipeline file",
            Texts::default().with("daemon.yml", "environments:\n  - dev.yml\n  - prod.yml\n").with("dev.yml", PIPELINE)
        ),
        ("not text", Texts::default().with("daemon.yml", DAEMON).with("dev.yml", b"environment: d\nx: \xff\xfe\n".to_vec())),
        ("a pipeline file as the daemon file", Texts::default().with("daemon.yml", PIPELINE)),
        ("a daemon file as a pipeline file", files(DAEMON, DAEMON)),
        ("a file named twice", files("environments: [dev.yml, ./dev.yml]\n", PIPELINE)),
    ]));
}

#[test]
fn variables_that_cannot_be_resolved_are_told() {
    let with = |value: &str| pipeline(&pipeline_with("environment: dev", &format!("environment: {value}")));
    insta::assert_snapshot!(reports(&[
        ("not set", with("${env:MISSING}")),
        ("not set, inside text", with("a_${env:HOST}_${env:MISSING}")),
        ("no such file", with("${file:secrets/name}")),
        ("unknown source", with("${vault:name}")),
        ("not closed", with("a${env:HOST")),
        ("no name", with("${env:}")),
        ("set to nothing", with("${env:EMPTY}")),
        ("of the wrong kind", daemon("server: { endpoint: \"${env:SIZE}\" }\npipeline: { queue_size: \"${env:HOST}\" }\n")),
    ]));
}

#[test]
fn keys_that_are_wrong_are_told_with_what_was_meant() {
    insta::assert_snapshot!(reports(&[
        ("a slip", pipeline(&pipeline_with("grpc:", "grcp:"))),
        ("nothing like it", pipeline(&pipeline_with("grpc:", "thrift:"))),
        ("missing", pipeline("receivers: {}\n")),
        ("empty", pipeline(&pipeline_with("environment: dev", "environment:"))),
        (
            "indented too little",
            pipeline(
                "environment: dev\nreceivers:\notlp:\n  protocols: { grpc: }\nservice:\n  pipelines:\n    traces: { receivers: [otlp], processors: [red_metrics], exporters: [detector] }\n    anomalies: { receivers: [detector], exporters: [console] }\n"
            )
        ),
        ("several at once", files("enviroments: [dev.yml]\nstorage: { datadir: /x }\nserver: { endpoint: 1 }\n", PIPELINE)),
        ("no environments", files("storage: {}\n", PIPELINE)),
        ("an empty list of environments", files("environments: []\n", PIPELINE)),
        ("a key of the Collector that is not here", pipeline(&format!("{PIPELINE}extensions: {{ health_check: {{}} }}\n"))),
        (
            "a mistake in one file does not hide those of others",
            Texts::default()
                .with("daemon.yml", "environments: [a.yml, b.yml]\nlogs: {}\n")
                .with("a.yml", pipeline_with("grpc:", "grcp:"))
                .with("b.yml", pipeline_with("exporters: [console]", "exporters: [consul]"))
        ),
    ]));
}

#[test]
fn values_that_are_wrong_are_told_with_what_was_expected() {
    insta::assert_snapshot!(reports(&[
        ("a port without a host", pipeline(&pipeline_with("grpc:", "grpc: { endpoint: 4317 }"))),
        ("a URL for an endpoint", pipeline(&pipeline_with("grpc:", "grpc: { endpoint: \"http://localhost:4317\" }"))),
        ("a section that is text", pipeline(&pipeline_with("grpc:", "grpc: 0.0.0.0:4317"))),
        ("a list for a section", pipeline(&pipeline_with("      grpc:\n", "      - grpc\n"))),
        ("text for a list", files("environments: dev.yml\n", PIPELINE)),
        ("a number for text", pipeline(&pipeline_with("environment: dev", "environment: 2024"))),
        ("a name with a dash", pipeline(&pipeline_with("environment: dev", "environment: Prod-EU"))),
        ("yes for true", pipeline(&format!("{PIPELINE}default: yes\n"))),
        ("a duration without a unit", daemon("pipeline: { shutdown_deadline: 30 }\n")),
        ("a negative duration", daemon("pipeline: { shutdown_deadline: -30s }\n")),
        ("too short", daemon("telemetry: { otlp: { endpoint: \"http://collector:4317\", interval: 10ms } }\n")),
        (
            "a size without a unit",
            pipeline(&pipeline_with("    protocols:\n", "    max_request_body_size: 67108864\n    protocols:\n"))
        ),
        (
            "a size that is too large",
            pipeline(&pipeline_with("    protocols:\n", "    max_request_body_size: 64GiB\n    protocols:\n"))
        ),
        ("an unknown level", daemon("telemetry: { logs: { level: warning, format: jsn } }\n")),
        ("out of range", daemon("pipeline: { queue_size: 0 }\n")),
        ("a fraction for a whole number", daemon("pipeline: { queue_size: 1.5 }\n")),
        ("a number in quotes", daemon("pipeline: { queue_size: \"64\" }\n")),
        ("not a URL", daemon("telemetry: { otlp: { endpoint: collector:4317 } }\n")),
        ("infinity", daemon("ai_service: { contamination: .inf }\n")),
    ]));
}

#[test]
fn variants_are_judged_by_the_one_that_was_meant() {
    insta::assert_snapshot!(reports(&[
        ("a cluster without nodes", daemon("redis: { cluster_mode: true }\n")),
        ("a cluster that is none", daemon("redis: { cluster_mode: false, nodes: [a:6379] }\n")),
        ("a server with a wrong port", daemon("redis: { single_node: true, host: localhost, port: 99999 }\n")),
        ("a node without a port", daemon("redis: { cluster_mode: true, nodes: [redis-1] }\n")),
        ("nothing to tell by", daemon("redis: { hostname: localhost }\n")),
        ("an unknown model", daemon("ai_service: { model_type: isolation-forest }\n")),
        ("too few samples", daemon("ai_service: { training_samples: 5 }\n")),
        ("retrained all the time", daemon("ai_service: { retrain_interval: 10s }\n")),
        ("contamination too large", daemon("ai_service: { contamination: 0.9 }\n")),
        ("contamination a word", daemon("ai_service: { contamination: automatic }\n")),
        ("a channel without a type", daemon("alerts: { channels: [ { url: \"https://hooks.example.com/T0KEN\" } ] }\n")),
        (
            "a channel of an unknown type",
            daemon("alerts: { channels: [ { type: slak, webhook_url: \"https://hooks.example.com/T0KEN\" } ] }\n")
        ),
        ("a channel without its key", daemon("alerts: { channels: [ { type: slack } ] }\n")),
        ("a key of another channel", daemon("alerts: { channels: [ { type: slack, routing_key: abc123abc123 } ] }\n")),
        ("a channel that is a word", daemon("alerts: { channels: [ slack ] }\n")),
        (
            "mail to nobody",
            daemon("alerts:\n  channels:\n    - type: email\n      smtp: mail:25\n      from: anomalyd\n      to: []\n")
        ),
        ("a rate of nothing", daemon("security: { rate_limiting: { requests_per_minute: 0 } }\naudit: { retention_days: -1 }\n")),
    ]));
}

#[test]
fn pipelines_that_do_not_fit_are_told() {
    let traces = "traces: { receivers: [otlp], processors: [red_metrics], exporters: [detector] }";
    insta::assert_snapshot!(reports(&[
        (
            "an exporter that is not declared",
            pipeline(&pipeline_with("exporters: [console]", "exporters: [elasticsearch/anomalies]"))
        ),
        ("a receiver that is misspelt", pipeline(&pipeline_with("receivers: [otlp]", "receivers: [oltp]"))),
        ("a type that does not exist", pipeline(&pipeline_with("  otlp:\n", "  oltp/front:\n"))),
        ("an exporter that nothing uses", pipeline(&format!("{PIPELINE}exporters: {{ console/json: }}\n"))),
        ("spans that are not measured", pipeline(&pipeline_with("processors: [red_metrics], ", ""))),
        ("no receivers", pipeline(&pipeline_with("receivers: [otlp], ", ""))),
        ("an empty list", pipeline(&pipeline_with("receivers: [otlp]", "receivers: []"))),
        ("an unknown kind of pipeline", pipeline(&pipeline_with(traces, &traces.replace("traces:", "trace:")))),
        (
            "a detector that gives to nobody",
            pipeline(&pipeline_with("    anomalies: { receivers: [detector], exporters: [console] }\n", ""))
        ),
        ("not an id", pipeline(&pipeline_with("receivers: [otlp]", "receivers: [otlp/a/b]"))),
        ("a text for a list", pipeline(&pipeline_with("receivers: [otlp]", "receivers: otlp"))),
        ("the same twice", pipeline(&pipeline_with("receivers: [otlp]", "receivers: [otlp, otlp]"))),
        ("what a component's own check says", pipeline(&pipeline_with("      grpc:\n", ""))),
        ("what a component needs", pipeline(&pipeline_with("receivers:\n", "receivers:\n  elasticsearch:\n"))),
        ("no pipelines", pipeline("environment: dev\nservice: { pipelines: }\n")),
    ]));
}

#[test]
fn environments_that_clash_are_told() {
    let two = |a: &str, b: &str| {
        Texts::default().with("daemon.yml", "environments: [a.yml, b.yml]\n").with("a.yml", a).with("b.yml", b)
    };
    let other = pipeline_with("environment: dev", "environment: prod");
    insta::assert_snapshot!(reports(&[
        ("the same name twice", two(PIPELINE, PIPELINE)),
        ("two defaults", two(&format!("{PIPELINE}default: true\n"), &format!("default: true\n{other}"))),
    ]));
}

/// Texts that are secret in the cases below.
const SECRETS: [&str; 3] = ["hunter2", "s3cr3t-from-outside", "T0KEN"];

#[test]
fn no_message_shows_a_secret() {
    let poller = |more: &str| {
        pipeline(&format!("{PIPELINE}exporters:\n  elasticsearch/a:\n    endpoints: [https://es:9200]\n    {more}\n"))
    };
    let report = reports(&[
        ("a secret in a misspelt key", poller("api_kee: hunter2hunter2")),
        ("a secret where none belongs", poller("interval: ${env:ES_KEY}")),
        ("a secret beside a mistake", poller("basic: { user: elastic, password: hunter2hunter2 }")),
        ("a secret of the wrong type", poller("api_key: [hunter2hunter2]")),
        ("a number as a secret", poller("api_key: 4242424242")),
        ("an empty secret", poller("api_key: \"${env:EMPTY}\"")),
        ("a password in an address", poller("endpoint: https://elastic:hunter2@es:9200")),
        ("a webhook that is no URL", daemon("alerts: { channels: [ { type: webhook, url: hooks.example.com/T0KEN } ] }\n")),
        (
            "a webhook from outside that is no URL",
            daemon("alerts: { channels: [ { type: webhook, url: \"${env:ES_KEY}\" } ] }\n"),
        ),
    ]);
    for secret in SECRETS.into_iter().chain(["4242424242"]) {
        assert!(!report.contains(secret), "`{secret}` is shown in\n{report}");
    }
    insta::assert_snapshot!(report);
}

#[test]
fn a_yaml_bomb_is_refused_at_once() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..12 {
        let line = format!("*a{}, ", i - 1).repeat(10);
        let _ = writeln!(bomb, "a{i}: &a{i} [{}]", line.trim_end_matches(", "));
    }
    let deep = format!("a: {}{}\n", "[".repeat(5000), "]".repeat(5000));
    insta::assert_snapshot!(
        reports(&[("aliases of aliases", pipeline(&bomb)), ("nested lists", pipeline(&deep))]).replace(&"[".repeat(80), "")
    );
}

#[test]
fn of_very_many_mistakes_on_a_very_long_line_fifty_are_shown() {
    let keys: String = (0..2000).map(|i| format!(", mistake{i}: {i}")).collect();
    let report = load(&pipeline(&format!("receivers: {{ otlp: {{}}{keys} }}\n"))).err().expect("mistakes").to_string();
    assert!(report.ends_with(" more\n"), "{}", report.lines().last().unwrap_or_default());
    assert_eq!(report.matches("error: ").count(), 50);
    assert!(report.len() < 100_000, "{} bytes", report.len());
}
