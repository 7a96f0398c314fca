//! `forwarded`: whose connection this is and which service it asked for.

use std::fmt::Write as _;
use std::net::SocketAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header's name.
pub const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
/// Network of the original client; only on the inner request of a tunnel through a gateway.
pub const FORWARDED_NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");

/// Longer host names do not exist (RFC 1035 §2.3.4).
const LONGEST_HOST_BYTES: usize = 253;

/// What a peer says about the connection that it forwards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The original client. Believed only from the waypoint that is bound to the destination.
    pub client: Option<SocketAddr>,
    /// Host name of the service that the client asked for; labels only.
    pub host: Option<Box<str>>,
}

impl Forwarded {
    /// `for="<client>"`, then `;host=<host>` when a service is known.
    pub fn describe(client: SocketAddr, host: Option<&str>) -> HeaderValue {
        let mut text = String::with_capacity(96);
        let _ = write!(text, "for=\"{client}\"");
        if let Some(host) = host.filter(|host| is_host(host)) {
            text.push_str(";host=");
            text.push_str(host);
        }
        HeaderValue::try_from(text).expect("only printable ASCII was pushed")
    }

    /// The first line of `headers`; what does not parse is absent.
    pub fn parse(headers: &HeaderMap) -> Self {
        let line = headers.get(FORWARDED).and_then(|line| line.to_str().ok()).unwrap_or_default();
        let value = |name: &str| {
            let part = line.split(';').find_map(|part| part.trim().strip_prefix(name))?;
            Some(part.trim_matches('"')).filter(|part| !part.is_empty())
        };
        Self {
            client: value("for=").and_then(|text| text.parse().ok()),
            host: value("host=").filter(|host| is_host(host)).map(Into::into),
        }
    }
}

fn is_host(text: &str) -> bool {
    let legal =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'*');
    text.len() <= LONGEST_HOST_BYTES && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Forwarded {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED, HeaderValue::from_str(line).unwrap());
        Forwarded::parse(&headers)
    }

    #[test]
    fn parses_what_it_describes() {
        for client in ["10.0.0.1:80", "[fd00::1]:80"] {
            let client: SocketAddr = client.parse().unwrap();
            let line = Forwarded::describe(client, Some("shop.team.svc.cluster.local"));
            let read = parse(line.to_str().unwrap());
            assert_eq!(read.client, Some(client));
            assert_eq!(read.host.as_deref(), Some("shop.team.svc.cluster.local"));
        }
        assert_eq!(Forwarded::describe("1.2.3.4:5".parse().unwrap(), None), "for=\"1.2.3.4:5\"");
    }

    #[test]
    fn host_may_be_quoted_and_anywhere() {
        assert_eq!(parse("proto=tcp; host=\"a.b\"").host.as_deref(), Some("a.b"));
        assert_eq!(parse("host=").host, None);
        assert_eq!(parse("host=a b").host, None);
    }

    #[test]
    fn client_that_is_no_address_is_absent() {
        assert_eq!(parse("for=unknown;host=a").client, None);
    }
}
