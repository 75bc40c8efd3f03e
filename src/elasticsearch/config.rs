//! How to reach a cluster: the keys that every Elasticsearch component has.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::config::{Duration, Secret};
use crate::pipeline::{Problem, TextFile};

/// How to reach an Elasticsearch cluster. Components take it in with `#[serde(flatten)]`, so that its keys stand
/// beside their own; they close the resulting schema with [`closed`], because `serde` cannot reject unknown keys
/// of a flattened struct.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ConnectionConfig {
    /// URLs of the cluster's nodes, or of a proxy in front of them: `https://es-1:9200`. A node that does not
    /// answer is left alone for a while and the others are used. A user and a password in a URL are taken as
    /// `username` and `password`.
    #[schemars(length(min = 1))]
    pub endpoints: Vec<String>,
    /// API key: the `encoded` text that Elasticsearch gave out, or `id:key`, or both parts as `{id, key}`.
    #[serde(default)]
    pub api_key: Option<ApiKey>,
    /// User for basic authentication. Not together with `api_key`.
    #[serde(default)]
    pub username: Option<String>,
    /// Password of `username`.
    #[serde(default)]
    pub password: Option<Secret>,
    /// PEM file with the certificates of the authorities that signed the nodes' certificates. They are trusted
    /// beside the public ones. The machine's own certificate store is not read.
    #[serde(default)]
    pub ca_file: Option<TextFile>,
    /// Longest time for connecting to a node that has not answered before or lately.
    #[serde(default = "default_connect_timeout")]
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub connect_timeout: Duration,
    /// Longest time for one try of one request, from connecting until the end of the answer.
    #[serde(default = "default_request_timeout")]
    #[schemars(extend("x-minimum" = "1ms", "x-maximum" = "1h"))]
    pub request_timeout: Duration,
    /// What happens when the cluster is not reachable or overloaded.
    #[serde(default)]
    pub retry: RetryConfig,
    /// How request bodies are compressed. Answers are compressed where the cluster offers it.
    #[serde(default)]
    pub compression: Compression,
    /// HTTP headers that are added to every request. Their values are not printed.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
}

const fn default_connect_timeout() -> Duration {
    Duration::from_secs(5)
}

const fn default_request_timeout() -> Duration {
    Duration::from_secs(30)
}

/// An API key in one of the forms in which Elasticsearch gives it out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum ApiKey {
    /// `encoded`, or `id:key`.
    Encoded(Secret),
    /// Both parts.
    Parts {
        /// The key's `id`.
        id: String,
        /// The key's `api_key`.
        key: Secret,
    },
}

/// How request bodies are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// gzip.
    #[default]
    Gzip,
    /// Not at all.
    None,
}

/// When a request is tried again: no connection, no answer in time, or one of 429, 502, 503 and 504. The waits
/// are random between zero and a bound that doubles each time; a `Retry-After` of the cluster is kept.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// How often a request is tried again after its first try. 0 switches retries off.
    pub max_retries: u32,
    /// Bound of the first wait.
    pub initial_interval: Duration,
    /// Upper limit of the bound.
    pub max_interval: Duration,
    /// No new try begins when this much time has passed since the first.
    pub max_elapsed_time: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_retries: 5,
            initial_interval: Duration::from_millis(100),
            max_interval: Duration::from_secs(60),
            max_elapsed_time: Duration::from_secs(300),
        }
    }
}

/// Closes the schema of a component that flattens a [`ConnectionConfig`]: unknown keys become errors.
#[must_use]
pub fn closed(mut schema: schemars::Schema) -> schemars::Schema {
    schema.remove("unevaluatedProperties");
    schema.insert("additionalProperties".to_owned(), false.into());
    schema
}

impl ConnectionConfig {
    /// The configuration that reaches `endpoint` without credentials, and everything else at its default.
    #[must_use]
    pub fn new(endpoint: &str) -> Self {
        Self {
            endpoints: vec![endpoint.to_owned()],
            api_key: None,
            username: None,
            password: None,
            ca_file: None,
            connect_timeout: default_connect_timeout(),
            request_timeout: default_request_timeout(),
            retry: RetryConfig::default(),
            compression: Compression::default(),
            headers: BTreeMap::new(),
        }
    }

    /// What is wrong with it that its schema cannot say; for a component's `check`.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |path: &[&str], message: String, hint: Option<&str>| {
            problems.push(Problem {
                path: path.iter().map(|&p| p.to_owned()).collect(),
                message,
                hint: hint.map(str::to_owned),
                fatal: true,
            });
        };
        if self.endpoints.is_empty() {
            add(&["endpoints"], "no endpoint is given: expected at least one URL such as `https://es-1:9200`".to_owned(), None);
        }
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            if let Err(message) = parse_endpoint(endpoint) {
                add(&["endpoints", &i.to_string()], message, None);
            }
        }
        if let Err(message) = self.authorization() {
            let key = if self.api_key.is_some() { "api_key" } else { "username" };
            add(&[key], message, None);
        }
        for name in self.headers.keys() {
            if let Err(message) = self.header(name) {
                add(&["headers", name], message, None);
            }
        }
        problems
    }

    /// One of the additional headers, checked.
    pub(super) fn header(&self, name: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
        let key = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is not an HTTP header name"))?;
        let text = self.headers.get(name).map_or("", |v| v.expose());
        let mut value = http::HeaderValue::from_str(text.trim())
            .map_err(|_| format!("the value of header `{name}` has characters that HTTP headers cannot carry"))?;
        value.set_sensitive(true);
        Ok((key, value))
    }

    /// The `Authorization` header of all requests, if there are credentials.
    pub(super) fn authorization(&self) -> Result<Option<http::HeaderValue>, String> {
        let text = match (&self.api_key, self.user()?) {
            (Some(_), Some(_)) => {
                return Err(
                    "both an API key and a user are given: expected one of `api_key`, and `username` with `password`".to_owned()
                );
            }
            (Some(key), None) => format!("ApiKey {}", encode_api_key(key)?),
            (None, Some((user, password))) => format!("Basic {}", base64(&format!("{user}:{password}"))),
            (None, None) => return Ok(None),
        };
        let mut value =
            http::HeaderValue::from_str(&text).map_err(|_| "the credentials cannot be sent in an HTTP header".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// User and password, from their keys or from the URLs.
    fn user(&self) -> Result<Option<(String, String)>, String> {
        let mut found = match (&self.username, &self.password) {
            (Some(user), password) => {
                let password = password.as_ref().map_or("", |p| p.expose()).trim_end_matches(['\r', '\n']);
                Some((user.clone(), password.to_owned()))
            }
            (None, Some(_)) => return Err("a password is given without a user: expected `username` beside `password`".to_owned()),
            (None, None) => None,
        };
        for endpoint in &self.endpoints {
            let Ok((_, Some(user))) = parse_endpoint(endpoint) else { continue };
            match &found {
                Some(other) if *other != user => {
                    return Err(
                        "the endpoints and `username` name different users: expected one user for the whole cluster".to_owned()
                    );
                }
                _ => found = Some(user),
            }
        }
        Ok(found)
    }
}

/// A user and a password.
type Login = (String, String);

/// The URL without credentials, and the credentials that were in it.
pub(super) fn parse_endpoint(endpoint: &str) -> Result<(Url, Option<Login>), String> {
    const EXPECTED: &str = "expected a URL such as `https://es-1:9200`";
    // What cannot be parsed may still hold a password, so it is shown only when it cannot.
    let shown = if endpoint.contains('@') { "the endpoint".to_owned() } else { format!("`{endpoint}`") };
    let mut url = Url::parse(endpoint.trim()).map_err(|e| format!("{shown} is not a URL ({e}): {EXPECTED}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{shown} is not an http or https URL: {EXPECTED}"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("{shown} has a query or a fragment: {EXPECTED}"));
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let user = (!url.username().is_empty()).then(|| (decode(url.username()), decode(url.password().unwrap_or_default())));
    // Neither fails for a URL that has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Ok((url, user))
}

/// What stands after `ApiKey` in the header.
fn encode_api_key(key: &ApiKey) -> Result<String, String> {
    let (text, encoded) = match key {
        // The alphabet of base64 has no colon, so a colon means that it is not encoded yet.
        ApiKey::Encoded(key) if key.expose().contains(':') => (key.expose().trim().to_owned(), false),
        ApiKey::Encoded(key) => (key.expose().trim().to_owned(), true),
        ApiKey::Parts { id, key } => (format!("{}:{}", id.trim(), key.expose().trim()), false),
    };
    // Keys come from files and variables; what an editor or a shell added must not reach the HTTP client.
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("the API key is empty or has characters that no API key has: expected the `encoded` text that \
                    Elasticsearch gave out, or `id:key`"
            .to_owned());
    }
    Ok(if encoded { text } else { base64(&text) })
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: serde_json::Value) -> ConnectionConfig {
        serde_json::from_value(json).unwrap()
    }

    fn authorization(json: serde_json::Value) -> Result<String, String> {
        config(json).authorization().map(|v| v.map_or_else(String::new, |v| v.to_str().unwrap().to_owned()))
    }

    #[test]
    fn an_api_key_is_taken_in_every_form_in_which_it_is_given_out() {
        let wanted = Ok("ApiKey aWQ6a2V5".to_owned());
        for key in ["aWQ6a2V5", "aWQ6a2V5\n", " aWQ6a2V5\r\n", "id:key", "id:key\n"] {
            assert_eq!(authorization(serde_json::json!({"endpoints": ["http://a"], "api_key": key})), wanted, "{key:?}");
        }
        let parts = serde_json::json!({"endpoints": ["http://a"], "api_key": {"id": "id", "key": "key\n"}});
        assert_eq!(authorization(parts), wanted);
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_an_error_and_not_a_panic() {
        for key in ["", "\n", "a\nb", "ключ", "a b", "\u{0}"] {
            let error = authorization(serde_json::json!({"endpoints": ["http://a"], "api_key": key})).unwrap_err();
            assert!(error.starts_with("the API key is empty or has characters"), "{error}");
        }
    }

    #[test]
    fn a_user_in_the_url_is_decoded_and_taken_out_of_it() {
        let (url, user) = parse_endpoint("https://me:p%40ss%3A@es:9200/prefix").unwrap();
        assert_eq!((url.as_str(), user), ("https://es:9200/prefix", Some(("me".to_owned(), "p@ss:".to_owned()))));
        assert_eq!(authorization(serde_json::json!({"endpoints": ["http://me:pw@a"]})), Ok(format!("Basic {}", base64("me:pw"))));
    }

    #[test]
    fn problems_name_the_key_and_never_the_secret() {
        let bad = config(serde_json::json!({
            "endpoints": ["es-1:9200", "https://u:hunter2@ es", "ftp://a", "http://a?x=1", "http://u:hunter2@a"],
            "api_key": "hunter2", "headers": {"a b": "hunter2", "x": "hunter2\u{1}"},
        }));
        let told: Vec<String> = bad.problems().iter().map(|p| format!("{}: {}", p.path.join("."), p.message)).collect();
        insta::assert_snapshot!(told.join("\n"));
        assert!(!format!("{told:?} {bad:?}").replace("u:hunter2@", "").contains("hunter2"));
    }

    #[test]
    fn a_password_without_a_user_and_two_users_are_errors() {
        assert!(
            authorization(serde_json::json!({"endpoints": ["http://a"], "password": "x"}))
                .unwrap_err()
                .contains("without a user")
        );
        let two = serde_json::json!({"endpoints": ["http://a:1@x", "http://b:1@y"]});
        assert!(authorization(two).unwrap_err().contains("different users"));
    }
}
