//! `redirect`, `directResponse` and `rewrite`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, StatusCode};

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::object::route::paths;
use crate::feed::verdict::Cause;
use crate::mesh::{
    DirectResponse, PathChange, Redirect, RedirectPort, RedirectScheme, Rewrite, Substitution,
};

use super::matches;

/// 64 KiB. An answer is kept in memory with each version of the mesh.
const MOST_BODY_BYTES: usize = 64 << 10;

pub(super) fn redirect(fields: &Fields<'_>, intern: &mut Interner) -> Redirect {
    let scheme = match fields.text("scheme") {
        None | Some("") => None,
        Some("http") => Some(RedirectScheme::Http),
        Some("https") => Some(RedirectScheme::Https),
        Some(other) => {
            let reason = format!("\"{other}\" is neither http nor https");
            fields.report("scheme", Cause::Invalid, reason);
            None
        }
    };
    let port = match (matches::port(fields, "port"), fields.text("derivePort")) {
        (Some(port), None) => RedirectPort::Said(port),
        (None, None) => RedirectPort::AsAsked,
        (None, Some("FROM_PROTOCOL_DEFAULT")) => RedirectPort::OfScheme,
        (None, Some("FROM_REQUEST_PORT")) => RedirectPort::Dialled,
        (Some(_), Some(_)) => {
            fields.report("derivePort", Cause::Invalid, "port and derivePort exclude each other");
            RedirectPort::AsAsked
        }
        (None, Some(other)) => {
            let reason =
                format!("\"{other}\" is neither FROM_PROTOCOL_DEFAULT nor FROM_REQUEST_PORT");
            fields.report("derivePort", Cause::Invalid, reason);
            RedirectPort::AsAsked
        }
    };
    let status = match fields.number::<u16>("redirectCode") {
        // Istio: 0 is not said.
        None | Some(0 | 301) => StatusCode::MOVED_PERMANENTLY,
        Some(302) => StatusCode::FOUND,
        Some(303) => StatusCode::SEE_OTHER,
        Some(307) => StatusCode::TEMPORARY_REDIRECT,
        Some(308) => StatusCode::PERMANENT_REDIRECT,
        Some(_) => {
            fields.report("redirectCode", Cause::Invalid, "must be 301, 302, 303, 307 or 308");
            StatusCode::MOVED_PERMANENTLY
        }
    };
    let hostname = authority(fields).map(|text| intern.text(text));
    let path = fields.text("uri").filter(|text| !text.is_empty()).and_then(|text| {
        // Envoy: a query takes the place of the request's.
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        if let Err(reason) = paths::check_replacement(path, false) {
            fields.report("uri", Cause::Invalid, reason);
            return None;
        }
        if query.contains(|letter: char| !letter.is_ascii_graphic() || letter == '#') {
            fields.report("uri", Cause::Invalid, "has a letter that a query cannot have");
            return None;
        }
        Some(PathChange::Full(intern.text(text)))
    });
    Redirect { scheme, hostname, path, port, status }
}

pub(super) fn direct(fields: &Fields<'_>) -> DirectResponse {
    let status = fields.number::<u16>("status").filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    if status.is_none() {
        fields.report("status", Cause::Invalid, "must be 200 to 599");
    }
    let body = fields.fields("body").map(|one| body(&one)).unwrap_or_default();
    if body.len() > MOST_BODY_BYTES {
        fields.report("body", Cause::Invalid, "is longer than 64 KiB");
    }
    DirectResponse { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body }
}

fn body(fields: &Fields<'_>) -> Bytes {
    match (fields.text("string"), fields.text("bytes")) {
        (Some(_), Some(_)) => {
            fields.report("bytes", Cause::Invalid, "string and bytes exclude each other");
            Bytes::new()
        }
        (Some(text), None) => Bytes::copy_from_slice(text.as_bytes()),
        (None, Some(text)) => match STANDARD.decode(text) {
            Ok(bytes) => bytes.into(),
            Err(error) => {
                fields.report("bytes", Cause::Invalid, format_args!("is no base64: {error}"));
                Bytes::new()
            }
        },
        (None, None) => Bytes::new(),
    }
}

pub(super) fn rewrite(fields: &Fields<'_>, intern: &mut Interner) -> Option<Rewrite> {
    let hostname = authority(fields).and_then(|text| HeaderValue::from_str(text).ok());
    let text = fields.text("uri").filter(|text| !text.is_empty());
    let by_regex = fields.fields("uriRegexRewrite");
    if text.is_some() && by_regex.is_some() {
        fields.report(
            "uriRegexRewrite",
            Cause::Invalid,
            "uri and uriRegexRewrite exclude each other",
        );
    }
    let path = match (text, by_regex) {
        (Some(text), _) => match paths::check_replacement(text, false) {
            Ok(()) => Some(PathChange::Start(intern.text(text))),
            Err(reason) => {
                fields.report("uri", Cause::Invalid, reason);
                None
            }
        },
        (None, Some(one)) => substitution(&one),
        (None, None) => None,
    };
    if hostname.is_none() && path.is_none() {
        fields.report("", Cause::Invalid, "needs uri, authority or uriRegexRewrite");
        return None;
    }
    Some(Rewrite { hostname, path })
}

fn substitution(fields: &Fields<'_>) -> Option<PathChange> {
    let pattern = fields.text("match").unwrap_or("");
    let rewrite = fields.text("rewrite").unwrap_or("");
    if pattern.is_empty() || pattern.len() > 1024 || rewrite.len() > 1024 {
        fields.report("", Cause::Invalid, "needs a match; both have at most 1024 bytes");
        return None;
    }
    // What follows a path is not its business.
    if rewrite.contains(['?', '#']) || rewrite.contains(|c: char| !c.is_ascii_graphic()) {
        fields.report("rewrite", Cause::Invalid, "has a letter that a path cannot have");
        return None;
    }
    match Substitution::new(pattern, rewrite) {
        Ok(substitution) => Some(PathChange::Found(substitution)),
        Err(error) => {
            fields.report("", Cause::Invalid, error);
            None
        }
    }
}

/// `authority`: a host, perhaps with a port.
fn authority<'a>(fields: &Fields<'a>) -> Option<&'a str> {
    let text = fields.text("authority").filter(|text| !text.is_empty())?;
    if Authority::try_from(text).map_or(true, |host| host.as_str().contains('@')) {
        fields.report("authority", Cause::Invalid, format_args!("\"{text}\" is no host"));
        return None;
    }
    Some(text)
}
