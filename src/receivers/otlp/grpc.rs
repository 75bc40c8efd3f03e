//! OTLP over gRPC.
//!
//! tonic serves the connections; the framing of the one unary call is handled here, because tonic's codec answers
//! OUT_OF_RANGE to a message that is too large (which clients send again and again), reads only the first member of
//! a gzip body, and would build a tree of objects before anybody could look at the bytes.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::Stream;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Frame;
use tokio::net::TcpStream;

use super::accept::{Current, Shared};
use super::answer::{Accepted, ENCODINGS, Format, Refusal};
use super::body::{Compression, Raw, Reservation, check_declared, gather};
use crate::config::ByteSize;
use crate::model::Signal;
use crate::pipeline::ComponentError;

/// A compressed flag and a length.
const HEADER: usize = 5;

/// Serves until `stop` ends, then lets the calls in progress end.
pub(super) async fn serve(
    current: Arc<Current>,
    incoming: impl Stream<Item = io::Result<TcpStream>> + Send + 'static,
    stop: impl Future<Output = ()>,
) -> Result<(), ComponentError> {
    let router = axum::Router::new().fallback(move |request| {
        let shared = current.get();
        async move { answer(&shared, request).await }
    });
    tonic::transport::Server::builder()
        // Finds peers that are gone without a word.
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .add_routes(router.into())
        .serve_with_incoming_shutdown(incoming, stop)
        .await
        .map_err(|e| ComponentError::new(format_args!("the gRPC server ended: {e}")))
}

async fn answer(shared: &Arc<Shared>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let content_type = parts.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !content_type.starts_with("application/grpc") {
        let mut response = Response::new(Body::from(format!(
            "this port speaks gRPC: the content type is `{content_type}`, expected `application/grpc`\n"
        )));
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    let path = parts.uri.path();
    match export(shared, path, content_type, &parts.headers, body).await {
        Ok((signal, accepted)) => success(accepted.body(signal, Format::Protobuf)),
        Err(mut refusal) => {
            shared.refused(&parts.headers, &mut refusal);
            let mut response = refusal.to_grpc().into_http::<Body>();
            response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static(ENCODINGS));
            response
        }
    }
}

async fn export(
    shared: &Arc<Shared>,
    path: &str,
    content_type: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<(Signal, Accepted), Refusal> {
    let signal = match path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
        _ => {
            let path = super::build::shorten(path);
            return Err(Refusal::not_served(format!(
                "`{path}` is not served: expected Export of the trace, metrics or logs service"
            )));
        }
    };
    if !matches!(content_type.split(';').next().unwrap_or_default().trim(), "application/grpc" | "application/grpc+proto") {
        let found = super::build::shorten(content_type);
        return Err(Refusal::not_served(format!("the content type `{found}` is not served: expected `application/grpc`")));
    }
    shared.check_served(signal)?;
    shared.check_room()?;
    let encoding = headers.get("grpc-encoding").map(|v| v.to_str().unwrap_or("?"));
    let compression = Compression::of(encoding)?;
    let mut reservation = shared.admission.enter();
    let limit = shared.max_body;
    let framed = gather(body, limit.bytes().saturating_add(HEADER as u64), &mut reservation, |arrived| {
        length(arrived).map_or(Ok(()), |(_, length)| check_declared(length, limit))
    })
    .await?;
    let raw = unframe(&framed, compression, limit, reservation)?;
    let accepted = shared.accept(signal, Format::Protobuf, headers, raw).await?;
    Ok((signal, accepted))
}

/// The one message of a call.
pub(super) fn unframe(
    framed: &Bytes,
    compression: Compression,
    limit: ByteSize,
    reservation: Reservation,
) -> Result<Raw, Refusal> {
    let Some((flag, length)) = length(framed) else {
        return Err(Refusal::invalid(format!("the call has {} bytes, which is no gRPC message", framed.len())));
    };
    let message = framed.slice(HEADER..);
    if message.len() as u64 != length {
        let found = message.len();
        return Err(Refusal::invalid(format!(
            "the gRPC message announces {length} bytes, {found} follow: expected exactly one message"
        )));
    }
    let compression = match (flag, compression) {
        (0, _) => Compression::None,
        (1, Compression::None) => {
            return Err(Refusal::internal("the message is marked as compressed, but `grpc-encoding` does not say how"));
        }
        (1, compression) => compression,
        _ => return Err(Refusal::invalid(format!("the compressed flag of the gRPC message is {flag}, expected 0 or 1"))),
    };
    Ok(Raw { bytes: message, compression, limit, reservation })
}

/// The flag and length in front of a message, once they are there.
fn length(framed: &[u8]) -> Option<(u8, u64)> {
    let (&[flag, a, b, c, d], _) = framed.split_first_chunk::<HEADER>()?;
    Some((flag, u32::from_be_bytes([a, b, c, d]).into()))
}

fn success(message: Bytes) -> Response {
    let mut framed = BytesMut::with_capacity(HEADER + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(0));
    framed.put(message);
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok::<_, Infallible>(Frame::data(framed.freeze())), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(Body::new(http_body_util::StreamBody::new(futures::stream::iter(frames))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-accept-encoding", HeaderValue::from_static(ENCODINGS));
    response
}
