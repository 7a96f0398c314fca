//! Paths that rules may name.

/// Whether Kubernetes accepts the text as a path: absolute, in the letters of RFC 3986, and without
/// what a server might read as another path.
pub(super) fn check(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("must begin with a slash".to_owned());
    }
    let lower = path.to_ascii_lowercase();
    for part in ["//", "/./", "/../", "%2f", "#"] {
        if lower.contains(part) {
            return Err(format!("must not contain \"{part}\""));
        }
    }
    if path.ends_with("/..") || path.ends_with("/.") {
        return Err("must not end in a dot segment".to_owned());
    }
    letters(path)
}

/// A path that replaces another one, or the prefix of one: "" or absolute.
pub(in crate::feed::object) fn check_replacement(
    path: &str,
    may_be_empty: bool,
) -> Result<(), String> {
    if path.len() > 1024 {
        return Err("is longer than 1024 bytes".to_owned());
    }
    if path.is_empty() && may_be_empty {
        return Ok(());
    }
    if !path.starts_with('/') {
        return Err("must begin with a slash".to_owned());
    }
    letters(path)
}

/// RFC 3986 §3.3: `pchar` and slashes.
fn letters(path: &str) -> Result<(), String> {
    let bytes = path.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let is_hex = |ahead: usize| bytes.get(at + ahead).is_some_and(u8::is_ascii_hexdigit);
        let fine = match byte {
            b'%' => is_hex(1) && is_hex(2),
            other => other.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(other),
        };
        if !fine {
            return Err(format!("has a letter at {at} that a path cannot have"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_could_be_read_as_others_are_refused() {
        for good in ["/", "/a", "/a/", "/a/..b", "/%20", "/a;b=c/@:"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "", "a", "//", "/a//b", "/./a", "/../a", "/a/..", "/a/.", "/%2F", "/a#b", "/%2",
            "/a b", "/ä", "/a?b",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
        assert_eq!(check_replacement("", true), Ok(()));
        assert!(check_replacement("", false).is_err());
        assert!(check_replacement("/a?b", false).is_err());
    }
}
