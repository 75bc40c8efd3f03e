//! What is left of a daemon, and whether it is what it should be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cluster::Documents;

/// The environment that clients send to.
pub(crate) const PRODUCTION: &str = "production";
/// The environment that reads in the cluster.
pub(crate) const POLLED: &str = "polled";

/// What is left of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// A line for every series: a hash of all that was learnt of it.
    pub(crate) digest: String,
    pub(crate) documents: Documents,
    /// What the `file` exporter wrote in each environment.
    pub(crate) files: BTreeMap<&'static str, String>,
}

/// Fails where something is not as expected, and says what.
pub(crate) fn judge(outcome: &Outcome, expected: &Outcome) {
    same("what was learnt", &outcome.digest, &expected.digest);
    let mut delivered = BTreeSet::new();
    for (environment, expected) in &expected.files {
        let file = outcome.files.get(environment).map(String::as_str).unwrap_or_default();
        let ids: Vec<String> = file.lines().map(id).collect();
        in_order(&ids, &outcome.documents);
        for id in ids {
            assert!(delivered.insert(id.clone()), "{id} stands twice in the file of {environment}");
        }
        if *environment == PRODUCTION {
            same("the file", file, expected);
        } else {
            same("what was found", &essence(file), &essence(expected));
        }
    }
    let lines = |ids: &mut dyn Iterator<Item = &String>| ids.map(String::as_str).collect::<Vec<_>>().join("\n");
    same("the cluster", &lines(&mut outcome.documents.all.keys()), &lines(&mut delivered.iter()));
    for (id, document) in &expected.documents.all {
        if document["data_stream"]["namespace"] == PRODUCTION {
            assert_eq!(outcome.documents.all.get(id), Some(document), "document {id}");
        }
    }
}

/// Fails where the cluster was offered a document before it had one that was found earlier, but for one of the same request.
fn in_order(ids: &[String], documents: &Documents) {
    for (place, later) in ids.iter().enumerate() {
        let Some(first) = documents.offered.get(later).and_then(|requests| requests.first()) else { continue };
        for earlier in &ids[..place] {
            let had = documents.taken.get(earlier).is_some_and(|request| request <= first);
            let together = documents.offered.get(earlier).is_some_and(|requests| requests.contains(first));
            assert!(had || together, "{later} was offered by request {first}, when {earlier} was not there yet");
        }
    }
}

fn same(what: &str, ours: &str, expected: &str) {
    let differ = |one: &str, other: &str| {
        let lines: BTreeSet<&str> = other.lines().collect();
        one.lines().filter(|line| !lines.contains(line)).collect::<Vec<_>>().join("\n")
    };
    assert!(
        ours == expected,
        "{what} has {} lines, expected {}; too many or others:\n{}\nmissing:\n{}",
        ours.lines().count(),
        expected.lines().count(),
        differ(ours, expected),
        differ(expected, ours)
    );
}

fn parsed(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))
}

/// The id of a line of the `file` exporter, which is that of its document.
pub(crate) fn id(line: &str) -> String {
    let finding = parsed(line);
    let id = finding["id"].as_str().expect("an id");
    finding.get("sequence").map_or_else(|| id.to_owned(), |sequence| format!("{id}-{sequence}"))
}

/// What does not depend on how much is read at once, in an order that does not. The events of an incident tell what is
/// known of it by then: who reads more at once tells of its beginning with more of it, and of fewer changes.
pub(crate) fn essence(file: &str) -> String {
    let mut all = BTreeSet::new();
    for line in file.lines() {
        let mut finding = parsed(line);
        match finding["event"].as_str() {
            None => drop(finding["incident"].as_object_mut().and_then(|incident| incident.remove("lead"))),
            Some("escalated") => continue,
            Some(event) => finding = serde_json::json!({ "incident": finding["id"], "event": event }),
        }
        all.insert(finding.to_string());
    }
    all.into_iter().collect::<Vec<_>>().join("\n")
}

#[test]
#[should_panic(expected = "c was offered by request 2, when b was not there yet")]
fn what_is_overtaken_is_found() {
    let mut documents = Documents::default();
    for (id, offered, taken) in [("a", vec![1], 1), ("b", vec![1, 3], 3), ("c", vec![2], 2)] {
        documents.offered.insert(id.to_owned(), offered);
        documents.taken.insert(id.to_owned(), taken);
    }
    in_order(&["a", "b"].map(str::to_owned), &documents);
    in_order(&["a", "b", "c"].map(str::to_owned), &documents);
}
