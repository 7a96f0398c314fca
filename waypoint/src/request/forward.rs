//! What a hop adds and removes.
//!
//! Source: RFC 9110 §7.6.1; spec L7 §1.8, §8.1.

use std::time::Duration;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, Uri};

use shared::mesh::Mesh;

use crate::tunnel::Client;
use crate::upstream::Version;

/// `x-request-id`: the same on every hop, made where it is missing.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// Who the client proved to be, in Envoy's form.
pub(super) const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Names that `Connection` must not take away: it would be a way around policy.
const KEPT: &[&str] = &["host", "content-length", "authorization", "cookie"];

/// Tells the application who its client is, where the Gateway asks for it; before policy, which may
/// look at it. What the client said there is gone by then.
pub(super) fn tell_client(headers: &mut HeaderMap, client: &Client, mesh: &Mesh) {
    let gateway = mesh.gateway(&client.worker.node.gateway);
    if gateway.is_some_and(|gateway| gateway.tells_client) {
        let text = format!("By={};URI={}", client.own.identity, client.identity);
        // Identities are made of DNS names.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(CLIENT_CERT, value);
        }
    }
}

/// Makes a request ready for an endpoint that speaks `version`.
pub(super) fn to_upstream(parts: &mut Parts, version: Version, upgrade: bool) {
    let trailers = parts.headers.get(TE).is_some_and(wants_trailers);
    strip(&mut parts.headers, upgrade);
    if trailers {
        parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if !parts.headers.contains_key(REQUEST_ID) {
        parts.headers.insert(REQUEST_ID, request_id());
    }
    if !parts.headers.contains_key(FORWARDED_PROTO) {
        parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if upgrade {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    join_cookies(&mut parts.headers);
    // Of `http://host#fragment` the parser leaves a path without a byte, which says that it is a slash
    // and would be written as nothing.
    let path = parts.uri.path_and_query().filter(|path| path.as_str() != "/").cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(path);
    match version {
        Version::Http2 if !upgrade => {
            parts.version = http::Version::HTTP_2;
            let host = parts.headers.remove(HOST);
            let authority = host.as_ref().and_then(|host| host.to_str().ok()?.parse().ok());
            uri.authority = authority;
            uri.scheme = uri.authority.is_some().then_some(Scheme::HTTP);
        }
        _ => parts.version = http::Version::HTTP_11,
    }
    // Every part was one of a URI already.
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
}

/// Says how a body of unknown length is framed where our client of HTTP/1.1 would take it for none:
/// with methods that mostly have no body.
pub(super) fn frame(parts: &mut Parts, has_body: bool) {
    let is_framed = !has_body || parts.headers.contains_key(CONTENT_LENGTH);
    let is_rare = matches!(parts.method, Method::GET | Method::HEAD);
    if parts.version == http::Version::HTTP_11 && is_rare && !is_framed {
        parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Makes a response ready for the client.
pub(super) fn to_client<B>(response: &mut Response<B>, took: Duration) {
    let switching = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
    strip(response.headers_mut(), switching);
    if switching {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    response.headers_mut().insert(SERVICE_TIME, HeaderValue::from(millis));
    // The client's own connection has its own version.
    *response.version_mut() = http::Version::HTTP_11;
}

/// Removes what was meant for this hop alone.
fn strip(headers: &mut HeaderMap, upgrade: bool) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            let kept = KEPT.contains(&name.as_str()) || name.as_str().starts_with("x-forwarded-");
            let asked_for = upgrade && name == UPGRADE;
            if !(kept || asked_for) {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 §6.3: the coding counts, and a length beside it must not travel on.
        headers.remove(CONTENT_LENGTH);
    }
    for name in [
        &PROXY_CONNECTION,
        &KEEP_ALIVE,
        &PROXY_AUTHENTICATE,
        &PROXY_AUTHORIZATION,
        &TRANSFER_ENCODING,
        &TE,
    ] {
        headers.remove(name);
    }
    if !upgrade {
        headers.remove(UPGRADE);
    }
}

fn wants_trailers(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default();
    text.split(',').any(|one| one.trim().eq_ignore_ascii_case("trailers"))
}

/// RFC 9113 §8.2.3: cookies in pieces become one again.
fn join_cookies(headers: &mut HeaderMap) {
    let name = http::header::COOKIE;
    let mut pieces = headers.get_all(&name).iter();
    let (Some(first), Some(_)) = (pieces.next(), pieces.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for piece in headers.get_all(&name).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(piece.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(name, joined);
    }
}

/// A random UUID (RFC 9562, version 4).
fn request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|at| !matches!(at, 8 | 13 | 18 | 23));
    for (nibble, place) in (0..32).rev().zip(places) {
        text[place] = DIGITS[(random >> (nibble * 4)) as usize & 0xf];
    }
    HeaderValue::from_bytes(&text).expect("digits and dashes are printable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut map = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            map.append(name, value);
        }
        map
    }

    #[test]
    fn what_connection_names_is_removed_except_what_policy_may_depend_on() {
        let mut map = headers(&[
            ("connection", "x-hop, Authorization, x-forwarded-for"),
            ("x-hop", "1"),
            ("authorization", "secret"),
            ("x-forwarded-for", "1.2.3.4"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("x-end", "1"),
        ]);
        strip(&mut map, false);
        let mut names: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "x-end", "x-forwarded-for"]);
    }

    #[test]
    fn cookies_are_joined_and_nothing_else_is() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2"), ("x", "1"), ("x", "2")]);
        join_cookies(&mut map);
        assert_eq!(map.get_all("cookie").iter().count(), 1);
        assert_eq!(map["cookie"], "a=1; b=2");
        assert_eq!(map.get_all("x").iter().count(), 2);
    }

    #[test]
    fn request_ids_are_uuids_of_version_4() {
        let id = request_id();
        let text = id.to_str().unwrap();
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "4");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
        assert_ne!(request_id(), id);
    }
}
