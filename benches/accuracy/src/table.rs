//! The table: what was measured, beside its floor, what is wanted, and what baselines give.

/// Which values of a measure are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    pub(crate) name: String,
    pub(crate) better: Better,
    /// Worse fails; `None` where nothing is asked.
    pub(crate) floor: Option<f64>,
    /// What is aimed at.
    pub(crate) wanted: Option<f64>,
    /// `None` where it could not be measured.
    pub(crate) measured: Option<f64>,
    /// The same of a detector that guesses.
    pub(crate) random: Option<f64>,
    /// The same of a detector that knows the time of day alone.
    pub(crate) time_of_day: Option<f64>,
    pub(crate) decimals: usize,
}

impl Measure {
    pub(crate) fn new(name: impl Into<String>, better: Better, decimals: usize) -> Self {
        let name = name.into();
        Self { name, better, floor: None, wanted: None, measured: None, random: None, time_of_day: None, decimals }
    }

    pub(crate) fn target(mut self, floor: f64, wanted: f64) -> Self {
        (self.floor, self.wanted) = (Some(floor), Some(wanted));
        self
    }

    pub(crate) fn of(mut self, measured: f64) -> Self {
        self.measured = Some(measured).filter(|value| value.is_finite());
        self
    }

    pub(crate) fn beside(mut self, random: f64, time_of_day: f64) -> Self {
        self.random = Some(random).filter(|value| value.is_finite());
        self.time_of_day = Some(time_of_day).filter(|value| value.is_finite());
        self
    }

    /// The same, with nothing asked of it.
    pub(crate) fn without_floor(mut self) -> Self {
        (self.floor, self.wanted) = (None, None);
        self
    }

    /// As it is printed, so that what reads as 72.00 is not below 72.
    fn rounded(&self, value: f64) -> f64 {
        format!("{value:.*}", self.decimals).parse().unwrap_or(value)
    }

    fn reaches(&self, limit: Option<f64>) -> Option<bool> {
        let (limit, measured) = (limit?, self.rounded(self.measured?));
        Some(if self.better == Better::Higher { measured >= limit } else { measured <= limit })
    }

    pub(crate) fn is_below_floor(&self) -> bool {
        self.reaches(self.floor) == Some(false)
    }

    fn standing(&self) -> &'static str {
        match (self.measured, self.reaches(self.floor), self.reaches(self.wanted)) {
            (None, ..) => "not measured",
            (_, Some(false), _) => "BELOW FLOOR",
            (.., Some(true)) => "as wanted",
            (_, Some(true), _) => "passed",
            (_, None, _) => "",
        }
    }

    fn cells(&self) -> [String; 7] {
        let limit = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| trimmed(value, self.decimals));
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.*}", self.decimals));
        [
            self.name.clone(),
            limit(self.floor),
            limit(self.wanted),
            number(self.measured),
            number(self.random),
            number(self.time_of_day),
            self.standing().to_owned(),
        ]
    }
}

/// A number without zeros at its end.
fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

const HEADER: [&str; 7] = ["measure", "floor", "wanted", "measured", "random", "time of day", "result"];

/// Whether a column is numbers, which stand at the right.
const RIGHT: [bool; 7] = [false, true, true, true, true, true, false];

/// The table for people, columns aligned.
pub(crate) fn text(measures: &[Measure]) -> String {
    render(measures, "  ", "", |width| "-".repeat(width))
}

/// The table for documents.
pub(crate) fn markdown(measures: &[Measure]) -> String {
    render(measures, " | ", "|", |width| "-".repeat(width))
}

fn render(measures: &[Measure], between: &str, edge: &str, rule: impl Fn(usize) -> String) -> String {
    let rows: Vec<[String; 7]> = std::iter::once(HEADER.map(str::to_owned)).chain(measures.iter().map(Measure::cells)).collect();
    let mut widths = [0; 7];
    for row in &rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = (*width).max(cell.chars().count()));
    }
    let line = |cells: Vec<String>| {
        let inner = cells.join(between);
        if edge.is_empty() { format!("{}\n", inner.trim_end()) } else { format!("{edge} {inner} {edge}\n") }
    };
    let aligned = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).zip(RIGHT);
        line(
            cells
                .map(|((cell, width), right)| if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") })
                .collect(),
        )
    };
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        out.push_str(&aligned(row));
        if number == 0 {
            let rules = widths.iter().zip(RIGHT).map(|(width, right)| {
                let rule = rule(*width);
                // A colon tells Markdown which way a column is aligned.
                if right && !edge.is_empty() { format!("{}:", rule.get(1..).unwrap_or("")) } else { rule }
            });
            out.push_str(&line(rules.collect()));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measures() -> Vec<Measure> {
        vec![
            Measure::new("recall", Better::Higher, 3).target(0.45, 0.55).of(0.4496).beside(0.1, 0.2),
            Measure::new("precision", Better::Higher, 3).target(0.45, 0.55).of(0.4495).beside(0.1, 0.2),
            Measure::new("false alarms", Better::Lower, 4).target(0.015, 0.015).of(0.015),
            Measure::new("bytes", Better::Lower, 0).target(8192.0, 4096.0).of(7928.0),
            Measure::new("entities", Better::Higher, 3).target(0.4, 0.47),
            Measure::new("a number beside", Better::Higher, 1).of(61.25),
        ]
    }

    #[test]
    fn what_reads_as_the_floor_is_not_below_it_and_what_is_not_measured_is_said() {
        insta::assert_snapshot!(format!("{}\n{}", text(&measures()), markdown(&measures())));
    }

    #[test]
    fn only_what_is_measured_can_fail() {
        let failed: Vec<bool> = measures().iter().map(Measure::is_below_floor).collect();
        assert_eq!(failed, [false, false, false, false, false, false]);
        assert!(Measure::new("recall", Better::Higher, 3).target(0.45, 0.55).of(0.4494).is_below_floor());
        assert!(Measure::new("bytes", Better::Lower, 0).target(8192.0, 4096.0).of(8193.0).is_below_floor());
    }
}
