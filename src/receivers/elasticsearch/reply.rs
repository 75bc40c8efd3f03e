//! The answer to a search, with the documents left as text until it is known whether they are wanted.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::time;
use crate::model::UnixNanos;

/// One page of hits.
#[derive(Debug, Deserialize)]
pub(super) struct Page<'a> {
    /// The point in time to go on with; it may change with every answer.
    #[serde(borrow, default)]
    pub(super) pit_id: Option<Cow<'a, str>>,
    #[serde(default)]
    timed_out: bool,
    #[serde(rename = "_shards", default)]
    shards: Shards,
    #[serde(rename = "_clusters", default)]
    clusters: Clusters,
    #[serde(borrow)]
    hits: Hits<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct Shards {
    #[serde(default)]
    total: u64,
    #[serde(default)]
    failed: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Clusters {
    skipped: u64,
    partial: u64,
    failed: u64,
}

#[derive(Debug, Deserialize)]
struct Hits<'a> {
    #[serde(borrow, default)]
    hits: Vec<Hit<'a>>,
}

/// One document of a page.
#[derive(Debug, Deserialize)]
pub(super) struct Hit<'a> {
    /// Its index; for a data stream the backing index.
    #[serde(borrow, rename = "_index")]
    pub(super) index: Cow<'a, str>,
    /// Its id there.
    #[serde(borrow, rename = "_id", default)]
    pub(super) id: Cow<'a, str>,
    /// The document, if it was asked for.
    #[serde(borrow, rename = "_source", default)]
    pub(super) source: Option<&'a RawValue>,
    /// Its sort values, to go on after it.
    #[serde(borrow, default)]
    pub(super) sort: Option<&'a RawValue>,
}

impl Hit<'_> {
    /// Its time, as Elasticsearch understood it: the first sort value.
    pub(super) fn time(&self) -> Option<UnixNanos> {
        #[derive(Deserialize)]
        struct Sort<'a>(#[serde(borrow)] Cow<'a, str>, serde::de::IgnoredAny);
        let Sort(text, _) = serde_json::from_str(self.sort?.get()).ok()?;
        time::parse(&text)
    }
}

impl<'a> Page<'a> {
    /// Reads an answer.
    ///
    /// # Errors
    /// When it is not an answer to a search, or a part of the indices did not answer.
    pub(super) fn read(body: &'a str) -> Result<Self, String> {
        let page: Self = serde_json::from_str(body).map_err(|e| format!("the answer to a search cannot be read: {e}"))?;
        if page.timed_out {
            return Err("the search ran into its time limit, so its answer is not complete".to_owned());
        }
        let (failed, Clusters { skipped, partial, failed: clusters }) = (page.shards.failed, &page.clusters);
        if failed > 0 {
            return Err(format!("{failed} of {} shards did not answer, so the answer is not complete", page.shards.total));
        }
        if skipped + partial + clusters > 0 {
            return Err(format!(
                "remote clusters did not answer in full (skipped {skipped}, partial {partial}, failed {clusters}); \
                 give each remote cluster a receiver of its own, so that the others go on"
            ));
        }
        Ok(page)
    }

    /// Whether no index was searched at all.
    pub(super) const fn is_of_nothing(&self) -> bool {
        self.shards.total == 0
    }

    /// The documents.
    pub(super) fn hits(&self) -> &[Hit<'a>] {
        &self.hits.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(shards: &str, more: &str) -> String {
        format!(
            r#"{{"pit_id":"p2","took":3,"timed_out":false,"_shards":{shards},{more}"hits":{{"max_score":null,"hits":[
            {{"_index":"a\u0062","_id":"1","_score":null,"_source":{{"x":"\ud800"}},"sort":["2024-01-15T10:30:00.000Z",0]}}]}}}}"#
        )
    }

    #[test]
    fn a_page_is_read_and_a_broken_document_in_it_stays_its_own_affair() {
        let text = answer(r#"{"total":3,"failed":0}"#, "");
        let page = Page::read(&text).unwrap();
        let hit = &page.hits()[0];
        assert_eq!((page.pit_id.as_deref(), &*hit.index, &*hit.id), (Some("p2"), "ab", "1"));
        assert_eq!(hit.time(), Some(UnixNanos(1_705_314_600_000_000_000)));
        assert!(super::super::fields::Fields::default().read(hit.source.unwrap().get()).is_err());
    }

    #[test]
    fn what_is_not_complete_is_not_used() {
        let failed = answer(r#"{"total":3,"failed":1}"#, "");
        let skipped = answer(r#"{"total":3,"failed":0}"#, r#""_clusters":{"total":2,"successful":1,"skipped":1},"#);
        insta::assert_snapshot!([&failed, &skipped, "<html>"].map(|t| Page::read(t).unwrap_err()).join("\n"), @"
        1 of 3 shards did not answer, so the answer is not complete
        remote clusters did not answer in full (skipped 1, partial 0, failed 0); give each remote cluster a receiver of its own, so that the others go on
        the answer to a search cannot be read: expected value at line 1 column 1
        ");
    }
}
