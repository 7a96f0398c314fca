//! `matches`: what a request must look like.

use std::fmt::Display;

use http::{HeaderName, HeaderValue, Method};

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;
use crate::mesh::{HeaderMatch, HttpMatch, PathMatch, Pattern, QueryMatch, ValueMatch};

use super::{paths, required};

const METHODS: &[Method] = &[
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// One match of an `HTTPRoute`.
pub(super) fn http(fields: &Fields<'_>, intern: &mut Interner) -> HttpMatch {
    let path = fields.fields("path").and_then(|path| path_match(&path, intern));
    let method = fields.text("method").and_then(|text| {
        let known = METHODS.iter().find(|method| method.as_str() == text);
        if known.is_none() {
            fields.report("method", Cause::Invalid, format_args!("\"{text}\" is no method"));
        }
        known.cloned()
    });
    HttpMatch {
        path: path.unwrap_or_else(|| PathMatch::Prefix("".into())),
        headers: headers(fields),
        query: query(fields),
        method,
        further: None,
    }
}

fn path_match(fields: &Fields<'_>, intern: &mut Interner) -> Option<PathMatch> {
    let kind = fields.text("type").unwrap_or("PathPrefix");
    let value = fields.text("value").unwrap_or("/");
    if value.len() > 1024 {
        fields.report("value", Cause::Invalid, "is longer than 1024 bytes");
        return None;
    }
    let check = || match paths::check(value) {
        Ok(()) => Some(value),
        Err(reason) => {
            fields.report("value", Cause::Invalid, reason);
            None
        }
    };
    match kind {
        "Exact" => Some(PathMatch::Exact(intern.text(check()?))),
        "PathPrefix" => Some(PathMatch::Prefix(intern.text(check()?.trim_end_matches('/')))),
        "RegularExpression" => Some(PathMatch::Regex(pattern(fields, "value", value)?)),
        other => {
            unknown_type(fields, other);
            None
        }
    }
}

/// `headers` of a match.
pub(super) fn headers(fields: &Fields<'_>) -> Box<[HeaderMatch]> {
    let mut all: Vec<HeaderMatch> = Vec::new();
    for one in fields.at_most("headers", 16) {
        let name = required(&one, "name", 256);
        let value = value(&one, 4096, |text| HeaderValue::from_str(text).map(drop));
        let (Some(name), Some(value)) = (name, value) else { continue };
        let Ok(name) = HeaderName::try_from(name) else {
            one.report("name", Cause::Invalid, format_args!("\"{name}\" is no header name"));
            continue;
        };
        if all.iter().any(|earlier| earlier.name == name) {
            one.report("name", Cause::Shadowed, "the match has this header already");
            continue;
        }
        all.push(HeaderMatch { name, value });
    }
    all.into()
}

fn query(fields: &Fields<'_>) -> Box<[QueryMatch]> {
    let mut all: Vec<QueryMatch> = Vec::new();
    for one in fields.at_most("queryParams", 16) {
        let name = required(&one, "name", 256);
        let value = value(&one, 1024, |_| Ok::<(), HeaderError>(()));
        let (Some(name), Some(value)) = (name, value) else { continue };
        if all.iter().any(|earlier| *earlier.name == *name) {
            one.report("name", Cause::Shadowed, "the match has this parameter already");
            continue;
        }
        all.push(QueryMatch { name: name.into(), value });
    }
    all.into()
}

type HeaderError = http::header::InvalidHeaderValue;

fn value<E: Display>(
    fields: &Fields<'_>,
    most: usize,
    check: impl Fn(&str) -> Result<(), E>,
) -> Option<ValueMatch> {
    let kind = fields.text("type").unwrap_or("Exact");
    let text = required(fields, "value", most)?;
    match kind {
        "Exact" => match check(text) {
            Ok(()) => Some(ValueMatch::Exact(text.into())),
            Err(error) => {
                fields.report("value", Cause::Invalid, error);
                None
            }
        },
        "RegularExpression" => Some(ValueMatch::Regex(pattern(fields, "value", text)?)),
        other => {
            unknown_type(fields, other);
            None
        }
    }
}

/// The expression that a field holds.
pub(super) fn pattern(fields: &Fields<'_>, name: &str, text: &str) -> Option<Pattern> {
    match Pattern::new(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            fields.report(name, Cause::Invalid, error);
            None
        }
    }
}

pub(super) fn unknown_type(fields: &Fields<'_>, other: &str) {
    fields.report("type", Cause::Invalid, format_args!("\"{other}\" is no type of match"));
}
