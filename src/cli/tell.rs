//! `anomalyd feedback`, `mute`, `unmute` and `mutes`: what people tell a running daemon.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Daemon, query};

#[derive(Args)]
#[command(after_help = FEEDBACK_EXAMPLES)]
pub(super) struct FeedbackArgs {
    /// The anomaly's id, as exporters write it.
    #[arg(value_name = "ID")]
    anomaly: String,
    /// It is normal: what resembles it is no anomaly any more.
    #[arg(long, required_unless_present = "forget", conflicts_with = "forget")]
    normal: bool,
    /// It is not normal after all: forget that somebody said so.
    #[arg(long)]
    forget: bool,
    #[command(flatten)]
    daemon: Daemon,
}

const FEEDBACK_EXAMPLES: &str = "\
Examples:
  anomalyd feedback 4vdd2zuxd6yyrq5m3p6s4vmlbpm3ckxa --normal
  anomalyd feedback 4vdd2zuxd6yyrq5m3p6s4vmlbpm3ckxa --forget

A spike or dip that was called normal is so at the same time of day, half an hour more or less, up to the same size;
an unusual course of values at any time. The three latest anomalies of every series are remembered.";

#[derive(Args)]
#[command(after_help = MUTE_EXAMPLES)]
pub(super) struct MuteArgs {
    /// Only series of this service; `*` stands for any text, here and below.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only series of this instance.
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Only series of this operation.
    #[arg(long, value_name = "NAME")]
    operation: Option<String>,
    /// Only series of this metric.
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Only series of this function: `rate`, `error_share`, `p99`.
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// Only this series, as `anomalyd series` shows it.
    #[arg(long, value_name = "SERIES")]
    series: Option<String>,
    /// For how long: `30m`, `2h`.
    #[arg(long = "for", value_name = "DURATION")]
    duration: String,
    /// Why: shown where somebody asks why there is nothing.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// In this environment. Needed where there are several.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
}

const MUTE_EXAMPLES: &str = "\
Examples:
  anomalyd mute --service checkout --for 2h --reason 'load test'
  anomalyd mute --operation 'GET /health*' --function p99 --for 1d
  anomalyd mutes
  anomalyd unmute 1

What is still abnormal at the end is told then.";

#[derive(Args)]
pub(super) struct UnmuteArgs {
    /// The mute's id, as `anomalyd mutes` shows it.
    id: u64,
    /// In this environment. Needed where there are several.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Args)]
pub(super) struct MutesArgs {
    /// Only of this environment.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    #[command(flatten)]
    daemon: Daemon,
}

pub(super) fn feedback(arguments: &FeedbackArgs) -> ExitCode {
    let verdict = if arguments.forget { "forget" } else { "normal" };
    let body = json!({ "anomaly": arguments.anomaly, "verdict": verdict });
    finish(arguments.daemon.ask("/feedback", Some(&body)).map(|answer| {
        let series = text(&answer, "series");
        if arguments.forget {
            format!("{series}: it is not normal any more\n")
        } else {
            format!("{series}: what resembles this is normal from now on\n")
        }
    }))
}

pub(super) fn mute(arguments: &MuteArgs) -> ExitCode {
    let given = [
        ("service", &arguments.service),
        ("instance", &arguments.instance),
        ("operation", &arguments.operation),
        ("metric", &arguments.metric),
        ("function", &arguments.function),
        ("series", &arguments.series),
    ];
    let named = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), Value::from(value.as_deref()?))));
    let body = json!({
        "match": named.collect::<Map<String, Value>>(),
        "for": arguments.duration,
        "reason": arguments.reason,
        "environment": arguments.environment,
    });
    finish(arguments.daemon.ask("/mute", Some(&body)).map(|answer| line(&answer)))
}

pub(super) fn unmute(arguments: &UnmuteArgs) -> ExitCode {
    let body = json!({ "id": arguments.id, "environment": arguments.environment });
    finish(arguments.daemon.ask("/unmute", Some(&body)).map(|_| format!("mute {} has ended\n", arguments.id)))
}

pub(super) fn mutes(arguments: &MutesArgs) -> ExitCode {
    let path = query("/mutes", &[("environment", arguments.environment.as_deref())]);
    finish(arguments.daemon.ask(&path, None).map(|answer| {
        let mutes = answer.get("mutes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if mutes.is_empty() { "nothing is muted by hand\n".to_owned() } else { mutes.iter().map(line).collect() }
    }))
}

/// `1 production: service checkout, until 2026-01-05T10:00:00.000Z: load test`.
fn line(mute: &Value) -> String {
    let id = mute.get("id").and_then(Value::as_u64).unwrap_or_default();
    let reason = mute.get("reason").and_then(Value::as_str).map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{id} {}: {}, until {}{reason}\n", text(mute, "environment"), text(mute, "what"), text(mute, "until"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn finish(said: Result<String, String>) -> ExitCode {
    match said {
        Ok(text) => super::print(&text),
        Err(error) => {
            super::tell(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mute_is_one_line() {
        let mute = json!({ "id": 3, "environment": "production", "what": "service checkout", "until": "2026-01-05T10:00:00.000Z", "reason": "load test" });
        assert_eq!(line(&mute), "3 production: service checkout, until 2026-01-05T10:00:00.000Z: load test\n");
    }
}
