//! `filters[].cors`.

use std::str::FromStr;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderName, Method};

use crate::feed::fields::Fields;
use crate::feed::verdict::Cause;
use crate::mesh::{Cors, OriginMatch, Others};

pub(super) fn read(fields: &Fields<'_>) -> Cors {
    let most = |name: &str| {
        if fields.texts(name).len() > 64 {
            fields.report(name, Cause::Invalid, "has more than 64 entries");
        }
    };
    ["allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders"].into_iter().for_each(most);
    let max_age = fields.number::<u32>("maxAge").unwrap_or(5);
    if max_age == 0 {
        fields.report("maxAge", Cause::Invalid, "must be at least 1 second");
    }
    Cors {
        origins: fields.parsed_list("allowOrigins", origin).into(),
        credentials: fields.flag("allowCredentials").unwrap_or(false),
        methods: names(fields, "allowMethods", "method", |text| Method::from_str(text).ok()),
        headers: names(fields, "allowHeaders", "header name", header),
        exposed: names(fields, "exposeHeaders", "header name", header),
        max_age: Some(Duration::from_secs(u64::from(max_age))),
        others: Others::Refused,
    }
}

fn header(text: &str) -> Option<HeaderName> {
    HeaderName::try_from(text).ok()
}

/// A list, or `None` for `*`, which must be alone.
fn names<T>(
    fields: &Fields<'_>,
    name: &str,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Box<[T]>> {
    let texts = fields.texts(name);
    if texts == ["*"] {
        return None;
    }
    if texts.contains(&"*") {
        fields.report(name, Cause::Invalid, "\"*\" must be alone");
    }
    let parse = |text: &str| parse(text).ok_or_else(|| format!("is no {what}"));
    let parsed =
        fields.parsed_list(name, |text| if text == "*" { Ok(None) } else { parse(text).map(Some) });
    Some(parsed.into_iter().flatten().collect())
}

/// `*`, `scheme://host[:port]` or `scheme://*.host[:port]`.
fn origin(text: &str) -> Result<OriginMatch, String> {
    if text == "*" {
        return Ok(OriginMatch::Any);
    }
    let wrong = || "is no origin: write scheme://host or scheme://host:port".to_owned();
    let lower = text.to_ascii_lowercase();
    let (scheme, rest) = lower.split_once("://").ok_or_else(wrong)?;
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_scheme = !scheme.is_empty() && Scheme::try_from(scheme).is_ok();
    if port.is_some_and(|port| port.parse::<u16>().is_err()) || !is_scheme {
        return Err(wrong());
    }
    let bare = host.strip_prefix("*.").unwrap_or(host);
    let fine = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    if host != "*" && (bare.is_empty() || !bare.chars().all(fine)) {
        return Err(wrong());
    }
    match rest.strip_prefix('*') {
        Some(suffix) => Ok(OriginMatch::Wildcard(format!("{scheme}://").into(), suffix.into())),
        None => Ok(OriginMatch::Exact(lower.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact_or_have_one_star() {
        let exact = |text: &str| Ok(OriginMatch::Exact(text.into()));
        assert_eq!(origin("*"), Ok(OriginMatch::Any));
        assert_eq!(origin("https://A.example"), exact("https://a.example"));
        assert_eq!(origin("http://a.example:8080"), exact("http://a.example:8080"));
        assert_eq!(origin("http://[::1]"), exact("http://[::1]"));
        let wildcard = OriginMatch::Wildcard("https://".into(), ".a.example:444".into());
        assert_eq!(origin("https://*.a.example:444"), Ok(wildcard));
        for bad in [
            "",
            "a",
            "https://",
            "https://a/b",
            "https://a*b",
            "https://a:x",
            "https://*a",
            "://a",
            "https://*.*",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }
}
