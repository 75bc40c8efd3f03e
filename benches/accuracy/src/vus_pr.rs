//! VUS-PR: the volume under the surface of precision over recall, over all thresholds and all tolerances up to a window.
//!
//! A detector that answers some steps early or late should lose a little, not everything. So around every labelled
//! event the label fades out over half a tolerance, `sqrt(1 - distance / tolerance)`; a flagged point in the fade
//! counts as that much of a true positive, and recall is multiplied by the share of events that were touched at all.
//! The area under precision over recall is averaged over the tolerances 0 to `window`.
//!
//! Source: Paparrizos, Boniol, Palpanas, Tsay, Elmore and Franklin, "Volume under the surface", PVLDB 15(11), 2022;
//! with the corrections of Boniol et al., arXiv 2502.13318 (2025): only fades that were flagged count among the
//! positives, and precision is taken at 250 thresholds evenly spread over the ranks of the scores.

/// Thresholds at which precision and recall are taken.
const THRESHOLDS: usize = 250;

/// Mean area under precision over recall for the tolerances 0 to `window` (in rows), 0 to 1; higher is better.
///
/// One score for each label, higher is more unusual; only their order matters, and scores that are not numbers rank
/// last. A score without information gets about the share of labelled rows, with tolerance somewhat more.
/// NaN when there is nothing to measure: no row, no labelled row, or not one score for each label.
///
/// Costs a sort, then `window` passes over the labelled rows and the rows within half a `window` of them.
pub(crate) fn vus_pr(labels: &[bool], scores: &[f64], window: usize) -> f64 {
    let events = events(labels);
    if events.is_empty() || labels.len() != scores.len() {
        return f64::NAN;
    }
    let flags = Flags::new(scores);
    let positives = labels.iter().filter(|label| **label).count() as f64;
    let sum: f64 = (0..=window).map(|tolerance| area(labels, &events, &flags, positives, tolerance)).sum();
    sum / (window + 1) as f64
}

/// An event: its first and last row.
type Range = (usize, usize);

/// Which thresholds flag which rows.
struct Flags {
    /// Number of the first and highest threshold that flags a row.
    first: Vec<usize>,
    /// Rows flagged by each threshold.
    flagged: Vec<f64>,
}

impl Flags {
    fn new(scores: &[f64]) -> Self {
        let scores: Vec<f64> = scores.iter().map(|score| if score.is_nan() { f64::NEG_INFINITY } else { *score }).collect();
        let mut sorted = scores.clone();
        sorted.sort_by(|left, right| right.total_cmp(left));
        let thresholds: Vec<f64> = ranks(scores.len()).filter_map(|rank| sorted.get(rank).copied()).collect();
        let flagged = thresholds.iter().map(|threshold| sorted.partition_point(|score| score >= threshold) as f64).collect();
        let first = scores.iter().map(|score| thresholds.partition_point(|threshold| threshold > score)).collect();
        Self { first, flagged }
    }

    fn first(&self, row: usize) -> usize {
        self.first.get(row).copied().unwrap_or(THRESHOLDS)
    }
}

/// Ranks of the scores that serve as thresholds.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the number of rows")]
fn ranks(rows: usize) -> impl Iterator<Item = usize> {
    let last = rows.saturating_sub(1);
    let step = last as f64 / (THRESHOLDS - 1) as f64;
    (0..THRESHOLDS).map(move |number| if number + 1 == THRESHOLDS { last } else { (number as f64 * step) as usize })
}

/// Area under precision over recall with labels that fade out over half of `tolerance`.
fn area(labels: &[bool], events: &[Range], flags: &Flags, positives: f64, tolerance: usize) -> f64 {
    // What each threshold adds to the one above it: labelled rows, fade, events touched.
    let mut hits = [0.0; THRESHOLDS];
    let mut fades = [0.0; THRESHOLDS];
    let mut touched = [0.0; THRESHOLDS];
    let add = |sums: &mut [f64; THRESHOLDS], at: usize, weight: f64| {
        if let Some(sum) = sums.get_mut(at) {
            *sum += weight;
        }
    };
    let widened = widened(events, tolerance / 2, labels.len());
    for (from, to) in &widened {
        let mut first = THRESHOLDS;
        for row in *from..=*to {
            let flagged_from = flags.first(row);
            first = first.min(flagged_from);
            if labels.get(row) == Some(&true) {
                add(&mut hits, flagged_from, 1.0);
            } else {
                add(&mut fades, flagged_from, fade(events, row, tolerance));
            }
        }
        add(&mut touched, first, 1.0);
    }
    let (mut hit, mut faded, mut found) = (0.0, 0.0, 0.0);
    let (mut area, mut before) = (0.0, 0.0);
    for (((hits, fades), touched), flagged) in hits.iter().zip(&fades).zip(&touched).zip(&flags.flagged) {
        hit += hits;
        faded += fades;
        found += touched;
        let recall = ((hit + faded) / (positives + faded / 2.0)).min(1.0) * found / widened.len() as f64;
        area += (recall - before) * (hit + faded) / flagged;
        before = recall;
    }
    area
}

/// How much a row outside the events belongs to them: the fades of several events add up, to at most 1.
fn fade(events: &[Range], row: usize, tolerance: usize) -> f64 {
    let reach = tolerance / 2;
    let one = |distance: usize| {
        if distance <= reach && tolerance > 0 { (1.0 - distance as f64 / tolerance as f64).sqrt() } else { 0.0 }
    };
    let next = events.partition_point(|(start, _)| *start <= row);
    // Short events may lie within the reach of each other's fades.
    let after: f64 = events.iter().skip(next).map_while(|(start, _)| (start - row <= reach).then(|| one(start - row))).sum();
    let earlier = events.iter().take(next).rev();
    let before: f64 = earlier.map_while(|(_, end)| (row - end <= reach).then(|| one(row - end))).sum();
    (after + before).min(1.0)
}

/// The events, each `reach` rows longer at both ends; those that touch become one.
fn widened(events: &[Range], reach: usize, rows: usize) -> Vec<Range> {
    let mut widened: Vec<Range> = Vec::with_capacity(events.len());
    for (start, end) in events {
        let (from, to) = (start.saturating_sub(reach), (end + reach).min(rows.saturating_sub(1)));
        match widened.last_mut() {
            Some(last) if last.1 >= from => last.1 = to,
            _ => widened.push((from, to)),
        }
    }
    widened
}

/// Runs of labelled rows.
fn events(labels: &[bool]) -> Vec<Range> {
    let mut events: Vec<Range> = Vec::new();
    for (row, _) in labels.iter().enumerate().filter(|(_, label)| **label) {
        match events.last_mut() {
            Some(last) if last.1 + 1 == row => last.1 = row,
            _ => events.push((row, row)),
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(rows: usize, events: &[Range]) -> Vec<bool> {
        (0..rows).map(|row| events.iter().any(|(start, end)| (*start..=*end).contains(&row))).collect()
    }

    /// Noise of `levels` values in 0..1, and `bonus` more where the row `late` rows earlier is labelled.
    fn scores(labels: &[bool], bonus: f64, late: usize, levels: usize) -> Vec<f64> {
        let rows = labels.len();
        let noise = |row: usize| ((row * 7919 + 13) % levels) as f64 / levels as f64;
        (0..rows).map(|row| noise(row) + if labels[(row + rows - late) % rows] { bonus } else { 0.0 }).collect()
    }

    /// Values of the authors' own implementation (package `TSB-AD` 1.5, the same in `vus` 0.0.6) for these inputs.
    #[test]
    fn the_values_are_those_of_the_authors_implementation() {
        type Case<'a> = (&'a str, usize, &'a [Range], f64, usize, usize, [f64; 4]);
        const WINDOWS: [usize; 4] = [0, 5, 12, 30];
        let cases: [Case; 8] = [
            ("two", 400, &[(50, 60), (200, 240)], 0.3, 0, 1009, [0.497825296790, 0.509143263222, 0.523105742009, 0.552232091629]),
            (
                "late",
                400,
                &[(50, 60), (200, 240)],
                0.8,
                4,
                1009,
                [0.762505969825, 0.804104578641, 0.849337682619, 0.886122589171],
            ),
            (
                "edges",
                300,
                &[(0, 5), (140, 140), (150, 152), (290, 299)],
                0.5,
                0,
                1009,
                [0.641443205602, 0.658176556865, 0.675367493064, 0.720712460688],
            ),
            (
                "ties",
                600,
                &[(100, 130), (135, 150), (400, 410)],
                1.0,
                2,
                7,
                [0.853902911102, 0.895916230468, 0.932614750915, 0.955051957468],
            ),
            ("perfect", 300, &[(100, 119)], 2.0, 0, 1009, [1.0; 4]),
            (
                "random",
                2000,
                &[(300, 350), (900, 920), (1500, 1510)],
                0.0,
                0,
                1009,
                [0.039204848123, 0.042277007934, 0.047362203139, 0.059211954209],
            ),
            ("constant", 200, &[(50, 59)], 0.0, 0, 1, [0.05, 0.057942932346, 0.072959282707, 0.111560429879]),
            (
                "long",
                4320,
                &[(759, 764), (1063, 1297), (2757, 2771)],
                0.35,
                3,
                1009,
                [0.340127917782, 0.372888181264, 0.412942070622, 0.439213187362],
            ),
        ];
        for (name, rows, events, bonus, late, levels, expected) in cases {
            let labels = labels(rows, events);
            let scores = scores(&labels, bonus, late, levels);
            for (window, expected) in WINDOWS.into_iter().zip(expected) {
                let value = vus_pr(&labels, &scores, window);
                assert!((value - expected).abs() < 1e-9, "{name}, window {window}: {value} instead of {expected}");
            }
        }
    }

    #[test]
    fn only_the_order_of_scores_matters() {
        let labels = labels(500, &[(100, 120), (300, 333)]);
        let plain = scores(&labels, 0.4, 2, 1009);
        let stretched: Vec<f64> = plain.iter().map(|score| (score * 9.0).exp() - 1e3).collect();
        assert_eq!(vus_pr(&labels, &plain, 12), vus_pr(&labels, &stretched, 12));
    }

    #[test]
    fn a_score_without_information_is_worth_the_share_of_labelled_rows() {
        let labels = labels(30_000, &[(5_000, 5_299), (12_000, 12_299), (20_000, 20_299), (27_000, 27_599)]);
        let scores = scores(&labels, 0.0, 0, 29_989);
        let value = vus_pr(&labels, &scores, 12);
        assert!((0.045..0.065).contains(&value), "5 % of the rows are labelled: {value}");
        assert!(vus_pr(&labels, &tests::scores(&labels, 1.0, 0, 29_989), 12) > 0.98);
    }

    #[test]
    fn nothing_to_measure_is_not_a_number() {
        assert!(vus_pr(&[], &[], 12).is_nan());
        assert!(vus_pr(&[false; 20], &[1.0; 20], 12).is_nan());
        assert!(vus_pr(&[true; 20], &[1.0; 19], 12).is_nan());
        assert_eq!(vus_pr(&[true; 20], &[f64::NAN; 20], 12), 1.0, "what is not a number ranks last, here beside its like");
    }

    #[test]
    fn one_row_is_enough_and_large_windows_do_no_harm() {
        assert_eq!(vus_pr(&[true], &[3.0], 1000), 1.0);
        let value = vus_pr(&[false, true, false], &[0.0, 1.0, 0.5], 1000);
        assert!((0.0..=1.0).contains(&value), "{value}");
    }
}
