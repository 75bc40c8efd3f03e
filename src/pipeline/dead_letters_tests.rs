use super::super::{ManualClock, Services};
use super::*;
use crate::model::Anomaly;

fn context(folder: &Path) -> Context {
    let services = Services {
        clock: Arc::new(ManualClock::new(UnixNanos::from_secs(1_800_000_000))),
        data_dir: folder.to_owned(),
        ..Services::in_memory()
    };
    Context::of_test("production", "elasticsearch/anomalies", services)
}

/// With numbers that JSON does not hold easily.
fn anomaly() -> Anomaly {
    Anomaly {
        observed: 0.1 + 0.2,
        expected: 1e-300,
        lower: f64::NEG_INFINITY,
        upper: f64::INFINITY,
        probability: 5e-324,
        ..Anomaly::example("mfrggz")
    }
}

#[test]
fn a_dead_letter_is_one_line_that_says_why_and_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let letters = DeadLetters::of(&context(folder.path()));
    let anomaly = anomaly();
    letters.keep([("a field\nof document mfrggz is no number", Finding::Anomaly(&anomaly))]).unwrap();
    letters.keep([]).unwrap();
    assert_eq!(letters.path(), folder.path().join("dead_letter/production-elasticsearch_anomalies.ndjson"));
    let text = std::fs::read_to_string(letters.path()).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    insta::assert_snapshot!(text.trim_end(), @r#"{"time":"2027-01-15T08:00:00.000Z","environment":"production","exporter":"elasticsearch/anomalies","reason":"a field\nof document mfrggz is no number","finding":{"id":"mfrggz","fingerprint":"series","environment":"production","detector":{"name":"detector","type":"ensemble","version":"1"},"signal":"logs","entity":{"service":"checkout"},"metric":"log.records","unit":"1/s","function":"rate","window":{"start":60000000000,"end":120000000000},"observed":0.30000000000000004,"expected":1e-300,"lower":null,"upper":null,"samples":570.0,"score":80.0,"probability":5e-324,"severity":"critical","direction":"spike","reasons":[]}}"#);
    let read: Vec<_> = read_dead_letters(letters.path()).unwrap().map(|line| line.unwrap().1.unwrap()).collect();
    assert_eq!(read[0].findings().unwrap().anomalies, [anomaly]);
    assert_eq!(read[0].kind_of_reason(), "a field\nof document ... is no number");
    assert_eq!(read[0].about(), Some(UnixNanos::from_secs(120)));
}

#[test]
fn the_oldest_files_of_an_exporter_come_first_and_others_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    assert!(dead_letter_files(folder.path()).unwrap().is_empty());
    let inside = folder.path().join("dead_letter");
    std::fs::create_dir(&inside).unwrap();
    for name in
        ["b.ndjson", "a.ndjson", "a.ndjson.1", "a.ndjson.10", "a.ndjson.2", "a.ndjson.resend", "a.ndjson.rest", "notes.txt"]
    {
        std::fs::write(inside.join(name), "").unwrap();
    }
    let names: Vec<String> = dead_letter_files(folder.path())
        .unwrap()
        .iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["a.ndjson.resend", "a.ndjson.10", "a.ndjson.2", "a.ndjson.1", "a.ndjson", "b.ndjson"]);
}
