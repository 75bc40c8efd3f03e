//! What a client is told, in the words of gRPC and of HTTP.
//!
//! Source: OTLP specification, "Failures" and "Partial Success". Only `overloaded` may be sent again: clients drop
//! at once what was refused in any other way, and show the message to a person.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::build::DecodeError;
use crate::model::{Environment, Signal};

/// What a client may use, in the words of `Content-Encoding` and `grpc-accept-encoding`.
pub(super) const ENCODINGS: &str = "identity, gzip, zstd, deflate";

/// The encoding of a request, and of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/x-protobuf`, and gRPC.
    Protobuf,
    /// `application/json`.
    Json,
}

impl Format {
    /// Its media type over HTTP.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/x-protobuf",
            Self::Json => "application/json",
        }
    }
}

/// Why a request was not taken.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) code: Code,
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// When the client may send it again, if it may.
    pub(super) retry: Option<Duration>,
    /// Whose trouble it is; nobody's where the whole listener has no room.
    pub(super) environment: Option<Environment>,
}

impl Refusal {
    fn new(code: Code, status: StatusCode, message: impl Into<String>) -> Self {
        Self { code, status, message: message.into(), retry: None, environment: None }
    }

    /// The request is not what it should be.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, StatusCode::BAD_REQUEST, message)
    }

    /// It is larger than the limit. Without RetryInfo, so that the client does not send it again.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(Code::ResourceExhausted, StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// There is no room now; later there may be. When, is said by [`Patience`](super::patience::Patience).
    pub(super) fn overloaded(message: impl Into<String>) -> Self {
        Self { retry: Some(super::patience::SHORTEST), ..Self::new(Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// It is the trouble of this environment alone.
    pub(super) fn of(self, environment: &Environment) -> Self {
        Self { environment: Some(environment.clone()), ..self }
    }

    /// Nobody here takes this.
    pub(super) fn not_served(message: impl Into<String>) -> Self {
        Self::new(Code::Unimplemented, StatusCode::NOT_FOUND, message)
    }

    /// A compression that is not known.
    pub(super) fn encoding(name: &str) -> Self {
        let name = super::build::shorten(name);
        let message = format!("the encoding `{name}` is not known: expected one of {ENCODINGS}");
        Self::new(Code::Unimplemented, StatusCode::BAD_REQUEST, message)
    }

    /// A media type that is not known.
    pub(super) fn media_type(found: Option<&str>) -> Self {
        let found = found.map_or_else(
            || "there is no content type".to_owned(),
            |t| format!("the content type is `{}`", super::build::shorten(t)),
        );
        let message = format!("{found}: expected `application/x-protobuf` or `application/json`");
        Self::new(Code::InvalidArgument, StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    /// A method other than POST.
    pub(super) fn method(found: &http::Method) -> Self {
        let found = super::build::shorten(found.as_str());
        Self::new(Code::Unimplemented, StatusCode::METHOD_NOT_ALLOWED, format!("the method is {found}: expected POST"))
    }

    /// A mistake of ours that trying again would only repeat.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The same as a gRPC status.
    pub(super) fn to_grpc(&self) -> Status {
        if self.retry.is_some() { self.detailed() } else { Status::new(self.code, self.message.as_str()) }
    }

    fn detailed(&self) -> Status {
        let details = self.retry.map_or_else(ErrorDetails::new, |delay| ErrorDetails::with_retry_info(Some(delay)));
        Status::with_error_details(self.code, self.message.as_str(), details)
    }

    /// Seconds for the `Retry-After` header, which has whole ones only.
    pub(super) fn retry_after(&self) -> Option<u64> {
        self.retry.map(|delay| delay.saturating_add(Duration::from_millis(500)).as_secs().max(1))
    }

    /// The same as a `google.rpc.Status` body.
    pub(super) fn body(&self, format: Format) -> Bytes {
        match format {
            // The details of a rich gRPC status are that very message.
            Format::Protobuf => Bytes::copy_from_slice(self.detailed().details()),
            Format::Json => {
                let retry = |delay: Duration| {
                    let delay = format!("{}s", delay.as_secs_f64());
                    serde_json::json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay })
                };
                let details: Vec<_> = self.retry.map(retry).into_iter().collect();
                let status = serde_json::json!({ "code": self.code as i32, "message": self.message, "details": details });
                status.to_string().into()
            }
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Malformed(message) => Self::invalid(message),
            DecodeError::TooLarge(message) => Self::too_large(message),
        }
    }
}

/// What became of a request that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Records that were given up.
    pub(super) rejected: u64,
    /// Why, for a person.
    pub(super) message: String,
}

impl Accepted {
    /// The export response. Nothing at all where everything was taken, as the specification wants it.
    pub(super) fn body(&self, signal: Signal, format: Format) -> Bytes {
        if self.rejected == 0 {
            return match format {
                Format::Protobuf => Bytes::new(),
                Format::Json => Bytes::from_static(b"{}"),
            };
        }
        let rejected = i64::try_from(self.rejected).unwrap_or(i64::MAX);
        match format {
            Format::Protobuf => {
                // The responses of the three signals have the same fields on the wire.
                let partial = ExportTracePartialSuccess { rejected_spans: rejected, error_message: self.message.clone() };
                ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec().into()
            }
            Format::Json => {
                let key = match signal {
                    Signal::Traces => "rejectedSpans",
                    Signal::Metrics => "rejectedDataPoints",
                    Signal::Logs => "rejectedLogRecords",
                };
                let partial = serde_json::json!({ key: rejected.to_string(), "errorMessage": self.message });
                serde_json::json!({ "partialSuccess": partial }).to_string().into()
            }
        }
    }
}
