//! Answers of our own: failures, redirects, CORS.
//!
//! Invariants: a failure says its cause in `proxy-status` (RFC 9209); gRPC callers get gRPC statuses.
//! Source: spec L7 §3.11, §8.7.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};

use shared::mesh::AbortStatus;

use crate::outcome::Outcome;
use crate::request::{Body, Failure, Story};
use crate::router::Matched;

/// RFC 9209: what an answer has to do with a proxy.
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// Envoy's word for a request that was refused because there are too many.
const OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");
/// Envoy's word for a request that came too early: it is not to be sent again at once.
pub(crate) const RATE_LIMITED: HeaderName = HeaderName::from_static("x-envoy-ratelimited");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The answer of a rule that forwards nothing: a CORS preflight, a redirect or a body of its own.
///
/// # Errors
/// [`Failure::Filter`] when the rule cannot be honoured.
pub(crate) fn instead(
    matched: &Matched<'_>,
    request: &Parts,
    port: u16,
) -> Result<Option<Response<Body>>, Failure> {
    let filters = &matched.rule.filters;
    if let Some(reason) = &filters.refused {
        return Err(Failure::Filter(reason.clone()));
    }
    if let Some((status, headers)) = filters.cors.as_ref().and_then(|cors| cors.preflight(request))
    {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        return Ok(Some(response));
    }
    if let Some(direct) = &filters.direct {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = direct.status;
        if !direct.body.is_empty() {
            *response.body_mut() = Body::Text(Some(direct.body.clone()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        filters.response_headers.apply(response.headers_mut());
        return Ok(Some(response));
    }
    let Some(redirect) = &filters.redirect else { return Ok(None) };
    let (status, location) = redirect.location(request, matched.prefix, port);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, location);
    filters.response_headers.apply(response.headers_mut());
    Ok(Some(response))
}

/// The answer to a request that failed.
pub(crate) fn failure(failure: Failure, story: &mut Story) -> Response<Body> {
    let outcome = Outcome::from(&failure);
    story.fail(outcome, &failure);
    let text = match failure {
        // Envoy's words: which policy it was is for the log.
        Failure::Denied(_) | Failure::Revoked(_) => "RBAC: access denied".to_owned(),
        Failure::RateLimited(_) => "local_rate_limited".to_owned(),
        _ => failure.to_string(),
    };
    let mut response = match failure {
        Failure::Aborted(AbortStatus::Grpc(code)) => grpc(code, &text),
        Failure::Aborted(AbortStatus::Http(status)) => of_status(status, text, story),
        _ => of_status(outcome.status(), text, story),
    };
    let headers = response.headers_mut();
    headers.insert(PROXY_STATUS, proxy_status(outcome));
    match &failure {
        Failure::Overflow(_) => drop(headers.insert(OVERLOADED, HeaderValue::from_static("true"))),
        Failure::RateLimited(limited) => come_later(limited.wait, story.is_grpc, headers),
        _ => {}
    }
    if matches!(failure, Failure::Bad(_)) && story.version != Version::HTTP_2 {
        // Whoever breaks the rules once is not trusted with where the next request begins.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if outcome == Outcome::VERSION_UNSUPPORTED {
        // RFC 9110 §15.5.22.
        headers.insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
    }
    response
}

/// Says when the next request of the kind would pass.
fn come_later(wait: Duration, is_grpc: bool, headers: &mut HeaderMap) {
    headers.insert(RATE_LIMITED, HeaderValue::from_static("true"));
    // RFC 9110 §10.2.3: whole seconds; one at least, as too early is in vain.
    let seconds = wait.as_nanos().div_ceil(1_000_000_000).max(1);
    headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
    if is_grpc {
        // gRPC A6: clients that retry wait so long.
        let millis = i32::try_from(wait.as_nanos().div_ceil(1_000_000).max(1));
        headers.insert(GRPC_PUSHBACK, HeaderValue::from(millis.unwrap_or(i32::MAX)));
    }
}

/// Whoever speaks gRPC is told in its words.
fn of_status(status: StatusCode, text: String, story: &Story) -> Response<Body> {
    match story.is_grpc {
        true => grpc(grpc_status(status), &text),
        false => plain(status, text),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::Text(Some(Bytes::from(text))));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// Trailers only: status 200, and what happened in `grpc-status`.
fn grpc(code: u8, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(code)));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(text)) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

/// gRPC's own mapping (spec L7 §8.7).
fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 | 407 => 16,
        403 => 7,
        404 => 12,
        429 | 500 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            0x20..=0x7e if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The cause, as a value of [`PROXY_STATUS`].
pub(crate) fn proxy_status(outcome: Outcome) -> HeaderValue {
    let text = format!("culvert; details={}", outcome.code());
    HeaderValue::try_from(text).expect("codes are ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_hold_printable_ascii_only() {
        assert_eq!(percent_encoded("50% über\n"), "50%25 %C3%BCber%0A");
    }

    #[test]
    fn backend_failures_are_unavailable() {
        for status in [500, 502, 503, 504, 429] {
            assert_eq!(grpc_status(StatusCode::from_u16(status).unwrap()), 14);
        }
        assert_eq!(grpc_status(StatusCode::NOT_FOUND), 12);
        assert_eq!(grpc_status(StatusCode::IM_A_TEAPOT), 2);
    }
}
