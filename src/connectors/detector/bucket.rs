//! What comes together in one bucket, and the values that its series take from it.

use detection::{Quantity, Sketch};
use serde::{Deserialize, Serialize};

use super::reading::{self, Previous};
use crate::model::{Measure, Reading, UnixNanos};

/// Readings of one stream that are kept in one bucket; 4096 in the longest bucket is one per second.
const MAX_READINGS: usize = 4096;

/// How often a delta may be missing before it is taken to be 0, as a multiple of the time that it covers.
const MISSING: f64 = 1.5;

/// What kind of measures a group of series is made of. Measures of different kinds never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Kind {
    /// Calls of an operation.
    Calls,
    /// Counted events.
    Count,
    /// Samples of a level.
    Gauge,
    /// Changes of a counter.
    Delta,
    /// Changes of a counter that may also fall.
    Change,
    /// Distributions of values.
    Values,
    /// Readings of a running total.
    Counter,
    /// Readings of a running histogram.
    Histogram,
}

/// What a series is of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Function {
    /// Per second.
    Rate,
    /// Share of calls that failed.
    ErrorShare,
    /// Median.
    P50,
    /// 95th percentile.
    P95,
    /// 99th percentile.
    P99,
    /// Mean.
    Mean,
}

impl Kind {
    /// The kind of a measure that does not say more.
    pub(super) fn of(measure: &Measure) -> Self {
        match measure {
            Measure::Calls { .. } => Self::Calls,
            Measure::Count(_) => Self::Count,
            Measure::Gauge { .. } | Measure::Cumulative(Reading { monotonic: false, .. }) => Self::Gauge,
            Measure::Delta(_) => Self::Delta,
            Measure::Values(_) => Self::Values,
            Measure::Cumulative(reading) if reading.bins.is_empty() => Self::Counter,
            Measure::Cumulative(_) => Self::Histogram,
        }
    }

    /// The series of a group.
    pub(super) const fn functions(self) -> &'static [Function] {
        use Function::{ErrorShare, Mean, P50, P95, P99, Rate};
        match self {
            Self::Calls => &[Rate, ErrorShare, P50, P95, P99],
            Self::Values | Self::Histogram => &[Rate, Mean, P95],
            Self::Gauge => &[Mean],
            Self::Count | Self::Delta | Self::Change | Self::Counter => &[Rate],
        }
    }

    /// What the mathematics needs to know about one of its series. Counts are given to it as counts, because
    /// few events are noise; they are shown as rates.
    pub(super) fn quantity(self, function: Function, unit: &str) -> Quantity {
        match (self, function) {
            (Self::Calls | Self::Count, Function::Rate) => Quantity::Count,
            (Self::Change, _) => Quantity::Level,
            (_, Function::Rate) => Quantity::Rate,
            (_, Function::ErrorShare) => Quantity::Ratio,
            (Self::Calls, _) => Quantity::Duration,
            (Self::Values | Self::Histogram, _) if matches!(unit, "s" | "ms" | "us" | "ns" | "min" | "By") => Quantity::Duration,
            _ => Quantity::Level,
        }
    }

    /// Whether a bucket without data means that nothing happened; else it means that nothing is known.
    pub(super) const fn absence_is_zero(self) -> bool {
        matches!(self, Self::Calls | Self::Count | Self::Delta | Self::Change | Self::Values)
    }
}

impl Function {
    /// As in `Anomaly::function`.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::ErrorShare => "error_share",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Mean => "mean",
        }
    }
}

/// The measures of one bucket of one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Bucket {
    /// Calls.
    Calls { count: f64, errors: f64, latency: Sketch },
    /// Count.
    Count(f64),
    /// Gauge.
    Gauge { sum: f64, count: f64 },
    /// Delta and change, and the time that they cover.
    Delta { sum: f64, count: f64, covers: Covers },
    /// Values, and the time that they cover.
    Values { values: Sketch, covers: Covers },
    /// Counter and histogram.
    Readings(Vec<(UnixNanos, Reading)>),
}

/// From the first beginning to the last end of deltas, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Covers {
    from: u64,
    to: u64,
    /// The longest time that one of them covers.
    longest: u64,
}

/// A value that a series takes from a bucket, and how many samples are behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Taken {
    pub(super) function: Function,
    pub(super) value: f64,
    pub(super) samples: f64,
}

impl Covers {
    /// Of one delta that ends at `time` and began `seconds` before; 0 where that is not known.
    pub(super) fn new(time: UnixNanos, seconds: f64) -> Self {
        // A float to integer cast saturates; what is not known covers nothing.
        let length = (seconds * UnixNanos::SECOND as f64) as u64;
        Self { from: time.0.saturating_sub(length), to: time.0, longest: length }
    }

    fn join(&mut self, other: Self) {
        self.from = self.from.min(other.from);
        self.to = self.to.max(other.to);
        self.longest = self.longest.max(other.longest);
    }

    /// The time that a sum is divided by: a delta that covers more than a bucket is a slower rate.
    fn seconds(&self, bucket: f64) -> f64 {
        (self.to.saturating_sub(self.from) as f64 / UnixNanos::SECOND as f64).max(bucket)
    }

    /// Until when the next delta need not have come.
    pub(super) fn good_until(&self) -> u64 {
        self.to.saturating_add((self.longest as f64 * MISSING) as u64)
    }
}

impl Bucket {
    /// A bucket that holds one measure; `None` if it is not made of finite numbers.
    pub(super) fn new(time: UnixNanos, measure: Measure, covers: f64) -> Option<Self> {
        let finite = |values: &[f64]| values.iter().all(|v| v.is_finite() && *v >= 0.0);
        let bucket = match measure {
            Measure::Calls { count, errors, latency } if finite(&[count, errors]) => Self::Calls { count, errors, latency },
            Measure::Count(count) if finite(&[count]) => Self::Count(count),
            Measure::Gauge { sum, count } if sum.is_finite() && finite(&[count]) => Self::Gauge { sum, count },
            Measure::Delta(sum) if sum.is_finite() => Self::Delta { sum, count: 1.0, covers: Covers::new(time, covers) },
            Measure::Values(values) => Self::Values { values, covers: Covers::new(time, covers) },
            Measure::Cumulative(r) if !r.monotonic && r.total.is_finite() => Self::Gauge { sum: r.total, count: 1.0 },
            Measure::Cumulative(r) if finite(&[r.total]) => Self::Readings(vec![(time, r)]),
            _ => return None,
        };
        Some(bucket)
    }

    /// Adds what another bucket of the same kind holds. False if there is no room for it.
    pub(super) fn add(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Calls { count, errors, latency }, Self::Calls { count: c, errors: e, latency: l }) => {
                *count += c;
                *errors += e;
                latency.merge(&l);
            }
            (Self::Count(count), Self::Count(c)) => *count += c,
            (Self::Gauge { sum, count }, Self::Gauge { sum: s, count: c }) => {
                *sum += s;
                *count += c;
            }
            (Self::Delta { sum, count, covers }, Self::Delta { sum: s, count: n, covers: c }) => {
                *sum += s;
                *count += n;
                covers.join(c);
            }
            (Self::Values { values, covers }, Self::Values { values: v, covers: c }) => {
                values.merge(&v);
                covers.join(c);
            }
            (Self::Readings(readings), Self::Readings(more)) => {
                if readings.len() + more.len() > MAX_READINGS {
                    return false;
                }
                readings.extend(more);
            }
            // One group holds one kind.
            _ => return false,
        }
        true
    }

    /// The time that its deltas cover, if it holds such.
    pub(super) fn covers(&self) -> Option<Covers> {
        match self {
            Self::Delta { covers, .. } | Self::Values { covers, .. } => Some(*covers),
            _ => None,
        }
    }

    /// The values that the series take. `seconds` is the bucket's width, `min_samples` what a median needs.
    /// Running totals are compared with `previous`, which moves on.
    pub(super) fn values(self, seconds: f64, min_samples: f64, previous: &mut Option<Previous>) -> Vec<Taken> {
        use Function::{ErrorShare, Mean, P50, P95, P99, Rate};
        let mut taken = Vec::with_capacity(5);
        let mut take = |function, value: Option<f64>, samples: f64| {
            if let Some(value) = value.filter(|v| v.is_finite()) {
                taken.push(Taken { function, value, samples });
            }
        };
        let quantile = |values: &Sketch, q: f64, need: f64| values.quantile(q).filter(|_| values.count() >= need);
        match self {
            Self::Calls { count, errors, latency } => {
                take(Rate, Some(count), count);
                take(ErrorShare, (count > 0.0).then(|| (errors / count).min(1.0)), count);
                take(P50, quantile(&latency, 0.5, min_samples), count);
                take(P95, quantile(&latency, 0.95, 4.0 * min_samples), count);
                take(P99, quantile(&latency, 0.99, 4.0 * min_samples), count);
            }
            Self::Count(count) => take(Rate, Some(count), count),
            Self::Gauge { sum, count } => take(Mean, (count > 0.0).then(|| sum / count), count),
            Self::Delta { sum, count, covers } => take(Rate, Some(sum / covers.seconds(seconds)), count),
            Self::Values { values, covers } => {
                let count = values.count();
                take(Rate, Some(count / covers.seconds(seconds)), count);
                take(Mean, values.mean(), count);
                take(P95, quantile(&values, 0.95, 4.0 * min_samples), count);
            }
            Self::Readings(readings) => {
                let count = readings.len() as f64;
                let histogram = readings.iter().any(|(_, r)| !r.bins.is_empty());
                let change = reading::change(previous, readings);
                take(
                    Rate,
                    (change.seconds > 0.0).then(|| change.total / change.seconds),
                    if histogram { change.values.count() } else { count },
                );
                take(Mean, change.values.mean(), change.values.count());
                take(P95, quantile(&change.values, 0.95, 4.0 * min_samples), change.values.count());
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: Bucket) -> Vec<(&'static str, f64)> {
        bucket.values(60.0, 5.0, &mut None).into_iter().map(|t| (t.function.as_str(), t.value)).collect()
    }

    fn calls(count: u32, errors: f64) -> Bucket {
        let mut latency = Sketch::new();
        (0..count).for_each(|_| latency.add(0.25, 1.0));
        Bucket::new(UnixNanos(0), Measure::Calls { count: f64::from(count), errors, latency }, 0.0).unwrap()
    }

    #[test]
    fn few_calls_say_nothing_about_quantiles() {
        let names = |bucket| taken(bucket).into_iter().map(|t| t.0).collect::<Vec<_>>();
        assert_eq!(names(calls(4, 0.0)), ["rate", "error_share"]);
        assert_eq!(names(calls(5, 0.0)), ["rate", "error_share", "p50"]);
        assert_eq!(names(calls(20, 0.0)), ["rate", "error_share", "p50", "p95", "p99"]);
        assert_eq!(taken(calls(4, 1.0))[1], ("error_share", 0.25));
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        for bad in [Measure::Count(f64::NAN), Measure::Delta(f64::INFINITY), Measure::Gauge { sum: f64::NAN, count: 1.0 }] {
            assert_eq!(Bucket::new(UnixNanos(0), bad, 0.0), None);
        }
    }

    #[test]
    fn two_deltas_in_one_bucket_because_of_jitter_are_no_spike() {
        let delta = |second, covers| Bucket::new(UnixNanos::from_secs(second), Measure::Delta(600.0), covers).unwrap();
        assert_eq!(taken(delta(60, 60.0)), [("rate", 10.0)]);
        let mut both = delta(60, 60.0);
        assert!(both.add(delta(119, 59.0)));
        let rate = taken(both)[0].1;
        assert!((9.9..10.2).contains(&rate), "{rate}");
        // A short delta after silence is what came in the whole bucket.
        assert_eq!(taken(delta(60, 10.0)), [("rate", 10.0)]);
    }
}
