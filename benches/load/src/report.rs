//! The numbers of a run, for people and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::judge::Verdict;
use crate::request::Signal;
use crate::tally::Tally;

/// All that is known of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was sent.
    pub signal: Signal,
    /// From the first request to the last answer.
    pub took: Duration,
    /// Counted here.
    pub tally: Tally,
    /// Counted there.
    pub verdict: Verdict,
    /// Processor time of the daemon, seconds, until all was processed.
    pub cpu: Option<f64>,
    /// Most memory of the daemon, bytes.
    pub peak: Option<u64>,
    /// Bytes below the daemon's data folder at the end.
    pub disk: Option<u64>,
}

pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

fn ms(histogram: &Histogram<u64>, quantile: f64) -> f64 {
    histogram.value_at_quantile(quantile) as f64 / 1000.0
}

fn times(histogram: &Histogram<u64>) -> String {
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| ms(histogram, q));
    format!("p50 {p50:.1}  p90 {p90:.1}  p99 {p99:.1}  max {:.1} ms", histogram.max() as f64 / 1000.0)
}

impl Report {
    /// Acknowledged records a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.tally.acknowledged as f64 / self.took.as_secs_f64().max(1e-9)
    }

    /// Acknowledged records for each second of the daemon's processor time.
    #[must_use]
    pub fn per_cpu(&self) -> Option<f64> {
        self.cpu.filter(|cpu| *cpu > 0.0).map(|cpu| self.tally.acknowledged as f64 / cpu)
    }

    /// The 99th percentile of an acknowledged call, milliseconds.
    #[must_use]
    pub fn p99(&self) -> f64 {
        ms(&self.tally.call, 0.99)
    }

    /// The 99th percentile of a refused call, milliseconds; 0 where none was.
    #[must_use]
    pub fn refused_p99(&self) -> f64 {
        ms(&self.tally.refusal, 0.99)
    }

    /// Whether everything is accounted for.
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.verdict.problems.is_empty()
    }

    /// A table.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let t = &self.tally;
        let mut row = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<22}{value}");
        };
        row("signal", self.signal.as_str().to_owned());
        row("took", format!("{:.1} s", self.took.as_secs_f64()));
        row("acknowledged", format!("{} items/s", grouped(self.rate() as u64)));
        if let Some(rate) = self.per_cpu() {
            row("for a CPU-second", format!("{} items (the daemon used {:.1} s)", grouped(rate as u64), self.cpu.unwrap_or(0.0)));
        }
        row("a call", times(&t.call));
        if !t.refusal.is_empty() {
            row("a refused call", times(&t.refusal));
        }
        row("due to acknowledged", times(&t.whole));
        if let Some(peak) = self.peak {
            row("peak memory", mib(peak));
        }
        if let Some(disk) = self.disk {
            row("data folder", mib(disk));
        }
        row("sent", grouped(t.sent));
        row(
            "acknowledged",
            format!("{} (of these given up by a partial success: {})", grouped(t.acknowledged), grouped(t.rejected)),
        );
        for (code, records) in &t.refused {
            let for_good = if t.refused_for_good.contains_key(code) { "not to be sent again" } else { "to be sent again" };
            let said = t.said.get(code).map(String::as_str).unwrap_or_default();
            row(&format!("refused, {code}"), format!("{}, {for_good}: {said}", grouped(*records)));
        }
        row("sent again", grouped(t.retried));
        let why = t.said.get("no answer").map(|why| format!(": {why}")).unwrap_or_default();
        row("without an answer", format!("{}{why}", grouped(t.failed)));
        row("never acknowledged", grouped(t.left));
        let v = &self.verdict;
        row("handed on", format!("{} by the receiver", grouped(v.handed_on)));
        row("taken in", format!("{} by the first consumer", grouped(v.taken_in)));
        if let Some(once) = v.once {
            row("taken in once", format!("{} by the detector", grouped(once)));
        }
        for (who, reason, records) in &v.dropped {
            row("dropped", format!("{} by {who}: {reason}", grouped(*records)));
        }
        for problem in &v.problems {
            let _ = writeln!(out, "FAILED: {problem}");
        }
        if self.passed() {
            out.push_str(
                "passed: at every edge received = sent + dropped + in flight, and what was acknowledged is there once\n",
            );
        }
        out
    }

    /// The same as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let t = &self.tally;
        let times = |h: &Histogram<u64>| json!({ "p50": ms(h, 0.5), "p90": ms(h, 0.9), "p99": ms(h, 0.99), "max": h.max() as f64 / 1000.0 });
        let v = &self.verdict;
        let dropped: Vec<Value> =
            v.dropped.iter().map(|(who, reason, n)| json!({ "component": who, "reason": reason, "records": n })).collect();
        json!({
            "signal": self.signal.as_str(),
            "seconds": self.took.as_secs_f64(),
            "items_per_second": self.rate(),
            "items_per_cpu_second": self.per_cpu(),
            "cpu_seconds": self.cpu,
            "call_ms": times(&t.call),
            "refused_call_ms": times(&t.refusal),
            "due_to_acknowledged_ms": times(&t.whole),
            "peak_memory_bytes": self.peak,
            "data_folder_bytes": self.disk,
            "records": {
                "sent": t.sent, "acknowledged": t.acknowledged, "rejected": t.rejected, "refused": t.refused,
                "refused_for_good": t.refused_for_good, "refused_without_hint": t.unhinted, "sent_again": t.retried, "without_answer": t.failed,
                "never_acknowledged": t.left, "handed_on": v.handed_on, "taken_in": v.taken_in, "taken_in_once": v.once,
                "dropped": dropped,
            },
            "problems": v.problems,
            "passed": self.passed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
