//! Numbers that come back from JSON, which has no NaN and no infinity: both are written as null.

use serde::{Deserialize as _, Deserializer};

/// A number; null is NaN.
pub(super) fn or_nan<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    or(from, f64::NAN)
}

/// A lower bound; null is a bound that there is not.
pub(super) fn or_lowest<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    or(from, f64::NEG_INFINITY)
}

/// An upper bound; null is a bound that there is not.
pub(super) fn or_highest<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    or(from, f64::INFINITY)
}

fn or<'de, D: Deserializer<'de>>(from: D, absent: f64) -> Result<f64, D::Error> {
    if from.is_human_readable() { Ok(Option::deserialize(from)?.unwrap_or(absent)) } else { f64::deserialize(from) }
}
