//! Maintenance windows from an iCalendar file.

use chrono::{DateTime, TimeZone as _};
use icalendar::{Calendar, CalendarComponent, CalendarDateTime, Component, DatePerhapsTime, Event};
use rrule::{RRuleSet, Tz};

use super::schedule::{self, Schedule};
use crate::model::UnixNanos;
use crate::pipeline::TextFile;

/// Events of a file.
const MAX_EVENTS: usize = 10_000;
/// Nanoseconds of a day.
const DAY: u64 = 86_400 * UnixNanos::SECOND;

/// The windows in a file.
///
/// # Errors
/// A sentence: what cannot be read, and which event it is about.
pub(super) fn read(file: &TextFile) -> Result<Vec<Schedule>, String> {
    let path = file.path().display();
    let text = file.read().map_err(|error| format!("`{path}` cannot be read: {error}"))?;
    parse(&text).map_err(|error| format!("`{path}`: {error}"))
}

fn parse(text: &str) -> Result<Vec<Schedule>, String> {
    if !text.trim_start().to_ascii_uppercase().starts_with("BEGIN:VCALENDAR") {
        return Err("it is not an iCalendar file: expected `BEGIN:VCALENDAR` at its beginning".to_owned());
    }
    let calendar: Calendar = text.parse().map_err(|e: String| {
        format!("it is not an iCalendar file: {}", e.lines().next().unwrap_or("its structure is broken").trim())
    })?;
    let zone = calendar.get_timezone().and_then(zone);
    let events = calendar.components.iter().filter_map(|component| match component {
        CalendarComponent::Event(event) => Some(event),
        _ => None,
    });
    let mut schedules = Vec::new();
    for (number, event) in events.enumerate() {
        if number >= MAX_EVENTS {
            return Err(format!("it has more than {MAX_EVENTS} events"));
        }
        // What was called off is no window.
        if event.property_value("STATUS").is_some_and(|status| status.eq_ignore_ascii_case("CANCELLED")) {
            continue;
        }
        let read = window(event, zone);
        let called = event.get_summary().map_or_else(|| format!("event {}", number + 1), |summary| format!("event `{summary}`"));
        schedules.push(read.map_err(|error| format!("{called}: {error}"))?);
    }
    if schedules.is_empty() { Err("it has no event".to_owned()) } else { Ok(schedules) }
}

/// When an event happens.
fn window(event: &Event, zone: Option<Tz>) -> Result<Schedule, String> {
    let start = event.get_start().ok_or("it has no beginning that can be read (DTSTART)")?;
    let whole_day = matches!(start, DatePerhapsTime::Date(_));
    let begin = moment(&start, zone)?;
    let duration = match (event.get_end(), event.property_value("DURATION")) {
        (Some(end), _) => {
            let length = moment(&end, zone)?.signed_duration_since(begin).num_seconds();
            u64::try_from(length).ok().filter(|l| *l > 0).ok_or("it ends before it begins")?.saturating_mul(UnixNanos::SECOND)
        }
        (None, Some(text)) => {
            span(text).ok_or_else(|| format!("`{text}` is not a duration of RFC 5545: expected one such as `PT2H`"))?
        }
        (None, None) if whole_day => DAY,
        (None, None) => return Err("it has no end: expected DTEND or DURATION".to_owned()),
    };
    let mut lines: Vec<String> = Vec::new();
    for name in ["RRULE", "RDATE", "EXDATE"] {
        let properties = event.properties().get(name).into_iter().chain(event.multi_properties().get(name).into_iter().flatten());
        for property in properties {
            let zone = property.params().get("TZID").map_or_else(String::new, |zone| format!(";TZID={}", zone.value()));
            let date = property.params().get("VALUE").map_or_else(String::new, |kind| format!(";VALUE={}", kind.value()));
            lines.push(format!("{name}{date}{zone}:{}", property.value()));
        }
    }
    let set = RRuleSet::new(begin);
    let set = if lines.is_empty() {
        schedule::once(begin)
    } else {
        let set = set.set_from_string(&lines.join("\n")).map_err(|e| schedule::said(&e))?;
        if lines.iter().any(|line| line.starts_with("RRULE")) { set } else { set.rdate(begin) }
    };
    Ok(Schedule::new(schedule::check(set)?, duration))
}

/// When something is, in its own time zone, else in that of the calendar.
fn moment(at: &DatePerhapsTime, calendar: Option<Tz>) -> Result<DateTime<Tz>, String> {
    let (local, zone) = match at {
        DatePerhapsTime::DateTime(CalendarDateTime::Utc(at)) => return Ok(at.with_timezone(&Tz::UTC)),
        DatePerhapsTime::DateTime(CalendarDateTime::WithTimezone { date_time, tzid }) => {
            let zone =
                zone(tzid).ok_or_else(|| format!("`{tzid}` is not a known time zone: expected one such as `Europe/Berlin`"))?;
            (*date_time, zone)
        }
        DatePerhapsTime::DateTime(CalendarDateTime::Floating(local)) => {
            let zone = calendar.ok_or("its times have no time zone, and the calendar has none either (X-WR-TIMEZONE)")?;
            (*local, zone)
        }
        DatePerhapsTime::Date(date) => match calendar {
            None => return schedule::midnight(*date).ok_or_else(|| "its date is out of range".to_owned()),
            Some(zone) => (date.and_hms_opt(0, 0, 0).unwrap_or_default(), zone),
        },
    };
    zone.from_local_datetime(&local)
        .earliest()
        .ok_or_else(|| format!("there is no {local} in {}: clocks go forward then", zone.name()))
}

fn zone(name: &str) -> Option<Tz> {
    name.trim_matches('"').parse::<chrono_tz::Tz>().ok().map(Tz::from)
}

/// `P1DT2H30M` in nanoseconds.
fn span(text: &str) -> Option<u64> {
    let text = text.trim().strip_prefix('P')?;
    let (mut seconds, mut number, mut time) = (0u64, String::new(), false);
    for c in text.chars() {
        let unit = match (c, time) {
            ('0'..='9', _) => {
                number.push(c);
                continue;
            }
            ('T', false) => {
                time = true;
                continue;
            }
            ('W', false) => 604_800,
            ('D', false) => 86_400,
            ('H', true) => 3600,
            ('M', true) => 60,
            ('S', true) => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        number.clear();
    }
    (number.is_empty() && seconds > 0).then(|| seconds.checked_mul(UnixNanos::SECOND)).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::config::moment as at;
    use super::super::schedule::Windows;
    use super::*;

    fn calendar(events: &str) -> String {
        format!("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//test//EN\r\n{events}END:VCALENDAR\r\n")
            .replace('\n', "\r\n")
            .replace("\r\r", "\r")
    }

    fn event(lines: &str) -> String {
        format!("BEGIN:VEVENT\r\nUID:1\r\nSUMMARY:patch night\r\n{lines}END:VEVENT\r\n")
    }

    fn until(windows: &Windows, text: &str) -> Option<String> {
        let from = at(text).unwrap();
        windows.covering(from, from.plus(1)).map(UnixNanos::rfc3339)
    }

    #[test]
    fn events_of_a_calendar_are_windows() {
        let text = calendar(&format!(
            "{}{}{}{}",
            event(
                "DTSTART;TZID=Europe/Berlin:20260105T020000\nDTEND;TZID=Europe/Berlin:20260105T040000\nRRULE:FREQ=WEEKLY;BYDAY=MO\nEXDATE;TZID=Europe/Berlin:20260112T020000\n"
            ),
            event("DTSTART:20260220T100000Z\nDURATION:PT1H30M\n"),
            event("DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261227\n"),
            event("DTSTART:20260301T100000Z\nDURATION:PT1H\nSTATUS:CANCELLED\n"),
        ));
        let windows = Windows::new(parse(&text).unwrap());
        assert_eq!(until(&windows, "2026-01-05T02:59:00Z").as_deref(), Some("2026-01-05T03:00:00.000Z"));
        assert_eq!(until(&windows, "2026-01-12T02:00:00Z"), None, "an exception");
        assert_eq!(until(&windows, "2026-07-06T01:00:00Z").as_deref(), Some("2026-07-06T02:00:00.000Z"), "summer");
        assert_eq!(until(&windows, "2026-02-20T11:00:00Z").as_deref(), Some("2026-02-20T11:30:00.000Z"), "once");
        assert_eq!(until(&windows, "2026-12-26T23:59:00Z").as_deref(), Some("2026-12-27T00:00:00.000Z"), "whole days");
        assert_eq!(until(&windows, "2026-03-01T10:30:00Z"), None, "called off");
    }

    #[test]
    fn what_is_wrong_with_a_calendar_is_said_with_the_event() {
        let all = [
            String::new(),
            calendar(""),
            calendar(&event("DTEND:20260105T040000Z\n")),
            calendar(&event("DTSTART:20260105T020000Z\n")),
            calendar(&event("DTSTART:20260105T020000Z\nDTEND:20260105T010000Z\n")),
            calendar(&event("DTSTART:20260105T020000Z\nDURATION:2h\n")),
            calendar(&event("DTSTART:20260105T020000\nDURATION:PT2H\n")),
            calendar(&event("DTSTART;TZID=Mars/Olympus:20260105T020000\nDURATION:PT2H\n")),
            calendar(&event("DTSTART:20260105T020000Z\nDURATION:PT2H\nRRULE:FREQ=SOMETIMES\n")),
        ];
        let said: Vec<String> = all.iter().map(|text| parse(text).err().unwrap_or_else(|| "taken".to_owned())).collect();
        insta::assert_snapshot!(said.join("\n"));
    }
}
