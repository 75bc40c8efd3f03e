//! What can go wrong between us and a cluster, in sentences.

use std::time::Duration;

use serde_json::Value;

/// How much of an unexpected body is shown, in characters.
const EXCERPT: usize = 200;

/// What was asked of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node's URL, without credentials.
    pub node: String,
    /// `GET`, `POST`...
    pub method: &'static str,
    /// The path, without the query.
    pub path: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} /{} at {}", self.method, self.path.trim_start_matches('/'), self.node)
    }
}

/// An answer that says no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Elasticsearch's error type, if it was Elasticsearch that answered: `index_not_found_exception`.
    pub kind: Option<String>,
    /// Elasticsearch's reason with its causes, or the beginning of whatever came instead.
    pub reason: String,
    /// How long the answer asks to wait.
    pub retry_after: Option<Duration>,
}

/// Why a request has no answer that can be used. Its text names the node, the path, what came, and what to do;
/// it never holds credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The configuration cannot be used.
    #[error("{0}")]
    Config(String),
    /// No connection, or it broke before the answer was complete.
    #[error("{place}: {reason}{}", hint_for_connection(reason))]
    Connection {
        /// What was asked of whom.
        place: Box<Place>,
        /// What happened.
        reason: String,
        /// Whether the request has not left this machine, so that sending it again cannot do it twice.
        unsent: bool,
    },
    /// No complete answer in time.
    #[error("{place}: no complete answer within {}; check that the cluster is well, or raise `request_timeout`", humantime::format_duration(*.after))]
    Timeout {
        /// What was asked of whom.
        place: Box<Place>,
        /// How long was waited.
        after: Duration,
    },
    /// An answer that says no.
    #[error("{place}: {refusal}")]
    Refused {
        /// What was asked of whom.
        place: Box<Place>,
        /// The answer.
        refusal: Box<Refusal>,
    },
    /// An answer that says yes, but is not what Elasticsearch answers (HTML from a proxy).
    #[error("{place}: the answer is not what Elasticsearch answers ({detail}), it begins: {excerpt}")]
    Unexpected {
        /// What was asked of whom.
        place: Box<Place>,
        /// What does not fit.
        detail: String,
        /// The first characters of it.
        excerpt: String,
    },
    /// An answer that is larger than is ever read.
    #[error("{place}: the answer has {size} bytes or more, and at most {limit} are read; ask for smaller pages")]
    TooLarge {
        /// What was asked of whom.
        place: Box<Place>,
        /// Bytes of the answer, as far as it is known.
        size: u64,
        /// Bytes that are read at most.
        limit: u64,
    },
}

impl ClientError {
    /// The HTTP status, if the cluster or something before it said no.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.refusal().map(|r| r.status)
    }

    /// Elasticsearch's error type: `search_context_missing_exception`.
    #[must_use]
    pub fn error_type(&self) -> Option<&str> {
        self.refusal().and_then(|r| r.kind.as_deref())
    }

    /// Whether the same request may succeed later without anybody changing something.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Config(_) | Self::Unexpected { .. } | Self::TooLarge { .. } => false,
            Self::Connection { .. } | Self::Timeout { .. } => true,
            Self::Refused { refusal, .. } => retryable_status(refusal.status),
        }
    }

    /// Whether another node may answer at once what this one did not.
    pub(super) fn is_of_the_node(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Timeout { .. } => true,
            Self::Refused { refusal, .. } => matches!(refusal.status, 502..=504),
            _ => false,
        }
    }

    /// How long the cluster asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.refusal().and_then(|r| r.retry_after)
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

/// Whether a status says "not now" rather than "no".
#[must_use]
pub const fn retryable_status(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "status {}", self.status)?;
        if let Some(kind) = &self.kind {
            write!(f, " {kind}")?;
        }
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        if let Some(hint) = hint_for_status(self.status) {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

const fn hint_for_status(status: u16) -> Option<&'static str> {
    match status {
        401 => Some("check `api_key`, or `username` and `password`"),
        403 => Some("give the role of this key or user the privilege named above"),
        407 => Some("a proxy in between wants credentials; check `HTTPS_PROXY`, or add this host to `NO_PROXY`"),
        413 => Some("the request is larger than the cluster or a proxy before it accepts"),
        429 => Some("the cluster is overloaded"),
        _ => None,
    }
}

fn hint_for_connection(reason: &str) -> &'static str {
    if reason.contains("UnknownIssuer") {
        "; the certificate is signed by an authority that is not known here: set `ca_file` to the PEM file of that authority"
    } else if reason.contains("NotValidForName") {
        "; the certificate is for another name: use in `endpoints` the name that the certificate is for"
    } else if reason.contains("InvalidContentType") || reason.contains("corrupt message") {
        "; the node seems to speak plain HTTP: try `http://` in `endpoints`"
    } else {
        ""
    }
}

impl Refusal {
    /// Reads the body of an answer that says no. The body may be anything: Elasticsearch's JSON, a proxy's HTML,
    /// nothing.
    #[must_use]
    pub fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let error = serde_json::from_slice::<Value>(body).ok().and_then(|mut v| v.get_mut("error").map(Value::take));
        let (kind, reason) = match error {
            Some(Value::String(text)) => (None, excerpt(text.as_bytes())),
            Some(error @ Value::Object(_)) => (text_of(&error, "type"), reason_of(&error)),
            _ => (None, if body.is_empty() { String::new() } else { excerpt(body) }),
        };
        Self { status, kind, reason, retry_after }
    }
}

fn text_of(error: &Value, key: &str) -> Option<String> {
    error.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// An error object's reason, with its root cause and what caused it, each once:
/// `failed to parse field [a]: caused by illegal_argument_exception: ...`. At most some thousand characters.
#[must_use]
pub fn reason_of(error: &Value) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut add = |kind: Option<String>, reason: Option<String>| {
        let reason = reason.filter(|r| !r.is_empty());
        if let Some(text) = reason.map(|r| shortened(&r, 5 * EXCERPT))
            && !parts.iter().any(|p| p.ends_with(&text))
        {
            parts.push(match kind {
                Some(kind) if !parts.is_empty() => format!("caused by {kind}: {text}"),
                _ => text,
            });
        }
    };
    add(text_of(error, "type"), text_of(error, "reason"));
    for cause in error.get("root_cause").and_then(Value::as_array).into_iter().flatten().take(3) {
        add(text_of(cause, "type"), text_of(cause, "reason"));
    }
    for failed in error.get("failed_shards").and_then(Value::as_array).into_iter().flatten().take(1) {
        if let Some(reason) = failed.get("reason") {
            add(text_of(reason, "type"), text_of(reason, "reason"));
        }
    }
    let mut cause = error.get("caused_by");
    for _ in 0..5 {
        let Some(inner) = cause else { break };
        add(text_of(inner, "type"), text_of(inner, "reason"));
        cause = inner.get("caused_by");
    }
    parts.join(", ")
}

/// The beginning of a body, on one line and without control characters.
#[must_use]
pub fn excerpt(body: &[u8]) -> String {
    // Four bytes are enough for any character, and a body may be very long.
    let head = body.get(..body.len().min(8 * EXCERPT)).unwrap_or_default();
    let text = String::from_utf8_lossy(head);
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    shortened(&words.join(" "), EXCERPT)
}

fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
