//! One instance that behaves unlike its siblings.
//!
//! A [`PeerGroup`] is the same quantity of several instances (pods, hosts) of one service. Every step each member's
//! value is compared with what its siblings make likely, by a robust two-way fit: value = common movement of the
//! group + the member's own usual offset + deviation. So what moves all alike (daily rhythms, load, releases) is
//! nobody's deviation, and who has always had twice the memory is normal.
//!
//! Of the deviation two features are made (`member.rs`): its smoothed *level* and its *spread*, both in units of what
//! this member and its siblings used to show. The length of that vector is the member's distance. The largest
//! distance of every step is the group's past, against which the next is judged: so the number of members does not
//! matter to how often a healthy group is suspected.
//!
//! Only when some member is suspected are all of them clustered (`cluster.rs`) over both features, by DBSCAN or
//! k-means; a finding is a suspect that stands outside the others' clusters for several steps, worth a person's time
//! ([`PeerParameters::min_relative_deviation`]), further from its siblings than it used to be, and which the group has
//! not just followed: when a release moves one member after the other, the last ones are not the odd ones.
//!
//! Members come and go. One that appears inherits the group's normal, and how newcomers of this group differed
//! at the same age before (`newcomers.rs`): a cold start is no finding, a bad new instance is.
//!
//! Sources: two-way medians: Tukey, *Exploratory Data Analysis*, 1977. DBSCAN: Ester et al., KDD 1996.
//! k-means: Lloyd, 1982; the number of clusters by silhouettes: Rousseeuw, 1987.

mod cluster;
mod member;
mod newcomers;

use serde::{Deserialize, Serialize};

use crate::calibrate::Calibration;
use crate::heads;
use crate::quantity::Quantity;
use crate::samples::most_surprise;
use crate::verdict::Direction;
use member::{Features, Member};
use newcomers::Newcomers;

/// Members of one group that are followed; values of further ones are left out.
pub const MAX_PEERS: usize = 256;

/// How a suspect is set apart from its siblings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerModel {
    /// Density: who is in no cluster, or in a small one. The reach of a cluster comes from the group's own past.
    #[default]
    Dbscan,
    /// Two to four centres, as many as separate best: who belongs to a small one far from the largest.
    Kmeans,
}

/// Thresholds of a peer group; one set serves every group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerParameters {
    /// How a suspect is set apart.
    pub model: PeerModel,
    /// Steps with fewer members are passed over; at least 3.
    pub min_members: usize,
    /// Members that make a cluster of [`PeerModel::Dbscan`]; at least 2.
    pub min_points: usize,
    /// How unusual a member's distance must be under the group's past, as -log10(probability), after the rarity
    /// penalty that grows with the time watched.
    pub threshold: f64,
    /// Of the last `persistence + 1` steps a member must have stood apart in this many; 1 to 7.
    pub persistence: u32,
    /// A finding needs a value at least this share of the expected value away from it.
    pub min_relative_deviation: f64,
    /// As `min_relative_deviation`, for [`Quantity::Ratio`] and in its own unit: 0.02 is two percentage points.
    pub min_ratio_deviation: f64,
    /// Steps seen before a group may have findings.
    pub warmup: u32,
}

impl Default for PeerParameters {
    fn default() -> Self {
        Self {
            model: PeerModel::Dbscan,
            min_members: 4,
            min_points: 3,
            threshold: 2.0,
            persistence: 3,
            min_relative_deviation: 0.3,
            min_ratio_deviation: 0.02,
            warmup: 240,
        }
    }
}

/// What one member shows in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerValue<'a> {
    /// The member's name, unique in its group.
    pub member: &'a str,
    /// In the quantity's own unit.
    pub value: f64,
    /// How many measurements stand behind it; 0 or NaN if not known.
    pub samples: f64,
}

/// A member that has come to behave unlike its siblings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerFinding {
    /// Its name.
    pub member: String,
    /// What it shows.
    pub value: f64,
    /// What its siblings and its usual relation to them make likely.
    pub expected: f64,
    /// A value below this would be a suspect.
    pub lower: f64,
    /// A value above this would be a suspect.
    pub upper: f64,
    /// The median of the values of all members.
    pub median: f64,
    /// How many members were compared.
    pub members: usize,
    /// Its distance as -log10(probability) under the group's past, after the rarity penalty.
    pub surprise: f64,
    /// 0 to 100, as [`crate::Finding::score`].
    pub score: f64,
    /// The chance that a healthy group shows something as unusual, per step.
    pub probability: f64,
    /// Above or below what was expected, or [`Direction::Shape`]: its values scatter as they did not before.
    pub direction: Direction,
    /// The part of the level in the distance, 0 to 1; the rest is the spread.
    pub level_share: f64,
    /// Whether it is so new that it was judged by what its siblings and earlier newcomers showed.
    pub newcomer: bool,
}

/// The learnt state of one peer group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerGroup {
    quantity: Quantity,
    bucket_seconds: f64,
    seen: u32,
    last_time: Option<f64>,
    /// Slow mean magnitude of all values: below a tenth of it differences are absolute, above they are relative.
    magnitude: f64,
    /// By name.
    members: Vec<(Box<str>, Member)>,
    newcomers: Newcomers,
    /// The largest distance of every step.
    distances: Calibration,
    /// Steps since a member was found above, and below, its siblings.
    since: [u32; 2],
}

/// Small differences are measured against this share of the group's usual magnitude.
const LINEAR: f64 = 0.1;
/// Learning rate of the magnitude.
const MAGNITUDE_RATE: f64 = 1.0 / 2_000.0;
/// Members absent for this many seconds, and points, are forgotten.
const FORGET: f64 = 86_400.0;
const FORGET_POINTS: f64 = 60.0;
/// Steps in which a finding in one direction stands for those that the group leaves behind in the other.
const FOLLOWED: u32 = 60;
/// At most this part of the members can be unlike the others.
const MINORITY: usize = 3;
/// Larger magnitudes count as this one.
const LARGEST: f64 = 1e35;

/// One present member on its way through a step.
struct Present {
    /// Its place in `members`.
    place: usize,
    value: f64,
    samples: f64,
    /// On the learnt scale.
    learnt: f64,
    features: Features,
}

impl PeerGroup {
    /// A group that has seen nothing. `bucket_seconds` is the step between two observations.
    #[must_use]
    pub fn new(quantity: Quantity, bucket_seconds: f64) -> Self {
        Self {
            quantity,
            bucket_seconds: if bucket_seconds.is_finite() { bucket_seconds.max(1e-3) } else { 60.0 },
            seen: 0,
            last_time: None,
            magnitude: 0.0,
            members: Vec::new(),
            newcomers: Newcomers::default(),
            distances: Calibration::new(),
            since: [u32::MAX; 2],
        }
    }

    /// Judges one step of all members, then learns from it. The findings, by the members' names.
    ///
    /// `time` is the start of the bucket in Unix seconds, in ascending order. Values that are not finite, and all but
    /// the first of one member, are left out; the order of `values` does not matter. Steps of fewer than
    /// `min_members` are neither judged nor learnt.
    pub fn observe(&mut self, time: f64, values: &[PeerValue<'_>], parameters: &PeerParameters) -> Vec<PeerFinding> {
        let mut values: Vec<PeerValue<'_>> = values.iter().copied().filter(|v| v.value.is_finite()).collect();
        values.sort_by(|a, b| a.member.cmp(b.member));
        values.dedup_by(|a, b| a.member == b.member);
        if values.len() < parameters.min_members.max(3) || !time.is_finite() || self.last_time.is_some_and(|last| time <= last) {
            return Vec::new();
        }
        self.last_time = Some(time);
        self.follow_magnitude(&values);
        let mut present = self.admit(&values);
        if present.len() < 3 {
            return Vec::new();
        }
        let common = self.common(&present);
        self.compare(&mut present, common);
        let findings = self.judge(&present, common, parameters);
        self.learn(&present, common);
        findings
    }

    /// How many members are followed, present or not.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Memory that this group holds, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let names: usize = self.members.iter().map(|(name, _)| name.len()).sum();
        size_of::<Self>() + self.members.capacity() * size_of::<(Box<str>, Member)>() + names
    }

    fn follow_magnitude(&mut self, values: &[PeerValue<'_>]) {
        let mean = values.iter().map(|v| v.value.abs().min(LARGEST)).sum::<f64>() / values.len().max(1) as f64;
        let rate = (1.0 / (f64::from(self.seen) + 1.0)).max(MAGNITUDE_RATE);
        self.magnitude += (mean - self.magnitude) * rate;
    }

    /// Differences smaller than about this are absolute, larger ones relative.
    fn unit(&self) -> f64 {
        let least = match self.quantity {
            Quantity::Count => 1.0,
            Quantity::Ratio => 0.02,
            Quantity::Rate | Quantity::Duration | Quantity::Level => 1e-12,
        };
        (LINEAR * self.magnitude).max(least)
    }

    /// To a scale on which the same ratio is the same difference, wherever values are not small.
    fn learnt(&self, value: f64) -> f64 {
        (value.clamp(-LARGEST, LARGEST) / (2.0 * self.unit())).asinh()
    }

    /// Back to the quantity's own unit, within its limits.
    fn observed(&self, learnt: f64) -> f64 {
        let (low, high) = self.quantity.limits();
        (2.0 * self.unit() * learnt.clamp(-150.0, 150.0).sinh()).clamp(low.max(-LARGEST), high.min(LARGEST))
    }

    /// Finds the members of this step, adds new ones and forgets those gone for long.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates, which is what is wanted")]
    fn admit(&mut self, values: &[PeerValue<'_>]) -> Vec<Present> {
        let forget = (FORGET / self.bucket_seconds).max(FORGET_POINTS) as u32;
        let here = |name: &str| values.binary_search_by(|v| v.member.cmp(name)).is_ok();
        for (name, member) in &mut self.members {
            member.absent = if here(name) { 0 } else { member.absent.saturating_add(1) };
        }
        self.members.retain(|(_, member)| member.absent <= forget);
        let founding = self.seen == 0;
        for value in values {
            let known = self.place(value.member).is_ok();
            if !known && (self.members.len() < MAX_PEERS || self.make_room()) {
                let (Ok(place) | Err(place)) = self.place(value.member);
                self.members.insert(place, (value.member.into(), Member::new(founding)));
            }
        }
        let placed = values.iter().filter_map(|value| {
            let (learnt, features) = (self.learnt(value.value), Features::default());
            Some(Present { place: self.place(value.member).ok()?, value: value.value, samples: value.samples, learnt, features })
        });
        placed.collect()
    }

    /// Where a member is, or would be.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.members.binary_search_by(|(other, _)| other.as_ref().cmp(name))
    }

    /// Forgets who has been gone longest; false if all are here.
    fn make_room(&mut self) -> bool {
        let gone = self.members.iter().enumerate().filter(|(_, (_, m))| m.absent > 0);
        let Some((place, _)) = gone.max_by_key(|(place, (_, m))| (m.absent, usize::MAX - place)) else { return false };
        self.members.remove(place);
        true
    }

    fn member(&self, present: &Present) -> Option<&Member> {
        self.members.get(present.place).map(|(_, member)| member)
    }

    /// What moves all alike: the median of what members show less their offsets. Newcomers have no say where enough
    /// others are there.
    fn common(&self, present: &[Present]) -> f64 {
        let shown = |settled: bool| -> Vec<f64> {
            let members = present.iter().filter_map(|p| Some((p, self.member(p)?)));
            members.filter(|(_, m)| !settled || m.is_settled()).map(|(p, m)| p.learnt - self.offset(m)).collect()
        };
        let mut shown = Some(shown(true)).filter(|s| s.len() >= 3).unwrap_or_else(|| shown(false));
        if self.seen == 0 {
            // Nobody has an offset yet.
            shown = present.iter().map(|p| p.learnt).collect();
        }
        median(&mut shown)
    }

    /// A member's usual offset; that of a newcomer is what newcomers of its age used to show.
    fn offset(&self, member: &Member) -> f64 {
        member.offset + self.newcomers.usual(member).0
    }

    /// The features of all members.
    fn compare(&mut self, present: &mut [Present], common: f64) {
        let typical = self.typical(present);
        for p in &mut *present {
            let Some((_, member)) = self.members.get_mut(p.place) else { continue };
            let (usual, uncertain) = self.newcomers.usual(member);
            p.features = member.follow(p.learnt - common - member.offset - usual, uncertain, &typical);
        }
        // Where all scatter more, nobody does.
        let mut spreads: Vec<f64> = present.iter().map(|p| p.features.spread).collect();
        let all = median(&mut spreads).max(0.0);
        for p in &mut *present {
            if let Some((_, member)) = self.members.get_mut(p.place) {
                p.features.spread = member.spread((p.features.spread - all).max(0.0));
            }
        }
    }

    /// What settled members show: new ones are judged by it.
    fn typical(&self, present: &[Present]) -> member::Typical {
        let settled = || present.iter().filter_map(|p| self.member(p)).filter(|m| m.is_settled());
        let of = |get: fn(&Member) -> f64| median(&mut settled().map(get).collect::<Vec<_>>());
        member::Typical { variance: of(|m| m.variance), change: of(|m| m.usual_change), spread: of(|m| m.spread_variance) }
    }

    fn judge(&mut self, present: &[Present], common: f64, parameters: &PeerParameters) -> Vec<PeerFinding> {
        self.since.iter_mut().for_each(|steps| *steps = steps.saturating_add(1));
        let penalty = heads::penalty(self.seen, self.bucket_seconds).max(0.0);
        let ready = self.seen >= parameters.warmup;
        let mut shown: Vec<f64> = present.iter().map(|p| p.learnt).collect();
        let middle = median(&mut shown);
        let surprises: Vec<f64> = present
            .iter()
            .map(|p| {
                let Some(member) = self.member(p) else { return 0.0 };
                let expected = self.observed(common + self.offset(member));
                let limit = most_surprise(self.quantity, p.value, expected, p.samples);
                (self.distances.surprise(p.features.distance()).min(limit) - penalty).max(0.0)
            })
            .collect();
        let suspects: Vec<bool> = present
            .iter()
            .zip(&surprises)
            .map(|(p, surprise)| ready && *surprise >= parameters.threshold && self.is_worth_it(p, common, middle, parameters))
            .collect();
        let apart = if suspects.contains(&true) { self.apart(present, parameters) } else { vec![false; present.len()] };
        let mut findings = Vec::new();
        for (((p, surprise), suspect), apart) in present.iter().zip(surprises).zip(suspects).zip(apart) {
            let followed = self.is_followed(p);
            let Some((name, member)) = self.members.get_mut(p.place) else { continue };
            let stands = member.stands(suspect && apart, parameters.persistence);
            let news = stands && !followed && member.incident.is_worse(surprise) && !member.incident.is_on();
            member.incident.follow(news.then_some(surprise), suspect);
            if news {
                let name = name.to_string();
                findings.push(self.finding(name, p, surprise, common, penalty, present, parameters));
            }
        }
        for finding in &findings {
            match finding.direction {
                Direction::Spike => self.since[0] = 0,
                Direction::Dip => self.since[1] = 0,
                Direction::Shape => {}
            }
        }
        findings
    }

    /// Whether others have just gone the other way, and the group with them.
    fn is_followed(&self, present: &Present) -> bool {
        let [above, below] = self.since;
        present.features.is_level() && (if present.features.level > 0.0 { below } else { above }) < FOLLOWED
    }

    /// Whether the deviation is worth a person's time, and away from the siblings.
    fn is_worth_it(&self, present: &Present, common: f64, middle: f64, parameters: &PeerParameters) -> bool {
        let Some(member) = self.member(present) else { return false };
        if !present.features.is_level() {
            return member.change >= member.usual_change + parameters.min_relative_deviation / 2.0;
        }
        let usual = common + self.offset(member);
        if (present.learnt - middle).abs() <= (usual - middle).abs() {
            return false;
        }
        let expected = self.observed(usual);
        (present.value - expected).abs() >= self.margin(expected, parameters)
    }

    fn margin(&self, expected: f64, parameters: &PeerParameters) -> f64 {
        let relative = match self.quantity {
            Quantity::Ratio => expected.min(1.0 - expected).max(0.0) * parameters.min_relative_deviation,
            _ => expected.abs() * parameters.min_relative_deviation,
        };
        let least = if self.quantity == Quantity::Ratio { parameters.min_ratio_deviation } else { self.unit() };
        relative.max(least)
    }

    /// Who stands outside the clusters of the others. Nobody, if too many do.
    fn apart(&self, present: &[Present], parameters: &PeerParameters) -> Vec<bool> {
        let points: Vec<[f64; 2]> = present.iter().map(|p| p.features.point()).collect();
        let reach = self.distances.tail_start().unwrap_or(0.0).max(1.0);
        let apart = match parameters.model {
            PeerModel::Dbscan => cluster::dbscan(&points, reach, parameters.min_points.max(2)),
            PeerModel::Kmeans => cluster::kmeans(&points, reach),
        };
        let few = apart.iter().filter(|apart| **apart).count() * MINORITY <= present.len();
        if few { apart } else { vec![false; present.len()] }
    }

    #[expect(clippy::too_many_arguments, reason = "what a finding is made of")]
    fn finding(
        &self,
        member: String,
        present: &Present,
        surprise: f64,
        common: f64,
        penalty: f64,
        all: &[Present],
        parameters: &PeerParameters,
    ) -> PeerFinding {
        let learnt = self.member(present);
        let usual = common + learnt.map_or(0.0, |m| self.offset(m));
        let expected = self.observed(usual);
        let reach = self.distances.raw(parameters.threshold + penalty).unwrap_or(0.0) * present.features.scale;
        let margin = self.margin(expected, parameters);
        let (low, high) = self.quantity.limits();
        let mut values: Vec<f64> = all.iter().map(|p| p.value).collect();
        PeerFinding {
            member,
            value: present.value,
            expected,
            lower: self.observed(usual - reach).min(expected - margin).max(low),
            upper: self.observed(usual + reach).max(expected + margin).min(high),
            median: median(&mut values),
            members: all.len(),
            surprise,
            score: heads::severity(surprise, parameters.threshold),
            probability: 10f64.powf(-surprise),
            direction: match present.features {
                features if !features.is_level() => Direction::Shape,
                features if features.level > 0.0 => Direction::Spike,
                _ => Direction::Dip,
            },
            level_share: present.features.level_share(),
            newcomer: learnt.is_some_and(|m| !m.is_settled()),
        }
    }

    fn learn(&mut self, present: &[Present], common: f64) {
        let reach = self.distances.tail_start().unwrap_or(f64::INFINITY);
        let mut largest: f64 = 0.0;
        for p in present {
            let Some((_, member)) = self.members.get_mut(p.place) else { continue };
            if member.teaches(p.features.distance() > reach) {
                largest = largest.max(p.features.distance());
            }
            self.newcomers.follow(member, p.learnt - common);
            member.learn(self.bucket_seconds);
        }
        self.distances.learn(largest);
        self.seen = self.seen.saturating_add(1);
    }
}

/// Of the finite numbers in `values`; 0 of none.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match (values.get(half), values.get(half.wrapping_sub(1))) {
        (Some(upper), Some(lower)) if values.len().is_multiple_of(2) => f64::midpoint(*lower, *upper),
        (Some(middle), _) => *middle,
        _ => 0.0,
    }
}
