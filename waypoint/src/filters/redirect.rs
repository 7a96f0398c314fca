//! Answering with another address.

use http::header::HOST;
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderValue, StatusCode};
use shared::mesh::{self, RedirectPort, RedirectScheme};

use super::path;

/// A redirection.
#[derive(Debug, Clone)]
pub struct Redirect(mesh::Redirect);

impl Redirect {
    pub(super) fn new(redirect: mesh::Redirect) -> Self {
        Self(redirect)
    }

    /// The status and `Location` of the answer. `prefix` is how much matched of the path, and
    /// `dialled_port` the port of the service that the client connected to.
    pub fn location(
        &self,
        request: &Parts,
        prefix: Option<usize>,
        dialled_port: u16,
    ) -> (StatusCode, HeaderValue) {
        let redirect = &self.0;
        let scheme = redirect.scheme.map_or_else(
            || scheme_of(request),
            |scheme| match scheme {
                RedirectScheme::Http => "http",
                RedirectScheme::Https => "https",
            },
        );
        let asked = host_of(request);
        let host = redirect.hostname.as_deref().or_else(|| Some(asked?.0));
        let mut location = String::new();
        if let Some(host) = host {
            location.push_str(scheme);
            location.push_str("://");
            location.push_str(host);
            let own = if scheme == "https" { 443 } else { 80 };
            let port = match redirect.port {
                RedirectPort::Said(port) => port,
                RedirectPort::OfScheme => own,
                RedirectPort::Dialled => dialled_port,
                RedirectPort::AsAsked if redirect.hostname.is_some() => own,
                RedirectPort::AsAsked => as_asked(asked, scheme_of(request), own),
            };
            if port != own {
                location.push(':');
                location.push_str(&port.to_string());
            }
        }
        let path = request.uri.path();
        let change = redirect.path.as_ref();
        let changed = change.and_then(|change| path::changed(change, path, prefix));
        let path = changed.unwrap_or_else(|| path.into());
        if host.is_none() && path.starts_with("//") {
            // RFC 3986 §4.2: without a host before them, two slashes would begin one.
            location.push_str("/.");
        }
        location.push_str(&path);
        // A virtual service may say a query of its own.
        if let Some(query) = request.uri.query().filter(|_| !path.contains('?')) {
            location.push('?');
            location.push_str(query);
        }
        let value = HeaderValue::try_from(location);
        (redirect.status, value.unwrap_or_else(|_| HeaderValue::from_static("/")))
    }
}

fn scheme_of(request: &Parts) -> &str {
    request.uri.scheme_str().filter(|scheme| *scheme == "https").unwrap_or("http")
}

/// The host and the port that the client asked for.
fn host_of(request: &Parts) -> Option<(&str, Option<u16>)> {
    if let Some(host) = request.uri.host() {
        return Some((host, request.uri.port_u16()));
    }
    let text = request.headers.get(HOST)?.to_str().ok()?;
    let authority = text.parse::<Authority>().ok()?;
    let host = text.get(..authority.host().len()).filter(|host| *host == authority.host())?;
    Some((host, authority.port_u16()))
}

/// Envoy: the port stays as it was written, unless it is that of the scheme which the request had.
fn as_asked(asked: Option<(&str, Option<u16>)>, scheme: &str, own: u16) -> u16 {
    let old = if scheme == "https" { 443 } else { 80 };
    asked.and_then(|(_, port)| port).filter(|port| *port != old).unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use http::Request;
    use shared::mesh::PathChange;

    use super::*;

    fn plain() -> mesh::Redirect {
        let status = StatusCode::FOUND;
        let port = RedirectPort::Dialled;
        mesh::Redirect { scheme: None, hostname: None, path: None, port, status }
    }

    fn location(redirect: mesh::Redirect, host: &str, target: &str, port: u16) -> String {
        let request = Request::get(target).header(HOST, host).body(()).unwrap().into_parts().0;
        let (status, value) = Redirect::new(redirect).location(&request, Some(2), port);
        assert_eq!(status, StatusCode::FOUND);
        value.to_str().unwrap().to_owned()
    }

    #[test]
    fn port_is_the_one_said_or_the_schemes_or_the_dialled_one() {
        use RedirectPort::{AsAsked, Dialled, OfScheme, Said};
        let (http, https) = (Some(RedirectScheme::Http), Some(RedirectScheme::Https));
        for (scheme, port, dialled, expected) in [
            (None, Dialled, 80, "http://h/a/b?c=d"),
            (None, Dialled, 8080, "http://h:8080/a/b?c=d"),
            (None, Said(8083), 80, "http://h:8083/a/b?c=d"),
            (None, Said(80), 8080, "http://h/a/b?c=d"),
            (https, OfScheme, 8080, "https://h/a/b?c=d"),
            (https, Said(443), 8080, "https://h/a/b?c=d"),
            (https, Said(8443), 8080, "https://h:8443/a/b?c=d"),
            (https, Said(80), 80, "https://h:80/a/b?c=d"),
            (http, OfScheme, 8080, "http://h/a/b?c=d"),
            (http, Said(443), 80, "http://h:443/a/b?c=d"),
            (https, AsAsked, 80, "https://h:1234/a/b?c=d"),
        ] {
            let redirect = mesh::Redirect { scheme, port, ..plain() };
            let shown = location(redirect, "h:1234", "/a/b?c=d", dialled);
            assert_eq!(shown, expected, "{scheme:?} {port:?} {dialled}");
        }
    }

    #[test]
    fn port_that_nobody_says_stays_as_it_was_written() {
        let port = RedirectPort::AsAsked;
        let https = Some(RedirectScheme::Https);
        for (scheme, hostname, host, expected) in [
            (None, None, "h", "http://h/"),
            (None, None, "h:80", "http://h/"),
            (None, None, "h:8080", "http://h:8080/"),
            (https, None, "h:80", "https://h/"),
            (https, None, "h:443", "https://h/"),
            (https, None, "h:8080", "https://h:8080/"),
            (None, Some("new"), "h:8080", "http://new/"),
            (None, Some("new:81"), "h:8080", "http://new:81/"),
        ] {
            let hostname = hostname.map(Into::into);
            let redirect = mesh::Redirect { scheme, hostname, port, ..plain() };
            assert_eq!(location(redirect, host, "/", 9), expected, "{scheme:?} {host}");
        }
    }

    #[test]
    fn host_and_path_are_those_of_the_request_unless_replaced() {
        let path = |path| mesh::Redirect { path: Some(path), ..plain() };
        let full = PathChange::Full("/x".into());
        assert_eq!(location(path(full), "h", "/a/b?q", 80), "http://h/x?q");
        let with_query = PathChange::Full("/x?own".into());
        assert_eq!(location(path(with_query), "h", "/a/b?q", 80), "http://h/x?own");
        let prefix = PathChange::Prefix("/x".into());
        assert_eq!(location(path(prefix.clone()), "h", "/a/b", 80), "http://h/x/b");
        let other = mesh::Redirect { hostname: Some("new.example".into()), ..path(prefix) };
        assert_eq!(location(other, "h", "/a", 80), "http://new.example/x");
        assert_eq!(location(plain(), "[fd00::1]:80", "/", 80), "http://[fd00::1]/");
        assert_eq!(location(plain(), "x", "http://of.uri:1/p", 80), "http://of.uri/p");
        assert_eq!(location(plain(), "not a host", "//evil/a", 80), "/.//evil/a");
    }
}
