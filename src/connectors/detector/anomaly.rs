//! A finding becomes an anomaly: its ids, its numbers, its sentences.

use detection::{Finding, Quantity};

use super::bucket::Function;
use super::judged::{Judged, Unusual};
use super::key::{Key, VERSION, hash_entity, hash_text, shown_per, unit};
use crate::model::{Anomaly, Direction, Entity, Environment, Past, Reason, Severity, Similar, UnixNanos, Window};
use crate::text::alike;

/// Who finds.
pub(super) struct Finder<'a> {
    pub(super) environment: &'a Environment,
    /// The detector's id.
    pub(super) name: &'a str,
    /// Width of a bucket in nanoseconds.
    pub(super) bucket: u64,
}

impl Finder<'_> {
    /// The anomaly, if there is a finding.
    pub(super) fn anomaly(&self, key: &Key, judged: &Judged) -> Option<Anomaly> {
        let finding = judged.verdict.finding.as_ref()?;
        let function = judged.taken.function;
        let quantity = key.kind.quantity(function, &key.unit);
        let scale = shown_per(quantity, self.bucket);
        let observed = judged.taken.value * scale;
        let finite = |value: Option<f64>, instead: f64| value.map(|v| v * scale).filter(|v| v.is_finite()).unwrap_or(instead);
        let expected = finite(judged.verdict.expected, observed);
        let lower = finite(judged.verdict.lower, expected.min(observed));
        let upper = finite(judged.verdict.upper, expected.max(observed));
        let unit = unit(key.kind, function, &key.unit);
        let start = UnixNanos(judged.bucket.saturating_mul(self.bucket));
        let window = Window { start, end: start.plus(self.bucket) };
        let bounds = [judged.verdict.lower, judged.verdict.upper];
        let known = bounds.iter().all(|b| b.is_some_and(f64::is_finite));
        let sentences = Sentences { function, unit: &unit, observed, expected, usual: known.then_some((lower, upper)), scale };
        Some(Anomaly {
            id: self.id("", key, function.as_str(), Some(window)),
            fingerprint: self.id("", key, function.as_str(), None),
            environment: self.environment.clone(),
            detector: judged.judge.detector(self.name),
            signal: key.signal,
            entity: Entity::clone(&key.entity),
            metric: key.metric.to_string(),
            unit: unit.clone(),
            function: function.as_str().to_owned(),
            window,
            observed,
            expected,
            lower,
            upper,
            samples: judged.taken.samples,
            score: finding.score,
            probability: finding.probability,
            severity: Severity::of(finding.score),
            direction: direction(finding, quantity, observed, expected),
            reasons: sentences.reasons(finding),
            past: Some(past(finding)),
            incident: None,
        })
    }

    /// That the value is out of its bounds.
    pub(super) fn unusual(&self, key: &Key, judged: &Judged) -> Unusual {
        let start = UnixNanos(judged.bucket.saturating_mul(self.bucket));
        Unusual { start, fingerprint: self.id("", key, judged.taken.function.as_str(), None) }
    }

    /// Base32 of a hash of everything that tells this series, and this bucket of it, from all others.
    ///
    /// `by` tells anomalies that were found otherwise than in the series alone.
    pub(super) fn id(&self, by: &str, key: &Key, function: &str, window: Option<Window>) -> String {
        let mut hasher = blake3::Hasher::new();
        for part in [self.environment.as_str(), self.name, VERSION, key.signal.as_str()] {
            hash_text(&mut hasher, part);
        }
        hash_entity(&mut hasher, &key.entity);
        for part in [&key.metric, &key.unit, function] {
            hash_text(&mut hasher, part);
        }
        hasher.update(&[key.kind as u8]);
        hasher.update(by.as_bytes());
        if let Some(window) = window {
            hasher.update(&window.start.0.to_le_bytes());
            hasher.update(&window.end.0.to_le_bytes());
        }
        let hash = hasher.finalize();
        let part = hash.as_bytes().get(..20).unwrap_or(&[]);
        data_encoding::BASE32_NOPAD.encode(part).to_ascii_lowercase()
    }
}

/// An order that depends on nothing but the anomalies.
pub(super) fn sort(anomalies: &mut [Anomaly]) {
    anomalies.sort_by(|a, b| {
        (a.window.start, &a.entity, &a.metric, &a.function, &a.id).cmp(&(
            b.window.start,
            &b.entity,
            &b.metric,
            &b.function,
            &b.id,
        ))
    });
}

fn past(finding: &Finding) -> Past {
    let similar = finding.similar.map(|s| Similar {
        time: UnixNanos::from_secs(u64::try_from(s.time.max(0.0) as i64).unwrap_or(0)),
        likeness: s.likeness,
    });
    Past { rarest_in: finding.rarity.seconds, unprecedented: finding.rarity.unprecedented, similar }
}

fn direction(finding: &Finding, quantity: Quantity, observed: f64, expected: f64) -> Direction {
    let counted = matches!(quantity, Quantity::Count | Quantity::Rate);
    match finding.direction {
        detection::Direction::Spike if counted && expected <= 0.0 && finding.rarity.unprecedented => Direction::New,
        detection::Direction::Spike => Direction::Spike,
        detection::Direction::Dip if counted && observed == 0.0 => Direction::Missing,
        detection::Direction::Dip => Direction::Dip,
        detection::Direction::Shape => Direction::Shape,
    }
}

/// What a component of the model looks at, in one word.
fn family(component: &str) -> &str {
    match component {
        c if c.starts_with("ar") => "forecast",
        c if c.starts_with("shape") => "shape",
        c if c.starts_with("nov") => "novelty",
        "max10" | "min10" => "novelty",
        "mean10" => "time_of_day",
        "time_of_week_scaled" => "time_of_week",
        other => other,
    }
}

/// What the sentences of one anomaly are made of.
struct Sentences<'a> {
    function: Function,
    unit: &'a str,
    observed: f64,
    expected: f64,
    usual: Option<(f64, f64)>,
    scale: f64,
}

impl Sentences<'_> {
    /// One reason per family of components, strongest first: several shapes that say the same say it once, with
    /// their shares together.
    fn reasons(&self, finding: &Finding) -> Vec<Reason> {
        let mut reasons: Vec<(Reason, f64)> = Vec::new();
        for part in &finding.reasons {
            let family = family(part.component);
            match reasons.iter_mut().find(|(reason, _)| reason.component == family) {
                Some((reason, _)) => {
                    reason.share += part.share;
                    reason.surprise = reason.surprise.max(part.surprise);
                }
                None => reasons.push((
                    Reason { component: family.to_owned(), surprise: part.surprise, share: part.share, text: String::new() },
                    part.expected * self.scale,
                )),
            }
        }
        reasons.sort_by(|(a, _), (b, _)| b.share.total_cmp(&a.share));
        let sentences = reasons.into_iter().enumerate();
        sentences
            .map(|(i, (reason, expected))| Reason { text: self.sentence(&reason.component, expected, i == 0), ..reason })
            .collect()
    }

    /// `p99 412 ms, expected 95 ms at this time of day (usual 70 ms to 160 ms)`. The strongest reason tells
    /// the usual range.
    fn sentence(&self, component: &str, expected: f64, first: bool) -> String {
        let observed = format!("{} {}", self.label(), self.write(self.observed));
        let usual = match self.usual {
            Some((low, high)) if first && low < high => format!(" (usual {} to {})", self.write(low), self.write(high)),
            _ => String::new(),
        };
        let expected =
            if expected.is_finite() { format!("expected {}", self.write(expected)) } else { "not expected".to_owned() };
        match component {
            "time_of_day" => format!("{observed}, {expected} at this time of day{usual}"),
            "time_of_week" => format!("{observed}, {expected} at this time of the week{usual}"),
            "forecast" => format!("{observed}, {expected} after the values just before{usual}"),
            "shape" => format!("{observed}: the last values take a course unlike any before{usual}"),
            "level" => format!("{observed}, {expected}: a level that is rarely seen{usual}"),
            "change" => format!("{observed}, {expected}: a step from the value before that is rarely seen{usual}"),
            "novelty" => format!("{observed}: the last values are at levels unlike any before{usual}"),
            _ => format!("{observed}, {expected}{usual}"),
        }
    }

    const fn label(&self) -> &'static str {
        match self.function {
            Function::ErrorShare => "error share",
            other => other.as_str(),
        }
    }

    fn write(&self, value: f64) -> String {
        let (_, upper) = self.usual.unwrap_or_default();
        alike(self.unit, &[self.observed, self.expected, upper])(value)
    }
}

#[cfg(test)]
mod tests {
    use detection::Verdict;

    use super::super::bucket::{Kind, Taken};
    use super::super::training::Judge;
    use super::*;
    use crate::model::{Signal, SpanKind};

    fn key(kind: Kind, metric: &str, unit: &str) -> Key {
        let entity = Entity { operation: Some("POST /pay".into()), kind: Some(SpanKind::Server), ..Entity::service("checkout") };
        Key { entity: entity.into(), metric: metric.into(), kind, unit: unit.into(), signal: Signal::Traces }
    }

    fn found(key: &Key, function: Function, value: f64, usual: (f64, f64, f64), direction: detection::Direction) -> Anomaly {
        let reason = |component, surprise, share| detection::Reason { component, surprise, share, expected: usual.1 };
        let finding = Finding {
            score: 80.0,
            probability: 1e-7,
            direction,
            reasons: vec![reason("time_of_day", 6.0, 0.6), reason("ar4", 4.0, 0.4)],
            rarity: detection::Rarity::default(),
            similar: None,
        };
        let verdict = Verdict {
            lower: Some(usual.0),
            expected: Some(usual.1),
            upper: Some(usual.2),
            finding: Some(finding),
            ..Verdict::default()
        };
        let environment = Environment::new("production");
        let finder = Finder { environment: &environment, name: "detector", bucket: 60 * UnixNanos::SECOND };
        let taken = Taken { function, value, samples: 240.0 };
        let judge = Judge { model: detection::ModelKind::Ensemble, version: 0 };
        finder.anomaly(key, &Judged { bucket: 28_000_000, taken, verdict, judge }).unwrap()
    }

    #[test]
    fn an_anomaly_says_everything_in_the_units_of_people() {
        use detection::Direction::{Dip, Spike};
        let calls = key(Kind::Calls, "span", "s");
        let all = [
            found(&calls, Function::P99, 0.412, (0.07, 0.095, 0.16), Spike),
            found(&calls, Function::ErrorShare, 0.31, (0.0, 0.004, 0.012), Spike),
            found(&calls, Function::Rate, 0.0, (540.0, 720.0, 900.0), Dip),
            found(&key(Kind::Gauge, "process.memory", "By"), Function::Mean, 3.2e9, (4e8, 5e8, f64::INFINITY), Spike),
        ];
        let lines: Vec<String> = all
            .iter()
            .flat_map(|a| {
                let head = format!("{} [{}] {:?} {} {}..{}", a.series(), a.unit, a.direction, a.observed, a.lower, a.upper);
                std::iter::once(head).chain(a.reasons.iter().map(|r| format!("  {}: {}", r.component, r.text)))
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn what_components_of_one_kind_say_is_said_once_with_their_shares_together() {
        let part = |component, surprise, share| detection::Reason { component, surprise, share, expected: 2.0 };
        let finding = Finding {
            score: 80.0,
            probability: 1e-7,
            direction: detection::Direction::Spike,
            reasons: vec![
                part("time_of_day", 6.0, 0.30),
                part("shape12", 5.6, 0.28),
                part("shape24", 4.0, 0.20),
                part("ar4", 3.0, 0.15),
                part("nov3x2", 0.8, 0.04),
                part("time_of_week", 0.6, 0.03),
            ],
            rarity: detection::Rarity::default(),
            similar: None,
        };
        let sentences =
            Sentences { function: Function::Rate, unit: "1/s", observed: 20.0, expected: 2.0, usual: None, scale: 1.0 };
        let said: Vec<String> = sentences
            .reasons(&finding)
            .iter()
            .map(|r| format!("{:.0} % {} {:.1}", r.share * 100.0, r.component, r.surprise))
            .collect();
        assert_eq!(
            said,
            ["48 % shape 5.6", "30 % time_of_day 6.0", "15 % forecast 3.0", "4 % novelty 0.8", "3 % time_of_week 0.6"]
        );
    }

    #[test]
    fn ids_tell_buckets_apart_and_fingerprints_do_not() {
        let calls = key(Kind::Calls, "span", "s");
        let one = found(&calls, Function::P99, 1.0, (0.0, 0.5, 0.8), detection::Direction::Spike);
        assert_eq!(one.id.len(), 32);
        assert!(one.id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{}", one.id);
        assert_ne!(one.id, one.fingerprint);
        let again = found(&calls, Function::P99, 2.0, (0.0, 0.5, 0.8), detection::Direction::Spike);
        assert_eq!((&one.id, &one.fingerprint), (&again.id, &again.fingerprint), "a function of the series and the bucket alone");
        let other = found(&calls, Function::P95, 1.0, (0.0, 0.5, 0.8), detection::Direction::Spike);
        assert_ne!(one.fingerprint, other.fingerprint);
    }

    #[test]
    fn what_never_was_there_is_new_and_what_is_gone_is_missing() {
        use detection::Direction::{Dip, Spike};
        let of = |direction, unprecedented, observed, expected| {
            let rarity = detection::Rarity { seconds: 86_400.0, unprecedented };
            let finding = Finding { score: 80.0, probability: 1e-7, direction, reasons: Vec::new(), rarity, similar: None };
            super::direction(&finding, Quantity::Count, observed, expected)
        };
        assert_eq!(of(Spike, true, 40.0, 0.0), Direction::New);
        assert_eq!(of(Spike, false, 40.0, 0.0), Direction::Spike, "it was there before");
        assert_eq!(of(Spike, true, 40.0, 2.0), Direction::Spike);
        assert_eq!(of(Dip, true, 0.0, 40.0), Direction::Missing);
    }
}
