//! What is normal for a series, and how unusual its next value is.
//!
//! Pure mathematics: no I/O, no clock, no threads, no randomness. The same observations in the same
//! order give the same verdicts on every machine.
//!
//! - [`Sketch`] summarises the values of a bucket (quantiles that can be merged).
//! - [`Series`] learns one series and judges every new value: [`Series::observe`].

mod calibrate;
mod forecast;
mod heads;
mod incident;
mod models;
#[cfg(test)]
mod reference;
mod refractory;
mod samples;
mod scale;
mod series;
mod shape;
mod sketch;
mod verdict;

pub use models::COMPONENTS;
pub use series::Series;
pub use sketch::{MAX_BINS, RELATIVE_ACCURACY, Sketch};
pub use verdict::{Direction, Finding, Parameters, Quantity, Reason, State, Verdict};
