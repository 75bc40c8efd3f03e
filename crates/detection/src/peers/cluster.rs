//! Who stands outside the clusters of the others. Both are deterministic: neither draws a random number.

use linfa::DatasetBase;
use linfa::ParamGuard;
use linfa::traits::{Fit, Predict, Transformer};
use linfa_clustering::{Dbscan, KMeans, KMeansInit};
use linfa_nn::CommonNearestNeighbour;
use linfa_nn::distance::L2Dist;
use ndarray::Array2;

/// Most centres that k-means tries.
const MOST_CENTRES: usize = 4;
const ITERATIONS: u64 = 50;
/// How often k-means looks again at what it did not set apart.
const ROUNDS: usize = 3;

fn matrix(points: &[[f64; 2]]) -> Option<Array2<f64>> {
    let finite = points.iter().flatten().map(|v| if v.is_finite() { *v } else { 0.0 }).collect();
    Array2::from_shape_vec((points.len(), 2), finite).ok()
}

fn distance(a: &[f64; 2], b: &[f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Whether each point is outside the largest dense cluster. Two points within `reach` are neighbours, and
/// `min_points` neighbours make a cluster.
pub(super) fn dbscan(points: &[[f64; 2]], reach: f64, min_points: usize) -> Vec<bool> {
    let nobody = vec![false; points.len()];
    let Some(matrix) = matrix(points) else { return nobody };
    let parameters = Dbscan::params_with(min_points, L2Dist, CommonNearestNeighbour::LinearSearch).tolerance(reach);
    let Ok(parameters) = parameters.check() else { return nobody };
    let clusters: Vec<Option<usize>> = parameters.transform(&matrix).to_vec();
    match largest(clusters.iter().flatten().copied()) {
        Some(most) => clusters.iter().map(|c| *c != Some(most)).collect(),
        None => nobody,
    }
}

/// Whether each point belongs to a centre other than that of most, and further than `reach` from it. Of two to four
/// centres those are taken that separate the points best; what they set apart is left out, and the rest looked at again,
/// because one that is very far hides one that is only far.
pub(super) fn kmeans(points: &[[f64; 2]], reach: f64) -> Vec<bool> {
    let mut apart = vec![false; points.len()];
    for _ in 0..ROUNDS {
        let rest: Vec<usize> = apart.iter().enumerate().filter(|(_, apart)| !**apart).map(|(i, _)| i).collect();
        let left: Vec<[f64; 2]> = rest.iter().filter_map(|i| points.get(*i)).copied().collect();
        let found = kmeans_once(&left, reach);
        for (i, _) in rest.iter().zip(&found).filter(|(_, found)| **found) {
            if let Some(apart) = apart.get_mut(*i) {
                *apart = true;
            }
        }
        if !found.contains(&true) {
            break;
        }
    }
    apart
}

fn kmeans_once(points: &[[f64; 2]], reach: f64) -> Vec<bool> {
    let nobody = vec![false; points.len()];
    let Some(records) = matrix(points) else { return nobody };
    let data = DatasetBase::from(records);
    let mut best: Option<(f64, Vec<usize>, Array2<f64>)> = None;
    let starts = far_apart(points, MOST_CENTRES);
    for centres in 2..=starts.len() {
        let Some(start) = starts.get(..centres).and_then(matrix) else { continue };
        let parameters =
            KMeans::params(centres).n_runs(1).max_n_iterations(ITERATIONS).init_method(KMeansInit::Precomputed(start));
        let Ok(model) = parameters.fit(&data) else { continue };
        let of = model.predict(data.records()).to_vec();
        let separation = silhouette(points, &of);
        if best.as_ref().is_none_or(|(least, ..)| separation > *least) {
            best = Some((separation, of, model.centroids().clone()));
        }
    }
    let Some((_, of, centroids)) = best else { return nobody };
    let centre = |i: usize| Some([*centroids.get((i, 0))?, *centroids.get((i, 1))?]);
    let Some((most, middle)) = largest(of.iter().copied()).and_then(|most| Some((most, centre(most)?))) else { return nobody };
    of.iter().map(|c| *c != most && centre(*c).is_some_and(|other| distance(&other, &middle) > reach)).collect()
}

/// The number that comes most often; of several the smallest.
fn largest(clusters: impl Iterator<Item = usize>) -> Option<usize> {
    let mut counts: Vec<usize> = Vec::new();
    for cluster in clusters {
        counts.resize(counts.len().max(cluster + 1), 0);
        if let Some(count) = counts.get_mut(cluster) {
            *count += 1;
        }
    }
    let all = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    all.max_by_key(|(cluster, count)| (**count, usize::MAX - cluster)).map(|(cluster, _)| cluster)
}

/// Up to `most` different points: the one nearest to where members usually are, then always the one farthest from those.
fn far_apart(points: &[[f64; 2]], most: usize) -> Vec<[f64; 2]> {
    let near = |p: &[f64; 2]| p[0].hypot(p[1]);
    let mut chosen: Vec<[f64; 2]> = points.iter().min_by(|a, b| near(a).total_cmp(&near(b))).copied().into_iter().collect();
    while chosen.len() < most {
        let gap = |p: &[f64; 2]| chosen.iter().map(|c| distance(c, p)).fold(f64::INFINITY, f64::min);
        match points.iter().map(|p| (gap(p), p)).max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((gap, point)) if gap > 0.0 => chosen.push(*point),
            _ => break,
        }
    }
    chosen
}

/// Mean silhouette: how much nearer points are to their own cluster than to the next, -1 to 1.
fn silhouette(points: &[[f64; 2]], of: &[usize]) -> f64 {
    let clusters = of.iter().max().map_or(0, |last| last + 1);
    let mut total = 0.0;
    for (i, (point, own)) in points.iter().zip(of).enumerate() {
        let mut sums = vec![(0.0, 0usize); clusters];
        for (j, (other, cluster)) in points.iter().zip(of).enumerate() {
            if let Some((sum, count)) = sums.get_mut(*cluster)
                && i != j
            {
                *sum += distance(point, other);
                *count += 1;
            }
        }
        let means = sums.iter().map(|(sum, count)| if *count > 0 { sum / *count as f64 } else { f64::INFINITY });
        let (mut inside, mut outside) = (f64::INFINITY, f64::INFINITY);
        for (cluster, mean) in means.enumerate() {
            if cluster == *own {
                inside = mean;
            } else {
                outside = outside.min(mean);
            }
        }
        // Alone in its cluster: 0, as in the source.
        if inside.is_finite() && outside.is_finite() && inside.max(outside) > 0.0 {
            total += (outside - inside) / inside.max(outside);
        }
    }
    total / points.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd_and(others: &[[f64; 2]]) -> Vec<[f64; 2]> {
        let mut points: Vec<[f64; 2]> = (0..8).map(|i| [f64::from(i % 4) * 0.3, f64::from(i / 4) * 0.3]).collect();
        points.extend_from_slice(others);
        points
    }

    fn who(apart: &[bool]) -> Vec<usize> {
        apart.iter().enumerate().filter(|(_, apart)| **apart).map(|(i, _)| i).collect()
    }

    #[test]
    fn both_set_apart_one_that_is_far_from_all() {
        let points = crowd_and(&[[9.0, 0.0]]);
        assert_eq!(who(&dbscan(&points, 2.0, 3)), [8]);
        assert_eq!(who(&kmeans(&points, 2.0)), [8]);
    }

    #[test]
    fn both_set_apart_two_that_are_far_from_all_and_from_each_other() {
        let points = crowd_and(&[[9.0, 0.0], [-12.0, 7.0]]);
        assert_eq!(who(&dbscan(&points, 2.0, 3)), [8, 9]);
        assert_eq!(who(&kmeans(&points, 2.0)), [8, 9]);
    }

    #[test]
    fn neither_sets_apart_anybody_in_one_crowd() {
        assert_eq!(who(&dbscan(&crowd_and(&[]), 2.0, 3)), [0usize; 0]);
        assert_eq!(who(&kmeans(&crowd_and(&[]), 2.0)), [0usize; 0]);
        assert_eq!(who(&kmeans(&[[1.0, 1.0]; 5], 2.0)), [0usize; 0], "all alike");
        assert_eq!(who(&dbscan(&[[1.0, 1.0]; 5], 2.0, 3)), [0usize; 0], "all alike");
        assert_eq!(who(&dbscan(&[], 2.0, 3)), [0usize; 0]);
        assert_eq!(who(&kmeans(&[], 2.0)), [0usize; 0]);
    }
}
