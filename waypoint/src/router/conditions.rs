//! Whether a request is as a match wants it, apart from its path.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;

use http::HeaderName;
use http::header::HOST;
use http::request::Parts;
use shared::mesh::{Further, HeaderMatch, HttpMatch, ValueMatch};

/// A request that is being matched.
pub(super) struct Asked<'r> {
    request: &'r Parts,
    /// Namespace that the client proved to be of.
    client: Option<&'r str>,
    /// The first value of each query parameter, once one was asked for.
    query: OnceCell<HashMap<&'r str, &'r str>>,
}

impl<'r> Asked<'r> {
    pub(super) fn new(request: &'r Parts, client: Option<&'r str>) -> Self {
        Self { request, client, query: OnceCell::new() }
    }

    /// The path without query: `*` of `OPTIONS *`, "" of a CONNECT.
    pub(super) fn path(&self) -> &'r str {
        self.request.uri.path()
    }

    /// Whether everything but path and port is as `wanted`.
    pub(super) fn meets(&self, wanted: &HttpMatch) -> bool {
        wanted.method.as_ref().is_none_or(|method| *method == self.request.method)
            && wanted.headers.iter().all(|one| self.has(one))
            && wanted.query.iter().all(|one| {
                self.parameter(&one.name).is_some_and(|value| one.value.is_match(value.as_bytes()))
            })
            && wanted.further.as_ref().is_none_or(|further| self.meets_further(further))
    }

    fn meets_further(&self, wanted: &Further) -> bool {
        let is = |wanted: &Option<ValueMatch>, value: &dyn Fn() -> Option<Cow<'r, [u8]>>| {
            wanted.as_ref().is_none_or(|one| value().is_some_and(|value| one.is_match(&value)))
        };
        let scheme = || Some(self.request.uri.scheme_str().unwrap_or("http").as_bytes().into());
        is(&wanted.scheme, &scheme)
            && is(&wanted.methods, &|| Some(self.request.method.as_str().as_bytes().into()))
            && is(&wanted.authority, &|| self.header(&HOST))
            && wanted.source_namespace.as_deref().is_none_or(|own| self.client == Some(own))
            && !wanted.without_headers.iter().any(|one| self.has(one))
    }

    fn has(&self, wanted: &HeaderMatch) -> bool {
        self.header(&wanted.name).is_some_and(|value| wanted.value.is_match(&value))
    }

    /// The value of a header; several of one name are one, joined with commas (RFC 9110 §5.3). The
    /// host of HTTP/2 is in its URI.
    pub(super) fn header(&self, name: &HeaderName) -> Option<Cow<'r, [u8]>> {
        let mut values = self.request.headers.get_all(name).iter();
        let Some(first) = values.next() else {
            let authority = self.request.uri.authority().filter(|_| *name == HOST);
            return authority.map(|authority| authority.as_str().as_bytes().into());
        };
        let mut joined = Cow::Borrowed(first.as_bytes());
        for value in values {
            let joined = joined.to_mut();
            joined.push(b',');
            joined.extend_from_slice(value.as_bytes());
        }
        Some(joined)
    }

    /// The first value of a query parameter, as it stands in the URI.
    fn parameter(&self, name: &str) -> Option<&'r str> {
        let read = || {
            let mut all = HashMap::new();
            for pair in self.request.uri.query().unwrap_or("").split('&') {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                all.entry(name).or_insert(value);
            }
            all
        };
        self.query.get_or_init(read).get(name).copied()
    }
}
