//! What people ask a detector and tell it, from outside of the pipelines.
//!
//! A request is given to all shards between the same two feeds, so that what it changes changes everywhere at the
//! same moment of the input.

use detection::Series;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::anomaly::Finder;
use super::super::core::Core;
use super::matching::{self, Match};
use super::standing::{self, Row, STATES, States};
use crate::config::Duration;
use crate::model::{UnixNanos, Window};
use crate::pipeline::Refusal;
use crate::text::closest;

/// What a detector answers.
pub(in super::super) const SUBJECTS: &[&str] = &["series", "mutes", "mute", "unmute", "feedback"];

/// Rows of one answer.
const MOST_ROWS: usize = 1000;
/// The longest mute.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(366 * 86_400);

/// A request, understood.
#[derive(Clone, Debug)]
pub(in super::super) enum Request {
    Series(Filter),
    Mutes(UnixNanos),
    Mute { r#match: Match, nanos: u64, reason: Option<String>, now: UnixNanos },
    Unmute(u64),
    Feedback { anomaly: String, verdict: Said },
}

/// Which series are wanted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Filter {
    service: Option<String>,
    contains: Option<String>,
    state: Option<String>,
    limit: Option<usize>,
    /// The cursor of the last row of the page before.
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MuteBody {
    #[serde(default)]
    r#match: Match,
    series: Option<String>,
    r#for: Duration,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnmuteBody {
    id: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedbackBody {
    anomaly: String,
    verdict: Said,
}

/// What was said about an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum Said {
    Normal,
    Forget,
}

/// The answer of one shard.
#[derive(Clone, Debug)]
pub(in super::super) enum Part {
    Series {
        rows: Vec<Row>,
        states: States,
    },
    /// All shards say the same.
    Said(Result<Value, Refusal>),
    /// The series that the anomaly was about, and whether there was something to do; `None` in all shards but one.
    Feedback(Option<(String, bool)>),
}

impl Request {
    /// Whether it changes something; else it only asks.
    pub(in super::super) const fn changes(&self) -> bool {
        match self {
            Self::Series(_) | Self::Mutes(_) => false,
            Self::Mute { .. } | Self::Unmute(_) | Self::Feedback { .. } => true,
        }
    }

    /// Understands a request; the clock shows `now`.
    pub(in super::super) fn read(subject: &str, body: Value, now: UnixNanos) -> Result<Self, Refusal> {
        match subject {
            "series" => {
                let filter: Filter = read(body)?;
                if let Some(state) = filter.state.as_deref().filter(|state| !STATES.contains(state)) {
                    let hint = closest(state, STATES).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                    let all = STATES.join(", ");
                    return Err(Refusal::invalid(format!("`{state}` is not a state: expected one of {all}{hint}")));
                }
                Ok(Self::Series(filter))
            }
            "mutes" => Ok(Self::Mutes(now)),
            "mute" => {
                let MuteBody { mut r#match, series, r#for: length, reason } = read(body)?;
                r#match.series = series.or(r#match.series);
                if length.get() > LONGEST || length.get().is_zero() {
                    return Err(Refusal::invalid(format!("`for`: {length} is out of range: expected up to 366d")));
                }
                if r#match == Match::default() {
                    let message = "it is not said what to mute: expected `series`, or `match` with at least one key; \
                                   `{\"match\": {\"service\": \"*\"}}` mutes everything";
                    return Err(Refusal::invalid(message.to_owned()));
                }
                Ok(Self::Mute { r#match, nanos: length.nanos(), reason, now })
            }
            "unmute" => Ok(Self::Unmute(read::<UnmuteBody>(body)?.id)),
            "feedback" => {
                let FeedbackBody { anomaly, verdict } = read(body)?;
                Ok(Self::Feedback { anomaly, verdict })
            }
            other => Err(Refusal::not_found(format!("a detector knows nothing about `{other}`"))),
        }
    }

    /// How many rows are wanted.
    fn limit(filter: &Filter) -> usize {
        filter.limit.unwrap_or(100).clamp(1, MOST_ROWS)
    }
}

fn read<T: DeserializeOwned>(body: Value) -> Result<T, Refusal> {
    serde_json::from_value(body).map_err(|e| Refusal::invalid(e.to_string()))
}

/// What a shard answers.
pub(in super::super) fn answer(core: &mut Core, request: &Request) -> Part {
    match request {
        Request::Series(filter) => series(core, filter),
        Request::Mutes(now) => {
            let all = core.quieting.saved.mutes.all().iter().filter(|mute| mute.until > *now);
            Part::Said(Ok(json!({ "mutes": all.map(told).collect::<Vec<_>>() })))
        }
        Request::Mute { r#match, nanos, reason, now } => {
            let added = core.quieting.saved.mutes.add(r#match, *now, *nanos, reason.clone());
            Part::Said(added.map(told).map_err(Refusal::invalid))
        }
        Request::Unmute(id) => {
            let ended = core.quieting.saved.mutes.end(*id);
            let unknown = || Refusal::not_found(format!("there is no mute {id}: `GET /mutes` lists those that there are"));
            Part::Said(if ended { Ok(json!({ "ended": id })) } else { Err(unknown()) })
        }
        Request::Feedback { anomaly, verdict } => Part::Feedback(feedback(core, anomaly, *verdict)),
    }
}

fn told(mute: &super::mutes::Mute) -> Value {
    let r#match = mute.r#match.get();
    json!({
        "id": mute.id,
        "what": r#match.words(),
        "match": r#match,
        "from": mute.from.rfc3339(),
        "until": mute.until.rfc3339(),
        "reason": mute.reason,
    })
}

fn series(core: &Core, filter: &Filter) -> Part {
    let contains = filter.contains.as_deref().map(str::to_lowercase);
    let mut states = States::new();
    let mut found = Vec::new();
    for view in standing::views(core) {
        if filter.service.as_deref().is_some_and(|pattern| !matching::glob(pattern, view.service()))
            || contains.as_deref().is_some_and(|part| !view.series().to_lowercase().contains(part))
        {
            continue;
        }
        let state = view.state();
        *states.entry(state).or_default() += 1;
        if filter.state.as_deref().is_none_or(|wanted| wanted == state) {
            let cursor = view.cursor();
            if filter.after.as_deref().is_none_or(|after| cursor.as_str() > after) {
                found.push((cursor, view));
            }
        }
    }
    // One more than is shown tells that there are more.
    found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let rows = found.iter().take(Request::limit(filter) + 1).map(|(_, view)| view.row()).collect();
    Part::Series { rows, states }
}

/// The series that `anomaly` is about, and whether there was something to do.
fn feedback(core: &mut Core, anomaly: &str, said: Said) -> Option<(String, bool)> {
    let bucket = core.settings.timing.bucket;
    let finder = Finder { environment: &core.settings.environment, name: &core.settings.name, bucket };
    let mut found = None;
    'groups: for (key, group) in core.groups.iter() {
        for (place, function) in key.kind.functions().iter().enumerate() {
            let Some(series) = group.series_at(place) else { continue };
            let is_meant = |time: f64| {
                // Whole buckets: a float holds their seconds exactly.
                let start = UnixNanos::from_secs(time as u64);
                finder.id("", key, function.as_str(), Some(Window { start, end: start.plus(bucket) })) == anomaly
            };
            if let Some(time) = series.recent().map(detection::Lesson::time).find(|time| is_meant(*time)) {
                found = Some((key.clone(), place, *function, time));
                break 'groups;
            }
        }
    }
    let (key, place, function, time) = found?;
    let series = core.groups.change(&key)?.series_mut(place)?;
    Some((matching::series(&key, function), apply(series, time, said)))
}

fn apply(series: &mut Series, time: f64, said: Said) -> bool {
    match said {
        Said::Normal => series.teach(time),
        Said::Forget => series.forget(time),
    }
}

/// One answer of those of all shards.
pub(in super::super) fn gather(request: &Request, parts: Vec<Part>) -> Result<Value, Refusal> {
    let (mut all, mut states, mut known, mut said) = (Vec::new(), States::new(), None, None);
    for part in parts {
        match part {
            Part::Series { rows, states: counted } => {
                all.extend(rows);
                counted.into_iter().for_each(|(state, count)| *states.entry(state).or_default() += count);
            }
            Part::Said(answer) => said = Some(answer),
            Part::Feedback(found) => known = known.or(found),
        }
    }
    match (request, said) {
        (Request::Series(filter), _) => {
            all.sort_unstable_by(|a: &Row, b| a.cursor.cmp(&b.cursor));
            let limit = Request::limit(filter);
            let next = (all.len() > limit).then(|| all.get(limit - 1).map(|row| row.cursor.clone())).flatten();
            all.truncate(limit);
            Ok(json!({ "series": all, "states": states, "next": next }))
        }
        (Request::Feedback { anomaly, verdict }, _) => match (known, verdict) {
            (Some((series, true)), _) => Ok(json!({ "anomaly": anomaly, "series": series, "verdict": match verdict {
                Said::Normal => "normal",
                Said::Forget => "forget",
            } })),
            (Some((series, false)), _) => {
                Err(Refusal::invalid(format!("`{anomaly}` of {series} was not called normal: there is nothing to forget")))
            }
            (None, _) => Err(Refusal::not_found(format!(
                "the anomaly `{anomaly}` is not known (any more): the {} latest of every series are remembered",
                detection::MAX_RECENT
            ))),
        },
        (_, Some(said)) => said,
        (_, None) => Err(Refusal::unavailable("the detector is stopping".to_owned())),
    }
}
