//! The promises of the processor.

use proptest::prelude::*;

use super::*;
use crate::model::{Attributes, Environment, Span};

fn config(dimensions: &[&str], max_distinct: usize) -> Config {
    Config {
        dimensions: dimensions.iter().map(ToString::to_string).collect(),
        operation_name: OperationName { max_distinct },
        ..Config::default()
    }
}

fn processor(config: &Config) -> RedMetrics {
    RedMetrics::new(config, Arc::default())
}

/// What the tests say about a span.
#[derive(Clone, Debug)]
struct Call {
    service: &'static str,
    name: String,
    kind: SpanKind,
    second: u64,
    millis: u64,
    error: bool,
    status: Option<i64>,
}

fn call(service: &'static str, name: &str, second: u64) -> Call {
    Call { service, name: name.to_owned(), kind: SpanKind::Server, second, millis: 125, error: false, status: None }
}

fn batch(calls: &[Call]) -> Payload {
    let mut spans = Spans::default();
    for call in calls {
        let mark = spans.attributes.mark();
        if !call.service.is_empty() {
            let (key, value) = (spans.symbols.intern("service.name"), spans.symbols.intern(call.service));
            spans.attributes.push(key, Value::Str(value));
        }
        let resource = spans.attributes.since(mark);
        let mark = spans.attributes.mark();
        if let Some(status) = call.status {
            let key = spans.symbols.intern("http.response.status_code");
            spans.attributes.push(key, Value::Int(status));
        }
        let attributes = spans.attributes.since(mark);
        spans.rows.push(Span {
            resource,
            name: spans.symbols.intern(&call.name),
            kind: call.kind,
            status: if call.error { StatusCode::Error } else { StatusCode::Unset },
            start: UnixNanos::from_secs(call.second),
            duration: call.millis * 1_000_000,
            weight: 1.0,
            trace_id: [0; 16],
            span_id: [0; 8],
            parent_span_id: [0; 8],
            attributes,
        });
    }
    Payload::Telemetry(Arc::new(Telemetry {
        environment: Environment::new("production"),
        source: "otlp".into(),
        batch: Batch::Traces(spans),
    }))
}

fn observed(processed: Processed) -> Observations {
    match processed.output {
        Some(Payload::Observations(o)) => Arc::unwrap_or_clone(o),
        other => panic!("expected observations, got {other:?}"),
    }
}

/// Entity, step, count, errors, longest in ms.
fn table(observations: &[Observation]) -> Vec<(String, u64, f64, f64, f64)> {
    let mut all: Vec<_> = observations
        .iter()
        .map(|o| {
            let Measure::Calls { count, errors, latency } = &o.measure else { panic!("calls") };
            (o.entity.key(), o.time.secs(), *count, *errors, latency.max().unwrap() * 1000.0)
        })
        .collect();
    all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    all
}

#[test]
fn spans_add_up_per_service_operation_kind_and_step() {
    let calls = [
        call("checkout", "POST /pay", 100),
        Call { error: true, millis: 500, ..call("checkout", "POST /pay", 109) },
        call("checkout", "POST /pay", 110),
        Call { kind: SpanKind::Client, ..call("checkout", "POST /pay", 100) },
        call("", "GET /", 100),
    ];
    let observations = observed(processor(&Config::default()).process(batch(&calls)));
    assert_eq!(observations.newest.secs(), 110);
    assert_eq!(observations.signal, Signal::Traces);
    assert_eq!(
        table(&observations.items),
        [
            ("checkout POST /pay (client)".into(), 100, 1.0, 0.0, 125.0),
            ("checkout POST /pay (server)".into(), 100, 2.0, 1.0, 500.0),
            ("checkout POST /pay (server)".into(), 110, 1.0, 0.0, 125.0),
            ("unknown_service GET / (server)".into(), 100, 1.0, 0.0, 125.0),
        ]
    );
}

#[test]
fn spans_of_other_kinds_are_dropped_and_a_kind_that_is_not_said_is_internal() {
    let calls = [
        Call { kind: SpanKind::Internal, ..call("a", "x", 100) },
        Call { kind: SpanKind::Unspecified, ..call("a", "x", 200) },
        call("a", "x", 100),
        call("a", "x", 0),
    ];
    let processed = processor(&Config::default()).process(batch(&calls));
    assert_eq!(processed.dropped, [("kind_not_measured", 2), ("no_start_time", 1)]);
    let observations = observed(processed);
    assert_eq!((observations.items.len(), observations.newest.secs()), (1, 200));
    let all = Config { kinds: vec![Kind::Internal], ..Config::default() };
    let observations = observed(processor(&all).process(batch(&calls)));
    assert!(observations.items.iter().all(|o| o.entity.kind == Some(SpanKind::Internal)));
    assert_eq!(observations.items.len(), 2);
}

#[test]
fn a_call_longer_than_a_step_belongs_to_the_step_in_which_it_ended() {
    let calls = [Call { millis: 9_999, ..call("a", "x", 100) }, Call { millis: 60_000, ..call("a", "x", 100) }];
    let observations = observed(processor(&Config::default()).process(batch(&calls)));
    let steps: Vec<u64> = table(&observations.items).into_iter().map(|row| row.1).collect();
    assert_eq!(steps, [100, 160]);
    assert_eq!(observations.newest.secs(), 100, "it does not move event time ahead of calls that started meanwhile");
}

#[test]
fn dimensions_tell_series_apart_from_span_or_resource() {
    let calls = [
        Call { status: Some(200), ..call("a", "x", 100) },
        Call { status: Some(500), ..call("a", "x", 100) },
        call("a", "x", 100),
    ];
    let mut processor = processor(&config(&["service.name", "http.response.status_code"], 10));
    let keys: Vec<String> = table(&observed(processor.process(batch(&calls))).items).into_iter().map(|row| row.0).collect();
    assert_eq!(
        keys,
        [
            "a x (server) {http.response.status_code=200,service.name=a}",
            "a x (server) {http.response.status_code=500,service.name=a}",
            "a x (server) {service.name=a}",
        ]
    );
}

#[test]
fn span_names_beyond_the_limit_fold_into_other_and_are_counted() {
    let counters = Arc::new(Counters::default());
    let mut processor = RedMetrics::new(&config(&[], 2), Arc::clone(&counters));
    let calls: Vec<Call> = (0..50).map(|i| call("a", &format!("GET /users/{i}"), 100)).collect();
    let first = table(&observed(processor.process(batch(&calls))).items);
    assert_eq!(
        first,
        [
            ("a GET /users/0 (server)".into(), 100, 1.0, 0.0, 125.0),
            ("a GET /users/1 (server)".into(), 100, 1.0, 0.0, 125.0),
            ("a other (server)".into(), 100, 48.0, 0.0, 125.0),
        ]
    );
    // The same names are operations for ever, and another service has its own.
    let calls = [call("a", "GET /users/1", 200), call("a", "GET /users/2", 200), call("b", "GET /users/2", 200)];
    let keys: Vec<String> = table(&observed(processor.process(batch(&calls))).items).into_iter().map(|row| row.0).collect();
    assert_eq!(keys, ["a GET /users/1 (server)", "a other (server)", "b GET /users/2 (server)"]);
    assert_eq!(counters.events().get("calls_of_other_operations"), Some(&49));
}

#[test]
fn entities_are_shared_between_batches_and_very_long_names_are_cut() {
    let mut processor = processor(&Config::default());
    let long = "x".repeat(10 << 20);
    let one = observed(processor.process(batch(&[call("a", &long, 100)])));
    let two = observed(processor.process(batch(&[call("a", &long, 100)])));
    assert!(Arc::ptr_eq(&one.items[0].entity, &two.items[0].entity));
    assert_eq!(one.items[0].entity.operation.as_ref().unwrap().len(), MAX_TEXT);
}

#[test]
fn a_wrong_configuration_is_explained() {
    let wrong = serde_json::json!({
        "kinds": [], "dimensions": ["a", "", "a"], "operation_name": { "max_distinct": 0 }
    });
    let all: Vec<String> = check(&wrong).into_iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect();
    insta::assert_snapshot!(all.join("\n"));
    assert!(check(&serde_json::json!({})).is_empty());
}

fn any_call() -> impl Strategy<Value = Call> {
    let name = prop::sample::select(vec!["x", "y", "z"]);
    let service = prop::sample::select(vec!["a", "b", ""]);
    (service, name, 100u64..140, 0u64..9, any::<bool>(), prop::option::of(200i64..203)).prop_map(
        |(service, name, second, eighths, error, status)| Call {
            millis: eighths * 125,
            error,
            status,
            ..call(service, name, second)
        },
    )
}

/// Adds up what came in several observations.
fn added_up(observations: Vec<Observation>) -> std::collections::BTreeMap<(String, u64), (f64, f64, Sketch)> {
    let mut all = std::collections::BTreeMap::new();
    for o in observations {
        let Measure::Calls { count, errors, latency } = o.measure else { panic!("calls") };
        let sum = all.entry((o.entity.key(), o.time.secs())).or_insert((0.0, 0.0, Sketch::new()));
        sum.0 += count;
        sum.1 += errors;
        sum.2.merge(&latency);
    }
    all
}

proptest! {
    #[test]
    fn the_sizes_of_batches_do_not_matter(calls in prop::collection::vec(any_call(), 1..60), size in 1usize..20) {
        let config = config(&["http.response.status_code"], 100);
        let at_once = observed(processor(&config).process(batch(&calls))).items;
        let mut processor = processor(&config);
        let in_pieces: Vec<Observation> =
            calls.chunks(size).flat_map(|c| observed(processor.process(batch(c))).items).collect();
        prop_assert_eq!(added_up(at_once), added_up(in_pieces));
    }
}

#[test]
fn a_value_of_a_dimension_is_written_as_text_whatever_its_type() {
    let mut spans = Spans::default();
    let json = spans.symbols.intern("[1,2]");
    let mut attributes = Attributes::default();
    attributes.push(json, Value::Bool(true));
    for (value, expected) in [
        (Value::Str(json), "[1,2]"),
        (Value::Json(json), "[1,2]"),
        (Value::Bool(true), "true"),
        (Value::Int(-3), "-3"),
        (Value::Double(0.5), "0.5"),
    ] {
        assert_eq!(text(&spans, value), expected);
    }
}
