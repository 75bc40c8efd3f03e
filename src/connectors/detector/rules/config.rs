//! The keys `rules`, `maintenance` and `deployments` of the detector's block.

use chrono::{DateTime, FixedOffset};
use schemars::JsonSchema;
use serde::Deserialize;

use super::super::Config;
use super::amount::Amount;
use super::matching::Match;
use super::{calendar, schedule};
use crate::config::Duration;
use crate::model::UnixNanos;
use crate::pipeline::{Problem, TextFile};

/// How many maintenance entries there may be.
const MAX_MAINTENANCE: usize = 64;
/// How many rules there may be.
const MAX_RULES: usize = 1000;

/// What is different for some series.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which series. Without it, all.
    #[serde(default)]
    pub r#match: Match,
    /// Which side of what was expected may have findings: `above`, `below` or `both`.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// How far a value must at least be from what was expected, in the series' unit or with one: `50ms`, `5%`, `0.05`.
    /// It counts only for series whose unit fits.
    #[serde(default)]
    pub min_absolute_deviation: Option<Amount>,
    /// How far a value must at least be from what was expected, as a share of it: 0.5 is 50 %.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1000.0))]
    pub min_relative_deviation: Option<f64>,
    /// How many samples (calls, records, points) must at least stand behind a value.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1e12))]
    pub min_samples: Option<f64>,
    /// As `threshold` of the detector.
    #[serde(default)]
    #[schemars(range(min = 0.5, max = 20.0))]
    pub threshold: Option<f64>,
    /// Findings are held back; `false` ends what an earlier rule has muted. What is still abnormal when `until` has
    /// passed is told then.
    #[serde(default)]
    pub mute: Option<bool>,
    /// Until when it is muted: `2026-12-31T18:00:00Z`. Without it, for good.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("examples" = ["2026-12-31T18:00:00Z"]))]
    pub until: Option<String>,
    /// Why: shown where somebody asks why there is nothing.
    #[serde(default)]
    pub reason: Option<String>,
}

/// A side of what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say all, and described variants would not be one enum in the schema")]
pub enum Direction {
    Above,
    Below,
    Both,
}

/// Windows of time in which findings of some series are held back. What is still abnormal when a window has passed is
/// told then.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// What it is called where somebody asks why there is nothing.
    #[serde(default)]
    pub name: Option<String>,
    /// When windows begin, as RFC 5545 has it: a line with `DTSTART` and its time zone, then lines with `RRULE`, `RDATE`
    /// or `EXDATE`. Needs `duration`.
    #[serde(default)]
    #[schemars(extend("examples" = ["DTSTART;TZID=Europe/Berlin:20260105T020000\nRRULE:FREQ=WEEKLY;BYDAY=MO"]))]
    pub schedule: Option<String>,
    /// How long a window lasts: 1m to 31d.
    #[serde(default)]
    pub duration: Option<Duration>,
    /// Instead of `schedule`: a file in the iCalendar format (`.ics`), whose events are the windows. A relative path
    /// starts from the folder the daemon is started in. The file is read at the start and at a reload.
    #[serde(default)]
    pub calendar: Option<TextFile>,
    /// Which series. Without it, all.
    #[serde(default)]
    pub r#match: Match,
    /// Whether what happens in the window is learnt as normal.
    #[serde(default)]
    pub learn: bool,
}

/// What happens around a new `service.version`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployments {
    /// For how long findings of a service are held back after a version of it was first seen beside or after another;
    /// what is still abnormal then is told. At most 6h.
    #[serde(default)]
    pub grace: Duration,
}

/// The moment that `text` names.
pub(super) fn moment(text: &str) -> Result<UnixNanos, String> {
    let time: DateTime<FixedOffset> = DateTime::parse_from_rfc3339(text.trim())
        .map_err(|_| format!("`{text}` is not a moment: expected one such as `2026-12-31T18:00:00Z`"))?;
    let nanos = time.timestamp_nanos_opt().and_then(|n| u64::try_from(n).ok());
    nanos.map(UnixNanos).ok_or_else(|| format!("`{text}` is out of range: expected a moment from 1970 to 2262"))
}

/// What the schema cannot say.
pub(in super::super) fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |path: &[&str], message: String, hint: Option<&str>, fatal: bool| {
        let path = path.iter().map(ToString::to_string).collect();
        problems.push(Problem { path, message, hint: hint.map(str::to_owned), fatal });
    };
    if config.rules.len() > MAX_RULES {
        problem(&["rules"], format!("{} rules are too many: expected at most {MAX_RULES}", config.rules.len()), None, true);
    }
    for (i, rule) in config.rules.iter().enumerate() {
        let i = i.to_string();
        if let Some(Err(message)) = rule.until.as_deref().map(moment) {
            problem(&["rules", &i, "until"], message, None, true);
        }
        if rule.until.is_some() && rule.mute != Some(true) {
            problem(&["rules", &i, "until"], "`until` has no effect without `mute: true`".to_owned(), None, true);
        }
        if rule.mute == Some(true) && rule.reason.is_none() {
            let hint = "write `reason: ...`: it is shown where somebody asks why there is nothing";
            problem(&["rules", &i, "mute"], "muted without a reason".to_owned(), Some(hint), false);
        }
        let changes = rule.direction.is_some()
            || rule.min_absolute_deviation.is_some()
            || rule.min_relative_deviation.is_some()
            || rule.min_samples.is_some()
            || rule.threshold.is_some()
            || rule.mute.is_some();
        if !changes {
            let hint =
                "add one of `direction`, `min_absolute_deviation`, `min_relative_deviation`, `min_samples`, `threshold`, `mute`";
            problem(&["rules", &i], "this rule changes nothing".to_owned(), Some(hint), true);
        }
        if let Some(Err(message)) = rule.min_absolute_deviation.as_ref().map(Amount::read) {
            problem(&["rules", &i, "min_absolute_deviation"], message, None, true);
        }
        for (key, value, low, high) in [
            ("min_relative_deviation", rule.min_relative_deviation, 0.0, 1000.0),
            ("min_samples", rule.min_samples, 0.0, 1e12),
            ("threshold", rule.threshold, 0.5, 20.0),
        ] {
            if let Some(value) = value.filter(|v| !(low..=high).contains(v)) {
                problem(&["rules", &i, key], format!("{value} is out of range: expected {low} to {high}"), None, true);
            }
        }
    }
    if config.maintenance.len() > MAX_MAINTENANCE {
        let message = format!("{} entries are too many: expected at most {MAX_MAINTENANCE}", config.maintenance.len());
        problem(&["maintenance"], message, Some("a calendar holds many windows in one entry"), true);
    }
    for (i, entry) in config.maintenance.iter().enumerate() {
        let i = i.to_string();
        let at = |key: &'static str| ["maintenance".to_owned(), i.clone(), key.to_owned()];
        let (minute, month) = (std::time::Duration::from_secs(60), std::time::Duration::from_secs(31 * 86_400));
        let mut wrong = |key: &'static str, message: String, hint: Option<&str>| {
            let path = at(key);
            problem(&path.each_ref().map(String::as_str), message, hint, true);
        };
        match (&entry.schedule, &entry.calendar) {
            (Some(text), None) => {
                if let Err(message) = schedule::parse(text) {
                    wrong("schedule", message, None);
                }
                match entry.duration {
                    None => wrong("schedule", "it is not said how long a window lasts".to_owned(), Some("add `duration: 2h`")),
                    Some(duration) if duration.get() < minute || duration.get() > month => {
                        wrong("duration", format!("{duration} is out of range: expected 1m to 31d"), None);
                    }
                    Some(_) => {}
                }
            }
            (None, Some(path)) => {
                if let Err(message) = calendar::read(path) {
                    wrong("calendar", message, None);
                }
                if entry.duration.is_some() {
                    wrong("duration", "the events of a calendar have ends of their own".to_owned(), Some("leave `duration` out"));
                }
            }
            (Some(_), Some(_)) => {
                wrong("calendar", "there is a `schedule` too: expected one of the two".to_owned(), Some("write two entries"));
            }
            (None, None) => {
                let path = ["maintenance", i.as_str()];
                problem(&path, "it is not said when: expected `schedule` and `duration`, or `calendar`".to_owned(), None, true);
            }
        }
    }
    if config.deployments.grace.get() > std::time::Duration::from_secs(6 * 3600) {
        let message = format!("{} is too long: expected at most 6h", config.deployments.grace);
        problem(&["deployments", "grace"], message, None, true);
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let config = json!({
            "rules": [
                { "match": { "service": "a" } },
                { "mute": true, "until": "tomorrow" },
                { "direction": "above", "until": "2026-12-31T18:00:00Z" },
                { "min_absolute_deviation": "soon" },
                { "min_relative_deviation": -1.0, "threshold": 99.0, "min_samples": -1.0 },
            ],
            "maintenance": [
                {},
                { "schedule": "every monday" },
                { "schedule": "DTSTART:20260105T020000Z\nRRULE:FREQ=DAILY", "duration": "5s" },
                { "calendar": "nowhere.ics", "duration": "1h" },
                { "calendar": "nowhere.ics", "schedule": "DTSTART:20260105T020000Z\nRRULE:FREQ=DAILY" },
            ],
            "deployments": { "grace": "1d" },
        });
        let problems = check(&serde_json::from_value(config).unwrap());
        let line = |p: &Problem| {
            let hint = p.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
            format!("{}{}: {}{hint}", if p.fatal { "" } else { "note: " }, p.path.join("."), p.message)
        };
        insta::assert_snapshot!(problems.iter().map(line).collect::<Vec<_>>().join("\n"));
    }
}
