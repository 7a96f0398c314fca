//! Cross-origin resource sharing: answering for the backend which pages may call it.
//!
//! Source: WHATWG Fetch, "CORS protocol"; Gateway API GEP-1767.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use shared::mesh::{self, OriginMatch, Others};

/// What browsers are told about other origins.
#[derive(Debug, Clone)]
pub struct Cors {
    origins: Box<[OriginMatch]>,
    credentials: bool,
    /// The lists as headers, without one when empty.
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
    others: Others,
}

const ANY: HeaderValue = HeaderValue::from_static("*");

impl Cors {
    pub(super) fn new(cors: mesh::Cors) -> Self {
        Self {
            origins: cors.origins,
            credentials: cors.credentials,
            methods: listed(cors.methods.as_deref()),
            headers: listed(cors.headers.as_deref()),
            exposed: listed(cors.exposed.as_deref()),
            max_age: cors.max_age.map(|age| HeaderValue::from(age.as_secs())),
            others: cors.others,
        }
    }

    /// The answer to a preflight, which goes to a backend only where other origins are its business:
    /// without permissions when the origin has none. `None` for every other request.
    pub fn preflight(&self, request: &Parts) -> Option<(StatusCode, HeaderMap)> {
        if request.method != Method::OPTIONS {
            return None;
        }
        let origin = request.headers.get(ORIGIN)?;
        let method = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let allowed = self.allowed(origin);
        if allowed.is_none() && self.others == Others::Forwarded {
            return None;
        }
        let mut answer = HeaderMap::new();
        answer.insert(
            VARY,
            HeaderValue::from_static(
                "origin, access-control-request-method, access-control-request-headers",
            ),
        );
        if let Some(allowed) = allowed {
            self.permit(allowed, &mut answer);
            if let Some(methods) = self.echoed(self.methods.as_ref(), Some(method)) {
                answer.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            }
            let asked = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
            if let Some(headers) = self.echoed(self.headers.as_ref(), asked) {
                answer.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
            }
            if let Some(max_age) = &self.max_age {
                answer.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
            }
        }
        Some((StatusCode::NO_CONTENT, answer))
    }

    /// Puts the permissions of a request from `origin` into its response, instead of whatever the
    /// backend says about them.
    pub fn decorate(&self, origin: Option<&HeaderValue>, response: &mut HeaderMap) {
        let allowed = origin.and_then(|origin| self.allowed(origin));
        if allowed.is_none() && self.others == Others::Forwarded {
            return;
        }
        for name in [
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_EXPOSE_HEADERS,
        ] {
            response.remove(name);
        }
        if self.is_by_origin() {
            response.append(VARY, HeaderValue::from(ORIGIN));
        }
        let Some(allowed) = allowed else { return };
        self.permit(allowed, response);
        // Fetch: with credentials a star is a name, and what a script reads is not known here.
        if let Some(exposed) = self.exposed.as_ref().filter(|one| !self.credentials || *one != ANY)
        {
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }

    fn permit(&self, allowed: HeaderValue, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// What `Access-Control-Allow-Origin` says to this origin, if it is allowed.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if !self.is_by_origin() {
            return Some(ANY);
        }
        let bytes = origin.as_bytes();
        self.origins.iter().any(|one| is_match(one, bytes)).then(|| origin.clone())
    }

    /// Whether the answer depends on who asks. With credentials a star is no permission (Fetch).
    fn is_by_origin(&self) -> bool {
        self.credentials || !self.origins.contains(&OriginMatch::Any)
    }

    /// A list; where it is a star and that is no permission, what was asked for.
    fn echoed(
        &self,
        list: Option<&HeaderValue>,
        asked: Option<&HeaderValue>,
    ) -> Option<HeaderValue> {
        let list = list?;
        if self.credentials && *list == ANY { asked.cloned() } else { Some(list.clone()) }
    }
}

fn is_match(allowed: &OriginMatch, origin: &[u8]) -> bool {
    match allowed {
        OriginMatch::Any => true,
        OriginMatch::Exact(own) => origin.eq_ignore_ascii_case(own.as_bytes()),
        OriginMatch::Wildcard(before, behind) => {
            let (before, behind) = (before.as_bytes(), behind.as_bytes());
            let Some(middle) = origin.len().checked_sub(before.len() + behind.len()) else {
                return false;
            };
            let (start, rest) = origin.split_at(before.len());
            let (star, end) = rest.split_at(middle);
            start.eq_ignore_ascii_case(before)
                && end.eq_ignore_ascii_case(behind)
                && !star.is_empty()
                && star.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte))
        }
        OriginMatch::Start(own) => origin.starts_with(own.as_bytes()),
        OriginMatch::Regex(pattern) => pattern.is_match(origin),
    }
}

/// Names as a header; `None` stands for all of them, and an empty list for no header.
fn listed<T: AsRef<str>>(names: Option<&[T]>) -> Option<HeaderValue> {
    let Some(names) = names else { return Some(ANY) };
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    HeaderValue::try_from(names.join(", ")).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderName, Request};

    use super::*;

    fn rule() -> mesh::Cors {
        mesh::Cors {
            origins: [
                OriginMatch::Exact("https://a.example".into()),
                OriginMatch::Wildcard("https://".into(), ".b.example:444".into()),
            ]
            .into(),
            credentials: false,
            methods: Some([Method::GET, Method::PUT].into()),
            headers: None,
            exposed: Some([HeaderName::from_static("x-seen")].into()),
            max_age: Some(Duration::from_secs(5)),
            others: Others::Refused,
        }
    }

    fn ask(cors: &Cors, origin: &str) -> HeaderMap {
        let request = Request::options("/")
            .header(ORIGIN, origin)
            .header(ACCESS_CONTROL_REQUEST_METHOD, "DELETE")
            .header(ACCESS_CONTROL_REQUEST_HEADERS, "x-a, x-b");
        let request = request.body(()).unwrap().into_parts().0;
        let (status, answer) = cors.preflight(&request).unwrap();
        assert_eq!(status, StatusCode::NO_CONTENT);
        answer
    }

    #[test]
    fn origins_match_exactly_or_by_subdomain() {
        let cors = Cors::new(rule());
        for (origin, expected) in [
            ("https://a.example", true),
            ("https://A.example", true),
            ("http://a.example", false),
            ("https://a.example:443", false),
            ("https://x.a.example", false),
            ("https://x.b.example:444", true),
            ("https://x.y.b.example:444", true),
            ("https://b.example:444", false),
            ("https://.b.example:444", false),
            ("https://x.b.example", false),
            ("https://evil/.b.example:444", false),
            ("null", false),
        ] {
            let answer = ask(&cors, origin);
            let allowed = answer.get(ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(allowed.is_some(), expected, "{origin}");
            assert!(allowed.is_none_or(|value| value == origin));
            assert_eq!(answer.contains_key(ACCESS_CONTROL_MAX_AGE), expected);
        }
    }

    #[test]
    fn preflight_says_what_is_permitted() {
        let answer = ask(&Cors::new(rule()), "https://a.example");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "*");
        assert_eq!(answer[ACCESS_CONTROL_MAX_AGE], "5");
        assert!(!answer.contains_key(ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }

    #[test]
    fn with_credentials_stars_are_replaced_by_what_was_asked_for() {
        let origins = [OriginMatch::Any].into();
        let open = mesh::Cors { origins, methods: None, exposed: None, ..rule() };
        let answer = ask(&Cors::new(open.clone()), "https://c.example");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "*");
        let cors = Cors::new(mesh::Cors { credentials: true, ..open });
        let answer = ask(&cors, "https://c.example");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://c.example");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "DELETE");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "x-a, x-b");
        let mut response = HeaderMap::new();
        cors.decorate(Some(&HeaderValue::from_static("https://c.example")), &mut response);
        assert!(!response.contains_key(ACCESS_CONTROL_EXPOSE_HEADERS));
    }

    #[test]
    fn only_preflights_are_answered() {
        let cors = Cors::new(rule());
        let plain = Request::options("/").header(ORIGIN, "https://a.example").body(()).unwrap();
        assert!(cors.preflight(&plain.into_parts().0).is_none());
        let get = Request::get("/").header(ORIGIN, "https://a.example");
        let get = get.header(ACCESS_CONTROL_REQUEST_METHOD, "GET").body(()).unwrap();
        assert!(cors.preflight(&get.into_parts().0).is_none());
    }

    #[test]
    fn responses_say_what_the_route_says_and_not_the_backend() {
        let cors = Cors::new(rule());
        let mut response = HeaderMap::new();
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        cors.decorate(Some(&HeaderValue::from_static("https://evil.example")), &mut response);
        assert!(!response.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
        assert_eq!(response[VARY], "origin");
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        cors.decorate(Some(&HeaderValue::from_static("https://a.example")), &mut response);
        assert_eq!(response[ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(response[ACCESS_CONTROL_EXPOSE_HEADERS], "x-seen");
    }
}
