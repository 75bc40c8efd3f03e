//! Some hours of calls of one service, calm but for a fault near the end.

use anomalyd::model::UnixNanos;

use super::otlp::Call;

/// The bucket that the histories are made for.
pub(crate) const BUCKET: u64 = 60 * UnixNanos::SECOND;

/// A steady service: `calls_per_bucket` calls of each of two operations in every bucket.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) service: String,
    pub(crate) begin: UnixNanos,
    pub(crate) buckets: u64,
    pub(crate) calls_per_bucket: u64,
    /// From this bucket on, for five buckets, `POST /pay` takes twelve times as long.
    pub(crate) slow_from: Option<u64>,
    /// Numbers the calls from here on.
    pub(crate) first_number: u64,
}

/// The operation that gets slow.
pub(crate) const SLOW: &str = "POST /pay";
/// The operation that never does.
pub(crate) const STEADY: &str = "GET /cart";

impl History {
    /// `hours` that ended some minutes ago.
    pub(crate) fn of_hours(service: &str, hours: u64) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
        let end = UnixNanos::from_secs(now - 300).floor(BUCKET);
        let buckets = hours * 60;
        Self {
            service: service.to_owned(),
            begin: end.minus(buckets * BUCKET),
            buckets,
            calls_per_bucket: 24,
            slow_from: None,
            first_number: 0,
        }
    }

    /// With a fault half an hour before the end.
    pub(crate) fn with_fault(self) -> Self {
        Self { slow_from: Some(self.buckets - 30), ..self }
    }

    /// The moment when the fault begins.
    pub(crate) fn fault(&self) -> UnixNanos {
        self.begin.plus(self.slow_from.expect("a history with a fault") * BUCKET)
    }

    /// The calls in the order of time. Latencies differ by up to a tenth, in a fixed but irregular order.
    pub(crate) fn calls(&self) -> impl Iterator<Item = Call> + '_ {
        let of_bucket = move |bucket: u64| {
            let mut random = fastrand::Rng::with_seed(bucket);
            (0..self.calls_per_bucket * 2).map(move |i| {
                let operation = if i % 2 == 0 { SLOW } else { STEADY };
                let slow = self.slow_from.is_some_and(|from| (from..from + 5).contains(&bucket)) && operation == SLOW;
                let usual = if i % 2 == 0 { 80_000 } else { 20_000 } * if slow { 12 } else { 1 };
                Call {
                    service: self.service.clone(),
                    operation: operation.to_owned(),
                    start: self
                        .begin
                        .plus(bucket * BUCKET + i * (BUCKET / (self.calls_per_bucket * 2)) / 1_000_000 * 1_000_000)
                        .0,
                    duration: usual * (950 + random.u64(0..100)),
                    failed: false,
                    number: self.first_number + bucket * self.calls_per_bucket * 2 + i,
                }
            })
        };
        (0..self.buckets).flat_map(of_bucket)
    }
}
