//! An incident in one sentence that a person on call understands.

use crate::model::{Anomaly, Direction};
use crate::text::alike;

/// Services that are named in a title.
const MOST_NAMED: usize = 3;

/// What the finding says: `checkout POST /pay is slow: p99 412 ms instead of 95 ms`.
pub(super) fn sentence(anomaly: &Anomaly) -> String {
    let write = alike(&anomaly.unit, &[anomaly.observed, anomaly.expected, anomaly.upper]);
    let (observed, expected) = (write(anomaly.observed), write(anomaly.expected));
    let who = anomaly.subject();
    if let Some(joint) = anomaly.joint() {
        return format!("{who}: {joint}");
    }
    let function = anomaly.function.as_str();
    let span = anomaly.metric == "span";
    let logs = anomaly.metric == "log.records";
    let what = match anomaly.log_severity() {
        _ if !logs => format!("{} {function}", anomaly.metric),
        Some(severity) => format!("{severity} records"),
        None => "log records".to_owned(),
    };
    match (anomaly.direction, function) {
        (Direction::Spike, "error_share") if span => {
            format!("{who} fails: {observed} of its calls instead of {expected}")
        }
        (Direction::Dip, "error_share") if span => format!("{who} fails less than usual: {observed} instead of {expected}"),
        (Direction::Spike, "rate") if span => format!("{who} gets more calls than usual: {observed} instead of {expected}"),
        (Direction::Dip, "rate") if span => format!("{who} gets fewer calls than usual: {observed} instead of {expected}"),
        (Direction::Missing, "rate") if span => format!("{who} gets no calls any more: usually {expected}"),
        (Direction::Spike, _) if span => format!("{who} is slow: {function} {observed} instead of {expected}"),
        (Direction::Dip, _) if span => format!("{who} is faster than usual: {function} {observed} instead of {expected}"),
        (Direction::Shape, _) if span => format!("{who} behaves unlike before: {} {observed}", measure(function)),
        (Direction::Spike, _) if logs => format!("{who} writes more {what} than usual: {observed} instead of {expected}"),
        (Direction::Dip, _) if logs => format!("{who} writes fewer {what} than usual: {observed} instead of {expected}"),
        (Direction::Missing, _) if logs => format!("{who} writes no {what} any more: usually {expected}"),
        (Direction::Spike, _) => format!("{who}: {what} is higher than usual: {observed} instead of {expected}"),
        (Direction::Dip, _) => format!("{who}: {what} is lower than usual: {observed} instead of {expected}"),
        (Direction::Shape, _) => format!("{who}: {what} takes a course unlike any before, now {observed}"),
        (Direction::New, _) => format!("{who}: {what} was not seen before, now {observed}"),
        (Direction::Missing, _) => format!("{who}: {what} is missing, usually {expected}"),
    }
}

/// The sentence with the other services of the incident.
pub(super) fn title(sentence: &str, others: &[&str]) -> String {
    match others {
        [] => sentence.to_owned(),
        few if few.len() <= MOST_NAMED => format!("{sentence}, together with {}", few.join(", ")),
        many => {
            let named: Vec<&str> = many.iter().take(MOST_NAMED).copied().collect();
            format!("{sentence}, together with {} and {} more services", named.join(", "), many.len() - MOST_NAMED)
        }
    }
}

fn measure(function: &str) -> &str {
    match function {
        "error_share" => "failed calls",
        "rate" => "calls",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::anomaly;
    use super::*;
    use crate::model::{Entity, SpanKind};

    #[test]
    fn every_kind_of_finding_has_a_sentence_for_the_person_on_call() {
        let base = Anomaly { observed: 0.412, expected: 0.095, upper: 0.16, ..anomaly("checkout", 0, 60.0) };
        let of = |function: &str, unit: &str, observed: f64, expected: f64, direction| Anomaly {
            function: function.into(),
            unit: unit.into(),
            observed,
            expected,
            upper: expected * 1.5,
            direction,
            ..base.clone()
        };
        let logs = Anomaly {
            metric: "log.records".into(),
            entity: Entity { attributes: vec![("severity".into(), "error".into())], ..Entity::service("payments") },
            ..of("rate", "1/s", 0.5, 0.05, Direction::Spike)
        };
        let memory = Anomaly {
            metric: "jvm.memory.used".into(),
            entity: Entity { instance: Some("cart-7d9".into()), ..Entity::service("cart") },
            ..of("mean", "By", 3.1e9, 1.2e9, Direction::Spike)
        };
        let client = Anomaly { entity: Entity { kind: Some(SpanKind::Client), ..base.entity.clone() }, ..base.clone() };
        let all = [
            base.clone(),
            client,
            of("error_share", "1", 0.31, 0.004, Direction::Spike),
            of("rate", "1/s", 0.05, 0.5, Direction::Dip),
            of("rate", "1/s", 0.0, 0.5, Direction::Missing),
            of("rate", "1/s", 45.0, 12.0, Direction::Spike),
            of("p95", "s", 0.2, 0.21, Direction::Shape),
            logs,
            memory.clone(),
            Anomaly { direction: Direction::Shape, ..memory },
        ];
        let mut said: Vec<String> = all.iter().map(sentence).collect();
        said.push(title("x is slow", &["cart"]));
        said.push(title("x is slow", &["a", "b", "c", "d", "e"]));
        insta::assert_snapshot!(said.join("\n"));
    }
}
