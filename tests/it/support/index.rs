//! The documents of a cluster that can be searched, as far as a reader asks: points in time, pages in the order of time,
//! documents that can be found only some time after they were written.

use std::collections::BTreeMap;

use chrono::DateTime;
use http::StatusCode;
use serde_json::{Value, json};

/// Points in time that are kept open: those of readers that were killed run out.
const POINTS: usize = 4;

/// A document, and when it is there.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) id: String,
    /// Nanoseconds since the epoch, as is the next.
    pub(crate) time: u64,
    /// From this moment on a search finds it.
    pub(crate) found_from: u64,
    pub(crate) source: Value,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Index {
    /// By time; where a document stands is its second sort value.
    documents: Vec<Written>,
    /// How far time has come here.
    now: u64,
    /// Open points in time, by name: when they were opened.
    points: BTreeMap<u64, u64>,
    opened: u64,
    /// Points in time that were asked for, and not there any more.
    pub(crate) gone: u64,
    /// Documents that were handed out, each time.
    pub(crate) read: u64,
}

impl Index {
    pub(crate) fn put(&mut self, documents: Vec<Written>) {
        self.documents.extend(documents);
        self.documents.sort_by_key(|document| document.time);
    }

    /// Time has come to `now`, and never goes back.
    pub(crate) fn reach(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// A point in time: what can be found in it does not change.
    pub(crate) fn open(&mut self) -> Value {
        self.opened += 1;
        self.points.insert(self.opened, self.now);
        while self.points.len() > POINTS {
            self.points.pop_first();
        }
        json!({ "id": format!("point-{}", self.opened), "_shards": { "total": 1, "successful": 1, "skipped": 0, "failed": 0 } })
    }

    pub(crate) fn close(&mut self, body: &Value) -> (StatusCode, Value) {
        let there = point(&body["id"]).is_some_and(|point| self.points.remove(&point).is_some());
        let status = if there { StatusCode::OK } else { StatusCode::NOT_FOUND };
        (status, json!({ "succeeded": there, "num_freed": u8::from(there) }))
    }

    /// All points in time are lost, as when a node ends.
    pub(crate) fn lose_points(&mut self) {
        self.points.clear();
    }

    /// The answer to a search.
    pub(crate) fn search(&mut self, body: &Value) -> (StatusCode, Value) {
        let pit = &body["pit"]["id"];
        let Some(now) = point(pit).and_then(|point| self.points.get(&point)).copied() else {
            self.gone += 1;
            let cause = json!({ "type": "search_context_missing_exception", "reason": "No search context found" });
            let error = json!({ "root_cause": [cause], "type": "search_phase_execution_exception", "reason": "all shards failed",
                "failed_shards": [{ "shard": 0, "reason": cause }], "caused_by": cause });
            return (StatusCode::NOT_FOUND, json!({ "error": error, "status": 404 }));
        };
        let filters = body["query"]["bool"]["filter"].as_array().expect("filters");
        let range = filters.iter().find_map(|filter| filter.pointer("/range/@timestamp")).expect("a window of time");
        let window = moment(&range["gte"])..moment(&range["lt"]);
        let ids = filters.iter().find_map(|filter| filter.pointer("/ids/values")).and_then(Value::as_array);
        let after = body["search_after"].as_array().map(|sort| (moment(&sort[0]), sort[1].as_u64().expect("a place")));
        let begin =
            self.documents.partition_point(|document| document.time < window.start.max(after.map_or(0, |(time, _)| time)));
        let found = self.documents.iter().enumerate().skip(begin).take_while(|(_, document)| document.time < window.end);
        let wanted = found.filter(|(place, document)| {
            let later = after.is_none_or(|after| (document.time, *place as u64) > after);
            let asked = ids.is_none_or(|ids| ids.iter().any(|id| *id == document.id));
            document.found_from <= now && later && asked
        });
        let hits: Vec<Value> = wanted
            .take(body["size"].as_u64().expect("a size") as usize)
            .map(|(place, document)| {
                let time = DateTime::from_timestamp_nanos(document.time as i64);
                let mut hit = json!({ "_index": "telemetry", "_id": document.id,
                    "sort": [time.to_rfc3339_opts(chrono::SecondsFormat::Nanos, true), place] });
                if body["_source"] == json!(true) {
                    hit["_source"] = document.source.clone();
                }
                hit
            })
            .collect();
        if body["_source"] == json!(true) {
            self.read += hits.len() as u64;
        }
        let shards = json!({ "total": 1, "successful": 1, "skipped": 0, "failed": 0 });
        (StatusCode::OK, json!({ "pit_id": pit, "took": 1, "timed_out": false, "_shards": shards, "hits": { "hits": hits } }))
    }
}

/// Half of an answer, as a cluster gives it whose time is up: it says so.
pub(crate) fn halve(answer: &mut Value) {
    if let Some(hits) = answer.pointer_mut("/hits/hits").and_then(Value::as_array_mut) {
        hits.truncate(hits.len() / 2);
        answer["timed_out"] = json!(true);
    }
}

fn point(id: &Value) -> Option<u64> {
    id.as_str()?.strip_prefix("point-")?.parse().ok()
}

fn moment(text: &Value) -> u64 {
    let time = DateTime::parse_from_rfc3339(text.as_str().expect("a moment")).expect("a moment");
    time.timestamp_nanos_opt().expect("a moment of our time") as u64
}
