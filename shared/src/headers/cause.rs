//! `culvert-cause`: why a tunnel was refused, by the name that the refusing proxy logs.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header's name. Only ours send it; others ignore it.
pub const CAUSE: HeaderName = HeaderName::from_static("culvert-cause");

/// Longer names do not exist.
const LONGEST_BYTES: usize = 64;

/// The cause in `headers`, if it is an `UPPER_SNAKE` name.
pub fn cause(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(CAUSE)?.to_str().ok()?;
    let legal = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let fits = !text.is_empty() && text.len() <= LONGEST_BYTES;
    (fits && text.bytes().all(legal)).then_some(text)
}

/// Headers that say `code` alone.
pub fn refusal(code: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CAUSE, HeaderValue::from_static(code))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_a_name_or_absent() {
        assert_eq!(cause(&refusal("POLICY_DENIED")), Some("POLICY_DENIED"));
        for text in ["", "lower", "A B", "A=1"] {
            let headers = HeaderMap::from_iter([(CAUSE, HeaderValue::from_static(text))]);
            assert_eq!(cause(&headers), None, "{text}");
        }
    }
}
