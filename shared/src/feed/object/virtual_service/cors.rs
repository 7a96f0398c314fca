//! `corsPolicy`.

use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderName, Method};

use crate::feed::fields::Fields;
use crate::feed::object::destination::values;
use crate::feed::verdict::Cause;
use crate::mesh::{Cors, OriginMatch, Others, ValueMatch};

use super::{MOST_ENTRIES, matches};

pub(super) fn read(fields: &Fields<'_>) -> Cors {
    let mut origins = Vec::new();
    for one in fields.at_most("allowOrigins", MOST_ENTRIES) {
        origins.extend(matches::string_match(&one).map(|value| match value {
            ValueMatch::Exact(text) => exact(text),
            ValueMatch::Start(text) => OriginMatch::Start(text),
            ValueMatch::Regex(pattern) => OriginMatch::Regex(pattern),
            ValueMatch::Present => OriginMatch::Any,
        }));
    }
    // Of old versions.
    origins.extend(fields.texts("allowOrigin").into_iter().map(|text| exact(text.into())));
    let others = match fields.text("unmatchedPreflights") {
        None | Some("UNSPECIFIED" | "FORWARD") => Others::Forwarded,
        Some("IGNORE") => Others::Refused,
        Some(other) => {
            let reason = format!("\"{other}\" is none of UNSPECIFIED, FORWARD and IGNORE");
            fields.report("unmatchedPreflights", Cause::Invalid, reason);
            Others::Forwarded
        }
    };
    Cors {
        origins: origins.into(),
        credentials: fields.flag("allowCredentials").unwrap_or(false),
        methods: names(fields, "allowMethods", "method", |text| Method::from_str(text).ok()),
        headers: names(fields, "allowHeaders", "header name", header),
        exposed: names(fields, "exposeHeaders", "header name", header),
        max_age: values::any_time(fields, "maxAge"),
        others,
    }
}

fn exact(text: Arc<str>) -> OriginMatch {
    if *text == *"*" { OriginMatch::Any } else { OriginMatch::Exact(text) }
}

fn header(text: &str) -> Option<HeaderName> {
    HeaderName::try_from(text).ok()
}

/// A list, or `None` where it has a `*`.
fn names<T>(
    fields: &Fields<'_>,
    name: &str,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<Box<[T]>> {
    if fields.texts(name).contains(&"*") {
        return None;
    }
    let parse = |text: &str| parse(text).ok_or_else(|| format!("is no {what}"));
    Some(fields.parsed_list(name, parse).into())
}
