//! Charts as inline SVG: colours come from the page, so they follow light and dark.

use std::fmt::Write as _;

use super::collect::Sample;
use super::escape::escape;
use super::report::Finding;
use super::text::{count, minute};
use crate::model::UnixNanos;
use crate::text::alike;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
/// Room for the numbers of the axes.
const LEFT: f64 = 76.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 28.0;
/// So far beyond what was observed a band is drawn, as a share of the observed range.
const BEYOND: f64 = 0.25;

/// From data to the picture.
struct Scale {
    from: f64,
    to: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, at: UnixNanos) -> f64 {
        LEFT + (at.secs_f64() - self.from) / (self.to - self.from).max(1e-9) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let inside = ((value - self.low) / (self.high - self.low).max(f64::MIN_POSITIVE)).clamp(-0.05, 1.05);
        TOP + (1.0 - inside) * (HEIGHT - TOP - BOTTOM)
    }
}

/// The series around a finding: values, what was expected, what is usual, and the finding itself.
pub(super) fn series(finding: &Finding) -> Option<String> {
    let samples = &finding.chart;
    let (first, last) = (samples.first()?, samples.last()?);
    let anomaly = &finding.anomaly;
    let bucket = anomaly.window.end.0.saturating_sub(anomaly.window.start.0);
    let (low, high) = range(samples, anomaly.observed);
    let scale = Scale { from: first.at.secs_f64(), to: last.at.plus(bucket).secs_f64(), low, high };
    let write = alike(&anomaly.unit, &[low, high]);
    let label = format!(
        "{} from {} to {} UTC. At {}: {} where {} was expected, usual {} to {}.",
        anomaly.series(),
        minute(first.at),
        minute(last.at),
        minute(anomaly.window.start),
        write(anomaly.observed),
        write(anomaly.expected),
        write(anomaly.lower),
        write(anomaly.upper),
    );
    let mut svg = open(HEIGHT, &label);
    let right = WIDTH - RIGHT;
    for value in ticks(low, high, 4) {
        let y = scale.y(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"axis\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            y + 4.0,
            escape(&write(value)),
        );
    }
    times(&mut svg, &scale);
    // The bucket of the finding, over the whole height.
    let (x, width) = (scale.x(anomaly.window.start), (scale.x(anomaly.window.end) - scale.x(anomaly.window.start)).max(2.0));
    let _ = write!(
        svg,
        "<rect class=\"when\" x=\"{x:.1}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{:.1}\"/>",
        HEIGHT - TOP - BOTTOM
    );
    for run in runs(samples, bucket, |s| s.lower.is_finite() && s.upper.is_finite()) {
        let upper = run.iter().map(|s| (s.at, s.upper.min(high * 2.0 - low)));
        let lower = run.iter().rev().map(|s| (s.at, s.lower.max(low * 2.0 - high)));
        let _ = write!(svg, "<path class=\"band\" d=\"{}Z\"/>", path(&scale, bucket, upper.chain(lower)));
    }
    for run in runs(samples, bucket, |s| s.expected.is_finite()) {
        let points = run.iter().map(|s| (s.at, s.expected));
        let _ = write!(svg, "<path class=\"expected\" d=\"{}\"/>", path(&scale, bucket, points));
    }
    for run in runs(samples, bucket, |s| s.observed.is_finite()) {
        let points = run.iter().map(|s| (s.at, s.observed));
        let _ = write!(svg, "<path class=\"observed\" d=\"{}\"/>", path(&scale, bucket, points));
    }
    let (x, y) = (scale.x(anomaly.window.start.plus(bucket / 2)), scale.y(anomaly.observed));
    let _ = write!(
        svg,
        "<circle class=\"finding\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"><title>{} UTC: {}</title></circle></svg>",
        minute(anomaly.window.start),
        escape(&write(anomaly.observed)),
    );
    Some(svg)
}

/// The range of the picture: what was observed and expected, and the bands where they are near.
fn range(samples: &[Sample], observed: f64) -> (f64, f64) {
    let finite = |values: &mut dyn Iterator<Item = f64>| {
        values.filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)))
    };
    let (mut low, mut high) = finite(&mut samples.iter().flat_map(|s| [s.observed, s.expected]).chain([observed]));
    let room = (high - low) * BEYOND;
    let (lower, _) = finite(&mut samples.iter().map(|s| s.lower));
    let (_, upper) = finite(&mut samples.iter().map(|s| s.upper));
    low = if lower.is_finite() { low.min(lower.max(low - room)) } else { low };
    high = if upper.is_finite() { high.max(upper.min(high + room)) } else { high };
    if high - low <= low.abs().max(high.abs()) * 1e-9 {
        let half = low.abs().max(1.0) * 0.1;
        return (low - half, high + half);
    }
    let edge = (high - low) * 0.04;
    // Nothing below zero where nothing is.
    (if low >= 0.0 { (low - edge).max(0.0) } else { low - edge }, high + edge)
}

/// Runs of samples that satisfy `has` and follow each other.
fn runs(samples: &[Sample], bucket: u64, has: impl Fn(&Sample) -> bool) -> Vec<Vec<Sample>> {
    let mut all: Vec<Vec<Sample>> = Vec::new();
    for sample in samples.iter().filter(|s| has(s)) {
        let follows = |run: &Vec<Sample>| run.last().is_some_and(|last| sample.at.0 - last.at.0 <= bucket.saturating_mul(3));
        match all.last_mut().filter(|run| follows(run)) {
            Some(run) => run.push(*sample),
            None => all.push(vec![*sample]),
        }
    }
    all
}

fn path(scale: &Scale, bucket: u64, points: impl Iterator<Item = (UnixNanos, f64)>) -> String {
    let mut path = String::new();
    for (i, (at, value)) in points.enumerate() {
        let _ = write!(path, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, scale.x(at.plus(bucket / 2)), scale.y(value));
    }
    path
}

/// Round values between `low` and `high`, about `wanted` of them.
fn ticks(low: f64, high: f64, wanted: u32) -> Vec<f64> {
    let rough = (high - low) / f64::from(wanted.max(1));
    if !rough.is_finite() || rough <= 0.0 {
        return Vec::new();
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(10.0 * power);
    let first = (low / step).ceil();
    (0..20).map(|i| (first + f64::from(i)) * step).take_while(|v| *v <= high).collect()
}

/// Times below the axis, at round moments, with the date where the day begins.
fn times(svg: &mut String, scale: &Scale) {
    const STEPS: [f64; 14] = [
        60.0,
        300.0,
        600.0,
        900.0,
        1800.0,
        3600.0,
        7200.0,
        10_800.0,
        21_600.0,
        43_200.0,
        86_400.0,
        172_800.0,
        604_800.0,
        2_592_000.0,
    ];
    let rough = (scale.to - scale.from) / 6.0;
    let step = STEPS.iter().copied().find(|s| *s >= rough).unwrap_or(31_536_000.0);
    let first = (scale.from / step).ceil();
    let mut day = String::new();
    for i in 0..12 {
        let second = (first + f64::from(i)) * step;
        if second > scale.to {
            break;
        }
        let at = UnixNanos::from_secs(second as u64);
        let x = scale.x(at);
        if x > WIDTH - RIGHT - 20.0 {
            break;
        }
        let text = minute(at);
        let (date, time) = text.split_once(' ').unwrap_or((&text, ""));
        let shown = if step >= 86_400.0 {
            date.to_owned()
        } else if date == day {
            time.to_owned()
        } else {
            format!("{} {time}", date.get(5..).unwrap_or(date))
        };
        day = date.to_owned();
        let bottom = HEIGHT - BOTTOM;
        let _ = write!(
            svg,
            "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>\
             <text class=\"axis\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{shown}</text>",
            bottom + 4.0,
            HEIGHT - 8.0,
        );
    }
}

fn open(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">", escape(label))
}

/// Bars over time; a bar links to the first finding of its time, if there is one among the findings.
pub(super) fn bars(periods: &[(String, u64)], unit: &str, link: impl Fn(usize) -> Option<usize>) -> String {
    const TALL: f64 = 160.0;
    let most = periods.iter().map(|(_, n)| *n).max().unwrap_or(0).max(1);
    let label =
        format!("anomalies a {unit}: {}", periods.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", "));
    let mut svg = open(TALL, &label);
    let (bottom, width) = (TALL - BOTTOM, WIDTH - 44.0 - RIGHT);
    for value in ticks(0.0, most as f64, 3).into_iter().filter(|v| v.fract() == 0.0) {
        let y = bottom - value / most as f64 * (bottom - TOP);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"44\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"axis\" x=\"36\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            y + 4.0,
            count(value as u64),
        );
    }
    let each = width / periods.len().max(1) as f64;
    let labels = (periods.len() as f64 * 84.0 / width).ceil().max(1.0) as usize;
    for (i, (name, number)) in periods.iter().enumerate() {
        let x = 44.0 + i as f64 * each;
        let tall = *number as f64 / most as f64 * (bottom - TOP);
        let gap = (each * 0.15).min(6.0);
        let title = format!("{name}: {number}");
        let bar = format!(
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" rx=\"2\"><title>{title}</title></rect>",
            x + gap,
            bottom - tall,
            (each - 2.0 * gap).max(1.0),
        );
        match link(i).filter(|_| *number > 0) {
            Some(finding) => {
                let _ = write!(svg, "<a href=\"#f{finding}\" aria-label=\"{title}, see finding {finding}\">{bar}</a>");
            }
            None => svg.push_str(&bar),
        }
        if i % labels == 0 {
            let _ = write!(
                svg,
                "<text class=\"axis\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                (x + each / 2.0).max(44.0 + 22.0),
                TALL - 8.0,
                name.get(5..).unwrap_or(name),
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 100.0, 4), [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(ticks(0.13, 0.52, 4), [0.2, 0.30000000000000004, 0.4, 0.5]);
        assert!(ticks(1.0, 1.0, 4).is_empty() && ticks(f64::NAN, 1.0, 4).is_empty());
    }

    #[test]
    fn a_gap_in_the_data_is_a_gap_in_the_line() {
        let sample = |minute: u64| Sample {
            at: UnixNanos::from_secs(minute * 60),
            observed: 1.0,
            expected: f64::NAN,
            lower: f64::NAN,
            upper: f64::NAN,
        };
        let samples: Vec<Sample> = [0, 1, 2, 9, 10].map(sample).to_vec();
        let lengths: Vec<usize> =
            runs(&samples, 60 * UnixNanos::SECOND, |s| s.observed.is_finite()).iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, 2]);
        assert!(runs(&samples, 60 * UnixNanos::SECOND, |s| s.expected.is_finite()).is_empty());
    }
}
