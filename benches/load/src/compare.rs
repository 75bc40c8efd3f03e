//! Two programs or two configurations, in turns: what the machine does meanwhile happens to both.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::daemon::Recipe;
use crate::options::{Options, text};
use crate::report::Report;
use crate::{Error, measure};

/// The numbers that are compared, and whether more is better.
type Number = (&'static str, fn(&Report) -> Option<f64>);

const NUMBERS: [Number; 5] = [
    ("items/s", |r| Some(r.rate())),
    ("items per CPU-second", Report::per_cpu),
    ("p50 of a call, ms", |r| Some(r.tally.call.value_at_quantile(0.5) as f64 / 1000.0)),
    ("p99 of a call, ms", |r| Some(r.p99())),
    ("peak memory, MiB", |r| r.peak.map(|b| b as f64 / (1 << 20) as f64)),
];

/// All runs of both.
#[derive(Debug)]
pub struct Comparison {
    names: [String; 2],
    runs: [Vec<Report>; 2],
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = values.get(middle).copied()?;
    let even = values.len().is_multiple_of(2);
    Some(if even { (values.get(middle.checked_sub(1)?)? + upper) / 2.0 } else { upper })
}

/// `recipe` with this program or this daemon file.
fn with(recipe: &Recipe, one: &Path) -> Result<Recipe, Error> {
    let mut recipe = recipe.clone();
    if one.extension().is_some_and(|e| e == "yml" || e == "yaml") {
        recipe.daemon = text(Some(&one.to_owned()), "")?;
    } else {
        one.clone_into(&mut recipe.program);
    }
    Ok(recipe)
}

/// Runs both `rounds` times, each time in the other order.
///
/// # Errors
/// When one of them does not run. A run in which something is unaccounted for is none: it is in the comparison.
pub async fn compare(options: &Options, recipe: &Recipe, both: [&Path; 2], rounds: u32) -> Result<Comparison, Error> {
    let recipes = [with(recipe, both[0])?, with(recipe, both[1])?];
    let mut runs = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            let (Some(recipe), Some(runs)) = (recipes.get(which), runs.get_mut(which)) else { continue };
            runs.push(measure(options, Some(recipe)).await?);
        }
    }
    Ok(Comparison { names: both.map(|p| p.display().to_string()), runs })
}

impl Comparison {
    /// Whether everything was accounted for in every run.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.runs.iter().all(|runs| !runs.is_empty() && runs.iter().all(Report::passed))
    }

    /// The median of a number of A and of B.
    fn medians(&self, number: fn(&Report) -> Option<f64>) -> [Option<f64>; 2] {
        self.runs.each_ref().map(|runs| median(runs.iter().filter_map(number).collect()))
    }

    /// A table.
    #[must_use]
    pub fn text(&self) -> String {
        let [a, b] = &self.names;
        let mut out = format!("A: {a}\nB: {b}\nmedians of {} runs each\n\n", self.runs[0].len());
        let _ = writeln!(out, "{:<22}{:>12}{:>12}{:>8}", "", "A", "B", "A / B");
        for (name, number) in NUMBERS {
            if let [Some(a), Some(b)] = self.medians(number) {
                let _ = writeln!(out, "{name:<22}{a:>12.1}{b:>12.1}{:>8.2}", a / b);
            }
        }
        for (name, runs) in ["A", "B"].iter().zip(&self.runs) {
            for problem in runs.iter().flat_map(|r| &r.verdict.problems) {
                let _ = writeln!(out, "FAILED: {name}: {problem}");
            }
        }
        if self.passed() {
            out.push_str("passed: everything is accounted for in every run\n");
        }
        out
    }

    /// The same as JSON, with every run.
    #[must_use]
    pub fn json(&self) -> Value {
        let numbers: Vec<Value> = NUMBERS
            .iter()
            .map(|(name, number)| {
                let [a, b] = self.medians(*number);
                json!({ "number": name, "a": a, "b": b, "ratio": a.zip(b).map(|(a, b)| a / b) })
            })
            .collect();
        let runs = self.runs.each_ref().map(|runs| runs.iter().map(Report::json).collect::<Vec<_>>());
        json!({ "names": self.names, "medians": numbers, "runs": runs, "passed": self.passed() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }
}
