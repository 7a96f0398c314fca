//! From decoded fields to requests and responses, by the rules of RFC 9113 §8.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::hbone::{Request, Response};

/// The fields of one header block, checked as they come.
#[derive(Debug, Default)]
pub(super) struct Head {
    method: Option<Box<[u8]>>,
    authority: Option<Box<str>>,
    status: Option<StatusCode>,
    /// `:scheme`, `:path`: forbidden on CONNECT, expected elsewhere.
    target_fields: u8,
    headers: HeaderMap,
    regular_seen: bool,
    malformed: bool,
}

/// What a header block asks of a server.
#[derive(Debug)]
pub(super) enum Asked {
    Tunnel(Request),
    /// A well-formed request that is not CONNECT, or has no authority.
    SomethingElse,
    /// RFC 9113 §8.1.1: a stream error.
    Malformed,
}

impl Head {
    pub(super) fn push(&mut self, name: &[u8], value: &[u8]) {
        if self.malformed {
            return;
        }
        let accepted = match name.strip_prefix(b":") {
            Some(pseudo) => self.pseudo(pseudo, value),
            None => self.regular(name, value),
        };
        self.malformed = accepted.is_none();
    }

    /// RFC 9113 §8.3: known, once each, and before all others.
    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        if self.regular_seen {
            return None;
        }
        match name {
            b"method" if self.method.is_none() => self.method = Some(value.into()),
            b"authority" if self.authority.is_none() => {
                let visible = value.iter().all(u8::is_ascii_graphic);
                let text = std::str::from_utf8(value).ok().filter(|_| visible)?;
                self.authority = Some(text.into());
            }
            b"status" if self.status.is_none() => {
                self.status = Some(StatusCode::from_bytes(value).ok()?);
            }
            b"scheme" if self.target_fields & 1 == 0 => self.target_fields |= 1,
            b"path" if self.target_fields & 2 == 0 && !value.is_empty() => self.target_fields |= 2,
            _ => return None,
        }
        Some(())
    }

    /// RFC 9113 §8.2: lower case, and nothing that is about the connection.
    fn regular(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        self.regular_seen = true;
        if name.iter().any(u8::is_ascii_uppercase) {
            return None;
        }
        let edge = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
        if edge(value.first()) || edge(value.last()) {
            return None;
        }
        match name {
            b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding"
            | b"upgrade" => return None,
            b"te" if value != b"trailers" => return None,
            _ => {}
        }
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value).ok()?;
        self.headers.try_append(name, value).ok()?;
        Some(())
    }

    /// Whether this block can be trailers: no pseudo fields at all.
    pub(super) fn is_trailers(&self) -> bool {
        let pseudo = self.method.is_some()
            || self.authority.is_some()
            || self.status.is_some()
            || self.target_fields != 0;
        !self.malformed && !pseudo
    }

    pub(super) fn into_request(self) -> Asked {
        let Some(method) = self.method else { return Asked::Malformed };
        if self.malformed || self.status.is_some() {
            return Asked::Malformed;
        }
        if &*method != b"CONNECT" {
            // RFC 9113 §8.3.1: all three of :method, :scheme and :path.
            let whole = self.target_fields == 3 && Method::from_bytes(&method).is_ok();
            return if whole { Asked::SomethingElse } else { Asked::Malformed };
        }
        // RFC 9113 §8.5: :scheme and :path MUST be omitted.
        match self.authority {
            _ if self.target_fields != 0 => Asked::Malformed,
            None => Asked::SomethingElse,
            Some(authority) => Asked::Tunnel(Request { authority, headers: self.headers }),
        }
    }

    /// `None` when malformed.
    pub(super) fn into_response(self) -> Option<Response> {
        let foreign = self.method.is_some() || self.authority.is_some() || self.target_fields != 0;
        if self.malformed || foreign {
            return None;
        }
        // RFC 9113 §8.6: 101 does not exist in HTTP/2.
        let status = self.status.filter(|status| *status != StatusCode::SWITCHING_PROTOCOLS)?;
        Some(Response { status, headers: self.headers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    #[test]
    fn connect_needs_method_and_authority_only() {
        let asked = head(&[(":method", "CONNECT"), (":authority", "1.2.3.4:80"), ("x", "y")]);
        let Asked::Tunnel(request) = asked.into_request() else { panic!("refused") };
        assert_eq!(&*request.authority, "1.2.3.4:80");
        assert_eq!(request.headers["x"], "y");
    }

    #[test]
    fn other_requests_are_answered_and_not_broken() {
        let get = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")];
        assert!(matches!(head(&get).into_request(), Asked::SomethingElse));
        let nowhere = head(&[(":method", "CONNECT")]);
        assert!(matches!(nowhere.into_request(), Asked::SomethingElse));
    }

    #[test]
    fn malformed_heads_are_refused() {
        let connect = [(":method", "CONNECT"), (":authority", "a:1")];
        let bad: &[(&str, &str)] = &[
            (":method", "CONNECT"),
            (":scheme", "https"),
            (":protocol", "websocket"),
            ("Upper", "x"),
            ("connection", "close"),
            ("te", "gzip"),
            ("bad name", "x"),
            ("x", "a\nb"),
            ("x", " a"),
        ];
        for field in bad {
            let asked = head(&[connect[0], connect[1], *field]).into_request();
            assert!(matches!(asked, Asked::Malformed), "{field:?}");
        }
        let late = head(&[connect[0], ("x", "y"), connect[1]]).into_request();
        assert!(matches!(late, Asked::Malformed));
    }

    #[test]
    fn a_response_has_a_status_and_nothing_of_a_request() {
        assert!(head(&[(":status", "200")]).into_response().is_some());
        assert!(head(&[(":status", "101")]).into_response().is_none());
        assert!(head(&[(":status", "200"), (":path", "/")]).into_response().is_none());
        assert!(head(&[("x", "y")]).into_response().is_none());
    }
}
