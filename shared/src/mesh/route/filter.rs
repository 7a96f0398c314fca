//! What is done to requests and responses on the way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde::Serialize;

use super::{Pattern, Substitution, Target, dump};

/// The filters of a rule or a backend; a backend has header changes only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteFilters {
    /// Applied to requests.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub request_headers: HeaderChanges,
    /// Applied to responses.
    #[serde(skip_serializing_if = "HeaderChanges::is_empty")]
    pub response_headers: HeaderChanges,
    /// Requests are answered with another address; never together with `rewrite` or `direct`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Requests are sent under another address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<Rewrite>,
    /// Requests are answered so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<DirectResponse>,
    /// Browsers of other origins are answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// There is a filter that Culvert does not have, so every request is answered 500.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Arc<str>>,
}

/// Changes of headers. No name is twice in one list.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HeaderChanges {
    /// Replace whatever is there.
    #[serde(serialize_with = "dump::headers", skip_serializing_if = "<[_]>::is_empty")]
    pub set: Box<[(HeaderName, HeaderValue)]>,
    /// Are put beside what is there.
    #[serde(serialize_with = "dump::headers", skip_serializing_if = "<[_]>::is_empty")]
    pub add: Box<[(HeaderName, HeaderValue)]>,
    /// Are taken away.
    #[serde(serialize_with = "dump::texts", skip_serializing_if = "<[_]>::is_empty")]
    pub remove: Box<[HeaderName]>,
}

impl HeaderChanges {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A redirection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Redirect {
    /// Scheme; `None` for that of the request.
    pub scheme: Option<RedirectScheme>,
    /// Host, of a `VirtualService` perhaps with a port; `None` for that of the request.
    pub hostname: Option<Arc<str>>,
    /// Path; `None` for that of the request.
    pub path: Option<PathChange>,
    /// Port; never written where the scheme says it already.
    pub port: RedirectPort,
    /// 301, 302, 303, 307 or 308.
    #[serde(serialize_with = "dump::text")]
    pub status: StatusCode,
}

/// An answer that no backend is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirectResponse {
    /// 200 to 599.
    #[serde(serialize_with = "dump::text")]
    pub status: StatusCode,
    /// Its body.
    #[serde(serialize_with = "dump::body", skip_serializing_if = "Bytes::is_empty")]
    pub body: Bytes,
}

/// The port of a redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectPort {
    /// This one.
    Said(u16),
    /// That of the scheme.
    OfScheme,
    /// The one of the service that the client connected to.
    Dialled,
    /// As it stands in the host: in the one that is said here, or else the client's.
    AsAsked,
}

/// The scheme of a redirection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum RedirectScheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

/// Another address for the backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rewrite {
    /// Host.
    #[serde(serialize_with = "dump::value")]
    pub hostname: Option<HeaderValue>,
    /// Path.
    pub path: Option<PathChange>,
}

/// Another path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PathChange {
    /// Instead of the whole path.
    Full(Arc<str>),
    /// Instead of the prefix that matched.
    Prefix(Arc<str>),
    /// Instead of the letters that matched, slashes or not; of the whole path where they are no
    /// prefix. Of a `VirtualService`, as the next.
    Start(Arc<str>),
    /// Instead of everything that an expression finds.
    Found(Substitution),
}

/// Where copies of requests go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mirror {
    /// The backend; one that is invalid gets nothing.
    #[serde(serialize_with = "dump::target")]
    pub target: Target,
    /// So many of `denominator` requests.
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

/// Cross-origin resource sharing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Origins that are answered.
    pub origins: Box<[OriginMatch]>,
    /// Whether browsers may send cookies and certificates.
    pub credentials: bool,
    /// Methods; `None` for `*`.
    #[serde(serialize_with = "dump::list")]
    pub methods: Option<Box<[Method]>>,
    /// Request headers; `None` for `*`.
    #[serde(serialize_with = "dump::list")]
    pub headers: Option<Box<[HeaderName]>>,
    /// Response headers that scripts see; `None` for `*`.
    #[serde(serialize_with = "dump::list")]
    pub exposed: Option<Box<[HeaderName]>>,
    /// How long browsers remember the answer; `None` leaves it to them.
    pub max_age: Option<Duration>,
    /// What becomes of other origins.
    pub others: Others,
}

/// What becomes of origins that are not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Others {
    /// Preflights are answered without permissions; of the backend's permissions none is left.
    Refused,
    /// They are the backend's business, preflights too.
    Forwarded,
}

/// An origin, or many. In lower case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum OriginMatch {
    /// `*`.
    Any,
    /// `scheme://host[:port]`.
    Exact(Arc<str>),
    /// `scheme://*.suffix[:port]`: what stands before and behind the star.
    Wildcard(Arc<str>, Arc<str>),
    /// It begins so. Of a `VirtualService`, as the next.
    Start(Arc<str>),
    /// The whole origin is in the language of the expression.
    Regex(Pattern),
}
