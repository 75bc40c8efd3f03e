//! The `format`s of strings in our JSON Schemas, each with its parser and a few words for what it takes.

use super::scalars::{BYTE_SIZE, ByteSize, DURATION, Duration, ENDPOINT, Endpoint, MEMORY_LIMIT, MemoryLimit};
use crate::pipeline::ComponentId;

pub(super) const URI: &str = "uri";
pub(super) const ENVIRONMENT: &str = "environment-name";
pub(super) const COMPONENT: &str = "component-id";
pub(super) const EMAIL: &str = "email";
pub(super) const ORIGIN: &str = "web-origin";

/// What is wrong with `text` as `format`; nothing where the format is not ours.
pub(super) fn check(format: &str, text: &str) -> Result<(), String> {
    match format {
        DURATION => text.parse::<Duration>().map(|_| ()),
        BYTE_SIZE => text.parse::<ByteSize>().map(|_| ()),
        ENDPOINT => text.parse::<Endpoint>().map(|_| ()),
        MEMORY_LIMIT => text.parse::<MemoryLimit>().map(|_| ()),
        COMPONENT => ComponentId::parse(text).map(|_| ()),
        ENVIRONMENT => environment(text),
        URI => uri(text),
        EMAIL => email(text),
        ORIGIN if text == "*" => Ok(()),
        ORIGIN => origin(text),
        _ => Ok(()),
    }
}

/// What `format` takes, in a few words.
pub(super) fn expected(format: &str) -> Option<&'static str> {
    match format {
        DURATION => Some("a duration such as `30s`"),
        BYTE_SIZE => Some("a size such as `64MiB`"),
        ENDPOINT => Some("an endpoint such as `0.0.0.0:4317`"),
        MEMORY_LIMIT => Some("a share such as `80%` or a size such as `2GiB`"),
        COMPONENT => Some("a component id: `type` or `type/name`"),
        ENVIRONMENT => Some("a name such as `production`"),
        URI => Some("a URL such as `https://host:9200`"),
        EMAIL => Some("an address such as `ops@example.com`"),
        ORIGIN => Some("an origin such as `https://ops.example.com`"),
        _ => None,
    }
}

/// Names of environments become part of the names of data streams, where `-` separates.
fn environment(text: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.".contains(c);
    if text.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if text.len() > 64 || text.starts_with(['.', '_']) || !text.chars().all(good) {
        let allowed = "expected up to 64 lower case letters, digits, `_` and `.`, beginning with a letter or a digit";
        let better: String = text.to_ascii_lowercase().replace(['-', ' '], "_");
        let hint = if better != text && better.chars().all(good) { format!("; write `{better}`") } else { String::new() };
        return Err(format!("`{text}` cannot be the name of an environment: {allowed}{hint}"));
    }
    Ok(())
}

fn email(text: &str) -> Result<(), String> {
    match text.split_once('@') {
        Some((who, host))
            if !who.is_empty() && !host.is_empty() && !text.contains(char::is_whitespace) && !host.contains('@') =>
        {
            Ok(())
        }
        _ => Err(format!("`{text}` is not a mail address")),
    }
}

fn origin(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match rest {
        Some(host) if uri(text).is_ok() && !host.contains('/') => Ok(()),
        Some(_) => Err(format!("`{text}` is not an origin: it has a scheme, a host and maybe a port, and no path")),
        None => Err(format!("`{text}` is not an origin: it must begin with `http://` or `https://`, or be `*`")),
    }
}

/// The text is not repeated: addresses may carry credentials.
fn uri(text: &str) -> Result<(), String> {
    if !text.contains("://") {
        return Err("this is not a URL: it must begin with `http://` or `https://`".to_owned());
    }
    match url::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Err(format!("`{}` URLs are not supported: expected `http` or `https`", url.scheme()))
        }
        Ok(url) if url.has_host() => Ok(()),
        Ok(_) => Err("this is not a URL: it has no host".to_owned()),
        Err(error) => Err(format!("this is not a URL: {error}")),
    }
}
