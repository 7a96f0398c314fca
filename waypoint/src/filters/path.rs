//! Another path for a request.

use std::borrow::Cow;

use shared::mesh::PathChange;

/// The most bytes that the http crate takes for a path with its query.
pub(super) const MOST_BYTES: usize = (u16::MAX - 1) as usize;

/// The path that `change` makes of `path`, of which the first `prefix` bytes matched. Where there is
/// no prefix that a replacement could stand for, the path stays, or is replaced as a whole in a
/// virtual service. Nothing when the new path would be too long, or none.
pub(super) fn changed<'a>(
    change: &'a PathChange,
    path: &'a str,
    prefix: Option<usize>,
) -> Option<Cow<'a, str>> {
    let split = prefix.and_then(|prefix| path.split_at_checked(prefix));
    let replacement = match change {
        PathChange::Full(full) => return Some(Cow::Borrowed(full)),
        PathChange::Prefix(replacement) => replacement.trim_end_matches('/'),
        // Istio: letters for letters, so that slashes may be doubled.
        PathChange::Start(replacement) => {
            let rest = split.map_or("", |(_, rest)| rest);
            return Some(Cow::Owned(format!("{replacement}{rest}")));
        }
        PathChange::Found(substitution) => {
            let new = substitution.replaced(path, MOST_BYTES)?;
            return new.starts_with('/').then_some(Cow::Owned(new));
        }
    };
    let Some((_, rest)) = split else { return Some(Cow::Borrowed(path)) };
    // Gateway API, HTTPPathModifier: slashes at the end of both are not looked at.
    Some(match (replacement, rest) {
        ("", "") => Cow::Borrowed("/"),
        ("", rest) => Cow::Borrowed(rest),
        (replacement, rest) => Cow::Owned(format!("{replacement}{rest}")),
    })
}

#[cfg(test)]
mod tests {
    use shared::mesh::Substitution;

    use super::*;

    #[test]
    fn prefixes_are_replaced_without_doubling_slashes() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo/bar", "", "/xyz", "/xyz/foo/bar"),
            ("/", "", "/xyz", "/xyz/"),
            ("*", "", "", "*"),
        ] {
            let change = PathChange::Prefix(replacement.into());
            let prefix_bytes = prefix.trim_end_matches('/').len();
            let shown = changed(&change, path, Some(prefix_bytes)).unwrap();
            assert_eq!(shown, expected, "{prefix} of {path} by {replacement}");
        }
    }

    #[test]
    fn whole_paths_are_replaced_whatever_matched() {
        let change = PathChange::Full("/one".into());
        assert_eq!(changed(&change, "/a/b", None).unwrap(), "/one");
        assert_eq!(changed(&PathChange::Prefix("/x".into()), "/a", None).unwrap(), "/a");
    }

    #[test]
    fn letters_are_replaced_as_they_are_and_whole_paths_where_no_prefix_matched() {
        for (path, prefix, replacement, expected) in [
            ("/foo/bar", Some("/foo"), "/", "//bar"),
            ("/foobar", Some("/foo"), "/x", "/xbar"),
            ("/FOO/bar", Some("/foo"), "/x", "/x/bar"),
            ("/bar", Some("/"), "/v1/", "/v1/bar"),
            ("/foo/bar", None, "/x", "/x"),
        ] {
            let change = PathChange::Start(replacement.into());
            let shown = changed(&change, path, prefix.map(str::len)).unwrap();
            assert_eq!(shown, expected, "{prefix:?} of {path} by {replacement}");
        }
    }

    #[test]
    fn what_an_expression_makes_is_a_path_or_nothing() {
        let found = |pattern: &str, rewrite: &str, path| {
            let change = PathChange::Found(Substitution::new(pattern, rewrite).unwrap());
            changed(&change, path, None).map(Cow::into_owned)
        };
        assert_eq!(found("/(.*)/x", r"/x/\1", "/a/x").as_deref(), Some("/x/a"));
        assert_eq!(found("^/", "", "/a"), None, "a path begins with a slash");
        let long = format!("/{}", "a".repeat(60_000));
        assert_eq!(found("a", "bb", &long), None);
    }
}
