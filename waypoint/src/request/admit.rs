//! What a request must be before anything is decided about it.
//!
//! Invariants: a request whose end two readers could see in different places is refused; the path is
//! normal from here on; headers that a client must not set are gone.
//! Source: RFC 9110, RFC 9112 §6, RFC 9113 §8; spec L7 §4.6, §4.7, §8.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;

use crate::node::Config;
use crate::request::{forward, path};

/// Written by us alone: what a client claims there must not reach the application.
const FORBIDDEN: [HeaderName; 6] = [
    forward::CLIENT_CERT,
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
];

/// Why a request must not be forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Both Transfer-Encoding and Content-Length: the classic way to smuggle.
    #[error("both transfer-encoding and content-length")]
    BothFramings,
    /// A body that breaks the rules of its framing.
    #[error("body is invalid: {0}")]
    Body(Box<str>),
    /// A transfer coding that is not plain `chunked`.
    #[error("transfer-encoding is not chunked: {0:?}")]
    Coding(Box<str>),
    /// No Host, several, or one that is none.
    #[error("host is missing or invalid: {0}")]
    Host(&'static str),
    /// The path cannot be made normal.
    #[error("path is invalid: {0}")]
    Path(&'static str),
    /// HTTP/1.0.
    #[error("http/1.0 is not served")]
    Version,
    /// CONNECT: a waypoint is no proxy for other addresses.
    #[error("connect is not served here")]
    Connect,
    /// An upgrade to something other than WebSocket.
    #[error("cannot upgrade to {0:?}")]
    Upgrade(Box<str>),
    /// Too many headers.
    #[error("more than {0} headers")]
    TooManyHeaders(usize),
}

/// An upgrade to WebSocket that the client asks for.
pub(crate) enum Upgrade {
    /// RFC 6455: the connection becomes it.
    Http1,
    /// RFC 8441: a stream becomes it. The key is ours.
    Http2 {
        /// The client's side of the stream.
        client: OnUpgrade,
        /// `Sec-WebSocket-Key` towards the endpoint.
        key: [u8; 24],
    },
}

impl Upgrade {
    /// The key that the endpoint must show to have read, where we made it.
    pub(crate) fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Http1 => None,
            Self::Http2 { key, .. } => Some(key),
        }
    }
}

/// Checks `request` and makes it normal.
///
/// # Errors
/// [`BadRequest`] says what is wrong with it.
pub(super) fn admit(
    request: &mut Request<Incoming>,
    config: &Config,
) -> Result<Option<Upgrade>, BadRequest> {
    if request.headers().len() > config.max_headers {
        return Err(BadRequest::TooManyHeaders(config.max_headers));
    }
    framing(request)?;
    host(request)?;
    let upgrade = upgrade(request)?;
    if request.method() == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    // RFC 9110 §7.1: the asterisk is for OPTIONS alone.
    if request.uri().path() == "*" && request.method() != Method::OPTIONS {
        return Err(BadRequest::Path("it is an asterisk"));
    }
    if let Some(normal) = path::normal(request.uri().path_and_query())? {
        set_path(request.uri_mut(), normal)?;
    }
    let headers = request.headers_mut();
    for name in &FORBIDDEN {
        headers.remove(name);
    }
    // hyper answers 100 itself when the body is first asked for.
    headers.remove(EXPECT);
    Ok(upgrade)
}

fn framing(request: &Request<Incoming>) -> Result<(), BadRequest> {
    match request.version() {
        Version::HTTP_10 | Version::HTTP_09 => return Err(BadRequest::Version),
        Version::HTTP_11 => {}
        // Its frames say where a message ends.
        _ => return Ok(()),
    }
    let headers = request.headers();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if headers.contains_key(CONTENT_LENGTH) {
        return Err(BadRequest::BothFramings);
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(BadRequest::Coding(String::from_utf8_lossy(coding.as_bytes()).into()));
    }
    Ok(())
}

/// Leaves exactly one Host, which names what the client asked for.
fn host(request: &mut Request<Incoming>) -> Result<(), BadRequest> {
    // RFC 9112 §3.2.2: the target's own authority wins over Host.
    let named = request.uri().authority().cloned();
    if request.version() == Version::HTTP_11 {
        let mut hosts = request.headers().get_all(HOST).iter();
        let first = hosts.next().ok_or(BadRequest::Host("there is none"))?;
        if hosts.next().is_some() {
            return Err(BadRequest::Host("there are several"));
        }
        if !first.is_empty() {
            check_host(first)?;
        } else if named.is_none() {
            return Ok(());
        }
    }
    let Some(authority) = named else {
        let mut hosts = request.headers().get_all(HOST).iter();
        return match (hosts.next(), hosts.next()) {
            (Some(host), None) => check_host(host),
            (Some(_), Some(_)) => Err(BadRequest::Host("there are several")),
            (None, _) => Err(BadRequest::Host("there is none")),
        };
    };
    if authority.as_str().contains('@') {
        return Err(BadRequest::Host("it holds user information"));
    }
    check_port(&authority)?;
    let value = HeaderValue::from_str(authority.as_str());
    let value = value.map_err(|_| BadRequest::Host("it is no host"))?;
    request.headers_mut().insert(HOST, value);
    Ok(())
}

fn check_host(value: &HeaderValue) -> Result<(), BadRequest> {
    let text = value.to_str().map_err(|_| BadRequest::Host("it is no host"))?;
    if text.contains('@') {
        return Err(BadRequest::Host("it holds user information"));
    }
    let authority = text.parse::<Authority>().map_err(|_| BadRequest::Host("it is no host"))?;
    check_port(&authority)
}

/// The type of an authority lets everything pass for a port.
fn check_port(authority: &Authority) -> Result<(), BadRequest> {
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    match port.strip_prefix(':') {
        None | Some("") => Ok(()),
        Some(digits) if digits.parse::<u16>().is_ok() => Ok(()),
        Some(_) => Err(BadRequest::Host("its port is no port")),
    }
}

fn upgrade(request: &mut Request<Incoming>) -> Result<Option<Upgrade>, BadRequest> {
    if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
        if protocol.as_str() != "websocket" {
            return Err(BadRequest::Upgrade(protocol.as_str().into()));
        }
        let client = hyper::upgrade::on(&mut *request);
        *request.method_mut() = Method::GET;
        let key = crate::request::websocket::key();
        // RFC 8441 §5: the client sends none, and the endpoint needs one.
        let shown = HeaderValue::from_bytes(&key).expect("base64 is ASCII");
        request.headers_mut().insert(SEC_WEBSOCKET_KEY, shown);
        return Ok(Some(Upgrade::Http2 { client, key }));
    }
    let headers = request.headers_mut();
    if !headers.contains_key(UPGRADE) || !names(headers, &CONNECTION, "upgrade") {
        headers.remove(UPGRADE);
        return Ok(None);
    }
    if names(headers, &UPGRADE, "websocket") {
        return Ok(Some(Upgrade::Http1));
    }
    // RFC 9110 §7.8: whoever does not know the protocol goes on without it. h2c is not spoken this way.
    headers.remove(UPGRADE);
    Ok(None)
}

/// Whether one of the words of the list `name` is `word`.
fn names(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let words = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    words.flat_map(|value| value.split(',')).any(|one| one.trim().eq_ignore_ascii_case(word))
}

fn set_path(uri: &mut Uri, path: PathAndQuery) -> Result<(), BadRequest> {
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(path);
    *uri = Uri::from_parts(parts).map_err(|_| BadRequest::Path("it is no path"))?;
    Ok(())
}
