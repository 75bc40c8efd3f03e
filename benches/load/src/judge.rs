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
        }
    }
    // What the daemon told the sender it has given up was not handed on.
    let kept = tally.acknowledged.saturating_sub(tally.rejected);
    if kept == 0 {
        problems.push("nothing was acknowledged".to_owned());
    }
    let Verdict { handed_on, taken_in, .. } = verdict;
    // Where a call got no answer, it may have been taken in before it was sent again.
    let most = kept + tally.failed;
    for (who, count) in [("the receiver handed on", handed_on), ("the first consumer took in", taken_in)] {
        if count < kept {
            problems.push(format!("LOST: {kept} records were acknowledged, {who} {count}"));
        } else if count > most {
            problems.push(format!("TWICE: {kept} records were acknowledged and {} got no answer, {who} {count}", tally.failed));
        }
    }
    if taken_in != handed_on {
        problems.push(format!("the receiver handed on {handed_on} records, the first consumer took in {taken_in}"));
    }
    for (code, records) in &tally.refused_for_good {
        let said = tally.said.get(code).map(String::as_str).unwrap_or_default();
        problems.push(format!("{records} records were refused with {code}, which clients do not send again: {said}"));
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
        assert!(problems(&acknowledged(10), &during(10, 10, 9)).contains("the first consumer took in 9"));
        assert!(problems(&acknowledged(0), &during(0, 0, 0)).contains("nothing was acknowledged"));
        let gone = Tally { sent: 12, left: 2, ..acknowledged(10) };
        assert!(problems(&gone, &during(10, 10, 10)).contains("2 records were still not acknowledged"));
        let missing = Tally { sent: 12, ..acknowledged(10) };
        assert!(problems(&missing, &during(10, 10, 10)).contains("12 records were sent, 10 acknowledged, 0 lost"));
    }

    #[test]
    fn a_call_without_an_answer_may_have_been_taken_before() {
        let unsure = Tally { failed: 5, unsure: 5, ..acknowledged(10) };
        assert_eq!(problems(&unsure, &during(15, 15, 15)), "");
        assert!(problems(&unsure, &during(16, 16, 16)).contains("TWICE"));
    }
}
