//! The daemon's `/metrics`, read.

use std::collections::BTreeMap;

/// One line of Prometheus text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// All samples of one scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    samples: Vec<Sample>,
    text: String,
}

/// The counts of one component for one payload.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Account {
    pub(crate) received: f64,
    pub(crate) sent: f64,
    pub(crate) dropped: f64,
    pub(crate) in_flight: f64,
}

impl Metrics {
    /// Reads Prometheus text.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let samples = lines.map(|l| sample(l).unwrap_or_else(|| panic!("not a Prometheus sample: {l}"))).collect();
        Self { samples, text: text.to_owned() }
    }

    /// The sum of all samples of `name` that carry all of `labels`.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let matching = self.samples.iter().filter(|s| s.name == name && has(s, labels));
        matching.map(|s| s.value).sum::<f64>() as u64
    }

    /// What one component has received, of any payload unless `labels` say which.
    pub(crate) fn received(&self, labels: &[(&str, &str)]) -> u64 {
        self.sum("anomalyd_component_received_total", labels)
    }

    /// Polls that were begun and did not fail.
    pub(crate) fn polls(&self) -> u64 {
        let events = |event| self.sum("anomalyd_component_events_total", &[("event", event)]);
        events("polls") - events("polls_failed")
    }

    /// The accounts of every component, by environment, class, component and payload.
    pub(crate) fn accounts(&self) -> BTreeMap<String, Account> {
        let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
        for sample in &self.samples {
            let Some(what) = sample.name.strip_prefix("anomalyd_component_") else { continue };
            let label = |l: &str| sample.labels.get(l).map_or("", String::as_str);
            let key = ["environment", "class", "component", "payload"].map(label).join(" ");
            let account = accounts.entry(key).or_default();
            match what {
                "received_total" => account.received += sample.value,
                "sent_total" => account.sent += sample.value,
                "dropped_total" => account.dropped += sample.value,
                "in_flight" => account.in_flight += sample.value,
                _ => {}
            }
        }
        accounts
    }

    /// Fails unless received = sent + dropped + in flight in every component.
    pub(crate) fn assert_balanced(&self) {
        let accounts = self.accounts();
        assert!(!accounts.is_empty(), "no component counts anything:\n{}", self.text);
        for (component, a) in accounts {
            assert!(a.received == a.sent + a.dropped + a.in_flight, "{component} does not balance: {a:?}");
        }
    }

    /// Whether no component holds anything, and nothing waits for an exporter.
    pub(crate) fn drained(&self) -> bool {
        self.accounts().values().all(|a| a.in_flight == 0.0) && self.sum("anomalyd_outbox_waiting", &[]) == 0
    }

    /// The scrape as it was read.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn has(sample: &Sample, labels: &[(&str, &str)]) -> bool {
    labels.iter().all(|(k, v)| sample.labels.get(*k).is_some_and(|found| found == v))
}

/// `name{label="value",...} value`.
fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = head.split_once('{') else {
        return Some(Sample { name: head.to_owned(), labels: BTreeMap::new(), value });
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (key, quoted) = rest.split_once("=\"")?;
        let mut text = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => text.push('\n'),
                    other => text.push(other),
                },
                (_, other) => text.push(other),
            }
        };
        labels.insert(key.to_owned(), text);
        rest = quoted.get(end + 1..)?.trim_start_matches(',');
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

#[test]
fn prometheus_text_is_read_with_its_escapes() {
    let metrics =
        Metrics::parse("# HELP a b\na_total{x=\"1\",y=\"say \\\"hi, you\\\" \\\\\"} 3\na_total{x=\"2\"} 4\nplain 1.5e3\n# EOF\n");
    assert_eq!(metrics.sum("a_total", &[]), 7);
    assert_eq!(metrics.sum("a_total", &[("y", "say \"hi, you\" \\")]), 3);
    assert_eq!(metrics.sum("plain", &[]), 1500);
}

#[test]
#[should_panic(expected = "does not balance")]
fn an_account_that_does_not_balance_is_found() {
    let text = "anomalyd_component_received_total{component=\"otlp\"} 5\nanomalyd_component_sent_total{component=\"otlp\"} 4\n";
    Metrics::parse(text).assert_balanced();
}
