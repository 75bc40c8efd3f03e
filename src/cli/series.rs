//! `anomalyd series`: what a running daemon watches, and why there is nothing to tell.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use clap::Args;
use serde_json::Value;

use super::Format;
use super::client::{Daemon, query};

/// Rows of one request.
const PAGE: usize = 1000;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SeriesArgs {
    #[command(flatten)]
    daemon: Daemon,
    /// Only of this environment.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only of this service; `*` stands for any text.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only series whose name contains this, in any case.
    #[arg(long, value_name = "TEXT")]
    contains: Option<String>,
    /// Only series in this state.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// How many series are shown at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    limit: u64,
    /// How they are written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

const EXAMPLES: &str = "\
Examples:
  anomalyd series                                    everything that is watched, and where it stands
  anomalyd series --state incident
  anomalyd series --contains checkout --format json | jq '.series[].reason'

States; a series is in the first that holds:
  muted        by a rule of the configuration or by somebody; its reason says until when
  maintenance  in a maintenance window
  deployment   in the grace period of a new version
  silent       no data has come for a while
  incident     something was found: what is not clearly worse is not told again
  warming      still learning; its reason says until when
  training     enough was seen, and its first model is being trained
  sparse       mostly without a value: too few samples
  normal       nothing unusual";

pub(super) fn run(arguments: &SeriesArgs) -> ExitCode {
    let answer = match fetch(arguments) {
        Ok(answer) => answer,
        Err(error) => {
            super::tell(&format!("error: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    match arguments.format {
        Format::Json => super::print(&format!("{answer:#}\n")),
        Format::Text => super::print(&table(&answer, width())),
    }
}

/// All pages up to the limit, as one answer.
fn fetch(arguments: &SeriesArgs) -> Result<Value, String> {
    let wanted = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    let mut rows = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let limit = (wanted - rows.len()).min(PAGE).to_string();
        let path = query(
            "/series",
            &[
                ("environment", arguments.environment.as_deref()),
                ("service", arguments.service.as_deref()),
                ("contains", arguments.contains.as_deref()),
                ("state", arguments.state.as_deref()),
                ("limit", Some(&limit)),
                ("after", after.as_deref()),
            ],
        );
        let mut answer = arguments.daemon.ask(&path, None)?;
        let page = answer.get_mut("series").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
        let empty = page.is_empty();
        rows.extend(page);
        after = answer.get("next").and_then(Value::as_str).map(str::to_owned);
        if after.is_none() || empty || rows.len() >= wanted {
            if let Some(answer) = answer.as_object_mut() {
                answer.insert("series".to_owned(), Value::from(rows));
            }
            return Ok(answer);
        }
    }
}

/// Of the terminal; `None` where the reader is a program.
fn width() -> Option<usize> {
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    std::io::stdout().is_terminal().then_some(width).flatten()
}

fn style(state: &str) -> Style {
    let colour = |colour: AnsiColor| Style::new().fg_color(Some(colour.into()));
    match state {
        "incident" => colour(AnsiColor::Red).bold(),
        "silent" | "sparse" => colour(AnsiColor::Yellow),
        "warming" | "training" => colour(AnsiColor::Cyan),
        "muted" | "maintenance" | "deployment" => colour(AnsiColor::Magenta),
        _ => colour(AnsiColor::Green),
    }
}

/// What is written for people: one line per series where it fits into `width`, else its reason below it.
fn table(answer: &Value, width: Option<usize>) -> String {
    let text = |row: &Value, key: &str| row.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let rows = answer.get("series").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut out = String::new();
    let longest = |key: &str| rows.iter().map(|row| text(row, key).chars().count()).max().unwrap_or(0);
    let (states, names) = (longest("state"), longest("series").min(width.map_or(usize::MAX, |w| w / 2)));
    let mut place = String::new();
    for row in rows {
        let (state, series, reason) = (text(row, "state"), text(row, "series"), text(row, "reason"));
        let here = format!("{} {}", text(row, "environment"), text(row, "detector"));
        if here != place {
            let bold = Style::new().bold();
            let gap = if place.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{bold}{here}{bold:#}");
            place = here;
        }
        let (style, reset) = (style(&state), style(&state).render_reset());
        let line = format!("  {style}{state:states$}{reset}  {series:names$}");
        let taken = 2 + states + 2 + series.chars().count().max(names) + 2;
        if width.is_none_or(|width| taken + reason.chars().count() <= width) {
            let _ = writeln!(out, "{line}  {reason}");
        } else {
            let _ = writeln!(out, "{}", line.trim_end());
            let indent = 4 + states;
            for part in wrapped(&reason, width.unwrap_or(usize::MAX).saturating_sub(indent).max(20)) {
                let _ = writeln!(out, "{:indent$}{part}", "");
            }
        }
    }
    if !rows.is_empty() {
        out.push('\n');
    }
    out.push_str(&summary(answer, rows.len()));
    out
}

/// How many series are in which state, and how many are not shown.
fn summary(answer: &Value, shown: usize) -> String {
    let states = answer.get("states").and_then(Value::as_object);
    let counts: Vec<(&str, u64)> =
        states.into_iter().flatten().map(|(state, count)| (state.as_str(), count.as_u64().unwrap_or(0))).collect();
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    if all == 0 {
        return "no series: nothing has come yet that is measured and matches; `/metrics` tells what the receivers took in\n"
            .to_owned();
    }
    let counts: Vec<String> =
        counts.iter().map(|(state, count)| format!("{}{count} {state}{:#}", style(state), style(state))).collect();
    let more = answer.get("next").is_some_and(|next| !next.is_null());
    let more = if more { format!("; {shown} are shown, --limit shows more") } else { String::new() };
    format!("{all} series: {}{more}\n", counts.join(", "))
}

/// In lines of at most `width` characters, where words allow it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_table_says_where_every_series_stands() {
        let row = |environment: &str, state: &str, series: &str, reason: &str| json!({ "environment": environment, "detector": "detector", "state": state, "series": series, "reason": reason });
        let answer = json!({
            "series": [
                row("production", "warming", "checkout POST /pay (server): span p99", "100 of 240 values seen: ready in about 2.33 h"),
                row("production", "normal", "cart: queue mean", "52, expected 51 (usual 45 to 60); score 0.31 of 1.55 needed"),
                row("staging", "muted", "cart: queue mean", "muted by rule 1 of the configuration, for good: known"),
            ],
            "states": { "warming": 1, "normal": 12, "muted": 1 },
            "next": "production/detector|x",
        });
        let none = json!({ "series": [], "states": {}, "next": null });
        let all = [table(&answer, None), table(&answer, Some(70)), table(&none, None)].map(|t| plain(&t));
        insta::assert_snapshot!(all.join("----\n"));
    }
}
