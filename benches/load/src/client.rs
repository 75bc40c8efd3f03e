//! Sends bodies over OTLP/gRPC and OTLP/HTTP, and reads the answers as a Collector does.
//!
//! Source: OTLP specification, "Failures": which codes may be sent again; and the Collector's exporters, which also
//! send again what got no answer.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::Error;
use crate::request::Signal;

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// OTLP/gRPC: all calls of a connection share it.
    Grpc,
    /// OTLP/HTTP in protobuf over HTTP/1.1: one connection for each call in flight.
    Http,
}

/// What came of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Taken, but for so many records that a partial success names.
    Taken {
        /// Records that were given up.
        rejected: u64,
    },
    /// Refused.
    Refused {
        /// The code's name: `UNAVAILABLE`, `503`.
        code: String,
        /// Whether it may be sent again.
        retry: bool,
        /// How long the answer asks to wait.
        after: Option<Duration>,
        /// What it says.
        message: String,
    },
    /// No answer: the connection broke, or it took too long. Sent again.
    None {
        /// Why.
        why: String,
    },
}

/// The way to one daemon.
#[derive(Clone, Debug)]
pub struct Target {
    /// How.
    pub protocol: Protocol,
    /// `host:port`.
    pub address: String,
    /// What is sent.
    pub signal: Signal,
    /// Whether bodies are compressed.
    pub gzip: bool,
    /// How long an answer may take.
    pub timeout: Duration,
}

enum Sender {
    Grpc(http2::SendRequest<Full<Bytes>>),
    Http(http1::SendRequest<Full<Bytes>>),
}

/// One connection, made again when it breaks.
pub struct Connection {
    target: Target,
    sender: Mutex<Option<Sender>>,
}

impl Connection {
    /// Connects when it is first used.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self { target, sender: Mutex::new(None) }
    }

    /// Sends `body` once.
    pub async fn send(&self, body: Bytes) -> Answer {
        match tokio::time::timeout(self.target.timeout, self.call(body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                *self.sender.lock().await = None;
                Answer::None { why: error.to_string() }
            }
            Err(_) => {
                // What comes late would be taken for the answer to the next request.
                if self.target.protocol == Protocol::Http {
                    *self.sender.lock().await = None;
                }
                Answer::None { why: format!("no answer within {:?}", self.target.timeout) }
            }
        }
    }

    async fn call(&self, body: Bytes) -> Result<Answer, Error> {
        let mut sender = self.sender.lock().await;
        if sender.is_none() {
            *sender = Some(connect(&self.target).await?);
        }
        let response = match sender.as_mut().ok_or("no connection")? {
            Sender::Grpc(grpc) => {
                grpc.ready().await?;
                let mut grpc = grpc.clone();
                drop(sender);
                grpc.send_request(self.grpc(body)?).await?
            }
            Sender::Http(http) => {
                http.ready().await?;
                let response = http.send_request(self.http(body)?).await?;
                let (head, body) = response.into_parts();
                let body = body.collect().await?.to_bytes();
                return Ok(of_http(head.status, &head.headers, &body));
            }
        };
        let (head, body) = response.into_parts();
        let body = body.collect().await?;
        let status = body.trailers().and_then(tonic::Status::from_header_map);
        let status = status.or_else(|| tonic::Status::from_header_map(&head.headers));
        let status = status.ok_or_else(|| format!("an answer without grpc-status (HTTP {})", head.status))?;
        Ok(of_grpc(&status, &body.to_bytes()))
    }

    fn grpc(&self, message: Bytes) -> Result<Request<Full<Bytes>>, Error> {
        let path = match self.target.signal {
            Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        };
        let mut framed = BytesMut::with_capacity(message.len() + 5);
        framed.put_u8(self.target.gzip.into());
        framed.put_u32(u32::try_from(message.len())?);
        framed.put(message);
        let mut request = Request::post(format!("http://{}{path}", self.target.address))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        if self.target.gzip {
            request = request.header("grpc-encoding", "gzip");
        }
        Ok(request.body(Full::new(framed.freeze()))?)
    }

    fn http(&self, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
        let mut request = Request::post(format!("/v1/{}", self.target.signal.as_str()))
            .header(header::HOST, &self.target.address)
            .header(header::CONTENT_TYPE, "application/x-protobuf");
        if self.target.gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        Ok(request.body(Full::new(body))?)
    }
}

async fn connect(target: &Target) -> Result<Sender, Error> {
    let stream = TcpStream::connect(&target.address).await?;
    stream.set_nodelay(true)?;
    let io = TokioIo::new(stream);
    // The connections end with their senders; what goes wrong is told by the calls that it happens to.
    match target.protocol {
        Protocol::Grpc => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            // As grpc-go does it, the windows are larger than a request.
            builder.initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
            let (sender, connection) = builder.handshake(io).await?;
            tokio::spawn(connection);
            Ok(Sender::Grpc(sender))
        }
        Protocol::Http => {
            let (sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Ok(Sender::Http(sender))
        }
    }
}

/// Records that an export response says were rejected. The responses of all signals are alike on the wire.
fn rejected(body: &[u8]) -> u64 {
    let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|r| r.partial_success);
    partial.and_then(|p| u64::try_from(p.rejected_spans).ok()).unwrap_or(0)
}

fn of_grpc(status: &tonic::Status, framed: &[u8]) -> Answer {
    if status.code() == Code::Ok {
        return Answer::Taken { rejected: rejected(framed.get(5..).unwrap_or_default()) };
    }
    let info = status.get_details_retry_info();
    let after = info.as_ref().and_then(|i| i.retry_delay);
    let retry = match status.code() {
        Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::OutOfRange | Code::Unavailable | Code::DataLoss => true,
        Code::ResourceExhausted => info.is_some(),
        _ => false,
    };
    Answer::Refused { code: format!("{:?}", status.code()), retry, after, message: status.message().to_owned() }
}

fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    if status.is_success() {
        return Answer::Taken { rejected: rejected(body) };
    }
    let after = headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let retry = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    // The body is a google.rpc.Status.
    let message = tonic_types::Status::decode(body).map(|s| s.message).unwrap_or_default();
    Answer::Refused { code: status.as_u16().to_string(), retry, after: after.map(Duration::from_secs), message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn what_may_be_sent_again_is_as_the_specification_says() {
        let retry = |answer: &Answer| matches!(answer, Answer::Refused { retry: true, .. });
        let grpc = |code| of_grpc(&tonic::Status::new(code, "x"), b"");
        assert!(retry(&grpc(Code::Unavailable)) && retry(&grpc(Code::DeadlineExceeded)));
        assert!(!retry(&grpc(Code::InvalidArgument)) && !retry(&grpc(Code::ResourceExhausted)));
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
        let limited = of_grpc(&tonic::Status::with_error_details(Code::ResourceExhausted, "later", details), b"");
        assert!(
            matches!(limited, Answer::Refused { retry: true, after: Some(after), .. } if after.as_secs() == 2),
            "{limited:?}"
        );
        let http = |status| of_http(status, &HeaderMap::new(), b"");
        assert!(retry(&http(StatusCode::SERVICE_UNAVAILABLE)) && retry(&http(StatusCode::TOO_MANY_REQUESTS)));
        assert!(!retry(&http(StatusCode::BAD_REQUEST)) && !retry(&http(StatusCode::INTERNAL_SERVER_ERROR)));
    }

    #[test]
    fn a_partial_success_names_its_records() {
        assert_eq!(of_grpc(&tonic::Status::ok(""), &[0, 0, 0, 0, 4, 10, 2, 8, 7]), Answer::Taken { rejected: 7 });
        assert_eq!(of_http(StatusCode::OK, &HeaderMap::new(), b""), Answer::Taken { rejected: 0 });
    }
}
