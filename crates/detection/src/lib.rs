//! What is normal for a series, and how unusual its next value is.
//!
//! Pure mathematics: no I/O, no clock, no threads, no randomness but seeded. The same observations in the same
//! order give the same verdicts on every machine.
//!
//! - [`Sketch`] summarises the values of a bucket (quantiles that can be merged).
//! - [`Series`] learns one series and judges every new value: [`Series::observe`].
//! - [`PeerGroup`] judges the same quantity of several instances together: [`PeerGroup::observe`].
//! - [`Entity`] learns how several series of one entity behave together: [`Entity::observe`].
//!
//! ```
//! use detection::{Parameters, Quantity, Series, State};
//!
//! let (mut calls, parameters) = (Series::new(Quantity::Count, 60.0), Parameters::default());
//! for minute in 0..600u32 {
//!     let usual = 200.0 + f64::from(minute * 7919 % 23);
//!     let verdict = calls.observe(60.0 * f64::from(minute), usual, f64::NAN, &parameters);
//!     assert!(verdict.finding.is_none());
//! }
//! assert!(matches!(calls.state(), State::Ready { .. }));
//! let verdict = calls.observe(36_000.0, 12.0, f64::NAN, &parameters);
//! assert!(verdict.finding.is_some_and(|finding| finding.score > 25.0));
//! ```

mod baseline;
mod calibrate;
mod ensemble;
mod entity;
mod forecast;
mod forest;
mod heads;
mod model;
mod options;
mod peers;
mod quantity;
mod quiet;
#[cfg(test)]
mod reference;
mod samples;
mod scale;
mod seasonal_band;
mod series;
mod sketch;
mod state;
mod verdict;

pub use ensemble::COMPONENTS;
pub use entity::{Carrier, Channel, Entity, EntityFinding, EntityVerdict, MOST_CHANNELS};
pub use forest::training::Job;
pub use forest::{Growth, IsolationForest};
pub use options::{Contamination, ModelKind, ModelOptions};
pub use peers::{MAX_PEERS, PeerFinding, PeerGroup, PeerModel, PeerParameters, PeerValue};
pub use quantity::Quantity;
pub use quiet::{Hold, Side, Suppressed};
pub use series::Series;
pub use series::feedback::{Lesson, MAX_LESSONS, MAX_RECENT};
pub use sketch::{MAX_BINS, RELATIVE_ACCURACY, Sketch};
pub use state::{State, Version, Waiting};
pub use verdict::{Direction, Finding, Parameters, Rarity, Reason, Similar, Verdict};
