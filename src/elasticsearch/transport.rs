//! One node: one try of one request.

use std::borrow::Cow;
use std::error::Error as _;
use std::io::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use elasticsearch::cert::Certificate;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use reqwest::Response;
use url::{Host, Url};

use super::config::{Compression, parse_endpoint};
use super::{ClientError, ConnectionConfig, Content, Method, Place, Refusal, Reply, Request};
use crate::pipeline::TextFile;

/// No answer larger than this is read, unpacked. Pages are asked for in sizes that stay far below.
const LARGEST_ANSWER: u64 = if cfg!(test) { 8 << 20 } else { 256 << 20 };

/// How much of an answer that says how large it is gets room at once.
const FIRST: usize = 1 << 20;

/// One node of the cluster. The `elasticsearch` crate's lists of nodes neither notice dead ones nor fail over, and its
/// transport reads answers whole, however large they are; so each node has a client of its own.
pub(super) struct Node {
    /// Ends with a slash.
    url: Url,
    client: reqwest::Client,
    /// Whether bodies of requests are compressed.
    gzip: bool,
    /// Whether connections are made by us, and not by a proxy for us.
    direct: bool,
}

/// The nodes of `config`.
pub(super) fn nodes(config: &ConnectionConfig) -> Result<Vec<Node>, ClientError> {
    let authorities = match &config.ca_file {
        Some(file) => Some(Authorities { pem: file.read().map_err(|e| unusable(file, &e))?, file }),
        None => None,
    };
    config.endpoints.iter().map(|endpoint| Node::new(endpoint, config, authorities.as_ref())).collect()
}

/// The content of `ca_file`. Read once, parsed for each node, because what it is parsed to cannot be cloned.
struct Authorities<'a> {
    pem: Cow<'a, str>,
    file: &'a TextFile,
}

impl Authorities<'_> {
    fn parse(&self) -> Result<Certificate, ClientError> {
        Certificate::from_pem(self.pem.as_bytes()).map_err(|e| unusable(self.file, &e))
    }
}

fn unusable(file: &TextFile, error: &dyn std::fmt::Display) -> ClientError {
    ClientError::Config(format!(
        "`ca_file` {} cannot be used: {error}; expected a file with certificates in PEM form (`-----BEGIN CERTIFICATE-----`)",
        file.path().display()
    ))
}

impl Node {
    fn new(endpoint: &str, config: &ConnectionConfig, authorities: Option<&Authorities<'_>>) -> Result<Self, ClientError> {
        let (mut url, _) = parse_endpoint(endpoint).map_err(ClientError::Config)?;
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let mut builder = reqwest::Client::builder();
        if let Some(authorities) = authorities {
            builder = authorities.parse()?.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let loopback = is_loopback(&url);
        if loopback {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            match authorities {
                Some(authorities) => unusable(authorities.file, &reason),
                None => ClientError::Config(format!("cannot prepare connections to {url}: {reason}")),
            }
        })?;
        let gzip = config.compression == Compression::Gzip;
        Ok(Self { url, client, gzip, direct: loopback || !proxy_is_set() })
    }

    /// What is asked of this node.
    pub(super) fn place(&self, request: &Request) -> Box<Place> {
        let node = self.url.as_str().trim_end_matches('/').to_owned();
        Box::new(Place { node, method: method_name(request.method), path: request.path.clone() })
    }

    /// Sees whether the node takes connections at all. The crate has no limit of its own for connecting, so a machine
    /// that swallows packets would else use up a whole request's time.
    pub(super) async fn probe(&self, request: &Request, limit: Duration) -> Result<(), ClientError> {
        let (true, Some(host), Some(port)) = (self.direct, self.url.host(), self.url.port_or_known_default()) else {
            return Ok(());
        };
        let connect = async {
            match host {
                Host::Domain(name) => tokio::net::TcpStream::connect((name, port)).await,
                Host::Ipv4(ip) => tokio::net::TcpStream::connect((ip, port)).await,
                Host::Ipv6(ip) => tokio::net::TcpStream::connect((ip, port)).await,
            }
        };
        let reason = match tokio::time::timeout(limit, connect).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => format!("cannot connect: {error}"),
            Err(_) => format!("cannot connect within {}", humantime::format_duration(limit)),
        };
        Err(ClientError::Connection { place: self.place(request), reason, unsent: true })
    }

    /// Sends the request once.
    pub(super) async fn send(&self, request: &Request, headers: &HeaderMap, limit: Duration) -> Result<Reply, ClientError> {
        let sending = self.prepare(request, headers.clone())?.timeout(limit).send();
        let mut response = sending.await.map_err(|e| self.failure(request, &e, limit))?;
        let status = response.status().as_u16();
        let retry_after = response.headers().get(header::RETRY_AFTER).and_then(seconds);
        let body = self.read(request, &mut response, limit).await?;
        if (200..300).contains(&status) {
            return Ok(Reply { status, body, place: self.place(request) });
        }
        let refusal = Box::new(Refusal::read(status, retry_after, &body));
        Err(ClientError::Refused { place: self.place(request), refusal })
    }

    fn prepare(&self, request: &Request, mut headers: HeaderMap) -> Result<reqwest::RequestBuilder, ClientError> {
        if request.content == Content::NdJson {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        }
        let unusable = |error: &dyn std::fmt::Display| ClientError::Config(format!("cannot ask for {}: {error}", request.path));
        // `./` keeps a colon in the first segment (`remote:logs-*`) from being taken for a URL's scheme.
        let url = self.url.join(&format!("./{}", request.path.trim_start_matches('/'))).map_err(|e| unusable(&e))?;
        let mut sending = self.client.request(method(request.method), url);
        if !request.query.is_empty() {
            sending = sending.query(&request.query);
        }
        if let Some(body) = &request.body {
            sending = if self.gzip {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                sending.body(gzipped(body).map_err(|e| unusable(&e))?)
            } else {
                sending.body(body.clone())
            };
        }
        Ok(sending.headers(headers))
    }

    /// The body, unpacked. What it has is looked at as it comes: an answer that is compressed or comes in chunks does not
    /// say how large it is.
    async fn read(&self, request: &Request, response: &mut Response, limit: Duration) -> Result<Bytes, ClientError> {
        let too_large = |size| ClientError::TooLarge { place: self.place(request), size, limit: LARGEST_ANSWER };
        let declared = response.content_length();
        if let Some(size) = declared.filter(|size| *size > LARGEST_ANSWER) {
            return Err(too_large(size));
        }
        let mut body = BytesMut::with_capacity(usize::try_from(declared.unwrap_or(0)).unwrap_or(0).min(FIRST));
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failure(request, &e, limit))? {
            let size = (body.len() + chunk.len()) as u64;
            if size > LARGEST_ANSWER {
                return Err(too_large(size));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn failure(&self, request: &Request, error: &reqwest::Error, limit: Duration) -> ClientError {
        let place = self.place(request);
        if error.is_timeout() {
            return ClientError::Timeout { place, after: limit };
        }
        // The outer layers say "error sending request for url (...)"; what happened stands in the inner ones.
        let mut reasons: Vec<String> = Vec::new();
        let mut layer = error.source();
        while let Some(inner) = layer {
            let text = inner.to_string();
            if !reasons.iter().any(|r| r.contains(&text)) {
                reasons.push(text);
            }
            layer = inner.source();
        }
        let unsent = reasons.iter().any(|r| r.contains("(Connect)"));
        reasons.retain(|r| !r.starts_with("client error"));
        if reasons.is_empty() {
            reasons.push(error.to_string());
        }
        ClientError::Connection { place, reason: reasons.join(": "), unsent }
    }
}

/// The headers of every request.
pub(super) fn headers(config: &ConnectionConfig, opaque_id: &str) -> Result<HeaderMap, ClientError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("anomalyd/", env!("CARGO_PKG_VERSION"))));
    // Operators find us by it in the cluster's slow logs and task lists.
    let id: String = opaque_id.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(HeaderName::from_static("x-opaque-id"), value);
    }
    for name in config.headers.keys() {
        let (name, value) = config.header(name).map_err(ClientError::Config)?;
        headers.insert(name, value);
    }
    if let Some(value) = config.authorization().map_err(ClientError::Config)? {
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

/// `Retry-After` in seconds; the form with a date is not used by Elasticsearch or its proxies.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    value.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn proxy_is_set() -> bool {
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn gzipped(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body)?;
    encoder.finish()
}

const fn method(method: Method) -> http::Method {
    match method {
        Method::Get => http::Method::GET,
        Method::Put => http::Method::PUT,
        Method::Post => http::Method::POST,
        Method::Delete => http::Method::DELETE,
        Method::Head => http::Method::HEAD,
    }
}

const fn method_name(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Put => "PUT",
        Method::Post => "POST",
        Method::Delete => "DELETE",
        Method::Head => "HEAD",
    }
}
