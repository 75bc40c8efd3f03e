use std::sync::{Arc, Mutex};

use super::incident::tests::{belongs, incident};
use super::*;
use crate::model::{
    Anomaly, DetectorRef, Direction, Entity, Environment, Incident, IncidentEvent, Reason, Severity, Signal, SpanKind, UnixNanos,
    Window,
};
use crate::pipeline::{Output, Services};

/// Slow calls of one operation.
pub(super) fn anomaly() -> Anomaly {
    let start = UnixNanos::from_secs(1_768_473_000);
    Anomaly {
        id: "MZXW6YTBOI".into(),
        fingerprint: "GEZDGNBV".into(),
        environment: Environment::new("production"),
        detector: DetectorRef { name: "detector".into(), kind: "ensemble".into(), version: "1".into() },
        signal: Signal::Traces,
        entity: Entity { operation: Some("POST /pay".into()), kind: Some(SpanKind::Server), ..Entity::service("checkout") },
        metric: "span".into(),
        unit: "s".into(),
        function: "p99".into(),
        window: Window { start, end: start.plus(60 * UnixNanos::SECOND) },
        observed: 0.412,
        expected: 0.095,
        lower: 0.06,
        upper: 0.13,
        samples: 42.0,
        score: 87.2,
        probability: 1e-6,
        severity: Severity::Critical,
        direction: Direction::Spike,
        reasons: vec![
            Reason {
                component: "time_of_day".into(),
                surprise: 4.2,
                share: 0.62,
                text: "412 ms is far from the 95 ms usual at this time of day".into(),
            },
            Reason {
                component: "ar4".into(),
                surprise: 3.1,
                share: 0.38,
                text: "after the last four minutes 97 ms were to be expected".into(),
            },
        ],
        past: None,
        incident: None,
    }
}

/// Too many error records of one service.
pub(super) fn log_burst() -> Anomaly {
    Anomaly {
        signal: Signal::Logs,
        entity: Entity { attributes: vec![("severity".into(), "error".into())], ..Entity::service("payments") },
        metric: "log.records".into(),
        unit: "{record}".into(),
        function: "count".into(),
        observed: 61.0,
        expected: 3.0,
        lower: 0.0,
        upper: 8.0,
        samples: 61.0,
        score: 78.0,
        reasons: Vec::new(),
        ..anomaly()
    }
}

/// What was written, and what happens on the next write.
#[derive(Clone, Default)]
struct Sink {
    text: Arc<Mutex<Vec<u8>>>,
    fails_with: Arc<Mutex<Option<ErrorKind>>>,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(kind) = *self.fails_with.lock().unwrap() {
            return Err(kind.into());
        }
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }
}

struct Run {
    output: Output,
    sink: Sink,
    context: Context,
    task: tokio::task::JoinHandle<Result<(), ComponentError>>,
}

fn start(format: Format) -> Run {
    let sink = Sink::default();
    let context = Context::of_test("production", "console", Services::in_memory());
    let (edge, input) = Input::queue(8, Arc::clone(&context.counters));
    let console = Console { format, context: context.clone(), out: Box::new(sink.clone()), begun: false };
    Run { output: Output::new(vec![edge]), sink, context, task: tokio::spawn(Box::new(console).run(input)) }
}

impl Run {
    async fn send(&self, anomalies: Vec<Anomaly>) {
        self.output.send(Payload::Anomalies(Arc::new(anomalies.into()))).await.unwrap();
    }

    /// Waits until everything was handled, and ends the exporter.
    async fn finish(self) -> (Sink, Context) {
        drop(self.output);
        self.task.await.unwrap().unwrap();
        (self.sink, self.context)
    }
}

#[tokio::test]
async fn the_life_of_an_incident_reads_from_top_to_bottom() {
    let run = start(Format::Text);
    let opened = Findings {
        anomalies: vec![belongs(log_burst(), false), belongs(anomaly(), true)],
        incidents: vec![incident(IncidentEvent::Opened)],
    };
    run.output.send(Payload::Anomalies(Arc::new(opened))).await.unwrap();
    let ended = Findings { anomalies: vec![], incidents: vec![incident(IncidentEvent::Ended)] };
    run.output.send(Payload::Anomalies(Arc::new(ended))).await.unwrap();
    run.send(vec![anomaly()]).await;
    let (sink, context) = run.finish().await;
    insta::assert_snapshot!(sink.text());
    assert_eq!(context.counters.of(PayloadKind::Anomalies).sent, 5);
}

#[tokio::test]
async fn json_has_a_line_for_every_event_that_reads_back_as_the_incident() {
    let run = start(Format::Json);
    let findings = Findings { anomalies: vec![belongs(anomaly(), true)], incidents: vec![incident(IncidentEvent::Opened)] };
    run.output.send(Payload::Anomalies(Arc::new(findings))).await.unwrap();
    let (sink, _) = run.finish().await;
    let text = sink.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(serde_json::from_str::<Anomaly>(lines[0]).unwrap(), belongs(anomaly(), true));
    assert_eq!(serde_json::from_str::<Incident>(lines[1]).unwrap(), incident(IncidentEvent::Opened));
}

#[tokio::test]
async fn json_is_one_object_per_line_that_reads_back_as_the_anomaly() {
    let run = start(Format::Json);
    run.send(vec![anomaly(), log_burst()]).await;
    let (sink, _) = run.finish().await;
    let read: Vec<Anomaly> = sink.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read, [anomaly(), log_burst()]);
}

#[tokio::test]
async fn a_closed_stdout_is_told_and_counted_and_ends_nothing() {
    let run = start(Format::Text);
    run.send(vec![anomaly()]).await;
    while run.context.counters.of(PayloadKind::Anomalies).sent == 0 {
        tokio::task::yield_now().await;
    }
    *run.sink.fails_with.lock().unwrap() = Some(ErrorKind::BrokenPipe);
    run.send(vec![anomaly(), log_burst()]).await;
    run.send(vec![anomaly()]).await;
    let (_, context) = run.finish().await;
    let counts = context.counters.of(PayloadKind::Anomalies);
    assert!(counts.balanced());
    assert_eq!((counts.sent, counts.dropped.get("stdout_closed").copied()), (1, Some(3)));
    assert!(matches!(context.health.get(), Status::PermanentError(m) if m.contains("stdout was closed")));
}

#[tokio::test]
async fn what_could_not_be_written_is_told_and_its_sender_has_it_again() {
    let run = start(Format::Text);
    *run.sink.fails_with.lock().unwrap() = Some(ErrorKind::StorageFull);
    run.send(vec![anomaly()]).await;
    while run.context.counters.of(PayloadKind::Anomalies).in_flight > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(run.context.health.get(), Status::RecoverableError(_)));
    *run.sink.fails_with.lock().unwrap() = None;
    run.send(vec![anomaly()]).await;
    let (sink, context) = run.finish().await;
    assert_eq!(context.health.get(), Status::Ok);
    assert_eq!(sink.text().lines().count(), 3);
    let counts = context.counters.of(PayloadKind::Anomalies);
    assert_eq!((counts.refused, counts.sent, counts.dropped_total()), (1, 1, 0));
}

#[test]
fn an_unknown_key_is_an_error_and_no_key_is_needed() {
    assert_eq!(serde_json::from_str::<Config>("{}").unwrap().format, Format::Text);
    assert!(serde_json::from_str::<Config>(r#"{"formatt":"json"}"#).unwrap_err().to_string().contains("formatt"));
}
