//! Changing headers, and the host of a request.

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use shared::mesh::HeaderChanges;

/// Changes of the headers of requests or responses.
#[derive(Debug, Clone, Default)]
pub struct HeaderEdits {
    changes: HeaderChanges,
    host: Option<HeaderValue>,
}

impl HeaderEdits {
    /// Changes of requests. `Host`, set or added, is another host for the request, because a
    /// request has exactly one.
    pub fn of_requests(changes: &HeaderChanges) -> Self {
        let is_host = |(name, _): &&(HeaderName, HeaderValue)| *name == HOST;
        let found = changes.set.iter().chain(&changes.add).find(is_host);
        let host = found.map(|(_, value)| value.clone());
        let mut changes = changes.clone();
        if host.is_some() {
            for list in [&mut changes.set, &mut changes.add] {
                *list = list.iter().filter(|pair| !is_host(pair)).cloned().collect();
            }
        }
        Self { changes, host }
    }

    /// Changes of responses.
    pub fn of_responses(changes: &HeaderChanges) -> Self {
        Self { changes: changes.clone(), host: None }
    }

    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.host.is_none()
    }

    /// The host that requests get.
    pub fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// Changes `headers`: as in Envoy, first what is removed, so that a header can be taken away
    /// from the client and added by the route.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.changes.remove {
            headers.remove(name);
        }
        for (name, value) in &self.changes.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.changes.add {
            headers.append(name, value.clone());
        }
        if let Some(host) = &self.host {
            headers.insert(HOST, host.clone());
        }
    }

    /// Changes the headers of a request, and its authority when the host changes.
    pub fn apply_to_request(&self, request: &mut Parts) {
        self.apply(&mut request.headers);
        if let Some(host) = &self.host {
            set_host(request, host);
        }
    }
}

/// Gives a request another host, wherever it has one: `:authority` of HTTP/2 is in the URI.
pub(super) fn set_host(request: &mut Parts, host: &HeaderValue) {
    if request.uri.authority().is_none() || request.headers.contains_key(HOST) {
        request.headers.insert(HOST, host.clone());
    }
    if request.uri.authority().is_some()
        && let Ok(authority) = Authority::try_from(host.as_bytes())
    {
        let mut parts = std::mem::take(&mut request.uri).into_parts();
        parts.authority = Some(authority);
        // The parts were those of a URI, and one authority is as good as another.
        request.uri = Uri::from_parts(parts).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    type Pairs = &'static [(&'static str, &'static str)];

    fn pairs(list: Pairs) -> Box<[(HeaderName, HeaderValue)]> {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        list.iter().map(pair).collect()
    }

    fn changes(set: Pairs, add: Pairs, remove: &[&'static str]) -> HeaderChanges {
        let remove = remove.iter().map(|name| HeaderName::from_static(name)).collect();
        HeaderChanges { set: pairs(set), add: pairs(add), remove }
    }

    #[test]
    fn headers_are_removed_then_set_then_added() {
        for (set, add, remove, before, after) in [
            (&[("a", "1")][..], &[][..], &[][..], &[("a", "0"), ("a", "9")][..], &[("a", "1")][..]),
            (&[], &[("a", "1")], &[], &[("a", "0")], &[("a", "0"), ("a", "1")]),
            (&[], &[("a", "1")], &[], &[], &[("a", "1")]),
            (&[], &[], &["a"], &[("a", "0"), ("a", "1"), ("b", "2")], &[("b", "2")]),
            (&[("a", "1")], &[("a", "2")], &["a"], &[("a", "0")], &[("a", "1"), ("a", "2")]),
        ]
            as [(Pairs, Pairs, &[&'static str], Pairs, Pairs); 5]
        {
            let mut headers: HeaderMap = pairs(before).into_vec().into_iter().collect();
            HeaderEdits::of_responses(&changes(set, add, remove)).apply(&mut headers);
            let expected: HeaderMap = pairs(after).into_vec().into_iter().collect();
            assert_eq!(headers, expected, "{set:?} {add:?} {remove:?} on {before:?}");
        }
    }

    #[test]
    fn host_replaces_the_authority_of_a_request() {
        let edits = HeaderEdits::of_requests(&changes(&[], &[("host", "new.example")], &[]));
        assert_eq!(edits.host().unwrap(), "new.example");
        let request = Request::get("/a?b").header("host", "old").body(()).unwrap();
        let mut one = request.into_parts().0;
        edits.apply_to_request(&mut one);
        assert_eq!(one.headers.get_all(HOST).iter().collect::<Vec<_>>(), ["new.example"]);
        assert_eq!(one.uri, "/a?b");
        let mut two = Request::get("http://old/a?b").body(()).unwrap().into_parts().0;
        edits.apply_to_request(&mut two);
        assert_eq!(two.uri, "http://new.example/a?b");
    }
}
