//! Divides a decoded request among environments. Nearly always it belongs to one, and goes on as it is; else each
//! environment gets columns of its own, so that no text of one is ever in a batch of another.

use super::build::{Columns, Decoded, Rejected};
use super::route::{ATTRIBUTES, Claim, Tenants};
use crate::model::{
    AttributeRange, Attributes, Batch, LogRecord, LogRecords, Point, Points, Span, Spans, Symbol, Symbols, Value,
};

/// What of a request belongs to one environment.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) tenant: usize,
    pub(super) batch: Batch,
    /// How many records the batch has.
    pub(super) records: usize,
    pub(super) rejected: Vec<Rejected>,
}

/// A whole request.
#[derive(Debug, Default)]
pub(super) struct Division {
    /// In the order in which the environments were declared.
    pub(super) shares: Vec<Share>,
    /// What belongs to none: how many records, and why.
    pub(super) strangers: Vec<(String, u64)>,
}

/// Columns whose rows can be copied into others.
pub(super) trait Divide: Columns {
    /// What is kept while copying.
    type Memory: Default;
    /// `row` for `into`.
    fn copied(&self, row: Self::Row, resource: AttributeRange, into: &mut Copying<'_, Self>) -> Self::Row;
    /// The texts and attributes.
    fn dictionary(&self) -> (&Symbols, &Attributes);
}

/// Columns that are being filled from others.
pub(super) struct Copying<'f, C: Divide> {
    from: (&'f Symbols, &'f Attributes),
    into: C,
    symbols: Vec<Option<Symbol>>,
    memory: C::Memory,
}

impl<C: Divide> Copying<'_, C> {
    fn symbol(&mut self, symbol: Symbol) -> Symbol {
        let known = self.symbols.get(symbol.index()).copied().flatten();
        known.unwrap_or_else(|| {
            let copied = self.into.symbols().intern(self.from.0.get(symbol));
            if let Some(place) = self.symbols.get_mut(symbol.index()) {
                *place = Some(copied);
            }
            copied
        })
    }

    fn range(&mut self, range: AttributeRange) -> AttributeRange {
        let mark = self.into.attributes().mark();
        for attribute in self.from.1.get(range) {
            let key = self.symbol(attribute.key);
            let value = match attribute.value {
                Value::Str(s) => Value::Str(self.symbol(s)),
                Value::Json(s) => Value::Json(self.symbol(s)),
                plain @ (Value::Bool(_) | Value::Int(_) | Value::Double(_)) => plain,
            };
            self.into.attributes().push(key, value);
        }
        self.into.attributes().since(mark)
    }
}

/// Divides `decoded` among `tenants`.
pub(super) fn divide<C: Divide>(decoded: Decoded<C>, tenants: &Tenants, claim: &Claim) -> Division {
    let Decoded { columns, groups, .. } = decoded;
    let (symbols, attributes) = columns.dictionary();
    let places: Vec<Result<usize, String>> =
        groups.iter().map(|g| tenants.place(attributes.text(symbols, g.resource, &ATTRIBUTES), claim)).collect();
    let mut division = Division::default();
    if let Some(Ok(only)) = places.first()
        && places.iter().all(|p| p.as_ref() == Ok(only))
    {
        let rejected = merge(groups.into_iter().flat_map(|g| g.rejected));
        division.shares.push(share(*only, columns, rejected));
        return division;
    }
    let mut columns = columns;
    let rows = std::mem::take(columns.rows());
    for tenant in 0..tenants.len() {
        let mine: Vec<_> = groups.iter().zip(&places).filter(|(_, place)| **place == Ok(tenant)).map(|(g, _)| g).collect();
        if mine.is_empty() {
            continue;
        }
        let from = columns.dictionary();
        let mut copying = Copying { from, into: C::default(), symbols: vec![None; from.0.len()], memory: C::Memory::default() };
        for group in &mine {
            let resource = copying.range(group.resource);
            for row in rows.get(group.rows.clone()).unwrap_or_default() {
                let row = columns.copied(*row, resource, &mut copying);
                copying.into.rows().push(row);
            }
        }
        let rejected = merge(mine.iter().flat_map(|g| g.rejected.iter().cloned()));
        division.shares.push(share(tenant, copying.into, rejected));
    }
    for (group, reason) in groups.iter().zip(places).filter_map(|(g, p)| p.err().map(|reason| (g, reason))) {
        let count = group.rows.len() as u64 + group.rejected.iter().map(|r| r.count).sum::<u64>();
        match division.strangers.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, total)) => *total += count,
            None => division.strangers.push((reason, count)),
        }
    }
    division
}

fn share<C: Columns>(tenant: usize, mut columns: C, rejected: Vec<Rejected>) -> Share {
    let records = columns.rows().len();
    Share { tenant, batch: columns.into_batch(), records, rejected }
}

fn merge(rejected: impl Iterator<Item = Rejected>) -> Vec<Rejected> {
    let mut merged: Vec<Rejected> = Vec::new();
    for one in rejected {
        match merged.iter_mut().find(|m| m.reason == one.reason) {
            Some(known) => known.count += one.count,
            None => merged.push(one),
        }
    }
    merged
}

impl Divide for Spans {
    type Memory = ();
    fn copied(&self, row: Span, resource: AttributeRange, into: &mut Copying<'_, Self>) -> Span {
        Span { resource, name: into.symbol(row.name), attributes: into.range(row.attributes), ..row }
    }
    fn dictionary(&self) -> (&Symbols, &Attributes) {
        (&self.symbols, &self.attributes)
    }
}

impl Divide for LogRecords {
    type Memory = ();
    fn copied(&self, row: LogRecord, resource: AttributeRange, into: &mut Copying<'_, Self>) -> LogRecord {
        let (body, event_name) = (into.symbol(row.body), into.symbol(row.event_name));
        LogRecord { resource, body, event_name, attributes: into.range(row.attributes), ..row }
    }
    fn dictionary(&self) -> (&Symbols, &Attributes) {
        (&self.symbols, &self.attributes)
    }
}

impl Divide for Points {
    /// The last metric that was copied, as it was and as it is: points of one metric are neighbours.
    type Memory = Option<(u32, u32)>;

    fn copied(&self, row: Point, resource: AttributeRange, into: &mut Copying<'_, Self>) -> Point {
        use crate::model::{Distribution, Metric, PointValue};
        let metric = match into.memory {
            Some((old, new)) if old == row.metric => new,
            _ => {
                let place = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                if let Some(metric) = self.metrics.get(row.metric as usize) {
                    let copied = Metric { name: into.symbol(metric.name), unit: into.symbol(metric.unit), kind: metric.kind };
                    into.into.metrics.push(copied);
                }
                let new = place(into.into.metrics.len().saturating_sub(1));
                into.memory = Some((row.metric, new));
                new
            }
        };
        let value = match row.value {
            PointValue::Number(_) => row.value,
            PointValue::Distribution(distribution) => {
                let bins = &mut into.into.bins;
                let place = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                let start = place(bins.len());
                bins.extend_from_slice(self.bins_of(&distribution));
                PointValue::Distribution(Distribution { bins: (start, place(bins.len())), ..distribution })
            }
        };
        Point { resource, metric, value, attributes: into.range(row.attributes), ..row }
    }
    fn dictionary(&self) -> (&Symbols, &Attributes) {
        (&self.symbols, &self.attributes)
    }
}
