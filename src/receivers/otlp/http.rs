//! OTLP over HTTP/1.1 and HTTP/2, in protobuf and JSON.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::accept::{Current, Shared};
use super::answer::{Accepted, ENCODINGS, Format, Refusal};
use super::body::{Compression, Raw, check_declared, discard, gather};
use crate::model::Signal;

/// How long the head of a request may take, and a connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Serves until `incoming` ends, then lets the requests in progress end.
pub(super) async fn serve(current: Arc<Current>, incoming: impl Stream<Item = io::Result<TcpStream>>) {
    let closing = CancellationToken::new();
    let mut connections = JoinSet::new();
    // Let go, so that the socket is closed while the connections end.
    {
        let mut incoming = std::pin::pin!(incoming);
        loop {
            tokio::select! {
                Some(_) = connections.join_next() => {}
                next = incoming.next() => match next {
                    None => break,
                    Some(Ok(stream)) => {
                        connections.spawn(connection(Arc::clone(&current), stream, closing.clone()));
                    }
                    Some(Err(_)) => {}
                },
            }
        }
    }
    closing.cancel();
    while connections.join_next().await.is_some() {}
}

async fn connection(current: Arc<Current>, stream: TcpStream, closing: CancellationToken) {
    // hyper's own timeout begins with the first byte.
    let first = tokio::time::timeout(HEADER_TIMEOUT, stream.readable());
    tokio::select! {
        () = closing.cancelled() => return,
        readable = first => if !matches!(readable, Ok(Ok(()))) { return },
    }
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    server.http2().timer(TokioTimer::new()).keep_alive_interval(HEADER_TIMEOUT);
    let service = service_fn(move |request| {
        let shared = current.get();
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!(error = %e, "an OTLP/HTTP connection broke");
    }
}

async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, mut body) = request.into_parts();
    let format = media_type(&parts.headers);
    let encoding = *format.as_ref().unwrap_or(&Format::Protobuf);
    match export(shared, &parts, format, &mut body).await {
        Ok((signal, accepted)) => response(StatusCode::OK, encoding, accepted.body(signal, encoding)),
        Err(mut refusal) => {
            shared.refused(&parts.headers, &mut refusal);
            // Who waits to be told to go on sends nothing more.
            if parts.version < Version::HTTP_2 && !parts.headers.contains_key(EXPECT) {
                // Beside the answer, which no client shall wait for because of what it has not sent yet.
                tokio::spawn(discard(body));
            }
            let mut response = response(refusal.status, encoding, refusal.body(encoding));
            let headers = response.headers_mut();
            if let Some(seconds) = refusal.retry_after() {
                headers.insert(RETRY_AFTER, seconds.into());
            }
            if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS));
            response
        }
    }
}

fn response(status: StatusCode, format: Format, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    response
}

/// The encoding that the content type says; its parameters (`charset=utf-8`) do not matter.
fn media_type(headers: &HeaderMap) -> Result<Format, Refusal> {
    let found = headers.get(CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?"));
    let essence = found.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    let formats = [Format::Protobuf, Format::Json];
    let format = formats.into_iter().find(|f| f.media_type().eq_ignore_ascii_case(essence));
    format.ok_or_else(|| Refusal::media_type(found))
}

async fn export(
    shared: &Arc<Shared>,
    parts: &http::request::Parts,
    format: Result<Format, Refusal>,
    body: &mut Incoming,
) -> Result<(Signal, Accepted), Refusal> {
    let signal = shared.paths.as_ref().map_or_else(
        || Err(Refusal::internal("this port has no paths; this is a mistake in anomalyd")),
        |paths| paths.signal(parts.uri.path()),
    )?;
    if parts.method != Method::POST {
        return Err(Refusal::method(&parts.method));
    }
    let format = format?;
    shared.check_served(signal)?;
    shared.check_room()?;
    let limit = shared.max_body;
    let encoding = parts.headers.get(CONTENT_ENCODING).map(|v| v.to_str().unwrap_or("?"));
    let compression = Compression::of(encoding)?;
    let declared = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    check_declared(declared.unwrap_or(0), limit)?;
    let mut reservation = shared.admission.enter();
    let bytes = gather(body, limit.bytes(), &mut reservation, |_| Ok(())).await?;
    let raw = Raw { bytes, compression, limit, reservation };
    let accepted = shared.accept(signal, format, &parts.headers, raw).await?;
    Ok((signal, accepted))
}
