//! Backtests over files, in this process, from rows to reports.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::*;
use crate::model::Direction;
use crate::pipeline::Span;

/// 2026-01-01, a Thursday.
const BEGIN: u64 = 1_767_225_600;
const STEP: u64 = 300;

/// Small reproducible noise, -1 to 1.
fn noise(seed: u64) -> f64 {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 52) as f64 - 1.0
}

/// Requests with a daily rhythm, and a queue: ten days, on the ninth of which the queue is full for half an hour.
fn values(row: u64) -> (f64, f64) {
    let day = (std::f64::consts::TAU * ((row * STEP) % 86_400) as f64 / 86_400.0).sin();
    let full = (8 * 288 + 100..8 * 288 + 106).contains(&row);
    let queue = if full { 95.0 } else { 20.0 + 2.0 * noise(row * 2 + 1) };
    (100.0 + 60.0 * day + 5.0 * noise(row * 2), queue)
}

const ROWS: u64 = 10 * 288;

/// A folder with `shop.csv`.
fn csv() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.csv");
    let mut text = "timestamp,requests,queue\n".to_owned();
    for row in 0..ROWS {
        let (requests, queue) = values(row);
        let _ = writeln!(text, "{},{requests:.3},{queue:.3}", BEGIN + row * STEP);
    }
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn all() -> Span {
    Span { from: UnixNanos(0), until: UnixNanos(u64::MAX), anew: true, ends: true }
}

async fn backtest(inputs: &[PathBuf], span: Span) -> Report {
    let job = of_files(inputs, None, span).unwrap();
    let ran = run(job, CancellationToken::new(), |_| {}).await.unwrap();
    assert_eq!((ran.error, ran.interrupted), (None, false));
    // What differs from run to run and from machine to machine.
    let mut report = Report { seconds: 2.0, ..ran.report };
    report.sources = vec!["shop.csv".to_owned()];
    report
}

fn plain(report: &Report) -> String {
    anstream::adapter::strip_str(&text(report)).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fault_in_a_file_is_the_top_finding_and_everything_is_accounted_for() {
    let (_folder, path) = csv();
    let report = backtest(&[path], all()).await;
    assert_eq!((report.series.seen, report.series.ready), (2, 2));
    assert_eq!((report.records, report.values), (2 * ROWS, 2 * ROWS), "the last rows are judged too");
    assert_eq!(report.bucket_seconds, STEP);
    assert_eq!(report.to, UnixNanos::from_secs(BEGIN + ROWS * STEP));
    let first = &report.top[0];
    assert_eq!((first.anomaly.metric.as_str(), first.anomaly.direction), ("queue", Direction::Spike));
    let row = (first.anomaly.window.start.secs() - BEGIN) / STEP;
    assert!((8 * 288 + 100..8 * 288 + 103).contains(&row), "row {row}");
    let at: Vec<u64> = first.chart.iter().filter(|s| s.observed > 90.0).map(|s| s.at.secs()).collect();
    assert_eq!(at.len(), 6, "the chart shows the whole fault");
    assert_eq!(report.days.len(), 10);
    assert_eq!(report.days.iter().map(|d| d.anomalies).sum::<u64>(), report.anomalies);
    assert!(report.thresholds.iter().any(|t| t.in_force && t.per_day == report.per_day));
}

/// A report that no model had a part in.
fn report() -> Report {
    let at = |minute: u64| UnixNanos::from_secs(BEGIN + minute * 60);
    let anomaly = |service: &str, start: UnixNanos, score: f64| crate::model::Anomaly {
        id: "anomaly".to_owned(),
        fingerprint: "series".to_owned(),
        environment: crate::model::Environment::new("production"),
        detector: crate::model::DetectorRef { name: "detector".into(), kind: "ensemble".into(), version: "1".into() },
        signal: crate::model::Signal::Traces,
        entity: crate::model::Entity { operation: Some("POST /<pay>".into()), ..crate::model::Entity::service(service) },
        metric: "span".to_owned(),
        unit: "s".to_owned(),
        function: "p99".to_owned(),
        window: crate::model::Window { start, end: start.plus(60 * UnixNanos::SECOND) },
        observed: 0.412,
        expected: 0.095,
        lower: 0.06,
        upper: 0.13,
        samples: 42.0,
        score,
        probability: 1e-7,
        severity: crate::model::Severity::of(score),
        direction: Direction::Spike,
        reasons: vec![crate::model::Reason {
            component: "time_of_day".into(),
            surprise: 6.0,
            share: 1.0,
            text: "p99 412 ms, expected 95 ms at this time of day".into(),
        }],
        past: None,
        incident: None,
    };
    let sample = |minute: u64| collect::Sample {
        at: at(minute),
        observed: if minute == 30 { 0.412 } else { 0.095 },
        expected: 0.095,
        lower: 0.06,
        upper: 0.13,
    };
    let finding = |service: &str, chart: Vec<collect::Sample>, also: Vec<String>| report::Finding {
        headline: format!("{service} POST /<pay>: latency p99 412 ms, 4.3x the expected 95 ms"),
        anomaly: anomaly(service, at(30), 87.0),
        also,
        chart,
    };
    Report {
        format: 1,
        environment: "production".to_owned(),
        sources: vec!["elasticsearch/apm".to_owned()],
        from: at(0),
        to: at(3 * 1440),
        complete: false,
        bucket_seconds: 60,
        threshold: 1.55,
        records: 1_234_567,
        values: 99_000,
        seconds: 61.5,
        series: report::SeriesCount { seen: 40, ready: 36, warming: 4 },
        anomalies: 5,
        per_day: 5.0 / 3.0,
        incidents: 2,
        severities: vec![("critical", 2), ("major", 0), ("minor", 3), ("warning", 0)],
        days: ["2026-01-01", "2026-01-02", "2026-01-03"]
            .into_iter()
            .zip([4, 0, 1])
            .map(|(date, anomalies)| report::Day { date: date.to_owned(), anomalies })
            .collect(),
        services: [("checkout", 4), ("<cart>", 1)]
            .map(|(service, anomalies)| report::Service { service: service.to_owned(), anomalies })
            .to_vec(),
        thresholds: [(1.0, 3.2, false), (1.55, 5.0 / 3.0, true), (3.0, 0.05, false)]
            .map(|(threshold, per_day, in_force)| report::Threshold { threshold, per_day, in_force })
            .to_vec(),
        top: vec![
            finding("checkout", (0..60).map(sample).collect(), (0..5).map(|i| format!("checkout: other {i}")).collect()),
            finding("<cart>", Vec::new(), Vec::new()),
        ],
        dropped: [("late".to_owned(), 17)].into(),
        notes: vec!["receiver `otlp` is left out: what is sent to it is not kept anywhere".to_owned()],
    }
}

#[test]
fn the_report_reads_from_the_whole_to_the_single() {
    insta::assert_snapshot!("text", plain(&report()));
    let none = Report { anomalies: 0, top: Vec::new(), complete: true, notes: Vec::new(), incidents: 0, ..report() };
    assert!(plain(&none).contains("anomalies  none"), "{}", plain(&none));
}

#[test]
fn programs_get_everything_that_people_do() {
    insta::assert_json_snapshot!("json", report());
}

#[test]
fn the_page_stands_alone_and_has_a_chart_per_finding() {
    let page = html(&report());
    for outside in ["<script", "<link", "src=", "url(", "@import", "http://", "https://"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains("<cart>") && !page.contains("<pay>"), "names are escaped");
    assert_eq!(page.matches("<svg ").count(), 2, "the days, and the one finding that has values");
    assert_eq!(page.matches("role=\"img\" aria-label=").count(), 2);
    for opened in ["section", "article", "figure", "table", "ul", "dl", "svg", "main", "details", "div", "a", "span"] {
        let tags = |tag: &str| page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(tags(opened), page.matches(&format!("</{opened}>")).count(), "<{opened}>");
    }
    // Its structure: tags and words, without coordinates.
    let body = page.split("</head>").nth(1).unwrap();
    let coordinates = [(r#" d="[^"]*""#, ""), (r#" (x1|x2|y1|y2|x|y|cx|cy|width|height)="[-0-9.]+""#, "")];
    insta::with_settings!({ filters => coordinates }, { insta::assert_snapshot!("html", body) });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_values_as_ndjson_give_the_same_anomalies() {
    let (folder, path) = csv();
    let long = folder.path().join("values.ndjson");
    let mut lines = String::new();
    for row in 0..ROWS {
        let (requests, queue) = values(row);
        for (metric, value) in [("requests", requests), ("queue", queue)] {
            let _ = writeln!(
                lines,
                "{{\"@timestamp\":{},\"service\":\"shop\",\"metric\":\"{metric}\",\"value\":{value:.3}}}",
                BEGIN + row * STEP
            );
        }
    }
    std::fs::write(&long, lines).unwrap();
    let ids = |report: &Report| report.top.iter().map(|f| f.anomaly.id.clone()).collect::<Vec<_>>();
    let (one, other) = (backtest(&[path], all()).await, backtest(&[long], all()).await);
    assert!(!ids(&one).is_empty());
    assert_eq!(ids(&one), ids(&other));
    assert_eq!((one.anomalies, one.thresholds), (other.anomalies, other.thresholds));
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_rows_that_reach_over_weeks_at_once_are_all_judged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("queue.csv");
    let rows = 6_000;
    let lines = (0..rows).map(|row| format!("{},{:.3}\n", BEGIN + row * STEP, 20.0 + noise(row)));
    std::fs::write(&path, "time,queue\n".to_owned() + &lines.collect::<String>()).unwrap();
    let report = backtest(&[path], all()).await;
    assert_eq!((report.values, report.dropped), (rows, std::collections::BTreeMap::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn from_is_inside_and_to_is_outside() {
    let (_folder, path) = csv();
    let at = |row: u64| UnixNanos::from_secs(BEGIN + row * STEP);
    let report = backtest(&[path], Span { from: at(100), until: at(700), ..all() }).await;
    assert_eq!((report.from, report.to, report.values), (at(100), at(700), 2 * 600));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_ends_it_with_a_report_of_what_came_before() {
    let (_folder, path) = csv();
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("yesterday,1,2\n");
    std::fs::write(&path, text).unwrap();
    let job = of_files(std::slice::from_ref(&path), None, all()).unwrap();
    let ran = run(job, CancellationToken::new(), |_| {}).await.unwrap();
    let error = ran.error.unwrap();
    assert!(error.contains("shop.csv:2882: `yesterday` is not a time"), "{error}");
    assert!(!ran.report.complete && ran.report.anomalies > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stopped_reports_what_it_has() {
    let (_folder, path) = csv();
    let stop = CancellationToken::new();
    stop.cancel();
    let job = of_files(std::slice::from_ref(&path), None, all()).unwrap();
    let ran = run(job, stop, |_| {}).await.unwrap();
    assert!(ran.interrupted && !ran.report.complete);
    assert_eq!(ran.error, None);
    let _ = (text(&ran.report), html(&ran.report));
}

#[test]
fn an_environment_without_a_reader_of_the_past_says_what_to_do() {
    let pipelines = "environment: production\nreceivers:\n  otlp: { protocols: { grpc: { endpoint: \"127.0.0.1:4317\" } } }\nservice:\n  pipelines:\n    \
                     metrics: { receivers: [otlp], exporters: [detector] }\n    anomalies: { receivers: [detector], exporters: [console] }\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("production.yml"), pipelines).unwrap();
    std::fs::write(folder.path().join("daemon.yml"), "environments: [production.yml]\n").unwrap();
    let loaded = crate::config::load(&folder.path().join("daemon.yml"), &|_| None, crate::components::FACTORIES);
    let loaded = loaded.map_err(|e| e.render(false)).unwrap();
    let error = of_environment(&loaded.plans[0], all(), UnixNanos(0)).map(|_| ()).unwrap_err();
    insta::assert_snapshot!(error);
}

#[test]
fn only_what_reads_the_past_is_left_of_the_graph() {
    let pipelines = "environment: production
receivers:
  otlp: { protocols: { grpc: { endpoint: \"127.0.0.1:4317\" } } }
  elasticsearch: { endpoints: [\"http://localhost:9200\"], indices: [\"traces-*\"] }
service:
  pipelines:
    traces: { receivers: [otlp, elasticsearch], processors: [red_metrics], exporters: [detector] }
    logs: { receivers: [otlp], processors: [log_patterns], exporters: [detector] }
    anomalies: { receivers: [detector], exporters: [console] }
";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("production.yml"), pipelines).unwrap();
    std::fs::write(folder.path().join("daemon.yml"), "environments: [production.yml]\n").unwrap();
    let loaded = crate::config::load(&folder.path().join("daemon.yml"), &|_| None, crate::components::FACTORIES);
    let loaded = loaded.map_err(|e| e.render(false)).unwrap();
    let job = of_environment(&loaded.plans[0], all(), UnixNanos(0)).unwrap();
    let used: Vec<String> = job.plan.used.iter().map(|u| format!("{} {}", u.factory.class().as_str(), u.id)).collect();
    assert_eq!(used, ["receiver elasticsearch", "processor red_metrics", "connector detector", "exporter backtest"]);
    assert_eq!(job.plan.spec.pipelines.keys().collect::<Vec<_>>(), ["traces", "anomalies"]);
    assert_eq!(job.left_out, ["receiver `otlp` is left out: what is sent to it is not kept anywhere"]);
}
