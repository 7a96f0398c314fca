//! `filters` of rules and backends.
//!
//! Invariants: a filter that Culvert does not have is not passed over; what it stands in for is
//! refused (spec L7 §2.5).

use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;
use crate::identity::is_dns1123_subdomain;
use crate::mesh::{
    PathChange, Redirect, RedirectPort, RedirectScheme, Rewrite, RouteFilters, RouteKind,
};

use super::headers::Side;
use super::{BackendRef, MirrorRef, cors, headers, paths};

/// The types of filters and the fields that hold them.
const TYPES: &[(&str, &str)] = &[
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestMirror", "requestMirror"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("CORS", "cors"),
    ("ExtensionRef", "extensionRef"),
    ("ExternalAuth", "externalAuth"),
];

/// The filters of a rule.
pub(super) fn of_rule(
    rule: &Fields<'_>,
    kind: RouteKind,
    namespace: &Arc<str>,
    intern: &mut Interner,
) -> (RouteFilters, Vec<MirrorRef>) {
    // What gRPC has no use for, its API has no fields for.
    let known = if kind == RouteKind::Grpc { 3 } else { 6 };
    let mut filters = RouteFilters::default();
    let mut mirrors = Vec::new();
    for (kind, fields) in each(rule, known, &mut filters) {
        if kind == "RequestMirror" {
            mirrors.extend(mirror(&fields, namespace, intern));
        } else {
            put(&mut filters, kind, &fields, intern);
        }
    }
    if let Some(kind) = &filters.refused {
        let reason = format!("filter {kind} is not supported, so the rule answers 500");
        rule.report("filters", Cause::Unsupported, &reason);
        filters.refused = Some(reason.into());
    }
    (filters, mirrors)
}

/// The filters of a backend, which are for headers only, as at Istio's waypoints.
pub(super) fn of_backend(backend: &Fields<'_>) -> RouteFilters {
    let mut filters = RouteFilters::default();
    for (kind, fields) in each(backend, 2, &mut filters) {
        let changes = headers::read(&fields, side(kind));
        match side(kind) {
            Side::Request => filters.request_headers = changes,
            Side::Response => filters.response_headers = changes,
        }
    }
    if let Some(kind) = &filters.refused {
        let reason =
            format!("filter {kind} is not supported on a backend, so its share answers 500");
        backend.report("filters", Cause::Unsupported, &reason);
        filters.refused = Some(reason.into());
    }
    filters
}

/// The filters of the first `known` types, with the field that says what they do. The first other
/// one refuses.
fn each<'a>(
    owner: &Fields<'a>,
    known: usize,
    filters: &mut RouteFilters,
) -> Vec<(&'static str, Fields<'a>)> {
    let mut all: Vec<(&'static str, Fields<'a>)> = Vec::new();
    for filter in owner.at_most("filters", 16) {
        let kind = filter.text("type").unwrap_or("");
        let Some((kind, field)) = TYPES[..known].iter().find(|(own, _)| *own == kind) else {
            filter.foreign(&filter.names().collect::<Vec<_>>());
            if kind.is_empty() {
                filter.report("type", Cause::Invalid, "a filter needs a type");
            }
            filters.refused.get_or_insert_with(|| kind.into());
            continue;
        };
        let Some(fields) = filter.fields(field) else {
            filter.report(field, Cause::Invalid, format_args!("a {kind} needs this field"));
            continue;
        };
        if *kind != "RequestMirror" && all.iter().any(|(earlier, _)| earlier == kind) {
            filter.report("type", Cause::Invalid, format_args!("{kind} may be there once"));
            continue;
        }
        all.push((*kind, fields));
    }
    all
}

fn side(kind: &str) -> Side {
    if kind == "RequestHeaderModifier" { Side::Request } else { Side::Response }
}

fn put(filters: &mut RouteFilters, kind: &str, fields: &Fields<'_>, intern: &mut Interner) {
    match kind {
        "RequestHeaderModifier" => filters.request_headers = headers::read(fields, Side::Request),
        "ResponseHeaderModifier" => {
            filters.response_headers = headers::read(fields, Side::Response);
        }
        "RequestRedirect" => filters.redirect = Some(redirect(fields, intern)),
        "URLRewrite" => filters.rewrite = Some(rewrite(fields, intern)),
        _ => filters.cors = Some(cors::read(fields)),
    }
}

fn redirect(fields: &Fields<'_>, intern: &mut Interner) -> Redirect {
    let scheme = match fields.text("scheme") {
        None => None,
        Some("http") => Some(RedirectScheme::Http),
        Some("https") => Some(RedirectScheme::Https),
        Some(other) => {
            fields.report("scheme", Cause::Invalid, format_args!("\"{other}\" is no scheme here"));
            None
        }
    };
    let port = fields.number("port");
    if port == Some(0) {
        fields.report("port", Cause::Invalid, "must be 1 to 65535");
    }
    // Gateway API: the port that is said, else that of the scheme that is said, else the one of the
    // request.
    let port = match (port, scheme) {
        (Some(port), _) => RedirectPort::Said(port),
        (None, Some(_)) => RedirectPort::OfScheme,
        (None, None) => RedirectPort::Dialled,
    };
    let status = match fields.number::<u16>("statusCode") {
        None => StatusCode::FOUND,
        Some(301) => StatusCode::MOVED_PERMANENTLY,
        Some(302) => StatusCode::FOUND,
        Some(303) => StatusCode::SEE_OTHER,
        Some(307) => StatusCode::TEMPORARY_REDIRECT,
        Some(308) => StatusCode::PERMANENT_REDIRECT,
        Some(_) => {
            fields.report("statusCode", Cause::Invalid, "must be 301, 302, 303, 307 or 308");
            StatusCode::FOUND
        }
    };
    let hostname = hostname(fields).map(|text| intern.text(text));
    Redirect { scheme, hostname, path: path(fields, intern), port, status }
}

fn rewrite(fields: &Fields<'_>, intern: &mut Interner) -> Rewrite {
    let hostname = hostname(fields).and_then(|text| HeaderValue::from_str(text).ok());
    Rewrite { hostname, path: path(fields, intern) }
}

fn hostname<'a>(fields: &Fields<'a>) -> Option<&'a str> {
    let text = fields.text("hostname")?;
    if !is_dns1123_subdomain(text) {
        fields.report("hostname", Cause::Invalid, format_args!("\"{text}\" is no host name"));
        return None;
    }
    Some(text)
}

fn path(fields: &Fields<'_>, intern: &mut Interner) -> Option<PathChange> {
    let path = fields.fields("path")?;
    let (kind, full) = (path.text("type").unwrap_or(""), path.text("replaceFullPath"));
    let prefix = path.text("replacePrefixMatch");
    let (field, text) = match (kind, full, prefix) {
        ("ReplaceFullPath", Some(full), None) => ("replaceFullPath", full),
        ("ReplacePrefixMatch", None, Some(prefix)) => ("replacePrefixMatch", prefix),
        _ => {
            let reason = "must be ReplaceFullPath or ReplacePrefixMatch, with that field alone";
            path.report("type", Cause::Invalid, reason);
            return None;
        }
    };
    if let Err(reason) = paths::check_replacement(text, field == "replacePrefixMatch") {
        path.report(field, Cause::Invalid, reason);
        return None;
    }
    Some(if field == "replaceFullPath" {
        PathChange::Full(intern.text(text))
    } else {
        PathChange::Prefix(intern.text(text))
    })
}

fn mirror(fields: &Fields<'_>, namespace: &Arc<str>, intern: &mut Interner) -> Option<MirrorRef> {
    let percent = fields.number::<u32>("percent");
    let (mut numerator, mut denominator) = (percent.unwrap_or(100), 100);
    if let Some(fraction) = fields.fields("fraction") {
        numerator = fraction.number("numerator").unwrap_or(0);
        denominator = fraction.number("denominator").unwrap_or(100);
        if percent.is_some() {
            fields.report("fraction", Cause::Invalid, "excludes percent");
        }
    }
    if numerator > denominator || denominator == 0 {
        let reason = "must be a share of 0 to 1";
        fields.report(
            if percent.is_some() { "percent" } else { "fraction" },
            Cause::Invalid,
            reason,
        );
    }
    let Some(backend) = fields.fields("backendRef") else {
        fields.report("backendRef", Cause::Invalid, "a mirror needs a backend");
        return None;
    };
    let reference = BackendRef::read(&backend, namespace, intern)?;
    Some(MirrorRef { reference, numerator, denominator })
}
