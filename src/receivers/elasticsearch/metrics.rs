//! Metric points as the Collector's Elasticsearch exporter writes them: one document for all metrics of one
//! resource, moment and set of attributes, each under `metrics.<name>`.

use std::collections::HashSet;

use super::columns::{Columns, Writer, metric};
use super::fields::{Field, Fields};
use super::otel;
use super::time;
use crate::model::{AttributeRange, Distribution, MetricKind, Point, PointValue, Points, Temporality, UnixNanos};

const METRICS: &str = "metrics.";

/// What is told about a document's points beside their values.
struct Frame<'a> {
    resource: AttributeRange,
    attributes: AttributeRange,
    time: UnixNanos,
    start: UnixNanos,
    unit: &'a str,
}

/// Adds the points of a document. `counters` are the names of the metrics that are mapped as counters; the document
/// itself does not tell them from gauges.
///
/// # Errors
/// What is wrong with the document.
pub(super) fn points(fields: &Fields, time: UnixNanos, counters: &HashSet<String>, columns: &mut Columns) -> Result<(), String> {
    let (attributes, rows, bins) = (columns.points.attributes.mark(), columns.points.rows.len(), columns.points.bins.len());
    add(fields, time, counters, columns).inspect_err(|_| {
        columns.points.attributes.rewind(attributes);
        columns.points.rows.truncate(rows);
        columns.points.bins.truncate(bins);
        columns.resources.points = AttributeRange::default();
    })
}

fn add(fields: &Fields, time: UnixNanos, counters: &HashSet<String>, columns: &mut Columns) -> Result<(), String> {
    let batch = &mut columns.points;
    let mut writer = Writer::new(&mut batch.symbols, &mut batch.attributes);
    let resource = otel::resource(&mut writer, fields, &mut columns.resources.points);
    let attributes = otel::attributes(&mut writer, fields);
    let frame = Frame {
        resource,
        attributes,
        time,
        start: fields.text(&["start_timestamp"]).and_then(time::parse).unwrap_or_default(),
        unit: fields.text(&["unit"]).unwrap_or(""),
    };
    let before = batch.rows.len();
    for (path, values) in fields.runs() {
        let Some(name) = path.strip_prefix(METRICS) else { continue };
        if let Some(name) = name.strip_suffix(".values")
            && has(fields, name, "counts")
        {
            histogram(batch, fields, name, &frame)?;
        } else if let Some(name) = name.strip_suffix(".value_count")
            && has(fields, name, "sum")
        {
            summary(batch, fields, name, &frame);
        } else if !belongs_to_another(fields, name)
            && let Some(number) = values.single().and_then(Field::number)
        {
            let counter = MetricKind::Sum { temporality: Temporality::Cumulative, monotonic: true };
            let kind = if counters.contains(name) { counter } else { MetricKind::Gauge };
            push(batch, name, kind, PointValue::Number(number), &frame);
        }
    }
    if batch.rows.len() == before {
        return Err("none of its `metrics.*` holds a number, a histogram or a summary".to_owned());
    }
    Ok(())
}

fn has(fields: &Fields, name: &str, part: &str) -> bool {
    fields.get(&format!("{METRICS}{name}.{part}")).is_some()
}

/// Whether `name` is a part of a histogram or a summary and not a metric itself.
fn belongs_to_another(fields: &Fields, name: &str) -> bool {
    let Some((parent, part)) = name.rsplit_once('.') else { return false };
    match part {
        "counts" => has(fields, parent, "values"),
        "sum" | "min" | "max" => has(fields, parent, "value_count") && has(fields, parent, "sum"),
        _ => false,
    }
}

/// The field type `histogram`: values and how often each. The exporter writes only delta histograms.
fn histogram(batch: &mut Points, fields: &Fields, name: &str, frame: &Frame<'_>) -> Result<(), String> {
    let numbers =
        |part: &str| -> Option<Vec<f64>> { fields.values(&format!("{METRICS}{name}.{part}")).map(Field::number).collect() };
    let wrong =
        || format!("`metrics.{name}` is not a histogram: expected as many finite `counts` of at least 0 as ascending `values`");
    let (values, counts) = numbers("values").zip(numbers("counts")).ok_or_else(wrong)?;
    let ascending = values.is_sorted();
    if values.len() != counts.len() || !ascending || counts.iter().any(|c| *c < 0.0) {
        return Err(wrong());
    }
    let first = batch.bins.len() as u32;
    batch.bins.extend(values.iter().copied().zip(counts.iter().copied()));
    let value = Distribution {
        count: counts.iter().sum(),
        sum: values.iter().zip(&counts).map(|(v, c)| v * c).sum(),
        bins: (first, batch.bins.len() as u32),
    };
    push(batch, name, MetricKind::Histogram { temporality: Temporality::Delta }, PointValue::Distribution(value), frame);
    Ok(())
}

/// The field type `aggregate_metric_double`: of a summary only sum and count are kept.
fn summary(batch: &mut Points, fields: &Fields, name: &str, frame: &Frame<'_>) {
    let number = |part: &str| fields.number(&[&format!("{METRICS}{name}.{part}")]);
    let Some(count) = number("value_count").filter(|c| *c >= 0.0) else { return };
    let bins = batch.bins.len() as u32;
    let value = Distribution { count, sum: number("sum").unwrap_or(f64::NAN), bins: (bins, bins) };
    push(batch, name, MetricKind::Summary, PointValue::Distribution(value), frame);
}

fn push(batch: &mut Points, name: &str, kind: MetricKind, value: PointValue, frame: &Frame<'_>) {
    let metric = metric(batch, name, frame.unit, kind);
    batch.rows.push(Point {
        resource: frame.resource,
        metric,
        time: frame.time,
        start: frame.start,
        value,
        attributes: frame.attributes,
    });
}
