//! The promises of the processor.

use super::*;
use crate::model::{Environment, LogRecord};

fn batch(records: &[(&str, u8, u64)]) -> Payload {
    let mut logs = LogRecords::default();
    for &(service, severity_number, second) in records {
        let mark = logs.attributes.mark();
        if !service.is_empty() {
            let (key, value) = (logs.symbols.intern("service.name"), logs.symbols.intern(service));
            logs.attributes.push(key, Value::Str(value));
        }
        let resource = logs.attributes.since(mark);
        logs.rows.push(LogRecord {
            resource,
            time: UnixNanos::from_secs(second),
            severity_number,
            body: Symbol::EMPTY,
            event_name: Symbol::EMPTY,
            trace_id: [0; 16],
            span_id: [0; 8],
            attributes: AttributeRange::default(),
        });
    }
    let (environment, source) = (Environment::new("production"), "otlp".into());
    Payload::Telemetry(Arc::new(Telemetry { environment, source, batch: Batch::Logs(logs) }))
}

fn table(processed: Processed) -> (Vec<(String, u64, Measure)>, u64) {
    let Some(Payload::Observations(o)) = processed.output else { panic!("expected observations") };
    let mut rows: Vec<_> = o.items.iter().map(|i| (i.entity.key(), i.time.secs(), i.measure.clone())).collect();
    rows.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    (rows, o.newest.secs())
}

#[test]
fn records_are_counted_per_service_severity_and_step() {
    let records = [("cart", 17, 100), ("cart", 18, 109), ("cart", 17, 110), ("cart", 0, 100), ("", 9, 105), ("", 21, 105)];
    let (rows, newest) = table(LogPatterns::new(&Config::default()).process(batch(&records)));
    let row = |key: &str, second, count| (key.to_owned(), second, Measure::Count(count));
    assert_eq!(newest, 110);
    assert_eq!(
        rows,
        [
            row("cart {severity=error}", 100, 2.0),
            row("cart {severity=error}", 110, 1.0),
            row("cart {severity=info}", 100, 1.0),
            row("unknown_service {severity=fatal}", 100, 1.0),
            row("unknown_service {severity=info}", 100, 1.0),
        ]
    );
}

#[test]
fn ignored_severities_and_records_without_time_are_dropped_with_their_reason() {
    let mut processor = LogPatterns::new(&Config { ignore: vec![SeverityBand::Debug, SeverityBand::Trace] });
    let processed = processor.process(batch(&[("a", 5, 300), ("a", 1, 100), ("a", 9, 0), ("a", 9, 200)]));
    assert_eq!(processed.dropped, [("severity_ignored", 2), ("no_time", 1)]);
    let (rows, newest) = table(processed);
    assert_eq!((rows.len(), newest), (1, 300), "what is ignored still shows how far event time has come");
}

#[test]
fn entities_are_shared_between_batches() {
    let mut processor = LogPatterns::new(&Config::default());
    let mut entity = || match processor.process(batch(&[("a", 9, 100)])).output {
        Some(Payload::Observations(o)) => Arc::clone(&o.items[0].entity),
        _ => panic!("expected observations"),
    };
    assert!(Arc::ptr_eq(&entity(), &entity()));
}
