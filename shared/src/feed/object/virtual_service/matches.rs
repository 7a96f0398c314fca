//! `match`: what a request must look like.

use std::sync::Arc;

use http::{HeaderName, Method};

use crate::feed::fields::Fields;
use crate::feed::intern::Interner;
use crate::feed::verdict::Cause;
use crate::mesh::{Further, HeaderMatch, HttpMatch, PathMatch, Pattern, QueryMatch, ValueMatch};

use super::MOST_ENTRIES;

/// The longest text that a request is compared with.
const MOST_BYTES: usize = 4096;

/// Istio: without a match for the path it is the prefix of a slash, which a rewrite replaces.
pub(super) fn everything() -> HttpMatch {
    let path = PathMatch::Start { text: "/".into(), any_case: false };
    HttpMatch { path, ..HttpMatch::everything() }
}

/// Whether every request matches, on whichever port.
pub(super) fn is_everything(wanted: &HttpMatch) -> bool {
    *wanted == everything()
}

/// Nothing when it cannot be evaluated, which is reported.
pub(super) fn read(fields: &Fields<'_>, intern: &mut Interner) -> Option<HttpMatch> {
    fields.foreign(&["name"]);
    fields.unsupported(&["statPrefix"], "metrics are by service and route");
    let here = is_for_mesh(fields);
    let reason = "labels of clients are not known to a waypoint: the match is left out";
    let labelled = fields.unsupported(&["sourceLabels"], reason);
    let mut wanted = everything();
    if let Some(path) = path(fields, intern) {
        wanted.path = path;
    }
    let mut further = Further {
        port: port(fields, "port"),
        scheme: value(fields, "scheme"),
        authority: value(fields, "authority"),
        source_namespace: fields.text("sourceNamespace").map(|text| intern.text(text)),
        ..Further::default()
    };
    match value(fields, "method") {
        Some(ValueMatch::Exact(text)) => match Method::from_bytes(text.as_bytes()) {
            Ok(method) => wanted.method = Some(method),
            Err(error) => fields.report("method", Cause::Invalid, error),
        },
        other => further.methods = other.filter(|other| *other != ValueMatch::Present),
    }
    let (with_headers, with) = headers(fields, "headers");
    let (without_headers, without) = headers(fields, "withoutHeaders");
    wanted.headers = with_headers;
    further.without_headers = without_headers;
    wanted.query = query(fields);
    if further != Further::default() {
        wanted.further = Some(Box::new(further));
    }
    (here && !labelled && with && without).then_some(wanted)
}

/// Whether `gateways` of a match has the mesh; what has not is reported.
pub(super) fn is_for_mesh(fields: &Fields<'_>) -> bool {
    let gateways = fields.texts("gateways");
    let here = gateways.is_empty() || gateways.contains(&"mesh");
    if !here {
        let reason = "a waypoint routes the traffic of the gateway \"mesh\": the match is left out";
        fields.report("gateways", Cause::Unsupported, reason);
    }
    here
}

/// A port of the service, 1 to 65535.
pub(super) fn port(fields: &Fields<'_>, name: &str) -> Option<u16> {
    let port = fields.number::<u16>(name);
    if port == Some(0) {
        fields.report(name, Cause::Invalid, "must be 1 to 65535");
    }
    port.filter(|port| *port > 0)
}

fn path(fields: &Fields<'_>, intern: &mut Interner) -> Option<PathMatch> {
    let any_case = fields.flag("ignoreUriCase").unwrap_or(false);
    let wanted = value(fields, "uri")?;
    let absolute = |text: Arc<str>| {
        if !text.starts_with('/') {
            fields.report("uri", Cause::Invalid, "must begin with a slash");
        }
        text
    };
    match wanted {
        ValueMatch::Exact(text) if any_case => Some(PathMatch::ExactAnyCase(absolute(text))),
        ValueMatch::Exact(text) => Some(PathMatch::Exact(intern.text(&absolute(text)))),
        ValueMatch::Start(text) => Some(PathMatch::Start { text: absolute(text), any_case }),
        ValueMatch::Regex(pattern) => {
            if any_case {
                let reason = "does not count for regex; write (?i) in it";
                fields.report("ignoreUriCase", Cause::Unsupported, reason);
            }
            Some(PathMatch::Regex(pattern))
        }
        ValueMatch::Present => None,
    }
}

/// Names that Istio reads in fields of their own.
const OWN_FIELDS: &[&str] = &["uri", "scheme", "method", "authority"];

/// The conditions, and whether all of them can be evaluated.
fn headers(fields: &Fields<'_>, name: &str) -> (Box<[HeaderMatch]>, bool) {
    let Some(map) = bounded(fields, name) else { return (Box::default(), true) };
    let (mut all, mut known) = (Vec::new(), true);
    for key in map.names() {
        let value = value(&map, key).unwrap_or(ValueMatch::Present);
        if key.starts_with("@request.auth.") {
            let reason = "claims of tokens are not matched in this version: the match is left out";
            map.report(key, Cause::Unsupported, reason);
            known = false;
        } else if OWN_FIELDS.contains(&key) {
            map.report(key, Cause::Unsupported, "is no header; it has a field of its own");
        } else if let Ok(name) = HeaderName::try_from(key) {
            all.push(HeaderMatch { name, value });
        } else {
            map.report(key, Cause::Invalid, "is no header name");
        }
    }
    (all.into(), known)
}

fn query(fields: &Fields<'_>) -> Box<[QueryMatch]> {
    let Some(map) = bounded(fields, "queryParams") else { return Box::default() };
    let one = |key: &str| {
        let value = value(&map, key).unwrap_or(ValueMatch::Present);
        QueryMatch { name: key.into(), value }
    };
    map.names().map(one).collect()
}

fn bounded<'a>(fields: &Fields<'a>, name: &str) -> Option<Fields<'a>> {
    let map = fields.fields(name)?;
    if map.names().count() > MOST_ENTRIES {
        let reason = format!("has more than {MOST_ENTRIES} entries");
        fields.report(name, Cause::Invalid, reason);
    }
    Some(map)
}

/// A StringMatch: exact, prefix or regex; one that says nothing is about presence.
pub(super) fn value(fields: &Fields<'_>, name: &str) -> Option<ValueMatch> {
    let one = fields.fields(name)?;
    string_match(&one)
}

pub(super) fn string_match(one: &Fields<'_>) -> Option<ValueMatch> {
    let said: Vec<&str> =
        ["exact", "prefix", "regex"].into_iter().filter(|kind| one.has(kind)).collect();
    let [kind] = said[..] else {
        if !said.is_empty() {
            let reason = format!("{} exclude each other", said.join(" and "));
            one.report("", Cause::Invalid, reason);
            one.foreign(&said);
        }
        return Some(ValueMatch::Present);
    };
    let text = one.text(kind)?;
    if text.len() > MOST_BYTES {
        one.report(kind, Cause::Invalid, format_args!("is longer than {MOST_BYTES} bytes"));
        return None;
    }
    match (kind, text) {
        // Istio: both stand for anything that is there.
        ("prefix", "") | ("regex", "*") => Some(ValueMatch::Present),
        ("exact", text) => Some(ValueMatch::Exact(text.into())),
        ("prefix", text) => Some(ValueMatch::Start(text.into())),
        (_, text) => match Pattern::new(text) {
            Ok(pattern) => Some(ValueMatch::Regex(pattern)),
            Err(error) => {
                one.report(kind, Cause::Invalid, error);
                None
            }
        },
    }
}
