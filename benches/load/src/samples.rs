//! The Prometheus text of `/metrics`, line by line.

use std::collections::BTreeMap;

use crate::Error;

/// One line: `name{label="value",...} value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What is counted.
    pub name: String,
    /// Of whom, by name.
    pub labels: BTreeMap<String, String>,
    /// How much.
    pub value: f64,
}

/// All samples of one scrape.
#[derive(Clone, Debug)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// Reads Prometheus text.
    ///
    /// # Errors
    /// The line that is no sample.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let samples = lines.map(|line| sample(line).ok_or_else(|| format!("/metrics: not a sample: {line}").into()));
        Ok(Self(samples.collect::<Result<_, Error>>()?))
    }

    /// All, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.0.iter()
    }

    /// The sum of all samples of `name` that carry all of `labels`, its whole part.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |sample: &&Sample| sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == *value);
        self.iter().filter(has).map(|sample| sample.value).sum::<f64>() as u64
    }
}

impl Sample {
    /// The value of a label; empty where there is none.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let mut labels = BTreeMap::new();
    let Some((name, rest)) = head.split_once('{') else { return Some(Sample { name: head.to_owned(), labels, value }) };
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (key, quoted) = rest.split_once("=\"")?;
        let mut text = String::new();
        let mut characters = quoted.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => text.push('\n'),
                    other => text.push(other),
                },
                (_, other) => text.push(other),
            }
        };
        labels.insert(key.to_owned(), text);
        rest = quoted.get(end + 1..)?.trim_start_matches(',');
    }
    Some(Sample { name: name.to_owned(), labels, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_text_is_read_with_its_escapes() {
        let text = "# HELP a b\na_total{x=\"1\",y=\"say \\\"hi, you\\\" \\\\\"} 3\na_total{x=\"2\"} 4\nplain 1.5e3\n# EOF\n";
        let samples = Samples::parse(text).unwrap();
        assert_eq!(samples.sum("a_total", &[]), 7);
        assert_eq!(samples.sum("a_total", &[("y", "say \"hi, you\" \\")]), 3);
        assert_eq!(samples.sum("plain", &[]), 1500);
    }

    #[test]
    fn a_line_that_is_no_sample_is_told() {
        for line in ["a", "a{x=\"1\" 3", "a{x=1} 3", "a three"] {
            assert_eq!(Samples::parse(line).unwrap_err().to_string(), format!("/metrics: not a sample: {line}"));
        }
    }
}
