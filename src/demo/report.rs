//! Judges what the daemon said against what was really wrong.

use std::fmt::Write as _;

use serde::Serialize;

use super::faults::{Fault, Relation, WATCH};
use super::services::{PLACES, SERVICES};
use crate::exporters::console;
use crate::model::{Anomaly, UnixNanos};

/// How many false alarms the faulty environment may have in the hours watched, outside its faults. The healthy ones may
/// have none.
pub(super) const FAULTY_MAY_HAVE: usize = 1;

/// What an anomaly turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It came while the daemon was learning from the past.
    Learning,
    /// It is what the fault of this index should show.
    Found(usize),
    /// It belongs to the fault of this index.
    Consequence(usize),
    /// Nothing was wrong.
    False,
}

/// What became of one fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The fault.
    pub fault: Fault,
    /// The first anomaly that shows it.
    pub found: Option<Finding>,
    /// How many anomalies belong to it: those that show it, and what else the service showed meanwhile and shortly after.
    pub anomalies: usize,
}

/// The first anomaly that shows a fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Simulated minutes from the begin of the fault to the end of the bucket that gave it away.
    pub after_minutes: u64,
    /// What was said.
    pub headline: String,
    /// The anomaly.
    pub anomaly: Anomaly,
}

/// What was said about one environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// Which.
    pub environment: &'static str,
    /// Whether something was wrong there.
    pub faulty: bool,
    /// Anomalies while learning from the past, in which nothing was wrong either.
    pub learning: usize,
    /// Anomalies that belong to a fault.
    pub of_faults: usize,
    /// False alarms in the hours watched.
    pub false_alarms: usize,
}

/// The summary of a demo.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Days of history that were learnt from.
    pub days: u64,
    /// Of the simulation.
    pub seed: u64,
    /// Begin of the hours watched.
    pub watched_from: UnixNanos,
    /// Their end.
    pub watched_to: UnixNanos,
    /// Spans and log records that the daemon accepted.
    pub records: u64,
    /// What became of each fault.
    pub faults: Vec<Outcome>,
    /// What was said about each environment.
    pub environments: Vec<Said>,
    /// The false alarms of the hours watched.
    pub false_alarms: Vec<Anomaly>,
    /// Whether all faults were found, with no more false alarms than may be.
    pub passed: bool,
}

/// Takes the anomalies one by one.
#[derive(Debug)]
pub(super) struct Judge {
    watched_from: UnixNanos,
    faults: Vec<Outcome>,
    environments: Vec<Said>,
    false_alarms: Vec<Anomaly>,
}

impl Judge {
    /// For `faults` in the hours from `watched_from`.
    pub(super) fn new(faults: &[Fault], watched_from: UnixNanos) -> Self {
        let outcome = |fault: &Fault| Outcome { fault: fault.clone(), found: None, anomalies: 0 };
        let said = |environment| Said {
            environment,
            faulty: faults.iter().any(|f| f.environment == environment),
            learning: 0,
            of_faults: 0,
            false_alarms: 0,
        };
        Self {
            watched_from,
            faults: faults.iter().map(outcome).collect(),
            environments: PLACES.iter().map(|p| said(p.name)).collect(),
            false_alarms: Vec::new(),
        }
    }

    /// What `anomaly` is; notes it.
    pub(super) fn take(&mut self, anomaly: &Anomaly) -> Verdict {
        let verdict = self.verdict(anomaly);
        if let Verdict::Found(index) | Verdict::Consequence(index) = verdict
            && let Some(outcome) = self.faults.get_mut(index)
        {
            outcome.anomalies += 1;
            let earlier = outcome.found.as_ref().is_none_or(|f| {
                let (new, old) = (anomaly.window.end, f.anomaly.window.end);
                new < old || (new == old && anomaly.score > f.anomaly.score)
            });
            if matches!(verdict, Verdict::Found(_)) && earlier {
                outcome.found = Some(Finding {
                    after_minutes: anomaly.window.end.0.saturating_sub(outcome.fault.start.0) / super::faults::MINUTE,
                    headline: console::headline(anomaly),
                    anomaly: anomaly.clone(),
                });
            }
        }
        if verdict == Verdict::False {
            self.false_alarms.push(anomaly.clone());
        }
        if let Some(said) = self.environments.iter_mut().find(|s| s.environment == anomaly.environment.as_str()) {
            match verdict {
                Verdict::Learning => said.learning += 1,
                Verdict::Found(_) | Verdict::Consequence(_) => said.of_faults += 1,
                Verdict::False => said.false_alarms += 1,
            }
        }
        verdict
    }

    fn verdict(&self, anomaly: &Anomaly) -> Verdict {
        if anomaly.window.end <= self.watched_from {
            return Verdict::Learning;
        }
        let related = self.faults.iter().enumerate().find_map(|(i, o)| o.fault.relation(anomaly).map(|r| (i, r)));
        match related {
            Some((index, Relation::Finding)) => Verdict::Found(index),
            Some((index, Relation::Consequence)) => Verdict::Consequence(index),
            None => Verdict::False,
        }
    }

    /// How many anomalies came while learning.
    pub(super) fn learning(&self) -> usize {
        self.environments.iter().map(|s| s.learning).sum()
    }

    /// The summary.
    pub(super) fn finish(self, days: u64, seed: u64, records: u64) -> Report {
        let of = |faulty| self.environments.iter().filter(|s| s.faulty == faulty).map(|s| s.false_alarms).sum::<usize>();
        let passed = self.faults.iter().all(|o| o.found.is_some()) && of(false) == 0 && of(true) <= FAULTY_MAY_HAVE;
        Report {
            days,
            seed,
            watched_from: self.watched_from,
            watched_to: self.watched_from.plus(WATCH),
            records,
            faults: self.faults,
            environments: self.environments,
            false_alarms: self.false_alarms,
            passed,
        }
    }
}

impl Report {
    /// The summary for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "What was wrong in production, and the first anomaly that said so");
        for outcome in &self.faults {
            let (from, words) = (clock(outcome.fault.start), outcome.fault.words());
            let _ = match &outcome.found {
                Some(f) => writeln!(
                    out,
                    "  found after {:>2} min  {from}  {words}\n                             {} (score {:.0})",
                    f.after_minutes, f.headline, f.anomaly.score
                ),
                None => {
                    let lasted = (outcome.fault.end.0 - outcome.fault.start.0) / super::faults::MINUTE;
                    let other = outcome.anomalies;
                    writeln!(out, "  MISSED              {from}  {words}, for {lasted} min ({other} other anomalies of it)")
                }
            };
        }
        let hours = WATCH / (60 * super::faults::MINUTE);
        let _ = writeln!(out, "\nWhat was said where nothing was wrong");
        for said in &self.environments {
            let place = if said.faulty { "outside its faults" } else { "healthy" };
            let per_day = said.learning as f64 / (SERVICES.len() as u64 * self.days.max(1)) as f64;
            let _ = writeln!(
                out,
                "  {:<12}{:<20}{} in the {hours} h watched, {} in {} d of learning ({per_day:.1} per service and day)",
                said.environment, place, said.false_alarms, said.learning, self.days
            );
        }
        for anomaly in &self.false_alarms {
            let when = clock(anomaly.window.start);
            let _ = writeln!(out, "  false: {when}  {}  {}", anomaly.environment, console::headline(anomaly));
        }
        let found = self.faults.iter().filter(|o| o.found.is_some()).count();
        let _ = writeln!(
            out,
            "\n{}: {found} of {} faults found; false alarms: {} (allowed: none in healthy environments, \
             {FAULTY_MAY_HAVE} in production outside its faults)",
            if self.passed { "passed" } else { "FAILED" },
            self.faults.len(),
            self.false_alarms.len(),
        );
        out
    }
}

/// Hour and minute (UTC).
pub(super) fn clock(time: UnixNanos) -> String {
    let minutes = time.secs() % 86_400 / 60;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::faults::{MINUTE, schedule};
    use crate::model::{DetectorRef, Direction, Entity, Environment, Severity, Signal, SpanKind, Window};

    fn end() -> UnixNanos {
        UnixNanos::from_secs(1_768_489_200)
    }

    /// `function` of `service operation` at `minute` of the hours watched.
    fn seen(environment: &str, service: &str, operation: &str, function: &str, direction: Direction, minute: u64) -> Anomaly {
        let start = end().minus(WATCH).plus(minute * MINUTE);
        Anomaly {
            id: String::new(),
            fingerprint: String::new(),
            environment: Environment::new(environment),
            detector: DetectorRef { name: "detector".into(), kind: "ensemble".into(), version: "1".into() },
            signal: Signal::Traces,
            entity: Entity { operation: Some(operation.into()), kind: Some(SpanKind::Server), ..Entity::service(service) },
            metric: "span".into(),
            unit: match function {
                "rate" => "1/s",
                "error_share" => "1",
                _ => "s",
            }
            .into(),
            function: function.into(),
            window: Window { start, end: start.plus(MINUTE) },
            observed: 0.4,
            expected: 0.1,
            lower: 0.05,
            upper: 0.15,
            samples: 30.0,
            score: 80.0,
            probability: 1e-5,
            severity: Severity::Critical,
            direction,
            reasons: Vec::new(),
            past: None,
            incident: None,
        }
    }

    fn errors_logged(minute: u64) -> Anomaly {
        Anomaly {
            metric: "log.records".into(),
            unit: String::new(),
            function: "count".into(),
            observed: 31.0,
            expected: 1.0,
            lower: 0.0,
            upper: 5.0,
            entity: Entity { attributes: vec![("severity".into(), "error".into())], ..Entity::service("checkout") },
            ..seen("production", "checkout", "", "", Direction::Spike, minute)
        }
    }

    fn judge() -> Judge {
        Judge::new(&schedule(end()), end().minus(WATCH))
    }

    fn all_found(judge: &mut Judge) {
        use Direction::{Dip, Spike};
        assert_eq!(judge.take(&seen("production", "checkout", "POST /checkout", "p50", Spike, 41)), Verdict::Found(0));
        assert_eq!(judge.take(&seen("production", "payments", "POST /pay", "error_share", Spike, 95)), Verdict::Found(1));
        assert_eq!(judge.take(&seen("production", "catalog", "GET /products", "rate", Dip, 152)), Verdict::Found(2));
        assert_eq!(judge.take(&errors_logged(206)), Verdict::Found(3));
    }

    #[test]
    fn all_found_and_quiet_elsewhere_passes() {
        let mut judge = judge();
        judge.take(&seen("dev", "catalog", "GET /products", "p99", Direction::Spike, 0).earlier(3_000));
        all_found(&mut judge);
        let report = judge.finish(7, 42, 5_600_000);
        assert!(report.passed);
        assert_eq!(report.faults[0].found.as_ref().unwrap().after_minutes, 2);
        assert_eq!(report.environments[0].learning, 1);
        insta::assert_snapshot!(report.text());
    }

    #[test]
    fn a_missed_fault_or_a_false_alarm_in_a_healthy_environment_fails() {
        let mut missing = judge();
        assert_eq!(
            missing.take(&seen("production", "checkout", "GET /cart", "p50", Direction::Spike, 41)),
            Verdict::Consequence(0),
            "another operation than the slow one does not find the fault"
        );
        let report = missing.finish(7, 42, 1);
        assert!(!report.passed);
        assert!(report.faults.iter().all(|o| o.found.is_none()));

        let mut noisy = judge();
        all_found(&mut noisy);
        assert_eq!(noisy.take(&seen("staging", "checkout", "POST /checkout", "p50", Direction::Spike, 41)), Verdict::False);
        let report = noisy.finish(7, 42, 1);
        assert!(!report.passed);
        insta::assert_snapshot!(report.text());
    }

    #[test]
    fn one_false_alarm_in_production_may_be_and_two_may_not() {
        let mut judge = judge();
        all_found(&mut judge);
        let false_alarm = |minute| seen("production", "payments", "POST /pay", "p95", Direction::Spike, minute);
        assert_eq!(judge.take(&false_alarm(10)), Verdict::False);
        assert_eq!(judge.take(&false_alarm(110)), Verdict::Consequence(1), "right after the fault it still belongs to it");
        let two = {
            let mut again = self::judge();
            all_found(&mut again);
            again.take(&false_alarm(10));
            again.take(&false_alarm(180));
            again.finish(7, 42, 1).passed
        };
        assert!(judge.finish(7, 42, 1).passed);
        assert!(!two);
    }

    #[test]
    fn the_wrong_direction_or_time_does_not_find_a_fault() {
        let mut judge = judge();
        let dip = seen("production", "checkout", "POST /checkout", "p50", Direction::Dip, 45);
        assert_eq!(judge.take(&dip), Verdict::Consequence(0));
        let late = seen("production", "checkout", "POST /checkout", "p50", Direction::Spike, 70);
        assert_eq!(judge.take(&late), Verdict::False);
    }

    impl Anomaly {
        fn earlier(mut self, minutes: u64) -> Self {
            self.window.start = self.window.start.minus(minutes * MINUTE);
            self.window.end = self.window.end.minus(minutes * MINUTE);
            self
        }
    }
}
