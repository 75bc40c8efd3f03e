//! Windows of time by the recurrence rules of RFC 5545.
//!
//! Occurrences are expanded by the `rrule` crate in blocks of two months, when a block is first asked for, and never
//! more than a fixed number of them; so a rule that never ends costs no more than one that does.

use std::cell::RefCell;
use std::collections::VecDeque;

use chrono::{DateTime, TimeZone as _};
use rrule::{RRuleSet, Tz};

use crate::model::UnixNanos;

/// Nanoseconds in one block of expanded windows.
const BLOCK: u64 = 61 * 86_400 * UnixNanos::SECOND;
/// Blocks that are kept.
const BLOCKS: usize = 4;
/// Occurrences of one rule, from its beginning on, that are looked at.
const MOST: usize = 100_000;

/// From and to, in nanoseconds since 1970; to is not part of it.
pub(super) type Window = (u64, u64);

/// When something happens, again and again.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    set: RRuleSet,
    /// Nanoseconds.
    duration: u64,
}

/// Windows of several schedules that belong together.
#[derive(Clone, Debug, Default)]
pub(super) struct Windows {
    schedules: Vec<Schedule>,
    /// The latest blocks that were asked for, each with its windows in ascending order.
    blocks: RefCell<VecDeque<(u64, Vec<Window>)>>,
}

/// Reads a schedule.
///
/// # Errors
/// A sentence: what is wrong with it.
pub(super) fn parse(text: &str) -> Result<RRuleSet, String> {
    const EXAMPLE: &str = "`DTSTART;TZID=Europe/Berlin:20260105T020000`";
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let Some(start) = lines.iter().find(|line| line.to_ascii_uppercase().starts_with("DTSTART")) else {
        return Err(format!(
            "there is no line with DTSTART, which says when the first window begins: expected one such as {EXAMPLE}"
        ));
    };
    let upper = start.to_ascii_uppercase();
    if !upper.contains("TZID=") && !upper.ends_with('Z') {
        return Err(format!(
            "`{start}` has no time zone: expected one such as {EXAMPLE}, or a `Z` at the end for UTC; else it would depend on the machine"
        ));
    }
    if !lines.iter().any(|line| ["RRULE", "RDATE"].iter().any(|name| line.to_ascii_uppercase().starts_with(name))) {
        return Err("there is no line with RRULE or RDATE, which say when windows begin: expected one such as `RRULE:FREQ=WEEKLY;BYDAY=MO`".to_owned());
    }
    let set: RRuleSet = lines.join("\n").parse().map_err(|e: rrule::RRuleError| said(&e))?;
    check(set)
}

/// Refuses what has too many occurrences.
pub(super) fn check(set: RRuleSet) -> Result<RRuleSet, String> {
    use rrule::Frequency::{Minutely, Secondly};
    if set.get_rrule().iter().any(|rule| matches!(rule.get_freq(), Secondly | Minutely)) {
        return Err("windows that begin every minute or second are no windows: expected FREQ=HOURLY or rarer".to_owned());
    }
    let set = set.limit();
    let begin = set.get_dt_start().timestamp();
    let years = 10 * 366 * 86_400;
    if set.into_iter().take_while(|at| at.timestamp() < begin + years).nth(MOST).is_some() {
        return Err(format!("there are more than {MOST} windows in ten years: expected rarer ones"));
    }
    Ok(set)
}

/// What the library says, as a sentence of ours.
pub(super) fn said(error: &rrule::RRuleError) -> String {
    let text = error.to_string();
    let text = text.split_once("error: ").map_or(text.as_str(), |(_, rest)| rest);
    let text = text.split(". That should not").next().unwrap_or(text);
    let mut letters = text.chars();
    let first: String = letters.next().map(|c| c.to_lowercase().collect()).unwrap_or_default();
    format!("it is not a schedule of RFC 5545: {first}{}", letters.as_str().trim_end_matches('.'))
}

impl Schedule {
    pub(super) const fn new(set: RRuleSet, duration: u64) -> Self {
        Self { set, duration }
    }

    /// Windows that touch the time between `from` and `to`.
    fn expand(&self, from: u64, to: u64, windows: &mut Vec<Window>) {
        let occurrences = self.set.into_iter().take(MOST).map_while(nanos).take_while(|at| *at < to);
        let touching = occurrences.map(|at| (at, at.saturating_add(self.duration))).filter(|(_, end)| *end > from);
        windows.extend(touching);
    }
}

/// Nanoseconds since 1970: 0 for what is earlier, `None` for what is too late to matter.
fn nanos(at: DateTime<Tz>) -> Option<u64> {
    u64::try_from(at.timestamp().max(0)).ok()?.checked_mul(UnixNanos::SECOND)
}

impl Windows {
    pub(super) fn new(schedules: Vec<Schedule>) -> Self {
        Self { schedules, blocks: RefCell::default() }
    }

    /// When the windows end that something from `from` to `to` (not part of it) falls into, at least in part; windows
    /// that follow each other without a break are one.
    pub(super) fn covering(&self, from: UnixNanos, to: UnixNanos) -> Option<UnixNanos> {
        let block = from.0 / BLOCK;
        let mut blocks = self.blocks.borrow_mut();
        if let Some(place) = blocks.iter().position(|(known, _)| *known == block) {
            // What is asked for most is at the front.
            blocks.swap(0, place);
        } else {
            blocks.truncate(BLOCKS - 1);
            blocks.push_front((block, self.expand(block)));
        }
        let (_, windows) = blocks.front()?;
        let mut end = None;
        for (begin, until) in windows {
            if *until > from.0 && end.map_or(*begin < to.0, |end| *begin <= end) {
                end = Some(end.unwrap_or(0).max(*until));
            }
        }
        end.map(UnixNanos)
    }

    /// The windows that touch a block or the one after it, as something may begin in one and end in the next.
    fn expand(&self, block: u64) -> Vec<Window> {
        let (from, to) = (block.saturating_mul(BLOCK), (block + 2).saturating_mul(BLOCK));
        let mut windows = Vec::new();
        self.schedules.iter().for_each(|schedule| schedule.expand(from, to, &mut windows));
        windows.sort_unstable();
        windows
    }
}

/// A moment of one time zone as a start of an [`RRuleSet`].
pub(super) fn once(at: DateTime<Tz>) -> RRuleSet {
    RRuleSet::new(at).rdate(at)
}

/// Midnight in UTC, for events of whole days.
pub(super) fn midnight(date: chrono::NaiveDate) -> Option<DateTime<Tz>> {
    Tz::UTC.from_local_datetime(&date.and_hms_opt(0, 0, 0)?).single()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600 * UnixNanos::SECOND;

    fn windows(text: &str, hours: u64) -> Windows {
        Windows::new(vec![Schedule::new(parse(text).unwrap(), hours * HOUR)])
    }

    fn at(text: &str) -> UnixNanos {
        super::super::config::moment(text).unwrap()
    }

    /// When the window ends that the minute from `text` on falls into.
    fn until(windows: &Windows, text: &str) -> Option<String> {
        let from = at(text);
        windows.covering(from, from.plus(60 * UnixNanos::SECOND)).map(UnixNanos::rfc3339)
    }

    #[test]
    fn a_window_is_at_the_same_time_of_day_in_summer_and_in_winter() {
        let nightly = windows("DTSTART;TZID=Europe/Berlin:20260101T020000\nRRULE:FREQ=WEEKLY;BYDAY=MO", 2);
        assert_eq!(until(&nightly, "2026-01-05T01:00:00Z").as_deref(), Some("2026-01-05T03:00:00.000Z"), "winter: UTC+1");
        assert_eq!(until(&nightly, "2026-01-05T00:58:59Z"), None);
        assert_eq!(until(&nightly, "2026-01-05T03:00:00Z"), None);
        assert_eq!(until(&nightly, "2026-07-06T00:00:00Z").as_deref(), Some("2026-07-06T02:00:00.000Z"), "summer: UTC+2");
        assert_eq!(until(&nightly, "2026-07-06T02:30:00Z"), None);
        assert_eq!(until(&nightly, "2026-07-07T00:30:00Z"), None, "a Tuesday");
    }

    #[test]
    fn the_hour_that_does_not_exist_and_the_one_that_comes_twice_have_a_window_each() {
        // Clocks in Berlin go from 02:00 to 03:00 on 29 March and from 03:00 back to 02:00 on 25 October 2026.
        let nightly = windows("DTSTART;TZID=Europe/Berlin:20260301T023000\nRRULE:FREQ=DAILY", 1);
        for (day, from, to) in [
            ("spring", "2026-03-28T20:00:00Z", "2026-03-29T20:00:00Z"),
            ("autumn", "2026-10-24T20:00:00Z", "2026-10-25T20:00:00Z"),
        ] {
            let (from, to) = (at(from).0, at(to).0);
            let minutes = (from..to).step_by(60 * UnixNanos::SECOND as usize);
            let covered = minutes.filter(|m| nightly.covering(UnixNanos(*m), UnixNanos(m + 1)).is_some()).count();
            assert!((60..=120).contains(&covered), "{day}: {covered} minutes");
        }
    }

    #[test]
    fn windows_without_a_break_are_one_and_exceptions_count() {
        let daily = windows("DTSTART:20260101T000000Z\nRRULE:FREQ=DAILY;COUNT=3\nEXDATE:20260103T000000Z", 24);
        assert_eq!(until(&daily, "2026-01-01T12:00:00Z").as_deref(), Some("2026-01-03T00:00:00.000Z"));
        assert_eq!(until(&daily, "2026-01-03T12:00:00Z"), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused_with_a_sentence() {
        let refused: Vec<String> = [
            "",
            "every monday",
            "DTSTART:20260105T020000\nRRULE:FREQ=WEEKLY",
            "DTSTART;TZID=Europe/Berlin:20260105T020000",
            "DTSTART;TZID=Mars/Olympus:20260105T020000\nRRULE:FREQ=WEEKLY",
            "DTSTART:20260105T020000Z\nRRULE:FREQ=FORTNIGHTLY",
            "DTSTART:20260105T020000Z\nRRULE:FREQ=MINUTELY",
            "DTSTART:20260105T020000Z\nRRULE:FREQ=HOURLY;BYMINUTE=0,30",
            "DTSTART:20260105T020000Z\nRRULE:FREQ=DAILY;UNTIL=20250101T000000Z",
        ]
        .iter()
        .map(|text| match parse(text) {
            Ok(_) => format!("{text:?}: taken"),
            Err(error) => format!("{text:?}: {error}"),
        })
        .collect();
        insta::assert_snapshot!(refused.join("\n"));
    }

    #[test]
    fn a_rule_that_never_happens_ends() {
        let never = windows("DTSTART:20260105T020000Z\nRRULE:FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", 1);
        assert_eq!(until(&never, "2026-06-01T00:00:00Z"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_daily_window_covers_its_share_of_any_day_in_utc(day in 0u64..20_000, hour in 0u64..23, hours in 1u64..12) {
            let text = format!("DTSTART:19700101T{hour:02}0000Z\nRRULE:FREQ=DAILY");
            let daily = windows(&text, hours);
            let begin = (day + 1) * 24 * HOUR;
            let covered = (0..24u64).filter(|h| {
                let from = begin + h * HOUR;
                daily.covering(UnixNanos(from), UnixNanos(from + 1)).is_some()
            });
            prop_assert_eq!(covered.count() as u64, hours);
        }

        #[test]
        fn no_text_is_too_strange_to_refuse(text in "(DTSTART|RRULE|EXDATE|[;:=,TZ0-9A-Z\\n]){0,40}") {
            let _ = parse(&text);
        }
    }
}
