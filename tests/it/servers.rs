//! The servers themselves: what the other tests take for granted about them.

use serde_json::json;

use crate::support::elasticsearch::{NEW, OLD, elasticsearch};
use crate::support::{needs, unique};

async fn keeps_what_is_written(version: &'static str) {
    let elasticsearch = needs!(elasticsearch(version));
    let stream = format!("traces-apm-{}", unique("t"));
    elasticsearch.data_stream(&stream).await;
    let documents = (0..3).map(|n| json!({ "@timestamp": format!("2026-01-15T10:30:0{n}.000Z"), "n": n }));
    elasticsearch.index(&stream, documents).await;
    let found = elasticsearch.search(&stream, json!({ "range": { "n": { "gte": 1 } } })).await;
    assert_eq!(found.iter().map(|d| d["n"].clone()).collect::<Vec<_>>(), [json!(1), json!(2)]);
    assert_eq!(elasticsearch.search("traces-nothing-here", json!({ "match_all": {} })).await, Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn a_new_elasticsearch_keeps_what_is_written() {
    keeps_what_is_written(NEW).await;
}

#[tokio::test]
async fn an_old_elasticsearch_keeps_what_is_written() {
    keeps_what_is_written(OLD).await;
}
