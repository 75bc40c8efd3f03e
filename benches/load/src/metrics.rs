//! The daemon's own account of itself: `/metrics`, read.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::Error;
use crate::samples::Samples;

/// What a component counts for one payload, in records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Taken in.
    pub received: u64,
    /// Handed on.
    pub sent: u64,
    /// Offered and not taken in.
    pub refused: u64,
    /// Given up, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Neither handed on nor given up yet.
    pub in_flight: u64,
}

impl Account {
    /// All drops together.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Whether nothing is unaccounted for.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.received == self.sent + self.dropped_total() + self.in_flight
    }

    fn since(&self, before: &Self) -> Self {
        let less = |(reason, n): (&String, &u64)| (reason.clone(), n - before.dropped.get(reason).unwrap_or(&0));
        Self {
            received: self.received - before.received,
            sent: self.sent - before.sent,
            refused: self.refused - before.refused,
            dropped: self.dropped.iter().map(less).filter(|(_, n)| *n > 0).collect(),
            // What is in flight is so now.
            in_flight: self.in_flight,
        }
    }
}

/// Who counts, and what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Who {
    /// `receiver`, `processor`...
    pub class: String,
    /// Its environment.
    pub environment: String,
    /// Its id.
    pub component: String,
    /// The pipeline, of processors.
    pub pipeline: String,
    /// `logs`, `observations`...
    pub payload: String,
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pipeline = if self.pipeline.is_empty() { String::new() } else { format!(" in `{}`", self.pipeline) };
        write!(f, "{} `{}`{pipeline} ({})", self.class, self.component, self.payload)
    }
}

/// All accounts at one moment, or between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Per component and payload.
    pub accounts: BTreeMap<Who, Account>,
    /// What else components count, summed by name: `requests_repeated`.
    pub events: BTreeMap<String, u64>,
    /// What goes up and down, the highest of each name: `checkpoint_pause_ms`.
    pub gauges: BTreeMap<String, u64>,
}

impl Accounts {
    /// Reads Prometheus text.
    ///
    /// # Errors
    /// The line that is none.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Samples::parse(text).map(|samples| Self::of(&samples))
    }

    /// What these samples say of components. Values are whole here; of levels the whole part is read.
    #[must_use]
    pub fn of(samples: &Samples) -> Self {
        let mut all = Self::default();
        for sample in samples.iter() {
            let Some(what) = sample.name.strip_prefix("anomalyd_component_") else { continue };
            let (label, value) = (|name: &str| sample.label(name).to_owned(), sample.value as u64);
            if what == "events_total" {
                *all.events.entry(label("event")).or_default() += value;
                continue;
            }
            if what == "level" {
                let highest = all.gauges.entry(label("level")).or_default();
                *highest = value.max(*highest);
                continue;
            }
            if !matches!(what, "received_total" | "sent_total" | "refused_total" | "dropped_total" | "in_flight") {
                continue;
            }
            let [class, environment, component, pipeline, payload] =
                ["class", "environment", "component", "pipeline", "payload"].map(label);
            let account = all.accounts.entry(Who { class, environment, component, pipeline, payload }).or_default();
            match what {
                "received_total" => account.received += value,
                "sent_total" => account.sent += value,
                "refused_total" => account.refused += value,
                "in_flight" => account.in_flight += value,
                _ => *account.dropped.entry(label("reason")).or_default() += value,
            }
        }
        all
    }

    /// What has come since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let nothing = Account::default();
        let account = |(who, a): (&Who, &Account)| (who.clone(), a.since(before.accounts.get(who).unwrap_or(&nothing)));
        let event = |(name, n): (&String, &u64)| (name.clone(), n - before.events.get(name).unwrap_or(&0));
        Self {
            accounts: self.accounts.iter().map(account).collect(),
            events: self.events.iter().map(event).filter(|(_, n)| *n > 0).collect(),
            // They are what they are now.
            gauges: self.gauges.clone(),
        }
    }

    /// How often that happened, in all components together.
    #[must_use]
    pub fn events_of(&self, name: &str) -> u64 {
        self.events.get(name).copied().unwrap_or(0)
    }

    /// What the components of a class have taken in.
    #[must_use]
    pub fn received_by(&self, class: &str) -> u64 {
        self.accounts.iter().filter(|(who, _)| who.class == class).map(|(_, account)| account.received).sum()
    }

    /// Records that are somewhere in the daemon.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.accounts.values().map(|a| a.in_flight).sum()
    }
}

/// Reads a path of the daemon's own port (`host:port`): the status and the body.
///
/// # Errors
/// When there is no answer within 5 s.
pub async fn get(address: &str, path: &str) -> Result<(u16, String), Error> {
    let call = async {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path).header(http::header::HOST, address).body(Empty::<bytes::Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        connection.abort();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(Duration::from_secs(5), call)
        .await
        .map_err(|_| format!("http://{address}{path}: no answer within 5 s"))?
}

/// The accounts as of now.
///
/// # Errors
/// When `/metrics` cannot be read.
pub async fn scrape(address: &str) -> Result<Accounts, Error> {
    match get(address, "/metrics").await? {
        (200, text) => Accounts::parse(&text),
        (status, text) => Err(format!("http://{address}/metrics: status {status}: {text}").into()),
    }
}

/// The accounts once nothing is in flight any more; as they are after `limit`, if that does not come.
///
/// # Errors
/// When `/metrics` cannot be read.
pub async fn settled(address: &str, limit: Duration) -> Result<Accounts, Error> {
    let began = Instant::now();
    loop {
        let accounts = scrape(address).await?;
        if accounts.in_flight() == 0 || began.elapsed() > limit {
            return Ok(accounts);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
