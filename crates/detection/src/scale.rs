//! The scale on which the noise of a quantity does not depend on its value.

use crate::quantity::Quantity;

/// Durations shorter than this count as this one.
const SHORTEST: f64 = 1e-12;
/// The largest logarithm taken back.
const LARGEST_LOGARITHM: f64 = 300.0;

/// How values are learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    Plain,
    /// Makes the noise of a Poisson count independent of its mean (Anscombe, 1948).
    Root,
    /// Makes multiplicative noise additive.
    Logarithm,
}

impl Scale {
    pub(crate) fn of(quantity: Quantity) -> Self {
        match quantity {
            Quantity::Count | Quantity::Rate => Self::Root,
            Quantity::Duration => Self::Logarithm,
            Quantity::Ratio | Quantity::Level => Self::Plain,
        }
    }

    /// From the series' own unit to the learnt scale.
    pub(crate) fn learnt(self, observed: f64) -> f64 {
        match self {
            Self::Plain => observed,
            Self::Root => observed.max(0.0).sqrt(),
            Self::Logarithm => observed.max(SHORTEST).ln(),
        }
    }

    /// Back to the series' own unit.
    pub(crate) fn observed(self, learnt: f64) -> f64 {
        match self {
            Self::Plain => learnt,
            Self::Root => learnt.max(0.0) * learnt.max(0.0),
            Self::Logarithm => learnt.clamp(-LARGEST_LOGARITHM, LARGEST_LOGARITHM).exp(),
        }
    }
}
