//! Whether what the daemon says of itself fits what was sent to it.

use crate::metrics::{Accounts, Who};
use crate::request::Signal;
use crate::tally::Tally;

/// What became of the load inside the daemon.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Records that the receiver handed on.
    pub handed_on: u64,
    /// Records that the first consumer of the pipeline took in: the detector (metrics) or a processor before it.
    pub taken_in: u64,
    /// Records that the detector took in and had not known before; nothing where a processor before it adds them up.
    pub once: Option<u64>,
    /// What the daemon gave up, with who and why.
    pub dropped: Vec<(String, String, u64)>,
    /// What does not fit, in sentences.
    pub problems: Vec<String>,
}

/// Whether a component takes the signal's records from the receiver.
fn is_first(who: &Who, signal: Signal) -> bool {
    who.payload == signal.as_str() && matches!(who.class.as_str(), "processor" | "connector")
}

/// Compares what the senders counted with what the daemon counted meanwhile. Nothing else may have sent to it.
#[must_use]
pub fn judge(tally: &Tally, during: &Accounts, signal: Signal) -> Verdict {
    let mut verdict = Verdict::default();
    let mut problems = Vec::new();
    for (who, account) in &during.accounts {
        if !account.balanced() {
            problems.push(format!("{who} does not balance: {account:?}"));
        }
        if account.in_flight > 0 {
            problems.push(format!("{who} still has {} records", account.in_flight));
        }
        verdict.dropped.extend(account.dropped.iter().map(|(reason, n)| (who.to_string(), reason.clone(), *n)));
        if who.payload == signal.as_str() && who.class == "receiver" {
            verdict.handed_on += account.sent;
        }
        if is_first(who, signal) {
            verdict.taken_in += account.received;
            if who.class == "connector" {
                let repeated = account.dropped.get("repeated").unwrap_or(&0);
                verdict.once = Some(verdict.once.unwrap_or(0) + account.received.saturating_sub(*repeated));
            }
        }
    }
    // What the daemon told the sender it has given up was not handed on.
    let kept = tally.acknowledged.saturating_sub(tally.rejected);
    if kept == 0 {
        problems.push("nothing was acknowledged".to_owned());
    }
    // A call that got no answer may have been taken in; so may a refused one up to the detector, which lets it go.
    let refused: u64 = tally.refused.values().sum();
    let (handed_on, taken_in, once) = (verdict.handed_on, verdict.taken_in, verdict.once);
    let mut between = |who: &str, count: u64, most: u64| {
        if count < kept {
            problems.push(format!("LOST: {kept} records were acknowledged, {who} {count}"));
        } else if count > most {
            let why =
                if most > kept { format!(", at most {most} fit the calls that were not acknowledged") } else { String::new() };
            problems.push(format!("TWICE: {kept} records were acknowledged{why}, {who} {count}"));
        }
    };
    between("the receiver handed on", handed_on, kept + tally.failed);
    between("the first consumer took in", taken_in, kept + tally.failed + refused);
    // The detector knows a request that comes again.
    if let Some(once) = once {
        between("the detector took in once", once, kept + tally.left);
    }
    for (code, records) in &tally.refused_for_good {
        let said = tally.said.get(code).map(String::as_str).unwrap_or_default();
        problems.push(format!("{records} records were refused with {code}, which clients do not send again: {said}"));
    }
    if tally.unhinted > 0 {
        problems.push(format!("{} records were refused without RetryInfo or Retry-After", tally.unhinted));
    }
    if tally.rejected > 0 {
        problems.push(format!("{} records were acknowledged, but given up by a partial success", tally.rejected));
    }
    if tally.left > 0 {
        problems.push(format!("{} records were still not acknowledged when patience ended", tally.left));
    }
    if tally.sent != tally.acknowledged + tally.lost() {
        problems.push(format!("{} records were sent, {} acknowledged, {} lost", tally.sent, tally.acknowledged, tally.lost()));
    }
    verdict.problems = problems;
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    fn during(received: u64, sent: u64, taken: u64) -> Accounts {
        let line = |class: &str, what: &str, n: u64| {
            format!("anomalyd_component_{what}{{class=\"{class}\",component=\"c\",payload=\"logs\"}} {n}\n")
        };
        let text = line("receiver", "received_total", received)
            + &line("receiver", "sent_total", sent)
            + &line("processor", "received_total", taken)
            + &line("processor", "sent_total", taken);
        Accounts::parse(&text).unwrap()
    }

    fn acknowledged(records: u64) -> Tally {
        Tally { sent: records, acknowledged: records, ..Tally::default() }
    }

    fn problems(tally: &Tally, during: &Accounts) -> String {
        judge(tally, during, Signal::Logs).problems.join("\n")
    }

    #[test]
    fn what_fits_is_no_problem() {
        assert_eq!(problems(&acknowledged(10), &during(10, 10, 10)), "");
    }

    #[test]
    fn what_is_lost_or_twice_or_unbalanced_or_nothing_at_all_is_told() {
        assert!(problems(&acknowledged(10), &during(9, 9, 9)).contains("LOST: 10 records were acknowledged"));
        assert!(problems(&acknowledged(10), &during(11, 11, 11)).contains("TWICE: 10 records"));
        assert!(problems(&acknowledged(10), &during(11, 10, 10)).contains("receiver `c` (logs) does not balance"));
        assert!(
            problems(&acknowledged(10), &during(10, 10, 9))
                .contains("LOST: 10 records were acknowledged, the first consumer took in 9")
        );
        assert!(problems(&acknowledged(0), &during(0, 0, 0)).contains("nothing was acknowledged"));
        let gone = Tally { sent: 12, left: 2, ..acknowledged(10) };
        assert!(problems(&gone, &during(10, 10, 10)).contains("2 records were still not acknowledged"));
        let unhinted = Tally { unhinted: 3, ..acknowledged(10) };
        assert!(problems(&unhinted, &during(10, 10, 10)).contains("3 records were refused without RetryInfo"));
        let missing = Tally { sent: 12, ..acknowledged(10) };
        assert!(problems(&missing, &during(10, 10, 10)).contains("12 records were sent, 10 acknowledged, 0 lost"));
    }

    #[test]
    fn a_call_without_an_answer_may_have_been_taken_before() {
        let unsure = Tally { failed: 5, unsure: 5, ..acknowledged(10) };
        assert_eq!(problems(&unsure, &during(15, 15, 15)), "");
        assert!(problems(&unsure, &during(16, 16, 16)).contains("TWICE"));
    }

    #[test]
    fn what_reaches_the_detector_a_second_time_must_be_known_there() {
        let detector = |received: u64, sent: u64, repeated: u64| {
            let labels = "class=\"connector\",component=\"detector\",payload=\"metrics\"";
            let text = format!(
                "anomalyd_component_received_total{{class=\"receiver\",payload=\"metrics\"}} 15\n\
                 anomalyd_component_sent_total{{class=\"receiver\",payload=\"metrics\"}} 15\n\
                 anomalyd_component_received_total{{{labels}}} {received}\nanomalyd_component_sent_total{{{labels}}} {sent}\n\
                 anomalyd_component_dropped_total{{{labels},reason=\"repeated\"}} {repeated}\n"
            );
            Accounts::parse(&text).unwrap()
        };
        let unsure = Tally { failed: 5, unsure: 5, ..acknowledged(10) };
        let problems = |during: &Accounts| judge(&unsure, during, Signal::Metrics).problems.join("\n");
        assert_eq!(problems(&detector(15, 10, 5)), "");
        assert!(problems(&detector(15, 15, 0)).contains("TWICE: 10 records were acknowledged, the detector took in once 15"));
    }
}
