//! The daemon's `/metrics`, read as `benches/load` reads it.

use load::metrics::Accounts;
use load::samples::Samples;

/// One scrape.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    samples: Samples,
    accounts: Accounts,
    text: String,
}

impl Metrics {
    /// Reads Prometheus text.
    pub(crate) fn parse(text: &str) -> Self {
        let samples = Samples::parse(text).unwrap_or_else(|e| panic!("{e}"));
        Self { accounts: Accounts::of(&samples), samples, text: text.to_owned() }
    }

    /// The sum of all samples of `name` that carry all of `labels`.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.samples.sum(name, labels)
    }

    /// What one component has received, of any payload unless `labels` say which.
    pub(crate) fn received(&self, labels: &[(&str, &str)]) -> u64 {
        self.sum("anomalyd_component_received_total", labels)
    }

    /// Polls that were begun and did not fail.
    pub(crate) fn polls(&self) -> u64 {
        self.accounts.events_of("polls") - self.accounts.events_of("polls_failed")
    }

    /// Fails unless received = sent + dropped + in flight in every component.
    pub(crate) fn assert_balanced(&self) {
        let told = self.samples.iter().any(|sample| sample.name.starts_with("anomalyd_component_"));
        assert!(told, "no component tells anything:\n{}", self.text);
        for (component, account) in &self.accounts.accounts {
            assert!(account.balanced(), "{component} does not balance: {account:?}");
        }
    }

    /// Whether no component holds anything, and nothing waits for an exporter.
    pub(crate) fn drained(&self) -> bool {
        self.accounts.in_flight() == 0 && self.sum("anomalyd_outbox_waiting", &[]) == 0
    }

    /// The scrape as it was read.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

#[test]
#[should_panic(expected = "does not balance")]
fn an_account_that_does_not_balance_is_found() {
    let text = "anomalyd_component_received_total{component=\"otlp\"} 5\nanomalyd_component_sent_total{component=\"otlp\"} 4\n";
    Metrics::parse(text).assert_balanced();
}
