//! Who may ask: the check before any page runs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, Method, StatusCode, header};

/// To whom a listener is exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// A unix socket that only the owner can open: everything.
    Owner,
    /// A port on loopback: reading only, and not from a web page that a browser on this machine
    /// shows (DNS rebinding, cross-site requests).
    Loopback,
    /// A port for anyone, for scraping and probing: reading only.
    Anyone,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) StatusCode, pub(super) &'static str);

impl Exposure {
    pub(super) fn admit(self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        if self == Self::Owner {
            return Ok(());
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(Refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "this port only reads; changes are made on the unix socket in the state directory\n",
            ));
        }
        if self == Self::Loopback {
            let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
            if !host.is_some_and(is_local) {
                return Err(Refusal(
                    StatusCode::FORBIDDEN,
                    "the host header does not name this machine\n",
                ));
            }
            let origin =
                headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
            let own = |origin: &str| {
                origin.strip_prefix("http://").is_some_and(|from| Some(from) == host)
            };
            if origin.is_some_and(|origin| !own(origin)) {
                return Err(Refusal(
                    StatusCode::FORBIDDEN,
                    "the request comes from a page of another origin\n",
                ));
            }
        }
        Ok(())
    }
}

/// `localhost` or a loopback address, with or without a port.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || name.parse::<Ipv6Addr>().is_ok_and(|ip| IpAddr::V6(ip).to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(host: Option<&'static str>, origin: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        headers
    }

    fn status(exposure: Exposure, method: &Method, headers: &HeaderMap) -> u16 {
        exposure.admit(method, headers).map_or_else(|refusal| refusal.0.as_u16(), |()| 200)
    }

    #[test]
    fn a_loopback_port_answers_only_those_who_mean_it() {
        for (host, origin, expected) in [
            (Some("127.0.0.1:15000"), None, 200),
            (Some("localhost:15000"), None, 200),
            (Some("[::1]:15000"), None, 200),
            (Some("[::ffff:127.0.0.1]"), None, 200),
            (Some("localhost:15000"), Some("http://localhost:15000"), 200),
            (Some("localhost:15000"), Some("http://localhost:3000"), 403),
            (Some("localhost:15000"), Some("null"), 403),
            (Some("evil.example:15000"), None, 403),
            (Some("localhost.evil.example"), None, 403),
            (Some("127.0.0.1.evil.example"), None, 403),
            (None, None, 403),
        ] {
            let headers = headers(host, origin);
            let status = status(Exposure::Loopback, &Method::GET, &headers);
            assert_eq!(status, expected, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn only_the_owner_changes_things() {
        let headers = headers(Some("localhost"), None);
        assert_eq!(status(Exposure::Loopback, &Method::POST, &headers), 405);
        assert_eq!(status(Exposure::Anyone, &Method::POST, &headers), 405);
        assert_eq!(status(Exposure::Owner, &Method::POST, &HeaderMap::new()), 200);
    }
}
