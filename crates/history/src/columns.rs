//! Which columns of a file are times, values and labels: told by their names, in any usual spelling.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Time,
    Label,
    /// A value, if what stands in it is numbers.
    Value,
}

pub(crate) fn kind(name: &str) -> Kind {
    match plain(name).as_str() {
        "timestamp" | "timestamps" | "time" | "date" | "datetime" | "ts" | "unixtime" | "unixtimestamp" | "epoch"
        | "eventtime" => Kind::Time,
        "label" | "labels" | "isanomaly" | "anomaly" | "anomalies" | "groundtruth" => Kind::Label,
        _ => Kind::Value,
    }
}

/// Lower case letters and digits alone: `Time_Stamp`, `time stamp` and `@timestamp` are spellings of one name.
fn plain(name: &str) -> String {
    name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Which of the columns of values are read: those called `value` (`Value`, `value_2`) if there are any, else all.
pub(crate) fn read(names: &[&str]) -> Vec<bool> {
    let called_value: Vec<bool> = names.iter().map(|name| is_called_value(name)).collect();
    if called_value.contains(&true) { called_value } else { vec![true; names.len()] }
}

fn is_called_value(name: &str) -> bool {
    let plain = plain(name);
    plain.strip_prefix("value").is_some_and(|rest| rest.is_empty() || rest == "s" || rest.parse::<u32>().is_ok())
}

/// A number, if this is one; NaN stands for a gap. `None` for other text.
pub(crate) fn number(text: &str) -> Option<f64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        return Some(if number.is_finite() { number } else { f64::NAN });
    }
    let gap = matches!(text.to_lowercase().as_str(), "" | "na" | "n/a" | "#n/a" | "null" | "none" | "-" | "?");
    gap.then_some(f64::NAN)
}

/// Whether a label says that the row is anomalous.
pub(crate) fn is_anomalous(text: &str) -> bool {
    let text = text.trim();
    text.parse::<f64>().map_or_else(|_| matches!(text.to_lowercase().as_str(), "true" | "yes"), |number| number > 0.0)
}

/// The names in backticks.
pub(crate) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_known_by_its_name_in_any_usual_spelling() {
        for name in ["timestamp", "TimeStamp", "Time_Stamp", "time stamp", "@timestamp", "DATE", "dateTime", "_time", "ts"] {
            assert_eq!(kind(name), Kind::Time, "{name}");
        }
        for name in ["label", "Label", "is_anomaly", "isAnomaly", "Is Anomaly", "anomaly"] {
            assert_eq!(kind(name), Kind::Label, "{name}");
        }
        for name in ["value", "cpu", "response_time", "timeouts", "labels_total"] {
            assert_eq!(kind(name), Kind::Value, "{name}");
        }
    }

    #[test]
    fn a_column_called_value_goes_before_others() {
        assert_eq!(read(&["host", "Value", "note"]), [false, true, false]);
        assert_eq!(read(&["value", "value_2", "valued"]), [true, true, false]);
        assert_eq!(read(&["cpu", "memory"]), [true, true]);
    }

    #[test]
    fn what_is_no_number_is_a_gap_or_text() {
        assert_eq!(number(" 1.5e3 "), Some(1500.0));
        for gap in ["", "NaN", "NA", "null", "-", "inf"] {
            assert!(number(gap).is_some_and(f64::is_nan), "{gap}");
        }
        for text in ["web-1", "1,5", "2026-01-15"] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
