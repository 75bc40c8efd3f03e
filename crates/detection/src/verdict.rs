//! What is asked of a series, and what it answers.

use serde::{Deserialize, Serialize};

use crate::options::ModelOptions;
use crate::quiet::{Hold, Side, Suppressed};

/// Thresholds and minimums of detection; one set serves every series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// A finding needs a page score of at least this, in units of -log10(probability).
    pub page_threshold: f64,
    /// An alert score of at least this is an event, in units of -log10(probability). Lower ones are told as well; the
    /// more events a series had, the higher its bar.
    pub alert_threshold: f64,
    /// A finding needs a value at least this share of the expected value away from it.
    pub min_relative_deviation: f64,
    /// A finding needs a value at least this far from the expected value, in the series' own unit.
    pub min_absolute_deviation: f64,
    /// As `min_absolute_deviation` for [`Quantity::Ratio`], where 0.02 is two percentage points.
    pub min_ratio_deviation: f64,
    /// A further page within this many points after one must exceed it.
    pub page_refractory: u32,
    /// A further alert within this many points after one must exceed it.
    pub alert_refractory: u32,
    /// Points seen before a series may have findings.
    pub warmup: u32,
    /// A finding needs at least this many samples behind the value. Of counts, the count that was expected counts as
    /// well: none where a thousand were expected is well supported.
    pub min_samples: f64,
    /// Which side of the expected value may have findings.
    pub side: Side,
    /// Whether findings are held back for now.
    pub hold: Hold,
    /// The model that judges, and how it is trained.
    pub model: ModelOptions,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            page_threshold: 1.4,
            alert_threshold: 1.4,
            min_relative_deviation: 0.3,
            min_absolute_deviation: 0.0,
            min_ratio_deviation: 0.02,
            page_refractory: 20,
            alert_refractory: 120,
            warmup: 240,
            min_samples: 0.0,
            side: Side::Both,
            hold: Hold::No,
            model: ModelOptions::default(),
        }
    }
}

/// How unusual one observation is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Severity of this point, -log10 units, 0 when usual.
    pub point: f64,
    /// As `point` for slower and seasonal components; 0 unless it exceeds what was emitted shortly before.
    pub alert: f64,
    /// Both agree and the effect is large; 0 unless it exceeds what was emitted shortly before.
    pub page: f64,
    /// As `page` before minimums, filters and what was emitted shortly before.
    pub pressure: f64,
    /// What the series was expected to show; `None` until something is known.
    pub expected: Option<f64>,
    /// A value below this may be a finding.
    pub lower: Option<f64>,
    /// A value above this may be a finding.
    pub upper: Option<f64>,
    /// Surprise of each of [`crate::Series::components`], -log10(probability) against its own past; of
    /// [`crate::COMPONENTS`] for the ensemble. All 0 where a model tells the components of findings only.
    pub surprises: [f64; crate::COMPONENTS.len()],
    /// Set when this observation is worth a person's time.
    pub finding: Option<Finding>,
    /// Why there is no finding although the value is unusual enough for one.
    pub suppressed: Option<Suppressed>,
}

/// An observation worth a person's time, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// 0 to 100; bands as users know them: below 25 warning, 50 minor, 75 major, then critical.
    pub score: f64,
    /// The chance that a healthy series shows something as unusual, per observation.
    pub probability: f64,
    /// Above or below what was expected, or neither but of an unknown shape.
    pub direction: Direction,
    /// The components that carry the finding, the strongest first.
    pub reasons: Vec<Reason>,
    /// When something as unusual was last seen.
    pub rarity: Rarity,
    /// The earlier moment which comes nearest; `None` while there are too few values.
    pub similar: Option<Similar>,
}

/// How long ago a score at least as high was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rarity {
    /// Seconds since then, or since the series is watched.
    pub seconds: f64,
    /// Never as high since the series is watched.
    pub unprecedented: bool,
}

/// An earlier moment of the series: its last twelve values, as far as they are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Similar {
    /// Unix seconds of the bucket at its end.
    pub time: f64,
    /// 1 where it is the same; 0 where the values are as far from it as from what was expected.
    pub likeness: f64,
}

/// Which way a finding deviates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Above what was expected.
    Spike,
    /// Below what was expected.
    Dip,
    /// Values in the usual range in an unusual order.
    Shape,
}

/// One component's part in a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reason {
    /// The component's name, such as `time_of_day`.
    pub component: &'static str,
    /// Its own surprise, -log10(probability) against its past.
    pub surprise: f64,
    /// Its share of all surprise, 0 to 1; the shares of a finding add up to 1.
    pub share: f64,
    /// What this component expected.
    pub expected: f64,
}
