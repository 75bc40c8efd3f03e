//! Isolation forests: what few random cuts separate from everything else is unusual.
//!
//! Sources: Liu, Ting and Zhou, "Isolation forest", ICDM 2008, and "Isolation-based anomaly detection", TKDD 6(1),
//! 2012; Hariri, Carrasco Kind and Brunner, "Extended isolation forest", TKDE 33(4), 2021.
//!
//! The extended forest cuts along random directions rather than along the axes, which takes away the bands of low
//! scores that a plain forest shows beside a cluster. Here its normals come from a set that one forest draws once,
//! and a cut is drawn from the range that the values really have in its direction. So a point is projected once,
//! and either forest walks its trees by comparing small whole numbers.

use serde::{Deserialize, Serialize};

use super::chance::Chance;

/// Directions of an extended forest.
const DIRECTIONS: usize = 128;
/// Most values of a point, and most directions.
const WIDEST: usize = 128;
/// Steps into which a unit of spread is divided.
const STEPS: f32 = 256.0;
/// Fixed point of the path lengths that leaves hold.
const PATH: f32 = 1024.0;
/// The mark of a leaf, in place of the direction of a cut.
const LEAF: u8 = u8::MAX;
/// Most points that one tree is grown from.
const MOST_POINTS: usize = 4096;
const MOST_TREES: usize = 1000;

/// How a forest is grown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// 1 to 1000.
    pub trees: u32,
    /// Points that each tree is grown from: 2 to 4096, and not more than there are.
    pub subsample: u32,
    /// Whether cuts go in random directions.
    pub extended: bool,
    /// The same seed and points give the same forest.
    pub seed: u64,
}

/// Where the values of one column lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Column {
    centre: f32,
    /// Steps per unit of the values.
    steps: f32,
}

/// A grown forest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IsolationForest {
    columns: Box<[Column]>,
    /// Unit vectors, one after the other; none where cuts go along the axes.
    directions: Box<[f32]>,
    /// Where each tree begins.
    roots: Box<[u32]>,
    /// Of every node, parents before children: the direction of its cut, or [`LEAF`].
    cuts: Box<[u8]>,
    /// Points below this go left; of a leaf the path length.
    splits: Box<[i16]>,
    /// How much further on the right child is; the left one comes next.
    rights: Box<[u16]>,
    /// Lowest and highest place of what it was grown from, in every direction.
    ranges: Box<[(i16, i16)]>,
    /// Mean path length of a search that finds nothing, by which scores are scaled.
    usual: f32,
}

/// A point as a forest sees it: its place in every direction of a cut.
pub(crate) type Projected = [i16; WIDEST];

impl IsolationForest {
    /// Grows a forest from points of `width` values each, one after the other; gives also the mean path length of each
    /// point in the trees that it was not used for.
    ///
    /// Values that are not finite count as 0. At most 128 values a point are looked at.
    #[must_use]
    pub fn grow(rows: &[f32], width: usize, growth: &Growth) -> (Self, Vec<f32>) {
        let width = width.clamp(1, WIDEST);
        let count = rows.len() / width;
        let mut chance = Chance::new(growth.seed);
        let (columns, constant) = columns(rows, width);
        let directions = if growth.extended && width > 1 { directions(width, &mut chance) } else { Box::default() };
        let mut forest = Self {
            columns,
            directions,
            roots: Box::default(),
            cuts: Box::default(),
            splits: Box::default(),
            rights: Box::default(),
            ranges: Box::default(),
            usual: 1.0,
        };
        // Where all values are the same no cut would ever tell another one apart, so they are spread a little.
        let places = forest.places();
        let mut points = vec![0i16; count * places];
        for (row, point) in rows.chunks_exact(width).zip(points.chunks_exact_mut(places)) {
            let mut projected = [0; WIDEST];
            let spread = |column: usize| if constant.get(column).copied().unwrap_or(false) { STEPS } else { 0.0 };
            forest.project_with(row, &mut projected, |column| spread(column) * (narrow(chance.uniform()) - 0.5));
            point.copy_from_slice(projected.get(..places).unwrap_or_default());
        }

        let mut ranges = vec![(i16::MAX, i16::MIN); places];
        for point in points.chunks_exact(places) {
            ranges
                .iter_mut()
                .zip(point)
                .for_each(|((low, high), place)| (*low, *high) = ((*low).min(*place), (*high).max(*place)));
        }
        forest.ranges = ranges.into();
        let subsample = (growth.subsample as usize).clamp(2, MOST_POINTS).min(count);
        forest.usual = usual_path(subsample).max(1.0);
        let mut nursery = Nursery {
            points: &points,
            places,
            deepest: subsample.max(2).next_power_of_two().ilog2(),
            chance,
            cuts: Vec::new(),
            splits: Vec::new(),
            rights: Vec::new(),
        };
        let mut order: Vec<u32> = (0..u32::try_from(count).unwrap_or(u32::MAX)).collect();
        let mut lengths = vec![(0.0f32, 0u32); count];
        let mut roots = Vec::new();
        for _ in 0..(growth.trees as usize).clamp(1, MOST_TREES) {
            for place in 0..subsample {
                let other = place + nursery.chance.below(count - place);
                order.swap(place, other);
            }
            let root = nursery.cuts.len();
            roots.push(u32::try_from(root).unwrap_or(u32::MAX));
            let (used, unused) = order.split_at_mut(subsample);
            nursery.grow(used, 0);
            // Points are judged by trees that do not know them; if all were used, by those that do.
            for index in if unused.is_empty() { used } else { unused } {
                let index = *index as usize;
                let Some(point) = points.get(index * places..(index + 1) * places) else { continue };
                if let Some((sum, trees)) = lengths.get_mut(index) {
                    *sum += walk(&nursery.cuts, &nursery.splits, &nursery.rights, root, point);
                    *trees += 1;
                }
            }
        }
        forest.roots = roots.into();
        forest.cuts = nursery.cuts.into();
        forest.splits = nursery.splits.into();
        forest.rights = nursery.rights.into();
        let usual = forest.usual;
        (forest, lengths.into_iter().map(|(sum, trees)| if trees == 0 { usual } else { sum / trees as f32 }).collect())
    }

    /// The anomaly score of the papers, 0 to 1: near 1 for what few cuts separate, below 0.5 for what is usual.
    #[must_use]
    pub fn score(&self, point: &[f32]) -> f64 {
        (-f64::from(self.path_length(&self.project(point)) / self.usual)).exp2()
    }

    /// Mean number of cuts after which the point is alone.
    pub(crate) fn path_length(&self, point: &Projected) -> f32 {
        let walks = self.roots.iter().map(|root| walk(&self.cuts, &self.splits, &self.rights, *root as usize, point));
        let length = walks.sum::<f32>() / self.roots.len().max(1) as f32;
        let outside = self.outside(point);
        if outside < 1e-3 { length } else { (1.0 - (1.0 - outside).powf(length)) / outside }
    }

    /// The chance that one cut, drawn from a range that takes in the point, separates it from all that is known; only
    /// beyond of it.
    fn outside(&self, point: &Projected) -> f32 {
        let chances = self.ranges.iter().zip(point).map(|((low, high), place)| {
            let (low, high, place) = (f32::from(*low), f32::from(*high), f32::from(*place));
            let beyond = (low - place).max(place - high).max(0.0);
            if beyond > 0.0 { beyond / (high - low + beyond) } else { 0.0 }
        });
        chances.sum::<f32>() / self.ranges.len().max(1) as f32
    }

    /// Mean path length that is expected of a usual point.
    pub(crate) const fn usual(&self) -> f32 {
        self.usual
    }

    pub(crate) fn project(&self, point: &[f32]) -> Projected {
        let mut projected = [0; WIDEST];
        self.project_with(point, &mut projected, |_| 0.0);
        projected
    }

    /// What is usual for each value of a point: the medians of what it was grown from.
    pub(crate) fn centres(&self) -> impl Iterator<Item = f32> {
        self.columns.iter().map(|column| column.centre)
    }

    /// Heap memory in bytes.
    #[must_use]
    pub fn heap(&self) -> usize {
        size_of_val(&*self.columns)
            + size_of_val(&*self.directions)
            + size_of_val(&*self.roots)
            + size_of_val(&*self.cuts)
            + size_of_val(&*self.splits)
            + size_of_val(&*self.rights)
            + size_of_val(&*self.ranges)
    }

    /// Number of directions of cuts.
    fn places(&self) -> usize {
        if self.directions.is_empty() { self.columns.len() } else { DIRECTIONS }
    }

    fn project_with(&self, point: &[f32], projected: &mut Projected, mut spread: impl FnMut(usize) -> f32) {
        let mut steps = [0.0f32; WIDEST];
        for (index, ((step, value), column)) in steps.iter_mut().zip(point).zip(&self.columns).enumerate() {
            let value = if value.is_finite() { *value } else { 0.0 };
            *step = ((value - column.centre) * column.steps + spread(index)).clamp(f32::from(i16::MIN), f32::from(i16::MAX));
        }
        if self.directions.is_empty() {
            projected.iter_mut().zip(&steps).for_each(|(place, step)| *place = whole(*step));
            return;
        }
        for (place, direction) in projected.iter_mut().zip(self.directions.chunks_exact(self.columns.len().max(1))) {
            *place = whole(direction.iter().zip(&steps).map(|(part, step)| part * step).sum());
        }
    }
}

/// Growing trees.
struct Nursery<'a> {
    points: &'a [i16],
    places: usize,
    deepest: u32,
    chance: Chance,
    cuts: Vec<u8>,
    splits: Vec<i16>,
    rights: Vec<u16>,
}

impl Nursery<'_> {
    /// Grows the tree of these points, below `depth` cuts.
    fn grow(&mut self, points: &mut [u32], depth: u32) {
        let node = self.cuts.len();
        let cut = if depth < self.deepest && points.len() > 1 { self.cut(points) } else { None };
        let Some((direction, split)) = cut else {
            let length = depth as f32 + usual_path(points.len());
            self.node(LEAF, whole(length * PATH));
            return;
        };
        self.node(u8::try_from(direction).unwrap_or(LEAF), split);
        let mut left = 0;
        for place in 0..points.len() {
            if points.get(place).is_some_and(|point| self.place(*point, direction) < split) {
                points.swap(place, left);
                left += 1;
            }
        }
        let (left, right) = points.split_at_mut(left);
        self.grow(left, depth + 1);
        let further = self.cuts.len() - node;
        if let Some(slot) = self.rights.get_mut(node) {
            *slot = u16::try_from(further).unwrap_or(u16::MAX);
        }
        self.grow(right, depth + 1);
    }

    /// A random direction in which these points differ, and a random place between them.
    fn cut(&mut self, points: &[u32]) -> Option<(usize, i16)> {
        let first = self.chance.below(self.places);
        (0..self.places).find_map(|step| {
            let direction = (first + step) % self.places;
            let (low, high) = points.iter().fold((i16::MAX, i16::MIN), |(low, high), point| {
                let place = self.place(*point, direction);
                (low.min(place), high.max(place))
            });
            let range = i32::from(high) - i32::from(low);
            let range = usize::try_from(range).ok().filter(|range| *range > 0)?;
            let above = i32::try_from(self.chance.below(range) + 1).unwrap_or(1);
            Some((direction, i16::try_from(i32::from(low) + above).unwrap_or(high)))
        })
    }

    fn place(&self, point: u32, direction: usize) -> i16 {
        self.points.get(point as usize * self.places + direction).copied().unwrap_or(0)
    }

    fn node(&mut self, cut: u8, split: i16) {
        self.cuts.push(cut);
        self.splits.push(split);
        self.rights.push(0);
    }
}

/// Path length of a point in the tree that begins at `node`.
fn walk(cuts: &[u8], splits: &[i16], rights: &[u16], mut node: usize, point: &[i16]) -> f32 {
    while let (Some(&cut), Some(&split), Some(&right)) = (cuts.get(node), splits.get(node), rights.get(node)) {
        if cut == LEAF {
            return f32::from(split) / PATH;
        }
        let place = point.get(usize::from(cut)).copied().unwrap_or(0);
        node += if place < split { 1 } else { usize::from(right).max(1) };
    }
    0.0
}

/// Mean path length of an unsuccessful search in a binary search tree of `points` points.
fn usual_path(points: usize) -> f32 {
    match points {
        0 | 1 => 0.0,
        2 => 1.0,
        _ => {
            let before = points as f64 - 1.0;
            let harmonic = before.ln() + 0.577_215_664_901_532_9 + 0.5 / before;
            narrow(2.0 * harmonic - 2.0 * before / points as f64)
        }
    }
}

/// Where the values of every column lie, and whether they are all the same: median and interquartile range, which
/// outliers among them do not move.
fn columns(rows: &[f32], width: usize) -> (Box<[Column]>, Vec<bool>) {
    let mut constant = Vec::with_capacity(width);
    let columns = (0..width).map(|column| {
        let values = rows.chunks_exact(width).filter_map(|row| row.get(column).copied());
        let mut values: Vec<f32> = values.map(|value| if value.is_finite() { value } else { 0.0 }).collect();
        values.sort_unstable_by(f32::total_cmp);
        let quantile = |quarters: usize| values.get(values.len().saturating_sub(1) * quarters / 4).copied().unwrap_or(0.0);
        let (low, centre, high) = (quantile(1), quantile(2), quantile(3));
        let range = (quantile(4) - quantile(0)).min(f32::MAX);
        let unit = if high > low { (high - low) / 1.35 } else { range / 8.0 };
        constant.push(unit <= 0.0);
        let unit = if unit > 0.0 { unit } else { (centre.abs() * 1e-3).max(1e-6) };
        Column { centre, steps: (STEPS / unit).min(f32::MAX) }
    });
    let columns = columns.collect();
    (columns, constant)
}

/// Unit vectors, evenly spread over all directions.
fn directions(width: usize, chance: &mut Chance) -> Box<[f32]> {
    let mut directions = Vec::with_capacity(DIRECTIONS * width);
    for _ in 0..DIRECTIONS {
        let parts: Vec<f64> = (0..width).map(|_| chance.normal()).collect();
        let length = parts.iter().map(|part| part * part).sum::<f64>().sqrt().max(1e-9);
        directions.extend(parts.iter().map(|part| narrow(part / length)));
    }
    directions.into()
}

#[expect(clippy::cast_possible_truncation, reason = "`as` rounds and saturates, which is what is wanted")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[expect(clippy::cast_possible_truncation, reason = "`as` saturates, which is what is wanted")]
fn whole(value: f32) -> i16 {
    value.round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWTH: Growth = Growth { trees: 100, subsample: 256, extended: false, seed: 1 };

    fn normal(count: usize, width: usize, seed: u64) -> Vec<f32> {
        let mut chance = Chance::new(seed);
        (0..count * width).map(|_| narrow(chance.normal())).collect()
    }

    #[test]
    fn points_of_an_even_spread_score_about_half() {
        let mut chance = Chance::new(3);
        let rows: Vec<f32> = (0..4000).map(|_| narrow(chance.uniform())).collect();
        for extended in [false, true] {
            let (forest, _) = IsolationForest::grow(&rows, 2, &Growth { extended, ..GROWTH });
            let scores: Vec<f64> = rows.chunks_exact(2).map(|row| forest.score(row)).collect();
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            assert!((0.42..0.52).contains(&mean), "{extended}: {mean}");
            assert!(scores.iter().all(|score| *score < 0.72), "{extended}");
        }
    }

    #[test]
    fn far_outliers_come_near_one_and_the_middle_stays_below_half() {
        let mut rows = normal(999, 2, 5);
        rows.extend([40.0, 40.0]);
        for extended in [false, true] {
            // Every tree sees the outlier.
            let (forest, _) = IsolationForest::grow(&rows, 2, &Growth { extended, subsample: 1000, ..GROWTH });
            let (far, middle) = (forest.score(&[40.0, 40.0]), forest.score(&[0.0, 0.0]));
            assert!(far > 0.8 && middle < 0.45, "{extended}: {far} {middle}");
        }
    }

    #[test]
    fn scores_grow_with_the_distance_from_a_cluster() {
        let rows = normal(1000, 2, 7);
        let (forest, _) = IsolationForest::grow(&rows, 2, &GROWTH);
        let scores: Vec<f64> = [0.0, 1.0, 2.0, 3.0].iter().map(|x| forest.score(&[*x, *x])).collect();
        assert!(scores.is_sorted(), "{scores:?}");
    }

    #[test]
    fn an_extended_forest_has_no_ghosts_where_two_clusters_cross_the_axes() {
        // Two clusters at (0, 10) and (10, 0): a plain forest takes (0, 0) and (10, 10) for places like them.
        let mut rows = normal(1000, 2, 9);
        for (number, row) in rows.chunks_exact_mut(2).enumerate() {
            row[number % 2] += 10.0;
        }
        let contrast = |extended| {
            let (forest, _) = IsolationForest::grow(&rows, 2, &Growth { extended, ..GROWTH });
            forest.score(&[0.0, 0.0]).min(forest.score(&[10.0, 10.0])) - forest.score(&[0.0, 10.0])
        };
        let (plain, extended) = (contrast(false), contrast(true));
        assert!(extended > plain + 0.05, "plain {plain}, extended {extended}");
    }

    #[test]
    fn the_same_seed_gives_the_same_forest_and_another_one_another() {
        let rows = normal(500, 3, 11);
        for extended in [false, true] {
            let grown = |seed| IsolationForest::grow(&rows, 3, &Growth { extended, seed, ..GROWTH });
            assert_eq!(grown(1), grown(1));
            assert_ne!(grown(1).0, grown(2).0);
        }
    }

    #[test]
    fn a_constant_is_told_from_anything_else() {
        let (forest, lengths) = IsolationForest::grow(&[42.0; 600], 1, &GROWTH);
        let (same, other) = (forest.score(&[42.0]), forest.score(&[84.0]));
        assert!(other > same + 0.1, "{same} {other}");
        assert_eq!(lengths.len(), 600);
    }

    #[test]
    fn nothing_and_nonsense_are_survived() {
        for rows in [&[][..], &[1.0], &[f32::NAN, f32::INFINITY, f32::MAX, f32::MIN]] {
            for (trees, subsample) in [(0, 0), (3, 5000)] {
                for extended in [false, true] {
                    let growth = Growth { trees, subsample, extended, seed: 0 };
                    let (forest, lengths) = IsolationForest::grow(rows, 2, &growth);
                    assert_eq!(lengths.len(), rows.len() / 2);
                    assert!(forest.score(&[f32::NAN, 1e30]).is_finite());
                }
            }
        }
    }

    #[test]
    fn a_forest_of_usual_size_is_small() {
        let (forest, _) = IsolationForest::grow(&normal(1000, 6, 13), 6, &GROWTH);
        assert!(forest.heap() < 200_000, "{} bytes", forest.heap());
    }
}
