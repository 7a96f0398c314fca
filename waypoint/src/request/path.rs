//! Paths in their normal form, so that what is matched is what the application sees.
//!
//! As Istio's default (BASE): unreserved characters are decoded, `.` and `..` segments resolved,
//! backslashes are slashes. Escaped slashes stay, and so do empty segments.
//! Source: RFC 3986 §6.2.2; spec L7 §4.6.

use http::uri::PathAndQuery;

use crate::request::BadRequest;

/// The normal form, unless the path is in it already.
///
/// # Errors
/// It is no path, or it leads above the root.
pub(super) fn normal(given: Option<&PathAndQuery>) -> Result<Option<PathAndQuery>, BadRequest> {
    let Some(given) = given else { return Err(BadRequest::Path("there is none")) };
    let path = given.path();
    if path == "*" || is_normal(path) {
        return Ok(None);
    }
    if !path.starts_with('/') {
        return Err(BadRequest::Path("it does not begin with a slash"));
    }
    let decoded = decode(path)?;
    let mut text = resolve(&decoded)?;
    if let Some(query) = given.query() {
        text.push('?');
        text.push_str(query);
    }
    text.try_into().map(Some).map_err(|_| BadRequest::Path("it is no path"))
}

fn is_normal(path: &str) -> bool {
    path.starts_with('/') && !path.contains(['%', '\\']) && !path.contains("/.")
}

/// Decodes what needs no escape; what stays escaped is written with capital digits.
fn decode(path: &str) -> Result<String, BadRequest> {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find(['%', '\\']) {
        text.push_str(&rest[..at]);
        if rest.as_bytes()[at] == b'\\' {
            text.push('/');
            rest = &rest[at + 1..];
            continue;
        }
        let digits =
            rest.get(at + 1..at + 3).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        let digits = digits.ok_or(BadRequest::Path("an escape is incomplete"))?;
        let byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        match byte {
            0 => return Err(BadRequest::Path("it holds a NUL")),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => {
                text.push('%');
                text.push_str(&digits.to_ascii_uppercase());
            }
        }
        rest = &rest[at + 3..];
    }
    text.push_str(rest);
    Ok(text)
}

/// RFC 3986 §5.2.4.
fn resolve(path: &str) -> Result<String, BadRequest> {
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path[1..].split('/').peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." && segments.pop().is_none() {
                    return Err(BadRequest::Path("it leads above the root"));
                }
                if last {
                    segments.push("");
                }
            }
            _ => segments.push(part),
        }
    }
    Ok(format!("/{}", segments.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal_of(text: &str) -> Result<String, BadRequest> {
        let given: PathAndQuery = text.parse().unwrap();
        Ok(normal(Some(&given))?.unwrap_or(given).to_string())
    }

    #[test]
    fn what_is_matched_is_what_the_application_sees() {
        for (given, expected) in [
            ("/admin", "/admin"),
            ("/./admin", "/admin"),
            ("/%61dmin", "/admin"),
            ("/a/../admin", "/admin"),
            ("/a/%2e%2e/admin", "/admin"),
            ("/admin/", "/admin/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("//admin", "//admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/a/..%2fadmin", "/a/..%2Fadmin"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a?b=/../c%61", "/a?b=/../c%61"),
            ("/./a?b=%2e", "/a?b=%2e"),
            ("*", "*"),
        ] {
            assert_eq!(normal_of(given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn what_has_no_normal_form_is_refused() {
        for given in ["/..", "/a/../..", "/%", "/%4", "/%zz", "/%00"] {
            assert!(normal_of(given).is_err(), "{given}");
        }
    }

    #[test]
    fn the_normal_form_is_stable() {
        for given in ["/./a/%7e/../b%2f", "/a\\b", "//", "/a/./b/../../c//d/.."] {
            let Ok(given) = given.parse::<PathAndQuery>() else { continue };
            let Ok(Some(once)) = normal(Some(&given)) else { continue };
            assert!(
                matches!(normal(Some(&once)), Ok(twice) if twice.as_ref().is_none_or(|twice| *twice == once))
            );
        }
    }
}
