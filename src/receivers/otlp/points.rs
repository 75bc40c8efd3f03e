//! Metric points while they are read: the rules for numbers, and how histograms and summaries become bins.
//!
//! Source: OpenTelemetry metrics data model.

use super::build::{Builder, DecodeError, Fault, NO_RECORDED_VALUE};
use crate::model::{AttributeRange, Distribution, Metric, MetricKind, Point, PointValue, Points, Symbol, Temporality, UnixNanos};

/// Buckets of one histogram point; SDKs make 160 by default, and a few hundred at most.
const MAX_BUCKETS: usize = 16_384;

/// The five kinds of data a metric may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Gauge,
    Sum,
    Histogram,
    Exponential,
    Summary,
}

/// A metric while it is read.
#[derive(Debug, Default)]
pub(super) struct MetricDraft {
    pub(super) name: Symbol,
    pub(super) unit: Symbol,
    pub(super) temporality: i32,
    pub(super) monotonic: bool,
    pub(super) point: PointDraft,
    shape: Option<Shape>,
    first_row: usize,
    /// Bins at the open ends of histograms, and the better values that min and max give for them.
    ends: Vec<(usize, f64)>,
}

impl MetricDraft {
    /// The data that follows is of this shape. Of several shapes in one metric the last counts.
    pub(super) fn data(&mut self, b: &mut Builder<Points>, shape: Shape) {
        if self.shape.is_some_and(|before| before != shape) {
            b.columns.rows.truncate(self.first_row);
            (self.temporality, self.monotonic) = (0, false);
        }
        self.shape = Some(shape);
    }
}

/// The buckets of one half of an exponential histogram.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    pub(super) offset: i32,
    pub(super) counts: Vec<u64>,
}

/// A point while it is read; its lists are used again for the next one.
#[derive(Debug, Default)]
pub(super) struct PointDraft {
    pub(super) time: u64,
    pub(super) start: u64,
    pub(super) flags: u64,
    pub(super) number: Option<f64>,
    pub(super) count: u64,
    pub(super) sum: Option<f64>,
    pub(super) min: Option<f64>,
    pub(super) max: Option<f64>,
    pub(super) bounds: Vec<f64>,
    pub(super) counts: Vec<u64>,
    pub(super) scale: i32,
    pub(super) zero_count: u64,
    pub(super) positive: Buckets,
    pub(super) negative: Buckets,
    /// (quantile, value)
    pub(super) quantiles: Vec<(f64, f64)>,
}

impl PointDraft {
    pub(super) fn reset(&mut self) {
        let mut old = std::mem::take(self);
        for list in [&mut old.counts, &mut old.positive.counts, &mut old.negative.counts] {
            list.clear();
        }
        old.bounds.clear();
        old.quantiles.clear();
        self.counts = old.counts;
        self.positive.counts = old.positive.counts;
        self.negative.counts = old.negative.counts;
        self.bounds = old.bounds;
        self.quantiles = old.quantiles;
    }
}

/// Adds to a list of a point, unless it is too long already: one more than allowed is kept as the mark of that.
pub(super) fn bounded<T>(list: &mut Vec<T>, value: T) {
    if list.len() <= MAX_BUCKETS {
        list.push(value);
    }
}

type Checked<T> = Result<T, Fault>;

fn inconsistent<T>(detail: String) -> Checked<T> {
    Err(Fault::new("inconsistent_histogram", detail))
}

fn finite(what: &str, value: f64) -> Checked<f64> {
    if value.is_finite() { Ok(value) } else { Err(Fault::new("not_finite", format!("{what} is {value}"))) }
}

/// The middle of a bucket: geometric where both ends are above 0, because bounds usually grow by a factor.
fn middle(low: f64, high: f64) -> f64 {
    if low > 0.0 { low.sqrt() * high.sqrt() } else { low / 2.0 + high / 2.0 }
}

impl Builder<Points> {
    pub(super) fn begin_metric(&mut self, draft: &mut MetricDraft) -> Result<(), DecodeError> {
        let MetricDraft { mut point, mut ends, .. } = std::mem::take(draft);
        point.reset();
        ends.clear();
        *draft = MetricDraft { point, ends, first_row: self.columns.rows.len(), ..MetricDraft::default() };
        self.charge(size_of::<Metric>())?;
        // Name, unit and kind may come after the points: filled in at the end.
        self.columns.metrics.push(Metric { name: Symbol::EMPTY, unit: Symbol::EMPTY, kind: MetricKind::Gauge });
        Ok(())
    }

    pub(super) fn end_metric(&mut self, draft: &mut MetricDraft) {
        let temporality = match draft.temporality {
            1 => Some(Temporality::Delta),
            2 => Some(Temporality::Cumulative),
            _ => None,
        };
        let kind = match (draft.shape, temporality) {
            (Some(Shape::Sum), Some(temporality)) => Some(MetricKind::Sum { temporality, monotonic: draft.monotonic }),
            (Some(Shape::Histogram | Shape::Exponential), Some(temporality)) => Some(MetricKind::Histogram { temporality }),
            (Some(Shape::Gauge), _) => Some(MetricKind::Gauge),
            (Some(Shape::Summary), _) => Some(MetricKind::Summary),
            _ => None,
        };
        let points = self.columns.rows.len().saturating_sub(draft.first_row);
        match kind {
            Some(kind) if points > 0 => {
                if let Some(metric) = self.columns.metrics.last_mut() {
                    *metric = Metric { name: draft.name, unit: draft.unit, kind };
                }
                // The smallest and largest value of a running total change from reading to reading; bins that are
                // to be subtracted from each other must not.
                if temporality == Some(Temporality::Delta) {
                    for &(bin, value) in &draft.ends {
                        if let Some(bin) = self.columns.bins.get_mut(bin) {
                            bin.0 = value;
                        }
                    }
                }
            }
            _ => {
                self.columns.rows.truncate(draft.first_row);
                self.columns.metrics.pop();
                let name = super::build::shorten(self.columns.symbols.get(draft.name));
                let detail = format!("the aggregation temporality of `{name}` is {}, expected 1 or 2", draft.temporality);
                self.count_rejected(Fault::new("no_temporality", detail), points as u64);
            }
        }
    }

    pub(super) fn begin_point(&mut self, draft: &mut MetricDraft) {
        self.begin_record();
        draft.point.reset();
    }

    pub(super) fn end_point(&mut self, draft: &mut MetricDraft) -> Result<(), DecodeError> {
        let bins = self.columns.bins.len();
        let value = if draft.point.flags & 1 == 1 {
            Err(Fault::new(NO_RECORDED_VALUE, String::new()))
        } else {
            self.check_time("the time of a point", draft.name, UnixNanos(draft.point.time));
            self.value(draft)
        };
        let value = match value {
            Ok(value) => value,
            Err(Fault { reason, detail }) => {
                let name = super::build::shorten(self.columns.symbols.get(draft.name));
                self.fail(Fault::new(reason, format!("`{name}`: {detail}")));
                PointValue::Number(0.0)
            }
        };
        self.charge((self.columns.bins.len() - bins) * size_of::<(f64, f64)>())?;
        let row = Point {
            resource: AttributeRange::default(),
            metric: u32::try_from(self.columns.metrics.len().saturating_sub(1)).unwrap_or(u32::MAX),
            time: UnixNanos(draft.point.time),
            start: UnixNanos(draft.point.start),
            value,
            attributes: self.record_attributes(),
        };
        if !self.end_record(row)? {
            self.columns.bins.truncate(bins);
            draft.ends.retain(|(bin, _)| *bin < bins);
        }
        Ok(())
    }

    fn value(&mut self, draft: &mut MetricDraft) -> Checked<PointValue> {
        let point = &mut draft.point;
        let start = self.columns.bins.len();
        match draft.shape {
            Some(Shape::Histogram) => explicit(point, &mut self.columns.bins, &mut draft.ends)?,
            Some(Shape::Exponential) => exponential(point, &mut self.columns.bins)?,
            Some(Shape::Summary) => summary(point, &mut self.columns.bins)?,
            Some(Shape::Gauge | Shape::Sum) | None => {
                let number = point.number.ok_or_else(|| Fault::new("no_value", "the point has no value".to_owned()))?;
                return finite("the value", number).map(PointValue::Number);
            }
        }
        let place = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(PointValue::Distribution(Distribution {
            count: point.count as f64,
            sum: point.sum.unwrap_or(f64::NAN),
            bins: (place(start), place(self.columns.bins.len())),
        }))
    }
}

fn check_total(buckets: impl Iterator<Item = u64>, count: u64) -> Checked<()> {
    let total = buckets.fold(0u64, u64::saturating_add);
    if total == count { Ok(()) } else { inconsistent(format!("the buckets hold {total} values, the count says {count}")) }
}

fn check_length(buckets: usize) -> Checked<()> {
    if buckets <= MAX_BUCKETS { Ok(()) } else { inconsistent(format!("more than {MAX_BUCKETS} buckets")) }
}

/// Bins of explicit bounds: a bucket counts at its middle, an open one at its bound.
fn explicit(point: &PointDraft, bins: &mut Vec<(f64, f64)>, ends: &mut Vec<(usize, f64)>) -> Checked<()> {
    let (bounds, counts) = (&point.bounds, &point.counts);
    point.sum.map_or(Ok(0.0), |sum| finite("the sum", sum))?;
    check_length(counts.len())?;
    let (Some(&lowest), Some(&highest)) = (bounds.first(), bounds.last()) else {
        // No bounds: only count and sum are known, with one bucket for all or none.
        return match counts.as_slice() {
            [] => Ok(()),
            [all] => check_total(std::iter::once(*all), point.count),
            more => inconsistent(format!("{} buckets, but no bounds between them", more.len())),
        };
    };
    if counts.len() != bounds.len() + 1 {
        return inconsistent(format!("{} buckets for {} bounds, expected {}", counts.len(), bounds.len(), bounds.len() + 1));
    }
    for bound in bounds {
        finite("a bucket's bound", *bound)?;
    }
    if let Some((a, b)) = bounds.iter().zip(bounds.iter().skip(1)).find(|(a, b)| a >= b) {
        return inconsistent(format!("the bounds do not grow: {b} follows {a}"));
    }
    check_total(counts.iter().copied(), point.count)?;
    let lows = std::iter::once(None).chain(bounds.iter().map(Some));
    let highs = bounds.iter().map(Some).chain(std::iter::once(None));
    for ((low, high), &count) in lows.zip(highs).zip(counts).filter(|(_, count)| **count > 0) {
        let value = match (low, high) {
            (Some(low), Some(high)) => middle(*low, *high),
            (None, _) => {
                let min = point.min.filter(|min| min.is_finite() && *min <= lowest);
                ends.extend(min.map(|min| (bins.len(), middle(min, lowest))));
                lowest
            }
            (_, None) => {
                let max = point.max.filter(|max| max.is_finite() && *max >= highest);
                ends.extend(max.map(|max| (bins.len(), middle(highest, max))));
                highest
            }
        };
        bins.push((value, count as f64));
    }
    Ok(())
}

/// Bins of an exponential histogram: bucket `i` holds (base^i, base^(i+1)] with base = 2^(2^-scale), and counts
/// at its geometric middle.
fn exponential(point: &PointDraft, bins: &mut Vec<(f64, f64)>) -> Checked<()> {
    let (positive, negative) = (&point.positive, &point.negative);
    point.sum.map_or(Ok(0.0), |sum| finite("the sum", sum))?;
    check_length(positive.counts.len().max(negative.counts.len()))?;
    let all = positive.counts.iter().chain(&negative.counts).copied();
    check_total(all.chain(std::iter::once(point.zero_count)), point.count)?;
    let width = (-f64::from(point.scale)).exp2();
    let value = |offset: i32, i: usize| finite("a bucket's value", ((f64::from(offset) + i as f64 + 0.5) * width).exp2());
    for (i, &count) in negative.counts.iter().enumerate().rev().filter(|(_, count)| **count > 0) {
        bins.push((-value(negative.offset, i)?, count as f64));
    }
    if point.zero_count > 0 {
        bins.push((0.0, point.zero_count as f64));
    }
    for (i, &count) in positive.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        bins.push((value(positive.offset, i)?, count as f64));
    }
    Ok(())
}

/// (value, quantile) of a summary. A quantile that is NaN had no observations lately: it is left out.
fn summary(point: &mut PointDraft, bins: &mut Vec<(f64, f64)>) -> Checked<()> {
    // Not optional here: absent is 0 (and -0 is 0 too, because protobuf does not send it). NaN is not known.
    let sum = point.sum.unwrap_or(0.0) + 0.0;
    point.sum = Some(if sum.is_nan() { sum } else { finite("the sum", sum)? });
    check_length(point.quantiles.len())?;
    point.quantiles.retain(|(_, value)| !value.is_nan());
    for &(quantile, value) in &point.quantiles {
        finite("the value of a quantile", value)?;
        if !(0.0..=1.0).contains(&quantile) {
            return inconsistent(format!("the quantile {quantile} is not within 0 and 1"));
        }
    }
    point.quantiles.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.total_cmp(&b.0)));
    bins.extend(point.quantiles.iter().map(|&(quantile, value)| (value, quantile)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_buckets_count_at_their_middle_and_open_ones_at_their_bound() {
        let point = PointDraft {
            count: 10,
            bounds: vec![0.0, 1.0, 4.0, 9.0],
            counts: vec![1, 2, 3, 0, 4],
            min: Some(-2.0),
            max: Some(16.0),
            ..PointDraft::default()
        };
        let (mut bins, mut ends) = (Vec::new(), Vec::new());
        explicit(&point, &mut bins, &mut ends).unwrap();
        assert_eq!(bins, [(0.0, 1.0), (0.5, 2.0), (2.0, 3.0), (9.0, 4.0)]);
        assert_eq!(ends, [(0, -1.0), (3, 12.0)]);
    }

    #[test]
    fn exponential_buckets_count_at_their_geometric_middle_in_ascending_order() {
        let point = PointDraft {
            count: 7,
            scale: 0,
            zero_count: 1,
            positive: Buckets { offset: 1, counts: vec![2, 0, 1] },
            negative: Buckets { offset: -1, counts: vec![1, 2] },
            ..PointDraft::default()
        };
        let mut bins = Vec::new();
        exponential(&point, &mut bins).unwrap();
        let root = 2f64.sqrt();
        let expected = [(-root, 2.0), (-root / 2.0, 1.0), (0.0, 1.0), (2.0 * root, 2.0), (8.0 * root, 1.0)];
        assert_eq!(bins.len(), expected.len());
        for (bin, expected) in bins.iter().zip(expected) {
            assert!((bin.0 - expected.0).abs() < 1e-12 && bin.1 == expected.1, "{bin:?} {expected:?}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_rejected_with_the_contradiction() {
        let cases = [
            PointDraft { count: 3, bounds: vec![1.0], counts: vec![1, 1, 1], ..PointDraft::default() },
            PointDraft { count: 3, bounds: vec![1.0], counts: vec![1, 1], ..PointDraft::default() },
            PointDraft { count: 2, bounds: vec![2.0, 1.0], counts: vec![1, 1, 0], ..PointDraft::default() },
            PointDraft { count: 2, bounds: vec![1.0, f64::INFINITY], counts: vec![1, 1, 0], ..PointDraft::default() },
            PointDraft { count: 2, counts: vec![1, 1], ..PointDraft::default() },
            PointDraft { count: 2, sum: Some(f64::NAN), ..PointDraft::default() },
        ];
        let messages: Vec<String> = cases
            .iter()
            .map(|p| explicit(p, &mut Vec::new(), &mut Vec::new()).unwrap_err())
            .map(|f| format!("{}: {}", f.reason, f.detail))
            .collect();
        insta::assert_snapshot!(messages.join("\n"));
    }
}
