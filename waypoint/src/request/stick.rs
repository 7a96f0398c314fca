//! Requests with the same key go to the same endpoint: what the key of a request is.
//!
//! Source: Istio's consistentHash, spec L7 §3.4; keys are hashed as Envoy does.

use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use shared::balance::xxh64;
use shared::mesh::HashKey;

use crate::cluster::Cluster;
use crate::tunnel::Client;

/// The key of one request.
#[derive(Debug, Default)]
pub(super) struct Stick {
    /// None where the request does not have what its rule asks for.
    pub(super) hash: Option<u64>,
    /// A cookie that the client gets, for its next request.
    cookie: Option<HeaderValue>,
}

impl Stick {
    /// By the rule of `cluster`.
    pub(super) fn of(cluster: &Cluster, parts: &Parts, client: &Client) -> Self {
        let Some(key) = cluster.hash_key() else { return Self::default() };
        let hash = |bytes: &[u8]| Self { hash: Some(xxh64(bytes, 0)), cookie: None };
        match key {
            HashKey::Header(name) => {
                parts.headers.get(name).map_or_else(Self::default, |value| hash(value.as_bytes()))
            }
            HashKey::Query(name) => parameter(parts.uri.query().unwrap_or_default(), name)
                .map_or_else(Self::default, |value| hash(value.as_bytes())),
            HashKey::SourceIp => hash(client.address.ip().to_canonical().to_string().as_bytes()),
            HashKey::Cookie { name, path, ttl } => match (cookie(&parts.headers, name), ttl) {
                (Some(value), _) => hash(value.as_bytes()),
                (None, None) => Self::default(),
                (None, Some(ttl)) => Self::made(name, path, *ttl),
            },
        }
    }

    /// A new key, and the cookie that carries it.
    fn made(name: &str, path: &str, ttl: Duration) -> Self {
        let value = format!("{:032x}", fastrand::u128(..));
        let age =
            if ttl.is_zero() { String::new() } else { format!("; Max-Age={}", ttl.as_secs()) };
        let path = if path.is_empty() { String::new() } else { format!("; Path={path}") };
        let cookie = format!("{name}={value}{age}{path}; HttpOnly");
        Self { hash: Some(xxh64(value.as_bytes(), 0)), cookie: HeaderValue::try_from(cookie).ok() }
    }

    /// Gives the client what was made for it.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        if let Some(cookie) = self.cookie {
            headers.append(SET_COOKIE, cookie);
        }
    }
}

/// The first value of a parameter, as it stands in the URI.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().find(|(own, _)| *own == name).map(|(_, value)| value)
}

/// The first value of a cookie, without quotes.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(own, _)| own.trim() == name).map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_cookies_are_found_by_their_whole_name() {
        for (query, found) in [
            ("user=7", Some("7")),
            ("a=1&user=7&user=8", Some("7")),
            ("user", Some("")),
            ("users=7&xuser=8", None),
            ("", None),
        ] {
            assert_eq!(parameter(query, "user"), found, "{query}");
        }
        for (line, found) in [
            ("user=7", Some("7")),
            ("a=1; user=\"7\"; user=8", Some("7")),
            ("users=7; xuser=8", None),
        ] {
            let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static(line))]);
            assert_eq!(cookie(&headers, "user"), found, "{line}");
        }
    }

    #[test]
    fn a_cookie_that_is_made_carries_the_key_that_was_used() {
        let stick = Stick::made("user", "/shop", Duration::from_secs(60));
        let (hash, mut headers) = (stick.hash, HeaderMap::new());
        stick.tell(&mut headers);
        let text = headers[SET_COOKIE].to_str().unwrap();
        let value = text.strip_prefix("user=").and_then(|rest| rest.split(';').next()).unwrap();
        assert_eq!(Some(xxh64(value.as_bytes(), 0)), hash);
        assert!(text.ends_with("; Max-Age=60; Path=/shop; HttpOnly"), "{text}");
        let session = Stick::made("user", "", Duration::ZERO).cookie.unwrap();
        let text = session.to_str().unwrap();
        assert!(!text.contains("Max-Age") && !text.contains("Path"), "{text}");
    }
}
