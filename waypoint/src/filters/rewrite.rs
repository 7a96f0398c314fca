//! Sending under another address.

use http::header::HeaderName;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use shared::mesh;

use super::{headers, path};

/// Envoy: where the path was that a rewrite replaced.
const ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

/// Another host and path for the backend.
#[derive(Debug, Clone)]
pub struct Rewrite(mesh::Rewrite);

/// The new path has more than the 64 KiB of the longest URI, or does not begin with a slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the rewritten path is longer than a URI may be, or no path")]
pub struct NoPath;

impl Rewrite {
    pub(super) fn new(rewrite: mesh::Rewrite) -> Self {
        Self(rewrite)
    }

    /// Rewrites `request`, of whose path `prefix` bytes matched. The query stays.
    ///
    /// # Errors
    /// Leaves the request as it was when its path would be too long, or none.
    pub fn apply(&self, request: &mut Parts, prefix: Option<usize>) -> Result<(), NoPath> {
        if let Some(change) = &self.0.path {
            let old = request.uri.path();
            let new = path::changed(change, old, prefix).ok_or(NoPath)?;
            if new != old {
                let text = match request.uri.query() {
                    Some(query) => format!("{new}?{query}"),
                    None => new.into_owned(),
                };
                replace(request, &text)?;
            }
        }
        if let Some(host) = &self.0.hostname {
            headers::set_host(request, host);
        }
        Ok(())
    }
}

fn replace(request: &mut Parts, text: &str) -> Result<(), NoPath> {
    let original = request.uri.path_and_query().map_or("", PathAndQuery::as_str);
    let original = HeaderValue::from_bytes(original.as_bytes());
    let mut parts = request.uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).map_err(|_| NoPath)?);
    request.uri = Uri::from_parts(parts).map_err(|_| NoPath)?;
    if let Ok(original) = original {
        request.headers.insert(ORIGINAL_PATH, original);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::Request;
    use http::header::HOST;
    use shared::mesh::PathChange;

    use super::*;

    fn rewritten(rewrite: mesh::Rewrite, uri: &str) -> Parts {
        let request = Request::get(uri).header(HOST, "old").body(()).unwrap();
        let mut parts = request.into_parts().0;
        Rewrite::new(rewrite).apply(&mut parts, Some(2)).unwrap();
        parts
    }

    #[test]
    fn path_is_replaced_and_the_original_kept_in_a_header() {
        for (change, uri, expected) in [
            (PathChange::Full("/x".into()), "/a/b?q=1", "/x?q=1"),
            (PathChange::Prefix("/x".into()), "/a/b?q=1", "/x/b?q=1"),
            (PathChange::Prefix("/".into()), "/a", "/"),
            (PathChange::Prefix("/x".into()), "http://h/a/b", "http://h/x/b"),
        ] {
            let parts = rewritten(mesh::Rewrite { hostname: None, path: Some(change) }, uri);
            assert_eq!(parts.uri, expected);
            let original = uri.trim_start_matches("http://h");
            assert_eq!(parts.headers[ORIGINAL_PATH], original);
            assert_eq!(parts.headers[HOST], "old");
        }
    }

    #[test]
    fn host_is_replaced_alone() {
        let hostname = Some(HeaderValue::from_static("new"));
        let parts = rewritten(mesh::Rewrite { hostname, path: None }, "http://old/a");
        assert_eq!(parts.uri, "http://new/a");
        assert_eq!(parts.headers[HOST], "new");
        assert!(!parts.headers.contains_key(ORIGINAL_PATH));
    }

    #[test]
    fn path_that_grows_too_long_changes_nothing() {
        let uri = format!("/a/{}", "b".repeat(65_000));
        let mut parts = Request::get(&uri).body(()).unwrap().into_parts().0;
        let path = Some(PathChange::Prefix(format!("/{}", "x".repeat(1000)).into()));
        let rewrite = Rewrite::new(mesh::Rewrite { hostname: None, path });
        assert_eq!(rewrite.apply(&mut parts, Some(2)), Err(NoPath));
        assert_eq!(parts.uri, *uri);
    }
}
