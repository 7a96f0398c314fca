//! Another path for a request.

use std::borrow::Cow;

use shared::mesh::PathChange;

/// The path that `change` makes of `path`, of which `prefix` matched. Without a prefix there is
/// nothing that its replacement could stand for, and the path stays.
pub(super) fn changed<'a>(
    change: &'a PathChange,
    path: &'a str,
    prefix: Option<&str>,
) -> Cow<'a, str> {
    let replacement = match change {
        PathChange::Full(full) => return Cow::Borrowed(full),
        PathChange::Prefix(replacement) => replacement.trim_end_matches('/'),
    };
    let Some(rest) = prefix.and_then(|prefix| path.strip_prefix(prefix.trim_end_matches('/')))
    else {
        return Cow::Borrowed(path);
    };
    // Gateway API, HTTPPathModifier: slashes at the end of both are not looked at.
    match (replacement, rest) {
        ("", "") => Cow::Borrowed("/"),
        ("", rest) => Cow::Borrowed(rest),
        (replacement, rest) => Cow::Owned(format!("{replacement}{rest}")),
    }
}

#[cfg(test)]
mod tests {
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
            let shown = changed(&change, path, Some(prefix));
            assert_eq!(shown, expected, "{prefix} of {path} by {replacement}");
        }
    }

    #[test]
    fn whole_paths_are_replaced_whatever_matched() {
        let change = PathChange::Full("/one".into());
        assert_eq!(changed(&change, "/a/b", None), "/one");
        assert_eq!(changed(&PathChange::Prefix("/x".into()), "/a", None), "/a");
    }
}
