//! A record of the outbox: a line of JSON that says what it is, and the findings as JSON.
//!
//! JSON, because a record may be read by a later anomalyd that knows more fields, or fewer. An anomaly takes about a
//! kilobyte; there are few of them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Anomaly, Findings, Incident, UnixNanos};

/// The most findings of one record: so one delivery is bounded, whatever an entry brings.
const MOST: usize = 256;

/// Where findings come from: the entry of the detector's journal, and which part of what that entry brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) entry: u64,
    pub(super) part: u32,
}

/// What stands before the findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// None for dead letters that are sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<Position>,
    /// Only for this target; else for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) only: Option<Arc<str>>,
    /// When it was put here.
    pub(super) at: UnixNanos,
    /// How many findings.
    pub(super) findings: u64,
}

/// A record that was read.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) index: u64,
    pub(super) header: Header,
    /// Bytes in the log.
    pub(super) bytes: u64,
    pub(super) findings: Arc<Findings>,
}

/// Encodes a header and its findings.
pub(super) fn encode(header: &Header, findings: &Findings) -> Result<Vec<u8>, serde_json::Error> {
    encode_part(header, &findings.anomalies, &findings.incidents)
}

fn encode_part(header: &Header, anomalies: &[Anomaly], incidents: &[Incident]) -> Result<Vec<u8>, serde_json::Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        anomalies: &'a [Anomaly],
        incidents: &'a [Incident],
    }
    let mut record = serde_json::to_vec(header)?;
    record.push(b'\n');
    serde_json::to_writer(&mut record, &Body { anomalies, incidents })?;
    Ok(record)
}

/// The records of what one entry has brought, in parts that depend on nothing but the findings.
pub(super) fn parts(entry: u64, at: UnixNanos, findings: &Findings) -> Result<Vec<(Header, Vec<u8>)>, serde_json::Error> {
    let anomalies = findings.anomalies.chunks(MOST).map(|part| (part, &[][..]));
    let incidents = findings.incidents.chunks(MOST).map(|part| (&[][..], part));
    // Most entries bring a handful: then anomalies and events travel together.
    let all: Vec<(&[Anomaly], &[Incident])> = if findings.len() <= MOST {
        vec![(&findings.anomalies, &findings.incidents)]
    } else {
        anomalies.chain(incidents).collect()
    };
    let encoded = (0..).zip(all).map(|(part, (anomalies, incidents))| {
        let findings = (anomalies.len() + incidents.len()) as u64;
        let header = Header { position: Some(Position { entry, part }), only: None, at, findings };
        let record = encode_part(&header, anomalies, incidents)?;
        Ok((header, record))
    });
    encoded.collect()
}

fn split(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = record.iter().position(|byte| *byte == b'\n')?;
    Some((record.get(..end)?, record.get(end + 1..)?))
}

/// What stands before the findings, without reading these.
pub(super) fn header(record: &[u8]) -> Option<Header> {
    serde_json::from_slice(split(record)?.0).ok()
}

/// All of a record; none where it is not one.
pub(super) fn decode(index: u64, record: &[u8]) -> Option<Record> {
    let (header, body) = split(record)?;
    let header = serde_json::from_slice(header).ok()?;
    let findings = Arc::new(serde_json::from_slice(body).ok()?);
    Some(Record { index, header, bytes: record.len() as u64, findings })
}
